"""The files of an evaluation: `evaluation.json` says what is evaluated, `samples.jsonl` has one line a sample.

A line is written when its sample is judged. A line that a kill cut short is taken away when the evaluation goes on, and its
sample is drawn anew, with the same random numbers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.atomic import is_own_file, write_atomically
from atesd_env.files.description import check_same, read_description
from atesd_env.files.line_file import LineFile, read_own, whole_lines
from atesd_env.files.ownership import MARKER, FolderKind
from atesd_env.files.reading import cause_of, check_fields, json_value

SAMPLES_FILE = "samples.jsonl"
"""Every sample, a line each, in an evaluation's folder."""
SETTINGS_FILE = "evaluation.json"
"""What an evaluation was asked for, in its folder."""
SUMMARY_FILE = "summary.json"
"""What an evaluation found, in its folder."""

EVALUATION = FolderKind(
    "evaluation",
    SETTINGS_FILE,
    # The summary goes first: it must not pass for that of the samples to come.
    (r"summary\.json", r"samples\.jsonl", r"evaluation\.json"),
    ("benchmark", "fingerprint", "env", "student", "sampling", "seed", "num_samples", "adapters"),
)
"""What a folder of an evaluation is."""

_MAY_CHANGE = ("adapters", "num_samples", MARKER)


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
        overwrite: Delete an earlier evaluation's three files first. Other files in the folder are never touched.

    Attributes:
        rows: What was sampled so far, this sitting included.

    Raises:
        ConfigError: If there is an evaluation that is neither to go on nor to be replaced, or it was made with other
            settings.
        RunFilesError: If files cannot be read or written, or a line in the middle is not whole.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False
    ) -> None:
        self._path = folder / SAMPLES_FILE
        described = folder / SETTINGS_FILE
        self.rows: list[SampleRow] = []
        self._keys: set[tuple[str, str, int]] = set()
        adapters = dict(settings["adapters"])
        kept = None
        if overwrite or not EVALUATION.check(folder):
            EVALUATION.delete(folder)
        else:
            if not resume:
                raise ConfigError(
                    f"out: expected a folder without an evaluation, got {folder}; pass --resume to go on with it, "
                    "--overwrite to replace it, or choose another folder."
                )
            adapters = _same_settings(described, settings) | adapters
            kept = self._read()
        content = EVALUATION.marked({**settings, "adapters": adapters})
        write_atomically(described, (json.dumps(content, indent=2) + "\n").encode())
        self._file = LineFile(self._path, kept)

    def __enter__(self) -> SampleFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, key: tuple[str, str, int]) -> bool:
        return key in self._keys

    def append(self, row: SampleRow) -> None:
        """Writes one line.

        Raises:
            RunFilesError: If it cannot be written; the lines before stay.
        """
        self._file.append(dataclasses.asdict(row))
        self.rows.append(row)
        self._keys.add(row.key)

    def _read(self) -> bytes | None:
        """Reads the samples that are there; returns their whole lines, None where there is no file."""
        if not is_own_file(self._path):
            return None
        content = read_own(self._path, "a readable file of samples")
        whole = content[: content.rfind(b"\n") + 1]
        self.rows = parse_samples(whole_lines(whole), self._path)
        self._keys = {row.key for row in self.rows}
        return whole


def parse_samples(lines: Iterable[bytes], path: Path) -> list[SampleRow]:
    """Returns the samples of a file's whole lines.

    Raises:
        RunFilesError: If a line is no sample, or a sample stands twice.
    """
    rows: list[SampleRow] = []
    seen: set[tuple[str, str, int]] = set()
    for line, raw in enumerate(lines, start=1):
        try:
            row = SampleRow(**json_value(raw))
            check_fields(row)
        except (ValueError, TypeError) as error:
            raise RunFilesError(
                f"{path}, line {line}: expected one sample, got {raw[:60]!r} ({cause_of(error)}); remove the line, and it is "
                "sampled anew."
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
    there = read_description(path, "evaluation", ["adapters"])
    adapters: dict[str, str] = there["adapters"]
    asked = {name: value for name, value in json.loads(json.dumps(settings)).items() if name not in _MAY_CHANGE}
    absent = {name: None for name in there if name not in _MAY_CHANGE}  # what is not said any more is another value too
    checksums = {label: checksum for label, checksum in settings["adapters"].items() if label in adapters}
    check_same(
        path.parent,
        "evaluation",
        {**there, **{f"adapter {label}": checksum for label, checksum in adapters.items()}},
        {**absent, **asked, **{f"adapter {label}": checksum for label, checksum in checksums.items()}},
        "here",
    )
    return adapters
