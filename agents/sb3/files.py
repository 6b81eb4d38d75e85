"""Files of Stable-Baselines3 agents: its own zip, with one member more that says what the agent was made for.

Stable-Baselines3 unpickles a part of its zip, and unpickling can run any code: load only files you trust. The member
``atesd.json`` is plain JSON and is read first, so that a file of another origin, for other spaces, or cut short is refused
before anything is unpickled.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import pickletools
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.atomic import failure

FORMAT_VERSION = 1
"""Version of ``atesd.json``."""
TRUST = "Stable-Baselines3's zip files are unpickled, which can run any code: load only files you trust."
"""What every message about such a file ends with."""
MOVED = {"agents.beta_policy": "agents.sb3.beta_policy"}
"""Modules that files of before name, and where their classes stand now."""

_MEMBER = "atesd.json"


@dataclass(frozen=True)
class Description:
    """What an agent was made for.

    Attributes:
        agent: Name of the algorithm, as in a spec.
        groups: Reveal ratios of a decision.
        grid: Ratios of each group's grid; None if it chooses from [0, 1] itself.
        feature_names: Entries of the observation, in order.
        seed: Its seed.
        format_version: Version of this description.
    """

    agent: str
    groups: int
    grid: int | None
    feature_names: Sequence[str]
    seed: int
    format_version: int = FORMAT_VERSION


def packed(algorithm: Any, description: Description) -> bytes:
    """Returns the zip of an algorithm, which Stable-Baselines3's own ``load`` reads too."""
    buffer = io.BytesIO()
    algorithm.save(buffer)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(_MEMBER, json.dumps(asdict(description), indent=2))
    return buffer.getvalue()


def read_agent_file(path: Path) -> bytes:
    """Returns the bytes of an agent's file.

    Raises:
        RunFilesError: If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise failure(path, "an agent's file, which `save` writes", error) from error


def described(content: bytes, source: str) -> Description:
    """Returns the description in a zip, every member of which is whole; nothing is unpickled.

    Raises:
        RunFilesError: If it is no zip, is cut short or changed, or holds no agent of ours.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            broken = archive.testzip()
            if broken is not None:
                raise zipfile.BadZipFile(f"{broken} does not match its checksum")
            if _MEMBER not in archive.namelist():
                raise RunFilesError(
                    f"{source}: expected an agent that `atesd train` or `save` wrote, got a zip without {_MEMBER}; train it "
                    f"here, or load it with the class of Stable-Baselines3 that saved it. {TRUST}"
                )
            values = json.loads(archive.read(_MEMBER))
        description = Description(**values)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, TypeError, NotImplementedError) as error:
        raise RunFilesError(
            f"{source}: expected the whole zip file of an agent, got '{error}' in {len(content)} bytes; it was cut short or "
            f"changed, so take another copy (an agent of `atesd train` is also in its other file, best or last). {TRUST}"
        ) from error
    if description.format_version != FORMAT_VERSION:
        raise RunFilesError(
            f"{source}: expected version {FORMAT_VERSION} of {_MEMBER}, got {description.format_version}; use the version of "
            "atesd-env that wrote it."
        )
    return description


def moved_classes(content: bytes) -> dict[str, Any]:
    """Returns what a zip names by a module of before (``MOVED``), as Stable-Baselines3's ``custom_objects``.

    The pickles in it are read as a list of instructions, and not carried out.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        values = json.loads(archive.read("data"))
    moved = {}
    for name, value in values.items():
        if isinstance(value, dict) and ":serialized:" in value:
            pickled = base64.b64decode(value[":serialized:"])
            texts = [argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str)]
            if len(texts) == 2 and texts[0] in MOVED:  # a class is its module and its name
                moved[name] = getattr(importlib.import_module(MOVED[texts[0]]), texts[1])
    return moved


def check_same_spaces(description: Description, groups: int, feature_names: Sequence[str], source: str) -> None:
    """Raises ConfigError if an agent was made for other actions or observations than an environment's."""
    if description.groups != groups:
        raise ConfigError(
            f"{source}: expected an agent for {groups} reveal ratio(s) of a decision, got one for {description.groups}; make "
            f"the environment with groups={description.groups}, or take another agent."
        )
    if list(description.feature_names) != list(feature_names):
        here, there = set(feature_names), set(description.feature_names)
        difference = (
            f"only there: {sorted(there - here)}, only here: {sorted(here - there)}"
            if here != there
            else "another order"
        )
        raise ConfigError(
            f"{source}: expected an agent for the observation's {len(feature_names)} features, got one for "
            f"{len(description.feature_names)} ({difference}); take an agent that was trained on this kind of environment."
        )
