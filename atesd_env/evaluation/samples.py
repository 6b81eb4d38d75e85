"""The files of an evaluation: `evaluation.json` says what is evaluated, `samples.jsonl` has one line a sample.

A line is flushed when its sample is judged. A line that a kill cut short is taken away when the evaluation goes on, and its
sample is drawn anew, with the same random numbers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.atomic import failure, write_atomically

SAMPLES_FILE = "samples.jsonl"
"""Every sample, a line each, in an evaluation's folder."""
SETTINGS_FILE = "evaluation.json"
"""What an evaluation was asked for, in its folder."""


@dataclass(frozen=True)
class SampleRow:
    """One judged sample.

    Attributes:
        adapter: Label of who answered.
        problem: Id of the problem.
        sample: Which of the k samples, from 0.
        num_tokens: Tokens of the answer, end token included.
        is_finished: False where it was cut at the token budget.
        answer: The final answer that it states, or None.
        is_correct: Whether that is the problem's.
        has_timed_out: The comparison was given up (it took too long or too much memory, or math-verify crashed), so the
            sample counts as wrong.
        text: The answer's text, special tokens left out.
    """

    adapter: str
    problem: str
    sample: int
    num_tokens: int
    is_finished: bool
    answer: str | None
    is_correct: bool
    has_timed_out: bool
    text: str

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes it the one sample that it is."""
        return self.adapter, self.problem, self.sample


class SampleFile:
    """The samples of one folder, open for more; a context manager. Hold the folder's lock (``files.locked_folder``).

    Args:
        folder: The evaluation's folder, which exists.
        settings: What is evaluated, as JSON can hold it. ``adapters`` (label -> checksum) may grow between sittings and
            ``num_samples`` may change; everything else must stay.
        resume: Go on with what is there.

    Attributes:
        rows: What was sampled so far, this sitting included.

    Raises:
        ConfigError: If there is an evaluation and ``resume`` is False, or it was made with other settings.
        RunFilesError: If files cannot be read or written, or a line in the middle is not whole.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self._path = folder / SAMPLES_FILE
        described = folder / SETTINGS_FILE
        self.rows: list[SampleRow] = []
        self._keys: set[tuple[str, str, int]] = set()
        adapters = dict(settings["adapters"])
        if described.exists() or self._path.exists():
            if not resume:
                raise ConfigError(
                    f"out: expected a folder without an evaluation, got {folder}; pass --resume to go on with it, or "
                    "choose another folder."
                )
            if described.exists():
                adapters = _same_settings(described, settings) | adapters
            self._read()
        content = {**settings, "adapters": adapters}
        write_atomically(described, (json.dumps(content, indent=2) + "\n").encode())
        try:
            self._file = self._path.open("ab")
        except OSError as error:
            raise failure(self._path, "to write this file", error) from error

    def __enter__(self) -> SampleFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, key: tuple[str, str, int]) -> bool:
        return key in self._keys

    def append(self, row: SampleRow) -> None:
        """Writes one line and flushes it.

        Raises:
            RunFilesError: If it cannot be written; the lines before stay.
        """
        line = json.dumps(dataclasses.asdict(row), ensure_ascii=True, allow_nan=False)
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise failure(self._path, "to append a sample", error, " The samples before are kept.") from error
        self.rows.append(row)
        self._keys.add(row.key)

    def _read(self) -> None:
        try:
            content = self._path.read_bytes() if self._path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                with self._path.open("r+b") as file:
                    file.truncate(len(whole))
        except OSError as error:
            raise failure(self._path, "a readable file of samples", error) from error
        self.rows = parse_samples(whole, self._path)
        self._keys = {row.key for row in self.rows}


def parse_samples(content: bytes, path: Path) -> list[SampleRow]:
    """Returns the samples of a file's whole lines.

    Raises:
        RunFilesError: If a line is no sample, or a sample stands twice.
    """
    rows: list[SampleRow] = []
    seen: set[tuple[str, str, int]] = set()
    for line, raw in enumerate(content.splitlines(), start=1):
        try:
            row = SampleRow(**json.loads(raw))
        except (ValueError, TypeError) as error:
            raise RunFilesError(
                f"{path}, line {line}: expected one sample, got {raw[:60]!r} ({error}); remove the line, and it is sampled anew."
            ) from error
        if row.key in seen:
            raise RunFilesError(
                f"{path}, line {line}: expected each sample once, got {row.key} again; remove one of them."
            )
        seen.add(row.key)
        rows.append(row)
    return rows


def _same_settings(path: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns the adapters of the evaluation that is there; refuses other settings."""
    try:
        there = json.loads(path.read_bytes())
        adapters = dict(there["adapters"])
    except OSError as error:
        raise failure(path, "a readable description of the evaluation", error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunFilesError(
            f"{path}: expected the description of an evaluation, got {error}; choose another folder."
        ) from error
    wanted = json.loads(json.dumps(settings))
    names: Sequence[str] = sorted((wanted.keys() | there.keys()) - {"adapters", "num_samples"})
    different = [
        f"{name} ({there.get(name)!r} there, {wanted.get(name)!r} here)"
        for name in names
        if there.get(name) != wanted.get(name)
    ]
    different += [
        f"adapter {label}"
        for label, checksum in wanted["adapters"].items()
        if adapters.get(label, checksum) != checksum
    ]
    if different:
        raise ConfigError(
            f"resume: expected the evaluation that is in {path.parent}, got other values of {'; '.join(different)}; choose "
            "another folder."
        )
    return adapters
