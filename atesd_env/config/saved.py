"""Configurations that files hold, of this version and of older ones: read, and compared with what is asked for.

A file holds every field of the configuration that it was written under. One of an older version may hold more: the fields of
other leaves, which stood in one class then and played no part in its run, and fields that are gone. These are passed over.
It may hold fewer: a new field changes nothing by itself, so a missing one has its default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from atesd_env.config.bench import BenchConfig
from atesd_env.config.language_model import EnvConfig, is_server
from atesd_env.config.run import RunConfig
from atesd_env.config.simulated import SurrogateConfig, ToyConfig
from atesd_env.config.task import check_read_task
from atesd_env.errors import ConfigError

_LEAVES = (EnvConfig, ToyConfig, SurrogateConfig, BenchConfig)
_FIELDS = {field.name: field for leaf in _LEAVES for field in dataclasses.fields(leaf)}


def read_config(fields: Mapping[str, Any]) -> RunConfig:
    """Returns the configuration that a file holds.

    Args:
        fields: Its fields, as JSON gives them back (lists for tuples); perhaps of an older version.

    Raises:
        ConfigError: If a value is refused.
    """
    check_read_task(fields.get("task"))
    leaf = _leaf(fields)
    return leaf(**{name: fields[name] for name in leaf.names() if name in fields})


def differing_fields(there: Mapping[str, Any], here: Mapping[str, Any], where: str) -> list[str]:
    """Returns what differs between two configurations in a way that matters, as texts "name (value there, value here)".

    A run may go on with another server, and with other values of the fields that only carry it out.

    Args:
        there: The fields of the older one; lists may stand for tuples, as JSON gives them back.
        here: The fields of the newer one.
        where: How the newer one is called, such as "here".
    """
    kinds = [_leaf(fields).student_kind for fields in (there, here)]
    if kinds[0] != kinds[1]:
        return [f"student ({kinds[0]!r} there, {kinds[1]!r} {where})"]
    different = []
    for name, value in here.items():
        field = _FIELDS.get(name)
        default = "nothing" if field is None else field.default
        old, new = _as_json(there.get(name, default)), _as_json(value)
        if old == new or (field is not None and field.metadata.get("is_carrying_out")):
            continue
        if name == "rollout_engine" and is_server(str(old)) and is_server(str(new)):
            continue
        different.append(f"{name} ({old!r} there, {value!r} {where})")
    return different


def _leaf(fields: Mapping[str, Any]) -> type[RunConfig]:
    if "file" in fields:
        return SurrogateConfig
    if "instances" in fields:
        return BenchConfig
    # "toy" was the mark of a closed form when all fields stood in one class.
    return ToyConfig if fields.get("student", "toy") == "toy" else EnvConfig


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def check_same_config(config: RunConfig, saved: Mapping[str, Any]) -> None:
    """Refuses a state that was saved under another configuration, where it would not go on as it was.

    Args:
        config: The environment's configuration.
        saved: All fields of the state's, as JSON gives them back (lists for tuples).

    Raises:
        ConfigError: If they differ; the message names the fields.
    """
    different = differing_fields(saved, config.keywords(), "here")
    if different:
        raise ConfigError(
            f"state: expected one saved under this configuration, got other values of {', '.join(different)}; make the "
            "environment with the state's values."
        )
