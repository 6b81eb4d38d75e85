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
from dataclasses import dataclass

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


class CheckedEngine:
    """An engine that is tested on the first prompts that it is asked, once.

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

    @torch.no_grad()
    def test(
        self, student: Student, adapters: AdapterStack, prompts: Sequence[Sequence[int]], spec: SamplingSpec
    ) -> float:
        """Makes the start-up test, which leaves the adapters as they were.

        Args:
            student: The frozen base.
            adapters: The students' adapters; two of them take part, if there are two.
            prompts: At least one prompt of token ids; the first ``TEST_PROMPTS`` different ones are used.
            spec: How the run samples; only its length is used.

        Returns:
            The mean absolute difference, which is kept in ``difference``.

        Raises:
            EngineError: If the engine fails it; the message says how, and the next ``sample`` tests it anew.
        """
        students = list(range(min(2, adapters.num_students)))
        saved = adapters.flat[students].clone()
        different = itertools.cycle(dict.fromkeys(map(tuple, prompts)))
        asked = list(itertools.islice(different, TEST_PROMPTS))
        try:
            self.difference = _Test(self.engine, student, adapters, students, self._tolerance).made(asked, spec)
        finally:
            adapters.flat[students] = saved
        return self.difference

    def close(self) -> None:
        """Lets go of the engine's memory and processes; it stays tested."""
        self.engine.close()


@torch.no_grad()
def check_beginnings(
    engine: str, student: Student, adapters: AdapterStack, index: int | None, rollouts: Rollouts, tolerance: float
) -> None:
    """Refuses a batch of one student's rollouts by the first tokens of the first of them, which cost the trainer little.

    Answers of an evaluation may be tens of thousands of tokens long, and the trainer has no other use for their log-probabilities.

    Args:
        engine: Who sampled, for the message.
        student: The frozen base.
        adapters: The students' adapters.
        index: Whose rollouts they are; None is the bare base.
        rollouts: The batch.
        tolerance: Largest mean absolute difference that is accepted, in nats a token.

    Raises:
        EngineError: If it is larger, or no number.
    """
    if rollouts.token_log_probs is None:
        return  # sampled from the trainer's own numbers
    first = slice(TEST_PROMPTS), slice(TEST_TOKENS)
    told = rollouts.token_log_probs[first]
    part = Rollouts(
        *(rollouts.prompt_ids[first[0]], rollouts.prompt_mask[first[0]]),
        *(rollouts.completion_ids[first], rollouts.completion_mask[first], rollouts.is_finished[first[0]], told),
    )
    trainer = _log_probs(student, adapters, index, part)
    check_difference(engine, float((trainer - told[part.completion_mask]).abs().mean()), tolerance, "batch")


def check_difference(engine: str, difference: float, tolerance: float, what: str = "window") -> None:
    """Refuses rollouts in which the engine's log-probabilities are no longer the trainer's.

    Args:
        engine: Who sampled, for the message.
        difference: Mean absolute difference over their tokens, in nats.
        tolerance: Largest that is accepted.
        what: What they are, for the message.

    Raises:
        EngineError: If it is larger, or no number.
    """
    if not difference <= tolerance:
        raise EngineError(
            f"{engine}: expected log-probabilities of the adapters that it was given, to {tolerance:g} nats a token "
            f"(engine_tolerance), got a mean difference of {difference:.4f} over a {what}, though it passed its start-up test: it runs "
            f"other weights by now, or rounds more as the student changes. The {what} does not count; start the engine anew and go on "
            "with --resume, or raise the tolerance."
        )


