"""The rows of closed-form runs, made when somebody asks for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from atesd_env.config import ToyConfig
from atesd_env.envs.columns import Row, rows_of
from atesd_env.simulated.toy_dynamics import plain
from atesd_env.simulated.toy_row import ToyWindow, window_columns, with_optimum


class ToyHistory:
    """The rows of K runs. What a window was is kept, in five arrays for all students; a row is made of it at first sight.

    Args:
        config: The environment's configuration.
        num_students: K.
    """

    def __init__(self, config: ToyConfig, num_students: int) -> None:
        self._config = config
        self._rows: list[tuple[Row, ...]] = [()] * num_students
        self._windows: list[tuple[Sequence[int], ToyWindow]] = []
        # How many of the windows each run's rows hold already, or are older than the run.
        self._known = np.zeros(num_students, np.int64)

    def begin(self, students: Sequence[int], rows: tuple[Row, ...] = ()) -> None:
        """Begins new runs of some students, which have these rows already."""
        for index in students:
            self._rows[index] = rows
        self._known[students] = len(self._windows)

    def add(self, students: Sequence[int], window: ToyWindow) -> None:
        """Adds a window of some students."""
        num_windows = self._config.windows
        if len(self._windows) > 2 * num_windows:  # students that stood still since are the only ones so far behind
            for index in np.flatnonzero(self._known < len(self._windows) - num_windows).tolist():
                self.rows(index)
            num_done = int(self._known.min())
            del self._windows[:num_done]
            self._known -= num_done
        self._windows.append((students, window))

    def add_rows(self, students: Sequence[int], rows: Sequence[Row]) -> None:
        """Adds a window of some students as the rows that were made of it."""
        for index, row in zip(students, rows, strict=True):
            self._rows[index] = (*self.rows(index), row)

    def rows(self, index: int) -> tuple[Row, ...]:
        """Returns the rows so far of a student's run."""
        windows = self._windows[self._known[index] :]
        if windows:
            new = [self._row(window, students.index(index)) for students, window in windows if index in students]
            self._rows[index] += tuple(new)
            self._known[index] = len(self._windows)
        return self._rows[index]

    def _row(self, window: ToyWindow, place: int) -> Row:
        """Returns the row of the student at a place of a window: the bits that it has alone."""
        one = ToyWindow(*(plain(v[place : place + 1]) if isinstance(v, np.ndarray) else v for v in window))
        columns = with_optimum(window_columns(one, self._config), one.number, one.nll, one.skill, self._config)
        return rows_of(columns)[0]
