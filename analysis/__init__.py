"""What a run meant: reads run folders, imports neither the environment nor the agents."""

from analysis.columns import describe_columns, documented_columns
from analysis.errors import AnalysisError, DamagedRunError, NoRunsError
from analysis.load import list_runs, load_runs
from analysis.paired import agent_means, paired_differences
from analysis.plots import plot_exposure

__all__ = [
    "AnalysisError",
    "DamagedRunError",
    "NoRunsError",
    "agent_means",
    "describe_columns",
    "documented_columns",
    "list_runs",
    "load_runs",
    "paired_differences",
    "plot_exposure",
]
