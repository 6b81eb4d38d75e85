"""Whose folder is it? A folder is ours only if a marker says so that only we write; what else has our names is in the way."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atesd_env.config import RunConfig
from atesd_env.errors import RunFilesError
from atesd_env.files.atomic import failing, is_own_file, is_own_folder
from atesd_env.files.line_file import read_own

MARKER = "written_by"
"""Name of the marker in the file that describes a folder's content."""
_FIELDS_SINCE = {"action_ratios"}
"""Fields of every run that files without a marker do not have: they came later."""


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that we write.

    Attributes:
        what: What its content is called, such as "run".
        described: The file that describes it, and has the marker.
        files: Every file that we write into it, relative to it, with a pattern (``re``) for the name; what is deleted goes in
            this order, so ``described`` stands last: it says that the rest is ours.
        fields: What a description had before there was a marker, all of which it must have to be taken for ours.
        whole: Folders in it in which nothing but ``files`` may be: they are deleted as a whole.
    """

    what: str
    described: str
    files: tuple[str, ...]
    fields: tuple[str, ...]
    whole: tuple[str, ...] = ()

    def marked(self, description: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a description with the marker."""
        return {MARKER: f"atesd-env {self.what}", **description}

    def is_ours(self, folder: Path) -> bool:
        """Returns whether a folder's content is such a one of ours.

        Raises:
            RunFilesError: If the description is a link, or cannot be read.
        """
        path = folder / self.described
        if not is_own_file(path):
            return False
        try:
            found = json.loads(read_own(path, "a readable file"))
        except (ValueError, RecursionError):
            return False
        if not isinstance(found, dict):
            return False
        return found[MARKER] == f"atesd-env {self.what}" if MARKER in found else self._is_of_before(found)

    def _is_of_before(self, found: Mapping[str, Any]) -> bool:
        inner = {"config": set(RunConfig.names()) - _FIELDS_SINCE, "versions": ("atesd-env",)}
        return set(self.fields) <= set(found) and all(
            isinstance(found[name], dict) and set(names) <= set(found[name])
            for name, names in inner.items()
            if name in self.fields
        )

    def check(self, folder: Path) -> bool:
        """Returns whether a folder has such content of ours, to go on with or to replace.

        Raises:
            RunFilesError: If files that are not ours have names that we would write, or something else than a file has
                one (a link, a pipe); the message names them.
        """
        there = self.present(folder)
        if self.is_ours(folder):
            return True
        # A killed process may have left files in which there is nothing yet: nobody loses anything by them.
        foreign = [name for name in there if (folder / name).stat().st_size]
        if foreign:
            raise RunFilesError(
                f"{folder}: expected a folder without files of a {self.what}, or with those of one that atesd-env made (its "
                f"{self.described} says so), got {', '.join(foreign)}, made by something else; move them away, or choose another "
                "folder (--out)."
            )
        return False

    def present(self, folder: Path) -> list[str]:
        """Returns the names of ``files`` that are there, in the order of ``files``.

        Raises:
            RunFilesError: If one is no file of its own (a link), or something else is in a folder of ``whole``.
        """
        parents = dict.fromkeys([*(pattern.rpartition("/")[0] for pattern in self.files), *self.whole])
        listed = {parent: _names(folder / parent, may_be_link=not parent) for parent in parents}
        found: list[str] = []
        for pattern in self.files:
            parent, _, name = pattern.rpartition("/")
            found += [os.path.join(parent, other) for other in listed[parent] if re.fullmatch(name, other)]
        for name in found:
            is_own_file(folder / name)
        inner = [os.path.join(parent, name) for parent in self.whole for name in listed[parent]]
        strange = [name for name in inner if name not in found]
        if strange:
            raise RunFilesError(
                f"{folder}: expected nothing beside our own files in {', '.join(self.whole)}, got {', '.join(strange)}; move "
                "them away, or choose another folder (--out)."
            )
        return found

    def delete(self, folder: Path) -> None:
        """Deletes such content of ours; other files are left alone.

        Raises:
            RunFilesError: If it is not ours, or a file cannot be deleted.
        """
        self.check(folder)
        for name in self.present(folder):
            with failing(folder / name, f"to delete the old {self.what}'s file"):
                (folder / name).unlink(missing_ok=True)


def _names(folder: Path, *, may_be_link: bool) -> list[str]:
    """Returns what is in a folder, in order; nothing where there is none. What a user named themselves may be a link."""
    if not (folder.is_dir() if may_be_link else is_own_folder(folder)):
        return []
    with failing(folder, "a folder that can be read"):
        return sorted(os.listdir(folder))
