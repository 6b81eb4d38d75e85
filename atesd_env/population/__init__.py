"""The population: K language-model students trained side by side on one frozen base."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "environments": ("TeacherExposureEnv", "TeacherExposureVectorEnv"),
        "population": ("Population",),
        "probe": ("Probe",),
    },
)
