"""What the environment relies on in a task, as a check that those who write one can run on theirs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from atesd_env.config.checks import is_finite
from atesd_env.errors import ConfigError
from atesd_env.tasks.base import Problem, Task

CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<s>", "</s>")
"""With these a problem could end its turn and begin another; the environment drops such problems."""


def check_task(task: Task, num_problems: int = 24, control_tokens: Sequence[str] = CONTROL_TOKENS) -> None:
    """Refuses a task that breaks the contract: determinism, disjoint splits, steps, monotone exposure, grading, control tokens.

    Args:
        task: Yours.
        num_problems: How many problems of each split are looked at; a task made of a file must have as many.
        control_tokens: Texts that no problem may contain.

    Raises:
        ConfigError: With every fault that was found, a line each.
    """
    found = list(faults(task, num_problems, control_tokens))
    if found:
        listed = "\n".join(f"- {fault}" for fault in found)
        raise ConfigError(
            f"{type(task).__name__}: expected a task that keeps the contract, got {len(found)} faults; mend them:\n{listed}"
        )


def faults(task: Task, num_problems: int, control_tokens: Sequence[str]) -> Iterator[str]:
    """Yields what is wrong with a task, one sentence each."""
    splits = {
        "training": [task.training_problem(0, index) for index in range(num_problems)],
        "probe": task.probe_problems(num_problems),
        "heldout": task.heldout_problems(num_problems),
    }
    if splits["training"] != [task.training_problem(0, index) for index in range(num_problems)]:
        yield "determinism: expected training_problem(seed, index) to be the same twice, got another problem"
    if splits["probe"] != task.probe_problems(num_problems) or splits["heldout"] != task.heldout_problems(num_problems):
        yield "determinism: expected probe and held-out problems to be the same twice, got others"
    if task.probe_problems(num_problems // 2) != splits["probe"][: num_problems // 2]:
        yield "probe: expected a smaller probe to be a part of a larger one, got others"
    for first, second in (("training", "probe"), ("training", "heldout"), ("probe", "heldout")):
        shared = {problem.problem for problem in splits[first]} & {problem.problem for problem in splits[second]}
        if shared:
            yield f"splits: expected {first} and {second} to share no problem, got {len(shared)}, such as {min(shared)[:60]!r}"
    for split in ("probe", "heldout"):
        if len({problem.id for problem in splits[split]}) < num_problems:
            yield f"{split}: expected {num_problems} problems with an id of their own, got one twice"
    for problem in (*splits["training"], *splits["probe"]):
        yield from (f"{problem.id[:60]!r}: {fault}" for fault in _of_problem(task, problem, control_tokens))
    yield from _of_grading(task, splits["probe"])


def _of_problem(task: Task, problem: Problem, control_tokens: Iterable[str]) -> Iterator[str]:
    texts = (problem.problem, problem.answer, *problem.steps)
    if not problem.problem.strip() or not problem.steps or not all(step.strip() for step in problem.steps):
        yield "expected a problem and steps that are not blank, got a blank one, or no step"
    if not is_finite(problem.difficulty):
        yield f"expected a finite difficulty, got {problem.difficulty}"
    for token in control_tokens:
        if any(token in text for text in texts):
            yield f"expected no control token, got {token!r}"
    solution = "".join(problem.steps).strip()
    if solution not in task.reference_completion(problem):
        yield "expected the steps, joined, in reference_completion, got another solution"
    before, part_before = None, ""
    for shown in range(1, len(problem.steps) + 1):
        request = task.teacher_request(problem, problem.steps[:shown], problem.answer)
        part = "".join(problem.steps[:shown]).strip()
        if part not in request:
            yield f"expected the first {shown} steps in teacher_request, got a request without them"
            return
        if before is not None and part_before not in _common_beginning(before, request):
            yield f"expected teacher_request of {shown} steps to begin with what fewer show, got another beginning"
            return
        before, part_before = request, part


def _common_beginning(first: str, second: str) -> str:
    length = next((i for i, pair in enumerate(zip(first, second, strict=False)) if len(set(pair)) > 1), len(first))
    return first[:length]


def _of_grading(task: Task, problems: Sequence[Problem]) -> Iterator[str]:
    completions = [task.reference_completion(problem) for problem in problems]
    verdicts = [task.judge(text, problem) for text, problem in zip(completions, problems, strict=True)]
    for problem, verdict in zip(problems, verdicts, strict=True):
        if verdict is False:
            yield f"{problem.id[:60]!r}: expected the reference to be judged right, got wrong"
    if verdicts.count(None) > len(verdicts) / 2:
        yield f"grading: expected most references to be judged, got {verdicts.count(None)} of {len(verdicts)} given up"
    for problem in problems:
        if task.is_correct("", problem):
            yield f"{problem.id[:60]!r}: expected no text to be judged wrong, got right"
    accepted = 0
    others = list(zip(problems, completions[1:], problems[1:], strict=False))
    different = [
        (problem, text) for problem, text, other in others if not task.same_answer(problem.answer, other.answer)
    ]
    for problem, text in different:
        accepted += task.is_correct(text, problem)
    # One may be right by chance, as two programs for nearly the same thing are.
    if not different or accepted > len(different) / 4:
        yield f"grading: expected other problems' references to be judged wrong, got {accepted} of {len(different)} right"
