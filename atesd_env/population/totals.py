"""From the updates of one hold window to the columns of its row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from atesd_env.config import EnvConfig
from atesd_env.distillation.importance import Agreement
from atesd_env.distillation.statistics import UpdateStatistics, mean_columns
from atesd_env.envs.columns import (
    CHOICE_COLUMNS,
    COLUMNS,
    HEALTH_COLUMNS,
    Column,
    Row,
    engine_columns,
    group_columns,
    group_statistics,
    problem_columns,
)
from atesd_env.population.batch import Batch
from atesd_env.population.decision import Decision
from atesd_env.rollouts.health import ends_in_a_loop, repetition


class RolloutRow(NamedTuple):
    """What a row sums up of one rollout; all but its difficulty group and its length are shares, 0..1."""

    reveal_ratio: float
    shown_ratio: float
    cut_rate: float
    success_rate: float
    length: float
    truncation_rate: float
    group: float
    loop_rate: float
    repetition: float


def rollout_rows(batch: Batch) -> list[RolloutRow]:
    """Returns what a row sums up of each of a batch's rollouts."""
    lengths = batch.rollouts.lengths.tolist()
    is_truncated = (~batch.rollouts.is_finished).tolist()
    return [
        RolloutRow(
            ratio,
            prompt.shown_ratio,
            prompt.is_cut,
            is_correct,
            length,
            truncated,
            group,
            ends_in_a_loop(token_ids),
            repetition(token_ids),
        )
        for ratio, prompt, is_correct, length, truncated, group, token_ids in zip(
            batch.reveal_ratios,
            batch.teacher_prompts,
            batch.is_correct,
            lengths,
            is_truncated,
            batch.groups,
            batch.rollouts.answers,
            strict=True,
        )
    ]


class WindowTotals:
    """Sums up the updates of one student's window.

    Args:
        decision: The window's.
    """

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self._updates: list[UpdateStatistics] = []
        self._rollouts: list[RolloutRow] = []

    def add(self, update: UpdateStatistics, rollouts: Sequence[RolloutRow]) -> None:
        """Takes in one update: its statistics, and its rollouts of all processes."""
        self._updates.append(update)
        self._rollouts += rollouts

    @property
    def num_updates(self) -> int:
        """Updates taken in."""
        return len(self._updates)

    def next_decision(self, num_rollouts: int, share: slice) -> Decision:
        """Returns the decision of the next update, for a share of its rollouts."""
        return self.decision.of_update(self.num_updates, num_rollouts, share)

    @property
    def agreement(self) -> Agreement:
        """How another engine's log-probabilities agree with the student's, over all updates."""
        agreements = [update.agreement for update in self._updates if update.agreement is not None]
        return sum(agreements, Agreement())

    def num_trained_tokens(self, loss_horizon: int | None) -> int:
        """Returns the tokens that the updates learned from: the rollouts', up to the horizon."""
        return int(sum(min(row.length, loss_horizon or row.length) for row in self._rollouts))

    def means(self, config: EnvConfig) -> Row:
        """Returns the row's columns on exposure, student, teacher, rollouts and (for those that have them) engine.

        Of a window without a teacher, which has made no update, they say what was asked for; what updates measure is None.
        """
        if not self._updates:
            asked: Row = {"exposure/reveal_ratio": float(self.decision.reveal_ratios.mean()), "rollout/num_tokens": 0}
            nothing: Row = dict.fromkeys(column.name for column in _columns(config))
            return nothing | asked | self._ratios() | self.decision.columns
        rollouts = RolloutRow(*np.asarray(self._rollouts, dtype=np.float64).mean(axis=0).tolist())
        return {
            "exposure/reveal_ratio": rollouts.reveal_ratio,
            "exposure/shown_ratio": rollouts.shown_ratio,
            "exposure/cut_rate": rollouts.cut_rate,
            **mean_columns(self._updates),
            "rollout/success_rate": rollouts.success_rate,
            "rollout/length": rollouts.length,
            "rollout/truncation_rate": rollouts.truncation_rate,
            "rollout/num_tokens": int(sum(rollout.length for rollout in self._rollouts)),
            **self._ratios(),
            **self._by_group(),
            **self._health(),
            **self.decision.columns,
            **self.agreement.means(),
        }

    def _ratios(self) -> Row:
        """Returns the ratio of each group, whether the row has such columns or not."""
        ratios = enumerate(self.decision.reveal_ratios)
        return {f"exposure/reveal_ratio_{group}": float(ratio) for group, ratio in ratios}

    def _health(self) -> Row:
        """Returns ``HEALTH_COLUMNS``."""
        rows = np.array([(row.loop_rate, row.repetition, row.length) for row in self._rollouts])
        tenths = np.quantile(rows[:, 2], (0.1, 0.5, 0.9), method="lower")
        values = [*rows[:, :2].mean(axis=0).tolist(), *tenths.tolist()]
        return {column.name: value for column, value in zip(HEALTH_COLUMNS, values, strict=True)}

    def _by_group(self) -> Row:
        """Returns ``GROUP_STATISTICS`` of each group; nothing where there is one."""
        parts = [update.by_group for update in self._updates if update.by_group is not None]
        row: Row = {}
        for group, (weight, entropy, mismatch) in enumerate(np.sum(parts, axis=0).T.tolist() if parts else ()):
            lengths = [rollout.length for rollout in self._rollouts if rollout.group == group]
            row[f"rollout/length_{group}"] = float(np.mean(lengths)) if lengths else None
            row[f"student/entropy_{group}"] = entropy / weight if weight else None
            row[f"student/mismatch_{group}"] = mismatch / weight if weight else None
        return row


def _columns(config: EnvConfig) -> list[Column]:
    by_group = (*group_columns(config.groups), *group_statistics(config.groups))
    chosen = [*CHOICE_COLUMNS[:1]] if config.action_views is not None else []
    chosen += CHOICE_COLUMNS[1:] if config.action_retire else ()
    chosen += problem_columns(config.num_ratios) if config.action_ratios == "problem" else ()
    return [*COLUMNS, *by_group, *HEALTH_COLUMNS, *chosen, *engine_columns(config.rollout_engine)]


def finished_row(config: EnvConfig, measured: Row) -> Row:
    """Returns the row of a window, its columns in their order, out of everything that was measured."""
    return {column.name: measured[column.name] for column in _columns(config)}


def broken_row(number: int, num_updates: int, decision: Decision, config: EnvConfig) -> Row:
    """Returns the row of a window in which the loss was not finite: nothing measured, the reward a penalty."""
    row: Row = {column.name: None for column in _columns(config)}
    ratios = decision.reveal_ratios
    row |= {"window": number, "update": num_updates, "exposure/reveal_ratio": float(ratios.mean())}
    row |= {column.name: float(ratio) for column, ratio in zip(group_columns(config.groups), ratios, strict=False)}
    row |= decision.columns
    row["reward/total"] = -config.collapse_nll
    return row
