"""Grading: whether two answers say the same, and the worker processes that symbolic comparison runs in."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "answers": ("answers_match", "last_boxed"),
        "verification": ("verified",),
    },
)
