"""What is right: every case of the campaign is run by ``run_case`` and judged by ``judged``, whatever its kind.

A case is a function of (random numbers, empty folder) that lays out files and returns an ``Attempt``. It runs in a forked process,
which a time limit and a memory limit end, and which may do to itself what it likes.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: nothing is asked for elsewhere

from analysis.errors import AnalysisError
from atesd.commands.cli import main
from atesd_env.errors import AtesdError

REFUSALS = (AtesdError, AnalysisError)
"""The documented errors: the roots of what ``atesd_env``, ``agents`` and ``atesd``, and of what ``analysis`` raise on purpose."""

RIGHT = ("refused", "same", "accepted", "warned")
"""Verdicts that are right: an error of ours; the undisturbed result; an input that may be used, and was; a warning of the log that
names the file."""

WRONG = (
    "raw traceback",
    "silently accepted",
    "hang",
    "died",
    "file not named",
    "control characters",
    "foreign file touched",
)
"""Verdicts that are wrong. "Died" is a signal that the case did not send; memory beyond ``MOST_BYTES`` counts as raw."""

FOREIGN = b"foreign-file"
"""A file whose content has these bytes is not ours: it must stay as it is."""

STILL_SEC = 6.0
"""A case hangs that does nothing for so long."""
MOST_BYTES = 3 << 30
"""Most that a case's process may hold, in bytes of address space beyond what it begins with."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_LIBRARY = re.compile(r"\x1b\[(0|1|33)m")
"""What transformers and Gymnasium write around their warnings, terminal or not."""


class Refused(Exception):  # noqa: N818 (no error: the right answer)
    """A command ended with one of our exit codes and a message."""


@dataclass(frozen=True)
class Attempt:
    """One case, laid out.

    Attributes:
        reader: What reads, a row of the table.
        what: What was done to it, for people.
        act: Lets it read; returns a result that JSON can hold.
        same_as: The undisturbed result; None where there is none.
        may_refuse: Whether an error of ours is right.
        may_accept: Whether a result other than ``same_as`` is right.
        documented: Further errors that are right: those of a library whose contract the reader keeps.
        names: Texts of which a refusal must hold one, such as the damaged file's name, and a warning too; () for none.
        is_named: False where a refusal need not: runs that do not go together are told apart by what they say.
        kills: Filled by ``act``: the instants at which it killed.
    """

    reader: str
    what: str
    act: Callable[[], Any]
    same_as: Any = None
    may_refuse: bool = True
    may_accept: bool = False
    documented: tuple[type[Exception], ...] = ()
    names: tuple[str, ...] = ()
    is_named: bool = True
    kills: list[float | int] = field(default_factory=list)


Case = Callable[[random.Random, Path], Attempt]


@dataclass(frozen=True)
class Outcome:
    """What a case came to.

    Attributes:
        case: Its id.
        reader: A row of the table.
        what: What was done.
        verdict: One of ``RIGHT`` or ``WRONG``.
        detail: What came, on one line.
        result: What ``act`` returned.
        num_kills: Kills in it.
    """

    case: str
    reader: str
    what: str
    verdict: str
    detail: str
    result: Any = None
    num_kills: int = 0

    @property
    def is_right(self) -> bool:
        return self.verdict in RIGHT


def command(*arguments: str | os.PathLike[str]) -> str:
    """Runs ``atesd`` in this process; returns what it said.

    Raises:
        Refused: If it ends with exit code 1 or 2 and a message on the standard error, as it does for errors of ours.
    """
    sys.stderr.flush()
    before = os.fstat(2).st_size
    try:
        main([os.fspath(argument) for argument in arguments])
    except SystemExit as end:
        if end.code not in (None, 0):
            raise Refused(_said_since(before)) from end
    return _said_since(before)


def _said_since(start: int) -> str:
    sys.stderr.flush()
    sys.stdout.flush()
    return os.pread(2, 100_000, start).decode(errors="replace")


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Sends what is printed, by libraries and children too, into a file that nobody reads."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = [os.dup(1), os.dup(2)]
    try:
        with tempfile.TemporaryFile() as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in zip((1, 2), before, strict=True):
            os.dup2(old, number)
            os.close(old)


def run_case(case_id: str, case: Case, root: Path, limit_sec: float) -> Outcome:
    """Runs a case in a process of its own and judges it; its folder is gone afterwards."""
    folder = root / "case"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "here").mkdir(parents=True)
    gc.freeze()  # a collection in the child would copy all of this process
    child = os.fork()
    if child == 0:
        _attempted(random.Random(case_id), case, folder)
    status = _waited(child, limit_sec)
    with contextlib.suppress(ProcessLookupError):  # what the case has started and left behind
        os.killpg(child, signal.SIGKILL)
    told = json.loads((folder / "told.json").read_text()) if (folder / "told.json").exists() else {}
    said = (folder / "said").read_bytes().decode(errors="replace") if (folder / "said").exists() else ""
    touched = [name for name, digest in told.get("foreign", {}).items() if _digest(Path(name)) != digest]
    verdict, detail = judged(told, said, status, touched)
    return Outcome(
        case_id,
        told.get("reader", "(none)"),
        told.get("what", ""),
        verdict,
        " ".join(detail.replace(str(root), "").split())[:600],
        told.get("result"),
        told.get("num_kills", 0),
    )


