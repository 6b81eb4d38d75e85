"""A controller that tries ratios on branches of the run, goes back, and takes the one that paid best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.credit import learning_progress_return
from agents.options import checked_choice, checked_count, checked_number
from agents.planner import Planner, checked_ratios_to_try
from agents.scored import GRID, balance, best_places
from atesd_env.config import RunConfig
from atesd_env.envs.branch import branches, exposure_scores
from atesd_env.errors import ConfigError


class Branch(NamedTuple):
    """What came of a ratio that was tried.

    Attributes:
        nll: Probe NLL at the start and after each window that was followed, nats a token.
        is_broken: Whether the student broke.
    """

    nll: Sequence[float]
    is_broken: bool = False

    @property
    def drop(self) -> float:
        """Drop of the probe NLL since the start."""
        return self.nll[0] - self.nll[-1]


def standing(branch: Branch, gamma: float) -> tuple[int, int, float]:
    """Returns how good a branch is; the greater tuple is the better branch.

    A student that broke is worst, then comes one whose probe NLL ended above the start (the nearer the better): both are
    collapses, whatever their first windows brought. Of the others, more windows followed (a loser of the race has fewer)
    are better, and then the discounted signed progress.

    Args:
        branch: The branch, which was followed for at least one window, unless it broke.
        gamma: Discount, in [0, 1].

    >>> standing(Branch([2.0, 1.0, 1.5]), 0.5), standing(Branch([2.0, 0.5, 2.5]), 0.5)
    ((2, 2, 0.75), (1, 0, -0.5))
    """
    num_windows = len(branch.nll) - 1
    if branch.is_broken or not np.isfinite(branch.nll).all():
        return 0, num_windows, 0.0
    if branch.drop < 0.0:
        return 1, 0, branch.drop
    progress = -np.diff(branch.nll)
    return 2, num_windows, float(learning_progress_return(progress, gamma=gamma, lookahead=num_windows)[0])


def keeps_up(branch: Branch, rivals: Iterable[Branch], race: float | None) -> bool:
    """Returns whether a branch stays in the race: its drop is at least the share ``race`` of the best one's so far.

    As long as none has a drop, all stay; so do all without a race.

    Args:
        branch: The branch, after n windows.
        rivals: All branches; those that are whole after at least n windows count, by their first n.
        race: Share, in [0, 1], or None.

    >>> keeps_up(Branch([2.0, 1.8]), [Branch([2.0, 1.0, 0.5])], race=0.5)
    False
    """
    num_windows = len(branch.nll) - 1
    drops = [one.nll[0] - one.nll[num_windows] for one in rivals if len(one.nll) > num_windows and not one.is_broken]
    best = max(drops, default=0.0)
    return race is None or best <= 0.0 or branch.drop >= race * best


class LookaheadController(Planner):
    """Follows each of a few ratios for some windows on branches of the run, goes back, and takes the best until the next look.

    The branches are one population with common random numbers; the run itself never notices. The best has the highest
    discounted signed progress, ``sum of gamma^(i-1) (l_(i-1) - l_i)`` over the probe NLLs l of the windows followed, and
    a collapse is never chosen as long as there is anything else (``standing``). The last windows of a run are looked
    ahead to its end only.

    With several groups, the first look compares the ratios for all groups together, then each look tries every group's
    ratios in turn, the easiest first, while the others keep theirs.

    With ``candidates="scores"`` only the ratios are tried that the teacher's scores favour, at most two a group: the one with
    the highest grounded score, and the best balance of that and the mismatch (``agents.scored``). Where they are the same
    ratio, no branch is needed.

    With ``remember``, it learns across looks and runs which ratios win: after so many looks of a group only the two that won
    most are tried (the lower of equals). Its file keeps what was learned, so that `atesd train` on some instances makes a
    cheaper controller for others.

    Cost of a look: at most ``len(ratios) * windows`` windows of a student; with G > 1 groups up to G times this,
    in the first look G + 1 times. ``diagnostics`` tells it, and the run's rows have it as ``agent/branch_updates``
    (updates made on branches) and ``agent/branch_tokens`` (tokens sampled there, which those updates learned from); that of
    the scores as ``agent/sampled_tokens`` and ``agent/scored_tokens``.

    Args:
        env: The environment, one of ours.
        seed: Seed of the run; there is no randomness in the decisions.
        ratios: Reveal ratios to try, at least two, in [0, 1]; by default a grid of five.
        windows: Windows to follow each, at least 1.
        every: Windows between two looks; 0 looks once.
        gamma: Discount in [0, 1]; None takes the environment's.
        race: After each window, a branch whose drop of the probe NLL is below this share of the best one's is given up,
            in [0, 1]; None follows all to the end. [ours]
        candidates: Which of the ratios are tried, "all" or "scores". [ours]
        remember: Looks of a group after which only the two ratios that won most are tried, at least 0; 0 tries all
            each time, as ``candidates="scores"`` must. [ours]
        **options: Those of ``Planner``: ``start`` and ``initial_ratio``.

    Raises:
        ConfigError: If an argument is out of range, or the environment is not one of ours.
    """

    cost_names = ("branches", "branch_updates", "branch_tokens", "sampled_tokens", "scored_tokens")

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        seed: int = 0,
        *,
        ratios: Sequence[float] = GRID,
        windows: int = 3,
        every: int = 9,
        gamma: float | None = None,
        race: float | None = 0.7,
        candidates: Literal["all", "scores"] = "all",
        remember: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(env, seed, every=every, **options)
        self.ratios = checked_ratios_to_try(ratios)
        self.windows = checked_count("windows", windows, least=1)
        self.gamma = None if gamma is None else checked_number("gamma", gamma, least=0.0, most=1.0)
        self.race = None if race is None else checked_number("race", race, least=0.0, most=1.0)
        self.candidates = checked_choice("candidates", candidates, ("all", "scores"))
        self.remember = checked_count("remember", remember, least=0)
        if self.remember and self.candidates == "scores":
            raise ConfigError(
                f"remember: expected 0 with candidates='scores', got {remember}; the scores choose what is tried: leave one of them out."
            )
        self._wins = np.zeros((self.groups, len(self.ratios)), dtype=np.int64)

    def plan(self, student: int, ratios: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the ratios whose branch is best from here, [groups]."""
        # An instance may have fewer groups than a decision has ratios; the others are nobody's.
        groups = self._config(student).groups
        tried: dict[tuple[float, ...], Branch] = {}
        best = tuple(ratios.tolist())
        to_try = self._ratios_to_try(student, groups)
        is_first = bool(np.isnan(ratios).any())
        if is_first:
            of_any = [ratio for ratio in self.ratios if any(ratio in its for its in to_try)]
            best = self._best(student, [(ratio,) * self.groups for ratio in of_any], tried)
        for group, its in enumerate(() if is_first and groups == 1 else to_try):
            turns = [(*best[:group], ratio, *best[group + 1 :]) for ratio in its]
            best = self._best(student, list(dict.fromkeys([best, *turns])), tried)
        return np.array(best)

    def decide(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the next window's ratios, and remembers which of those that were tried won."""
        action = super().decide(observation)
        if self._costs["branches"] and self._planned is not None:
            groups = self._config(0).groups
            self._wins[:groups] += np.equal(self.ratios, self._planned[:groups, None])
        return action

    def _ratios_to_try(self, student: int, groups: int) -> list[list[float]]:
        """Returns the candidates of each group, in the order of ``ratios``."""
        if self.candidates == "all":
            return [self._remembered(wins) for wins in self._wins[:groups]]
        scores = exposure_scores(self.env, self.ratios, student=student)
        self.count(sampled_tokens=scores.num_sampled_tokens, scored_tokens=scores.num_scored_tokens)
        places = np.stack([best_places(values) for values in (scores.grounded, balance(scores))])
        return [[self.ratios[place] for place in np.unique(places[:, group])] for group in range(groups)]

    def _remembered(self, wins: NDArray[np.int64]) -> list[float]:
        """Returns the ratios that a group tries by how often each won, [ratios]."""
        if not 0 < self.remember <= wins.sum():
            return list(self.ratios)
        most = np.sort(np.argsort(-wins, kind="stable")[:2])
        return [self.ratios[place] for place in most]

    def arrays(self) -> dict[str, NDArray[Any]]:
        return super().arrays() | ({"wins": self._wins} if self.remember else {})

    def set_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        super().set_arrays(arrays)
        wins = arrays.get("wins", self._wins)
        if wins.shape != self._wins.shape or wins.dtype != self._wins.dtype or (wins < 0).any():
            raise ValueError(f"wins of other ratios than {self.ratios}")
        self._wins = wins.copy()

    def _config(self, student: int) -> RunConfig:
        config: RunConfig = self.env.unwrapped.population.config_of(student)  # type: ignore[attr-defined]
        return config

    def _best(
        self, student: int, candidates: list[tuple[float, ...]], tried: dict[tuple[float, ...], Branch]
    ) -> tuple[float, ...]:
        """Returns the best of some ratios; those that are not among the ``tried`` are tried first."""
        if len(candidates) == 1:
            return candidates[0]
        new = [ratios for ratios in candidates if ratios not in tried]
        if new:
            tried |= zip(new, self._followed(student, np.array(new), list(tried.values())), strict=True)
        gamma = self._config(student).gamma if self.gamma is None else self.gamma
        return max(candidates, key=lambda ratios: standing(tried[ratios], gamma))

    def _followed(self, student: int, ratios: NDArray[np.float64], rivals: list[Branch]) -> list[Branch]:
        """Returns the branches of some ratios [N, groups] from here; those that lose the race are given up on the way."""
        students = branches(self.env, len(ratios), student)
        nll = [[students.runs[number].probe_nll] for number in range(len(ratios))]
        followed = [Branch(one) for one in nll]
        going = list(range(len(ratios)))
        decision, first = len(students.runs[0].rows) + 1, self._costs["branches"]
        updates_before = students.runs[0].rows[-1]["update"] if students.runs[0].rows else 0
        self.count(branches=len(ratios))
        for _ in range(self.windows):
            if not going:
                break
            rows = students.window(ratios[going], going)
            self.count(branch_tokens=sum(int(row["rollout/num_tokens"] or 0) for row in rows))
            for number, row in zip(going, rows, strict=True):
                self.branch_rows.append({"decision": decision, "branch": first + number, **row})
                run = students.runs[number]
                nll[number].append(run.probe_nll)
                followed[number] = Branch(nll[number], run.broken is not None)
            going = [
                number
                for number in going
                if not students.is_over(number) and keeps_up(followed[number], [*rivals, *followed], self.race)
            ]
        updates = [int(run.rows[-1]["update"] or 0) for run in students.runs]
        self.count(branch_updates=sum(updates) - len(ratios) * int(updates_before or 0))
        return followed
