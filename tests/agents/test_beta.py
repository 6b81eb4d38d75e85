"""The paper's controller: its mathematics by hand, its credit inside a run, its file, and that it learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats

import agents.beta
from agents.base import Agent
from agents.beta import BetaController, controller_loss, normalised_advantages, policy_file
from agents.credit import decision_returns
from agents.schedules import RandomSchedule
from atesd_env.envs.observation import NUM_PAPER_FEATURES
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.simulated.toy import ToyExposureEnv
from tests.agents.playing import ABLATION, BreaksInWindow4, actions_of, observed

NO_ENTROPY: dict[str, float] = {"entropy_coefficient": 0.0, "entropy_target": 0.0}


def columns_of(agent: Agent, num_windows: int) -> dict[str, list[float]]:
    """Lets an agent learn and returns the run's columns of progress, grounded score and reward."""
    rows: list[dict[str, Any]] = []
    agent.learn(num_windows, callback=lambda names, _: rows.append(names["infos"][0]))
    return {name: [row[name] for row in rows] for name in ("reward/progress", "probe/grounded", "reward/total")}


def randomised(agent: BetaController) -> BetaController:
    """Gives the output weights values, so that different states get different policies."""
    with torch.no_grad():
        agent.network[2].weight.copy_(
            torch.from_numpy(np.random.default_rng(1).normal(size=tuple(agent.network[2].weight.shape)))
        )
    return agent


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Collects what every update of every controller is made from."""
    seen: list[dict[str, Any]] = []

    def spy_advantages(returns: np.ndarray) -> np.ndarray:
        seen.append({"returns": returns.tolist()})
        return normalised_advantages(returns)

    def spy_loss(concentrations: torch.Tensor, ratios: torch.Tensor, advantages: torch.Tensor, **rest: float) -> Any:
        seen[-1] |= {"ratios": ratios.numpy(), "advantages": advantages.numpy()}
        return controller_loss(concentrations, ratios, advantages, **rest)

    monkeypatch.setattr(agents.beta, "normalised_advantages", spy_advantages)
    monkeypatch.setattr(agents.beta, "controller_loss", spy_loss)
    return seen


def test_log_probability_and_entropy_of_the_loss():
    """Against SciPy's Beta and torch's: with one decision of advantage 1 the loss is the negative log-probability, and
    with advantage 0 the entropy penalty alone."""
    for c1, c2, ratio in ((1.5, 4.0, 0.2), (20.0, 3.0, 0.9), (1.01, 1.01, 0.5)):
        concentrations = torch.tensor([[[c1, c2]]], dtype=torch.float64)
        ratios = torch.tensor([[ratio]], dtype=torch.float64)
        one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        loss = controller_loss(concentrations, ratios, one, **NO_ENTROPY)
        torch_beta = torch.distributions.Beta(*concentrations[0, 0])
        assert float(loss) == pytest.approx(-stats.beta(c1, c2).logpdf(ratio), rel=1e-9)
        assert float(loss) == pytest.approx(-float(torch_beta.log_prob(ratios[0, 0])), rel=1e-12)
        penalty = controller_loss(concentrations, ratios, zero, entropy_coefficient=2.0, entropy_target=-3.0)
        assert float(penalty) == pytest.approx(2.0 * (stats.beta(c1, c2).entropy() + 3.0) ** 2, rel=1e-9)
        assert float(penalty) == pytest.approx(2.0 * (float(torch_beta.entropy()) + 3.0) ** 2, rel=1e-12)


def test_gradient_of_the_loss_by_hand():
    """d log Beta(a; c1, c2) / d c1 = log a + psi(c1 + c2) - psi(c1), and likewise with 1 - a for c2."""
    values, ratio, advantages = np.array([[2.0, 5.0], [3.0, 1.5]]), np.array([0.3, 0.8]), np.array([-0.5, 2.0])
    concentrations = torch.tensor(values[:, None, :], requires_grad=True)
    loss = controller_loss(concentrations, torch.tensor(ratio[:, None]), torch.tensor(advantages), **NO_ENTROPY)
    loss.backward()
    scores = (
        np.log(np.stack([ratio, 1 - ratio], axis=1))
        + special.psi(values.sum(axis=1, keepdims=True))
        - special.psi(values)
    )
    assert concentrations.grad is not None
    np.testing.assert_allclose(concentrations.grad.numpy()[:, 0], -scores * advantages[:, None] / 2, rtol=1e-9)


def test_the_entropy_penalty_is_one_sided():
    narrow = torch.tensor([[[50.0, 50.0]]], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    loss = controller_loss(
        narrow, torch.full((1, 1), 0.5, dtype=torch.float64), zero, entropy_coefficient=1.0, entropy_target=-1.0
    )
    loss.backward()
    assert loss.item() == 0.0
    assert narrow.grad is not None
    assert not narrow.grad.any()


def test_groups_are_independent_decisions():
    concentrations = torch.tensor([[[2.0, 3.0], [4.0, 1.5]]], dtype=torch.float64)
    ratios, advantage = torch.tensor([[0.3, 0.9]], dtype=torch.float64), torch.tensor([1.5], dtype=torch.float64)
    settings = {"entropy_coefficient": 0.7, "entropy_target": -2.0}
    together = controller_loss(concentrations, ratios, advantage, **settings)
    apart = [
        controller_loss(concentrations[:, group : group + 1], ratios[:, group : group + 1], advantage, **settings)
        for group in range(2)
    ]
    torch.testing.assert_close(together, apart[0] + apart[1])


def test_advantages_have_mean_0_and_deviation_1_and_ignore_scale():
    returns = np.array([1.0, 2.0, 3.0, 6.0])
    np.testing.assert_allclose(normalised_advantages(returns), (returns - 3.0) / np.sqrt(3.5), rtol=1e-7)
    np.testing.assert_allclose(normalised_advantages(100 * returns + 7), normalised_advantages(returns), rtol=1e-7)
    np.testing.assert_array_equal(normalised_advantages(np.full(4, 2.0)), np.zeros(4))


def test_the_policy_starts_symmetric_with_the_asked_concentration():
    agent = BetaController(ToyExposureEnv(groups=2), initial_concentration=3.0)
    with torch.no_grad():
        concentrations = agent.concentrations(observed(5)[:, :NUM_PAPER_FEATURES].astype(np.float64))
    assert concentrations.shape == (5, 2, 2)
    np.testing.assert_allclose(concentrations.numpy(), 3.0)


def test_concentrations_stay_above_1_whatever_the_network_says():
    agent = BetaController(ToyExposureEnv())
    with torch.no_grad():
        agent.network[2].bias.copy_(torch.tensor([-50.0, 50.0]))
        assert agent.concentrations(np.zeros(NUM_PAPER_FEATURES)).numpy() == pytest.approx(np.array([[1.0, 51.0]]))
    assert 0.0 < agent.predict(observed()[0])[0][0] < 0.5


def test_samples_follow_the_policy():
    """Seed 0, 2000 samples: a Kolmogorov-Smirnov test fails a right sampler with odds of 1e-6, and fails Beta(2, 2)."""
    agent = randomised(BetaController(ToyExposureEnv(), seed=0))
    observation = observed()[0]
    c1, c2 = agent.concentrations(observation[:NUM_PAPER_FEATURES].astype(np.float64)).detach().numpy()[0]
    samples = agent.predict(np.tile(observation, (2000, 1)))[0][:, 0]
    assert stats.kstest(samples, stats.beta(c1, c2).cdf).pvalue > 1e-6
    assert stats.kstest(samples, stats.beta(2, 2).cdf).pvalue < 1e-6
    assert agent.predict(observation, deterministic=True)[0][0] == pytest.approx(c1 / (c1 + c2))


def test_the_state_is_the_papers_or_the_whole_observation():
    first = observed()[0]
    second = first.copy()
    second[NUM_PAPER_FEATURES:] = 0.0
    paper, everything = (
        randomised(BetaController(ToyExposureEnv(), features=features)) for features in ("paper", "all")
    )
    assert paper.predict(first, deterministic=True)[0] == paper.predict(second, deterministic=True)[0]
    assert everything.predict(first, deterministic=True)[0] != everything.predict(second, deterministic=True)[0]


@pytest.mark.parametrize("credit", ABLATION)
def test_decisions_are_credited_with_their_return(batches: list[dict[str, Any]], credit: Any):
    """Two runs of 10 windows, L = 3: each has 8 decisions whose return is known (with L = 1, 10); the last 2 are dropped."""
    env = ToyExposureEnv(windows=10, lookahead=3, gamma=0.7, grounded_weight=0.2)
    agent = BetaController(env, batch_size=4, credit=credit)
    columns = columns_of(agent, 20)
    expected: list[float] = []
    for run in (slice(0, 10), slice(10, 20)):
        progress, grounded = columns["reward/progress"][run], columns["probe/grounded"][run]
        expected += decision_returns(progress, grounded, **ABLATION[credit]).tolist()
    returns = [value for batch in batches for value in batch["returns"]]
    np.testing.assert_allclose(returns, expected, rtol=1e-12)
    assert agent.num_updates == len(batches) == (5 if credit == "one-step" else 4)


def test_a_batch_may_span_runs(batches: list[dict[str, Any]]):
    agent = BetaController(ToyExposureEnv(windows=5, lookahead=3), batch_size=4)
    agent.learn(5)
    assert agent.num_updates == 0  # 3 decisions are known
    agent.learn(5, reset_num_timesteps=False)
    assert agent.num_updates == 1


def test_an_abandoned_run_leaves_no_credit_behind(batches: list[dict[str, Any]]):
    """The first run is left after 2 of its windows; its decisions must not be credited with windows of the next run."""
    agent = BetaController(ToyExposureEnv(lookahead=3), batch_size=2)
    agent.learn(2)
    columns = columns_of(agent, 4)
    known = decision_returns(
        columns["reward/progress"], columns["probe/grounded"], gamma=0.9, lookahead=3, grounded_weight=0.1
    )
    np.testing.assert_allclose(batches[0]["returns"], known)


def test_breaking_the_student_is_charged_to_the_decisions_before_it(batches: list[dict[str, Any]]):
    env = BreaksInWindow4(ToyExposureEnv(lookahead=2, gamma=0.5, grounded_weight=0.0))
    agent = BetaController(env, batch_size=2)
    progress = columns_of(agent, 4)["reward/progress"][:3]
    returns = [value for batch in batches for value in batch["returns"]]
    expected = [progress[0] + 0.5 * progress[1], progress[1] + 0.5 * progress[2], progress[2] - 0.5 * 3.0, -3.0]
    np.testing.assert_allclose(returns, expected, rtol=1e-12)


def test_ratios_are_clipped_for_the_environment_only(batches: list[dict[str, Any]]):
    agent = BetaController(ToyExposureEnv(), a_min=0.45, a_max=0.55, batch_size=4)
    actions = actions_of(agent, 42)
    assert actions.min() == pytest.approx(0.45)
    assert actions.max() == pytest.approx(0.55)
    ratios = np.concatenate([batch["ratios"] for batch in batches])
    assert ratios.min() < 0.45
    assert ratios.max() > 0.55
    np.testing.assert_allclose(np.clip(ratios, 0.45, 0.55), actions[:40], rtol=1e-6)


def test_diagnostics_are_of_the_last_decision():
    agent = BetaController(ToyExposureEnv(lookahead=1), batch_size=4)
    agent.learn(3)
    start = {"c1": 4.0, "c2": 4.0, "mean": 0.5, "entropy": float(stats.beta(4, 4).entropy())}
    learned = {"advantage": 0.0, "pending": 0.0, "num_updates": 0.0}
    assert agent.diagnostics() == pytest.approx({**start, **learned})
    agent.learn(1, reset_num_timesteps=False)  # the decision is older than the update that followed it
    assert agent.diagnostics() == pytest.approx(
        {**start, **learned, "num_updates": 1.0, "advantage": agent._last_advantage}
    )
    agent.learn(1, reset_num_timesteps=False)
    assert agent.diagnostics()["mean"] != 0.5


def test_the_advantage_is_the_newest_decisions_and_pending_counts_those_without_return(batches: list[dict[str, Any]]):
    agent = BetaController(ToyExposureEnv(lookahead=3), batch_size=4)
    agent.learn(6)
    assert agent.diagnostics()["pending"] == 2.0
    assert agent.diagnostics()["advantage"] == pytest.approx(batches[-1]["advantages"][-1])
    assert agent.diagnostics()["advantage"] != 0.0


def test_the_default_credit_is_the_papers_whole_return():
    assert BetaController(ToyExposureEnv()).credit == "grounded"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "some"}, "features: expected 'paper' or 'all', got 'some'"),
        ({"batch_size": 1}, "batch_size: expected a whole number from 2, got 1"),
        ({"batch_size": 4.0}, r"batch_size: expected a whole number from 2, got 4\.0"),
        ({"hidden_size": 0}, "hidden_size: expected a whole number from 1, got 0"),
        ({"initial_concentration": 1.0}, r"initial_concentration: expected a number above 1, got 1\.0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a number from 0, got nan"),
        ({"entropy_coefficient": -1.0}, "entropy_coefficient: expected a number from 0"),
        ({"entropy_target": float("inf")}, "entropy_target: expected a finite number"),
        ({"a_min": 0.6, "a_max": 0.5}, r"a_min: expected a ratio below a_max=0\.5, got 0\.6"),
        ({"a_max": 1.1}, r"a_max: expected a reveal ratio in \[0, 1\], got 1\.1"),
        ({"credit": "two-step"}, "credit: expected one of one-step, delayed, discounted, grounded, got 'two-step'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        BetaController(ToyExposureEnv(), **options)


@pytest.mark.parametrize("best", [0.4, 0.8])
def test_it_finds_the_best_ratio_and_random_does_not(best: float):
    """Seeds 0..5, ten runs of 100 windows each, judged on the last run. Found: the mean ratio lies within 0.1 of the
    best one, and the ratios lie within 0.15 of it on average. In 48 other runs all found it, so at least 94% do (95%
    confidence), and fewer than 4 of 6 would with odds below 0.5%. For random, the mean distance is 0.26 (0.34 at 0.8),
    standard error 0.02: odds below 1e-6."""

    def has_found(agent: Agent, num_windows: int) -> bool:
        ratios = actions_of(agent, num_windows)[-100:, 0]
        return bool(abs(ratios.mean() - best) < 0.1 and np.abs(ratios - best).mean() < 0.15)

    found = [has_found(BetaController(ToyExposureEnv(toy_best_ratio=best), seed=seed), 1000) for seed in range(6)]
    # Random does not learn: its first run is as good as its last.
    randoms = [RandomSchedule(ToyExposureEnv(toy_best_ratio=best), seed=seed) for seed in range(6)]
    found_by_chance = [has_found(agent, 100) for agent in randoms]
    assert sum(found) >= 4
    assert not any(found_by_chance)


def test_every_group_starts_from_the_policy_of_a_file(tmp_path: Path):
    trained = randomised(BetaController(ToyExposureEnv(), seed=1))
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(policy_file(trained)))
    started = BetaController(ToyExposureEnv(groups=2), seed=2, file=file)
    observations = np.random.default_rng(0).random((5, 17), dtype=np.float32)
    expected, _ = trained.predict(observations, deterministic=True)
    found, _ = started.predict(observations, deterministic=True)
    np.testing.assert_allclose(found, np.repeat(expected, 2, axis=1), atol=1e-5)
    assert len({*expected[:, 0]}) == 5, "it looks at the features"
    started.learn(8)
    assert (started.predict(observations, deterministic=True)[0] != found).any(), "and goes on learning"
    started.save(tmp_path / "agent")
    again = BetaController.load(tmp_path / "agent", ToyExposureEnv(groups=2))
    np.testing.assert_array_equal(*(one.predict(observations, deterministic=True)[0] for one in (again, started)))


def test_the_packaged_policy_was_trained_and_others_are_refused(tmp_path: Path):
    observation = np.zeros(17, dtype=np.float32)
    assert BetaController(ToyExposureEnv(), file="bench").predict(observation, deterministic=True)[0] != 0.5
    file = tmp_path / "policy.json"
    for content in ("{}", '{"policy": {"0.weight": [[1]]}}', '{"policy": 3}'):
        file.write_text(content)
        with pytest.raises(RunFilesError, match=str(file)):
            BetaController(ToyExposureEnv(), file=file)
