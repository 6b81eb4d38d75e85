r"""Final answers: find the one that a rollout states, and tell whether two of them mean the same.

A rollout is graded by its *last* ``\boxed{...}`` and by nothing else: no number is guessed from its prose, so a
rollout that was cut off before its box counts as wrong.

Two answers are brought to one spelling (`notation`), read (`reading`: numbers, units (`units`), choices, words, intervals,
collections) and compared part by part and exactly; algebra alone goes to math-verify, in a process of its own (`verification`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache

from atesd_env.tasks.grading.notation import closing_brace
from atesd_env.tasks.grading.reading import Kind, Reading, plain_words, read
from atesd_env.tasks.grading.units import PERCENT
from atesd_env.tasks.grading.verification import verified

MAX_ANSWER_LENGTH = 500
"""Characters; a longer answer is compared as text only."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")


def last_boxed(text: str) -> str | None:
    r"""Returns the content of the last ``\boxed{...}`` or ``\fbox{...}``, or None if it is missing, unclosed or empty.

    An earlier box is not used when the last one is unclosed: the rollout was cut off while it changed its answer.

    >>> last_boxed(r"First \boxed{1}, better \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    """
    start = None
    for match in _BOX.finditer(text):
        start = match.end() - 1
    if start is None:
        return None
    end = closing_brace(text, start)
    return None if end is None else text[start + 1 : end].strip() or None


def answers_match(given: str | None, expected: str) -> bool:
    r"""Returns whether a given final answer means the same as the expected one; the order of the two does not matter.

    - Spelling: spaces, sizing, Unicode and synonyms of LaTeX do not count (√3 = ``\sqrt{3}``, 1 000 000 = 1,000,000).
    - Numbers are exact: 3 1/2 = 7/2 = 3.5, but 1/3 is not 0.333333.
    - A unit, a percent sign, a base (52_8) or a variable (``x=5``) may be left out; two that differ are different answers.
      50% = 0.5 and 50% = 50.
    - Words and several capital letters are compared as text, case aside; a choice by its letter (``(C)`` = ``C) 40``).
    - Tuples and intervals part by part, brackets included (``x<3`` is an interval); sets and lists in any order.
    - The rest is algebra's. Answers of more than `MAX_ANSWER_LENGTH` characters, numbers raised inside an exponent, exponents
      of five digits and factorials of four are compared as text only. What takes longer than `verification.TIME_LIMIT_SEC`
      counts as different, and is counted.

    Since 29 = 29 dollars and 29 = 29 cents, what matches is not transitive; `estimators.equivalence_classes` makes classes of it
    in which all answers match each other.

    Args:
        given: A rollout's answer, without ``\boxed{}``; None (no answer) matches nothing.
        expected: The reference answer.

    Raises:
        AtesdError: If math-verify is needed and cannot be started.

    >>> answers_match("1,000", "1000.0"), answers_match("seat", "\\text{east}"), answers_match("5 km", "5 m")
    (True, False, False)
    """
    return judged(given, expected) is True


def judged(given: str | None, expected: str) -> bool | None:
    """Returns what ``answers_match`` does, and None where it would give False because the comparison was given up.

    Raises:
        AtesdError: If math-verify is needed and cannot be started.
    """
    left, right = (given or "").strip(), expected.strip()
    if left == right:
        return bool(left)
    if not left or not right or max(len(left), len(right)) > MAX_ANSWER_LENGTH:
        return False
    return _same(_read_once(left), _read_once(right))


# The same reference and the same greedy answers come back in every window.
_read_once = lru_cache(maxsize=4096)(read)


def _same(first: Reading, second: Reading) -> bool | None:
    """Compares two readings; None where algebra gave up."""
    if first.text == second.text:
        return True
    kinds = {first.kind, second.kind}
    if Kind.WORDS in kinds:
        return plain_words(first.text) == plain_words(second.text)
    if first.label and second.label:
        return first.label == second.label
    if Kind.CHOICE in kinds:
        return False
    if _are_equations(first, second):
        return _by_algebra(first.text, second.text)
    if Kind.UNORDERED in kinds or Kind.ORDERED in kinds:
        return _same_collections(first, second)
    return _same_scalars(first, second)


