"""What the samples of an evaluation come to: a summary of each adapter, and comparisons. Pure functions of sample rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atesd_env.errors import ConfigError
from atesd_env.evaluation.estimators import (
    Comparison,
    Estimate,
    equivalence_classes,
    estimate,
    majority_vote,
    pass_at_k,
)
from atesd_env.evaluation.samples import SampleRow

NOISE_NOTE = (
    "How far to trust this: 30 problems x 12 samples have a run-to-run standard deviation of about 2 points (sampling error) "
    "and about +-12 points from which problems were asked (95%). Only paired differences over several training seeds tell "
    "gains of a few points apart."
)
"""Said below every table."""


@dataclass(frozen=True)
class Summary:
    """One adapter on one benchmark.

    Attributes:
        adapter: Its label.
        num_problems: N.
        num_samples: k.
        average: Average@k and its errors, as shares.
        pass_at: Unbiased pass@j, for j = 1, 2, 4, ... and k.
        majority: Share of problems that a majority vote of the k samples solves (ties by chance).
        format_rate: Share of samples that state a final answer.
        truncation_rate: Share of samples that were cut at the token budget.
        mean_tokens: Mean tokens of a sample.
        timeouts: (problem, sample) of each comparison that was given up.
    """

    adapter: str
    num_problems: int
    num_samples: int
    average: Estimate
    pass_at: dict[int, float]
    majority: float
    format_rate: float
    truncation_rate: float
    mean_tokens: float
    timeouts: tuple[tuple[str, int], ...]

    def as_json(self) -> dict[str, Any]:
        """Returns it as JSON can hold it: NaN becomes None."""
        fields = dataclasses.asdict(self)
        fields["average"] = estimate_as_json(self.average)
        return fields


def estimate_as_json(value: Estimate) -> dict[str, float | None]:
    """Returns an estimate as JSON can hold it: NaN becomes None."""
    return {name: number if math.isfinite(number) else None for name, number in dataclasses.asdict(value).items()}


def comparison_as_json(value: Comparison, problems: Sequence[str]) -> dict[str, Any]:
    """Returns a comparison as JSON can hold it, differences by problem id."""
    return {
        "difference": estimate_as_json(value.difference),
        "seed_error": value.seed_error if math.isfinite(value.seed_error) else None,
        "num_better": value.num_better,
        "num_worse": value.num_worse,
        "by_problem": dict(zip(problems, value.by_problem.tolist(), strict=True)),
    }


def sample_table(
    rows: Iterable[SampleRow], adapter: str, problems: Sequence[str], num_samples: int
) -> list[list[SampleRow]]:
    """Returns an adapter's samples as [problem][sample].

    Raises:
        ConfigError: If one is missing.
    """
    found = {(row.problem, row.sample): row for row in rows if row.adapter == adapter}
    missing = sum((problem, sample) not in found for problem in problems for sample in range(num_samples))
    if missing:
        raise ConfigError(
            f"{adapter}: expected {num_samples} samples of each of {len(problems)} problems, got {missing} fewer; go on "
            "with the evaluation (--resume)."
        )
    return [[found[problem, sample] for sample in range(num_samples)] for problem in problems]


def correctness(table: Sequence[Sequence[SampleRow]]) -> NDArray[np.float64]:
    """Returns [N, k]: 1 where a sample is correct."""
    return np.array([[float(row.is_correct) for row in samples] for samples in table])


def summarise(table: Sequence[Sequence[SampleRow]], same: Callable[[str, str], bool]) -> Summary:
    """Returns the summary of one adapter's samples [problem][sample].

    Args:
        table: From ``sample_table``.
        same: Whether two answers mean the same (``Task.same_answer``).
    """
    rows = [row for samples in table for row in samples]
    num_samples = len(table[0])
    counts = [sum(row.is_correct for row in samples) for samples in table]
    sizes = sorted({2**power for power in range(num_samples.bit_length()) if 2**power <= num_samples} | {num_samples})
    unchecked = {row.answer for row in rows if row.has_timed_out}

    def same_vote(first: str, second: str) -> bool:
        # What could not be compared with the reference would blow up here too, once for each class of answers.
        return first == second if {first, second} & unchecked else same(first, second)

    votes = [
        majority_vote(
            equivalence_classes([row.answer for row in samples], same_vote), [row.is_correct for row in samples]
        )
        for samples in table
    ]
    return Summary(
        adapter=rows[0].adapter,
        num_problems=len(table),
        num_samples=num_samples,
        average=estimate(correctness(table)),
        pass_at={k: float(np.mean([pass_at_k(num_samples, count, k) for count in counts])) for k in sizes},
        majority=float(np.mean(votes)),
        format_rate=float(np.mean([row.answer is not None for row in rows])),
        truncation_rate=float(np.mean([not row.is_finished for row in rows])),
        mean_tokens=float(np.mean([row.num_tokens for row in rows])),
        timeouts=tuple((row.problem, row.sample) for row in rows if row.has_timed_out),
    )
