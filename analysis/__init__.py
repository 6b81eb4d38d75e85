"""What a run meant: reads run folders, imports neither the environment nor the agents."""

from analysis.columns import describe_columns, documented_columns
from analysis.credit import credit_decomposition, decision_returns
from analysis.curves import area_under_curve, learning_curves, time_to_threshold
from analysis.errors import AnalysisError, DamagedRunError, NoRunsError
from analysis.exposure import exposure_by_group, exposure_by_progress, mismatch_by_ratio, mismatch_trend
from analysis.load import list_runs, load_runs
from analysis.paired import agent_means, paired_differences
from analysis.plots import plot_exposure

__all__ = [
    "AnalysisError",
    "DamagedRunError",
    "NoRunsError",
    "agent_means",
    "area_under_curve",
    "credit_decomposition",
    "decision_returns",
    "describe_columns",
    "documented_columns",
    "exposure_by_group",
    "exposure_by_progress",
    "learning_curves",
    "list_runs",
    "load_runs",
    "mismatch_by_ratio",
    "mismatch_trend",
    "paired_differences",
    "plot_exposure",
    "time_to_threshold",
]
