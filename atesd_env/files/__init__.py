"""Files of a run: whole or not there, readable by one reader."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "atomic": ("locked_folder", "write_atomically"),
        "checkpoint": ("Checkpoint", "read_checkpoint", "write_checkpoint"),
        "run_folder": ("RunWriter", "read_rows"),
    },
)
