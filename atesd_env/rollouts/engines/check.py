"""A rollout engine's start-up test: does it sample from the adapter that it was given, with the seed that it was given?

The students' adapters are perturbed, the engine samples, and its log-probabilities of its own tokens are compared with the
trainer's. They must be those of the perturbed adapters, twice, and not those of the bare base or of the adapters before: an
engine that ignores adapters, keeps an old one, mixes two up, runs another model or tells other log-probabilities is caught
before the first update.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from atesd_env.errors import EngineError
from atesd_env.rollouts.engines.engine import RolloutEngine
from atesd_env.rollouts.sampling import Rollouts, SamplingSpec, generate
from atesd_env.rollouts.scoring import scored_hidden, token_log_probs
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.model import Student

_logger = logging.getLogger(__name__)

TEST_PROMPTS = 4
"""Prompts of the test; where there are fewer different ones, they repeat."""

TEST_TOKENS = 16
"""Longest answer of the test."""

TEST_TEMPERATURE = 2.0
"""High enough for other seeds to give other answers."""

SAME_SHARE = 0.5
"""Share of answers that one seed must repeat. Not all: where requests meet by chance in batches of other sizes, rounding
differs, and a token in a thousand flips."""


@torch.no_grad()
def check_engine(
    engine: RolloutEngine,
    student: Student,
    adapters: AdapterStack,
    prompts: Sequence[Sequence[int]],
    spec: SamplingSpec,
    tolerance: float,
) -> float:
    """Tests an engine; the adapters are afterwards as they were.

    Args:
        engine: The engine.
        student: The frozen base.
        adapters: The students' adapters; two of them take part, if there are two.
        prompts: At least one prompt of token ids; the first ``TEST_PROMPTS`` different ones are used.
        spec: How the run samples; only its length is used.
        tolerance: Largest mean absolute difference between the log-probabilities of both, in nats a token.

    Returns:
        The mean absolute difference in the test.

    Raises:
        EngineError: If the engine fails the test; the message says how.
    """
    students = list(range(min(2, adapters.num_students)))
    saved = adapters.flat[students].clone()
    different = itertools.cycle(dict.fromkeys(map(tuple, prompts)))
    try:
        return _check(
            engine, student, adapters, students, list(itertools.islice(different, TEST_PROMPTS)), spec, tolerance
        )
    finally:
        adapters.flat[students] = saved


def _check(
    engine: RolloutEngine,
    student: Student,
    adapters: AdapterStack,
    students: list[int],
    prompts: Sequence[Sequence[int]],
    spec: SamplingSpec,
    tolerance: float,
) -> float:
    hot = SamplingSpec(min(spec.max_new_tokens, TEST_TOKENS), TEST_TEMPERATURE)
    # The base's own answers, by which it is judged how much a perturbation changes a student.
    with adapters.use(None):
        usual = generate(student, prompts, dataclasses.replace(hot, temperature=0.0))
    # Each prompt twice, so that a seed that belongs to a whole batch shows; all of them for each student.
    asked = [prompt for _ in students for prompt in prompts for _ in range(2)]

    def sample(seed: int) -> Rollouts:
        generators = [torch.Generator().manual_seed(1000 * seed + index) for index in students]
        return engine.sample(student, adapters, asked, hot, students, generators)

    generator = torch.Generator().manual_seed(0)
    before = torch.zeros_like(adapters.flat[students])
    differences = []
    for trial in range(2):
        _perturb(student, adapters, students, usual, generator, 5 * tolerance)
        rollouts = sample(0)
        if trial == 0:
            _check_seeds(engine, rollouts, sample(0), sample(1))
        differences.append(_check_adapter(engine, student, adapters, students, rollouts, before, tolerance))
        before = adapters.flat[students].clone()
    _logger.info(
        "%s passed its start-up test: log-probabilities differ from the trainer's by %.4f nats a token on average",
        *(engine.description, max(differences)),
    )
    return max(differences)


def _perturb(
    student: Student,
    adapters: AdapterStack,
    students: Sequence[int],
    judged: Rollouts,
    generator: torch.Generator,
    wanted: float,
) -> None:
    """Gives students random adapters that change the log-probabilities of some answers by ``wanted`` nats a token or more."""
    base = _log_probs(student, adapters, None, judged)
    for index in students:
        noise = torch.randn(adapters.num_parameters, generator=generator).to(adapters.flat.device)
        size = 1.0 / 128.0
        while size < 64.0:
            adapters.flat[index] = noise * size
            changed = _log_probs(student, adapters, [index], judged)
            if float((changed - base).abs().mean()) >= wanted:
                break
            size *= 2.0**0.5


def _log_probs(student: Student, adapters: AdapterStack, students: Sequence[int] | None, rollouts: Rollouts) -> Tensor:
    """Returns the trainer's log-probabilities of the rollouts' tokens, [N]; None is the bare base."""
    with adapters.use(None if students is None else "student", students or ()):
        hidden = scored_hidden(student, rollouts.prompt_ids, rollouts.prompt_mask, rollouts)
    return token_log_probs(student, hidden, rollouts.completion_ids[rollouts.completion_mask])


def _check_seeds(engine: RolloutEngine, first: Rollouts, again: Rollouts, other: Rollouts) -> None:
    answers, repeated, others = (_answers(rollouts) for rollouts in (first, again, other))
    same_rate = sum(left == right for left, right in zip(answers, repeated, strict=True)) / len(answers)
    if same_rate < SAME_SHARE:
        raise EngineError(
            f"{engine.description}: expected the same seeds to give the same answers, got only {same_rate:.0%} of {len(answers)} "
            "again; it ignores the seed of a request."
        )
    if answers == others:
        raise EngineError(
            f"{engine.description}: expected other seeds to give other answers, got the same {len(answers)} at temperature "
            f"{TEST_TEMPERATURE:g}; it ignores the seed or the temperature of a request."
        )
    if all(answers[row] == answers[row + 1] for row in range(0, len(answers), 2)):
        raise EngineError(
            f"{engine.description}: expected two requests with the same prompt and other seeds to give other answers, got equal "
            "ones for every prompt; it ignores the seed of a request."
        )


def _answers(rollouts: Rollouts) -> list[list[int]]:
    return [
        tokens[mask].tolist() for tokens, mask in zip(rollouts.completion_ids, rollouts.completion_mask, strict=True)
    ]


def _check_adapter(
    engine: RolloutEngine,
    student: Student,
    adapters: AdapterStack,
    students: list[int],
    rollouts: Rollouts,
    before: Tensor,
    tolerance: float,
) -> float:
    """Returns the mean absolute difference to the trainer's log-probabilities; raises EngineError if it is no tolerable one."""
    if rollouts.token_log_probs is None:
        return 0.0  # sampled from the trainer's own numbers
    share = len(rollouts.prompt_ids) // len(students)

    def difference(weights: str) -> float:
        parts = []
        for place, index in enumerate(students):
            part = rollouts.rows(slice(place * share, (place + 1) * share))
            assert part.token_log_probs is not None
            now = adapters.flat[index].clone()
            if weights == "before":
                adapters.flat[index] = before[place]
            if weights == "other":
                adapters.flat[index] = adapters.flat[students[1 - place]]
            trainer = _log_probs(student, adapters, None if weights == "base" else [index], part)
            adapters.flat[index] = now
            parts.append((trainer - part.token_log_probs[part.completion_mask]).abs())
        return float(torch.cat(parts).mean())

    measured = difference("now")
    if measured <= tolerance:
        return measured
    explanations = {
        "base": "it ignores the adapter",
        "before": "it goes on with an earlier adapter",
        **({"other": "it mixes up the students' adapters"} if len(students) > 1 else {}),
    }
    candidates = {name: difference(name) for name in explanations}
    nearest = min(candidates, key=lambda name: candidates[name])
    reason = (
        f"{explanations[nearest]} (to which it is nearer: {candidates[nearest]:.4f})"
        if candidates[nearest] < measured / 2
        else "it runs another base model, tells log-probabilities of another kind (raw_logprobs are meant), or rounds too much"
    )
    raise EngineError(
        f"{engine.description}: expected log-probabilities of the adapter that it was given, to {tolerance:g} nats a token "
        f"(engine_tolerance), got a mean difference of {measured:.4f}: {reason}; correct its settings, or raise the tolerance."
    )
