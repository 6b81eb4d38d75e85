"""Programs in processes of their own: the installed command, or a Python that finds the packages of this checkout.

And the command in this process, which spares the seconds that libraries take to load: where processes are not what is tested.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from atesd.commands.cli import main
from atesd.experiments.processes import FailedRun, attempt
from atesd.experiments.specs import RunSpec

ROOT = Path(__file__).parents[1]
ATESD = str(Path(sys.executable).parent / "atesd")
STRICT_PYTHON = [sys.executable, "-W", "error"]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
}


def ran(*command: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, with more variables of the environment if need be."""
    return subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=ENVIRONMENT | environment,
        timeout=300,
    )


def atesd(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the installed console command."""
    return ran(ATESD, *arguments, cwd=cwd)


def typed(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Gives the command its arguments in this process; what it says and how it ends are told as of ``atesd``.

    Modules that it found in the folder are forgotten: the next folder has others of the same name.
    """
    out, errors, status, before = io.StringIO(), io.StringIO(), 0, set(sys.modules)
    importlib.invalidate_caches()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
        patch.setattr(sys, "path", sys.path.copy())  # classes of one's own are looked for in the folder
        patch.chdir(cwd or ".")
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
    for name in sys.modules.keys() - before:
        if cwd and str(getattr(sys.modules[name], "__file__", None)).startswith(str(cwd)):
            del sys.modules[name]
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), errors.getvalue())


@contextmanager
def without_processes() -> Iterator[None]:
    """Lets the verbs that make many runs make them in this process, one after the other."""

    def execute_all(specs: Sequence[RunSpec], *, processes: int, report: Any, **options: bool) -> list[FailedRun]:
        told = [(spec, *attempt(spec, options, None)) for spec in specs]
        return [FailedRun(spec, reason, details) for spec, reason, details in told if reason]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("atesd.commands.side_by_side.execute_all", execute_all)
        yield


def started(*command: object, **keywords: Any) -> subprocess.Popen[str]:
    """Starts a command that can be interrupted, and captures what it says."""
    return subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        # A test run that was itself started in the background passes "ignore Ctrl-C" on to its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **keywords,
    )


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 2) -> str:
    """Gives the command what it must refuse, in this process; returns what it says, as one line without frames."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == status
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


def interrupted(process: subprocess.Popen[str]) -> str:
    """Presses Ctrl-C and returns what the process then says on stderr; it must end with the status of Ctrl-C."""
    process.send_signal(signal.SIGINT)
    return ended(process, 130)


def ended(process: subprocess.Popen[str], status: int) -> str:
    """Waits for the end of a process, which is not outlived by it, and returns what it said on stderr."""
    try:
        # The pipes are closed by the last process of its session: none is left behind.
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status, errors
    return errors


def progress_lines(stderr: str) -> list[str]:
    """Returns the lines of progress without the time of day that each begins with."""
    return [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in stderr.splitlines()]


def wait_until(is_so: Callable[[], bool], most_sec: float = 200.0) -> None:
    """Waits for what a process does; whether it came is for the test to say."""
    deadline = time.monotonic() + most_sec
    while time.monotonic() < deadline and not is_so():
        time.sleep(0.01)


def num_lines(path: Path) -> int:
    """Returns how many whole lines a file has; 0 if there is none yet."""
    return path.read_text().count("\n") if path.exists() else 0
