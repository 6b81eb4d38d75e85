"""What nobody should hand to a reader: numbers, texts and things that are no value of its kind, and pieces of odd answers."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

NUMBERS = (
    *(math.nan, math.inf, -math.inf, 10**400, -(10**400), 2**63, 2**64, -1, 0, 1e308, 5e-324, -0.0, True, 1 + 1j),
    *(Decimal("NaN"), Fraction(1, 3), np.float32("nan"), np.int64(-1), np.array([0.5, 0.5]), np.datetime64("NaT")),
)
PLAIN_TEXTS = (
    *("", " ", "[red]x[/]", "[/]", "../../x", "x" * 300, "=1+1", "%s%n", "{0}", "~", "-", "\\", "nan", "1e999", "None"),
    *("fixed:0.5", "1" + "0" * 5000, "\N{SNOWMAN}"),
)
ESCAPES = ("\0", "\ud800", "a\nb", "\x1b[31mred\x1b[0m", "\x1b]0;t\x07", "\x9b31m", "\u202ea", "x\r\ny")
TEXTS = (*PLAIN_TEXTS, *ESCAPES, "x" * 100_000, "[" * 100_000)
THINGS = (
    None,
    b"x",
    [],
    {},
    [[]],
    {"a": 1},
    (),
    set(),
    object(),
    len,
    int,
    [0.5],
    [math.nan],
    ["x"],
    range(3),
    Path("x"),
)
NUMBERS_AS_TEXT = (
    *(
        "-1",
        "0",
        "nan",
        "inf",
        "Infinity",
        "1e999",
        "9" * 400,
        "9223372036854775808",
        "true",
        "null",
        "[]",
        "{}",
        '"x"',
    ),
    "[" * 100_000,
)

DEEP, LONG = "@deep@", "@long@"
"""Stand for JSON that is nested 100,000 deep, and for a whole number of 5,000 digits, which Python's own writer refuses."""
JSON_VALUES = (
    (None, True, -1, 0, 1.5, 1e308, math.nan, math.inf, 10**400, 2**63, LONG),
    (*ESCAPES, "", "x", "[red]x[/]", "=1+1", "x" * 10_000, "<script>alert(1)</script>", "../../x"),
    ([], {}, [[]], {"a": {}}, [None], DEEP, ["\x1b]0;t\x07"]),
)

ANSWER_PIECES = (
    *("1", "2/3", r"\frac{1}{2}", r"\frac{1}{0}", r"\sqrt{2}", "^{9^{9}}", "x", "=", "<", "(", ")", "[", "]", "{", "}"),
    *(
        "\\",
        r"\boxed{",
        r"\text{a}",
        r"\begin{pmatrix}1&2\end{pmatrix}",
        "nan",
        "inf",
        "1e999",
        "9" * 5000,
        "\0",
        "\ud800",
    ),
    *(
        "!",
        "factorial(9**9)",
        "__import__('os')",
        "10 am",
        "lambda",
        "π",
        "1 000 000",
        "Option D",
        "(" * 2000,
        "{" * 2000,
    ),
    *(r"\left(", "--", "½", "√3", "\n", ",", "%", "$", "5 km", "3 1/2", "007", "1,000", "-0", "x^2+y"),
)
STEP_BREAKS = (
    "\n\n",
    ". A",
    "- a",
    "1. ",
    "<<1=1>>",
    "[asy]",
    "[/asy]",
    r"\[",
    r"\]",
    r"\begin{a}",
    r"\end{a}",
    "\t",
    " ",
)


def value(rng: random.Random) -> Any:
    """Returns what nobody should hand to a reader of numbers or texts."""
    return rng.choice(rng.choice((NUMBERS, TEXTS, THINGS)))


def told(anything: Any) -> str:
    """Returns a value briefly, in signs that can be written anywhere."""
    is_long = type(anything) is int and abs(anything) == 10**400
    text = f"{'-' * (anything < 0)}10**400" if is_long else ascii(anything)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)})"
