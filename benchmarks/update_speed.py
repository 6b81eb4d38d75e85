"""Updates of K students here and in another checkout of this repository, in turn: how many times as fast they have become.

Each way is a process of its own (``update_server.py``) that makes a window of one update when it is its turn, so that all of them meet
the same minutes of the machine: the other checkout (``--before``), this one, and this one with the fields ``FAST``. The same seeds and
problems, full exposure. With one thread seconds are CPU time of the process, with more they are the clock's; the probe, one problem,
counts. Beside the medians stands whether the adapters of both checkouts are the same bits afterwards.

Examples:
    OMP_NUM_THREADS=1 python -m benchmarks.update_speed --before ../clone-of-an-earlier-commit
    OMP_NUM_THREADS=1 python -m benchmarks.update_speed --before ../clone-of-an-earlier-commit --students 16 --updates 7
    OMP_NUM_THREADS=2 python -m benchmarks.update_speed --before ../clone-of-an-earlier-commit --env ATESD-SmolLM2-135M-v0 --updates 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import FAST, save

SERVER = Path(__file__).parent / "update_server.py"


class Way:
    """A process that makes updates of a checkout, one when it is asked."""

    def __init__(self, tree: Path, env_id: str, num_students: int, fields: Mapping[str, Any]) -> None:
        command = [sys.executable, "-P", str(SERVER), env_id, str(num_students), json.dumps(fields)]
        environment = os.environ | {"PYTHONPATH": str(tree)}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.seconds: list[float] = []
        self.adapters = ""

    def update(self) -> None:
        """Makes an update, and waits for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        self.seconds.append(told["seconds"])
        self.adapters = told["adapters"]

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def take_turns(ways: Sequence[Way], updates: int) -> None:
    """Makes updates of each way in turn; the first of each is not counted."""
    for _ in range(updates + 1):
        for way in ways:
            way.update()
    for way in ways:
        way.close()
        del way.seconds[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="ATESD-Tiny-v0", help="environment id")
    parser.add_argument("--students", type=int, default=1, help="K, in one process")
    parser.add_argument("--updates", type=int, default=25, help="timed updates of each; one before them is not counted")
    parser.add_argument("--before", type=Path, required=True, help="another checkout, to compare with")
    arguments = parser.parse_args()
    before, here = arguments.before.resolve(), Path(__file__).parents[1]
    asked = {"before": (before, {}), "after": (here, {}), "fast": (here, FAST)}
    ways = {name: Way(tree, arguments.env, arguments.students, fields) for name, (tree, fields) in asked.items()}
    take_turns(list(ways.values()), arguments.updates)
    medians = {name: median(way.seconds) / arguments.students for name, way in ways.items()}
    head = ["git", "-C", str(before), "rev-parse", "HEAD"]
    result = {
        "env": arguments.env,
        "students": arguments.students,
        "updates": arguments.updates,
        "commit_before": subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip(),
        "fast": FAST,
        "sec_per_student": medians,
        "fastest_sec_per_student": {name: min(way.seconds) / arguments.students for name, way in ways.items()},
        "times_as_fast": {name: medians["before"] / medians[name] for name in ("after", "fast")},
        "same_bits": ways["before"].adapters == ways["after"].adapters,
    }
    student = arguments.env.removeprefix("ATESD-").removesuffix("-v0").lower()
    save(f"update_speed_{student}_{arguments.students}_students", result)


if __name__ == "__main__":
    main()