def _are_equations(first: Reading, second: Reading) -> bool:
    """Whether whole equations are compared: in two variables' names, or one of them is not solved for a variable."""
    if first.name and second.name:
        return first.name != second.name
    return any(
        one.name and not other.name and re.search("[=<>]|\\\\[lgn]eq", other.core)
        for one, other in _both(first, second)
    )


def _both(first: Reading, second: Reading) -> tuple[tuple[Reading, Reading], tuple[Reading, Reading]]:
    return (first, second), (second, first)


def _same_collections(first: Reading, second: Reading) -> bool | None:
    if first.unit and second.unit and first.unit != second.unit:
        return False
    if first.kind is Kind.ORDERED and second.kind is Kind.ORDERED:
        if first.brackets != second.brackets or len(first.parts) != len(second.parts):
            return False
        return _all(_same(*pair) for pair in zip(first.parts, second.parts, strict=True))
    for one, other in _both(first, second):
        if one.kind is Kind.ORDERED and other.kind is Kind.UNORDERED:
            # A tuple may be boxed without its parentheses: (3,4) = 3,4, but not 4,3.
            if one.brackets != "()" or other.brackets or len(one.parts) != len(other.parts):
                return False
            return _all(_same(*pair) for pair in zip(one.parts, other.parts, strict=True))
        if one.kind is Kind.ORDERED:  # an interval may be spelled as an expression: \mathbb{R}
            return False if other.value is not None else _by_algebra(one.text, other.text)
    left, right = (one.parts if one.kind is Kind.UNORDERED else (one,) for one in (first, second))
    if len(left) == len(right) == 1 and Kind.EXPRESSION not in (first.kind, second.kind):
        return _same(left[0], right[0])
    return _same_in_any_order(left, list(right))


def _same_in_any_order(left: tuple[Reading, ...], right: list[Reading]) -> bool | None:
    if len(left) != len(right):
        return False
    gave_up = False
    for part in left:
        verdicts = []
        for other in right:
            verdicts.append(_same(part, other))
            if verdicts[-1]:
                right.remove(other)
                break
        else:
            if None not in verdicts:
                return False
            gave_up = True
    return None if gave_up else True


def _same_scalars(first: Reading, second: Reading) -> bool | None:
    if first.unit and second.unit and first.unit != second.unit:
        return False
    same = _same_values(first, second)
    for one, other in _both(first, second):
        if same is False and one.unit == PERCENT and not other.unit:
            return _same_values(Reading(one.text, core=rf"\frac{{{one.core}}}{{100}}", value=_hundredth(one)), other)
    return same


def _hundredth(reading: Reading) -> Fraction | None:
    return None if reading.value is None else reading.value / 100


def _same_values(first: Reading, second: Reading) -> bool | None:
    if first.value is not None and second.value is not None:
        return first.value == second.value
    return _by_algebra(first.core, second.core)


def _by_algebra(first: str, second: str) -> bool | None:
    if first == second:
        return True
    return False if _is_costly(first) or _is_costly(second) else verified(first, second)


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    """Returns False if one is, else None if one is, else True."""
    gave_up = False
    for verdict in verdicts:
        if verdict is False:
            return False
        gave_up |= verdict is None
    return None if gave_up else True


_COSTLY = tuple(
    re.compile(pattern)
    for pattern in (
        # A number that is raised inside an exponent: 9^{9^9}, 9^(9^9), 9^9^9, 9**9**9.
        r"(?:\^|\*\*)\s*\{[^{}]*[\d)}]\s*(?:\^|\*\*)",
        r"(?:\^|\*\*)\s*\([^()]*[\d)}]\s*(?:\^|\*\*)",
        r"(?:\^|\*\*)\s*-?\d+\s*(?:\^|\*\*)",
        # An exponent of five digits or more, a factorial of four or more, a factorial of a factorial.
        r"(?:\^|\*\*)\s*[{(]?\s*-?\d{5,}",
        r"\d{4,}\s*[)}]?\s*!",
        r"!\s*[)}]\s*!|!\s*!\s*!",
    )
)


def _is_costly(answer: str) -> bool:
    """Whether computer algebra could choke on an answer, by its look; what slips through meets the time limit."""
    return any(pattern.search(answer) for pattern in _COSTLY)
