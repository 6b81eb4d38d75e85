"""A controller without an environment decides and learns as it does in one, told the same."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

import agents
import atesd_env  # noqa: F401  (registers the ids)
from atesd_env.distillation.divergence import rollout_weights
from atesd_env.distillation.statistics import mean_columns, measured_update
from atesd_env.envs.own_loop import MEASURED, LoopStatistics
from atesd_env.errors import ConfigError

TOY: dict[str, Any] = {"windows": 40, "groups": 2}
SPACE = Box(0.0, 1.0, (2,), dtype=np.float32)


@pytest.mark.parametrize("spec", ["beta", "feedback", "linucb", "binomial", "linear:0:1"])
def test_a_loop_of_ones_own_is_the_environments(spec: str):
    """Bit for bit, over two runs: the same rows give the same decisions, learning included."""
    expected: list[list[float]] = []
    env = gym.make("ATESD-Toy-v0", **TOY)
    agents.make(spec, env, seed=3).learn(
        80, callback=lambda names, _: expected.append(names["transition"].action.tolist()) or True
    )
    env.reset(seed=3)
    controller = agents.make(spec, space=SPACE, config=env.unwrapped.config, seed=3)  # type: ignore[attr-defined]
    statistics = LoopStatistics.begin(env.unwrapped.population.runs[0].probe_nll, env.unwrapped.config)  # type: ignore[attr-defined]
    decided = []
    for window in range(80):
        if window == 40:
            env.reset()
            statistics = LoopStatistics.begin(env.unwrapped.population.runs[0].probe_nll, env.unwrapped.config)  # type: ignore[attr-defined]
        ratios = controller.decide(statistics)
        decided.append(ratios.astype(np.float32).tolist())
        observation, reward, _, truncated, row = env.step(ratios.astype(np.float32))
        statistics = statistics.after(row)
        np.testing.assert_array_equal(statistics.observation, observation)
        assert (statistics.reward, statistics.is_last) == (reward, truncated)
        controller.observe(statistics)
    assert decided == expected
    if spec == "beta":
        assert controller.diagnostics()


def test_what_needs_an_environment_is_told():
    for spec in ("lookahead", "grounded", "oracle"):
        with pytest.raises(ConfigError, match="expected an environment that can be asked, got a loop of one's own"):
            agents.make(spec, space=SPACE)
    for how in ({}, {"space": SPACE, "env": gym.make("ATESD-Toy-v0")}):
        with pytest.raises(ConfigError, match="make: expected an environment, or space="):
            agents.make("beta", **how)
    with pytest.raises(ConfigError, match="observe: expected a decision before it"):
        agents.make("beta", space=SPACE).observe(LoopStatistics.begin(1.0))


def test_a_measurement_that_is_missing_is_named():
    measured = dict.fromkeys(MEASURED, 0.5)
    after = LoopStatistics.begin(1.0, windows=1).after(measured)
    assert (after.is_last, after.reward) == (True, pytest.approx(0.5 + 0.1 * 0.5))
    for name in MEASURED:
        with pytest.raises(ConfigError, match=f"{name}: expected a number"):
            LoopStatistics.begin(1.0).after({key: value for key, value in measured.items() if key != name})


def test_an_update_is_measured_from_its_logits():
    """Against the definitions, rollout by rollout."""
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(3, 5, 7, generator=rng) for _ in range(2))
    ids, lengths = torch.randint(7, (3, 5), generator=rng), [5, 2, 4]
    mask = torch.arange(5)[None] < torch.tensor(lengths)[:, None]
    update = measured_update(student, teacher, ids, mask, loss=0.25, grad_norm=2.0)
    log_s, log_t = student.log_softmax(-1), teacher.log_softmax(-1)
    by_token = {
        "student/mismatch": (log_t.exp() * (log_t - log_s)).sum(-1),
        "student/entropy": -(log_s.exp() * log_s).sum(-1),
        "teacher/entropy": -(log_t.exp() * log_t).sum(-1),
        "student/top1_disagreement": (log_s.argmax(-1) != log_t.argmax(-1)).float(),
    }
    columns = mean_columns([update, update])
    for name, tokens in by_token.items():
        means = [tokens[row, :length].mean() for row, length in enumerate(lengths)]
        assert columns[name] == pytest.approx(float(torch.stack(means).mean()), rel=1e-5)
    said = (log_s.gather(2, ids[..., None])[..., 0] * rollout_weights(mask)).sum()
    assert columns["student/self_confidence"] == pytest.approx(float(said.exp()), rel=1e-5)
    assert (columns["student/loss"], columns["student/grad_norm"]) == (0.25, 2.0)