@dataclass(frozen=True)
class _Test:
    engine: RolloutEngine
    student: Student
    adapters: AdapterStack
    students: list[int]
    tolerance: float

    def made(self, prompts: Sequence[Sequence[int]], spec: SamplingSpec) -> float:
        """Returns the mean absolute difference to the trainer's log-probabilities; raises EngineError if the engine fails."""
        hot = SamplingSpec(min(spec.max_new_tokens, TEST_TOKENS), TEST_TEMPERATURE)
        # The base's own answers, by which it is judged how much a perturbation changes a student.
        with self.adapters.use(None):
            usual = generate(self.student, prompts, dataclasses.replace(hot, temperature=0.0))
        # Each prompt twice, so that a seed that belongs to a whole batch shows; all of them for each student.
        asked = [prompt for _ in self.students for prompt in prompts for _ in range(2)]

        def sample(seed: int) -> Rollouts:
            generators = [torch.Generator().manual_seed(1000 * seed + index) for index in self.students]
            return self.engine.sample(self.student, self.adapters, asked, hot, self.students, generators)

        generator = torch.Generator().manual_seed(0)
        before = torch.zeros_like(self.adapters.flat[self.students])
        differences = []
        for trial in range(2):
            self.perturb(usual, generator)
            rollouts = sample(0)
            if trial == 0:
                _check_seeds(self.engine.description, rollouts, sample(0), sample(1))
            differences.append(self.checked_difference(rollouts, before))
            before = self.adapters.flat[self.students].clone()
        _logger.info(
            "%s passed its start-up test: log-probabilities differ from the trainer's by %.4f nats a token on average",
            *(self.engine.description, max(differences)),
        )
        return max(differences)

    def perturb(self, judged: Rollouts, generator: torch.Generator) -> None:
        """Gives the students random adapters that change the log-probabilities of some answers by 5 tolerances or more."""
        base = self.log_probs(None, judged)
        for index in self.students:
            noise = torch.randn(self.adapters.num_parameters, generator=generator).to(self.adapters.flat.device)
            size = 1.0 / 128.0
            while size < 64.0:
                self.adapters.flat[index] = noise * size
                if float((self.log_probs(index, judged) - base).abs().mean()) >= 5 * self.tolerance:
                    break
                size *= 2.0**0.5

    def log_probs(self, index: int | None, rollouts: Rollouts) -> Tensor:
        return _log_probs(self.student, self.adapters, index, rollouts)

    def difference(self, rollouts: Rollouts, before: Tensor, weights: str) -> float:
        """Returns the mean absolute difference to the trainer's log-probabilities with some weights, in nats a token."""
        share = len(rollouts.prompt_ids) // len(self.students)
        parts = []
        for place, index in enumerate(self.students):
            part = rollouts.rows(slice(place * share, (place + 1) * share))
            assert part.token_log_probs is not None
            now = self.adapters.flat[index].clone()
            if weights == "before":
                self.adapters.flat[index] = before[place]
            if weights == "other":
                self.adapters.flat[index] = self.adapters.flat[self.students[1 - place]]
            trainer = self.log_probs(None if weights == "base" else index, part)
            self.adapters.flat[index] = now
            parts.append((trainer - part.token_log_probs[part.completion_mask]).abs())
        return float(torch.cat(parts).mean())

    def checked_difference(self, rollouts: Rollouts, before: Tensor) -> float:
        """Returns the difference with the weights of now; raises EngineError, with the likely reason, if it is no tolerable one."""
        if rollouts.token_log_probs is None:
            return 0.0  # sampled from the trainer's own numbers
        measured = self.difference(rollouts, before, "now")
        if measured <= self.tolerance:
            return measured
        explanations = {
            "base": "it ignores the adapter",
            "before": "it goes on with an earlier adapter",
            **({"other": "it mixes up the students' adapters"} if len(self.students) > 1 else {}),
        }
        candidates = {name: self.difference(rollouts, before, name) for name in explanations}
        nearest = min(candidates, key=lambda name: candidates[name])
        reason = (
            f"{explanations[nearest]} (to which it is nearer: {candidates[nearest]:.4f})"
            if candidates[nearest] < measured / 2
            else "it runs another base model, tells log-probabilities of another kind (raw_logprobs are meant), or rounds too much"
        )
        raise EngineError(
            f"{self.engine.description}: expected log-probabilities of the adapter that it was given, to {self.tolerance:g} nats "
            f"a token (engine_tolerance), got a mean difference of {measured:.4f}: {reason}; correct its settings, or raise the "
            "tolerance."
        )


def _log_probs(student: Student, adapters: AdapterStack, index: int | None, rollouts: Rollouts) -> Tensor:
    """Returns the trainer's log-probabilities of the rollouts' tokens, [N]; None is the bare base."""
    with adapters.use(None) if index is None else adapters.use("student", [index]):
        hidden = scored_hidden(student, rollouts.prompt_ids, rollouts.prompt_mask, rollouts)
    return token_log_probs(student, hidden, rollouts.completion_ids[rollouts.completion_mask])


def _check_seeds(engine: str, first: Rollouts, again: Rollouts, other: Rollouts) -> None:
    answers, repeated, others = (
        [tokens[mask].tolist() for tokens, mask in zip(rollouts.completion_ids, rollouts.completion_mask, strict=True)]
        for rollouts in (first, again, other)
    )
    same_rate = sum(left == right for left, right in zip(answers, repeated, strict=True)) / len(answers)
    if same_rate < SAME_SHARE:
        raise EngineError(
            f"{engine}: expected the same seeds to give the same answers, got only {same_rate:.0%} of {len(answers)} again; it "
            "ignores the seed of a request."
        )
    if answers == others:
        raise EngineError(
            f"{engine}: expected other seeds to give other answers, got the same {len(answers)} at temperature "
            f"{TEST_TEMPERATURE:g}; it ignores the seed or the temperature of a request."
        )
    if all(answers[row] == answers[row + 1] for row in range(0, len(answers), 2)):
        raise EngineError(
            f"{engine}: expected two requests with the same prompt and other seeds to give other answers, got equal ones for every "
            "prompt; it ignores the seed of a request."
        )
