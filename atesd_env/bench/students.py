"""Students of different instances side by side: each is trained in a population of those that share its base and batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from atesd_env.bench.instances import InstanceSet
from atesd_env.bench.observation import BenchObservation
from atesd_env.config import EnvConfig, RunConfig, ToyConfig
from atesd_env.envs.columns import Row
from atesd_env.envs.contract import ExposureScores, HeldRuns, Observation, StudentRun, Students
from atesd_env.envs.observation import RunningStatistics
from atesd_env.errors import ConfigError
from atesd_env.files.checkpoint import Checkpoint

if TYPE_CHECKING:
    from atesd_env.student.model import Student

_BASE_FIELDS = (
    "student",
    "device",
    "dtype",
    "base_quantization",
    "forward",
    "student_thinking",
    "teacher_thinking",
    "gradient_checkpointing",
)
_INSTANCE = "instance"


@dataclass(frozen=True)
class BenchSnapshot:
    """A student's state, and the instance that it is in."""

    instance: str
    state: Any


class BenchStudents(Students):
    """K students, each in an instance of its own, which it may change with each ``reset``.

    Those whose configurations differ only in what may differ within a population (``INSTANCE_FIELDS``) are trained together; each
    base model is loaded once and kept, so that a reset to another instance of it takes milliseconds.

    Args:
        instances: The set.
        observed: What a controller sees.
        shared: Fields that are the same for all instances.
        num_students: K.
        first: The instance that they have before their first reset.

    Attributes:
        next_instances: For each student, the id of the instance that its next ``reset`` starts.
        runs: The state of each student's run.
        timings: Seconds that the last window spent, over all populations, by column name.
    """

    def __init__(
        self,
        instances: InstanceSet,
        observed: BenchObservation,
        shared: dict[str, Any],
        num_students: int,
        first: str,
    ) -> None:
        self._instances, self._observed, self._shared = instances, observed, shared
        self.num_students = num_students
        self.config = instances.config(first, **shared)
        self.next_instances = [first] * num_students
        self.runs: HeldRuns[StudentRun] = HeldRuns(num_students, lambda index: self._homes[index].runs[index])
        self.timings: dict[str, float] = {}
        self._ids = [first] * num_students
        self._configs = [self.config] * num_students
        self._homes: dict[int, Students] = {}  # of each student that was ever started, its population
        self._populations: dict[RunConfig, Students] = {}
        self._bases: dict[tuple[Any, ...], Student] = {}

    def instance_of(self, index: int) -> str:
        """Returns the id of the instance that student ``index`` is in."""
        return self._ids[index]

    def config_of(self, index: int) -> RunConfig:
        """Returns the configuration of the instance that student ``index`` is in."""
        return self._configs[index]

    def reset(self, index: int, seed: int) -> RunningStatistics:
        """Starts a run of student ``index``'s next instance; returns the statistics before its first window."""
        self._enter(index, self.next_instances[index])
        return self._homes[index].reset(index, seed)

    def window(self, reveal_ratios: NDArray[np.float64], students: Sequence[int] | None = None) -> list[Row]:
        """Trains some students for one hold window, population by population; of a line, what the instance has count."""
        students = range(self.num_students) if students is None else students
        together: dict[int, list[int]] = {}
        for place, student in enumerate(students):
            together.setdefault(id(self._homes[student]), []).append(place)
        rows: dict[int, Row] = {}
        self.timings = {}
        for places in together.values():
            its_students = [students[place] for place in places]
            population = self._homes[its_students[0]]
            ratios = reveal_ratios[places][:, : population.config.action_size]
            rows |= zip(places, population.window(ratios, its_students), strict=True)
            for name, seconds in population.timings.items():
                self.timings[name] = self.timings.get(name, 0.0) + seconds
        return [rows[place] for place in range(len(students))]

    def window_result(self, index: int, row: Row) -> tuple[float, bool, bool, dict[str, Any]]:
        """Returns what ``step`` returns beside the observation; ``info`` also names the instance."""
        reward, terminated, truncated, info = super().window_result(index, row)
        return reward, terminated, truncated, info | {_INSTANCE: self._ids[index]}

    def first_info(self, index: int) -> dict[str, Any]:
        """Returns what ``reset`` tells of student ``index``, with its instance."""
        return self._homes[index].first_info(index) | {_INSTANCE: self._ids[index]}

    def observation(self, index: int) -> Observation:
        """Returns the observation of student ``index``, [num_features]."""
        return self._observed(self.runs[index], self._configs[index])

    def snapshot(self, index: int) -> BenchSnapshot:
        """Returns a copy of everything that student ``index``'s future depends on."""
        return BenchSnapshot(self._ids[index], self._homes[index].snapshot(index))

    def restore(self, index: int, snapshot: BenchSnapshot) -> None:
        """Puts student ``index`` into the instance and the state of a snapshot, which stays usable."""
        self._enter(index, snapshot.instance)
        self._homes[index].restore(index, snapshot.state)

    def checkpoint(self, index: int) -> Checkpoint:
        """Returns student ``index``'s state, its configuration and its instance in a form that files can hold."""
        inner = self._homes[index].checkpoint(index)
        return Checkpoint(inner.arrays, {**inner.description, _INSTANCE: self._ids[index]})

    def restored(self, index: int, checkpoint: Checkpoint) -> BenchSnapshot:
        """Returns the snapshot, for student ``index``, that ``checkpoint`` was made of.

        Raises:
            ConfigError: If it is that of no instance of this set, or of one that was another then.
        """
        found = checkpoint.description.get(_INSTANCE)
        if found is None:
            raise ConfigError(
                "state: expected one that the bench saved, got one without an instance; load it in the environment that saved it."
            )
        before = self._ids[index] if index in self._homes else found
        self._enter(index, found)
        try:
            return BenchSnapshot(found, self._homes[index].restored(index, checkpoint))
        finally:
            self._enter(index, before)

    def exposure_scores(
        self,
        index: int,
        ratios: NDArray[np.float64],
        with_mismatch: bool = True,
        num_problems: int | None = None,
        by_problem: bool = False,
    ) -> ExposureScores:
        """Returns what ratios [N] show student ``index``, for the groups of its instance or the problems of its next window."""
        return self._homes[index].exposure_scores(index, ratios, with_mismatch, num_problems, by_problem)

    def twin(self, num_students: int, index: int = 0) -> BenchStudents:
        """Returns students in student ``index``'s instance, on the same frozen base; they are not reset."""
        twin = BenchStudents(self._instances, self._observed, self._shared, num_students, self._ids[index])
        twin._bases = self._bases
        twin._populations[_shared(self._configs[index])] = self._homes[index].twin(num_students, index)
        for student in range(num_students):
            twin._enter(student, self._ids[index])
        return twin

    def samples(self, index: int, num_samples: int) -> Sequence[Any]:
        """Returns rollouts of student ``index``'s last update."""
        return self._homes[index].samples(index, num_samples)

    def save_adapter(self, index: int, directory: Path) -> None:
        """Writes student ``index``'s adapter as a plain peft adapter directory."""
        self._homes[index].save_adapter(index, directory)

    def close(self) -> None:
        """Lets go of the rollout engines' memory and processes."""
        for population in self._populations.values():
            population.close()

    def _enter(self, index: int, instance_id: str) -> None:
        """Puts student ``index`` into an instance, and into the population of those that it is trained with, in the same place."""
        config = self._instances.config(instance_id, **self._shared)
        shared = _shared(config)
        if shared not in self._populations:
            self._populations[shared] = self._made(config)
        self._ids[index], self._configs[index], self._homes[index] = instance_id, config, self._populations[shared]
        self._homes[index].take_instance(index, config)

    def _made(self, config: RunConfig) -> Students:
        if isinstance(config, ToyConfig):
            from atesd_env.simulated.toy_population import ToyPopulation

            return ToyPopulation(config, self.num_students)
        from atesd_env.population.distributed import is_launched
        from atesd_env.population.population import Population
        from atesd_env.student.model import bare_copy

        assert isinstance(config, EnvConfig)
        if is_launched():
            raise ConfigError(
                "ATESD-Bench-v0: expected one process, got a launcher's several; start it by itself, and many runs side by side with "
                "`atesd bench run --processes`."
            )
        key = tuple(getattr(config, name) for name in _BASE_FIELDS)
        base = self._bases.get(key)
        population = Population(config, self.num_students, None if base is None else bare_copy(base))
        self._bases.setdefault(key, population.student)
        return population


def _shared(config: RunConfig) -> RunConfig:
    """Returns what a configuration must have in common with another's for their students to be trained together."""
    return type(config)(
        **{name: value for name, value in config.keywords().items() if name not in config.names("instance")}
    )
