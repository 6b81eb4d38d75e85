"""Students without a model: the closed forms with a known optimum, and the surrogate fitted to logged runs."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "surrogate": ("SurrogateExposureEnv", "SurrogateExposureVectorEnv"),
        "surrogate_model": ("SurrogateModel",),
        "toy": ("ToyExposureEnv", "ToyExposureVectorEnv"),
        "toy_optimum": ("ToyOptimum", "optimum"),
    },
)
