"""Tasks: where problems with worked solutions come from."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "arithmetic": ("ArithmeticTask",),
        "base": ("Problem", "Task"),
        "groups": ("DifficultyGroups",),
        "math": ("MathTask",),
        "registry": ("make_task",),
        "segmentation": ("split_steps",),
    },
)
