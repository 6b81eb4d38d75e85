"""The oracle's schedules of a set: a JSON file beside the set's own, bound to its fingerprint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atesd_env.bench.instances import InstanceSet
from atesd_env.bench.known import references_file
from atesd_env.errors import ConfigError, DataError
from atesd_env.files.atomic import write_atomically
from atesd_env.files.reading import read_json, reading

CARD = ("command", "commit", "seeds", "windows_spent")
"""What the file says of each schedule beside its ratios: how it was found, on which seeds, and how many windows of a student it took."""


def schedules_file(instances: InstanceSet) -> Path:
    """Returns where a set's schedules lie: beside its own file, as ``NAME.oracle.json``."""
    return references_file(instances).with_suffix(".oracle.json")


def oracle_schedule(instances: InstanceSet, instance_id: str) -> NDArray[np.float64]:
    """Returns the ratios of the oracle's schedule of an instance, [windows, groups].

    Raises:
        ConfigError: If the set has no such instance, or none was found for it.
        DataError: If the file cannot be read, or is that of another version of the set.
    """
    told = oracle_schedules(instances)
    if instances[instance_id].id not in told:
        raise ConfigError(
            f"oracle: expected a schedule of {instance_id!r}, got those of {', '.join(told) or 'no instance'}; choose one of these."
        )
    config = instances.config(instance_id)
    path = schedules_file(instances)
    with reading(str(path), "the oracle's schedules", DataError, remedy="take the packaged file"):
        ratios = np.array(told[instance_id]["ratios"], dtype=np.float64)
        fits = ratios.shape == (config.windows, config.groups) and bool(((ratios >= 0) & (ratios <= 1)).all())
    if not fits:
        raise DataError(
            f"{path}: expected ratios in [0, 1] for {config.windows} windows and {config.groups} groups of {instance_id!r}, got an array "
            f"of shape {ratios.shape}; take the packaged file."
        )
    return ratios


def oracle_schedules(instances: InstanceSet) -> dict[str, dict[str, Any]]:
    """Returns by instance the schedule that was found, ``ratios`` [windows][groups], and its ``CARD``; empty where there is no file.

    Raises:
        DataError: If the file cannot be read, or is that of another version of the set.
    """
    path = schedules_file(instances)
    if not path.exists():
        return {}
    with reading(str(path), "the oracle's schedules", DataError, remedy="take the packaged file"):
        content = read_json(path)
        fingerprint, found = content["fingerprint"], dict(content["schedules"])
    if fingerprint != instances.fingerprint:
        raise DataError(
            f"{path}: expected schedules of {instances.name} {instances.version} ({instances.fingerprint}), got those of {fingerprint!r}; "
            "search for them again."
        )
    return found


def write_schedules(instances: InstanceSet, schedules: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the oracle's schedules of a set beside its file.

    Args:
        instances: The set.
        schedules: For an instance ``ratios`` and its ``CARD``.

    Raises:
        ConfigError: If there is no such instance, or an entry is missing or unknown.
        RunFilesError: If the file cannot be written.
    """
    for instance_id, told in schedules.items():
        instances[instance_id]  # raises, and suggests the nearest
        if set(told) != {"ratios", *CARD}:
            raise ConfigError(
                f"schedules: expected the entries ratios, {', '.join(CARD)}, got {', '.join(told)}; pass these."
            )
    content: dict[str, Any] = {
        "set": instances.name,
        "version": instances.version,
        "fingerprint": instances.fingerprint,
    }
    content["schedules"] = {name: dict(told) for name, told in schedules.items()}
    write_atomically(schedules_file(instances), (json.dumps(content, indent=1) + "\n").encode())
