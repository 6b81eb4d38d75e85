"""What a run meant: reads run folders, imports neither the environment nor the agents."""

from analysis.load import AnalysisError, DamagedRunError, NoRunsError, list_runs, load_runs
from analysis.plots import plot_exposure

__all__ = ["AnalysisError", "DamagedRunError", "NoRunsError", "list_runs", "load_runs", "plot_exposure"]
