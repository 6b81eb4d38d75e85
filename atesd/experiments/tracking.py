"""Rows of a run to other tools while it goes on: TensorBoard, Weights & Biases, trackio.

A tracker is three methods. The run's own files come first: a row is written before a tracker hears of it, and a tracker
that fails is left out with a warning while the run goes on.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from atesd_env.config.checks import is_finite
from atesd_env.errors import ConfigError
from atesd_env.files.atomic import is_own_file, make_own_folder, write_atomically
from atesd_env.files.line_file import read_own
from atesd_env.files.reading import json_value, reading
from atesd_env.files.run_folder import TRAJECTORY_FILE, RunWriter, read_rows

_logger = logging.getLogger(__name__)

TENSORBOARD_FOLDER = "tensorboard"
"""Folder of the events in a run's folder."""

_PROJECT = "atesd"


class Tracker(Protocol):
    """What hears of a run. To bring your own, pass a function that makes one to ``execute(track=[...])``."""

    def begin(self, folder: Path, description: Mapping[str, Any]) -> None:
        """Starts a run: its folder, and what ``config.json`` says of it (``env_id``, ``agent``, ``seed``, ``config``)."""
        ...

    def log(self, window: int, values: Mapping[str, float]) -> None:
        """Takes the numbers of one window, by column name; numbers that are not finite or not there are left out."""
        ...

    def finish(self) -> None:
        """Ends the run, finished or not."""
        ...


MakeTracker = Callable[[], Tracker]
"""Makes the tracker of one run."""


class TrackedRunWriter(RunWriter):
    """A ``RunWriter`` whose rows trackers hear of too.

    The trackers of a run that goes on after an interruption hear of its earlier rows first, so that they have it whole; one
    that knows the run already passes over what it has. Arguments are those of ``RunWriter``, and in ``track`` what makes the
    trackers of this run.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        description: Mapping[str, Any],
        *,
        track: Sequence[MakeTracker] = (),
        **how: Any,
    ) -> None:
        super().__init__(folder, description, **how)
        self._trackers = [make() for make in track]
        self._each(lambda tracker: tracker.begin(self.folder, description))
        if self.num_rows and self._trackers:
            for row in read_rows(self.folder / TRAJECTORY_FILE):
                self._tell(row)

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Appends one window's row, then tells the trackers."""
        super().write_row(row)
        self._tell(row)

    def close(self) -> None:
        """Closes the files and ends the trackers; a second call does nothing."""
        try:
            super().close()
        finally:
            self._each(lambda tracker: tracker.finish())
            self._trackers.clear()

    def _tell(self, row: Mapping[str, Any]) -> None:
        values = {name: float(value) for name, value in row.items() if _is_number(value) and name != "window"}
        self._each(lambda tracker: tracker.log(int(row["window"]), values))

    def _each(self, do: Callable[[Tracker], None]) -> None:
        """Does something with each tracker; one that fails is left out from here."""
        for tracker in tuple(self._trackers):
            try:
                do(tracker)
            except Exception as error:
                self._trackers.remove(tracker)
                _logger.warning(
                    "%s: %s is left out from here (%s: %s); the run goes on, and its rows are in %s.",
                    self.folder,
                    type(tracker).__name__,
                    type(error).__name__,
                    error,
                    TRAJECTORY_FILE,
                )


class TensorBoard:
    """Events in ``tensorboard/`` of the run's folder: ``tensorboard --logdir runs`` shows all runs side by side."""

    def begin(self, folder: Path, description: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        events = folder / TENSORBOARD_FOLDER
        make_own_folder(events)
        for old in events.glob("events.out.tfevents.*"):
            is_own_file(old)
            old.unlink()  # of a run that was replaced, or of one whose rows are told again
        self._writer = SummaryWriter(str(events))
        self._writer.add_text("run", "\n".join(f"- {name}: `{value}`" for name, value in description.items()))

    def log(self, window: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, window)
        self._writer.flush()

    def finish(self) -> None:
        self._writer.close()


class Wandb:
    """Weights & Biases, or trackio, which has the same functions. ``WANDB_MODE=offline`` keeps everything on the disk.

    ``wandb.json`` in the run's folder says which run it is there, and the last window that was told: a run that goes on goes on there.
    """

    module = "wandb"

    def begin(self, folder: Path, description: Mapping[str, Any]) -> None:
        self._library = importlib.import_module(self.module)
        self._marker = folder / f"{self.module}.json"
        goes_on = is_own_file(self._marker)
        self._known: dict[str, Any] = {"id": None, "window": 0}
        if goes_on:
            with reading(self._marker, "a tracker's run", remedy="delete it, and the tracker begins a new run"):
                told = json_value(read_own(self._marker, "a tracker's run"))
                self._known = {"id": str(told["id"]), "window": int(told["window"])}
        config = {
            **description.get("config", {}),
            **{name: description.get(name) for name in ("env_id", "agent", "seed")},
        }
        options = self._going_on(goes_on) | ({"dir": str(folder)} if self.module == "wandb" else {})
        self._run = self._library.init(
            project=_PROJECT, name=folder.name, group=folder.resolve().parent.name, config=config, **options
        )
        self._remember(self._known["window"])

    def _going_on(self, goes_on: bool) -> dict[str, Any]:
        """Returns the options by which the library goes on with a run."""
        return {"id": self._known["id"], "resume": "allow"} if goes_on else {}

    def _remember(self, window: int) -> None:
        self._known = {"id": self._run.id, "window": window}
        write_atomically(self._marker, json.dumps(self._known).encode())

    def log(self, window: int, values: Mapping[str, float]) -> None:
        if window > self._known["window"]:  # what was told before an interruption is told once
            self._run.log(dict(values), step=window)
            self._remember(window)

    def finish(self) -> None:
        self._run.finish()


class Trackio(Wandb):
    """trackio: local first, the functions of Weights & Biases; a run goes on by its name."""

    module = "trackio"

    def _going_on(self, goes_on: bool) -> dict[str, Any]:
        return {"resume": "allow"} if goes_on else {}


_TRACKERS: dict[str, tuple[MakeTracker, str]] = {
    "tensorboard": (TensorBoard, "tensorboard"),
    "wandb": (Wandb, "wandb"),
    "trackio": (Trackio, "trackio"),
}


def tracker(name: str) -> MakeTracker:
    """Returns what makes a tracker: "tensorboard", "wandb" or "trackio".

    Raises:
        ConfigError: If the name is another one, or its package is missing.
    """
    if name not in _TRACKERS:
        raise ConfigError(f"track: expected one of {', '.join(_TRACKERS)}, got {name!r}; pass one of these.")
    make, package = _TRACKERS[name]
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"track: expected the package {package}, which is missing; `pip install {package}`.")
    return make


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value)
