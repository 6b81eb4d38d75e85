"""What a window becomes for a caller of ``step``: shared by the scalar, the vector and the closed-form environment.

Pure functions of a run's row and statistics, and the contract of whatever trains students; no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from atesd_env.config import RunConfig
from atesd_env.envs.columns import Row
from atesd_env.envs.observation import RunningStatistics, observation, observation_bounds
from atesd_env.errors import ConfigError

Observation = NDArray[np.float32]
"""[num_features], scaled statistics of a run."""

RENDER_MODES = ("ansi", "rgb_array")
"""How a run so far can be shown: as text, or as a picture, uint8 [H, W, 3]."""

RESET_FIRST = "step: expected a running episode, but none was started or it has ended; call reset() first."
"""What a step without an episode answers."""


class StudentRun(Protocol):
    """What a student's run has come to, for reading.

    Attributes:
        seed: Seed of the run.
        probe_nll: Latest probe NLL.
        statistics: What a controller may know.
        rows: The rows so far.
        broken: Why the student counts as broken, or None.
    """

    @property
    def seed(self) -> int: ...
    @property
    def probe_nll(self) -> float: ...
    @property
    def statistics(self) -> RunningStatistics: ...
    @property
    def rows(self) -> Sequence[Row]: ...
    @property
    def broken(self) -> str | None: ...


class Students(Protocol):
    """K students that can be trained side by side: ``Population``, or the closed form's ``ToyPopulation``.

    Attributes:
        runs: The state of each student's run.
    """

    @property
    def runs(self) -> Sequence[StudentRun]: ...

    def reset(self, index: int, seed: int) -> RunningStatistics:
        """Starts a new run of student ``index``."""
        ...

    def window(self, reveal_ratios: NDArray[np.float64], students: Sequence[int] | None = None) -> list[Row]:
        """Trains some students for one hold window, at reveal ratios [S, groups]; returns their rows."""
        ...

    def snapshot(self, index: int) -> Any:
        """Returns a copy of everything that student ``index``'s future depends on."""
        ...

    def restore(self, index: int, snapshot: Any) -> None:
        """Puts student ``index`` into the state of a snapshot, which stays usable."""
        ...

    def twin(self, num_students: int, index: int = 0) -> Students:
        """Returns students like student ``index``, on the same frozen base; they are not reset."""
        ...


@runtime_checkable
class BatchedStudents(Students, Protocol):
    """Students that never break and answer for all at once; infos are in Gymnasium's vector form, [S] in each name."""

    def window_infos(self, reveal_ratios: NDArray[np.float64], students: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Does what ``window`` does, and returns the rows."""
        ...

    def first_infos(self, students: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Returns what ``reset`` tells of some students."""
        ...

    def observations(self) -> Observation:
        """Returns the observations of all students, [K, num_features]."""
        ...


def make_spaces(config: RunConfig) -> tuple[spaces.Box[np.float32], spaces.Box[np.float32]]:
    """Returns the spaces of one student: observation [num_features], and action [groups] in [0, 1]."""
    low, high = observation_bounds()
    return spaces.Box(low, high, dtype=np.float32), spaces.Box(0.0, 1.0, (config.groups,), dtype=np.float32)


def checked_render_mode(render_mode: str | None) -> str | None:
    """Returns a render mode.

    Raises:
        ConfigError: If it is neither None nor one of ``RENDER_MODES``.
    """
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise ConfigError(f"render_mode: expected 'ansi', 'rgb_array' or None, got {render_mode!r}; pass one of these.")
    return render_mode


def draw_seed(generator: np.random.Generator) -> int:
    """Returns the seed of a run that nobody named."""
    return int(generator.integers(2**31))


def first_result(run: StudentRun) -> tuple[Observation, dict[str, Any]]:
    """Returns what ``reset`` returns: the first observation, and the run's seed and the base model's probe NLL."""
    return observation(run.statistics), {"seed": run.seed, "probe/nll": run.probe_nll}


def window_result(run: StudentRun, windows: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
    """Returns what ``step`` returns after the run's last window: observation, reward, terminated, truncated, info.

    Args:
        run: A run of at least one window.
        windows: Windows of the episode. A student that breaks in the last one has terminated, and is not truncated.
    """
    row = run.rows[-1]
    terminated = run.broken is not None
    truncated = not terminated and len(run.rows) >= windows
    info: dict[str, Any] = dict(row)
    if terminated:
        info["termination_reason"] = run.broken
    return observation(run.statistics), float(row["reward/total"] or 0.0), terminated, truncated, info
