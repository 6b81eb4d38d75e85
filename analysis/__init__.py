"""What a run meant: reads run folders, imports neither the environment nor the agents."""

from analysis.columns import describe_columns, documented_columns
from analysis.comparison import Comparison, compare
from analysis.credit import credit_decomposition, decision_returns
from analysis.curves import area_under_curve, learning_curves, time_to_threshold
from analysis.errors import AnalysisError, DamagedRunError, NoRunsError
from analysis.exposure import exposure_by_group, exposure_by_progress, mismatch_by_ratio, mismatch_trend
from analysis.load import list_runs, load_runs
from analysis.paired import agent_means, paired_differences, performance_profiles
from analysis.plots.comparison import plot_comparison, plot_exposure
from analysis.plots.credit import plot_credit
from analysis.plots.exposures import plot_beta_density, plot_exposure_trajectories
from analysis.plots.learning import plot_health, plot_learning_curves
from analysis.plots.paired import plot_paired_differences
from analysis.plots.ratios import plot_counterfactual, plot_mismatch_by_ratio, plot_ratio_sweep
from analysis.statistics import compare_agents, final_outcomes

__all__ = [
    "AnalysisError",
    "Comparison",
    "DamagedRunError",
    "NoRunsError",
    "agent_means",
    "area_under_curve",
    "compare",
    "compare_agents",
    "credit_decomposition",
    "decision_returns",
    "describe_columns",
    "documented_columns",
    "exposure_by_group",
    "exposure_by_progress",
    "final_outcomes",
    "learning_curves",
    "list_runs",
    "load_runs",
    "mismatch_by_ratio",
    "mismatch_trend",
    "paired_differences",
    "performance_profiles",
    "plot_beta_density",
    "plot_comparison",
    "plot_counterfactual",
    "plot_credit",
    "plot_exposure",
    "plot_exposure_trajectories",
    "plot_health",
    "plot_learning_curves",
    "plot_mismatch_by_ratio",
    "plot_paired_differences",
    "plot_ratio_sweep",
    "time_to_threshold",
]
