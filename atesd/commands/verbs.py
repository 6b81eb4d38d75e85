"""The table of verbs: a new verb is a line here, and a file of its name with a ``Command`` (its flags) and a ``main``."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Verb:
    """A line of the table.

    Attributes:
        name: What is typed behind ``atesd``.
        meaning: One line.
        example: What its help begins with.
        shares_processes: Whether it trains in its own process, so that the others of a launcher (``torchrun``) can help.
    """

    name: str
    meaning: str
    example: str
    shares_processes: bool = False

    def module(self) -> ModuleType:
        """Returns its file, imported now: most verbs need nothing of the others'."""
        return importlib.import_module(f"atesd.commands.{self.name.replace('-', '_')}")


_TABLE = (
    Verb(
        "run",
        "train a student under each agent and seed",
        "atesd run --env ATESD-Tiny-v0 --agent beta fixed:1 --seeds 0 1 2 --out runs/first",
        shares_processes=True,
    ),
    Verb("agents", "list the agents, or the options of one", "atesd agents beta"),
    Verb("report", "write one HTML file about a folder of runs", "atesd report runs/first"),
    Verb("watch", "show how the runs of a folder stand, live", "atesd watch runs/first"),
    Verb("export", "write runs as Parquet, CSV or a Minari dataset", "atesd export runs/first --to parquet"),
    Verb(
        "push",
        "send finished runs to a hub, with a card, after asking",
        "atesd push runs/first/beta-seed0 --repo you/first",
    ),
    Verb(
        "train",
        "train an agent over many runs, side by side",
        "atesd train --env ATESD-Toy-v0 --agent ppo --total-windows 20000 --num-envs 16 --out trained/ppo",
        shares_processes=True,
    ),
    Verb(
        "compare",
        "run agents x seeds in several processes and compare them, paired by seed",
        "atesd compare --env ATESD-Tiny-v0 --agent beta random fixed:0.5 fixed:1 --seeds 0 1 2 3 --out runs/compare",
    ),
    Verb(
        "bench",
        "judge agents on the instances of a set, and check such runs",
        "atesd bench run --agent beta fixed:1 --split test --out bench",
    ),
    Verb(
        "fit-surrogate",
        "fit a fast environment to logged runs",
        "atesd fit-surrogate runs/first runs/compare --out surrogate.safetensors",
    ),
    Verb(
        "evaluate",
        "answer a benchmark k times with a base model and its adapters",
        "atesd evaluate --benchmark heldout --max-problems 20 --k 4 --sampling env --out evaluations/tiny",
    ),
    Verb(
        "plan",
        "show a run's memory, tokens and hours, and what to change if it does not fit",
        "atesd plan ATESD-Qwen3-8B-v0 --gpus 1xH100-80GB --runs 6",
    ),
    Verb("data", "show, filter and clean a file of worked problems", "atesd data gsm8k"),
    Verb(
        "doctor",
        "tell what an issue about an installation needs: versions, devices, threads, conflicts",
        "atesd doctor",
    ),
)

VERBS: dict[str, Verb] = {verb.name: verb for verb in _TABLE}
"""Name -> verb, in the order of the overview."""


def overview() -> str:
    """Returns what ``atesd`` by itself prints: two examples, and every verb with its meaning."""
    verbs = "\n".join(f"  {verb.name:14} {verb.meaning}" for verb in _TABLE)
    usage = f"usage: atesd VERB [OPTIONS]\n\n{verbs}\n\n`atesd VERB --help` lists a verb's options."
    return f"example: {VERBS['run'].example}\n         {VERBS['agents'].example}\n\n{usage}"
