"""The paper's return R of each decision: pure functions of one run's measurements, float64; and credit inside a run.

Index of everything here: decision t (0..W-1) is taken before window t+1, and measurement t+1 is made after that window;
measurement 0 is made before the first window. So entry ``[t]`` of a per-window column (``reward/progress``,
``probe/grounded``) belongs to window t+1, the window of decision t, and the returned entry ``[t]`` is that decision's.
A decision is known once L windows have passed since it was taken: its own and the L-1 after it.

``gamma`` is the discount g, ``lookahead`` is L, ``grounded_weight`` is lambda_gt (paper, reward of the controller; its
values are unpublished).

Inside a run, decisions wait until L windows have passed and their return is known (``PendingDecisions``). At the end of a run
the last L - 1 decisions, whose measurements never come, are dropped, unless the student broke.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, TypedDict, TypeVar, get_args

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from agents.base import Transition
from agents.checking import config_of
from agents.options import checked_choice
from atesd_env.errors import ConfigError

Credit = Literal["one-step", "delayed", "discounted", "grounded"]
"""What a decision is credited with; see ``credit_settings``."""
Decision = TypeVar("Decision")
"""What is remembered of a decision until its return is known."""


class CreditSettings(TypedDict):
    """The three numbers of R: discount, lookahead L, and weight of the teacher-grounded score."""

    gamma: float
    lookahead: int
    grounded_weight: float


def credit_settings(credit: Credit, *, gamma: float, lookahead: int, grounded_weight: float) -> CreditSettings:
    """Returns the settings of R for one row of the paper's reward ablation; each row changes one thing.

    - "one-step": the decision's own window only, L = 1, without grounding: R = the window's learning progress.
    - "delayed": the sum of L windows, gamma = 1, without grounding.
    - "discounted": the discounted sum of L windows, without grounding: R = G_lp.
    - "grounded": the paper's whole R = G_lp + grounded_weight * G_gt.

    The paper names the second row "short delayed credit" and gives no numbers; that it has the same L as the others and no
    discount is ours. For a shorter one, make the environment with a smaller ``lookahead``.

    Args:
        credit: The row.
        gamma: The environment's discount.
        lookahead: The environment's L.
        grounded_weight: The environment's lambda_gt.

    Raises:
        ConfigError: If there is no such row.

    >>> credit_settings("delayed", gamma=0.9, lookahead=3, grounded_weight=0.1)
    {'gamma': 1.0, 'lookahead': 3, 'grounded_weight': 0.0}
    """
    checked_choice("credit", credit, get_args(Credit))
    if credit == "one-step":
        return {"gamma": gamma, "lookahead": 1, "grounded_weight": 0.0}
    return {
        "gamma": 1.0 if credit == "delayed" else gamma,
        "lookahead": lookahead,
        "grounded_weight": grounded_weight if credit == "grounded" else 0.0,
    }


def learning_progress_return(
    progress: ArrayLike, *, gamma: float, lookahead: int, with_tail: bool = False
) -> NDArray[np.float64]:
    """Returns G_lp of each decision: ``G_lp[t] = sum over i = 1..L of gamma^(i-1) * progress[t + i - 1]``.

    With the positive part this is the paper's sum of ``gamma^(i-1) * max(0, l_(t+i-1) - l_(t+i))``. L = 1 gives the
    window's own progress; gamma = 0 does too; gamma = 1 adds up L windows.

    Args:
        progress: Learning progress of windows 1 .. W, [W], in nats per token.
        gamma: Discount in [0, 1].
        lookahead: L, at least 1.
        with_tail: Also return the last L-1 decisions, whose windows are not all made, with what came: fewer terms.

    Returns:
        [max(W - L + 1, 0)], or [W] with the tail.

    >>> learning_progress_return([1.0, 0.0, 4.0], gamma=0.5, lookahead=2)
    array([1., 2.])
    >>> learning_progress_return([1.0, 0.0, 4.0], gamma=0.5, lookahead=2, with_tail=True)
    array([1., 2., 4.])
    """
    column = _checked("progress", progress)
    return np.asarray([weights @ part for weights, part in _lookaheads(column, gamma, lookahead, with_tail=with_tail)])


def grounded_return(
    grounded: ArrayLike, *, gamma: float, lookahead: int, with_tail: bool = False
) -> NDArray[np.float64]:
    """Returns G_gt of each decision: the mean over i = 1..L of ``grounded[t + i - 1]``, weighted by ``gamma^(i-1)``.

    A mean, not a sum: a constant score c gives c for every gamma and L. The tail's weights are those of the windows
    made.

    Args:
        grounded: Teacher-grounded scores of windows 1 .. W (the paper's g_1 .. g_W), [W].
        gamma: Discount in [0, 1].
        lookahead: L, at least 1.
        with_tail: As in ``learning_progress_return``.

    Returns:
        [max(W - L + 1, 0)], or [W] with the tail.

    >>> grounded_return([-3.0, 0.0, -6.0], gamma=0.5, lookahead=2)
    array([-2., -2.])
    """
    column = _checked("grounded", grounded)
    parts = _lookaheads(column, gamma, lookahead, with_tail=with_tail)
    return np.asarray([weights @ part / weights.sum() for weights, part in parts])


def decision_returns(
    progress: ArrayLike,
    grounded: ArrayLike,
    *,
    gamma: float,
    lookahead: int,
    grounded_weight: float,
    with_tail: bool = False,
) -> NDArray[np.float64]:
    """Returns R of each decision: ``G_lp + grounded_weight * G_gt``.

    L = 1 gives the environment's reward of each window.

    Args:
        progress: Learning progress of windows 1 .. W, [W].
        grounded: Teacher-grounded scores of windows 1 .. W, [W].
        gamma: Discount in [0, 1].
        lookahead: L, at least 1.
        grounded_weight: The paper's lambda_gt, not negative.
        with_tail: As in ``learning_progress_return``.

    Returns:
        [max(W - L + 1, 0)], or [W] with the tail.

    Raises:
        ConfigError: If a column is not one-dimensional and finite, the two differ in length, or a number is out of
            range.
    """
    progress, grounded = _checked("progress", progress), _checked("grounded", grounded)
    if progress.shape != grounded.shape:
        raise ConfigError(
            f"grounded: expected one score for each of the {len(progress)} windows, got {len(grounded)}; pass "
            "columns of one run."
        )
    gains = learning_progress_return(progress, gamma=gamma, lookahead=lookahead, with_tail=with_tail)
    scores = grounded_return(grounded, gamma=gamma, lookahead=lookahead, with_tail=with_tail)
    return gains + grounded_weight * scores


def _lookaheads(
    column: NDArray[np.float64], gamma: float, lookahead: int, *, with_tail: bool
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Returns (weights, entries) of the windows that each decision is credited for: [L] each, fewer in the tail."""
    if not 0.0 <= gamma <= 1.0:
        raise ConfigError(f"gamma: expected a discount in [0, 1], got {gamma!r}; pass a number in that range.")
    if lookahead < 1:
        raise ConfigError(f"lookahead: expected at least 1 window, got {lookahead!r}; 1 is the one-step reward.")
    weights = gamma ** np.arange(lookahead, dtype=np.float64)
    num_decisions = len(column) if with_tail else max(len(column) - lookahead + 1, 0)
    parts = [column[decision : decision + lookahead] for decision in range(num_decisions)]
    return [(weights[: len(part)], part) for part in parts]


def _checked(name: str, values: ArrayLike) -> NDArray[np.float64]:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or not np.isfinite(column).all():
        raise ConfigError(
            f"{name}: expected finite numbers, one for each window, got {values!r}; "
            "leave out windows that were not measured."
        )
    return column


class PendingDecisions(Generic[Decision]):
    """Decisions that wait for their return, in a run that is still going on; arguments and numbers of ``decision_returns``.

    Attributes:
        entries: (decision, progress, grounded) of the windows whose decision waits, oldest first; at most L - 1.
    """

    def __init__(self, *, gamma: float, lookahead: int, grounded_weight: float) -> None:
        self._settings: CreditSettings = {"gamma": gamma, "lookahead": lookahead, "grounded_weight": grounded_weight}
        self.entries: deque[tuple[Decision, float, float]] = deque()

    def add(self, decision: Decision, progress: float, grounded: float) -> list[tuple[Decision, float]]:
        """Adds a window and the decision that it was made under.

        Returns:
            The decision that is now complete, with its R: one, or none while fewer than L windows have been made.
        """
        self.entries.append((decision, progress, grounded))
        if len(self.entries) < self._settings["lookahead"]:
            return []
        (returned,) = self._returns(with_tail=False)
        return [(self.entries.popleft()[0], returned)]

    def observe(self, decision: Decision, transition: Transition) -> list[tuple[Decision, float]]:
        """Adds a window as an agent sees it, and the decision that it was made under.

        Where a student broke, nothing more would come, so the waiting decisions are credited with what did. That window may
        have no measurements; its reward, a penalty, stands for its own part of R, so that L = 1 charges it as it is.

        Returns:
            The decisions that are now complete, each with its R, oldest first.
        """
        progress, grounded = transition.info["reward/progress"], transition.info["probe/grounded"]
        if not transition.terminated:
            return self.add(decision, progress, grounded)
        grounded = grounded if grounded is not None and math.isfinite(grounded) else 0.0
        penalty = transition.reward - self._settings["grounded_weight"] * grounded
        return self.add(decision, penalty, grounded) + self.finish()

    def finish(self) -> list[tuple[Decision, float]]:
        """Ends the run: returns the waiting decisions with the R of the windows that were made (``with_tail``)."""
        if not self.entries:
            return []
        returns = self._returns(with_tail=True)
        decisions = [decision for decision, _, _ in self.entries]
        self.clear()
        return list(zip(decisions, returns, strict=True))

    def clear(self) -> None:
        """Forgets the waiting decisions: they get no credit."""
        self.entries.clear()

    def _returns(self, *, with_tail: bool) -> list[float]:
        _, progress, grounded = zip(*self.entries, strict=True)
        returns: list[float] = decision_returns(progress, grounded, with_tail=with_tail, **self._settings).tolist()
        return returns


def pending_decisions(env: gymnasium.Env[Any, Any], credit: Credit) -> PendingDecisions[Any]:
    """Returns no decisions yet, credited as an environment's configuration and a row of the ablation say.

    Raises:
        ConfigError: If there is no such row, or the environment is not one of ours.
    """
    config = config_of(env)
    return PendingDecisions(
        **credit_settings(
            credit, gamma=config.gamma, lookahead=config.lookahead, grounded_weight=config.grounded_weight
        )
    )


def decision_arrays(name: str, parts: Sequence[str], entries: Iterable[tuple[Any, ...]]) -> dict[str, NDArray[Any]]:
    """Returns decisions and the numbers that go with each, such as ``PendingDecisions.entries``, as arrays ``<name>/<part>``.

    ``parts`` names the arrays that a decision is a tuple of. Without a decision there are no arrays.
    """
    rows = list(entries)
    if not rows:
        return {}
    columns = zip(*(decision for decision, *_ in rows), strict=True)
    arrays = {f"{name}/{part}": np.stack(column) for part, column in zip(parts, columns, strict=True)}
    return {**arrays, f"{name}/numbers": np.asarray([numbers for _, *numbers in rows], dtype=np.float64)}


def decisions_of(
    name: str, parts: Sequence[str], kind: Callable[..., Decision], arrays: Mapping[str, NDArray[Any]]
) -> list[tuple[Any, ...]]:
    """Returns the entries that ``decision_arrays`` was given; ``kind`` makes a decision of its arrays."""
    if f"{name}/numbers" not in arrays:
        return []
    rows = zip(*(arrays[f"{name}/{part}"] for part in parts), strict=True)
    return [(kind(*row), *numbers) for row, numbers in zip(rows, arrays[f"{name}/numbers"].tolist(), strict=True)]
