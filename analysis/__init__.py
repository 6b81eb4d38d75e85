"""What a run meant: reads run folders, imports neither the environment nor the agents.

Its names are imported when they are first asked for: whoever wants one (the program, a text made printable) loads no plots.
"""

import importlib
import importlib.util
from typing import Any

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


__getattr__, __all__ = _named, sorted(_HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
