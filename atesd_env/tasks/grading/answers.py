r"""Final answers: find the one that a rollout states, and tell whether two of them mean the same.

A rollout is graded by its *last* ``\boxed{...}`` and by nothing else: no number is guessed from its prose, so a
rollout that was cut off before its box counts as wrong.

Answers are compared in stages, cheapest first: as text, as plain numbers, as words, and only then by math-verify, in a
process of its own (``atesd_env.tasks.grading.verification``).
"""

from __future__ import annotations

import re
from fractions import Fraction

from atesd_env.tasks.grading.verification import verified

MAX_ANSWER_LENGTH = 500
"""Characters; a longer answer is compared as text only."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def closing_brace(text: str, start: int) -> int | None:
    r"""Returns the index of the brace that closes the one at ``start``, or None; ``\{`` and ``\}`` do not count.

    >>> closing_brace("{a{b}}c", 0)
    5
    """
    depth = 0
    for match in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.start()
    return None


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
    r"""Returns whether a given final answer means the same as the expected one.

    Decided by the first of these that applies: equal text, spacing and sizing commands aside; two plain numbers, by
    exact value (1,000 = 1000.0); words, case aside (``\text{Even}`` = even); the letter of a choice (``(C)`` =
    ``C) 40``); and else math-verify, with its rules: 50\% = 0.5, but also 5\% = 5; units in ``\text{}`` and the base of
    a number (52_8) are dropped; 1/3 = 0.333333; (3,4) is not (3,4]. Answers of more than `MAX_ANSWER_LENGTH`
    characters, numbers raised inside an exponent, exponents of five digits and factorials of four are compared as text
    only. What takes longer than `verification.TIME_LIMIT_SEC` counts as different, and is counted.

    Args:
        given: A rollout's answer, without ``\boxed{}``; None (no answer) matches nothing.
        expected: The reference answer.

    Raises:
        AtesdError: If math-verify is needed and cannot be started.

    >>> answers_match("1,000", "1000.0"), answers_match("seat", "\\text{east}")
    (True, False)
    """
    return judged(given, expected) is True


def judged(given: str | None, expected: str) -> bool | None:
    """Returns what ``answers_match`` does, and None where it would give False because the comparison was given up.

    Raises:
        AtesdError: If math-verify is needed and cannot be started.
    """
    left, right = _normalised(given or ""), _normalised(expected)
    if left == right:
        return bool(left)
    if not left or not right or max(len(left), len(right)) > MAX_ANSWER_LENGTH:
        return False
    numbers = _plain_number(left), _plain_number(right)
    if None not in numbers:
        return numbers[0] == numbers[1]
    if _is_words(right):
        return _as_words(left) == _as_words(right)
    if (choice := _EXPECTED_CHOICE.fullmatch(_as_words(right))) and (
        stated := _STATED_CHOICE.match(_without_text(left))
    ):
        return choice[1].upper() == stated[1]
    return False if _is_costly(left) or _is_costly(right) else verified(left, right)


# ---- as text, numbers, words ----

_TEXT_COMMAND = r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox)\s*\{"
_NUMBER = re.compile(r"([+-]?)(?:\\?\$)?([+-]?)(\d{1,3}(?:,\d{3})+|\d*)(\.\d*)?")
_WORDS = re.compile(r"(?=.*[^\W\d_]{4})[^\W\d_]+(?:[ '-][^\W\d_]+)*")
_EXPECTED_CHOICE = re.compile(r"\(?([a-j])\)?")
_STATED_CHOICE = re.compile(r"\(?\s*([A-J])\s*(?:[).:]|$)")
# The look-behind spares the end of a matrix row, two backslashes.
_SPACING = re.compile(r"(?<!\\)\\(?:[!,;:]|(?:q?quad|left|right)(?![A-Za-z]))")
_BLANK = re.compile(r"(?<!\\)\\(?=\s)|~|\s")
_OUTER_MATH = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))


def _normalised(answer: str) -> str:
    """Drops what never changes the meaning: outer math delimiters, sizing, thin spaces, most blanks, a final stop."""
    answer = answer.strip()
    for opening, closing in _OUTER_MATH:
        inner = answer[len(opening) : -len(closing)]
        if answer == f"{opening}{inner}{closing}" and opening[-1] not in inner:
            answer = inner
    answer = answer.replace("{,}", ",")
    answer = _SPACING.sub("", _BLANK.sub(" ", answer))
    answer = re.sub(r"\\[dt]frac(?![A-Za-z])", r"\\frac", answer)
    # A blank between two numbers or words means something ("1 1/2" is not "11/2"), elsewhere it does not.
    answer = re.sub(r"\s+", " ", answer).strip()
    answer = re.sub(r"(?<![\w}]) | (?!\w)", "", answer)
    return answer.removesuffix(".")


def _plain_number(answer: str) -> Fraction | None:
    """Returns the exact value of an integer or decimal number, thousands separators and a dollar sign allowed."""
    match = _NUMBER.fullmatch(answer)
    if match is None or not any(char.isdecimal() for char in answer):
        return None
    sign = "-" if (match[1] == "-") != (match[2] == "-") else ""
    return Fraction(f"{sign}{match[3].replace(',', '') or '0'}{(match[4] or '').rstrip('.')}")


def _without_text(answer: str) -> str:
    r"""Unwraps every ``\text{...}`` and its like."""
    while match := re.search(_TEXT_COMMAND, answer):
        end = closing_brace(answer, match.end() - 1)
        if end is None:
            return answer
        answer = f"{answer[: match.start()]}{answer[match.end() : end]}{answer[end + 1 :]}"
    return answer.strip()


def _as_words(answer: str) -> str:
    return " ".join(_without_text(answer).casefold().split()).removesuffix(".")


def _is_words(answer: str) -> bool:
    # Computer algebra reads bare words as products of variables, in which "east" equals "seat". A word has four letters
    # or stands in \text{}; shorter ones, such as "ab" and "p-q", may well be products.
    in_text = (
        re.match(_TEXT_COMMAND, answer) is not None and re.fullmatch(r"[^\W\d_]{2,}", _as_words(answer)) is not None
    )
    return in_text or _WORDS.fullmatch(_as_words(answer)) is not None


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
