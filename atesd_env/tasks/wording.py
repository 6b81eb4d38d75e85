"""The wording of both requests, ours, in the shape of OPSD's.

The student sees the problem and a closing request; the teacher sees the same problem, a reference between markers, a sentence that asks for
reasoning of its own, and the *same* closing request. A larger part of a reference never shows less: the request for fewer steps, cut after
its steps, is a prefix of the request for more, and what follows is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

_REFERENCE_BEGINS = "=== Reference solution (it may show only the first steps) ==="
_REFERENCE_ENDS = "=== End of the reference solution ==="
_OWN_WORDS = (
    "The reference is for you alone. Arrive at the same final answer by step-by-step reasoning of your own, as if you "
    "had not seen it."
)


def student_request(problem: str, closing: str) -> str:
    """Returns the user message that the student answers.

    Args:
        problem: The problem's text.
        closing: The last words of both requests: what form the answer has.
    """
    return f"{problem}\n\n{closing}"


def teacher_request(problem: str, shown: Sequence[str], closing: str) -> str:
    """Returns the user message that the teacher answers.

    Args:
        problem: The problem's text.
        shown: What is shown of the reference, part by part: steps, then the final answer.
        closing: The last words of both requests.
    """
    reference = "\n".join([_REFERENCE_BEGINS, *shown, _REFERENCE_ENDS])
    return "\n\n".join([problem, reference, _OWN_WORDS, closing])
