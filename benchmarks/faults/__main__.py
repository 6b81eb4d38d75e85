"""Runs the campaign: ``python -m benchmarks.faults --minutes 10``; ``--case kills:0:17`` runs one case and shows all that came."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import save
from benchmarks.faults import damages, inputs, kills
from benchmarks.faults.oracle import RIGHT, WRONG, Case, Outcome, run_case

KINDS: dict[str, tuple[Callable[[Path], Callable[[int], Case]], float, int]] = {
    "kills": (lambda _root: kills.case, kills.LIMIT_SEC, 100),
    "damages": (damages.cases, damages.LIMIT_SEC, 500),
    "inputs": (inputs.cases, inputs.LIMIT_SEC, 2000),
}
"""Kind -> what prepares it and then makes its cases, a case's time limit in seconds, and its least number."""


def campaign(minutes: float, seed: int, kinds: Sequence[str], *, floor: float = 1.0) -> dict[str, list[Outcome]]:
    """Runs all kinds side by side, each in a process of its own, for the time and on until its least number is met.

    Args:
        minutes: Time.
        seed: Seed of all cases.
        kinds: Which of ``KINDS``.
        floor: Share of the least numbers that must be met.
    """
    with ProcessPoolExecutor(len(kinds), multiprocessing.get_context("fork")) as pool:
        found = pool.map(partial(_campaign_of, minutes=minutes, seed=seed, floor=floor), kinds)
        return dict(zip(kinds, found, strict=True))


def _campaign_of(kind: str, minutes: float, seed: int, floor: float) -> list[Outcome]:
    prepare, limit_sec, least = KINDS[kind]
    found: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        make = prepare(Path(folder))
        told = time.monotonic()
        end = told + 60.0 * minutes
        while time.monotonic() < end or tried(kind, found) < floor * least:
            number = len(found)
            found.append(run_case(f"{kind}:{seed}:{number}", make(number), Path(folder), limit_sec))
            if not found[-1].is_right:
                print(line(found[-1]), flush=True)
            if time.monotonic() - told > 60.0:
                told = time.monotonic()
                print(f"{kind}: {tried(kind, found)} tried, {survived(kind, found)} survived", flush=True)
    return found


def tried(kind: str, outcomes: Sequence[Outcome]) -> int:
    """Returns how often a kind was tried: kills of processes, or cases."""
    return sum(one.num_kills if kind == "kills" else 1 for one in outcomes)


def survived(kind: str, outcomes: Sequence[Outcome]) -> int:
    """Returns how often what came was right."""
    return tried(kind, [one for one in outcomes if one.is_right])


def line(outcome: Outcome) -> str:
    """Returns a case that was survived or not, on one line."""
    return f"{outcome.case} | {outcome.reader} | {outcome.verdict} | {outcome.what} | {outcome.detail}"


def summary(outcomes: dict[str, list[Outcome]]) -> dict[str, Any]:
    """Returns the counts as JSON holds them: by kind and reader, how often it came to which verdict."""
    lines = []
    for kind, found in outcomes.items():
        for reader in sorted({one.reader for one in found}):
            ours = [one for one in found if one.reader == reader]
            verdicts = Counter(one.verdict for one in ours)
            counts = {name: verdicts[name] for name in (*RIGHT, *WRONG) if verdicts[name]}
            lines.append(
                {
                    "kind": kind,
                    "reader": reader,
                    "tried": tried(kind, ours),
                    "survived": survived(kind, ours),
                    "verdicts": counts,
                }
            )
    everything = [one for found in outcomes.values() for one in found]
    return {
        "tried": {kind: tried(kind, found) for kind, found in outcomes.items()},
        "survived": {kind: survived(kind, found) for kind, found in outcomes.items()},
        "wrong": {name: sum(one.verdict == name for one in everything) for name in WRONG},
        "lines": lines,
        "failures": [line(one) for one in everything if not one.is_right],
    }


def main() -> None:
    """Runs the campaign, or one case, and writes ``results/faults.json``; exits with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="time; least numbers are met even if it takes longer"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all cases")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="what to try")
    parser.add_argument("--case", help="run this case alone, such as damages:0:17")
    parser.add_argument("--floor", type=float, default=1.0, help="share of the least numbers that must be met")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.case is not None:
        kind, _, number = arguments.case.split(":")
        with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
            case = KINDS[kind][0](Path(folder))(int(number))
            outcome = run_case(arguments.case, case, Path(folder), KINDS[kind][1])
            print(f"{line(outcome)}\n\n{(Path(folder) / 'case' / 'said').read_bytes().decode(errors='replace')!r}")
            sys.exit(not outcome.is_right)
    outcomes = campaign(arguments.minutes, arguments.seed, arguments.kinds, floor=arguments.floor)
    result = {"seed": arguments.seed, **summary(outcomes)}
    if list(outcomes) == list(KINDS):
        save("faults", result)
    for name in ("tried", "survived", "wrong"):
        print(name, result[name])
    sys.exit(bool(result["failures"]))


if __name__ == "__main__":
    main()
