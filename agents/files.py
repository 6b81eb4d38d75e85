"""Files of agents of ours: safetensors with JSON in the metadata. Reading one imports nothing and runs nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from atesd_env.errors import RunFilesError
from atesd_env.files.reading import json_value, open_regular, reading

FORMAT_VERSION = 1
"""Version of the layout of an agent's file."""
_VOUCHED = "vouched_agent"
"""The one entry of the metadata: JSON with the checksum and the description."""


def with_suffix(path: str | os.PathLike[str], suffix: str) -> Path:
    """Returns the path of an agent's file, with ``suffix`` where it has none."""
    path = Path(path)
    return path if path.suffix else path.with_name(f"{path.name}{suffix}")


def agent_file(arrays: Mapping[str, NDArray[Any]], description: str) -> bytes:
    """Returns the content of an agent's file, with the SHA-256 of arrays and description (JSON), which says that it is whole."""
    vouched = json.dumps({"sha256": _digest(arrays, description), "agent": description})
    # One entry, as several would be written in an order that changes from process to process.
    content: bytes = save(dict(arrays), metadata={_VOUCHED: vouched})
    return content


def _digest(arrays: Mapping[str, NDArray[Any]], description: str) -> str:
    digest = hashlib.sha256(description.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\0{name} {array.dtype} {array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


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
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if _VOUCHED in metadata:
            vouched = json_value(metadata[_VOUCHED])
            text = vouched["agent"]
            if vouched.get("sha256") != _digest(arrays, text):
                raise ValueError("content that does not match its checksum")
        else:
            text = metadata["agent"]  # a file of before has no checksum
        description = json_value(text)
        if not isinstance(description, dict):
            raise TypeError(f"{description!r:.60}")
        if description.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            raise RunFilesError(
                f"{path}: expected version {FORMAT_VERSION} of an agent's file, got {description['format_version']!r:.40}; use the "
                "version of atesd-env that wrote it."
            )
        return arrays, description
