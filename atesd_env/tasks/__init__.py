"""Tasks: where problems with worked solutions come from."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "arithmetic": ("ArithmeticTask",),
        "base": ("Problem", "Task"),
        "boxed": ("BoxedTask",),
        "choice": ("ChoiceTask",),
        "code": ("CodeTask",),
        "contract": ("check_task",),
        "engram": ("EngramTask",),
        "facts": ("FactsTask",),
        "from_rows": ("RowsTask",),
        "generated": ("GeneratedTask",),
        "groups": ("DifficultyGroups",),
        "lists": ("ListsTask",),
        "math": ("MathTask",),
        "reasoning": ("ReasoningGymTask",),
        "registry": ("make_task",),
        "segmentation": ("split_steps",),
    },
)
