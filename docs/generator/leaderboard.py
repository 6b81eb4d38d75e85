"""The leaderboard: a line for each agent of each submission, from the scores that ``atesd bench score`` left in their folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.generator.markdown import markdown_table
from docs.generator.public_names import ROOT

SUBMISSIONS = ROOT / "benchmarks" / "submissions"
"""A folder for each submission, as ``atesd bench run`` makes them."""

_HEADINGS = (
    "agent",
    "submission",
    "set",
    "runs",
    "gain",
    "IQM",
    "gap",
    "accuracy",
    "NLL",
    "updates",
    "on branches",
    "tokens scored",
    "controller s",
)


def submissions(root: Path = SUBMISSIONS) -> list[Path]:
    """Returns the folders of the submissions."""
    return sorted(path.parent for path in root.glob("*/bench.json"))


def leaderboard_table(root: Path = SUBMISSIONS) -> str:
    """Returns the table, the best gain first; those without a gain follow by accuracy.

    Raises:
        FileNotFoundError: If a submission was not scored.
    """
    lines = [line for folder in submissions(root) for line in _lines(folder)]
    if not lines:
        return "No submission yet."
    lines.sort(key=lambda line: line[0], reverse=True)
    return markdown_table(_HEADINGS, [line[1:] for line in lines])


def _lines(folder: Path) -> list[tuple[Any, ...]]:
    content = json.loads((folder / "score.json").read_text())
    by_agent: dict[str, dict[str, dict[str, Any]]] = {}
    for line in content["scores"]:
        by_agent.setdefault(line["agent"], {})[line["measure"]] = line
    named = f"{content['set']['name']} {content['set']['version']}, {content['set']['split']}"
    return [(_rank(scores), f"`{agent}`", folder.name, named, *_cells(scores)) for agent, scores in by_agent.items()]


def _rank(scores: dict[str, dict[str, Any]]) -> tuple[bool, float]:
    has_gain = "gain" in scores
    return has_gain, scores["gain" if has_gain else "probe/accuracy"]["mean"]


def _cells(scores: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    gain, accuracy = scores.get("gain"), scores.get("probe/accuracy")
    nll = scores["probe/nll"]
    return (
        str(nll["num_runs"]),
        _mean(gain, 2),
        "-" if gain is None else f"{gain['iqm']:.2f}",
        "-" if gain is None else f"{gain['optimality_gap']:.2f}",
        _mean(accuracy, 3),
        f"{nll['mean']:.3f}",
        f"{nll['num_updates']:.0f}",
        f"{nll['branch_updates']:.0f}",
        f"{nll['scored_tokens']:,.0f}",
        "-" if nll["controller_sec"] is None else f"{nll['controller_sec']:.2g}",
    )


def _mean(score: dict[str, Any] | None, digits: int) -> str:
    if score is None:
        return "-"
    ends = "-" if score["low"] is None else f"{score['low']:.{digits}f}, {score['high']:.{digits}f}"
    return f"{score['mean']:.{digits}f} [{ends}]"
