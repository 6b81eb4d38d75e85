r"""Segmentation: the rule that cuts a reference solution into the steps that a reveal ratio counts.

The paper says "steps, lines" and no more; the rule is ours:

- calculator annotations (``<<48/2=24>>``, GSM8K) are removed first;
- *plain text* (no backslash in it, as in GSM8K) is cut at line ends, one line one step; ``$`` is money there. A text of
  a single line is cut at sentence ends instead;
- *LaTeX* (as in MATH) is cut at blank lines, before list items and headings, and at sentence ends. A sentence may end
  inside math, as in ``$x = 2.$`` or ``... = 2.\]``; the cut comes behind the math then. A single line end is no cut by
  itself: MATH puts one before a display.

No cut falls inside math, an environment, a figure (``[asy]``) or braces. A figure stays with the text before it, and so
does a display that a sentence leads up to. The steps joined give the solution back, every blank included.

Time grows in proportion to a text's length, whatever is in it: no pattern reads a run of characters again from inside the run, and
partners of braces are found once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

_DOUBLE_ANGLES = re.compile(r"<<[^<>\n]*+>>")
_LINE_END = re.compile(r"\n(?:[ \t\r]*\n)*")
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n\s*")
# Blanks before an item; one that begins a line has a line end among them. The look-behind spares every other start in a run.
_BEFORE_ITEM = re.compile(r"(?<!\s)\s++(?=(?:[-*#•]++|\(?\d++[.)])\s)")
_SENTENCE_END = re.compile(r"[.?!]['\")\]*_\u2019\u201d]*\s+(?=[^\sa-z])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|cf|vs|approx|resp|Mr|Mrs|Ms|Dr|St|No|Nos|Rs|Fig|Eq)|(?:^|\n)[ \t]*\(?\d+)$"
)
_LONGEST_ABBREVIATION = 24
_OPENING = re.compile(r"\\begin\{(?P<name>[^{}]*)\}|\[asy\]|\\[\[(]|\\.|\$\$|\$|\{", re.DOTALL)
_MATH_TOKEN = re.compile(r"\\.|\$|\{", re.DOTALL)
_ENVIRONMENT = re.compile(r"\\(begin|end)\{([^{}]*)\}")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_ENDS_SENTENCE = re.compile(r"(?<!\.)[.?!](?:\s|\\end\{[^{}]*\}|\\[,;:!\\]|\})*$")

# Stand-ins of protected text: of any of it, and of a display that ends a sentence. Neither occurs in real text.
_MASK, _DISPLAY_END = "\ue000", "\ue001"


def without_annotations(solution: str) -> str:
    """Returns a solution without GSM8K's calculator annotations.

    >>> without_annotations("48/2 = <<48/2=24>>24 clips")
    '48/2 = 24 clips'
    """
    return _DOUBLE_ANGLES.sub(lambda match: "" if "=" in match[0] else match[0], solution)


def split_steps(solution: str) -> tuple[str, ...]:
    r"""Cuts a solution into steps by this module's rule; ``"".join`` of them is ``without_annotations(solution)``.

    A separator stays with the step before it. There is at least one step unless the solution is empty, and no step is
    blank unless the whole solution is.

    >>> split_steps("2+3 = 5 apples\nSo $5 in all")
    ('2+3 = 5 apples\n', 'So $5 in all')
    >>> split_steps(r"We get $x = 2.$ Hence \[y = 3.\]Done")
    ('We get $x = 2.$ ', 'Hence \\[y = 3.\\]', 'Done')
    """
    text = without_annotations(solution)
    if "\\" not in text:
        line_ends = [match.end() for match in _LINE_END.finditer(text)]
        return _cut(text, line_ends if "\n" in text.strip() else _sentence_ends(text))
    masked = list(text)
    display_starts = set()
    for start, end, is_display in protected_spans(text):
        if is_display:
            display_starts.add(start)
        ends_sentence = _ENDS_SENTENCE.search(_content(text[start:end])) is not None
        masked[start:end] = _MASK * (end - start)
        if ends_sentence or text.startswith("[asy]", start):
            masked[end - 1] = _DISPLAY_END if is_display else "."
    stand_in = "".join(masked)
    ends = {end for end in _sentence_ends(stand_in) if not text.startswith("[asy]", end)}
    breaks = {match.end() for match in _BLANK_LINE.finditer(stand_in)}
    breaks |= {match.end() for match in _BEFORE_ITEM.finditer(stand_in) if "\n" in match[0]}
    ends |= breaks - display_starts
    return _cut(text, sorted(ends))


def protected_spans(text: str) -> Iterator[tuple[int, int, bool]]:
    r"""Yields (start, end, is_display) of each outermost piece of LaTeX that must stay whole, in order.

    Protected are ``$..$``, ``$$..$$``, ``\(..\)``, ``\[..\]``, environments, ``[asy]`` figures and braces. An
    environment, figure or ``\[`` that is never closed reaches to the end; a ``$`` or brace without partner protects
    nothing, and neither does a ``$`` whose partner lies in another paragraph.
    """
    braces = _brace_partners(text)
    position = 0
    while match := _OPENING.search(text, position):
        start, position = match.span()
        opening = match.group()
        end: int | None = None
        if match["name"] is not None:
            end = _environment_end(text, start, match["name"])
        elif opening == "[asy]":
            found = text.find("[/asy]", position)
            end = found + len("[/asy]") if found >= 0 else len(text)
        elif opening in (r"\[", r"\("):
            end = _math_end(text, position, {r"\[": r"\]", r"\(": r"\)"}[opening], braces) or len(text)
        elif opening in ("$", "$$"):
            end = _math_end(text, position, opening, braces)
            if end is not None and _BLANK_LINE.search(text, position, end):
                end = None
        elif opening == "{":
            end = braces.get(start)
        if end is not None:
            yield start, end, opening not in ("$", r"\(", "{")
            position = end


def _brace_partners(text: str) -> dict[int, int]:
    r"""Returns where each brace that has a partner ends: index of ``{`` -> index behind its ``}``. ``\{`` and ``\}`` do not count."""
    ends: dict[int, int] = {}
    open_braces: list[int] = []
    for match in _BRACE.finditer(text):
        if match.group() == "{":
            open_braces.append(match.start())
        elif match.group() == "}" and open_braces:
            ends[open_braces.pop()] = match.end()
    return ends


def _environment_end(text: str, start: int, name: str) -> int:
    depth = 0
    for match in _ENVIRONMENT.finditer(text, start):
        if match[2] == name:
            depth += 1 if match[1] == "begin" else -1
            if depth == 0:
                return match.end()
    return len(text)


def _math_end(text: str, position: int, closing: str, braces: Mapping[int, int]) -> int | None:
    """Returns where math ends that began before ``position``; braces are skipped, they may hold ``$`` themselves."""
    while match := _MATH_TOKEN.search(text, position):
        if text.startswith(closing, match.start()):
            return match.start() + len(closing)
        position = braces.get(match.start(), match.end()) if match.group() == "{" else match.end()
    return None


def _content(span: str) -> str:
    """Returns a protected piece without its closing delimiter."""
    return re.sub(r"(?:\$\$|\$|\\[\])]|\\end\{[^{}]*\}|\})$", "", span)


def _sentence_ends(text: str) -> Iterator[int]:
    for match in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text, max(0, match.start() - _LONGEST_ABBREVIATION), match.start()):
            yield match.end()
    for match in re.finditer(_DISPLAY_END + r"\s*(?=[^\sa-z])", text):
        yield match.end()


def _cut(text: str, ends: Iterable[int]) -> tuple[str, ...]:
    """Cuts text at the given ends, in order; a blank piece joins the step before it, or the first step."""
    steps: list[str] = []
    start = 0  # of the step
    looked_at = 0
    for end in [*ends, len(text)]:
        if text[looked_at:end].strip():
            steps.append(text[start:end])
            start = end
        looked_at = end
    if steps:
        steps[-1] += text[start:]
        return tuple(steps)
    return (text,) if text else ()
