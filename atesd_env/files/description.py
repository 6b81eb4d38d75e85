"""Does a folder hold what was asked for? The JSON file that describes its content, against the arguments of now.

Runs, trainings and evaluations go on in their folders only if the answer is yes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from atesd_env.config import differing_fields
from atesd_env.errors import ConfigError
from atesd_env.files.atomic import failing
from atesd_env.files.reading import read_json, reading


def read_description(path: Path, what: str, keys: Iterable[str] = ()) -> dict[str, Any]:
    """Returns what a file says of its folder's content.

    Args:
        path: The file.
        what: What the content is called, such as "run".
        keys: Names whose values must be mappings.

    Raises:
        RunFilesError: If it cannot be read, or is something else.
    """
    article = "an" if what[0] in "aeiou" else "a"
    remedy = "restore the file, or begin anew (--overwrite)"
    with reading(path, f"{article} {what}'s description", remedy=remedy):
        with failing(path, "a readable file"):
            found = read_json(path)
        missing = [key for key in keys if not isinstance(found[key], dict)]
        if missing or not isinstance(found, dict):
            raise TypeError(f"no mapping {', '.join(missing)}")
    return found


def check_same(folder: Path, what: str, there: Mapping[str, Any], asked: Mapping[str, Any], where: str = "now") -> None:
    """Refuses to go on with something else than what a folder holds.

    Args:
        folder: The folder, for the message.
        what: What its content is called, such as "run".
        there: What its description says; names that are not ``asked`` for do not matter.
        asked: What is asked for, as JSON gives it back; "config" is compared as configurations are.
        where: What the message calls it.

    Raises:
        ConfigError: If they differ; the message names the fields.
    """
    different = [
        f"{name} ({there.get(name)!r} there, {value!r} {where})"
        for name, value in asked.items()
        if name != "config" and there.get(name) != value
    ]
    if "config" in asked:
        different += differing_fields(there["config"], asked["config"], where)
    if different:
        raise ConfigError(
            f"{folder}: expected the {what} that was begun there, got other values of {', '.join(different)}; give the same "
            "arguments, or choose another folder (--out)."
        )
