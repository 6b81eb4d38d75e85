"""Task `engram`: about 1,600 kinds of problems of science, logic and computing, from the package engram-generator (MIT).

The package is largely model-written; taken are only the generators that it has verified, against a library or by a worked example, with at
least one step. A *kind* of problem is trained on, or probed with, or held out, by a checksum of its name: so the three share neither
generators nor instances. Difficulty is the package's tier, 0 to 10; verified ones reach 8.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from atesd_env.tasks.base import Problem
from atesd_env.tasks.generated import GeneratedTask, Split, check_levels, require_package, split_of
from atesd_env.tasks.grading.answers import MAX_ANSWER_LENGTH

MAX_TIER = 8
"""Hardest tier with verified generators."""


@cache
def verified_generators() -> dict[str, tuple[type[Any], int]]:
    """Returns the verified generators and their tiers by name, in a fixed order."""
    from engram_generator.curriculum.registry import get_all_generators
    from engram_generator.validation.example_verifier import ExampleVerifier
    from engram_generator.validation.library_verifier import LibraryVerifier
    from engram_generator.validation.registry import VERIFICATION_REGISTRY

    by_library, examples = set(LibraryVerifier().supported_tasks()), ExampleVerifier()

    def is_verified(name: str) -> bool:
        # As the package's own is_verified has it, which builds both verifiers for every generator.
        entry = VERIFICATION_REGISTRY.get(name)
        method = entry.method if entry else None
        return name in by_library if method == "library" else method == "formula" and bool(examples.can_verify(name))

    found = {generator.task_name: generator for generator in get_all_generators()}
    return {name: (type(found[name]), found[name].tier) for name in sorted(found) if is_verified(name)}


class EngramTask(GeneratedTask):
    """Problems of ``min_level`` to ``max_level``, tiers.

    Args:
        config: Its ``min_level`` and ``max_level`` are the lowest and the highest tier.

    Raises:
        ConfigError: If the levels are not 1 to 8, or the package is not installed.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        low, high = check_levels(config, 1, MAX_TIER)
        require_package("engram_generator", "engram")
        # Tier 0, the fundamentals, goes with tier 1.
        self._names: dict[Split, list[str]] = {"training": [], "probe": [], "heldout": []}
        for name, (_, tier) in verified_generators().items():
            if low <= max(1, tier) <= high:
                self._names[split_of(name)].append(name)

    def draw(self, rng: np.random.Generator) -> Problem:
        return self._drawn("training", rng)

    def _drawn(self, split: Split, rng: np.random.Generator) -> Problem:
        names = self._names[split]
        while True:
            name = names[int(rng.integers(len(names)))]
            problem = _instance(name, int(rng.integers(2**31)))
            if problem is not None:
                return problem


def _instance(name: str, seed: int) -> Problem | None:
    """Returns a problem of a generator, or None for one without a step or with an answer that is too long."""
    kind, tier = verified_generators()[name]
    (sample,) = kind(seed=seed).generate(1)
    steps, answer = [step.strip() for step in sample.steps if step.strip()], " ".join(sample.answer.split())
    if not steps or not answer or len(answer) > MAX_ANSWER_LENGTH:
        return None
    text = f"{sample.input_text[:1].upper()}{sample.input_text[1:]}: {sample.problem}"
    lines = (*(f"{step}\n" for step in steps[:-1]), steps[-1])
    return Problem(id=f"{name}:{seed}", problem=text, steps=lines, answer=answer, difficulty=float(tier))
