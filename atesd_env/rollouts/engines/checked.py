"""A rollout engine that must pass its start-up test before its first rollouts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from atesd_env.rollouts.engines.check import check_engine
from atesd_env.rollouts.engines.engine import RolloutEngine
from atesd_env.rollouts.sampling import Rollouts, SamplingSpec
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.model import Student


class CheckedEngine:
    """An engine that is tested (``check_engine``) on the first prompts that it is asked, once.

    Args:
        engine: What samples.
        tolerance: Largest mean absolute difference to the trainer's log-probabilities, in nats a token.

    Attributes:
        engine: What samples.
        difference: The mean absolute difference in the test, in nats a token; None before it.
    """

    can_fail = True

    def __init__(self, engine: RolloutEngine, tolerance: float) -> None:
        self.engine = engine
        self.difference: float | None = None
        self._tolerance = tolerance

    @property
    def description(self) -> str:
        """What the engine is, for messages."""
        return self.engine.description

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
        """Samples one answer to each prompt; see ``RolloutEngine.sample``.

        Raises:
            EngineError: Also if the engine fails the test.
        """
        if self.difference is None:
            self.test(student, adapters, prompts, spec)
        return self.engine.sample(student, adapters, prompts, spec, students, generators, num_rows)

    def test(
        self, student: Student, adapters: AdapterStack, prompts: Sequence[Sequence[int]], spec: SamplingSpec
    ) -> float:
        """Makes the start-up test, which leaves the adapters as they were; arguments as those of ``check_engine``.

        Returns:
            The mean absolute difference, which is kept in ``difference``.

        Raises:
            EngineError: If the engine fails it; the next ``sample`` tests it anew.
        """
        self.difference = check_engine(self.engine, student, adapters, prompts, spec, self._tolerance)
        return self.difference

    def close(self) -> None:
        """Lets go of the engine's memory and processes; it stays tested."""
        self.engine.close()
