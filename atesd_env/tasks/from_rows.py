"""Tasks whose problems are the rows of a file: what is read, and which problems are set apart.

Which they are is decided by their text alone, never by a run's seed: sorted by a checksum of the text, the probe is taken from the front
and the held-out problems from the back.
"""

from __future__ import annotations

import dataclasses
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from atesd_env.errors import ConfigError, DataError
from atesd_env.tasks.base import Problem, Task
from atesd_env.tasks.data.rows import (
    DataReport,
    DataRow,
    ParseRow,
    log_report,
    normalised_problem,
    parse_row,
    problem_checksum,
    read_rows,
)
from atesd_env.tasks.data.sources import Use, is_benchmark
from atesd_env.tasks.ordering import row_at
from atesd_env.tasks.segmentation import split_steps

_logger = logging.getLogger(__name__)

_RESERVING = ("probe", "heldout", "training")
"""A problem belongs to the probe before it belongs to the held-out problems, and to training last."""


CutSteps = Callable[[str], tuple[str, ...]]
"""Cuts a solution into steps."""


class RowsTask(Task):
    """Worked problems of a JSONL file; a task says how a row is read and worded.

    Probe and held-out problems come from files of their own if there are any. Held-out problems without a file are the
    rest of the probe's file; without that either, both are set apart from the training file. A training problem that is
    also in another file is left out of training and reported.

    Difficulty is the ``level`` if every row of every file has one, else the number of steps.

    Args:
        data_path: Training problems: JSONL or Parquet, or a hub id (`atesd_env.tasks.data.sources`).
        probe_data_path: Probe problems; None takes them from ``data_path``.
        heldout_data_path: Held-out problems; None takes them from where the probe comes from.
        probe_size: Problems set apart for the probe, at least 1.
        heldout_size: Problems set apart for held-out use, if they come from ``data_path``; None is a tenth of them.
        columns: Our field -> the data's column, where they differ (`shapes.parse_columns`); for all files.
        train_on_benchmark: Accept a split as ``data_path`` that a known benchmark measures on.

    Attributes:
        parse: How a row is read.
        steps: How a solution is cut into steps.
        reports: What was read and left out, by "training", "probe" and "heldout" (of the files that were given). What
            was left out is also logged as a warning.

    Raises:
        DataError: If a file cannot be used (see `read_rows`), or has too few problems.
        ConfigError: If a size is out of range.
    """

    parse: ClassVar[ParseRow] = staticmethod(parse_row)
    steps: ClassVar[CutSteps] = staticmethod(split_steps)

    def __init__(
        self,
        data_path: str | Path,
        probe_data_path: str | Path | None = None,
        heldout_data_path: str | Path | None = None,
        *,
        probe_size: int = 64,
        heldout_size: int | None = None,
        columns: Mapping[str, str] | None = None,
        train_on_benchmark: bool = False,
    ) -> None:
        if probe_size < 1:
            raise ConfigError(f"probe_size: expected at least 1 problem, got {probe_size}; raise it.")
        if heldout_size is not None and heldout_size < 0:
            raise ConfigError(f"heldout_size: expected 0 or more problems, got {heldout_size}; raise it.")
        if is_benchmark(data_path) and not train_on_benchmark:
            raise DataError(
                f"data_path: expected data to train on, got {str(data_path)!r}, a split that a benchmark measures on; name "
                "another split (openai/gsm8k:train) or say that it is meant (--train-on-benchmark)."
            )
        self._columns = columns
        self._probe_size = probe_size
        self._heldout_size = heldout_size
        self.reports: dict[str, DataReport] = {}
        paths = {"training": data_path, "probe": probe_data_path, "heldout": heldout_data_path}
        given = {use: path for use, path in paths.items() if path is not None}
        self._sources = self._loaded(given)
        self._paths = {use: str(path) for use, path in paths.items()}
        self._set_apart()

    @classmethod
    @abstractmethod
    def as_problem(cls, row: DataRow, has_levels: bool) -> Problem:
        """Returns the problem of a row.

        Args:
            row: What ``parse`` gave, perhaps without a solution (a benchmark's).
            has_levels: Whether the level is the difficulty; else it is the number of steps.
        """

    @property
    def num_training_problems(self) -> int:
        """Problems in one pass over the training data."""
        return len(self._training)

    def training_problem(self, seed: int, index: int) -> Problem:
        """Returns training problem number ``index``: a fresh permutation for each pass over the data.

        A pure function of (seed, index) for given data; every pass has each problem once.

        Raises:
            ConfigError: If ``seed`` or ``index`` is negative.
        """
        if seed < 0 or index < 0:
            raise ConfigError(
                f"training_problem: expected seed and index of 0 or more, got {seed} and {index}; mend them."
            )
        return self._training[row_at(len(self._training), seed, index)]

    def probe_problems(self, num_problems: int) -> list[Problem]:
        """Returns the first ``num_problems`` of the probe: a smaller probe is a part of a larger one.

        Raises:
            ConfigError: If more are asked for than were set apart.
        """
        return _first(self._probe, num_problems, "probe_size")

    def heldout_problems(self, num_problems: int) -> list[Problem]:
        """Returns the first ``num_problems`` of the held-out problems.

        Raises:
            ConfigError: If more are asked for than were set apart.
        """
        return _first(self._heldout, num_problems, "heldout_size")

    def restrict(self, keep: Callable[[Problem], bool]) -> int:
        """Drops the problems that ``keep`` refuses, of every kind, and sets probe and held-out problems apart anew.

        So the probe keeps its size. Call it before training: a training problem may take the place of a dropped one.

        Returns:
            How many problems were dropped.

        Raises:
            DataError: If too few problems are left; the task is as before then.
        """
        dropped: list[str] = []

        def is_kept(problem: Problem) -> bool:
            if keep(problem):
                return True
            dropped.append(problem.id)
            return False

        sources = self._sources
        self._sources = {use: list(filter(is_kept, source)) for use, source in sources.items()}
        try:
            self._set_apart()
        except DataError as error:
            self._sources = sources
            if not dropped:
                raise
            raise DataError(
                f"{error} All are expected to fit the prompt, got {len(dropped)} that do not, or contain control tokens; raise "
                "max_prompt_tokens, as far as the student's context allows."
            ) from error
        dropped.sort()
        if dropped:
            named = ", ".join(dropped[:5]) + (", ..." if len(dropped) > 5 else "")
            _logger.warning(
                "%s: left out %d problems that do not fit the prompt or contain control tokens: %s.",
                self._paths["training"],
                len(dropped),
                named,
            )
        return len(dropped)

    def _loaded(self, paths: dict[str, str | Path]) -> dict[str, list[Problem]]:
        """Reads the files, makes ids unique among them, and takes from training what another file has."""
        rows: dict[str, list[DataRow]] = {}
        taken_ids: set[str] = set()
        for use, path in paths.items():
            entry: Use = "training" if use == "training" else "measuring"
            found, self.reports[use] = read_rows(path, entry, columns=self._columns, parse=self.parse)
            rows[use] = [
                dataclasses.replace(row, id=f"{use}:{row.id}") if row.id in taken_ids else row for row in found
            ]
            taken_ids.update(row.id for row in rows[use])
        reserved: set[str] = set()
        for use in _RESERVING:
            if use not in rows:
                continue
            shared = [row for row in rows[use] if normalised_problem(row.problem) in reserved]
            rows[use] = [row for row in rows[use] if normalised_problem(row.problem) not in reserved]
            reserved.update(normalised_problem(row.problem) for row in rows[use])
            self.reports[use] = dataclasses.replace(
                self.reports[use], shared=tuple(row.line for row in shared), num_usable=len(rows[use])
            )
            log_report(self.reports[use])
        has_levels = all(row.level is not None for file_rows in rows.values() for row in file_rows)
        return {
            use: _sorted_by_checksum(self.as_problem(row, has_levels) for row in file_rows)
            for use, file_rows in rows.items()
        }

    def _set_apart(self) -> None:
        """Decides what is training, probe and held-out."""
        training, probe, heldout = (self._sources.get(use) for use in ("training", "probe", "heldout"))
        assert training is not None
        num_heldout = len(training) // 10 if self._heldout_size is None else self._heldout_size
        if probe is None:
            taken_back = num_heldout if heldout is None else 0
            num_needed = self._probe_size + taken_back + 1
            lowered = "probe_size" if self._heldout_size is None else "probe_size or heldout_size"
            _require(self._paths["training"], len(training), num_needed, f"lower {lowered}")
            probe, rest = training[: self._probe_size], training[self._probe_size :]
            training = rest[: len(rest) - taken_back]
            if heldout is None:
                heldout = rest[len(training) :][::-1]
        else:
            _require(self._paths["training"], len(training), 1, "see what was left out")
            _require(self._paths["probe"], len(probe), self._probe_size, "lower probe_size")
            probe, rest = probe[: self._probe_size], probe[self._probe_size :]
            if heldout is None:
                heldout = rest[::-1]
        self._training, self._probe, self._heldout = training, probe, heldout


def _sorted_by_checksum(problems: Iterable[Problem]) -> list[Problem]:
    # A file is often ordered by topic or difficulty; checksums are not, and rows that are added do not reshuffle them.
    return sorted(problems, key=lambda problem: problem_checksum(problem.problem))


def _first(problems: list[Problem], num_problems: int, field: str) -> list[Problem]:
    if not 0 <= num_problems <= len(problems):
        raise ConfigError(
            f"{field}: expected 0 to {len(problems)} problems (as many were set apart), got {num_problems}; ask for "
            f"fewer, raise {field} of the task, or add problems."
        )
    return problems[:num_problems]


def _require(path: str, num_problems: int, num_needed: int, remedy: str) -> None:
    if num_problems < num_needed:
        raise DataError(
            f"{path}: expected at least {num_needed} usable problems, got {num_problems}; add problems or {remedy}."
        )


def difficulty_of(row: DataRow, steps: tuple[str, ...], has_levels: bool) -> float:
    """Returns a row's level where levels are the difficulty, else the number of its steps."""
    return row.level if has_levels and row.level is not None else float(len(steps))
