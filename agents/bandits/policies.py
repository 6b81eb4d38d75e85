"""The bandits: UCB1, Thompson sampling, LinUCB, each with forgetting, and Exp3.S."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.bandits.base import ForgettingBandit, GridBandit, Pull
from agents.bandits.rules import (
    exp3s_gain,
    exp3s_probabilities,
    exp3s_weights,
    gaussian_posterior,
    linucb_parts,
    ucb_indices,
)
from agents.options import checked_number
from atesd_env.envs.observation import NUM_PAPER_FEATURES


class UcbBandit(ForgettingBandit):
    """UCB1; with ``discount`` it is D-UCB, with ``window`` SW-UCB (Garivier and Moulines 2011, arXiv 0805.3415).

    The greedy arm is the one with the highest posterior mean (``gaussian_posterior``): one lucky pull does not make it.

    Args:
        env: The environment.
        seed: Seed of the decisions and the run.
        exploration: Weight of the bonus, at least 0; 1 is UCB1's for scores of variance 1.
        **options: Those of ``ForgettingBandit``.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], seed: int = 0, *, exploration: float = 0.5, **options: Any
    ) -> None:
        super().__init__(env, seed, **options)
        self.exploration = checked_number("exploration", exploration, least=0.0)

    def preferences(self, observation: NDArray[np.float64], group: int, *, deterministic: bool) -> NDArray[np.float64]:
        """Returns each arm's upper confidence bound, [A], or its posterior mean if deterministic."""
        counts, sums = self.sums(group)
        if deterministic:
            return gaussian_posterior(counts, sums)[0]
        pending = np.bincount([arm for arm, _ in self.pending_pulls(group)], minlength=len(self.grid))
        return ucb_indices(counts, sums, pending=pending.astype(np.float64), exploration=self.exploration)


class ThompsonBandit(ForgettingBandit):
    """Thompson sampling: a Gaussian posterior of each arm's mean score; with ``discount`` or ``window`` it forgets.

    What is forgotten returns to the prior, N(0, 1) in scores, so an arm that was not pulled for long is tried again.

    Args:
        env: The environment.
        seed: Seed of the decisions and the run.
        noise: Standard deviation of a score around its arm's mean, above 0; less explores less.
        **options: Those of ``ForgettingBandit``.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int = 0, *, noise: float = 1.0, **options: Any) -> None:
        super().__init__(env, seed, **options)
        self.noise = checked_number("noise", noise, above=0.0)

    def preferences(self, observation: NDArray[np.float64], group: int, *, deterministic: bool) -> NDArray[np.float64]:
        """Returns a draw of each arm's mean score, [A], or its posterior mean if deterministic."""
        means, deviations = gaussian_posterior(*self.sums(group), noise=self.noise)
        return means if deterministic else means + deviations * self.rng.standard_normal(len(means))


class LinUcbBandit(ForgettingBandit):
    """LinUCB on the paper's six features and a constant, one ridge regression for each arm (arXiv 1003.0146).

    With ``discount`` it is D-LinUCB (arXiv 1909.09146); ``window`` keeps the newest pulls.

    Args:
        env: The environment.
        seed: Seed of the decisions and the run.
        exploration: Weight of the width, at least 0: LinUCB's alpha.
        ridge: The regressions' penalty, above 0.
        **options: Those of ``ForgettingBandit``.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        seed: int = 0,
        *,
        exploration: float = 0.5,
        ridge: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(env, seed, **options)
        self.history["contexts"] = np.zeros((0, NUM_PAPER_FEATURES + 1))
        self.exploration = checked_number("exploration", exploration, least=0.0)
        self.ridge = checked_number("ridge", ridge, above=0.0)

    def context(self, observation: NDArray[np.float64], arms: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns the features and the constant, [7]."""
        return _features(observation)

    def preferences(self, observation: NDArray[np.float64], group: int, *, deterministic: bool) -> NDArray[np.float64]:
        """Returns each arm's upper confidence bound in this context, [A], or its predicted score if deterministic."""
        context = _features(observation)
        contexts, scores, weights = self.history["contexts"], self.scores(), self.weights()
        waiting = self.pending_pulls(group)
        preferred = np.empty(len(self.grid))
        for arm in range(len(self.grid)):
            is_arm = self.history["arms"][:, group] == arm
            prediction, width = linucb_parts(
                context,
                contexts[is_arm],
                scores[is_arm],
                weights[is_arm],
                pending=np.asarray([one for pulled, one in waiting if pulled == arm]).reshape(-1, len(context)),
                ridge=self.ridge,
            )
            preferred[arm] = prediction if deterministic else prediction + self.exploration * width
        return preferred


