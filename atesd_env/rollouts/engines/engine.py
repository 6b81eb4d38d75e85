"""What a rollout engine is: the contract of every way to sample rollouts, and the own one, this package's decode loop.

Which one samples is chosen by the field ``rollout_engine``; docs/rollout-engines.md tells how to use each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from atesd_env.rollouts.sampling import Rollouts, SamplingSpec, generate
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


class OwnEngine:
    """The decode loop of ``sampling``: the trainer's weights and numbers, nothing to hand over."""

    description = "rollout engine own"
    can_fail = False

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
        """Samples one answer to each prompt; see ``RolloutEngine.sample``."""
        num_rows = len(prompts) // len(generators) if num_rows is None else num_rows
        # Drawn for all rows and cut, so that a row's random numbers do not depend on the process that samples it.
        mine = student.ranks.share(num_rows)
        uniforms = [torch.rand(num_rows, spec.max_new_tokens, generator=generator)[mine] for generator in generators]
        with adapters.use("student" if students else None, students):
            return generate(student, prompts, spec, torch.cat(uniforms), max(1, len(students)))

    def close(self) -> None:
        """Holds nothing."""
