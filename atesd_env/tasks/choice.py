r"""Task `choice`: questions with options and a worked rationale, such as AQuA's; the answer is a letter.

The announcement that ends a rationale ("Answer: C", "Hence (C) is the correct answer") is no step: it is the final answer, which every
reveal ratio shows, so it is cut off. Steps are the sentences of what is left, by the rule of segmentation.

Options of training problems are shuffled by (seed, index), so that a letter by itself says nothing. A row is left alone where a letter or a
place may mean something: the rationale still names a letter of an option, or an option speaks of others ("None of these", "Both A and B").
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from atesd_env.errors import shown
from atesd_env.streams import numpy_stream
from atesd_env.tasks.base import Problem
from atesd_env.tasks.data.rows import DataRow, ParseRow, parse_row, refused
from atesd_env.tasks.from_rows import RowsTask, difficulty_of
from atesd_env.tasks.grading.answers import last_boxed
from atesd_env.tasks.segmentation import split_steps
from atesd_env.tasks.wording import student_request, teacher_request

LETTERS = "ABCDEFGHIJ"
"""Of the options, in order."""
CLOSING_REQUEST = "Work it out step by step, and give the letter of the right option at the end inside \\boxed{}."
"""The last words of both requests."""

_OPTIONS_LINE = re.compile(r"\n\s*(?:answer )?(?:options|choices)\s*:\s*", re.IGNORECASE)
_MARK = re.compile(r"(?:^|(?<=\s))\(?([A-J])[).]\s*")
_LETTER = re.compile(r"\(?\s*([A-J])\s*[).]?", re.IGNORECASE)
_LEAD = r"(?:(?:so|thus|hence|therefore|and),? )?(?:the )?(?:(?:correct|right|final) )?(?:answer|option|choice|ans)\b"
_ANNOUNCED = re.compile(
    rf"(?:(?:^|(?<=[\s.;,])){_LEAD}[\s:.,=\-]*(?:(?:is|will be|should be)\b)?[\s:.,=\-(]*(?:option|choice)?[\s:.,=\-(]*[A-J]\b"
    r"(?:\)?[\s.!]*|[).][^\n]*)"
    r"|(?:^|(?<=[\s.;,]))(?:(?:so|thus|hence|therefore),? )?\(?[A-J]\)? is (?:the )?(?:(?:correct|right) )?(?:answer|option|choice)[\s.!]*"
    r"|\n[ \t]*\(?[A-J]\)?\.?[ \t]*)$",  # a letter alone on the last line
    re.IGNORECASE,
)
_SPEAKS_OF_OTHERS = re.compile(
    r"\b(?:none|all|both|neither|either|any)\b|\b(?:option|choice)s?\b|\b[A-J] (?:and|or) [A-J]\b", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class ChoiceRow(DataRow):
    """One usable row; ``problem`` is the question alone, ``answer`` a letter.

    Attributes:
        options: Texts of the options, in the order of their letters.
    """

    options: tuple[str, ...]

    def as_fields(self) -> dict[str, Any]:
        return {**super().as_fields(), "options": list(self.options)}


@dataclass(frozen=True, kw_only=True)
class ChoiceProblem(Problem):
    """A question with its options, which stand in ``problem`` too.

    Attributes:
        question: The question alone.
        options: Texts of the options, in the order of their letters.
    """

    question: str
    options: tuple[str, ...]

    @property
    def what_counts(self) -> tuple[str, ...]:
        return (self.answer, *self.options)

    @property
    def may_shuffle(self) -> bool:
        """Whether no letter and no place of an option means anything."""
        letters = LETTERS[: len(self.options)]
        names_a_letter = re.search(rf"\b[{letters}]\b", "".join(self.steps)) is not None
        return not names_a_letter and not any(map(_SPEAKS_OF_OTHERS.search, self.options))

    def reordered(self, order: Sequence[int]) -> ChoiceProblem:
        """Returns the same question with option ``order[i]`` in place i."""
        options = tuple(self.options[place] for place in order)
        answer = LETTERS[list(order).index(LETTERS.index(self.answer))]
        return dataclasses.replace(self, problem=with_options(self.question, options), options=options, answer=answer)


def with_options(question: str, options: Sequence[str]) -> str:
    r"""Returns a question with its options, one a line.

    >>> with_options("1+1?", ["2", "3"])
    '1+1?\nA) 2\nB) 3'
    """
    return "\n".join([question, *(f"{letter}) {text}" for letter, text in zip(LETTERS, options, strict=False))])


def without_announcement(rationale: str) -> str:
    r"""Returns a rationale without the words at its end that say which option is right.

    >>> without_announcement("2+2=4\nAnswer: C"), without_announcement("So 4. Hence (C) is the correct answer")
    ('2+2=4', 'So 4.')
    """
    text = rationale.rstrip()
    while match := _ANNOUNCED.search(text, max(0, len(text) - 80)):
        text = text[: match.start()].rstrip()
    return text


def parse_choice_row(
    path: str | Path,
    line: int,
    fields: Any,
    *,
    columns: Mapping[str, str] | None = None,
    needs_solution: bool = True,
) -> ChoiceRow:
    """Returns one row of a source, checked; as ``rows.parse_row`` for the arguments.

    The options are a list in ``options``, or stand behind "Options:" at the end of ``problem``; each may begin with its letter.

    Raises:
        DataError: If the row is malformed, has fewer than two options, or an answer that is none of their letters.
    """
    row = parse_row(path, line, fields, columns=columns, needs_solution=needs_solution)
    question, options = row.problem, fields.get("options")
    if options is None:
        question, _, text = _split_last(row.problem)
        marks = list(_MARK.finditer(text))
        ends = [*(mark.start() for mark in marks[1:]), len(text)]
        options = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)] if marks else []
    elif isinstance(options, list | tuple) and all(isinstance(option, str) for option in options):
        options = [_MARK.sub("", option, count=1).strip() for option in options]
    else:
        raise refused(Path(path), line, "options", "a list of texts", shown(options, longest=60), "mend it")
    if not 2 <= len(options) <= len(LETTERS) or not all(options):
        expected = f"2 to {len(LETTERS)} options, A) ... B) ..."
        raise refused(
            Path(path), line, "options", expected, str(len(options)), "add the field, or write them behind 'Options:'"
        )
    letter = _LETTER.fullmatch(row.answer)
    if letter is None or letter[1].upper() not in LETTERS[: len(options)]:
        expected = f"a letter, {LETTERS[0]} to {LETTERS[len(options) - 1]}"
        raise refused(
            Path(path), line, "answer", expected, repr(row.answer[:60]), "write the letter of the right option"
        )
    return ChoiceRow(
        **dataclasses.asdict(row)
        | {
            "problem": question.strip(),
            "solution": without_announcement(row.solution),
            "answer": letter[1].upper(),
            "options": tuple(options),
        }
    )


def _split_last(problem: str) -> tuple[str, str, str]:
    """Returns (question, mark, options) of a text that may end in a line of options."""
    matches = list(_OPTIONS_LINE.finditer(problem))
    if not matches:
        return problem, "", ""
    return problem[: matches[-1].start()], matches[-1][0], problem[matches[-1].end() :]


class ChoiceTask(RowsTask):
    r"""Questions with options whose right letter is boxed."""

    parse: ClassVar[ParseRow] = staticmethod(parse_choice_row)

    @classmethod
    def as_problem(cls, row: DataRow, has_levels: bool) -> ChoiceProblem:
        assert isinstance(row, ChoiceRow)
        steps = cls.steps(row.solution)
        return ChoiceProblem(
            id=row.id,
            problem=with_options(row.problem, row.options),
            steps=steps,
            answer=row.answer,
            difficulty=difficulty_of(row, steps, has_levels),
            views=tuple((name, split_steps(text)) for name, text in row.views),
            question=row.problem,
            options=row.options,
        )

    def training_problem(self, seed: int, index: int) -> Problem:
        """Returns training problem number ``index``, its options in an order that (seed, index) fixes where that is harmless."""
        problem = super().training_problem(seed, index)
        assert isinstance(problem, ChoiceProblem)
        if not problem.may_shuffle:
            return problem
        return problem.reordered(numpy_stream(seed, "options", index).permutation(len(problem.options)).tolist())

    def student_request(self, problem: Problem) -> str:
        return student_request(problem.problem, CLOSING_REQUEST)

    def teacher_request(self, problem: Problem, shown_steps: tuple[str, ...], shown_answer: str | None) -> str:
        reasoning = "".join(shown_steps).strip()
        answer = [] if shown_answer is None else [_final_answer(shown_answer)]
        shown = [*([reasoning] if reasoning else []), *answer]
        return teacher_request(problem.problem, shown, CLOSING_REQUEST)

    def reference_completion(self, problem: Problem) -> str:
        return f"{''.join(problem.steps).strip()}\n{_final_answer(problem.answer)}"

    def extract_answer(self, text: str) -> str | None:
        r"""Returns the content of the last ``\boxed{}``; of a letter with marks around it the letter alone."""
        boxed = last_boxed(text)
        if boxed is None:
            return None
        bare = re.sub(r"\\(?:text|mathrm|textbf)\{([^{}]*)\}", r"\1", boxed).strip()
        letter = _LETTER.fullmatch(bare) or re.match(r"\(?([A-J])\)", bare)
        return letter[1].upper() if letter else bare

    def is_correct(self, text: str, problem: Problem) -> bool:
        """Returns whether the answer is the letter, or exactly the text of the right option, which no other option has."""
        assert isinstance(problem, ChoiceProblem)
        answer = self.extract_answer(text)
        if answer is None or answer == problem.answer:
            return answer is not None
        texts = [" ".join(option.split()).casefold() for option in problem.options]
        right = texts[LETTERS.index(problem.answer)]
        return " ".join(answer.split()).casefold() == right and texts.count(right) == 1


def _final_answer(letter: str) -> str:
    return f"Final answer: \\boxed{{{letter}}}"
