"""Trains the policy that ``beta:file=bench`` starts from, over runs of the bench's instances of the split train.

In each round every instance is played by students side by side, of one seed, each with ratios of its own that the policy draws. What a
decision is credited with (the paper's R) is set against what the other students' decisions of the same window are, in standard
deviations of the instance, so that one on which much is learned anyway teaches nothing about ratios. Then the policy is improved on all
decisions of the round together, by PPO's clipped objective. One ratio serves all difficulty groups.

Example: python -m benchmarks.beta_start --rounds 3
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Beta

from agents.beta import START_FILE, BetaController, policy_file
from agents.credit import decision_returns
from agents.own_loop import NoEnvironment
from atesd_env.bench.instances import InstanceSet
from atesd_env.config import RunConfig
from atesd_env.population.population import Population
from benchmarks.common import provenance, save

CLIP, STEPS, LEARNING_RATE = 0.5, 100, 0.02
"""PPO's clip, and the steps of Adam in a round with their size."""


class Decisions(NamedTuple):
    """D decisions: features [D, 6], unclipped ratios [D, 1] and advantages [D]."""

    features: NDArray[np.float64]
    ratios: NDArray[np.float64]
    advantages: NDArray[np.float64]


def played(controller: BetaController, instance_id: str, seed: int, num_students: int) -> Decisions:
    """Plays an instance with students side by side, each with ratios of its own."""
    config = InstanceSet.load("atesd-bench").config(instance_id, probe_accuracy_every=0)
    population = Population(config, num_students)  # type: ignore[arg-type]
    population.reset_many(range(num_students), [seed] * num_students)
    features = np.zeros((config.windows, num_students, controller.num_features))
    ratios = np.full((config.windows, num_students, 1), 0.5)
    for window in range(config.windows):
        features[window] = population.observations()[:, : controller.num_features]
        ratios[window] = controller.drawn(features[window])
        going = [one for one in range(num_students) if not population.is_over(one)]
        if going:
            population.window(np.repeat(ratios[window][going], config.groups, axis=1), going)
    returns = np.full(ratios.shape[:2], np.nan)  # after a student broke, nothing
    for student, run in enumerate(population.runs):
        measured = [(row["reward/progress"], row["probe/grounded"]) for row in run.rows if row["probe/nll"] is not None]
        numbers = {name: getattr(config, name) for name in ("gamma", "lookahead", "grounded_weight")}
        returns[: len(measured), student] = decision_returns(*np.array(measured).T, **numbers, with_tail=True)
    advantages = returns - np.nanmean(returns, axis=1, keepdims=True)
    is_known = ~np.isnan(advantages)
    return Decisions(features[is_known], ratios[is_known], advantages[is_known] / (advantages[is_known].std() + 1e-8))


def improve(controller: BetaController, decisions: Decisions) -> None:
    """Makes some steps on PPO's clipped objective."""
    ratios, advantages = torch.from_numpy(decisions.ratios), torch.from_numpy(decisions.advantages)

    def log_probs() -> Tensor:
        policy = Beta(*controller.concentrations(decisions.features).unbind(-1))
        return policy.log_prob(ratios)[:, 0]  # type: ignore[no-untyped-call]

    before = log_probs().detach()
    optimizer = torch.optim.Adam(controller.network.parameters(), lr=LEARNING_RATE)
    for _ in range(STEPS):
        ratio = (log_probs() - before).exp()
        loss = -torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def mean_ratio(controller: BetaController, decisions: Decisions) -> float:
    """Returns the policy's mean ratio in the states of some decisions."""
    concentrations = controller.concentrations(decisions.features).detach()
    return round(float((concentrations[..., 0] / concentrations.sum(dim=-1)).mean()), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each instance")
    parser.add_argument("--students", type=int, default=4, help="students side by side")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ids = [one.id for one in InstanceSet.load("atesd-bench").of("train")]
    controller = BetaController(NoEnvironment(Box(0.0, 1.0, (1,), np.float32), RunConfig()), seed=0)
    made, rounds = {name: provenance()[name] for name in ("command", "commit")}, []
    for seed in range(arguments.rounds):
        by_instance = {one: played(controller, one, seed, arguments.students) for one in ids}
        improve(controller, Decisions(*map(np.concatenate, zip(*by_instance.values(), strict=True))))
        rounds.append({one: mean_ratio(controller, decisions) for one, decisions in by_instance.items()})
        Path(START_FILE).write_text(json.dumps({**made, **policy_file(controller)}, indent=1) + "\n")
        save("beta_start", {"mean_ratio_after_each_round": rounds, "cpu_sec": round(time.process_time())})


if __name__ == "__main__":
    main()
