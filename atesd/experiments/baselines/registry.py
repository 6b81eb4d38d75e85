"""Names of the baselines beside those of the agents: what a run's spec may begin with."""

from __future__ import annotations

from typing import Any

import gymnasium

from agents.specs.construct import Factory, construct
from agents.specs.registry import Spec, label
from agents.specs.registry import make as make_agent
from agents.specs.registry import resolve as resolve_agent
from agents.specs.table import AGENTS, Entry, Table

BASELINES: Table = (
    Entry("base", "Baseline: the base model, not trained.", "atesd.experiments.baselines.base:BaseModel"),
    Entry(
        "sft",
        "Baseline: fine-tuning on the reference solutions, by TRL's SFTTrainer.",
        "atesd.experiments.baselines.trl_trainers:Sft",
        needs="trl",
    ),
    Entry(
        "grpo",
        "Baseline: GRPO with the reward of a right answer, by TRL's GRPOTrainer (num_generations=8).",
        "atesd.experiments.baselines.trl_trainers:Grpo",
        needs="trl",
    ),
)
"""Ways to train without a teacher: they take no reveal ratio, so only a run has a place for them."""

NAMES: Table = (*AGENTS, *BASELINES)
"""Every name of ours that a run's spec may begin with."""


def is_baseline(spec: Spec) -> bool:
    """Whether this names one of ``BASELINES``."""
    return isinstance(spec, str) and spec.partition(":")[0] in {entry.name for entry in BASELINES}


def resolve(spec: Spec) -> tuple[Factory, dict[str, Any]]:
    """Returns the class behind a spec of an agent or a baseline; as ``agents.specs.registry.resolve``."""
    return resolve_agent(spec, NAMES)


def make(spec: Spec, env: gymnasium.Env[Any, Any], seed: int = 0) -> Any:
    """Returns the agent or baseline of a spec; as ``agents.make``, with the seed of run and agent.

    Raises:
        ConfigError: If the spec is not understood, or a baseline is to be made in another environment than its own.
        RunFilesError: If the file of a saved agent is missing or damaged.
    """
    if not is_baseline(spec):
        return make_agent(spec, env, seed=seed)
    factory, options = resolve(spec)
    return construct(label(spec), factory, env, seed, options)
