"""Runs in two processes that share their rows, one of which may die, hang or fail; started by test_distributed.py.

A program of its own: processes are forked after the imports, so that each costs its windows and not its imports.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atesd.experiments.run import execute
from atesd.experiments.specs import RunSpec
from atesd_env.config import EnvConfig, preset
from atesd_env.distillation import update as distillation
from atesd_env.distillation.update import Learner
from atesd_env.errors import AtesdError, NonFiniteError
from atesd_env.population import distributed

OUT = Path(sys.argv[-1])
COMMON: dict[str, Any] = {
    "windows": 3,
    "hold_window": 1,
    "max_new_tokens": 16,
    "probe_size": 5,
    "probe_accuracy_every": 2,
}
# Five rows on two processes, and a last batch of the probe with a single row: shares differ, one is empty.
PLAIN = preset("ATESD-Tiny-v0", num_rollouts=5, probe_batch_size=4, probe_pass_k=2, micro_batch_size=2, **COMMON)


def in_processes(size: int, work: Callable[[int], None], *, stopped: tuple[int, ...] = ()) -> list[int]:
    """Forks processes that see themselves as a launcher's; returns their exit statuses, signals negative."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            status = 1
            if size > 1:
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            try:
                with distributed.several_processes():
                    work(rank)
                status = 0
            except SystemExit as error:
                status = int(error.code or 0)
            except AtesdError as error:
                with (OUT / f"errors-{rank}.txt").open("a") as file:
                    file.write(f"{error}\n")
            finally:
                os._exit(status)
        children.append(child)
    statuses = {}
    for rank, child in enumerate(children):
        if rank not in stopped:
            statuses[rank] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for rank in stopped:
        os.kill(children[rank], signal.SIGKILL)
        statuses[rank] = os.waitstatus_to_exitcode(os.waitpid(children[rank], 0)[1])
    return [statuses[rank] for rank in range(size)]


def run(name: str, config: EnvConfig, agent: str = "random", **options: Any) -> Callable[[int], None]:
    spec = RunSpec("ATESD-Tiny-v0", config, agent, 3, OUT / name)
    return lambda _: execute(spec, checkpoint_every=1, **options)


def keeping_gradients(name: str, config: EnvConfig) -> Callable[[int], None]:
    """Makes a run whose updates' gradients are written down, [windows, P]."""
    work = run(name, config)

    def watched(rank: int) -> None:
        original, gradients = Learner.update, []

        def update(self: Learner, *arguments: Any) -> Any:
            statistics = original(self, *arguments)
            gradients.append(self.adapters.flat_grad[0].detach().numpy().copy())
            return statistics

        Learner.update = update  # type: ignore[method-assign]
        work(rank)
        np.save(OUT / f"gradients-{name}.npy", np.stack(gradients))

    return watched


def breaking(on_rank: int, in_update: int, what: Callable[[], None]) -> Callable[[], None]:
    """Lets a process do something else in the middle of an update; returns how to undo it."""
    original, count = Learner.update, 0

    def update(self: Learner, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == in_update and os.environ.get("RANK") == str(on_rank):
            what()
        return original(self, *arguments)

    Learner.update = update  # type: ignore[method-assign]
    return lambda: setattr(Learner, "update", original)


def non_finite() -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NonFiniteError("student 0 (1): of rank 1")

    distillation.token_divergence = refuse


def main() -> None:
    torch.set_num_threads(1)
    statuses = {
        "one": in_processes(1, keeping_gradients("one", PLAIN)),
        "two": in_processes(2, keeping_gradients("two", PLAIN)),
    }
    # Asked before each window, of 3 problems, which are one and two rows; then of one, which leaves a process without.
    for size, name in ((1, "one"), (2, "two")):
        for problems in (3, 1):
            asking = f"mismatch:every=1:problems={problems}"
            status = in_processes(size, run(f"asked-{problems}-{name}", PLAIN.replace(windows=1), asking))
            statuses[f"asked-{problems}-{name}"] = status
        # Of each problem of the next window, which is shown a ratio of its own.
        by_problem = PLAIN.replace(windows=1, hold_window=2, action_ratios="problem")
        status = in_processes(size, run(f"asked-window-{name}", by_problem, "balance:by=problem"))
        statuses[f"asked-window-{name}"] = status
    undo = breaking(1, 2, lambda: os.kill(os.getpid(), signal.SIGKILL))
    statuses["killed"] = in_processes(2, run("killed", PLAIN))
    undo()
    (OUT / "rows-at-death.txt").write_bytes((OUT / "killed" / "trajectory.jsonl").read_bytes())
    statuses["resumed"] = in_processes(2, run("killed", PLAIN, resume=True))
    undo = breaking(1, 2, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    statuses["stopped"] = in_processes(2, run("stopped", PLAIN.replace(rank_timeout_sec=1.0)), stopped=(1,))
    undo()
    undo = breaking(1, 2, non_finite)
    statuses["non_finite"] = in_processes(2, run("non_finite", PLAIN))
    undo()
    statuses["too_few_rows"] = in_processes(2, run("too_few_rows", PLAIN.replace(num_rollouts=1)))
    statuses["other_engine"] = in_processes(2, run("other_engine", PLAIN.replace(rollout_engine="http://127.0.0.1:9")))
    (OUT / "statuses.txt").write_text("\n".join(f"{name} {codes}" for name, codes in statuses.items()))


if __name__ == "__main__":
    main()
