"""The tables of ``atesd evaluate``."""

from __future__ import annotations

from atesd.commands import shared
from atesd_env.evaluation.benchmarks import Benchmark
from atesd_env.evaluation.estimators import Comparison
from atesd_env.evaluation.summary import Summary

_WIDTH = 140


def show_summaries(benchmark: Benchmark, summaries: dict[str, Summary]) -> None:
    """Prints a line for each base model or adapter."""
    first = next(iter(summaries.values()))
    k = first.num_samples
    scores = (f"Average@{k}", "sampling error", "95% over problems", *(f"pass@{j}" for j in first.pass_at if j > 1))
    table = shared.table_of(
        f"{benchmark.name}: {first.num_problems} problems, {k} samples each (percent)",
        ("who", *scores, f"maj@{k}", "format", "cut", "tokens", "time-outs"),
    )
    for label, summary in summaries.items():
        average = summary.average
        table.add_row(
            label,
            f"{100 * average.mean:.1f}",
            _error(average.sampling_error),
            f"{100 * average.low:.1f} .. {100 * average.high:.1f}",
            *(f"{100 * value:.1f}" for j, value in summary.pass_at.items() if j > 1),
            f"{100 * summary.majority:.1f}",
            f"{100 * summary.format_rate:.1f}",
            f"{100 * summary.truncation_rate:.1f}",
            f"{summary.mean_tokens:.0f}",
            str(len(summary.timeouts)),
        )
    shared.show(table, _WIDTH)


def show_comparisons(comparisons: dict[tuple[str, str], Comparison]) -> None:
    """Prints a line for each pair of methods."""
    table = shared.table_of(
        "Paired differences, problem by problem (points)",
        ("first - second", "difference", "sampling error", "95% over problems", "seed error", "better / worse"),
    )
    for (first, second), comparison in comparisons.items():
        difference = comparison.difference
        table.add_row(
            f"{first} - {second}",
            f"{100 * difference.mean:+.1f}",
            _error(difference.sampling_error),
            f"{100 * difference.low:+.1f} .. {100 * difference.high:+.1f}",
            _error(comparison.seed_error),
            f"{comparison.num_better} / {comparison.num_worse}",
        )
    shared.show(table, _WIDTH)


def _error(value: float) -> str:
    return f"+-{100 * value:.1f}" if value == value else "-"  # noqa: PLR0124  (NaN: it cannot be estimated)
