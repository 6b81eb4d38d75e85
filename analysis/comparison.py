"""One call for a notebook: the verdict, the table behind it and the pictures of runs that can be compared."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from matplotlib.figure import Figure

from analysis.checks import listed
from analysis.errors import AnalysisError
from analysis.plots.comparison import plot_comparison
from analysis.plots.exposures import plot_exposure_trajectories
from analysis.plots.learning import plot_learning_curves
from analysis.plots.style import data_address
from analysis.statistics import compare_agents
from analysis.verdict import Verdict, judge, judged_outcomes


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` returns; the last expression of a notebook's cell shows all of it.

    Attributes:
        frame: The rows it was made from.
        verdict: Who is better, and how sure that is, in words.
        outcomes: One line for each finished run, as ``final_outcomes`` returns them.
        table: One line for each metric and agent, as ``compare_agents`` returns them; empty where nothing can be compared.
    """

    frame: pd.DataFrame
    verdict: Verdict
    outcomes: pd.DataFrame
    table: pd.DataFrame

    @cached_property
    def pictures(self) -> dict[str, Figure]:
        """The differences, the learning curves and the reveal ratios, as far as the runs have them."""
        drawn = {}
        for name, plot, frame in (
            ("differences", plot_comparison, self.table),
            ("learning", plot_learning_curves, self.frame),
            ("exposure", plot_exposure_trajectories, self.frame),
        ):
            try:
                drawn[name] = plot(frame)
            except AnalysisError:
                continue  # not measured in these runs
        return drawn

    @property
    def standings(self) -> pd.DataFrame:
        """The verdict's agents, best first, as texts: agent, seeds, broke, the metric, minus the best, the best wins on."""
        rows = [
            (line.agent, line.num_seeds, line.num_broken, line.result, line.difference or "(the best)", line.wins)
            for line in self.verdict.standings
        ]
        metric = self.verdict.metric.partition(",")[0]
        return pd.DataFrame(rows, columns=["agent", "seeds", "broke", metric, "minus the best", "the best wins on"])

    def __str__(self) -> str:
        lines = [self.verdict.sentence, self.verdict.certainty, *self.verdict.remarks]
        table = "" if self.standings.empty else "\n" + self.standings.to_string(index=False)
        return "\n".join(filter(None, lines)) + table

    def _repr_html_(self) -> str:
        first, *rest = filter(None, (self.verdict.sentence, self.verdict.certainty, *self.verdict.remarks))
        texts = [f"<p><strong>{html.escape(first)}</strong></p>", *(f"<p>{html.escape(text)}</p>" for text in rest)]
        table = "" if self.standings.empty else self.standings.to_html(index=False, escape=True)
        images = (f'<img alt="{name}" src="{data_address(figure)}">' for name, figure in self.pictures.items())
        return "".join([*texts, table, *images])


def compare(frame: pd.DataFrame, metrics: str | Sequence[str] = ()) -> Comparison:
    """Compares the agents of a frame: who is better, by how much, and how sure that is.

    Args:
        frame: Rows of runs of one environment with one configuration, as ``load_runs`` returns them.
        metrics: One or more names in ``analysis.metrics.METRICS`` for the table; without one, what the verdict judges by.

    Returns:
        Verdict, table and pictures. Where nothing can be said (no finished run, environments or configurations mixed), the
        verdict says so and the table is empty.

    Raises:
        AnalysisError: If metrics are named, and one is unknown or was not measured, or nothing can be compared.
    """
    metrics = listed(metrics)
    verdict = judge(frame)
    if not verdict.metric and not metrics:
        return Comparison(frame, verdict, pd.DataFrame(), pd.DataFrame())
    outcomes, metric = judged_outcomes(frame, metrics)
    return Comparison(frame, verdict, outcomes, compare_agents(outcomes, metrics or [metric]))
