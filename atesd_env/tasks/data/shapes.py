r"""Which shapes of rows are read: whatever a row looks like, it becomes one of ``problem``, ``solution`` and ``answer``.

- Columns that were named (``problem=question``) go first; then ``problem``, ``solution``, ``answer`` by their own names.
- ``question`` is read as the problem where there is no ``problem``, ``Answer`` (OPSD's spelling) as the answer.
- ``messages``: a chat of one user's message, the problem, and one assistant's message, the solution.
- ``prompt`` and ``completion`` (TRL's), texts or messages: the problem and the solution.
- Without a ``solution``, an answer that is a worked solution (GSM8K's ``answer``) is both: what stands behind its last ``####``
  or in its last ``\boxed{}`` is the answer, the rest the solution.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from atesd_env.errors import ConfigError
from atesd_env.hints import did_you_mean
from atesd_env.tasks.grading.answers import last_boxed

FIELDS = ("problem", "solution", "answer", "id", "level", "views", "messages")
"""What a row is made of; each may come from a column of another name."""
ANSWER_MARKER = "####"
"""Behind its last one GSM8K's solutions give the final answer."""

_ANNOUNCED = re.compile(
    r"(?:(?:so|thus|therefore|hence),? )?(?:the )?(?:final )?answer(?: is|:)[: ]*(\S.*?)\.?", re.IGNORECASE
)
_OTHER_NAMES = {"problem": "question", "answer": "Answer"}


def parse_columns(named: str | None, option: str = "data_columns") -> dict[str, str]:
    """Returns which column of the data holds which field of ours.

    Args:
        named: OURS=THEIRS, several with commas between them; None names none.
        option: Where it was given, for messages.

    Raises:
        ConfigError: If it is not of that form, or a name is none of ours.

    >>> parse_columns("problem=question,answer=final")
    {'problem': 'question', 'answer': 'final'}
    """
    columns: dict[str, str] = {}
    for text in named.split(",") if named else ():
        ours, equals, theirs = (part.strip() for part in text.partition("="))
        if not equals or not theirs or ours not in FIELDS or ours in columns:
            raise ConfigError(
                f"{option}: expected OURS=THEIRS, each of {', '.join(FIELDS)} at most once, got {text!r}; pass for example "
                "problem=question,answer=final."
            )
        columns[ours] = theirs
    return columns


class ShapeError(ValueError):
    """What is wrong with the shape of a row: ``field``, ``expected``, ``got`` and ``remedy`` of a message."""

    def __init__(self, field: str, expected: str, got: str, remedy: str) -> None:
        super().__init__(field, expected, got, remedy)
        self.field, self.expected, self.got, self.remedy = field, expected, got, remedy


def as_our_fields(theirs: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    r"""Returns a row's fields under our names, where they are to be found; values are not checked.

    Raises:
        ShapeError: If a column that was named is missing, or ``messages`` are no problem and solution.

    >>> as_our_fields({"question": "1+1?", "answer": "1+1=2\n#### 2"}, {})
    {'question': '1+1?', 'answer': '2', 'problem': '1+1?', 'solution': '1+1=2'}
    """
    fields = dict(theirs)
    for ours, name in columns.items():
        if name not in theirs:
            expected = f"the column {name!r}, which was named for it"
            nearest = did_you_mean(name, theirs)
            raise ShapeError(
                ours, expected, f"only {listed(theirs)}", f"name one of these{nearest and f' ({nearest})'}"
            )
        fields[ours] = theirs[name]
    for ours, other in _OTHER_NAMES.items():
        if ours not in fields and other in theirs:
            fields[ours] = theirs[other]
    if "problem" not in fields and "messages" in fields:
        fields |= _chat(fields["messages"])
    if "problem" not in fields and "prompt" in fields and "completion" in fields:
        fields |= _chat([*_turns(fields["prompt"], "user"), *_turns(fields["completion"], "assistant")])
    if "solution" not in fields and isinstance(fields.get("answer"), str):
        answer, solution = final_answer(fields["answer"])
        if solution or ANSWER_MARKER in fields["answer"]:
            fields |= {"answer": answer, "solution": solution}
    return fields


def final_answer(text: str) -> tuple[str, str]:
    r"""Returns (final answer, worked solution before it) of a text; the solution is "" where the text is an answer alone.

    What stands behind the last ``####``, else the content of the last ``\boxed{}``, else the whole text, without "The answer is".

    >>> final_answer("3+4=7\nSo 7.\n#### 7"), final_answer(r"So $x = \boxed{\frac{1}{2}}$."), final_answer(" 7 ")
    (('7', '3+4=7\nSo 7.'), ('\\frac{1}{2}', 'So $x = \\boxed{\\frac{1}{2}}$.'), ('7', ''))
    """
    solution, marker, answer = text.rpartition(ANSWER_MARKER)
    if marker:
        return last_boxed(answer) or answer.strip(), solution.strip()
    boxed = last_boxed(text)
    if boxed is None:
        announced = _ANNOUNCED.fullmatch(text.strip())
        return (announced[1] if announced else text.strip()), ""
    # A box around all of it is decoration.
    is_bare = len(text.strip().strip("$")) <= len(boxed) + len(r"\boxed{ }")
    return " ".join(boxed.split()), "" if is_bare else text.strip()


def listed(names: Mapping[str, Any]) -> str:
    """Returns the names of a row's columns for a message."""
    shown = ", ".join(repr(str(name)[:40]) for name in list(names)[:12])
    return f"the columns {shown}{', ...' if len(names) > 12 else ''}"


def _chat(messages: Any) -> dict[str, str]:
    """Returns the problem and the solution (if there is one) of a chat."""
    every = messages if isinstance(messages, Sequence) and not isinstance(messages, str) else ()
    turns = [(str(one.get("role")), _text(one.get("content"))) for one in every if isinstance(one, Mapping)]
    said = [(role, text) for role, text in turns if role in ("user", "assistant") and text.strip()]
    roles = [role for role, _ in said]
    if roles not in (["user"], ["user", "assistant"]):
        expected = "one message of the user, the problem, and then one of the assistant, the solution"
        got = f"{', '.join(roles[:6]) or 'none'} with text"
        raise ShapeError("messages", expected, got, "keep one turn, or save the row as problem and solution")
    return dict(zip(("problem", "solution"), (text for _, text in said), strict=False))


def _turns(said: Any, role: str) -> list[Any]:
    """Returns a prompt or a completion of TRL's as messages: a text, or messages already."""
    return [{"role": role, "content": said}] if isinstance(said, str) else list(said or ())


def _text(content: Any) -> str:
    """Returns a message's text, which may come in parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else ()
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, Mapping))
