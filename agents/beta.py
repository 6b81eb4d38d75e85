"""The paper's controller (arXiv 2605.11458): a Beta policy over reveal ratios, trained by REINFORCE inside the run.

    (c1, c2) = 1 + softplus(MLP(s)),   a ~ Beta(c1, c2), clipped to [a_min, a_max]
    loss     = - mean(advantage * log Beta(a; c1, c2)) + entropy_coefficient * max(0, entropy - entropy_target)^2
    advantage = (R - mean(R)) / (std(R) + eps)   over B completed decisions; R: agents/credit.py

The paper publishes no value of the settings below, so every default here is ours. Where it is silent we decided:

- The log-probability is that of the ratio before clipping: the clip belongs to the environment's side of the decision,
  and the clipped ratio has no density at the ends.
- A batch is judged under the policy as it is at the update. Decisions wait L windows for their return, so up to L - 1
  of them were sampled just before the previous update; this is not corrected for.
- What becomes of decisions that wait for their return when a run ends: agents/credit.py.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional

from agents.base import Agent, Transition
from agents.credit import Credit, PendingDecisions, decision_arrays, decisions_of, pending_decisions
from agents.options import checked_count, checked_limits, checked_number
from atesd_env.envs.observation import NUM_PAPER_FEATURES
from atesd_env.errors import ConfigError
from atesd_env.files.reading import read_json, reading
from atesd_env.streams import numpy_stream

_EDGE = 1e-6  # a Beta sample may round to 0 or 1, where the log-density is infinite
_EPS = 1e-8

START_FILE = Path(__file__).parent / "beta.json"
"""The policy that was trained on runs of the bench's split train (benchmarks/beta_start.py)."""


class Decision(NamedTuple):
    """What REINFORCE needs to know of a decision: features [num_features] and unclipped ratios [groups], float64."""

    features: NDArray[np.float64]
    ratios: NDArray[np.float64]


