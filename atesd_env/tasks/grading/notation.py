r"""One spelling for a final answer: what never changes its meaning is dropped, Unicode and LaTeX synonyms become one LaTeX.

Nothing here interprets: ``½``, ``\dfrac12`` and ``\frac{1}{2}`` become the same text, ``0.5`` stays another one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)

TEXT_COMMAND = r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathsf|operatorname|mbox)\s*\{"
"""Begins a piece of text inside math."""

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_CHARACTERS = str.maketrans(
    dict.fromkeys("−–—‐‑﹣", "-")
    | dict.fromkeys("\u00a0\u2007\u2009\u200a\u202f\u3000", " ")
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", "")
    | dict.fromkeys("·⋅∙", r"\cdot ")
    | dict.fromkeys("÷⁄∕", "/")
    | dict.fromkeys("°º", r"^\circ")
    | dict.fromkeys("≤⩽", r"\leq ")
    | dict.fromkeys("≥⩾", r"\geq ")
    | dict.fromkeys("′’‘", "'")
    | {"×": r"\times ", "∗": "*", "±": r"\pm ", "≠": r"\neq ", "∈": r"\in ", "∞": r"\infty ", "∅": r"\emptyset "}
    | {"∪": r"\cup ", "∩": r"\cap ", "∖": r"\setminus ", "ℝ": r"\mathbb{R}", "∠": r"\angle "}
    | {"π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "φ": r"\phi ", "λ": r"\lambda "}
    | {"“": '"', "”": '"', "，": ",", "；": ";", "％": "%", "＄": "$", "…": "..."}
)
_VULGAR = {char: unicodedata.normalize("NFKC", char).split("\u2044") for char in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"}

# The look-behind spares the end of a matrix row, two backslashes.
_SPACING = re.compile(r"(?<!\\)\\(?:[!,;:]|(?:q?quad|left|right|[bB]igg?[lr]?|displaystyle|limits)(?![A-Za-z]))")
_BLANK = re.compile(r"(?<!\\)\\(?=\s)|~|\s")
_OUTER_MATH = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_SYNONYMS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\le(?:qslant)?(?![A-Za-z])", r"\\leq"),
        (r"\\ge(?:qslant)?(?![A-Za-z])", r"\\geq"),
        (r"\\ne(?![A-Za-z])", r"\\neq"),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset"),
        (r"\^\s*\{\s*\\circ\s*\}|\\degree(?![A-Za-z])", r"^\\circ"),
        (r"\*\*", "^"),
        (r"\\num\s*\{([^{}]*)\}", r"\1"),
        (r"(\.\d*?)(\d)\2\2+(?:\.\.\.|\\l?dots)", r"\1\\overline{\2}"),
        (TEXT_COMMAND + r"\s*([$€£¥₹%])\s*\}", r"\1"),
        (r"(?<![A-Za-z])sq\.\s*", "sq "),
        (r"(?<![A-Za-z])([ap])\.\s?m(?![A-Za-z])\.?", r"\1m"),
        (
            r"\\(?:text|mbox|textrm|mathrm)\s*\{\s*,?\s*(?:and|or)\s*\}|(?<=[\d)}\]\w,;]) (?:and|or) (?=[\d(\\$+-]|[a-z]\s*[=<>\\])",
            ";",
        ),
        (r"(?<![\\A-Za-z])infinity(?![A-Za-z])", r"\\infty"),
        (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*(?=\{)", r"\\frac{\1}"),
        (r"(\\frac\{[^{}]*\})\s*(\d)", r"\1{\2}"),
        (r"\\sqrt\s*(\d)", r"\\sqrt{\1}"),
        (r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![\\A-Za-z])sqrt\s*(\d+)", r"\\sqrt{\1}"),
        (r"\^\s*\{\s*(\w)\s*\}", r"^\1"),
    )
)


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


def one_spelling(answer: str) -> str:
    r"""Returns an answer in one spelling of ours.

    Args:
        answer: As it was written, without a box.

    >>> one_spelling("$3½$"), one_spelling(r"x \le \dfrac12."), one_spelling("1 000 000")
    ('3\\frac{1}{2}', 'x\\leq\\frac{1}{2}', '1000000')
    """
    answer = _without_math_delimiters(_in_latex(answer).strip())
    # Thousands: "10,\!080", "10{,}080". A blank behind a comma says that it is none: "100, 200".
    answer = re.sub(r"(?<=\d)(?:,\\!|\{,\})\s*(?=\d{3})", "", answer)
    answer = re.sub(r"(?<=\d),(?:\s|\\ )+(?=\d)", ";", answer)
    answer = _SPACING.sub("", _BLANK.sub(" ", answer)).replace(r"\%", "%")
    for pattern, replacement in _SYNONYMS:
        answer = pattern.sub(replacement, answer)
    answer = re.sub(r"\s+", " ", answer).strip()
    answer = re.sub(
        r"(?<![\d.,/] )(?<![\d.,/])\d{1,3}(?: \d{3})+(?![\d/]| \d)", lambda m: m[0].replace(" ", ""), answer
    )
    # A blank between two numbers or words means something ("1 1/2" is not "11/2"), elsewhere it does not.
    answer = re.sub(r"(?<![\w}]) | (?!\w)", "", answer)
    answer = re.sub(r"(\\[A-Za-z]+) (?![A-Za-z])", r"\1", answer)
    answer = re.sub(r"^\+(?=[\d.\\])|(?<=[(\[,;=])\+(?=[\d.\\])", "", answer)
    return answer if answer.endswith("..") else answer.removesuffix(".")


def without_text(answer: str) -> str:
    r"""Returns an answer with every ``\text{...}`` and its like unwrapped.

    >>> without_text(r"\text{(C)}")
    '(C)'
    """
    for start, opening, end in text_pieces(answer):
        return without_text(f"{answer[:start]}{answer[opening:end]}{answer[end + 1 :]}")
    return answer.strip()


def text_pieces(answer: str) -> Iterator[tuple[int, int, int]]:
    r"""Yields (start, start of the content, end of the content) of each closed ``\text{...}`` or its like."""
    for match in re.finditer(TEXT_COMMAND, answer):
        end = closing_brace(answer, match.end() - 1)
        if end is not None:
            yield match.start(), match.end(), end


def _in_latex(answer: str) -> str:
    """Returns Unicode mathematics as LaTeX."""
    if answer.isascii():
        return answer
    answer = re.sub("[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒]", lambda m: "\\frac{{{}}}{{{}}}".format(*_VULGAR[m[0]]), answer)
    answer = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda m: f"^{{{m[0].translate(_SUPERSCRIPTS)}}}", answer)
    answer = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda m: f"_{{{m[0].translate(_SUBSCRIPTS)}}}", answer)
    answer = re.sub(r"([√∛∜])\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[A-Za-z]|π))", _root, answer)
    return unicodedata.normalize("NFC", "".join(_western_digit(char) for char in answer.translate(_CHARACTERS)))


def _root(match: re.Match[str]) -> str:
    degree = {"√": "", "∛": "[3]", "∜": "[4]"}[match[1]]
    return rf"\sqrt{degree}{{{match[2] or match[3] or match[4]}}}"


def _western_digit(char: str) -> str:
    return str(unicodedata.digit(char)) if char.isdigit() and not char.isascii() else char


def _without_math_delimiters(answer: str) -> str:
    r"""Returns an answer without math delimiters; ``\$``, and a ``$`` alone before a number, are money and become ``$``."""
    for opening, closing in _OUTER_MATH:
        inner = answer[len(opening) : -len(closing)]
        if answer == f"{opening}{inner}{closing}" and opening[-1] not in inner.replace(r"\$", ""):
            answer = inner
    money = answer.replace(r"\$", "\0")
    if money.count("$") % 2 == 0:
        money = money.replace("$", "")
    return money.replace("\0", "$").strip()
