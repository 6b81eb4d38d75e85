"""What a window is summed up as: the row that is logged; ``COLUMNS`` is the single source of its documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = dict[str, float | int | None]
"""One window of one student: column name -> value; None where nothing was measured."""

Columns = dict[str, Any]
"""Column name -> what S students have in it: an array [S], or a plain number where S is 1; NaN where not measured."""


@dataclass(frozen=True)
class Column:
    """A column of the row: name, unit, one sentence, type ("int", "float", "float or null", ...)."""

    name: str
    unit: str
    meaning: str
    type: str = "float"


COLUMNS: tuple[Column, ...] = (
    Column("window", "windows", "Number of this hold window in its episode, from 1.", type="int"),
    Column("update", "updates", "Student updates made since the episode began, this window included.", type="int"),
    Column("exposure/reveal_ratio", "0..1", "Reveal ratio that was asked for, mean over the window's rollouts."),
    Column(
        "exposure/shown_ratio", "0..1", "Share of the reference steps that the teacher saw, after flooring and cutting."
    ),
    Column("exposure/cut_rate", "0..1", "Share of teacher prompts that lost asked-for steps to max_prompt_tokens."),
    Column("student/loss", "nats/token", "The loss that the updates minimised, mean over the window's updates."),
    Column(
        "student/mismatch",
        "nats/token",
        "KL(teacher||student) on the rollout tokens, full vocabulary, before each update.",
    ),
    Column(
        "student/self_confidence",
        "0..1",
        "exp of the mean log-probability that the student gives its own rollout tokens.",
    ),
    Column("student/entropy", "nats/token", "Entropy of the student's next-token distribution on the rollouts."),
    Column(
        "student/top1_disagreement",
        "0..1",
        "Share of rollout tokens where student and teacher prefer different tokens.",
    ),
    Column("student/grad_norm", "1", "Gradient norm of the adapters before clipping, mean over the updates."),
    Column("teacher/entropy", "nats/token", "Entropy of the teacher's next-token distribution on the rollouts."),
    Column("rollout/success_rate", "0..1", "Share of rollouts whose final answer is right."),
    Column("rollout/length", "tokens", "Mean length of a rollout, end token included."),
    Column("rollout/truncation_rate", "0..1", "Share of rollouts that reached max_new_tokens without an end token."),
    Column("rollout/num_tokens", "tokens", "Tokens sampled in the window.", type="int"),
    Column(
        "probe/nll",
        "nats/token",
        "Student's negative log-likelihood of the probe's reference solutions, after the window.",
    ),
    Column(
        "probe/grounded",
        "nats/token",
        "Teacher's mean log-probability of the same solutions at the window's reveal ratio.",
    ),
    Column(
        "probe/accuracy",
        "0..1",
        "Greedy accuracy on the probe; null in windows where it is not measured.",
        type="float or null",
    ),
    Column(
        "probe/pass_at_k",
        "0..1",
        "Unbiased pass@k on the probe (k = probe_pass_k); null if it is off.",
        type="float or null",
    ),
    Column(
        "reward/progress",
        "nats/token",
        "Learning progress: drop of probe NLL in this window (its positive part by default).",
    ),
    Column(
        "reward/total",
        "nats/token",
        "The reward: progress + grounded_weight * probe/grounded; -collapse_nll if the student breaks.",
    ),
)
"""The columns of every row, in order. With groups > 1, `exposure/reveal_ratio_<g>` columns follow (`group_columns`), and where
rollouts are looked at one by one `GROUP_STATISTICS` of each group."""

TIME_COLUMNS: tuple[Column, ...] = (
    Column("time/rollout_sec", "seconds", "Wall time of sampling rollouts in the window."),
    Column("time/update_sec", "seconds", "Wall time of scoring, gradients and optimizer steps."),
    Column("time/probe_sec", "seconds", "Wall time of the probe."),
    Column("time/window_sec", "seconds", "Wall time of the whole window: everything the environment did."),
    Column(
        "time/controller_sec",
        "seconds",
        "Wall time that the agent took between the last window and this one, to learn and to decide; null where a run goes on.",
        type="float or null",
    ),
)
"""Logged beside the row, and kept out of ``info``: everything in ``info`` repeats bit for bit with the seed."""


LOG_COLUMNS: tuple[Column, ...] = (
    Column(
        "update/num_tokens",
        "tokens",
        "Answer tokens that the window's updates learned from: the rollouts', or of a baseline what it trained on.",
        type="int or null",
    ),
    Column(
        "probe/nll_before",
        "nats/token",
        "Only in the first window's row: probe NLL of the base model, before anything was learned.",
    ),
    Column("agent/<name>", "", "What the agent tells of its decision, such as `agent/c1` of the Beta controller."),
    Column(
        "status", "", '"running", "truncated" (the budget is used up) or "terminated" (the student broke).', type="text"
    ),
    Column("reason", "", "Why the student counts as broken.", type="text or null"),
    Column("instance", "", "On the bench: id of the instance.", type="text"),
    Column(
        "non_finite", "", "Only where it applies: the columns that were not finite numbers, and are null.", type="text"
    ),
)
"""Logged beside the row by the recorder, not part of ``info``."""


def group_columns(groups: int) -> tuple[Column, ...]:
    """Returns the extra columns of an environment with several difficulty groups (none for one group)."""
    if groups == 1:
        return ()
    return tuple(
        Column(f"exposure/reveal_ratio_{group}", "0..1", f"Reveal ratio of difficulty group {group} (0 is easiest).")
        for group in range(groups)
    )


def problem_columns(num_problems: int) -> tuple[Column, ...]:
    """Returns the extra columns of an environment whose actions have a ratio for each of a window's problems."""
    meaning = "With action_ratios=problem: reveal ratio of problem {} of the window, in the order of its updates."
    return tuple(
        Column(f"exposure/problem_ratio_{number}", "0..1", meaning.format(number)) for number in range(num_problems)
    )


