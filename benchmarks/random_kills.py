"""What random kills cost a run: total time until it is finished, over the time of a run that is left alone.

A run of ATESD-Tiny-v0 is started as a console command, killed (SIGKILL) after a random time, and taken up with ``--resume``,
until it has been killed ``--kills`` times; then it may finish. Starting a process, importing and loading are part of the total
time. At the end the files are compared with those of the run that was left alone, byte by byte, times of day left out.

Example: OMP_NUM_THREADS=2 python -m benchmarks.random_kills --windows 60 --kills 3
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import save


def command(out: Path, windows: int, *extra: str) -> list[str]:
    """Returns the command line of a run."""
    code = "import sys; from atesd.commands.cli import main; main(sys.argv[1:])"
    fields = ["--windows", str(windows), "--agent", "beta", "--seeds", "0", "--quiet", "--out", str(out)]
    return [sys.executable, "-c", code, "run", *fields, *extra]


def rows(out: Path) -> list[dict[str, object]]:
    """Returns the rows of the only run, without what tells times."""
    (trajectory,) = out.glob("*/trajectory.jsonl")
    return [
        {name: value for name, value in json.loads(line).items() if not name.startswith("time/")}
        for line in trajectory.read_text().splitlines()
    ]


def main() -> None:
    """Measures and writes ``results/random_kills.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=60, help="windows of the run")
    parser.add_argument("--kills", type=int, default=3, help="how often it is killed")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        alone, killed = Path(folder) / "alone", Path(folder) / "killed"
        started = time.perf_counter()
        subprocess.run(command(alone, arguments.windows), check=True, stdout=subprocess.DEVNULL)
        alone_sec = time.perf_counter() - started
        moments = []
        started = time.perf_counter()
        for _ in range(arguments.kills):
            process = subprocess.Popen(
                command(killed, arguments.windows, "--resume"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            moments.append(float(rng.uniform(0.1, 0.5)) * alone_sec)
            try:
                process.wait(timeout=moments[-1])
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
        subprocess.run(command(killed, arguments.windows, "--resume"), check=True, stdout=subprocess.DEVNULL)
        total_sec = time.perf_counter() - started
        save(
            "random_kills",
            {
                "windows": arguments.windows,
                "killed_after_sec": moments,
                "alone_sec": alone_sec,
                "total_sec": total_sec,
                "ratio": total_sec / alone_sec,
                "same_rows": rows(alone) == rows(killed),
            },
        )


if __name__ == "__main__":
    main()
