"""``ATESD-Bench-v0``: with each reset, a student of another instance of a set."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from gymnasium.spaces import Box

from atesd_env.bench.instances import ENV_ID, Instance, InstanceSet
from atesd_env.bench.known import reference
from atesd_env.bench.landscapes import landscape
from atesd_env.bench.observation import BenchObservation
from atesd_env.bench.seeds import SEEDS, check_seed
from atesd_env.bench.students import BenchStudents
from atesd_env.config import BenchConfig, RunConfig, preset_of
from atesd_env.config.checks import checked_seed
from atesd_env.envs.contract import Observation, Spaces, StudentRun, checked_options
from atesd_env.envs.env import ExposureEnv
from atesd_env.envs.vector import Batch, ExposureVectorEnv, checked_seeds
from atesd_env.errors import ConfigError
from atesd_env.streams import numpy_stream

Instances = str | os.PathLike[str] | InstanceSet | None
"""A packaged set's name, a set's file, a set, or None for the packaged one of the id."""


class _Drawing:
    """What both environments know of their instances, and how one is drawn.

    Attributes:
        instance_set: The whole set, all splits.
        instances: The instances that are drawn: those of the split, or the one that was named.
        bench: What was asked for.
        observed: The observation's layout.
        shared: Fields that are the same for all instances: the reward's, and what an action holds.
        config: The configuration to begin with, of the first of the instances.
    """

    def __init__(self, instances: Instances, fields: dict[str, Any]) -> None:
        if instances is not None:
            fields = fields | {"instances": instances.name if isinstance(instances, InstanceSet) else instances}
        self.bench = preset_of(BenchConfig, ENV_ID, **fields)
        self.instance_set = instances if isinstance(instances, InstanceSet) else InstanceSet.load(self.bench.instances)
        self.instances: tuple[Instance, ...] = self.instance_set.of(self.bench.split)
        if self.bench.instance is not None:
            self.instances = (self.named(self.bench.instance),)
        self.observed = BenchObservation(self.instance_set.groups, context=self.bench.context)
        self.shared: dict[str, Any] = {name: getattr(self.bench, name) for name in BenchConfig.names("is_reward")}
        if self.bench.action_ratios != "group":  # other students than language models have no such field
            self.shared["action_ratios"] = self.bench.action_ratios
        self.config = self.instance_set.config(self.instances[0].id, **self.shared)

    def named(self, instance_id: str) -> Instance:
        """Returns an instance of the split.

        Raises:
            ConfigError: If there is none of that id, or it is in another split.
        """
        found = self.instance_set[instance_id]
        if found.split != self.bench.split:
            raise ConfigError(
                f"instance: expected one of the split {self.bench.split!r}, got {instance_id!r}, which is in {found.split!r}; make "
                f"the environment with split={found.split!r}."
            )
        return found

    def drawn_seed(self, generator: np.random.Generator) -> int:
        """Returns a seed of the split."""
        seeds = SEEDS[self.bench.split]
        return int(generator.integers(seeds.start, seeds.stop))

    def drawn(self, seed: int, following: int | None) -> str:
        """Returns the id of the instance that a run plays.

        Args:
            seed: Its seed.
            following: Where nobody named the seed, the place of the instance whose turn it is.
        """
        if self.bench.order == "uniform":
            place = int(numpy_stream(seed, "instance").integers(len(self.instances)))
        else:
            place = seed if following is None else following
        return self.instances[place % len(self.instances)].id

    def place_after(self, instance_id: str) -> int:
        """Returns the place of the instance that follows another one; the first where that is none of them."""
        ids = [instance.id for instance in self.instances]
        return ids.index(instance_id) + 1 if instance_id in ids else 0

    @property
    def num_ratios(self) -> int:
        """Most reveal ratios of an instance: those of an action, the same for the whole set."""
        return max(self.instance_set.config(one.id, **self.shared).action_size for one in self.instance_set)

    def students(self, num_students: int) -> BenchStudents:
        """Returns K students, to begin with of the first of the instances."""
        return BenchStudents(self.instance_set, self.observed, self.shared, num_students, self.instances[0].id)


def played(config: BenchConfig, seed: int) -> BenchConfig:
    """Returns the configuration of a run with a seed, with the windows of the instance that it plays.

    Raises:
        ConfigError: If the seed belongs to another split, or the set cannot be used.
    """
    check_seed(seed, config.split)
    drawing = _Drawing(None, config.keywords())
    windows = drawing.instance_set.config(drawing.drawn(seed, None)).windows
    # Not by ``replace``: how long an instance's episode is, is nobody's choice.
    return dataclasses.replace(config, windows=windows)


class _DrawsInstances:
    """What both environments have of their drawing, which they make first of all."""

    _drawing: _Drawing

    @property
    def instance_set(self) -> InstanceSet:
        """The whole set, all splits."""
        return self._drawing.instance_set

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The instances that are drawn."""
        return self._drawing.instances

    def observed(self, run: StudentRun, config: RunConfig) -> Observation:
        """Returns what is seen of a run of an instance with this configuration (``observation.BenchObservation``)."""
        return self._drawing.observed(run, config)

    def reference(self, instance_id: str) -> pd.DataFrame:
        """Returns what known controllers reach on an instance of the set, and what it cost (``bench.known``).

        Raises:
            ConfigError: If there is no such instance.
            DataError: If the set has no references, or those of another version.
        """
        return reference(self.instance_set, instance_id)

    def landscape(self, instance_id: str, *, branches: bool = False) -> pd.DataFrame:
        """Returns every window of known controllers' runs of an instance of the set, or those on branches (``bench.landscapes``).

        Raises:
            ConfigError: If there is no such instance.
            DataError: If the set has no landscapes, or those of another version.
        """
        return landscape(self.instance_set, instance_id, branches=branches)

    def _make_spaces(self) -> Spaces:
        return self._drawing.observed.space, Box(0.0, 1.0, (self._drawing.num_ratios,), dtype=np.float32)