def normalised_advantages(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns ``(R - mean) / (std + eps)``, [B]; the standard deviation is the population's (divided by B).

    >>> normalised_advantages(np.array([1.0, 3.0]))
    array([-0.99999999,  0.99999999])
    """
    return np.asarray((returns - returns.mean()) / (returns.std() + _EPS), dtype=np.float64)


def controller_loss(
    concentrations: Tensor, ratios: Tensor, advantages: Tensor, *, entropy_coefficient: float, entropy_target: float
) -> Tensor:
    """Returns the loss of a batch of decisions, a scalar.

    With several groups their decisions are independent: log-probabilities and entropy penalties add up.

    Args:
        concentrations: (c1, c2), [B, groups, 2].
        ratios: Unclipped ratios [B, groups], inside (0, 1).
        advantages: [B].
        entropy_coefficient: Weight of the entropy penalty.
        entropy_target: Entropy, in nats, above which the policy is punished; below it there is no penalty.
    """
    policy = Beta(concentrations[..., 0], concentrations[..., 1])
    log_probs = cast(Tensor, policy.log_prob(ratios)).sum(dim=-1)
    excess = functional.relu(cast(Tensor, policy.entropy()) - entropy_target)
    return -(advantages * log_probs).mean() + entropy_coefficient * (excess**2).sum(dim=-1).mean()


def policy_numbers(c1: Tensor, c2: Tensor) -> dict[str, float]:
    """Returns ``c1``, ``c2``, ``mean`` and ``entropy`` (nats) of each group's policy, for concentrations [groups].

    With several groups the names carry the group's number: ``mean_0``, ``mean_1``, ...
    """
    numbers: dict[str, float] = {}
    for group in range(len(c1)):
        suffix = f"_{group}" if len(c1) > 1 else ""
        policy = Beta(c1[group].detach(), c2[group].detach(), validate_args=False)
        values = {
            "c1": policy.concentration1,
            "c2": policy.concentration0,
            "mean": policy.mean,
            "entropy": policy.entropy(),
        }
        numbers |= {f"{name}{suffix}": float(cast(Tensor, value)) for name, value in values.items()}
    return numbers


class BetaController(Agent):
    """The paper's controller, learning online over one run or several.

    ``gamma``, ``lookahead`` and ``grounded_weight`` are the environment's, as far as ``credit`` uses them. The
    observation's features need no normalising: the environment scales them.

    Args:
        env: An environment of ours (its configuration is read from ``env.unwrapped.config``).
        seed: Seed of the decisions, the initial weights and the run.
        features: "paper" is the paper's state (six features); "all" is the whole observation.
        hidden_size: Units of the MLP's one hidden layer (tanh), at least 1.
        initial_concentration: c1 and c2 before anything is learned, above 1: the policy starts symmetric about 0.5
            (standard deviation 0.17 at 4). Near 1, softplus is flat, and a concentration that is pushed there hardly
            comes back.
        batch_size: Completed decisions of an update: the paper's B, at least 2.
        learning_rate: Adam's step size, at least 0.
        entropy_coefficient: Weight of the one-sided entropy penalty, c in the paper, at least 0.
        entropy_target: Entropy in nats above which the penalty acts. 0 is the uniform distribution's; -1 about that of
            a standard deviation of 0.09.
        a_min: Smallest ratio that the environment is given, in [0, 1].
        a_max: Largest, above it, in [0, 1].
        file: JSON file of a policy of one group to start from (``policy_file``); every group starts as it. "bench" is the
            packaged one, which was trained on runs of the bench's split train. None starts untrained. It has the hidden units and
            the features that it was trained with.
        credit: What a decision is credited with, a row of the paper's ablation: "one-step", "delayed", "discounted", or
            "grounded", the whole R (``agents.credit.credit_settings``).

    Attributes:
        network: Maps features [..., num_features] to [..., 2 * groups], float64.
        num_updates: Updates made.

    Raises:
        ConfigError: If an argument is out of range, or the environment is not one of ours.
        RunFilesError: If the file cannot be read, or holds another policy.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        seed: int = 0,
        *,
        features: Literal["paper", "all"] = "paper",
        hidden_size: int = 32,
        initial_concentration: float = 4.0,
        batch_size: int = 4,
        learning_rate: float = 0.02,
        entropy_coefficient: float = 0.1,
        entropy_target: float = -1.0,
        a_min: float = 0.0,
        a_max: float = 1.0,
        credit: Credit = "grounded",
        file: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(env, seed)
        if features not in ("paper", "all"):
            raise ConfigError(f"features: expected 'paper' or 'all', got {features!r}; pass one of these.")
        self.features = features
        self.hidden_size = checked_count("hidden_size", hidden_size, least=1)
        self.initial_concentration = checked_number("initial_concentration", initial_concentration, above=1.0)
        # One decision alone has no advantage over its own mean.
        self.batch_size = checked_count("batch_size", batch_size, least=2)
        self.learning_rate = checked_number("learning_rate", learning_rate, least=0.0)
        self.entropy_coefficient = checked_number("entropy_coefficient", entropy_coefficient, least=0.0)
        self.entropy_target = checked_number("entropy_target", entropy_target)
        self.a_min, self.a_max = checked_limits(a_min, a_max)
        self.credit = credit
        num_observed = cast("tuple[int, ...]", env.observation_space.shape)[0]
        self.num_features = NUM_PAPER_FEATURES if features == "paper" else num_observed
        weights_rng = numpy_stream(self.seed, "weights")
        self.network = _make_network(self.num_features, hidden_size, self.groups, initial_concentration, weights_rng)
        self.file = None if file is None else os.fspath(file)
        if self.file is not None:
            self._start_from(START_FILE if self.file == "bench" else Path(self.file))
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)
        self.num_updates = 0
        self._pending: PendingDecisions[Decision] = pending_decisions(env, credit)
        self._completed: list[tuple[Decision, float]] = []
        self._last_decision: Decision | None = None
        self._last_concentrations: NDArray[np.float64] | None = None
        self._last_advantage = 0.0

    def concentrations(self, features: NDArray[np.float64]) -> Tensor:
        """Returns (c1, c2), both above 1, [..., groups, 2] for features [..., num_features]."""
        outputs = self.network(torch.from_numpy(features))
        return 1.0 + functional.softplus(outputs.unflatten(-1, (self.groups, 2)))

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        """Returns ratios in [a_min, a_max], float32 [groups] or [n, groups]: a sample, or the mean if deterministic."""
        concentrations = self._concentrations(self._features(observation))
        return self._clipped(self._ratios(concentrations, deterministic=deterministic)), state

    def decide(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the next window's ratios, and remembers how they came about."""
        features = self._features(observation)
        self._last_concentrations = self._concentrations(features)
        self._last_decision = Decision(features, self._ratios(self._last_concentrations, deterministic=False))
        return self._clipped(self._last_decision.ratios)

    def begin_episode(self) -> None:
        """Drops the decisions of the episode before whose returns never became known."""
        self._pending.clear()

    def observe(self, transition: Transition) -> None:
        """Credits the decisions whose return is now known, and updates the policy once B of them have come together."""
        decision = cast(Decision, self._last_decision)
        self._completed += self._pending.observe(decision, transition)
        while len(self._completed) >= self.batch_size:
            self._update(self._completed[: self.batch_size])
            del self._completed[: self.batch_size]

    def _update(self, batch: list[tuple[Decision, float]]) -> None:
        features = np.stack([decision.features for decision, _ in batch])
        ratios = np.stack([decision.ratios for decision, _ in batch])
        advantages = normalised_advantages(np.asarray([returned for _, returned in batch]))
        self._last_advantage = float(advantages[-1])
        loss = controller_loss(
            self.concentrations(features),
            torch.from_numpy(ratios),
            torch.from_numpy(advantages),
            entropy_coefficient=self.entropy_coefficient,
            entropy_target=self.entropy_target,
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.num_updates += 1

    def drawn(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns ratios drawn from the policy, unclipped: [..., groups] for features [..., num_features]."""
        return self._ratios(self._concentrations(features), deterministic=False)

    def _start_from(self, path: Path) -> None:
        """Takes over the policy of a file, for each group."""
        with reading(path, "a policy of beta's, of one group", remedy="write one with benchmarks.beta_start"):
            told = read_json(path)["policy"]
            state = {name: torch.tensor(values, dtype=torch.float64) for name, values in told.items()}
            for name in ("2.weight", "2.bias"):  # of the output: c1 and c2 of each group
                state[name] = torch.cat([state[name]] * self.groups)
            if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
                raise ValueError("numbers that are not finite")
            self.network.load_state_dict(state)

    def _features(self, observation: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(observation, dtype=np.float64)[..., : self.num_features]

    def _concentrations(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        with torch.no_grad():
            return np.asarray(self.concentrations(features).numpy(), dtype=np.float64)

    def _ratios(self, concentrations: NDArray[np.float64], *, deterministic: bool) -> NDArray[np.float64]:
        """Returns ratios before clipping to [a_min, a_max], [..., groups]."""
        c1, c2 = np.moveaxis(concentrations, -1, 0)
        # The mean, not the mode: the mode has no value where both concentrations come near 1.
        ratios = c1 / (c1 + c2) if deterministic else self.rng.beta(c1, c2)
        return np.asarray(np.clip(ratios, _EDGE, 1.0 - _EDGE), dtype=np.float64)

    def _clipped(self, ratios: NDArray[np.float64]) -> NDArray[np.float32]:
        return np.clip(ratios, self.a_min, self.a_max).astype(np.float32)

    def diagnostics(self) -> dict[str, float]:
        """Returns numbers about the last decision and the learning so far.

        ``policy_numbers`` of the policy that made the last decision, NaN before the first. Then ``advantage``, the normalised
        advantage of the newest decision in the last update (0 before the first update), ``pending``, the decisions whose
        return is not known yet, and ``num_updates``.
        """
        unknown = np.full((self.groups, 2), np.nan)
        last = torch.from_numpy(unknown if self._last_concentrations is None else self._last_concentrations)
        return {
            **policy_numbers(last[:, 0], last[:, 1]),
            "advantage": self._last_advantage,
            "pending": float(len(self._pending.entries)),
            "num_updates": float(self.num_updates),
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Returns weights, Adam's state, and the decisions that wait for their return or for their batch."""
        arrays = {f"network/{name}": tensor.numpy().copy() for name, tensor in self.network.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            arrays |= {f"optimizer/{index}/{name}": tensor.numpy().copy() for name, tensor in moments.items()}
        arrays["num_updates"] = np.asarray(self.num_updates)
        arrays["last_advantage"] = np.asarray(self._last_advantage)
        if self._last_concentrations is not None:
            arrays["last_concentrations"] = self._last_concentrations
        arrays |= decision_arrays("pending", Decision._fields, self._pending.entries)
        arrays |= decision_arrays("completed", Decision._fields, self._completed)
        return arrays

    def set_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        state = {
            name.removeprefix("network/"): torch.tensor(arrays[name]) for name in arrays if name.startswith("network/")
        }
        self.network.load_state_dict(state)
        optimizer = self.optimizer.state_dict()
        for name in (name for name in arrays if name.startswith("optimizer/")):
            _, index, moment = name.split("/")
            optimizer["state"].setdefault(int(index), {})[moment] = torch.tensor(arrays[name])
        for index, moments in optimizer["state"].items():
            shape = [*self.network.parameters()][index].shape
            found = {name: (tensor.shape, bool(tensor.isfinite().all())) for name, tensor in moments.items()}
            if found != {"step": ((), True), "exp_avg": (shape, True), "exp_avg_sq": (shape, True)}:
                raise ValueError(f"other moments of parameter {index} than Adam's")
        self.optimizer.load_state_dict(optimizer)
        self.num_updates = int(arrays["num_updates"])
        self._last_advantage = float(arrays.get("last_advantage", 0.0))
        self._last_concentrations = arrays.get("last_concentrations")
        self._pending.clear()
        self._pending.entries.extend(decisions_of("pending", Decision._fields, Decision, arrays))
        self._completed = decisions_of("completed", Decision._fields, Decision, arrays)


def policy_file(controller: BetaController) -> dict[str, Any]:
    """Returns the policy of a controller of one group, as JSON holds it; ``file`` of another one reads it."""
    return {
        "policy": {name: tensor.numpy().round(6).tolist() for name, tensor in controller.network.state_dict().items()}
    }


def _make_network(
    num_features: int, hidden_size: int, groups: int, initial_concentration: float, rng: np.random.Generator
) -> nn.Sequential:
    """Returns the MLP: hidden weights uniform in +-1/sqrt(inputs), output weights zero: every state starts alike."""
    # skip_init: torch's own initialisation would draw from the global generator.
    hidden = nn.utils.skip_init(nn.Linear, num_features, hidden_size, dtype=torch.float64)
    output = nn.utils.skip_init(nn.Linear, hidden_size, 2 * groups, dtype=torch.float64)
    bound = 1.0 / math.sqrt(num_features)
    with torch.no_grad():
        hidden.weight.copy_(torch.from_numpy(rng.uniform(-bound, bound, hidden.weight.shape)))
        hidden.bias.copy_(torch.from_numpy(rng.uniform(-bound, bound, hidden.bias.shape)))
        output.weight.zero_()
        output.bias.fill_(math.log(math.expm1(initial_concentration - 1.0)))  # the inverse of 1 + softplus
    return nn.Sequential(hidden, nn.Tanh(), output)
