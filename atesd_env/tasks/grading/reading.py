r"""What a final answer is: a number, a choice, words, an interval, a collection of answers, or else an expression.

Only what can be told by its look is told here, exactly and cheaply; algebra is left to `atesd_env.tasks.grading.verification`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from atesd_env.tasks.grading.notation import TEXT_COMMAND, closing_brace, one_spelling, without_text
from atesd_env.tasks.grading.units import split_unit

_MAX_DEPTH = 12
_MAX_EXPONENT = 400


class Kind(Enum):
    """How two answers are compared; those of one kind compare part by part."""

    EXPRESSION = "expression"
    WORDS = "words"
    CHOICE = "choice"
    ORDERED = "ordered"
    UNORDERED = "unordered"


@dataclass(frozen=True)
class Reading:
    r"""An answer, read.

    Attributes:
        text: The whole answer in one spelling.
        kind: What it is.
        core: What computer algebra is given: the text without name and unit.
        value: The exact number that it is, or None.
        unit: The unit of the value ("" where none stands), in one name; "base 8" of ``52_8`` counts as one.
        name: The variable that it is given for (``x`` of ``x=5`` and ``x<3``), or "".
        label: The letter of a choice ("C" of ``(C)``, ``C) 40`` and a bare ``C``), or "".
        brackets: Both brackets of a tuple or interval, ``{}`` of a set, "" of a bare list.
        parts: The answers that a collection holds.
    """

    text: str
    kind: Kind = Kind.EXPRESSION
    core: str = ""
    value: Fraction | None = None
    unit: str = ""
    name: str = ""
    label: str = ""
    brackets: str = ""
    parts: tuple[Reading, ...] = ()


def read(answer: str) -> Reading:
    r"""Reads a final answer.

    >>> read(r"x = 3\frac{1}{2} \text{ cm}").value, read("(1, 2]").brackets, read("Option D").label
    (Fraction(7, 2), '(]', 'D')
    """
    return _read(one_spelling(answer), 0)


def _read(text: str, depth: int) -> Reading:
    text = _unwrapped(text)
    if (choice := _choice(text)) is not None:
        return choice
    if (words := _as_words(text)) is not None:
        return Reading(text, Kind.WORDS, core=words)
    if depth > _MAX_DEPTH or text.startswith(r"\begin"):
        return Reading(text, core=text)
    name, rest = _split_name(text)
    found = _collection(text, rest, depth) or _inequality(text, depth) or _scalar(text, rest)
    return found if not name else Reading(**{**vars(found), "name": name})


def _unwrapped(text: str) -> str:
    r"""Takes a ``\text{...}`` around the whole answer away, unless words stand in it: those are told by it."""
    match = re.match(TEXT_COMMAND, text)
    if match and closing_brace(text, match.end() - 1) == len(text) - 1:
        inner = text[match.end() : -1].strip()
        return inner if re.search(r"[\d(\\]", inner) else text
    return text


# ---- words and choices ----

_WORDS = re.compile(r"(?=.*[^\W\d_]{4})[^\W\d_]+(?:[ '-][^\W\d_]+)*")
_CAPITALS = re.compile(r"[A-Z]{2,}")
_CHOICE = re.compile(
    r"(?P<bare>[A-Ja-j])|\((?P<closed>[A-Ja-j])\)|"
    r"(?i:(?:the )?(?:correct )?(?:option|choice|answer)(?: is)?)[: ]*\(?(?P<named>[A-Ja-j])(?:[).:].*)?|"
    r"\((?P<first>[A-J])\)(?=[\w $\\-]).*|(?P<listed>[A-J])[).](?:.*)|(?P<colon>[A-J]):(?![A-Za-z]$).*",
    re.DOTALL,
)


def _choice(text: str) -> Reading | None:
    match = _CHOICE.fullmatch(without_text(text))
    if match is None:
        return None
    label = next(label for label in match.groups() if label).upper()
    # A letter alone may as well be a variable: it is compared as a choice with a choice, and as an expression with others.
    return Reading(text, Kind.EXPRESSION if match["bare"] else Kind.CHOICE, core=text, label=label)


def _as_words(text: str) -> str | None:
    # Computer algebra reads bare words as products of variables, in which "east" equals "seat" and ABC equals CBA. A word has
    # four letters, or is in capitals, or stands in \text{}; shorter ones, such as "ab" and "p-q", may well be products.
    bare = without_text(text)
    in_text = re.match(TEXT_COMMAND, text) is not None and re.fullmatch(r"[^\W\d_]{2,}", bare) is not None
    return plain_words(text) if in_text or _WORDS.fullmatch(bare) or _CAPITALS.fullmatch(bare) else None


def plain_words(text: str) -> str:
    """Returns an answer as words are compared: case, commands of text and blanks aside."""
    return " ".join(without_text(text).casefold().split()).removesuffix(".")


# ---- collections ----

_NAME = r"(?:\\angle ?[A-Z]+|\\[a-z]+|[A-Za-z]{1,3}|[A-Z][a-z]+|\([a-z](?:,[a-z])+\))(?:_\{?\w+\}?)?'*(?:\([\w,]*\))?"
_NAMED = re.compile(rf"(?P<name>{_NAME})(?:=|\\in)(?P<rest>(?:(?!\\[lg]eq|\\neq|\\equiv|\\in(?!f))[^=<>])+)")
_THOUSANDS = re.compile(r"[+-]?[$€£]?\d{1,3}(?:,\d{3})+(?!\d)[^,]*")
_SEPARATOR = re.compile(r"\\cup(?![A-Za-z])|\\lor(?![A-Za-z])|\\vee(?![A-Za-z])|[;,]")
_TOKEN = re.compile(r"\\[{}]|\\[A-Za-z]+|\\.|[(\[{}\])]|[;,]", re.DOTALL)
_SET_BUILDER = re.compile(r"\\\{(?P<name>[a-z])(?:\\mid|\||:) ?(?P<condition>.*(?P=name).*)\\\}")


def _split_name(text: str) -> tuple[str, str]:
    match = _NAMED.fullmatch(text)
    return (without_text(match["name"]), match["rest"]) if match else ("", text)


def _split(text: str, has_commas: bool) -> list[str]:
    """Cuts text at separators that stand in no brackets."""
    pieces, depth, start = [], 0, 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        depth += {"(": 1, "[": 1, "{": 1, r"\{": 1, ")": -1, "]": -1, "}": -1, r"\}": -1}.get(token, 0)
        if depth == 0 and _SEPARATOR.fullmatch(token) and (has_commas or token != ","):
            pieces.append(text[start : match.start()])
            start = match.end()
    return [piece for piece in (piece.strip() for piece in [*pieces, text[start:]]) if piece]


def _collection(text: str, rest: str, depth: int) -> Reading | None:
    pieces = [
        piece
        for part in _split(rest, has_commas=False)
        for piece in ([part] if _THOUSANDS.fullmatch(part) else _split(part, has_commas=True))
    ]
    if len(pieces) > 1:
        return Reading(text, Kind.UNORDERED, parts=tuple(_read(piece, depth + 1) for piece in pieces))
    core, unit = split_unit(rest)
    if rest.count(r"\pm") == 1:
        signs = (core.replace(r"\pm", sign).removeprefix("+") for sign in "+-")
        return Reading(text, Kind.UNORDERED, unit=unit, parts=tuple(_read(piece, depth + 1) for piece in signs))
    if (
        core.startswith("{")
        and closing_brace(core, 0) == len(core) - 1
        and len(_split(core[1:-1], has_commas=True)) > 1
    ):
        core = rf"\{core[:-1]}\}}"  # the backslashes were forgotten
    if core.startswith(r"\{") and core.endswith(r"\}"):
        if condition := _SET_BUILDER.fullmatch(core):
            return _inequality(condition["condition"], depth)
        members = dict.fromkeys(_read(piece, depth + 1) for piece in _split(core[2:-2], has_commas=True))
        return Reading(text, Kind.UNORDERED, unit=unit, brackets="{}", parts=tuple(members))
    if not _is_bracketed(core):
        return None
    pieces = _split(core[1:-1], has_commas=True)
    if len(pieces) > 1:
        parts = tuple(_read(piece, depth + 1) for piece in pieces)
        return Reading(text, Kind.ORDERED, unit=unit, brackets=core[0] + core[-1], parts=parts)
    if core[0] + core[-1] != "()" or not pieces:
        return None
    inner = _read(pieces[0], depth + 1)
    return Reading(**{**vars(inner), "text": text, "unit": unit or inner.unit})


def _is_bracketed(text: str) -> bool:
    """Whether the bracket that text begins with is closed at its end, by one of any shape: (1, 2]."""
    if len(text) < 3 or text[0] not in "([" or text[-1] not in ")]":
        return False
    depth = 0
    for match in re.finditer(r"\\.|[(\[\])]", text, re.DOTALL):
        depth += 1 if match.group() in "([" else -1 if match.group() in ")]" else 0
        if depth == 0:
            return match.end() == len(text)
    return False


# ---- inequalities as intervals ----

_RELATION = re.compile(r"(\\leq|\\geq|<|>)")
_IS_LEAST = {"<": ("(", ")"), r"\leq": ("[", "]")}
_TURNED = {"<": ">", ">": "<", r"\leq": r"\geq", r"\geq": r"\leq"}


def _inequality(text: str, depth: int) -> Reading | None:
    r"""Reads ``x<3`` as ``(-\infty,3)`` for x, and ``1\leq x<2`` as ``[1,2)``; other inequalities are expressions."""
    tokens = [token.strip() for token in _RELATION.split(text)]
    if len(tokens) == 3:
        left, relation, right = tokens
        if left and not re.fullmatch(_NAME, left):
            left, relation, right = right, _TURNED[relation], left
        if not right or (left and not re.fullmatch(_NAME, left)):
            return None
        if relation in _IS_LEAST:
            return _interval(text, left, "(", r"-\infty", right, _IS_LEAST[relation][1], depth)
        return _interval(text, left, _IS_LEAST[_TURNED[relation]][0], right, r"\infty", ")", depth)
    if len(tokens) != 5 or not re.fullmatch(_NAME, tokens[2]):
        return None
    low, first, name, second, high = tokens
    if first not in _IS_LEAST and second not in _IS_LEAST:
        low, first, second, high = high, _TURNED[second], _TURNED[first], low
    if first not in _IS_LEAST or second not in _IS_LEAST or not low or not high:
        return None
    return _interval(text, name, _IS_LEAST[first][0], low, high, _IS_LEAST[second][1], depth)


def _interval(text: str, name: str, opening: str, low: str, high: str, closing: str, depth: int) -> Reading:
    parts = (_read(low, depth + 1), _read(high, depth + 1))
    return Reading(text, Kind.ORDERED, core=text, name=name, brackets=opening + closing, parts=parts)


# ---- numbers ----

_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]*)(?:(?P<plain>{_PLAIN})(?:\\overline\{{(?P<repeated>\d+)\}})?"
    r"(?:(?:\\times|\\cdot|\*) ?10\^\{?(?P<exponent>[+-]?\d+)\}?|[eE](?P<power>[+-]?\d+)|\\times(?P<scale>10*|12))?|"
    rf"(?P<whole>\d+)?[ ]?(?:\\frac\{{(?P<top>-?{_PLAIN})\}}\{{(?P<bottom>{_PLAIN})\}}|(?P<over>{_PLAIN})/(?P<under>{_PLAIN})))"
)
_ANGLE_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_BASE = re.compile(r"(\d+)_\{?(\d+)\}?")


def _scalar(text: str, rest: str) -> Reading:
    core, unit = split_unit(rest)
    if unit == "degree" and _ANGLE_FUNCTION.search(core):
        core, unit = re.sub(r"(\d+(?:\.\d+)?)\^\\circ", r"{\\frac{\1\\pi}{180}}", rest), ""
    if base := _BASE.fullmatch(core):
        return Reading(text, core=core, value=Fraction(base[1]), unit=f"base {base[2]}")
    return Reading(text, core=core, value=exact_number(core), unit=unit)


def exact_number(text: str) -> Fraction | None:
    r"""Returns the exact value of an integer, decimal, fraction, mixed number or power of ten in one spelling, or None.

    >>> exact_number("3 1/2"), exact_number(r"1.5\times10^{-2}"), exact_number(r"0.\overline{3}"), exact_number("11 2")
    (Fraction(7, 2), Fraction(3, 200), Fraction(1, 3), None)
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    sign = -1 if match["sign"].count("-") % 2 else 1
    if match["plain"] is None:
        top, bottom = _plain(match["top"] or match["over"]), _plain(match["bottom"] or match["under"])
        if bottom == 0 or (match["whole"] and (top < 0 or (match["over"] and " " not in text))):
            return None
        return sign * (Fraction(match["whole"] or 0) + top / bottom)
    value = _plain(match["plain"])
    if repeated := match["repeated"]:
        if "." not in match["plain"]:
            return None
        decimals = len(match["plain"].partition(".")[2])
        value += Fraction(int(repeated), 10**decimals * (10 ** len(repeated) - 1))
    exponent = int(match["exponent"] or match["power"] or 0)
    if abs(exponent) > _MAX_EXPONENT:
        return None
    return sign * value * Fraction(10) ** exponent * int(match["scale"] or 1)


def _plain(digits: str) -> Fraction:
    number = digits.replace(",", "")
    return Fraction(f"{number}0" if number.startswith((".", "-.")) or number.endswith(".") else number)
