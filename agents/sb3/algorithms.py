"""The algorithms of Stable-Baselines3 and sb3-contrib, with defaults for small networks and few, expensive windows.

Everything here is ours where it says so; any other argument of an algorithm keeps Stable-Baselines3's default, and any can be
given as an option.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3.common.noise import NormalActionNoise

from agents.checking import config_of
from agents.sb3.actions import ActionMap, Grid, Interval, JointGrid
from atesd_env.errors import ConfigError
from atesd_env.hints import did_you_mean

Defaults = Callable[["Scale"], dict[str, Any]]
"""Returns our arguments for an algorithm at a scale."""

_NOT_OPTIONS = {"self", "policy", "env", "seed", "_init_setup_model"}


@dataclass(frozen=True)
class Scale:
    """What the defaults follow from.

    Attributes:
        windows: Windows of an episode.
        num_envs: K, students side by side.
        is_population: Whether the environment is a vector one, so that many episodes will come. A scalar one is taken for a
            single run, inside which the agent has to learn.
        gamma: Discount.
    """

    windows: int
    num_envs: int
    is_population: bool
    gamma: float

    @classmethod
    def of(cls, env: Any) -> Scale:
        """Returns the scale of a scalar or vector environment.

        Raises:
            ConfigError: If the environment has no configuration of ours.
        """
        config = config_of(env)
        return cls(config.windows, getattr(env, "num_envs", 1), isinstance(env, VectorEnv), config.gamma)


@dataclass(frozen=True)
class Algorithm:
    """A line of the table.

    Attributes:
        target: The class, "module:Class".
        policies: Name -> policy, which is a name of Stable-Baselines3's or "module:Class"; the first is the default.
        defaults: Arguments of the constructor that follow from the scale; ours.
        is_discrete: Whether it takes numbered actions only.
    """

    target: str
    policies: Mapping[str, str]
    defaults: Defaults
    is_discrete: bool = False

    @property
    def cls(self) -> type[Any]:
        """The class, imported."""
        imported: type[Any] = _import(self.target)
        return imported


def window_steps(scale: Scale) -> int:
    """Returns the windows of each student between two updates of PPO: whole episodes of a population, a fifth of one run."""
    return scale.windows if scale.is_population and scale.windows > 1 else max(2, scale.windows // 5)


def minibatch(num_windows: int) -> int:
    """Returns the smallest divisor from 64, or everything: minibatches are then all of one size.

    >>> minibatch(1600), minibatch(100), minibatch(20)
    (64, 100, 20)
    """
    return next(size for size in range(min(64, num_windows), num_windows + 1) if num_windows % size == 0)


def _ppo(scale: Scale) -> dict[str, Any]:
    num_steps = window_steps(scale)
    return {"n_steps": num_steps, "batch_size": minibatch(num_steps * scale.num_envs)}


def _a2c(scale: Scale) -> dict[str, Any]:
    return {"learning_rate": 1e-3, "n_steps": max(1, min(5, scale.windows))}


def _off_policy(scale: Scale) -> dict[str, Any]:
    # A window costs seconds, a gradient step milliseconds: as many gradient steps as windows (-1).
    return {
        "learning_rate": 1e-3,
        "buffer_size": 100_000,
        "batch_size": 64,
        "learning_starts": scale.windows * scale.num_envs if scale.is_population else max(1, scale.windows // 4),
        "gradient_steps": -1,
    }


def _soft(scale: Scale) -> dict[str, Any]:
    # Rewards are hundredths of a nat: at Stable-Baselines3's first temperature, 1, the entropy drowns them for thousands of
    # windows, and the policy stays uniform. It is still adapted from here.
    return {**_off_policy(scale), "ent_coef": "auto_0.01"}


def _td3(scale: Scale) -> dict[str, Any]:
    # Stable-Baselines3's default is no noise: its actor is deterministic, and would not explore.
    return {**_off_policy(scale), "action_noise": 0.3}


def _dqn(scale: Scale) -> dict[str, Any]:
    return {**_off_policy(scale), "target_update_interval": 500, "exploration_fraction": 0.3}


_ON_POLICY = {"beta": "agents.sb3.beta_policy:BetaActorCriticPolicy", "gaussian": "MlpPolicy"}
_OFF_POLICY = {"mlp": "MlpPolicy"}

ALGORITHMS: dict[str, Algorithm] = {
    "ppo": Algorithm("stable_baselines3:PPO", _ON_POLICY, _ppo),
    "a2c": Algorithm("stable_baselines3:A2C", _ON_POLICY, _a2c),
    "sac": Algorithm("stable_baselines3:SAC", _OFF_POLICY, _soft),
    "td3": Algorithm("stable_baselines3:TD3", _OFF_POLICY, _td3),
    "dqn": Algorithm("stable_baselines3:DQN", _OFF_POLICY, _dqn, is_discrete=True),
    "recurrent_ppo": Algorithm(
        "sb3_contrib:RecurrentPPO",
        {"beta": "agents.sb3.beta_policy:BetaRecurrentActorCriticPolicy", "gaussian": "MlpLstmPolicy"},
        _ppo,
    ),
    "tqc": Algorithm("sb3_contrib:TQC", _OFF_POLICY, _soft),
}
"""The algorithms by the name of their spec."""


def action_map(name: str, groups: int, grid: int | None) -> ActionMap:
    """Returns how actions of an algorithm become reveal ratios; without a grid it is [0, 1], for DQN ``default_points``.

    Raises:
        ConfigError: If the algorithm cannot choose from a grid.
    """
    if ALGORITHMS[name].is_discrete:
        return JointGrid(groups, grid)
    if grid is None:
        return Interval(groups)
    if "gaussian" not in ALGORITHMS[name].policies:
        raise ConfigError(
            f"grid: expected none for {name}, which takes no numbered actions, got {grid}; use dqn or ppo."
        )
    return Grid(groups, grid)


def arguments(
    name: str, scale: Scale, space: spaces.Space[Any], policy: str | None, hidden_size: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the arguments of an algorithm's constructor, ``env`` and ``seed`` apart; ``options`` go before the defaults.

    Without a policy it is the algorithm's first, and on a grid Stable-Baselines3's own; ``hidden_size`` is that of each of
    the two hidden layers, and of an LSTM.

    Raises:
        ConfigError: If the policy or an option is unknown.
    """
    algorithm = ALGORITHMS[name]
    check_options(name, options)
    policy_kwargs: dict[str, Any] = {"net_arch": [hidden_size, hidden_size]}
    if name == "recurrent_ppo":
        policy_kwargs["lstm_hidden_size"] = hidden_size
    defaults = {"device": "cpu", "gamma": scale.gamma, **algorithm.defaults(scale)}
    if {"n_steps", "batch_size"} <= defaults.keys() and isinstance(options.get("n_steps"), int):
        defaults["batch_size"] = minibatch(max(1, options["n_steps"] * scale.num_envs))
    merged = {**defaults, **options, "policy_kwargs": {**policy_kwargs, **(options.get("policy_kwargs") or {})}}
    sigma = merged.get("action_noise")
    if isinstance(sigma, int | float):  # in units of the interval [-1, 1]: half of it in units of the ratio
        assert space.shape is not None
        merged["action_noise"] = NormalActionNoise(np.zeros(space.shape), np.full(space.shape, float(sigma)))
    return {"policy": _policy(name, space, policy), **merged}


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises ConfigError if an option is not an argument of the algorithm's constructor."""
    known = [one for one in inspect.signature(ALGORITHMS[name].cls).parameters if one not in _NOT_OPTIONS]
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known, f"the options are {', '.join(known)}.")
            raise ConfigError(f"agent {name!r}: expected an argument of its constructor, got {option!r}; {hint}")


def _policy(name: str, space: spaces.Space[Any], policy: str | None) -> Any:
    policies = ALGORITHMS[name].policies
    if policy is None:
        is_interval = isinstance(space, spaces.Box)
        target = next(iter(policies.values())) if is_interval else policies.get("gaussian", "MlpPolicy")
    elif policy in policies:
        if policy == "beta" and not isinstance(space, spaces.Box):
            raise ConfigError("policy: expected none with a grid, got 'beta'; leave out policy or grid.")
        target = policies[policy]
    else:
        raise ConfigError(
            f"policy: expected one of {', '.join(policies)} for {name}, got {policy!r}; pass one of these."
        )
    return _import(target) if ":" in target else target


def _import(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
