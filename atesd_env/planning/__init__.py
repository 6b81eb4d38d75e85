"""Planning: what a run needs in memory and in hours, before it is started."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "devices": ("DEVICES", "Device"),
        "hours": ("time_plan", "token_plan"),
        "memory": ("MemoryPlan", "memory_plan", "remedies"),
        "shape": ("ModelShape", "student_shape"),
    },
)
