"""Files of agents of ours: safetensors with JSON in the metadata. Reading one imports nothing and runs nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import safe_open

from atesd_env.errors import RunFilesError
from atesd_env.files.reading import json_value, open_regular, reading

FORMAT_VERSION = 1
"""Version of the layout of an agent's file."""


def with_suffix(path: str | os.PathLike[str], suffix: str) -> Path:
    """Returns the path of an agent's file, with ``suffix`` where it has none."""
    path = Path(path)
    return path if path.suffix else path.with_name(f"{path.name}{suffix}")


def read_agent_file(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Returns the arrays and the description of an agent's file, as ``Agent.state`` gave them; nothing is imported.

    Raises:
        RunFilesError: If the file is missing, cut off, damaged, or something else.
    """
    remedy = "check the path, and that the file was not cut off while it was written or copied"
    with reading(path, "an agent's file, which `save` writes", remedy=remedy):
        open_regular(path).close()  # safetensors itself would wait for a pipe's other end
        with safe_open(path, framework="numpy") as file:
            description = json_value((file.metadata() or {})["agent"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if not isinstance(description, dict):
            raise TypeError(f"{description!r:.60}")
        if description.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            raise RunFilesError(
                f"{path}: expected version {FORMAT_VERSION} of an agent's file, got {description['format_version']!r:.40}; use the "
                "version of atesd-env that wrote it."
            )
        return arrays, description
