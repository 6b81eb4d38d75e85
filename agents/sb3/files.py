"""Files of Stable-Baselines3 agents: its own zip, with one member more that says what the agent was made for.

Stable-Baselines3 unpickles a part of its zip, and unpickling can run any code: it is done only where somebody says that the
file is trusted. The member ``atesd.json`` is plain JSON and is read first, so that a file of another origin, for other spaces, or
cut short is refused before anything is unpickled.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import os
import pickletools
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.reading import check_fields, json_value, open_regular, reading

FORMAT_VERSION = 1
"""Version of ``atesd.json``."""
TRUST = "Stable-Baselines3's zip files are unpickled, which can run any code: load only files you trust."
"""What every message about such a file ends with."""
LARGEST = 2**30
"""Bytes of an agent's file, packed and unpacked."""
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
    with reading(path, "an agent's file, which `save` writes"), open_regular(path) as file:
        content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"more than {LARGEST:,} bytes")
        return content


def check_trusted(path: str | os.PathLike[str], *, trust: bool) -> None:
    """Refuses a zip whose sender nobody vouches for.

    Raises:
        ConfigError: If it is not said that the file is trusted.
    """
    if trust is not True:
        raise ConfigError(
            f"agent {os.fspath(path)}: expected trust=true for a zip agent, got none: {TRUST} If you made it, or trust who did, say "
            "so: FILE.zip:trust=true, --trust-pickle, or in Python trust=True. (.safetensors agents run no code and need no trust.)"
        )


def described(content: bytes, source: str) -> Description:
    """Returns the description in a zip, every member of which is whole; nothing is unpickled.

    Raises:
        RunFilesError: If it is no zip, is cut short or changed, or holds no agent of ours.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST:
                raise zipfile.BadZipFile(f"it unpacks to more than {LARGEST:,} bytes")
            broken = archive.testzip()
            if broken is not None:
                raise zipfile.BadZipFile(f"{broken} does not match its checksum")
            # The end of a file that was cut short may be a whole zip too: weights are zips themselves.
            if "data" not in archive.namelist():
                raise zipfile.BadZipFile("no agent")
            if _MEMBER not in archive.namelist():
                raise RunFilesError(
                    f"{source}: expected an agent that `atesd train` or `save` wrote, got a zip without {_MEMBER}; train it "
                    f"here, or load it with the class of Stable-Baselines3 that saved it. {TRUST}"
                )
            values = json_value(archive.read(_MEMBER))
        description = Description(**values)
        check_fields(description)
    except RunFilesError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, TypeError, RuntimeError) as error:
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


def pickled_parts(content: bytes) -> dict[str, bytes]:
    """Returns the pickles in a zip by the attribute that each becomes; none is carried out."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        values = json_value(archive.read("data"))
    return {
        name: base64.b64decode(value[":serialized:"])
        for name, value in values.items()
        if isinstance(value, dict) and ":serialized:" in value
    }


def moved_classes(content: bytes) -> dict[str, Any]:
    """Returns what a zip names by a module of before (``MOVED``), as Stable-Baselines3's ``custom_objects``.

    The pickles in it are read as a list of instructions, and not carried out.
    """
    moved = {}
    for name, pickled in pickled_parts(content).items():
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
