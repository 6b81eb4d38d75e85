"""What a run meant: reads run folders, imports neither the environment nor the agents."""

from analysis.load import AnalysisError, DamagedRunError, NoRunsError, load_runs
from analysis.plots import plot_comparison, plot_exposure
from analysis.statistics import compare_agents, final_outcomes

__all__ = [
    "AnalysisError",
    "DamagedRunError",
    "NoRunsError",
    "compare_agents",
    "final_outcomes",
    "load_runs",
    "plot_comparison",
    "plot_exposure",
]
