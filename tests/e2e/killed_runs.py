"""Runs experiments in child processes, some of which are killed, and prints what happened; started by test_resume.py.

A program of its own: children are forked after the imports, so that a life costs its windows and not its imports, and in a
process that has no threads yet.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import torch

import agents
from atesd.experiments.run import execute
from atesd.experiments.specs import plan_runs
from atesd_env.config import preset
from atesd_env.population.population import Population


def life(arguments: argparse.Namespace, *, kill_after_sec: float | None) -> int:
    """Executes or resumes all runs in a child; returns its exit status, or minus the signal that ended it."""
    config = preset(arguments.env, **json.loads(arguments.fields))
    specs = plan_runs(arguments.env, config, arguments.agents, [0], arguments.out)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for spec in specs:
                execute(spec, resume=True, checkpoint_every=arguments.checkpoint_every)
            status = 0
        finally:
            os._exit(status)
    if kill_after_sec is not None:
        time.sleep(kill_after_sec)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Kills children at random moments until one comes to the end by itself, at most ``--kills`` of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", required=True)
    parser.add_argument("--fields", default="{}")
    parser.add_argument("--agents", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--longest-life-sec", type=float, default=1.0)
    parser.add_argument("--checkpoint-every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Whatever is imported late (torch's optimizers import half of it) is imported here, once.
    agents.make("beta", gymnasium.make("ATESD-Toy-v0"))
    Population(preset("ATESD-Tiny-v0"))
    rng = random.Random(arguments.seed)
    result: dict[str, Any] = {"kills": 0, "windows_at_kill": []}
    started = time.perf_counter()
    status = 1
    for _ in range(arguments.kills):
        status = life(arguments, kill_after_sec=rng.uniform(0.0, arguments.longest_life_sec))
        if status != -signal.SIGKILL:
            break
        result["kills"] += 1
        result["windows_at_kill"].append(
            sum(path.read_bytes().count(b"\n") for path in arguments.out.glob("*/trajectory.jsonl"))
        )
    if status != 0:
        status = life(arguments, kill_after_sec=None)
    result["sec"] = time.perf_counter() - started
    sys.stdout.write(json.dumps(result))
    sys.exit(status)


if __name__ == "__main__":
    main()
