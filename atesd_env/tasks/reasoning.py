"""Task `reasoning_gym`: word problems with worked solutions, gsm_symbolic of the package reasoning-gym (Apache-2.0), without end.

Of the package's tasks it is the one whose problems come with a worked solution. Difficulty is the number of its steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from atesd_env.tasks.base import Problem
from atesd_env.tasks.data.shapes import final_answer
from atesd_env.tasks.generated import GeneratedTask, require_package
from atesd_env.tasks.segmentation import split_steps


class ReasoningGymTask(GeneratedTask):
    """Problems of gsm_symbolic.

    Args:
        config: The environment's configuration; no field of it matters.

    Raises:
        ConfigError: If the package is not installed.
    """

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        require_package("reasoning_gym", "reasoning_gym")

    def draw(self, rng: np.random.Generator) -> Problem:
        import reasoning_gym

        seed = int(rng.integers(2**31))
        # A data set of one: the package draws which kind of problem each of its entries is when it makes one.
        entry = reasoning_gym.create_dataset("gsm_symbolic", size=1, seed=seed)[0]
        steps = split_steps(final_answer(entry["metadata"]["answer_cot"])[1])
        return Problem(f"gsm_symbolic:{seed}", entry["question"], steps, str(entry["answer"]), float(len(steps)))
