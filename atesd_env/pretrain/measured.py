"""What a packaged student does as a teacher before any training, and how close a rebuild of it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from atesd_env.exposure import PromptBuilder
from atesd_env.pretrain.habits import behind_a_mistake
from atesd_env.rollouts.sampling import SamplingSpec, decode_texts, generate
from atesd_env.streams import numpy_stream
from atesd_env.student.model import Student
from atesd_env.tasks.arithmetic import ArithmeticTask
from atesd_env.tasks.base import Problem, Task

_NUM_MISTAKES = 50


@dataclass(frozen=True)
class Conduct:
    """How a student answers held-out sums, greedily; means over the sums, or over the first 50 of them behind a wrong prefix.

    Attributes:
        accuracy: Share of right final answers. Behind a hint a slip hides in it: the answer is shown, so it is copied.
        steps_written: Steps in the answer, over steps of the reference solution.
        steps_right: Share of the reference solution's steps that stand in the answer.
        teleports: Behind a wrong prefix, share of the answers that go on with the reference's own next step.
    """

    accuracy: float
    steps_written: float
    steps_right: float
    teleports: float


def conduct(student: Student, num_addends: int, ratio: float | None, num_problems: int) -> Conduct:
    """Returns how a student answers.

    Args:
        student: Without adapters.
        num_addends: Numbers in a sum, at least 3.
        ratio: Reveal ratio of the prompt; None is the plain prompt.
        num_problems: Held-out sums.
    """
    task = ArithmeticTask(num_addends, num_addends)
    builder = PromptBuilder(task, student.tokenizer, max_prompt_tokens=200)
    problems = task.heldout_problems(num_problems)
    prompts = _prompts(builder, problems, ratio)
    texts = _answers(student, prompts)
    rng = numpy_stream(0, "habits", num_addends)
    mistakes = [behind_a_mistake(problem, True, rng) for problem in problems[:_NUM_MISTAKES]]
    prefixed = [
        (*prompt, *student.tokenizer.encode(prefix)) for prompt, (prefix, _) in zip(prompts, mistakes, strict=False)
    ]
    returned = [
        text.startswith(reference.partition("=")[0])
        for text, (_, reference) in zip(_answers(student, prefixed), mistakes, strict=True)
    ]
    accuracy, steps_right = _shares(task, texts, problems)
    return Conduct(
        accuracy=accuracy,
        steps_written=_mean(
            [text.count("=") / len(problem.steps) for text, problem in zip(texts, problems, strict=True)]
        ),
        steps_right=steps_right,
        teleports=_mean(returned),
    )


def shares_right(student: Student, task: Task, ratio: float | None, num_problems: int) -> tuple[float, float]:
    """Returns shares of held-out problems, answered greedily: right final answers, and right steps of the references.

    Args:
        student: Without adapters.
        task: Where the problems are from, in the notation of the packaged students.
        ratio: Reveal ratio of the prompt; None is the plain prompt.
        num_problems: Held-out problems.
    """
    problems = task.heldout_problems(num_problems)
    builder = PromptBuilder(task, student.tokenizer, max_prompt_tokens=200)
    return _shares(task, _answers(student, _prompts(builder, problems, ratio)), problems)


def largest_difference(rebuilt: dict[str, Tensor], packaged: Path) -> float:
    """Returns the largest absolute difference of a rebuild's tensors to those of a packaged file."""
    return max(
        float((rebuilt[name].float() - tensor.float()).abs().max()) for name, tensor in load_file(packaged).items()
    )


def _steps_right(text: str, problem: Problem) -> float:
    written = text.partition("#")[0].split(";")
    return _mean([step.removesuffix(";") in written for step in problem.steps])


def _prompts(builder: PromptBuilder, problems: Sequence[Problem], ratio: float | None) -> list[tuple[int, ...]]:
    return [
        builder.student_prompt(problem) if ratio is None else builder.teacher_prompt(problem, ratio).token_ids
        for problem in problems
    ]


def _shares(task: Task, texts: Sequence[str], problems: Sequence[Problem]) -> tuple[float, float]:
    pairs = list(zip(texts, problems, strict=True))
    return _mean([task.is_correct(*pair) for pair in pairs]), _mean([_steps_right(*pair) for pair in pairs])


def _answers(student: Student, prompts: Sequence[Sequence[int]]) -> list[str]:
    return decode_texts(student, generate(student, prompts, SamplingSpec(max_new_tokens=60, temperature=0.0)))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
