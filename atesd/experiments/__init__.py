"""Experiments: what is played."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(__name__, {"run": ("execute",), "specs": ("RunSpec", "plan_runs")})
