"""The student: a causal language model with stacked LoRA adapters."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "adapters": ("AdapterStack",),
        "loading": ("load_student",),
        "model": ("Student", "wrap_student"),
        "ranks": ("ALONE", "Ranks"),
    },
)
