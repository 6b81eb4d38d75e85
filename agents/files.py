"""Files of agents of ours: safetensors with JSON in the metadata. Reading one imports nothing and runs nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import safe_open

from atesd_env.errors import RunFilesError
from atesd_env.files.checkpoint import Checkpoint, packed, read_checkpoint
from atesd_env.files.reading import json_value, open_regular, reading

FORMAT_VERSION = 1
"""Version of the layout of an agent's file."""
_DESCRIPTION = "agent"
"""Where the description stands, as text: in a checkpoint's description, or in the metadata of a file of before."""


def with_suffix(path: str | os.PathLike[str], suffix: str) -> Path:
    """Returns the path of an agent's file, with ``suffix`` where it has none."""
    path = Path(path)
    return path if path.suffix else path.with_name(f"{path.name}{suffix}")


def agent_file(arrays: Mapping[str, NDArray[Any]], description: str) -> bytes:
    """Returns the content of an agent's file: a checkpoint, whose SHA-256 says that it is whole, with the description (JSON) as text."""
    return packed(Checkpoint(dict(arrays), {_DESCRIPTION: description}))


def read_agent_file(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Returns the arrays and the description of an agent's file, as ``Agent.state`` gave them; nothing is imported.

    Raises:
        RunFilesError: If the file is missing, cut off, damaged, or something else.
    """
    remedy = "check the path, and that the file was not cut off while it was written or copied"
    with reading(path, "an agent's file, which `save` writes", remedy=remedy):
        open_regular(path).close()  # safetensors itself would wait for a pipe's other end
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if _DESCRIPTION in metadata:  # a file of before has no checksum
                content = Checkpoint({name: file.get_tensor(name) for name in file.keys()}, metadata)  # noqa: SIM118 (not a mapping)
            else:
                content = _vouched(path)
        description = json_value(content.description[_DESCRIPTION])
        if not isinstance(description, dict):
            raise TypeError(f"{description!r:.60}")
        if description.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            raise RunFilesError(
                f"{path}: expected version {FORMAT_VERSION} of an agent's file, got {description['format_version']!r:.40}; use the "
                "version of atesd-env that wrote it."
            )
        return content.arrays, description


def _vouched(path: Path) -> Checkpoint:
    try:
        return read_checkpoint(path)
    except RunFilesError as error:
        raise ValueError("content that does not match its checksum") from error
