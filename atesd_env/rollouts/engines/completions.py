"""What an engine outside this package's decode loop is asked, and what it answers: the small contract of its backends.

A backend (``vllm_process``, ``vllm_server``) knows how to reach the engine; ``external`` knows what a rollout is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from atesd_env.errors import EngineError, EngineUnavailableError
from atesd_env.rollouts.sampling import SamplingSpec

LOWEST_LOG_PROB = -10_000.0
"""Below this nothing is a log-probability of a sampled token; vLLM says -9,999 for minus infinity."""

SEED_LIMIT = 2**53
"""Seeds of requests lie below this: every JSON reader keeps such whole numbers exact."""


@dataclass(frozen=True)
class CompletionRequest:
    """One answer to be sampled.

    Attributes:
        prompt: Token ids.
        seed: Seed of this request alone; the same request with the same seed gives the same answer.
        adapter: Name of a loaded adapter; None is the bare base model.
    """

    prompt: Sequence[int]
    seed: int
    adapter: str | None


@dataclass(frozen=True)
class Completion:
    """One sampled answer.

    Attributes:
        token_ids: Its tokens, the end token included.
        log_probs: Their log-probabilities at temperature 1 over the full vocabulary.
    """

    token_ids: Sequence[int]
    log_probs: Sequence[float]


class CompletionBackend(Protocol):
    """A way to an engine. Every method may raise ``EngineError``, and ``EngineUnavailableError`` where asking again may help.

    Attributes:
        description: What it is, for messages.
    """

    description: str

    def begin(self) -> None:
        """Starts the engine if it does not run, or wakes it; called before anything else is asked."""
        ...

    def load_adapters(self, adapters: Mapping[str, Path]) -> None:
        """Loads peft adapter directories under their names, and forgets those that were loaded before."""
        ...

    def complete(
        self, requests: Sequence[CompletionRequest], spec: SamplingSpec, end_token_ids: Sequence[int]
    ) -> list[Completion | EngineUnavailableError]:
        """Samples an answer to each request; in a request's place its failure, if only that one failed."""
        ...

    def end(self) -> None:
        """Lets the engine rest until the next ``begin``."""
        ...

    def reset(self) -> None:
        """Gives up an engine that failed; the next ``begin`` starts or finds it anew."""
        ...

    def close(self) -> None:
        """Lets go of the engine for good."""
        ...


def check_completion(
    completion: Completion,
    spec: SamplingSpec,
    end_token_ids: Sequence[int],
    vocabulary_size: int,
    engine: str,
) -> None:
    """Refuses an answer that cannot have been sampled as asked.

    Args:
        completion: The answer.
        spec: How it was to be sampled.
        end_token_ids: Tokens that end an answer.
        vocabulary_size: V.
        engine: Who answered, for the message.

    Raises:
        EngineError: If tokens are outside the vocabulary, too many or too few, or log-probabilities are missing or impossible.
    """
    tokens, log_probs = completion.token_ids, completion.log_probs
    if not isinstance(tokens, list) or not isinstance(log_probs, list):
        raise EngineError(
            f"{engine}: expected lists of token ids and log-probabilities, got {type(tokens).__name__} and "
            f"{type(log_probs).__name__}; is it a vLLM server?"
        )
    if not 1 <= len(tokens) <= spec.max_new_tokens:
        raise EngineError(
            f"{engine}: expected 1 to {spec.max_new_tokens} tokens (max_new_tokens), got {len(tokens)}; it does not keep to the "
            "length it is asked for."
        )
    for token in tokens:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocabulary_size:
            raise EngineError(
                f"{engine}: expected token ids in 0..{vocabulary_size - 1}, got {_shown(token)}; let it run the base model of this "
                "configuration (the field student)."
            )
    # NaN is in no range; a rounded 0 may be a little above.
    wrong = [value for value in log_probs if type(value) not in (float, int) or not LOWEST_LOG_PROB <= value <= 1e-3]
    if wrong or len(log_probs) != len(tokens):
        raise EngineError(
            f"{engine}: expected a log-probability of at most 0 for each of {len(tokens)} tokens, got "
            f"{', '.join(map(_shown, (wrong or log_probs)[:3]))} ... ({len(log_probs)} of them); it must tell raw log-probabilities."
        )
    ended = [place for place, token in enumerate(tokens) if token in end_token_ids]
    if ended and ended[0] != len(tokens) - 1:
        raise EngineError(
            f"{engine}: expected an answer to end with its first end token ({tokens[ended[0]]}), got {len(tokens) - 1 - ended[0]} "
            "tokens behind it; it does not keep to stop_token_ids."
        )
    if not ended and len(tokens) < spec.max_new_tokens:
        raise EngineError(
            f"{engine}: expected an answer to end with one of the tokens {sorted(end_token_ids)} or at {spec.max_new_tokens} tokens, "
            f"got {len(tokens)} tokens that end with {tokens[-1]}; it stops at other tokens, or its context is too short."
        )


def _shown(value: object) -> str:
    """Returns a number as it came, of anything else its type: what a stranger sent may be deep, long, or move a cursor."""
    return repr(value)[:40] if isinstance(value, int | float) else f"a {type(value).__name__}"
