"""Checkpoints: arrays and a JSON description in one file that is whole or refused; nothing is pickled.

The file is plain safetensors. Its metadata has one entry, "checkpoint": JSON with the SHA-256 of the file, the version of
the layout and the description. The checksum is that of all bytes of the file, with zeros where the checksum itself stands, so
that every flipped bit shows. What arrays and description mean is known to those who write them.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.atomic import failing, is_own_file, is_own_folder, make_own_folder, write_atomically
from atesd_env.files.reading import LARGEST_JSON, json_value, open_regular, reading

FORMAT_VERSION = 1
"""Version of the layout of a checkpoint file."""

_logger = logging.getLogger(__name__)
_KEY = "checkpoint"
_HOLE = "0" * 64
_DIGEST = re.compile(rb'\\"sha256\\": \\"([0-9a-f]{64})\\"')  # escaped, because it stands in JSON in JSON
_NAME = re.compile(r"window-(\d{6,})\.safetensors")
_NON_FINITE = "non-finite"


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint.

    Attributes:
        arrays: Name -> array; kept bit for bit.
        description: Anything JSON can hold, and NaN and infinities. Floats are kept bit for bit; tuples come back as lists,
            and the keys of mappings must be strings.
    """

    arrays: dict[str, NDArray[Any]]
    description: dict[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint to one file, whole or not at all.

    Raises:
        ConfigError: If the description holds something that JSON cannot.
        RunFilesError: If it cannot be written; an older file of the same name then stays as it is.
    """
    write_atomically(path, packed(checkpoint))


def packed(checkpoint: Checkpoint) -> bytes:
    """Returns the content of a checkpoint's file, the same bytes each time.

    Raises:
        ConfigError: If the description holds something that JSON cannot.
    """
    header = {"sha256": _HOLE, "format_version": FORMAT_VERSION, "description": _encoded(checkpoint.description)}
    arrays = {name: np.asarray(array, order="C") for name, array in checkpoint.arrays.items()}
    # One entry, as several would be written in an order that changes from process to process.
    content: bytes = save(arrays, metadata={_KEY: json.dumps(header, allow_nan=False)})
    span = _digest_span(content)
    assert span is not None  # the hole was just made
    start, end = span
    return content[:start] + hashlib.sha256(content).hexdigest().encode() + content[end:]


def read_checkpoint(path: Path) -> Checkpoint:
    """Returns what ``write_checkpoint`` wrote.

    Raises:
        RunFilesError: If the file cannot be read, is cut or changed, or has another version.
    """
    with failing(path, "a readable checkpoint"), open_regular(path) as file:
        content = _as_much_as_it_says(file)
    span = _digest_span(content)
    if span is None:
        raise _broken(path, f"{len(content)} bytes without its checksum")
    start, end = span
    if hashlib.sha256(content[:start] + _HOLE.encode() + content[end:]).hexdigest().encode() != content[start:end]:
        raise _broken(path, "one whose content does not match its checksum (cut short, or changed)")
    with reading(path, "a whole checkpoint", remedy="use an earlier one, or start anew"):
        header = json_value(_metadata(content)[_KEY])
        version = header["format_version"]
        if version != FORMAT_VERSION:
            raise _broken(path, f"version {version} of the layout, not {FORMAT_VERSION}")
        description = _decoded(header["description"])
        if not isinstance(description, dict):
            raise _broken(path, f"the description {description!r:.60}")
        return Checkpoint(load(content), description)


def opened_checkpoint(state: Checkpoint | str | os.PathLike[str]) -> Checkpoint:
    """Returns a checkpoint that is given by itself or by its path.

    Raises:
        RunFilesError: If the file cannot be read, or is not whole.
    """
    return state if isinstance(state, Checkpoint) else read_checkpoint(Path(state))


@contextmanager
def reading_state(state: Checkpoint | str | os.PathLike[str]) -> Iterator[None]:
    """Turns what a state of odd content raises into an error that names its file; errors are those of ``reading``."""
    source = "state" if isinstance(state, Checkpoint) else state
    remedy = "give what `save_state` of an environment with the same kind of student wrote"
    with reading(source, "the state of such a student", remedy=remedy):
        yield


def write_numbered(folder: Path, number: int, checkpoint: Checkpoint) -> Path:
    """Writes a run's checkpoint after window ``number`` and deletes all but it and the one before.

    Returns:
        The file.

    Raises:
        RunFilesError: If it cannot be written; the one before is then intact.
    """
    path = folder / f"window-{number:06d}.safetensors"
    make_own_folder(folder)
    write_checkpoint(path, checkpoint)
    older = [other for other in _numbers(folder) if other < number]
    _delete(folder, set(_numbers(folder)) - {number, max(older, default=number)})
    return path


def latest_whole(folder: Path) -> tuple[int, Checkpoint] | None:
    """Returns the newest checkpoint of a run that can be read, with its window, or None where there is none.

    A newer one that is cut, changed or of another version is named in a warning of the log and passed over.
    """
    for number, path in sorted(_numbers(folder).items(), reverse=True):
        try:
            return number, read_checkpoint(path)
        except RunFilesError as error:
            _logger.warning("%s The checkpoint before is tried.", error)
    return None


def delete_numbered(folder: Path, after: int = -1) -> None:
    """Deletes a run's checkpoints after window ``after``; other files are left alone.

    Raises:
        RunFilesError: If one cannot be deleted.
    """
    _delete(folder, {number for number in _numbers(folder) if number > after})


def _numbers(folder: Path) -> dict[int, Path]:
    if not is_own_folder(folder):
        return {}
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in matches if match}


def _delete(folder: Path, numbers: set[int]) -> None:
    paths = _numbers(folder)
    for number in numbers:
        is_own_file(paths[number])
        with failing(paths[number], "to delete this checkpoint"):
            paths[number].unlink(missing_ok=True)


def _as_much_as_it_says(file: io.BufferedReader) -> bytes:
    """Returns a file up to one byte behind the end that its header tells: what is longer is no checkpoint, and may fill the memory."""
    content = file.read(8)
    content += file.read(min(_header_size(content), LARGEST_JSON))
    try:
        arrays = (value["data_offsets"][1] for name, value in json_value(content[8:]).items() if name != "__metadata__")
        end = max(arrays, default=0)
    except (ValueError, LookupError, TypeError, AttributeError):
        end = 0
    return content + file.read(min(end + 1, os.fstat(file.fileno()).st_size))


def _header_size(content: bytes) -> int:
    return int.from_bytes(content[:8], "little")


def _metadata(content: bytes) -> dict[str, str]:
    metadata: dict[str, str] = json_value(content[8 : 8 + _header_size(content)])["__metadata__"]
    return metadata


def _digest_span(content: bytes) -> tuple[int, int] | None:
    """Returns where the checksum stands, (start, end) in bytes, or None."""
    # The first one is ours: the description, and the names of arrays, come after it.
    found = _DIGEST.search(content, 8, min(len(content), 8 + _header_size(content)))
    return found.span(1) if found else None


def _broken(path: Path, found: str) -> RunFilesError:
    return RunFilesError(f"{path}: expected a whole checkpoint, got {found}; use an earlier one, or start anew.")


def _encoded(value: Any) -> Any:
    """Returns JSON types only, with NaN and infinities, which JSON lacks, as {"non-finite": "nan"}."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {_NON_FINITE: str(value)}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _encoded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise ConfigError(
        f"checkpoint: expected numbers, strings, lists and mappings from strings, got {value!r} ({type(value).__name__}); "
        "convert it first."
    )


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        if list(value) == [_NON_FINITE]:
            return float(value[_NON_FINITE])
        return {key: _decoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value
