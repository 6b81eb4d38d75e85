"""Trains the policy that ``beta:file=bench`` starts from, on runs of the bench's instances of the split train.

The runs are those of ``benchmarks.admission``: five fixed ratios of each instance at eight seeds, window by window. In each state that they
pass through, the paper's Beta policy over its six features imitates the ratios that end well: it is fitted, by maximum likelihood on the
grid of ratios, to a softmax of the held-out accuracies that these end at. It is kept as it was at the step at which draws from it
are worth most on validation instances. What a state lacks, the student's self-confidence, is taken as exp(-entropy), which it is on
average.

Example: python -m benchmarks.beta_start
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor
from torch.distributions import Beta

from agents.beta import START_FILE, BetaController, policy_file
from agents.own_loop import NoEnvironment
from agents.scored import GRID
from atesd_env.bench.instances import InstanceSet
from atesd_env.config import EnvConfig, RunConfig
from atesd_env.envs.observation import NUM_PAPER_FEATURES, RunningStatistics, advance, initial_statistics, observation
from atesd_env.population.population import Population
from benchmarks.common import RESULTS, provenance, save

STEPS, LEARNING_RATE, TEMPERATURE = 600, 0.02, 0.05
"""Steps of Adam, their size, and the accuracy at which a ratio is e times as likely a target as a worse one."""
NARROWEST = torch.tensor(np.clip(GRID, 0.02, 0.98))
"""The ratios where the policy's density is read: at 0 and 1 themselves it has none."""
_UNREAD = ("teacher/entropy", "student/top1_disagreement", "student/grad_norm", "rollout/truncation_rate")


class States(NamedTuple):
    """S states of an instance's runs: features [S, 6], and the accuracies that each ratio of the grid ends at, [S, 5]."""

    features: Tensor
    outcomes: Tensor


def states_of(instances: InstanceSet, instance_id: str) -> States:
    """Returns the states that an instance's runs pass through, each before a window."""
    config = instances.config(instance_id)
    assert isinstance(config, EnvConfig)
    population = Population(config)
    population.reset(0, 0)
    runs = json.loads((RESULTS / "admission" / f"{instance_id}.json").read_text())["runs"]
    ends = {(run["schedule"], run["seed"]): run["accuracy"] for run in runs}
    features, outcomes = [], []
    for run in runs:
        if run["schedule"] == "random":
            continue
        statistics = initial_statistics(population.runs[0].probe_nll)
        for row in _rows(run):
            features.append(observation(statistics)[:NUM_PAPER_FEATURES])
            outcomes.append([ends[f"fixed:{ratio:g}", run["seed"]] for ratio in GRID])
            statistics = _after(statistics, row, config)
    return States(torch.tensor(np.array(features), dtype=torch.float64), torch.tensor(outcomes, dtype=torch.float64))


def _rows(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of a run at a fixed ratio, as far as the paper's features need them."""
    ratio, columns = float(run["schedule"].partition(":")[2]), [name for name in run if "/" in name]
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*(run[name] for name in columns), strict=True)]
    return [
        {
            **dict.fromkeys(_UNREAD, 0.0),
            **row,
            "window": window,
            "exposure/reveal_ratio": ratio,
            "student/loss": row["student/mismatch"],  # it is the forward KL
            "student/self_confidence": math.exp(-row["student/entropy"]),
            "reward/progress": 0.0,
        }
        for window, row in enumerate(rows, start=1)
    ]


def _after(statistics: RunningStatistics, row: dict[str, Any], config: EnvConfig) -> RunningStatistics:
    sizes = {"windows": config.windows, "max_new_tokens": config.max_new_tokens}
    return advance(statistics, row, **sizes, ema_coefficient=config.ema_coefficient)


def log_likelihoods(controller: BetaController, features: Tensor) -> Tensor:
    """Returns the log-probability of each ratio of the grid in some states, [S, 5]: the policy's density, beside the others'."""
    policy = Beta(*controller.concentrations(features.numpy())[:, 0].unbind(-1))
    density: Tensor = policy.log_prob(NARROWEST[:, None])  # type: ignore[no-untyped-call]
    return density.T.log_softmax(dim=1)


def likelihood(controller: BetaController, states: Sequence[States]) -> Tensor:
    """Returns how likely the ratios that end well are, mean over instances."""
    targets = [
        (one.outcomes / TEMPERATURE).softmax(dim=1) * log_likelihoods(controller, one.features) for one in states
    ]
    return torch.stack([one.sum(dim=1).mean() for one in targets]).mean()


def worth(controller: BetaController, states: Sequence[States]) -> float:
    """Returns the accuracy that draws from the policy end at, mean over instances."""
    drawn = [log_likelihoods(controller, one.features).exp() * one.outcomes for one in states]
    return round(float(torch.stack([one.sum(dim=1).mean() for one in drawn]).mean().detach()), 4)


def see_alike(controller: BetaController, states: Sequence[States]) -> None:
    """Scales the hidden layer's weights so that it sees each feature centred and with a standard deviation of 3."""
    features = torch.cat([one.features for one in states])
    hidden = controller.network[0]
    with torch.no_grad():
        hidden.weight.mul_(3.0 / features.std(dim=0))
        hidden.bias.sub_(hidden.weight @ features.mean(dim=0))


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    instances = InstanceSet.load("atesd-bench")
    train, validation = (
        [states_of(instances, one.id) for one in instances.of(split)] for split in ("train", "validation")
    )
    controller = BetaController(NoEnvironment(Box(0.0, 1.0, (1,), np.float32), RunConfig()), seed=0)
    see_alike(controller, train)
    optimizer = torch.optim.Adam(controller.network.parameters(), lr=LEARNING_RATE)
    curve: list[dict[str, float]] = []
    best = policy_file(controller)
    for step in range(STEPS + 1):
        if step % 20 == 0:
            told = {"step": step, "train": worth(controller, train), "validation": worth(controller, validation)}
            if all(told["validation"] > one["validation"] for one in curve):
                best = policy_file(controller)
            curve.append(told)
        optimizer.zero_grad()
        (-likelihood(controller, train)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    made = {name: provenance()[name] for name in ("command", "commit")}
    START_FILE.write_text(json.dumps({**made, **best}, indent=1) + "\n")
    save("beta_start", {"worth_by_step": curve, "cpu_sec": round(time.process_time())})


if __name__ == "__main__":
    main()
