"""Tables of what was measured on the bench's instances."""

from __future__ import annotations

from docs.generator.markdown import markdown_table
from docs.generator.result_tables import measured, source


def admission_table() -> str:
    """Returns accuracy by fixed ratio on each instance that was measured, and whether it is informative."""
    result = measured("admission")
    ratios = list(next(iter(result["instances"].values()))["accuracy"])
    rows = []
    for name, told in result["instances"].items():
        means = {ratio: told["accuracy"][ratio]["mean"] for ratio in ratios}
        texts = [
            f"**{100 * mean:.1f}**" if mean == max(means.values()) else f"{100 * mean:.1f}" for mean in means.values()
        ]
        spread = "{mean:.1f} [{low:.1f}, {high:.1f}]".format(
            **{end: 100 * value for end, value in told["best_minus_worst"].items()}
        )
        is_informative = "yes" if told["is_informative"] else "no"
        rows.append((f"`{name}`", told["split"], *texts, f"{100 * told['random']['mean']:.1f}", spread, is_informative))
    headers = ("instance", "split", *ratios, "random", "best minus worst, points", "informative")
    return f"{markdown_table(headers, rows)}\n\n{_splits(result['splits'])}\n\n{source(result)}"


def signals_table() -> str:
    """Returns how far below the best fixed ratio each cheap signal's choice ends, on each instance."""
    instances = measured("admission")["instances"]
    names = list(next(iter(instances.values()))["signals"])
    rows = [
        (
            f"`{name}`",
            f"{told['best_fixed']:g}",
            *(f"{100 * one['loss']['mean']:.1f} ({one['ratio']:g})" for one in told["signals"].values()),
        )
        for name, told in instances.items()
        if told["is_informative"]
    ]
    return markdown_table(("instance", "best ratio", *names), rows)


def _splits(splits: dict[str, dict[str, float]]) -> str:
    """Returns what the one best ratio of each split misses."""
    parts = [
        f"{name}: ratio {told['ratio']:g} is best on average, {100 * told['accuracy']:.1f}%; the best ratio of each "
        f"{100 * told['best_of_each']:.1f}%, {100 * told['gap']:.1f} points more"
        for name, told in splits.items()
    ]
    return f"One ratio for all instances of a split, {'; '.join(parts)}."
