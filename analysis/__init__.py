"""What a run meant: reads run folders, imports neither the environment nor the agents.

Its names are imported when they are first asked for: whoever wants one (the program, a text made printable) loads no plots.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
else:
    _HOMES = {
        "columns": ("describe_columns", "documented_columns"),
        "comparison": ("Comparison", "compare"),
        "credit": ("credit_decomposition", "decision_returns"),
        "curves": ("area_under_curve", "learning_curves", "time_to_threshold"),
        "errors": ("AnalysisError", "DamagedRunError", "NoRunsError"),
        "exposure": ("exposure_by_group", "exposure_by_progress", "mismatch_by_ratio", "mismatch_trend"),
        "load": ("list_runs", "load_runs"),
        "paired": ("agent_means", "paired_differences", "performance_profiles"),
        "plots.comparison": ("plot_comparison", "plot_exposure"),
        "plots.credit": ("plot_credit",),
        "plots.exposures": ("plot_beta_density", "plot_exposure_trajectories"),
        "plots.learning": ("plot_health", "plot_learning_curves"),
        "plots.paired": ("plot_paired_differences",),
        "plots.ratios": ("plot_counterfactual", "plot_mismatch_by_ratio", "plot_ratio_sweep"),
        "statistics": ("compare_agents", "final_outcomes"),
    }
    _HOME = {name: module for module, names in _HOMES.items() for name in names}

    def _named(name: str) -> Any:
        """Returns a public name of the package, or a module of it."""
        if name in _HOME:
            return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        if importlib.util.find_spec(f"{__name__}.{name}") is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return importlib.import_module(f"{__name__}.{name}")

    __getattr__ = _named

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


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
