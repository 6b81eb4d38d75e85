"""The own rollout engine: this package's decode loop."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from atesd_env.rollouts.sampling import Rollouts, SamplingSpec, generate
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.model import Student


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
