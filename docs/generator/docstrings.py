"""Docstrings as the reference shows them: what is indented or prompted in the source stays code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_PROMPTED = re.compile(r"^[ ]*>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)
_BRACKETS = re.compile(r"(?<!`)((?:\[[a-z_]+\]){2,})(?!`)")


class Docstrings(griffe.Extension):
    """Puts fences around examples, and marks index expressions as code where Markdown would see a link."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object that was read."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Returns a docstring's text with its examples fenced."""
    text = _BRACKETS.sub(r"`\1`", text)
    return _PROMPTED.sub(lambda match: f"```pycon\n{match[0]}\n```", text)