def judged(told: dict[str, Any], said: str, status: int | None, touched: Sequence[str]) -> tuple[str, str]:
    """Returns the verdict on a case, and why.

    Args:
        told: What its process told: the fields of ``Attempt``, and "end" ("returned", "refused", "raised") with "result" or
            "message".
        said: What it wrote to its standard output and error.
        status: Its exit status; a signal as a negative number; None if it hung.
        touched: Files that are not ours and changed.
    """
    end, message = told.get("end"), told.get("message", "")
    if status is None:
        return "hang", f"no end in time; it said: {said[-200:]}"
    if end is None or status != 0:
        return "died", f"status {status}; it said: {said[-300:]}"
    if touched:
        return "foreign file touched", ", ".join(touched)
    if end == "raised" or "Traceback (most recent call last)" in said:
        return "raw traceback", message if end == "raised" else said[-300:]
    said = _LIBRARY.sub("", said)
    if found := _CONTROL.search(said):
        return "control characters", repr(said[max(0, found.start() - 60) : found.end() + 60])
    if end == "refused":
        if not told["may_refuse"]:
            return "silently accepted", f"refused, though nothing was wrong: {message}"
        if told["names"] and told["is_named"] and not any(name in message for name in told["names"]):
            return "file not named", message
        return "refused", message
    if told["same_as"] is not None and told["result"] == told["same_as"]:
        return "same", ""
    if told["may_accept"]:
        return "accepted", ""
    if told["names"] and any(name in told["warned"] for name in told["names"]):
        return "warned", told["warned"]
    return "silently accepted", difference(told["same_as"], told["result"])


def difference(expected: Any, found: Any) -> str:
    """Returns what differs between two results, briefly."""
    if isinstance(expected, dict) and isinstance(found, dict):
        names = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        return "; ".join(f"{name}: {str(expected.get(name))[:80]} -> {str(found.get(name))[:80]}" for name in names[:4])
    return f"{str(expected)[:120]} -> {str(found)[:120]}"


def _waited(child: int, limit_sec: float) -> int | None:
    """Waits for a case's process; returns its exit status, or None if it had to be killed.

    It hangs where it works for longer than the limit, waits for ``STILL_SEC`` without working or being worked for, or takes ten times
    the limit: other programs may work on this machine.
    """
    began = changed = time.monotonic()
    most, worked = limit_sec * os.sysconf("SC_CLK_TCK"), -1
    while worked < most and time.monotonic() - began < 10 * limit_sec and time.monotonic() - changed < STILL_SEC:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        # Of itself and of its children that have ended; a runnable process waits for its turn, not for ever.
        now = sum(map(int, fields[11:15]))
        if now != worked or fields[0] == "R" or Path(f"/proc/{child}/task/{child}/children").read_text():
            worked, changed = now, time.monotonic()
        time.sleep(0.003)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _attempted(rng: random.Random, case: Case, folder: Path) -> None:
    """The life of a case's process; it tells in ``told.json`` what came, and never returns."""
    os.setpgid(0, 0)
    told: dict[str, Any] = {"what": "the campaign itself failed"}
    try:
        warnings.resetwarnings()
        with (folder / "said").open("w+b") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        (folder / "typed").write_text("y\n" * 99)  # whatever is asked, somebody answers yes
        os.dup2(os.open(folder / "typed", os.O_RDONLY), 0)
        os.chdir(folder / "here")
        plant(folder / "outside")
        attempt = case(rng, folder / "here")
        fields = ("reader", "what", "same_as", "may_refuse", "may_accept", "names", "is_named")
        told = {name: getattr(attempt, name) for name in fields}
        told["foreign"] = foreign_files(folder)
        (folder / "told.json").write_text(json.dumps(told))  # all there is to tell of a case that hangs
        warned = _Warnings()
        logging.getLogger().addHandler(warned)
        told |= _ended(attempt) | {"num_kills": len(attempt.kills), "warned": warned.text}
    except BaseException as error:
        told |= {"end": "raised", "message": "in the campaign: " + _where(error)}
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        (folder / "told.json").write_text(json.dumps(told))
        os._exit(0)


class _Warnings(logging.Handler):
    """Keeps what is logged as a warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = f"{self.text}{record.getMessage()}\n"[:20_000]


def _ended(attempt: Attempt) -> dict[str, Any]:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, resource.RLIM_INFINITY))
    try:
        # A result is compared as JSON gives it back.
        return {"end": "returned", "result": json.loads(json.dumps(attempt.act()))}
    except (*REFUSALS, *attempt.documented, Refused) as error:
        return {"end": "refused", "message": str(error)}
    except BaseException as error:
        return {"end": "raised", "message": _where(error)}


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename and "/lib/python" not in frame.filename]
    place = f"{Path((ours or frames)[-1].filename).name}:{(ours or frames)[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {str(error)[:300]!r} at {place}"


def plant(folder: Path) -> None:
    """Makes a folder of files that are not ours, under names that are ours too."""
    folder.mkdir(parents=True)
    marked = FOREIGN.decode()
    for name in ("config.json", "training.json", "evaluation.json"):
        (folder / name).write_text(json.dumps({"model_type": "qwen3", "by": marked}) + "\n")
    for name in ("trajectory.jsonl", "samples.jsonl", "evaluations.jsonl", "notes.txt"):
        (folder / name).write_text(f'{{"window": 1, "by": "{marked}"}}\n')
    for name in (
        "checkpoints/window-000001.safetensors",
        "adapter/adapter_model.safetensors",
        "agent.safetensors",
        "best_agent.zip",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(FOREIGN * 9)


def foreign_files(folder: Path) -> dict[str, str]:
    """Returns the digest of each file below a folder that is not ours."""
    digests = {}
    for name, _, files in os.walk(folder):
        for file in files:
            path = Path(name) / file
            if stat.S_ISREG(path.lstat().st_mode) and FOREIGN in path.read_bytes():
                digests[str(path)] = _digest(path)
    return digests


def _digest(path: Path) -> str:
    is_file = path.exists() and stat.S_ISREG(path.lstat().st_mode)
    return hashlib.sha256(path.read_bytes()).hexdigest() if is_file else "gone"
