"""Students without a model: the closed forms with a known optimum, and the surrogate fitted to logged runs."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "surrogate": ("SurrogateExposureEnv",),
        "surrogate_model": ("SurrogateModel",),
        "toy": ("ToyExposureEnv",),
        "toy_optimum": ("ToyOptimum", "optimum"),
    },
)