class Exp3sBandit(GridBandit):
    """Exp3.S (Auer et al. 2002), for returns that follow no distribution: it forgets by sharing weight among the arms.

    Discount and window would have no meaning here. A pull is judged once, when it is credited, by the probability that it
    was pulled with. It learns slowly: on the toy learner it takes several runs where the others take a part of one.

    Args:
        env: The environment.
        seed: Seed of the decisions and the run.
        exploration: Share of the pulls that are random, which is the step size too, in (0, 1]: the paper's gamma.
        share: Share of the weight that is spread over all arms at each credit, at least 0: its alpha. 0 is Exp3; 1/T
            suits T pulls.
        **options: Those of ``GridBandit``.

    Attributes:
        arm_weights: Weight of each arm, [groups, A], sum 1 in each group.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        seed: int = 0,
        *,
        exploration: float = 0.3,
        share: float = 0.001,
        **options: Any,
    ) -> None:
        super().__init__(env, seed, **options)
        self.exploration = checked_number("exploration", exploration, above=0.0, most=1.0)
        self.share = checked_number("share", share, least=0.0)
        self.history["contexts"] = np.zeros((0, self.groups))
        self.arm_weights = np.full((self.groups, len(self.grid)), 1.0 / len(self.grid))

    def shares(self, group: int) -> NDArray[np.float64]:
        """Returns the probability of each arm, [A]."""
        return exp3s_probabilities(self.arm_weights[group], exploration=self.exploration)

    def context(self, observation: NDArray[np.float64], arms: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns the probabilities that the arms were pulled with, [groups]."""
        return np.asarray([self.shares(group)[arm] for group, arm in enumerate(arms)])

    def preferences(self, observation: NDArray[np.float64], group: int, *, deterministic: bool) -> NDArray[np.float64]:
        """Returns each arm's probability, [A], in a form whose highest entry is a sample unless deterministic."""
        probabilities = self.shares(group)
        # The arm with the highest log-probability plus Gumbel noise is a sample (the Gumbel-max trick).
        return probabilities if deterministic else np.log(probabilities) + self.rng.gumbel(size=len(probabilities))

    def learn_from(self, pull: Pull) -> None:
        gain = exp3s_gain(float(self.scores()[-1]))
        for group, (arm, probability) in enumerate(zip(pull.arms.tolist(), pull.context.tolist(), strict=True)):
            self.arm_weights[group] = exp3s_weights(
                self.arm_weights[group], arm, gain, probability, exploration=self.exploration, share=self.share
            )

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {**super().arrays(), "arm_weights": self.arm_weights.copy()}

    def set_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        super().set_arrays(arrays)
        arm_weights = np.array(arrays["arm_weights"])
        if arm_weights.shape != self.arm_weights.shape or not (np.isfinite(arm_weights) & (arm_weights >= 0.0)).all():
            raise ValueError("weights of arms that such an agent has not")
        self.arm_weights = arm_weights


def _features(observation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the paper's features and a constant 1, [7], of an observation [num_features]."""
    return np.append(observation[:NUM_PAPER_FEATURES], 1.0)
