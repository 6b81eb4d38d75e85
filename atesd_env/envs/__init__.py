"""What Gymnasium sees, whoever the students are."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "branch": ("counterfactual", "exposure_scores"),
        "columns": ("COLUMNS", "Column"),
        "contract": ("Students",),
        "env": ("ExposureEnv",),
        "observation": ("FEATURES", "FEATURE_NAMES", "RunningStatistics"),
        "own_loop": ("MEASURED", "LoopStatistics"),
        "recording": ("RecordTrajectory",),
        "vector": ("ExposureVectorEnv",),
    },
)
