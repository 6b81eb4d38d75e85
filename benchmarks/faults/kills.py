"""Kills: commands that die at random instants, or right before they open, rename or remove a file, and then are resumed.

The command runs in a fork of the case's process, so that a life costs its work and not its imports. The instant before a file
operation is exact, so such a case repeats; Python tells of file operations by its audit events.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from analysis import list_runs
from benchmarks.faults.oracle import Attempt, Case, Refused, command, silent

TINY = (
    *(
        "--env",
        "ATESD-Tiny-v0",
        "--hold-window",
        "1",
        "--num-rollouts",
        "2",
        "--max-new-tokens",
        "8",
        "--probe-size",
        "2",
    ),
    *("--probe-accuracy-every", "0"),
)
"""A language model whose window takes 0.03 s."""
TOY = ("--env", "ATESD-Toy-v0")

_RUN = ("run", "--quiet", "--windows", "12", "--checkpoint-every")
_TRAIN = ("train", "--quiet", *TOY, "--windows", "5", "--eval-every", "16", "--eval-seeds", "0", "1")
COMMANDS: dict[str, tuple[str, ...]] = {
    "run, closed form": (*_RUN, "2", *TOY, "--agent", "beta", "fixed:0.5"),
    "run, closed form, shown again": (*_RUN, "3", *TOY, "--agent", "ppo:n_steps=4:batch_size=4"),
    "run, Tiny": (*_RUN, "2", *TINY, "--agent", "beta"),
    "run, Tiny, every window": (*_RUN, "1", *TINY, "--agent", "linucb"),
    "train, ours": (*_TRAIN, "--total-windows", "48", "--agent", "beta"),
    "train, Stable-Baselines3": (
        *_TRAIN,
        "--total-windows",
        "48",
        "--num-envs",
        "2",
        "--agent",
        "ppo:n_steps=8:batch_size=8",
    ),
    "evaluate, Tiny": (
        *(
            "evaluate",
            "--quiet",
            *TINY,
            "--benchmark",
            "heldout",
            "--k",
            "3",
            "--max-problems",
            "4",
            "--sampling",
            "env",
        ),
        *("--batch", "2"),
    ),
    "compare, closed form": (
        "compare",
        "--quiet",
        *TOY,
        "--windows",
        "12",
        "--agent",
        "beta",
        "random",
        "--processes",
        "2",
    ),
}
"""What is killed: name -> arguments, without --out and --resume."""

FIRST = (*[name for name in COMMANDS if name != "compare, closed form"] * 3, "compare, closed form")
"""In which order their turns come; processes of a comparison import everything again, so it comes less often."""

MOST_KILLS = 3
LIMIT_SEC = 120.0


def case(number: int) -> Case:
    """Returns the case of a number: a command's lives. The undisturbed one is run once, before the first case of its command."""
    name = FIRST[number % len(FIRST)]
    return functools.partial(_killed, name, undisturbed(name))


def _killed(name: str, alone: dict[str, Any], rng: random.Random, folder: Path) -> Attempt:
    instants: list[float | int] = []
    for _ in range(rng.randint(1, MOST_KILLS)):
        is_exact = rng.random() < 0.5 and alone["operations"] > 0
        instants.append(rng.randint(1, alone["operations"]) if is_exact else rng.uniform(0.0, alone["sec"]))
    kills: list[float | int] = []

    def act() -> dict[str, str]:
        for instant in instants:
            if life(name, folder / "out", instant):
                kills.append(instant)
            if name.startswith("run") and any((folder / "out").glob("*/trajectory.jsonl")):
                statuses = list_runs(folder / "out")["run_status"]
                if statuses.isin(["damaged", "unreadable"]).any():
                    return {"after a kill": ", ".join(map(str, statuses))}
        status = life(name, folder / "out")
        return {**contents(folder / "out"), "exit": str(status)}

    told = ", ".join(
        f"before file operation {one}" if isinstance(one, int) else f"after {one:.2f} s" for one in instants
    )
    return Attempt(f"{name} --resume", f"killed {told}", act, same_as=alone["result"], may_refuse=False, kills=kills)


@functools.cache
def undisturbed(name: str) -> dict[str, Any]:
    """Returns what a command comes to when it is left alone, how long it takes, and how many file operations it makes."""
    with tempfile.TemporaryDirectory() as folder, silent():
        if not name.startswith("compare"):  # what is imported here, every life has
            command(*COMMANDS[name], "--out", Path(folder) / "warm")
        out, count = Path(folder) / "out", Path(folder) / "operations"
        started = time.perf_counter()
        status = life(name, out, count=count)
        sec = time.perf_counter() - started
        return {"result": {**contents(out), "exit": str(status)}, "sec": sec, "operations": int(count.read_text())}


def life(name: str, out: Path, instant: float | int | None = None, count: Path | None = None) -> int | bool:
    """Lets a command work until an instant, or to its end.

    Returns:
        Whether it was killed, or without an instant its exit status.
    """
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        status = 1
        if instant is not None:  # what its own processes say as they die is not the command's
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
        try:
            operations = _Operations(instant if isinstance(instant, int) else None)
            command(*COMMANDS[name], "--out", out, "--resume")
            status = 0
            if count is not None:
                count.write_text(str(operations.number))
        except Refused as refused:
            print(refused)
        finally:
            sys.stdout.flush()
            os._exit(status)
    if isinstance(instant, float):
        time.sleep(instant)
        _kill(child)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _kill(child)
    return status if instant is None else status == -signal.SIGKILL


def _kill(group: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(group, signal.SIGKILL)


class _Operations:
    """Counts this process's operations that change files, and kills it right before one of them."""

    def __init__(self, fatal: int | None) -> None:
        self.number = 0
        self._fatal = fatal
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
        if event == "open":
            changes = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if not changes or str(arguments[0]).startswith(("/dev/", "/proc/")):
            return
        self.number += 1
        if self.number == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)


_LEFT_OUT = ("exposure.png", ".lock", "checkpoint.safetensors")
"""Pictures and locks; and a training's checkpoint, which holds times."""


def contents(folder: Path) -> dict[str, str]:
    """Returns a digest of each file below a folder, of what does not tell times or versions."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in _LEFT_OUT:
            digests[path.relative_to(folder).as_posix()] = hashlib.sha256(_content(path)).hexdigest()[:12]
    return digests


def _content(path: Path) -> bytes:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return b"".join(archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".pth"))
    content = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        lines = content.splitlines() if path.suffix == ".jsonl" else [content]
        return json.dumps([timeless(json.loads(line)) for line in lines]).encode()
    if path.suffix == ".csv":
        return b""
    return content


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k != "versions" and "time/" not in k and "sec" not in k}
    return [timeless(one) for one in value] if isinstance(value, list) else value