class BenchEnv(_DrawsInstances, ExposureEnv[BenchStudents]):
    """Trains a student of an instance for one episode; the next reset draws another instance.

    Spaces are the same for all instances of a set. Action: ``Box(0, 1, (n,))`` with the most groups of an instance (with
    ``action_ratios="problem"``, the most problems of a window); an instance with fewer looks at its first ratios only. Observation:
    that of any run, then of each group the last window's length, entropy and mismatch if there are several
    (``observation.BenchObservation``); ``feature_names`` tells. ``info["instance"]`` is the instance's id. The reward is the drop of
    the probe NLL itself ("signed") plus the weighted teacher-grounded score.

    ``reset`` starts the instance that ``options={"instance": id}`` names. Else with ``order="uniform"`` the run's seed draws it,
    so that a seed is always the same run; with "round-robin" seed s takes number s of the split (modulo their number), and a
    reset without a seed the next one. A seed that belongs to another split is refused; those that nobody names are drawn from
    the split's own (``seeds.SEEDS``).

    Args:
        instances: The set: a packaged one's name, a file, an ``InstanceSet``; None is "atesd-bench".
        render_mode: "ansi", "rgb_array" or None.
        **fields: Fields of ``BenchConfig``: split, instance, order, action_ratios, context, and the reward's.

    Attributes:
        config: The configuration of the present instance.
        feature_names: Names of the observation's entries, in order.

    Raises:
        ConfigError: If an argument cannot be used.
    """

    reset_options = ("state", "instance")

    def __init__(self, instances: Instances = None, render_mode: str | None = None, **fields: Any) -> None:
        self._drawing = _Drawing(instances, fields)
        self._named: str | None = None
        super().__init__(self._drawing.config, render_mode)
        self.feature_names = self._drawing.observed.names

    def _make_population(self) -> BenchStudents:
        return self._drawing.students(1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts a run of the next instance.

        Args:
            seed: The run's seed; None draws one of the split's.
            options: ``{"instance": id}`` names the instance; ``{"state": path}`` goes on where ``save_state`` was, instead.

        Raises:
            ConfigError: If the seed or the instance belongs to another split.
        """
        named = checked_options(options, self.reset_options).get("instance")
        self._named = None if named is None else self._drawing.named(named).id
        if seed is not None:
            check_seed(checked_seed(seed), self._drawing.bench.split)
        return super().reset(seed=seed, options=options)

    def _start(self, seed: int | None) -> None:
        drawing, following = self._drawing, None
        if seed is None:
            seed = drawing.drawn_seed(self.np_random)
            following = drawing.place_after(self.population.instance_of(0)) if self._is_started else 0
        self.population.next_instances[0] = self._named or drawing.drawn(seed, following)
        super()._start(seed)
        self.config = self.population.config_of(0)

    def restore(self, snapshot: Any) -> None:
        """Returns to the state of a snapshot, of this or another environment, and to its instance."""
        super().restore(snapshot)
        self.config = self.population.config_of(0)


class BenchVectorEnv(_DrawsInstances, ExposureVectorEnv[BenchStudents]):
    """Trains K students side by side, each in an instance of its own, which changes with each of its resets.

    Students that share a base and a batch are trained in one population, others beside it; student k is the scalar environment
    reset with its seed, to float tolerance. ``infos["instance"]`` has the ids. Arguments and attributes are those of ``BenchEnv``.

    Args:
        instances: As there.
        num_envs: K, at least 1. Each base that is met holds K adapters.
        render_mode: "ansi", "rgb_array" or None.
        max_episode_steps: The id's, which ``gymnasium.make_vec`` passes on; nothing is cut here.
        **fields: As there.
    """

    reset_options = ("reset_mask", "state", "instance")

    def __init__(
        self,
        instances: Instances = None,
        num_envs: int = 1,
        render_mode: str | None = None,
        *,
        max_episode_steps: int | None = None,
        **fields: Any,
    ) -> None:
        self._drawing = _Drawing(instances, fields)
        super().__init__(self._drawing.config, num_envs, render_mode)
        self.feature_names = self._drawing.observed.names
        self._named: list[str | None] = [None] * self.num_envs

    def _make_population(self) -> BenchStudents:
        return self._drawing.students(self.num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Batch, dict[str, Any]]:
        """Starts new runs, of all students or of some.

        Args:
            seed: As in ``ExposureVectorEnv``; seeds that nobody names are drawn from the split's.
            options: As there, and ``"instance"``: an id for all students that start, or one for each of K.

        Raises:
            ConfigError: If a seed or an instance belongs to another split.
        """
        for one in checked_seeds(seed, self.num_envs):
            if one is not None:
                check_seed(one, self._drawing.bench.split)
        named = checked_options(options, self.reset_options).get("instance")
        ids = [named] * self.num_envs if named is None or isinstance(named, str) else list(named)
        if len(ids) != self.num_envs:
            raise ConfigError(
                f"instance: expected one id, or one for each of {self.num_envs} students, got {len(ids)}; name one each."
            )
        self._named = [None if one is None else self._drawing.named(one).id for one in ids]
        try:
            return super().reset(seed=seed, options=options)
        finally:
            self._named = [None] * self.num_envs  # of this reset only, and of no autoreset

    def _start(self, students: Sequence[int], seeds: Sequence[int | None]) -> None:
        drawing, drawn = self._drawing, list(seeds)
        for index in students:
            seed, following = drawn[index], None
            if seed is None:
                seed = drawn[index] = drawing.drawn_seed(self.generators[index])
                is_first = not self.is_started[index]
                following = index if is_first else drawing.place_after(self.population.instance_of(index))
            self.population.next_instances[index] = self._named[index] or drawing.drawn(seed, following)
        super()._start(students, drawn)
