"""The whole state of a vector environment in a form that files can hold: every student's, and the seeds to come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from atesd_env.config import EnvConfig, ToyConfig
from atesd_env.errors import ConfigError, NoEpisodeError
from atesd_env.files.checkpoint import Checkpoint
from atesd_env.simulated.toy_population import from_toy_checkpoint, to_toy_checkpoint

if TYPE_CHECKING:
    from atesd_env.population.vector import TeacherExposureVectorEnv


def vector_checkpoint(env: TeacherExposureVectorEnv) -> Checkpoint:
    """Returns a checkpoint with each student's arrays under ``students/<k>/`` and its description in ``students``.

    Raises:
        NoEpisodeError: If a student has never been started.
    """
    if not env.is_started.all():
        raise NoEpisodeError("state: expected episodes, but none was started; call reset() first.")
    students = [_student_checkpoint(env, index) for index in range(env.num_envs)]
    return Checkpoint(
        {
            f"students/{index}/{name}": array
            for index, student in enumerate(students)
            for name, array in student.arrays.items()
        },
        {
            "students": [student.description for student in students],
            "is_running": env.is_running.tolist(),
            "generators": [generator.bit_generator.state for generator in env.generators],
        },
    )


def restore_vector_checkpoint(env: TeacherExposureVectorEnv, checkpoint: Checkpoint) -> None:
    """Puts every student, and the generators of seeds, where they were; whether students run is the caller's to set.

    Raises:
        ConfigError: If it holds another number of students, or one of another configuration; nothing is changed then.
    """
    descriptions = checkpoint.description.get("students")
    if not isinstance(descriptions, list) or len(descriptions) != env.num_envs:
        found = f"{len(descriptions)} students" if isinstance(descriptions, list) else "a scalar environment's"
        raise ConfigError(
            f"state: expected that of {env.num_envs} students, got {found}; make the environment that saved it."
        )
    decode = _decoder(env)
    states = [
        decode(index, Checkpoint(_arrays_of(checkpoint.arrays, index), description))
        for index, description in enumerate(descriptions)
    ]
    for index, state in enumerate(states):
        env.population.restore(index, state)
        env.generators[index].bit_generator.state = checkpoint.description["generators"][index]


def _student_checkpoint(env: TeacherExposureVectorEnv, index: int) -> Checkpoint:
    state = env.population.snapshot(index)
    config = env.configs[index]
    if isinstance(config, ToyConfig):
        return to_toy_checkpoint(state, config)
    assert isinstance(config, EnvConfig)
    # Imported here: the closed form needs no torch.
    from atesd_env.population.snapshot import to_checkpoint

    return to_checkpoint(state, config)


def _decoder(env: TeacherExposureVectorEnv) -> Callable[[int, Checkpoint], Any]:
    config = env.config
    if isinstance(config, ToyConfig):
        return lambda _, checkpoint: from_toy_checkpoint(checkpoint, config)
    from atesd_env.population.snapshot import from_checkpoint

    configs = [config for config in env.configs if isinstance(config, EnvConfig)]
    size = env.population.num_adapter_parameters
    return lambda index, checkpoint: from_checkpoint(checkpoint, configs[index], size)


def _arrays_of(arrays: Mapping[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    prefix = f"students/{index}/"
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
