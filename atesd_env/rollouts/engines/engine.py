"""What a rollout engine is: the contract of this package's decode loop and of every other way to sample rollouts.

Which one samples is chosen by the field ``rollout_engine``; docs/rollout-engines.md tells how to use each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from atesd_env.rollouts.sampling import Rollouts, SamplingSpec
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.model import Student


class RolloutEngine(Protocol):
    """Samples answers of students as they are at the moment of the call.

    Attributes:
        description: What it is, for messages.
        can_fail: Whether ``sample`` may raise ``EngineError``.
    """

    @property
    def description(self) -> str: ...
    @property
    def can_fail(self) -> bool: ...

    def sample(
        self,
        student: Student,
        adapters: AdapterStack,
        prompts: Sequence[Sequence[int]],
        spec: SamplingSpec,
        students: Sequence[int],
        generators: Sequence[torch.Generator],
        num_rows: int | None = None,
    ) -> Rollouts:
        """Samples one answer to each prompt.

        Args:
            student: The frozen base.
            adapters: All students' adapters.
            prompts: R prompts of token ids, in equal shares to ``students``, in order.
            spec: How to sample.
            students: Whose adapters act, S of them; none is the bare base.
            generators: Where all random numbers come from, in equal shares of the prompts, in order: the same generators give
                the same answers.
            num_rows: Rows that each generator has over all processes, if the prompts are this process's share of them
                (``student.ranks``); None where they are all.

        Returns:
            The rollouts; ``token_log_probs`` is None only if the trainer's own numbers were sampled from.

        Raises:
            EngineError: If the engine cannot be used; nothing of the students has changed.
        """
        ...

    def close(self) -> None:
        """Lets go of memory and processes; a later ``sample`` may start them again."""
        ...
