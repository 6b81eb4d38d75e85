"""The Beta distribution and the policies that have it: densities by hand, exploration, and Stable-Baselines3's zip."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from scipy import stats
from stable_baselines3 import PPO

import atesd_env  # noqa: F401  (registers the ids)
from agents import sb3
from agents.sb3.beta_policy import BetaActorCriticPolicy, BetaDistribution
from agents.sb3.vec_env import PopulationVecEnv
from atesd_env.errors import ConfigError


def inverse_softplus(value: float) -> float:
    return float(np.log(np.expm1(value)))


def distribution(*concentrations: tuple[float, float]) -> BetaDistribution:
    """One decision of several variables, each with its two concentrations."""
    parameters = [inverse_softplus(one - 1.0) for pair in concentrations for one in pair]
    return BetaDistribution(len(concentrations)).proba_distribution(torch.tensor([parameters], dtype=torch.float64))


def test_log_density_is_that_of_independent_beta_variables_on_the_stretched_interval():
    policy = distribution((2.0, 3.0), (1.5, 4.0))
    actions = torch.tensor([[-0.4, 0.2]], dtype=torch.float64)
    expected = stats.beta.logpdf(0.3, 2.0, 3.0) + stats.beta.logpdf(0.6, 1.5, 4.0) - 2 * np.log(2.0)
    assert policy.log_prob(actions).item() == pytest.approx(expected, rel=1e-9)


def test_entropy_is_the_mean_of_the_negative_log_density():
    """Seed 0, 100,000 samples: five standard errors, a false alarm in 2 of a million seeds."""
    policy = distribution((2.0, 5.0), (3.0, 1.5))
    rng = np.random.default_rng(0)
    ratios = np.stack([rng.beta(2.0, 5.0, 100_000), rng.beta(3.0, 1.5, 100_000)], axis=-1)
    surprise = -policy.log_prob(torch.from_numpy(2 * ratios - 1)).numpy()
    error = surprise.std() / np.sqrt(len(surprise))
    assert policy.entropy().item() == pytest.approx(surprise.mean(), abs=5 * error)
    assert distribution((1.0 + 1e-9, 1.0 + 1e-9)).entropy().item() == pytest.approx(np.log(2.0), abs=1e-6)


def test_the_ends_have_finite_densities():
    assert torch.isfinite(distribution((3.0, 3.0)).log_prob(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))).all()


def test_the_deterministic_action_is_the_mean():
    assert distribution((2.0, 3.0), (1.5, 1.5)).mode().tolist()[0] == pytest.approx([-0.2, 0.0])


def test_samples_lie_inside_and_carry_gradients():
    parameters = torch.zeros(500, 2, requires_grad=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        samples = BetaDistribution(1).proba_distribution(parameters).sample()
    assert samples.shape == (500, 1)
    assert (samples.abs() <= 1.0).all()
    samples.sum().backward()
    assert parameters.grad is not None
    assert (parameters.grad != 0).all()


def fresh_ratios(name: str, num_samples: int, groups: int = 1, **options: object) -> np.ndarray:
    """Reveal ratios of an untrained agent, [num_samples, groups]."""
    env = gymnasium.make_vec("ATESD-Toy-v0", num_envs=2, groups=groups)
    agent = sb3.make(name, env, seed=0, **options)  # type: ignore[arg-type]
    observation, _ = env.reset(seed=0)
    return agent.predict(np.repeat(observation[:1], num_samples, axis=0))[0]


@pytest.mark.parametrize("name", ["ppo", "a2c", "recurrent_ppo"])
def test_a_fresh_agent_explores_the_whole_range(name: str):
    """Every tenth of [0, 1] gets at least 3% of 4,000 ratios, and they are Beta(1.5, 1.5) to a Kolmogorov-Smirnov test.

    Seed 0. The least likely tenth has a probability of 0.052, so that 3% is more than six standard errors below: a false
    alarm in fewer than 1 in 10^8 seeds. The test's level is 1 in 10,000 seeds.
    """
    ratios = fresh_ratios(name, 4000)[:, 0]
    shares = np.histogram(ratios, bins=10, range=(0.0, 1.0))[0] / len(ratios)
    assert shares.min() >= 0.03
    assert stats.kstest(ratios, stats.beta(1.5, 1.5).cdf).pvalue > 1e-4


def test_a_fresh_gaussian_piles_up_at_the_ends():
    """What the Beta policy is for; each end has a probability of 0.16, so that 0.1 is ten standard errors away."""
    ratios = fresh_ratios("ppo", 4000, policy="gaussian")
    assert (ratios == 0.0).mean() > 0.1
    assert (ratios == 1.0).mean() > 0.1


def test_groups_are_explored_independently():
    """Seed 0; the correlation of 4,000 independent pairs is below 0.08 except in 1 of a million seeds."""
    ratios = fresh_ratios("ppo", 4000, groups=2)
    assert abs(np.corrcoef(ratios.T)[0, 1]) < 0.08


def test_initial_concentration_narrows_a_fresh_policy():
    narrow = fresh_ratios("ppo", 500, policy_kwargs={"initial_concentration": 30.0})
    assert narrow.std() < 0.1 < fresh_ratios("ppo", 500).std()


def test_stable_baselines_saves_and_loads_the_policy(tmp_path):
    env = PopulationVecEnv(gymnasium.make_vec("ATESD-Toy-v0", num_envs=2, groups=2))
    model = PPO(BetaActorCriticPolicy, env, n_steps=8, batch_size=16, seed=0, device="cpu")
    model.learn(16)
    model.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", env=env, device="cpu")
    observations = env.reset()
    assert np.array_equal(
        model.predict(observations, deterministic=True)[0], loaded.predict(observations, deterministic=True)[0]
    )
    loaded.learn(16)
    model.policy.save(tmp_path / "policy")
    policy = BetaActorCriticPolicy.load(tmp_path / "policy", device="cpu")
    assert np.array_equal(
        policy.predict(observations, deterministic=True)[0], model.predict(observations, deterministic=True)[0]
    )


def test_every_parameter_of_the_policy_is_trained():
    env = PopulationVecEnv(gymnasium.make_vec("ATESD-Toy-v0", num_envs=2, windows=10))
    model = PPO(BetaActorCriticPolicy, env, n_steps=10, batch_size=20, seed=0, device="cpu")
    before = {name: tensor.detach().clone() for name, tensor in model.policy.named_parameters()}
    model.learn(20)
    assert "log_std" not in before
    for name, tensor in model.policy.named_parameters():
        assert not torch.equal(before[name], tensor), name


@pytest.mark.parametrize("concentration", [1.0, 0.5, -1.0])
def test_a_concentration_has_to_be_above_one(concentration: float):
    with pytest.raises(ConfigError, match="initial_concentration: expected a number above 1"):
        fresh_ratios("ppo", 1, policy_kwargs={"initial_concentration": concentration})


def test_state_dependent_noise_is_refused():
    with pytest.raises(ConfigError, match="use_sde"):
        fresh_ratios("ppo", 1, use_sde=True)
