"""Sample rollouts of a run, made ready for people to read: which text only the teacher saw is found and marked.

Texts come from models and from data files. They are never trusted: control characters, with which a text could hide
or rearrange what stands beside it, are replaced by visible signs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.errors import DamagedRunError
from analysis.reading import json_value, lines_of, open_regular

SAMPLES_FILE = "samples.jsonl"
"""Sample rollouts, in a run's folder."""

LONGEST_TEXT = 6000
"""Characters of a prompt or a rollout that are shown."""

_SHOWN_FIELDS = ("student_prompt", "teacher_prompt", "rollout")
# Bidirectional controls can make a text read as another one; lone surrogates cannot be written as UTF-8.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


@dataclass(frozen=True)
class Revealed:
    """A teacher's prompt in three parts; joined, they are the prompt.

    Attributes:
        before: What the student's prompt begins with too.
        revealed: What only the teacher sees: the shown steps, the final answer, and the words around them.
        after: What the student's prompt ends with too.
    """

    before: str
    revealed: str
    after: str


def revealed_part(student_prompt: str, teacher_prompt: str) -> Revealed:
    """Returns the teacher's prompt with the part marked that the student's prompt lacks.

    The two share their beginning (the problem) and their end (the closing words), so the part is what is left between the
    longest common beginning and the longest common end.

    >>> revealed_part("<user>1+2<end>", "<user>1+2|1+2=3#3<end>")
    Revealed(before='<user>1+2', revealed='|1+2=3#3', after='<end>')
    """
    shorter = min(len(student_prompt), len(teacher_prompt))
    begin = next((i for i in range(shorter) if student_prompt[i] != teacher_prompt[i]), shorter)
    most = shorter - begin
    end = next((i for i in range(most) if student_prompt[-1 - i] != teacher_prompt[-1 - i]), most)
    cut = len(teacher_prompt) - end
    return Revealed(teacher_prompt[:begin], teacher_prompt[begin:cut], teacher_prompt[cut:])


def printable(text: object, longest: int = LONGEST_TEXT) -> str:
    r"""Returns a text without characters that are invisible or change the order of others, and not longer than allowed.

    >>> printable("a\x00b\u202ec")
    'a\u2400b\ufffdc'
    """
    whole = str(text)
    shown = _INVISIBLE.sub(
        lambda match: chr(0x2400 + ord(match[0])) if ord(match[0]) < 0x20 else "\ufffd", whole[:longest]
    )
    left_out = len(whole) - longest
    return f"{shown} [... {left_out} more characters]" if left_out > 0 else shown


def read_samples(folder: Path, num_samples: int) -> tuple[list[dict[str, Any]], int]:
    """Returns samples of a run, spread evenly from its first window to its last, and how many lines could not be used.

    Args:
        folder: Folder of the run; it need not have samples.
        num_samples: Most samples to return.

    Returns:
        Samples in the order of their windows, as they stand in the file; and the number of whole lines that are damaged or
        lack a text. An unfinished last line is dropped and not counted.

    Raises:
        DamagedRunError: If it is no file that can be read.
    """
    path = folder / SAMPLES_FILE
    if not path.exists():
        return [], 0
    try:
        with open_regular(path) as file:
            lines = [line for line in lines_of(file) if line.endswith(b"\n")]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DamagedRunError(
            f"{path}: expected a file with a sample in each line, got {reason}; restore it from a copy, or delete it."
        ) from error
    samples, num_damaged = [], 0
    for line in _spread([line for line in lines if line.strip()], num_samples):
        try:
            sample = json_value(line)
        except ValueError:
            sample = None
        if isinstance(sample, dict) and all(isinstance(sample.get(name), str) for name in _SHOWN_FIELDS):
            samples.append(sample)
        else:
            num_damaged += 1
    return samples, num_damaged


def _spread(lines: Sequence[bytes], number: int) -> list[bytes]:
    """Returns ``number`` of the lines, evenly spread, the first and the last among them."""
    if len(lines) <= number:
        return list(lines)
    if number == 1:
        return [lines[-1]]
    return [lines[round(index * (len(lines) - 1) / (number - 1))] for index in range(number)]
