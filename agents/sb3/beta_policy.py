"""A Beta distribution as the policy of Stable-Baselines3's PPO and A2C, and of sb3-contrib's recurrent PPO.

A reveal ratio lies in [0, 1], and so does a Beta variable: nothing is clipped, and no probability piles up at "reveal
nothing" and "reveal everything", as it does with a Gaussian. Both concentrations are above 1, as in the paper's
controller: the density has one peak and vanishes at both ends.

A Beta policy for bounded actions: Chou, Maturana, Scherer, ICML 2017.
"""

from __future__ import annotations

import math
from typing import Any, Self

from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional

from atesd_env.errors import ConfigError

_EDGE = 1e-6  # a sample may round to 0 or 1, where the log-density is infinite
# Small, as for Stable-Baselines3's own policies: every state starts with nearly the same distribution.
_OUTPUT_GAIN = 0.01


class BetaDistribution(Distribution):
    """Independent Beta variables x, stretched to the actions 2 x - 1 in [-1, 1].

    Args:
        action_dim: Number of variables.
    """

    distribution: Beta

    def __init__(self, action_dim: int) -> None:
        super().__init__()
        self.action_dim = action_dim

    def proba_distribution_net(self, latent_dim: int, initial_concentration: float = 1.5) -> nn.Linear:
        """Returns the layer that makes 2 numbers of each variable; with no input, both concentrations are the given one."""
        layer = nn.Linear(latent_dim, 2 * self.action_dim)
        nn.init.constant_(layer.bias, math.log(math.expm1(initial_concentration - 1.0)))  # the inverse of 1 + softplus
        return layer

    def proba_distribution(self, parameters: Tensor) -> Self:
        """Takes the layer's outputs [n, 2 action_dim]: concentrations are 1 + softplus of them."""
        concentrations = 1.0 + functional.softplus(parameters.unflatten(-1, (self.action_dim, 2)))
        # Checked they would take a tenth of PPO's time; what is no number reaches the environment, which refuses it.
        self.distribution = Beta(concentrations[..., 0], concentrations[..., 1], validate_args=False)
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Returns the log-density of actions [n, action_dim] in [-1, 1], per unit of the action: [n]."""
        ratios = (0.5 * (actions + 1.0)).clamp(_EDGE, 1.0 - _EDGE)
        log_densities: Tensor = self.distribution.log_prob(ratios) - math.log(2.0)
        return log_densities.sum(dim=-1)

    def entropy(self) -> Tensor:
        """Returns the differential entropy of the actions in nats, at most log 2 for each variable: [n]."""
        entropies: Tensor = self.distribution.entropy() + math.log(2.0)
        return entropies.sum(dim=-1)

    def sample(self) -> Tensor:
        """Returns actions [n, action_dim], differentiable in the concentrations."""
        return 2.0 * self.distribution.rsample() - 1.0

    def mode(self) -> Tensor:
        """Returns the deterministic actions [n, action_dim]: the mean.

        The mode has no stable value where both concentrations come near 1; the paper's controller (agents/beta.py) takes
        the mean too.
        """
        return 2.0 * self.distribution.mean - 1.0

    def actions_from_params(self, parameters: Tensor, deterministic: bool = False) -> Tensor:
        """Returns actions in [-1, 1] for the network's outputs."""
        actions: Tensor = self.proba_distribution(parameters).get_actions(deterministic=deterministic)
        return actions

    def log_prob_from_params(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Returns actions for the network's outputs, and their log-densities."""
        actions = self.actions_from_params(parameters)
        return actions, self.log_prob(actions)


class _BetaHead:
    """Puts a Beta distribution where an actor-critic policy has its Gaussian."""

    def __init__(self, *arguments: Any, initial_concentration: float = 1.5, **keywords: Any) -> None:
        if not initial_concentration > 1.0:
            raise ConfigError(
                f"initial_concentration: expected a number above 1, got {initial_concentration!r}; "
                "pass 1.5 for nearly uniform, or more for narrower."
            )
        if keywords.get("use_sde"):
            raise ConfigError("use_sde: expected False with a Beta policy, whose noise is its own; leave it out.")
        self.initial_concentration = initial_concentration
        super().__init__(*arguments, **keywords)

    def _build(self: Any, lr_schedule: Any) -> None:
        super()._build(lr_schedule)  # type: ignore[misc]
        self.action_dist = BetaDistribution(self.action_space.shape[0])
        layer = self.action_dist.proba_distribution_net(self.mlp_extractor.latent_dim_pi, self.initial_concentration)
        nn.init.orthogonal_(layer.weight, gain=_OUTPUT_GAIN)
        self.action_net = layer
        del self.log_std
        # Made anew: the first one holds the Gaussian's parameters.
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_action_dist_from_latent(self: Any, latent_pi: Tensor) -> BetaDistribution:
        return self.action_dist.proba_distribution(self.action_net(latent_pi))  # type: ignore[no-any-return]

    def _get_constructor_parameters(self: Any) -> dict[str, Any]:
        parameters = super()._get_constructor_parameters()  # type: ignore[misc]
        return {**parameters, "initial_concentration": self.initial_concentration}


class BetaActorCriticPolicy(_BetaHead, ActorCriticPolicy):
    """PPO's and A2C's policy with a Beta distribution for actions in [-1, 1]; ``policy="beta"``.

    Args:
        initial_concentration: Both concentrations of a fresh policy, about; above 1. At 1.5 every tenth of [0, 1] has a
            probability of 0.05 at least.
        *arguments: As ``ActorCriticPolicy``.
        **keywords: As ``ActorCriticPolicy``.

    Raises:
        ConfigError: If ``initial_concentration`` is not above 1, or ``use_sde`` is asked for.
    """


class BetaRecurrentActorCriticPolicy(_BetaHead, RecurrentActorCriticPolicy):
    """Recurrent PPO's policy with a Beta distribution; arguments as for the others together."""
