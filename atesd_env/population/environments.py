"""The Gymnasium environments whose students are language models."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atesd_env.config import EnvConfig, instance_configs, preset_of
from atesd_env.envs.env import ExposureEnv
from atesd_env.envs.vector import ExposureVectorEnv
from atesd_env.errors import ConfigError
from atesd_env.population.distributed import make_population
from atesd_env.population.population import Population
from atesd_env.population.workers import ParallelPopulation


class TeacherExposureEnv(ExposureEnv[Population]):
    """Trains a student from the base model for one episode, a hold window of updates a step.

    Action: ``Box(0, 1, (groups,))``, the reveal ratio (one for each difficulty group). Observation: named statistics of the
    run (``observation.FEATURES``). Reward: learning progress on the probe plus the weighted teacher-grounded score. An episode
    is truncated after ``windows`` windows; it terminates only if the student breaks (a loss that is not finite, or a probe
    NLL ``collapse_nll`` above the initial one), with ``info["termination_reason"]`` and the reward ``-collapse_nll``.
    ``info`` is the window's row (``columns.COLUMNS``).

    Args:
        config: The configuration, complete.
        render_mode: "ansi", "rgb_array" or None.

    Attributes:
        config: The configuration.
        feature_names: Names of the observation's entries, in order.

    Raises:
        ConfigError: If the render mode is another one.
    """

    config: EnvConfig

    def _make_population(self) -> Population:
        return make_population(self.config)

    @property
    def num_trained_tokens(self) -> int | None:
        """Tokens that the last window's updates learned from; None before the first."""
        return self.population.num_trained_tokens.get(0)

    def save_adapter(self, directory: Path) -> None:
        """Writes the student's adapter as a plain peft adapter directory."""
        self.population.save_adapter(0, directory)


class TeacherExposureVectorEnv(ExposureVectorEnv[Population | ParallelPopulation]):
    """Trains K students, a hold window each a step, on one frozen base.

    Student k is the scalar environment reset with its seed, to float tolerance, because batches of other sizes round
    differently. One environment repeats bit for bit with its seeds, actions and number of threads.

    Args:
        config: The configuration, complete, of every student.
        num_envs: K, at least 1.
        render_mode: "ansi", "rgb_array" or None.
        workers: Processes that the students are shared out to, each with its part of the cores and a copy of the base.
            More than one pays for many small students on a CPU.
        instances: For each student a dictionary of the fields in which it differs from ``config``, such as its learning
            rate or the difficulty of its problems (``atesd_env.INSTANCE_FIELDS``); None makes all alike.

    Attributes:
        config: The configuration.
        configs: That of each student, K of them.
        workers: Processes.
        instances: The fields in which each student differs, or None.

    Raises:
        ConfigError: If ``num_envs``, ``render_mode``, ``workers`` or ``instances`` cannot be used.
    """

    config: EnvConfig

    def __init__(
        self,
        config: EnvConfig,
        num_envs: int = 1,
        render_mode: str | None = None,
        workers: int = 1,
        instances: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(config, num_envs, render_mode)
        if isinstance(workers, bool) or not isinstance(workers, numbers.Integral) or not 1 <= workers <= self.num_envs:
            raise ConfigError(
                f"workers: expected between 1 and {num_envs} processes for {num_envs} students, got {workers!r}; change "
                "workers or num_envs."
            )
        self.workers: int = int(workers)
        self.configs: list[EnvConfig] = instance_configs(config, instances, self.num_envs)
        self.instances: tuple[dict[str, Any], ...] | None = (
            None if instances is None else tuple(dict(fields) for fields in instances)
        )

    def _make_population(self) -> Population | ParallelPopulation:
        if self.workers > 1:
            return ParallelPopulation(self.config, self.num_envs, self.workers, self.instances)
        return make_population(self.config, self.num_envs, self.instances)


def make(**fields: Any) -> TeacherExposureEnv:
    """Entry point of the registered ids: ``env_id`` names the preset, ``render_mode`` and configuration fields may follow."""
    env_id = fields.pop("env_id")
    render_mode = fields.pop("render_mode", None)
    return TeacherExposureEnv(preset_of(EnvConfig, env_id, **fields), render_mode)


def make_vector(num_envs: int = 1, **fields: Any) -> TeacherExposureVectorEnv:
    """Vector entry point of the registered ids: ``env_id`` names the preset; fields and the class's arguments may follow."""
    env_id = fields.pop("env_id")
    options = {name: fields.pop(name) for name in ("render_mode", "workers", "instances") if name in fields}
    return TeacherExposureVectorEnv(preset_of(EnvConfig, env_id, **fields), num_envs, **options)
