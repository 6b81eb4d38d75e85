"""From the updates of one hold window to the columns of its row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import EnvConfig
from atesd_env.distillation.importance import Agreement
from atesd_env.distillation.update import UpdateStatistics
from atesd_env.envs.columns import COLUMNS, Row, engine_columns, group_columns
from atesd_env.exposure import TeacherPrompt
from atesd_env.rollouts.sampling import Rollouts
from atesd_env.student.ranks import ALONE, Ranks


class WindowTotals:
    """Sums up the updates of one student's window.

    Args:
        reveal_ratios: [groups], the window's action.
        ranks: The processes that share an update's rollouts.
    """

    def __init__(self, reveal_ratios: NDArray[np.float64], ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self.reveal_ratios = reveal_ratios
        self._updates: list[UpdateStatistics] = []
        self._rollout_rows: list[tuple[float, float, float, float, float, float]] = []

    def add(
        self,
        update: UpdateStatistics,
        rollouts: Rollouts,
        ratios: Sequence[float],
        prompts: Sequence[TeacherPrompt],
        is_correct: Sequence[bool],
    ) -> None:
        """Takes in one update: its statistics, and for each of its rollouts ratio, prompt and grade."""
        self._updates.append(update)
        lengths = rollouts.lengths.tolist()
        is_truncated = (~rollouts.is_finished).tolist()
        rows: list[tuple[float, float, float, float, float, float]] = [
            (ratios[row], prompt.shown_ratio, prompt.is_cut, is_correct[row], lengths[row], is_truncated[row])
            for row, prompt in enumerate(prompts)
        ]
        self._rollout_rows += self._ranks.gathered(rows)

    def means(self) -> Row:
        """Returns the row's columns on exposure, student, teacher, rollouts and (for those that have them) engine."""
        updates = {
            name: float(np.mean([getattr(update, name) for update in self._updates]))
            for name in (entry.name for entry in dataclasses.fields(UpdateStatistics))
            if name != "agreement"
        }
        agreements = [update.agreement for update in self._updates if update.agreement is not None]
        rollout_rows = np.asarray(self._rollout_rows, dtype=np.float64)
        reveal_ratio, shown_ratio, cut_rate, success_rate, length, truncation_rate = rollout_rows.mean(axis=0).tolist()
        return {
            "exposure/reveal_ratio": reveal_ratio,
            "exposure/shown_ratio": shown_ratio,
            "exposure/cut_rate": cut_rate,
            "student/loss": updates["loss"],
            "student/mismatch": updates["mismatch"],
            "student/self_confidence": float(np.exp(updates["log_confidence"])),
            "student/entropy": updates["student_entropy"],
            "student/top1_disagreement": updates["top1_disagreement"],
            "student/grad_norm": updates["grad_norm"],
            "teacher/entropy": updates["teacher_entropy"],
            "rollout/success_rate": success_rate,
            "rollout/length": length,
            "rollout/truncation_rate": truncation_rate,
            "rollout/num_tokens": int(rollout_rows[:, 4].sum()),
            **{f"exposure/reveal_ratio_{group}": float(ratio) for group, ratio in enumerate(self.reveal_ratios)},
            **sum(agreements, Agreement()).means(),
        }


def broken_row(number: int, num_updates: int, reveal_ratios: NDArray[np.float64], config: EnvConfig) -> Row:
    """Returns the row of a window in which the loss was not finite: nothing measured, the reward a penalty."""
    row: Row = {
        column.name: None
        for column in (*COLUMNS, *group_columns(config.groups), *engine_columns(config.rollout_engine))
    }
    row |= {"window": number, "update": num_updates, "exposure/reveal_ratio": float(reveal_ratios.mean())}
    row |= {
        column.name: float(ratio) for column, ratio in zip(group_columns(config.groups), reveal_ratios, strict=False)
    }
    row["reward/total"] = -config.collapse_nll
    return row
