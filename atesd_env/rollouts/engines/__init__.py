"""Rollout engines: this package's decode loop, vLLM in a process of this machine, a vLLM server, and the test of an engine."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "checked": ("CheckedEngine",),
        "engine": ("OwnEngine", "RolloutEngine"),
        "registry": ("make_engine",),
    },
)
