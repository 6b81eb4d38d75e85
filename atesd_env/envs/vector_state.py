"""The whole state of a vector environment in a form that files can hold: every student's, and the seeds to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from atesd_env.envs.contract import Students
from atesd_env.errors import ConfigError
from atesd_env.files.checkpoint import Checkpoint


def vector_checkpoint(students: Students, generators: Sequence[np.random.Generator]) -> Checkpoint:
    """Returns a checkpoint with each student's arrays under ``students/<k>/`` and its description in ``students``.

    Args:
        students: The K students.
        generators: For each, the generator that draws the seeds of runs that nobody named.
    """
    parts = [students.checkpoint(index) for index in range(students.num_students)]
    return Checkpoint(
        {f"students/{index}/{name}": array for index, part in enumerate(parts) for name, array in part.arrays.items()},
        {
            "students": [part.description for part in parts],
            "generators": [generator.bit_generator.state for generator in generators],
        },
    )


def restore_vector_checkpoint(
    students: Students, generators: Sequence[np.random.Generator], checkpoint: Checkpoint
) -> None:
    """Puts every student, and the generators of seeds, where they were.

    Raises:
        ConfigError: If it holds another number of students, or one of another configuration; nothing is changed then.
    """
    descriptions = checkpoint.description.get("students")
    if not isinstance(descriptions, list) or len(descriptions) != students.num_students:
        found = f"{len(descriptions)} students" if isinstance(descriptions, list) else "a scalar environment's"
        raise ConfigError(
            f"state: expected that of {students.num_students} students, got {found}; make the environment that saved it."
        )
    snapshots = [
        students.restored(index, Checkpoint(_arrays_of(checkpoint.arrays, index), description))
        for index, description in enumerate(descriptions)
    ]
    states = checkpoint.description["generators"]
    for _, state in zip(generators, states, strict=True):
        np.random.default_rng().bit_generator.state = (
            state  # one that cannot be used is found out before anything is changed
        )
    for index, snapshot in enumerate(snapshots):
        students.restore(index, snapshot)
        generators[index].bit_generator.state = states[index]


def _arrays_of(arrays: Mapping[str, np.ndarray], index: int) -> dict[str, Any]:
    prefix = f"students/{index}/"
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
