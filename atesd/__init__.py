"""The program: experiments with students and controllers, and the commands that make them.

``run`` makes runs from a notebook or a script, as ``atesd run`` does from a shell; ``ExposureCallback`` drives TRL's trainer.
"""

from typing import TYPE_CHECKING

from atesd_env.lazy import on_first_use

if TYPE_CHECKING:
    from atesd.experiments.play import run as run
    from atesd.trl import ExposureCallback as ExposureCallback

__getattr__, __all__ = on_first_use(__name__, {"experiments.play": ("run",), "trl": ("ExposureCallback",)})
