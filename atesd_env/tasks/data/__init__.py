"""Rows of problem, solution and answer: read, checked and measured."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "rows": ("DataReport", "DataRow", "read_rows"),
        "filters": ("LengthLimits", "measured"),
    },
)
