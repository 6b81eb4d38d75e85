"""What the agent of a run plays in: a bare environment at first, and from the moment that there are files a recorded one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import gymnasium

from agents.planner import Planner
from atesd.experiments.replay import ReplayedEnv
from atesd_env.envs.recording import RecordTrajectory
from atesd_env.files.run_folder import RunWriter

ReportRow = Callable[[dict[str, Any]], None]
"""Called with the row of a window."""


class PlayedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment with a place for what records it.

    An agent is made before its run's files are touched: one that cannot be made leaves them as they are. So it holds this,
    and ``record`` says later where its windows are written.

    Args:
        env: The environment.
        agent_name: What messages call the agent.
        report: Called with each new window's ``info``.

    Attributes:
        shown: What the agent was shown since ``record``.
    """

    shown: ReplayedEnv

    def __init__(self, env: gymnasium.Env[Any, Any], agent_name: str, report: ReportRow | None = None) -> None:
        super().__init__(env)
        self._agent_name = agent_name
        self._report = report
        self._recorder: RecordTrajectory | None = None

    def record(self, writer: RunWriter, diagnostics: Diagnostics) -> None:
        """From here on, writes windows to a run's files with the agent's numbers, reports them, and keeps what was shown."""
        self._recorder = RecordTrajectory(self.env, writer, extra=diagnostics, branches=diagnostics.branches)
        self.shown = ReplayedEnv(self._recorder, self._agent_name)

    @property
    def is_replaying(self) -> bool:
        """Whether recorded windows are still to be shown again."""
        return self.shown.is_replaying

    @property
    def is_finished(self) -> bool:
        """Whether the recorded episode is over."""
        return self._recorder is not None and self._recorder.finished

    def outside_controller(self) -> AbstractContextManager[None]:
        """What is done in here, between two windows, does not count as the controller's time."""
        assert self._recorder is not None, "expected a call of `record` first"
        return self._recorder.outside_controller()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment, or shows a recorded beginning again."""
        if self._recorder is None:
            return super().reset(seed=seed, options=options)
        return self.shown.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Makes a window, or shows a recorded one again.

        Raises:
            AgentError: If the agent decides otherwise than it did in the recorded window.
            RunFilesError: If the window's row cannot be written.
        """
        if self._recorder is None:
            return super().step(action)
        is_new = not self.is_replaying
        observation, reward, terminated, truncated, info = self.shown.step(action)
        if is_new and self._report is not None:
            with self.outside_controller():
                self._report(info)
        return observation, reward, terminated, truncated, info


class Diagnostics:
    """An agent's ``diagnostics``, if it has some; where they fail, the window's row is written without them first."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent
        self._failure: Exception | None = None

    def __call__(self) -> dict[str, float]:
        if not hasattr(self._agent, "diagnostics"):
            return {}
        try:
            return dict(self._agent.diagnostics())
        except Exception as error:
            self._failure = error
            return {}

    def branches(self) -> Sequence[Mapping[str, Any]]:
        """Returns the rows of windows that its last decision tried on branches."""
        return self._agent.branch_rows if isinstance(self._agent, Planner) else ()

    def raise_failure(self) -> None:
        """Raises what the last call failed with, if it did."""
        if self._failure is not None:
            raise self._failure