GROUP_STATISTICS = ("rollout/length", "student/entropy", "student/mismatch")
"""Columns that rows of language models and closed forms with groups > 1 also have for each group: ``<column>_<g>``."""


def group_statistics(groups: int) -> tuple[Column, ...]:
    """Returns the columns of ``GROUP_STATISTICS`` for this many difficulty groups, group by group (none for one group)."""
    if groups == 1:
        return ()
    units = {column.name: column.unit for column in COLUMNS}
    meaning = "`{}` of difficulty group {} (0 is easiest): the mean over its rollouts in the window; null where there was none."
    return tuple(
        Column(f"{name}_{group}", units[name], meaning.format(name, group), type="float or null")
        for group in range(groups)
        for name in GROUP_STATISTICS
    )


HEALTH_COLUMNS: tuple[Column, ...] = (
    Column(
        "rollout/loop_rate",
        "0..1",
        "Share of rollouts that end in a loop: 2 to 50 tokens, three times or more, up to the last token.",
        type="float or null",
    ),
    Column(
        "rollout/repetition",
        "0..1",
        "Share of a rollout's runs of four tokens that came before in it, mean over the rollouts.",
        type="float or null",
    ),
    Column("rollout/length_p10", "tokens", "Length that a tenth of the rollouts do not exceed.", type="float or null"),
    Column("rollout/length_p50", "tokens", "Median length of the rollouts.", type="float or null"),
    Column(
        "rollout/length_p90", "tokens", "Length that nine tenths of the rollouts do not exceed.", type="float or null"
    ),
)
"""Columns that only rows of language models have: how healthy their rollouts are, each one looked at."""

CHOICE_COLUMNS: tuple[Column, ...] = (
    Column("exposure/view", "", "With action_views: which of them the teacher was shown, from 0.", type="int"),
    Column(
        "exposure/retired",
        "0 or 1",
        "With action_retire: whether the window had no teacher, and so no update.",
        type="int",
    ),
)
"""Columns that a row has only where the action decides more than reveal ratios."""


ENGINE_COLUMNS: tuple[Column, ...] = (
    Column(
        "engine/log_prob_difference",
        "nats/token",
        "Mean absolute difference between the trainer's and the rollout engine's log-probability of a rollout token.",
    ),
    Column("engine/log_prob_difference_max", "nats", "The largest of these differences in the window."),
    Column(
        "engine/importance_weight",
        "1",
        "Mean weight that the tokens' losses were multiplied with; 1 without importance_cap.",
    ),
    Column("engine/capped_rate", "0..1", "Share of tokens whose weight was cut at importance_cap."),
)
"""Columns that a row has only with a rollout engine other than the own one, after all others."""


def engine_columns(rollout_engine: str) -> tuple[Column, ...]:
    """Returns the extra columns of an environment whose rollouts come from this engine (none for "own")."""
    return () if rollout_engine == "own" else ENGINE_COLUMNS


TOY_COLUMNS: tuple[Column, ...] = (
    Column("toy/optimal_nll", "nats/token", "Noise-free probe NLL of the optimal policy after as many windows."),
    Column(
        "toy/regret",
        "nats/token",
        "Lowest final NLL that can still be reached, minus the optimal final NLL: what is lost for good.",
    ),
    Column(
        "toy/reached_rate",
        "0..1",
        "Drop of the noise-free probe NLL so far / the optimal policy's by the end of the episode.",
    ),
    Column("toy/best_ratio", "0..1", "Reveal ratio of the optimal policy in the next window, mean over groups."),
)
"""Columns that only the closed-form learner has, after all others. With groups > 1, `toy/best_ratio_<g>` follow."""


def toy_columns(groups: int) -> tuple[Column, ...]:
    """Returns the closed-form learner's extra columns for this many difficulty groups."""
    if groups == 1:
        return TOY_COLUMNS
    meaning = "Reveal ratio of the optimal policy in the next window, for difficulty group {} (0 is easiest)."
    return TOY_COLUMNS + tuple(
        Column(f"toy/best_ratio_{group}", "0..1", meaning.format(group)) for group in range(groups)
    )


MAY_BE_NULL = tuple(column.name for column in COLUMNS if column.type == "float or null")
"""Columns that not every window measures."""


def check_rows(rows: Sequence[Any]) -> None:
    """Refuses what a file gives as the rows of a run so far.

    Raises:
        ValueError: If they are no rows, flat ones, of the windows from 1 on.
    """
    for number, row in enumerate(rows, start=1):
        if (
            not isinstance(row, dict)
            or row.get("window") != number
            or any(isinstance(v, list | dict) for v in row.values())
        ):
            raise ValueError(f"{row!r:.60} as the row of window {number}")


def rows_of(columns: Columns) -> list[Row]:
    """Returns the columns as a row for each student: plain numbers, None where nothing was measured."""
    if isinstance(next(iter(columns.values())), np.ndarray):
        lists = [column.tolist() for column in columns.values()]
        rows: list[Row] = [dict(zip(columns, line, strict=True)) for line in zip(*lists, strict=True)]
    else:
        rows = [dict(columns)]
    for name in MAY_BE_NULL:
        for row in rows:
            value = row.get(name)
            if value != value:  # noqa: PLR0124 (NaN is not itself)
                row[name] = None
    return rows
