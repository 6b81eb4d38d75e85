"""A wrapper that writes a run's windows to its files while an agent plays."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium

from atesd_env.envs.columns import CHOICE_COLUMNS, COLUMNS, GROUP_STATISTICS, HEALTH_COLUMNS
from atesd_env.errors import ConfigError
from atesd_env.files.run_folder import RunWriter

_BY_NAME = "|".join(column.name for column in (*HEALTH_COLUMNS, *CHOICE_COLUMNS))
_EXTRA_COLUMN = re.compile(
    rf"(exposure/reveal_ratio|exposure/problem_ratio|{'|'.join(GROUP_STATISTICS)})_\d+|toy/\w+|engine/\w+|instance|{_BY_NAME}"
)

BRANCH_COLUMNS = ("decision", "branch")
"""What a row of ``branches.jsonl`` has before a window's columns: the window that was decided on, and which of its branches it was."""


class RecordTrajectory(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Writes a row after each window of the first episode, and sample rollouts beside it.

    A row holds the window's columns (from ``info``: ``COLUMNS``, group columns, those of an engine and the closed form's own), the
    environment's ``timings``, the seconds of window and controller, the agent's numbers as ``agent/<name>``, ``status``
    ("running", "truncated" or "terminated") and ``reason`` (null unless terminated); the first one also the base model's
    ``probe/nll_before``.

    A folder holds one run, so only the first episode is recorded. What comes after it (agents reset by themselves
    after the last window, and some step on) is passed through and not written: see ``finished``. A reset in the middle
    of the episode ends the recording too; its last row then still says "running".

    Args:
        env: An environment of this package, wrapped or not.
        writer: Where the rows go; closed together with the environment.
        extra: Called once after each recorded window; its numbers become ``agent/<name>``.
        branches: Called then too; the rows of windows that the decision tried on branches.
        num_samples: Sample rollouts to keep of each window, where the environment has ``samples(n)``.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        writer: RunWriter,
        extra: Callable[[], dict[str, float]] | None = None,
        branches: Callable[[], Sequence[Mapping[str, Any]]] = tuple,
        num_samples: int = 1,
    ) -> None:
        super().__init__(env)
        self.writer = writer
        self._extra = extra
        self._branches = branches
        self._num_samples = num_samples
        self._finished = False
        self._nll_before: float | None = None
        # When the controller's turn began; None where that is not known, as in a run that goes on.
        self._turn_began_sec: float | None = None

    @property
    def finished(self) -> bool:
        """Whether the recorded episode is over; nothing is written any more."""
        return self._finished

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment; once a row is written, this ends the recording."""
        self._finished = self._finished or self.writer.num_rows > 0
        observation, info = super().reset(seed=seed, options=options)
        self._nll_before = info.get("probe/nll")
        self._turn_began_sec = time.perf_counter()
        return observation, info

    @contextmanager
    def outside_controller(self) -> Iterator[None]:
        """What is done in here, between two windows, does not count as the controller's time."""
        began_sec = time.perf_counter()
        try:
            yield
        finally:
            if self._turn_began_sec is not None:
                self._turn_began_sec += time.perf_counter() - began_sec

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Makes a window, then writes its row and samples if the first episode is still running.

        Raises:
            ConfigError: If ``info`` carries no row.
            RunFilesError: If they cannot be written; the window itself has been made.
        """
        began_sec = time.perf_counter()
        observation, reward, terminated, truncated, info = super().step(action)
        seconds = {
            "time/window_sec": time.perf_counter() - began_sec,
            "time/controller_sec": None if self._turn_began_sec is None else began_sec - self._turn_began_sec,
        }
        if not self._finished:
            self._finished = terminated or truncated
            self._record(info, "terminated" if terminated else "truncated" if truncated else "running", seconds)
        self._turn_began_sec = time.perf_counter()
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Closes the environment and the run's files."""
        try:
            super().close()
        finally:
            self.writer.close()

    def _record(self, info: Mapping[str, Any], status: str, seconds: Mapping[str, float | None]) -> None:
        if "window" not in info:
            raise ConfigError(
                f"info: expected a window's row (a key 'window'), got the keys {sorted(info)}; wrap an environment of "
                "atesd_env, or pass its row through the wrappers in between."
            )
        extra = self._extra() if self._extra is not None else {}
        first = (
            {"probe/nll_before": self._nll_before} if self.writer.num_rows == 0 and self._nll_before is not None else {}
        )
        self.writer.write_row(
            {
                **_row_columns(info),
                **first,
                # Every rollout token is learned from, unless the environment says otherwise.
                "update/num_tokens": getattr(self.env.unwrapped, "num_trained_tokens", info.get("rollout/num_tokens")),
                **seconds,
                # Last: where somebody else trains between two steps, only the environment knows a window's time.
                **getattr(self.env.unwrapped, "timings", {}),
                **{f"agent/{name}": value for name, value in extra.items()},
                "status": status,
                "reason": info.get("termination_reason"),
            }
        )
        for tried in self._branches():
            self.writer.write_branch({name: tried[name] for name in BRANCH_COLUMNS} | _row_columns(tried))
        if self._num_samples > 0 and hasattr(self.env.unwrapped, "samples"):
            for sample in self.env.unwrapped.samples(self._num_samples)[: self._num_samples]:
                self.writer.write_sample({"window": info["window"], **sample})


def _row_columns(info: Mapping[str, Any]) -> dict[str, Any]:
    names = [column.name for column in COLUMNS if column.name in info]
    extras = [name for name in info if _EXTRA_COLUMN.fullmatch(name)]
    return {name: info[name] for name in (*names, *extras)}
