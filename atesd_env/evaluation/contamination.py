"""Contamination: training problems that share long runs of words with a benchmark's problems. Pure functions.

Two texts are compared by their n-grams of words (13, as in GPT-3's appendix C, arXiv 2005.14165), capitals and everything
between words aside. A run of words that stands in several problems of the benchmark, or in many training problems, is a stock
phrase ("where m and n are relatively prime positive integers") and is no sign by itself; a problem most of whose n-grams
are found again counts whatever they are. A problem shorter than n words is compared as a whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from atesd_env.errors import ConfigError

NGRAM_WORDS = 13
"""Words of an n-gram."""
MAX_STOCK = 10
"""An n-gram in more training problems than this is a stock phrase."""
MOSTLY = 0.5
"""Share of a benchmark problem's n-grams that counts even if all of them are stock phrases."""

_WORD = re.compile(r"[^\W_]+")
_Ngram = tuple[str, ...]


@dataclass(frozen=True)
class Overlap:
    """A training problem that looks like a benchmark's.

    Attributes:
        training_id: The training problem.
        benchmark_id: The benchmark's problem of which most is found again.
        shared_ratio: Share of that problem's n-grams that the training problem has, 0..1.
        example: The first shared run of words.
    """

    training_id: str
    benchmark_id: str
    shared_ratio: float
    example: str


def word_ngrams(text: str, num_words: int = NGRAM_WORDS) -> list[_Ngram]:
    """Returns the runs of ``num_words`` words in order; a shorter text is one run of all its words.

    >>> word_ngrams("What is $1+1$?", 3)
    [('what', 'is', '1'), ('is', '1', '1')]
    """
    words = _WORD.findall(text.casefold())
    if not words:
        return []
    return [tuple(words[start : start + num_words]) for start in range(max(1, len(words) - num_words + 1))]


def find_overlaps(
    training: Iterable[tuple[str, str]], benchmark: Mapping[str, str], num_words: int = NGRAM_WORDS
) -> list[Overlap]:
    """Returns the training problems that share n-grams with a benchmark, in the order of training.

    Args:
        training: (id, text) of each training problem; read once, only what is shared is kept.
        benchmark: Text of each problem, by id.
        num_words: n, at least 3.

    Raises:
        ConfigError: If ``num_words`` is less than 3.
    """
    if num_words < 3:
        raise ConfigError(f"num_words: expected n-grams of 3 words or more, got {num_words}; raise it.")
    ngrams = {id_: set(word_ngrams(text, num_words)) for id_, text in benchmark.items()}
    owners: dict[_Ngram, list[str]] = {}
    for id_, grams in ngrams.items():
        for gram in grams:
            owners.setdefault(gram, []).append(id_)
    candidates: list[tuple[str, list[_Ngram]]] = []
    counts: Counter[_Ngram] = Counter()
    for training_id, text in training:
        shared = [gram for gram in dict.fromkeys(word_ngrams(text, num_words)) if gram in owners]
        if shared:
            candidates.append((training_id, shared))
            counts.update(shared)
    found = (_overlap(training_id, shared, ngrams, owners, counts) for training_id, shared in candidates)
    return [overlap for overlap in found if overlap is not None]


def _overlap(
    training_id: str,
    shared: list[_Ngram],
    ngrams: Mapping[str, set[_Ngram]],
    owners: Mapping[_Ngram, list[str]],
    counts: Counter[_Ngram],
) -> Overlap | None:
    of_problem = Counter(id_ for gram in shared for id_ in owners[gram])
    ratios = {id_: number / len(ngrams[id_]) for id_, number in of_problem.items()}
    best = max(ratios, key=lambda id_: ratios[id_])
    telling = [gram for gram in shared if len(owners[gram]) == 1 and counts[gram] <= MAX_STOCK]
    if ratios[best] < MOSTLY:
        if not telling:
            return None
        best = max((owners[gram][0] for gram in telling), key=lambda id_: ratios[id_])
    example = next(gram for gram in (*telling, *shared) if best in owners[gram])
    return Overlap(training_id, best, ratios[best], " ".join(example))
