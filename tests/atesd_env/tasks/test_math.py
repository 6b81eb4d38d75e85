"""Task math: which problems are used for what, how solutions are cut, what both requests say, and grading."""

import json
import logging
import pickle
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from atesd_env.errors import ConfigError, DataError
from atesd_env.tasks.base import Problem
from atesd_env.tasks.boxed import CLOSING_REQUEST
from atesd_env.tasks.data.rows import read_rows
from atesd_env.tasks.math import MathTask
from atesd_env.tasks.segmentation import protected_spans, split_steps, without_annotations

SAMPLES = Path(__file__).parents[2] / "data"
GSM8K = SAMPLES / "gsm8k_sample.jsonl"
MATH = SAMPLES / "math_sample.jsonl"
SOLUTIONS = [row.solution for path in (GSM8K, MATH) for row in read_rows(path)[0]]


@pytest.fixture
def task() -> MathTask:
    return MathTask(GSM8K, probe_size=8, heldout_size=6)


def write_rows(path: Path, problems: Iterable[str], **fields: Any) -> Path:
    rows = [{"problem": problem, "solution": "1\n2", "answer": "2"} | fields for problem in problems]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def one_pass(task: MathTask, seed: int = 0, epoch: int = 0) -> list[Problem]:
    num = task.num_training_problems
    return [task.training_problem(seed, index) for index in range(epoch * num, (epoch + 1) * num)]


def texts(problems: Iterable[Problem]) -> set[str]:
    return {problem.problem for problem in problems}


# ---- what is used for what ----


def test_training_probe_and_heldout_problems_share_nothing_and_leave_nothing_out(task: MathTask) -> None:
    parts = [one_pass(task), task.probe_problems(8), task.heldout_problems(6)]
    assert [len(part) for part in parts] == [26, 8, 6]
    assert len(texts(problem for part in parts for problem in part)) == 40


def test_the_order_of_the_file_does_not_matter_to_the_probe(task: MathTask, tmp_path: Path) -> None:
    lines = GSM8K.read_text(encoding="utf-8").splitlines()
    reversed_path = tmp_path / "reversed.jsonl"
    reversed_path.write_text("\n".join(reversed(lines)), encoding="utf-8")
    other = MathTask(reversed_path, probe_size=8, heldout_size=6)
    assert task.probe_problems(8) == other.probe_problems(8)
    assert task.heldout_problems(6) == other.heldout_problems(6)
    first_lines = {json.loads(line)["problem"] for line in lines[:8]}
    assert texts(task.probe_problems(8)) != first_lines


def test_probe_and_heldout_problems_stay_when_the_other_one_grows(task: MathTask) -> None:
    larger = MathTask(GSM8K, probe_size=12, heldout_size=10)
    assert larger.probe_problems(12)[:8] == task.probe_problems(8)
    assert larger.heldout_problems(10)[:6] == task.heldout_problems(6)
    assert task.probe_problems(3) == task.probe_problems(8)[:3]


def test_each_pass_has_every_training_problem_once_in_a_fresh_order(task: MathTask) -> None:
    first, second, other_seed = one_pass(task), one_pass(task, epoch=1), one_pass(task, seed=1)
    assert texts(first) == texts(second) == texts(other_seed)
    assert len(texts(first)) == len(first)
    # Three fixed orders of 26: they were looked at once, and are the same for ever.
    assert first != second
    assert first != other_seed
    assert second != one_pass(task, seed=1, epoch=1)


def test_a_training_problem_depends_on_seed_and_index_alone(task: MathTask) -> None:
    asked_backwards = {index: task.training_problem(3, index) for index in reversed(range(60))}
    again = MathTask(GSM8K, probe_size=8, heldout_size=6)
    assert asked_backwards == {index: again.training_problem(3, index) for index in range(60)}
    assert pickle.loads(pickle.dumps(task)).training_problem(3, 59) == asked_backwards[59]


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1)])
def test_negative_seeds_and_indices_are_refused(task: MathTask, seed: int, index: int) -> None:
    with pytest.raises(ConfigError, match="expected seed and index of 0 or more, got"):
        task.training_problem(seed, index)


def test_heldout_size_is_a_tenth_by_default() -> None:
    assert len(MathTask(GSM8K, probe_size=8).heldout_problems(4)) == 4
    with pytest.raises(ConfigError, match=r"heldout_size: expected 0 to 4 problems .* got 5; ask for fewer"):
        MathTask(GSM8K, probe_size=8).heldout_problems(5)


def test_more_probe_problems_than_set_apart_are_refused(task: MathTask) -> None:
    with pytest.raises(ConfigError, match=r"probe_size: expected 0 to 8 problems .* got 9"):
        task.probe_problems(9)


@pytest.mark.parametrize(
    ("sizes", "message"), [({"probe_size": 0}, "probe_size"), ({"heldout_size": -1}, "heldout_size")]
)
def test_sizes_out_of_range_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"{message}: expected .* got"):
        MathTask(GSM8K, **sizes)


def test_a_file_that_is_too_small_for_its_uses_is_refused() -> None:
    with pytest.raises(
        DataError, match="expected at least 45 usable problems, got 40; add problems or lower probe_size"
    ):
        MathTask(GSM8K, probe_size=40)


def test_problems_of_the_probe_file_are_taken_from_training_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = write_rows(tmp_path / "train.jsonl", ["A", "B", "C", "D"])
    probe = write_rows(tmp_path / "probe.jsonl", ["X", " B", "Y", "Z"])
    with caplog.at_level(logging.WARNING, logger="atesd_env.tasks"):
        task = MathTask(training, probe, probe_size=2)
    assert texts(one_pass(task)) == {"A", "C", "D"}
    assert texts(task.probe_problems(2) + task.heldout_problems(2)) == {"X", "B", "Y", "Z"}
    assert task.reports["training"].shared == (2,)
    assert task.reports["training"].num_usable == 3
    assert task.reports["probe"].is_clean
    assert [record.getMessage() for record in caplog.records] == [
        f"{training}: 3 of 4 rows are used; 1 are also in another file (line 2)."
    ]


def test_three_files_share_nothing_and_ids_stay_unique(tmp_path: Path) -> None:
    paths = [tmp_path / f"{use}.jsonl" for use in ("train", "probe", "heldout")]
    for path, problems in zip(paths, (["A", "B", "C"], ["C", "P"], ["B", "C", "H"]), strict=True):
        rows = [{"id": str(i), "problem": p, "solution": "1", "answer": "1"} for i, p in enumerate(problems)]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = MathTask(*paths, probe_size=2)
    assert texts(one_pass(task)) == {"A"}
    assert texts(task.probe_problems(2)) == {"C", "P"}
    assert texts(task.heldout_problems(2)) == {"B", "H"}
    ids = [p.id for p in one_pass(task) + task.probe_problems(2) + task.heldout_problems(2)]
    assert len(set(ids)) == 5


def test_a_training_file_inside_the_probe_file_is_refused(tmp_path: Path) -> None:
    training = write_rows(tmp_path / "train.jsonl", ["A"])
    with pytest.raises(DataError, match=r"train\.jsonl: expected at least 1 usable problems, got 0"):
        MathTask(training, write_rows(tmp_path / "probe.jsonl", ["A", "B"]), probe_size=1)


def test_restrict_drops_everywhere_and_the_probe_keeps_its_size(
    task: MathTask, caplog: pytest.LogCaptureFixture
) -> None:
    refused = {task.probe_problems(8)[0].id, task.heldout_problems(6)[0].id, task.training_problem(0, 0).id}
    with caplog.at_level(logging.WARNING, logger="atesd_env.tasks"):
        assert task.restrict(lambda problem: problem.id not in refused) == 3
    parts = [one_pass(task), task.probe_problems(8), task.heldout_problems(6)]
    assert [len(part) for part in parts] == [23, 8, 6]
    assert not refused & {problem.id for part in parts for problem in part}
    assert "left out 3 problems" in caplog.text
    assert task.restrict(lambda problem: problem.id not in refused) == 0


def test_a_restriction_that_leaves_too_little_is_refused_and_changes_nothing(task: MathTask) -> None:
    before = one_pass(task)
    with pytest.raises(
        DataError,
        match=r"expected at least 15 usable problems, got 0.*\. All .* got 40 that do not, .*raise max_prompt_tokens",
    ):
        task.restrict(lambda problem: False)
    assert one_pass(task) == before
    assert task.restrict(lambda problem: True) == 0
    assert one_pass(task) == before


def test_difficulty_is_the_level_or_the_number_of_steps(tmp_path: Path) -> None:
    by_level = MathTask(MATH, probe_size=2)
    assert {problem.difficulty for problem in one_pass(by_level)} == {1.0, 2.0, 3.0, 4.0, 5.0}
    by_steps = MathTask(GSM8K, probe_size=2)
    assert all(problem.difficulty == len(problem.steps) for problem in one_pass(by_steps))
    # One file without levels decides for all: two scales could not be compared.
    mixed = MathTask(MATH, write_rows(tmp_path / "probe.jsonl", ["A", "B"]), probe_size=2)
    assert all(problem.difficulty == len(problem.steps) for problem in one_pass(mixed))


# ---- steps ----


@pytest.mark.parametrize("solution", SOLUTIONS)
def test_steps_of_the_samples_join_to_the_solution_and_cut_nothing_protected(solution: str) -> None:
    steps = split_steps(solution)
    text = without_annotations(solution)
    assert "".join(steps) == text
    assert all(step.strip() for step in steps)
    if "\\" not in text:
        return
    cuts = {sum(map(len, steps[:count])) for count in range(1, len(steps))}
    assert not [(a, b, cut) for a, b, _ in protected_spans(text) for cut in cuts if a < cut < b]
    for step in steps:  # the same without this project's own scanner
        plain = step.replace(r"\$", "")
        assert plain.count("$") % 2 == 0
        assert plain.count(r"\begin{") == plain.count(r"\end{")
        assert plain.count("[asy]") == plain.count("[/asy]")
        assert len(re.findall(r"(?<!\\)\\\[", plain)) == len(re.findall(r"(?<!\\)\\\]", plain))


def test_the_samples_are_cut_into_several_steps() -> None:
    assert sum(len(split_steps(solution)) for solution in SOLUTIONS) / len(SOLUTIONS) > 3


@pytest.mark.parametrize(
    ("solution", "steps"),
    [
        # plain text: a line is a step, blank lines stay with the step before, $ is money, annotations go
        ("a\nb\n\nc", ("a\n", "b\n\n", "c")),
        ("It costs $<<2*3=6>>6.\nSo $<<6+1=7>>7", ("It costs $6.\n", "So $7")),
        ("\n\na\nb\n", ("\n\na\n", "b\n")),
        ("a\r\nb", ("a\r\n", "b")),
        ("1+1=2", ("1+1=2",)),
        ("One line. Two sentences, e.g. This", ("One line. ", "Two sentences, e.g. This")),
        ("About 3.5 or so", ("About 3.5 or so",)),
        ("", ()),
        ("  ", ("  ",)),
        # LaTeX: sentences and paragraphs
        (r"We have $x = 1. Y$. So $\boxed{1}$", (r"We have $x = 1. Y$. ", r"So $\boxed{1}$")),
        (r"Take $x = 1.$ Then $\boxed{1}.$", (r"Take $x = 1.$ ", r"Then $\boxed{1}.$")),
        ("Let $a, b, ...$ Be \\dots", ("Let $a, b, ...$ Be \\dots",)),
        ("First \\(a.\\) Then\n\nlast", ("First \\(a.\\) ", "Then\n\n", "last")),
        (r"So \[x. Y = 2.\]Thus $y$", (r"So \[x. Y = 2.\]", "Thus $y$")),
        (r"So \[x = 2\]where $y$", (r"So \[x = 2\]where $y$",)),
        (r"So \[x \\[2pt] y. Z\] Q", (r"So \[x \\[2pt] y. Z\] Q",)),
        ("We see\n\n\\begin{align*}\na. B\n\n&= 1.\n\\end{align*}\nSo", None),
        ('As shown. [asy]\nlabel("$A. B$");\n\ndot();\n[/asy]\nNow \\pi', None),
        (r"It is \textbf{A. B} here. And", (r"It is \textbf{A. B} here. ", "And")),
        ("Pay \\$5. Then \\$6.\n\nA $ alone. Done", ("Pay \\$5. ", "Then \\$6.\n\n", "A $ alone. ", "Done")),
        ("Unclosed \\[ x. Y", ("Unclosed \\[ x. Y",)),
        ("By parts:\n1. Let $x$\n2. Then \\pi", ("By parts:\n", "1. Let $x$\n", "2. Then \\pi")),
    ],
)
def test_the_rule_of_steps(solution: str, steps: tuple[str, ...] | None) -> None:
    if steps is None:  # one long text whose last word is the second step
        head = re.match(r".*(?:\\end\{align\*\}|\[/asy\])\n", solution, re.DOTALL)
        assert head is not None
        steps = (head[0], solution[head.end() :])
        if solution.startswith("As"):
            steps = (solution[: head.end()], solution[head.end() :])
    assert split_steps(solution) == steps


# ---- requests ----


def test_both_requests_hold_the_problem_and_end_in_the_same_words(task: MathTask) -> None:
    for problem in one_pass(task):
        student = task.student_request(problem)
        teacher = task.teacher_request(problem, problem.steps, problem.answer)
        for request in (student, teacher):
            assert request.startswith(problem.problem)
            assert request.endswith(f"\n\n{CLOSING_REQUEST}")
        assert problem.steps[0].strip() not in student
    assert "step by step" in CLOSING_REQUEST
    assert r"\boxed{}" in CLOSING_REQUEST


def test_the_teacher_always_sees_the_final_answer_and_without_steps_nothing_else(task: MathTask) -> None:
    problem = Problem("x", "What is 6*7?", ("6*7 is\n", "six sevens: 42"), "42", 2.0)
    nothing = task.teacher_request(problem, (), "42")
    assert r"\boxed{42}" in nothing
    assert "sevens" not in nothing
    assert "6*7 is" not in nothing
    assert r"\boxed{42}" in task.teacher_request(problem, problem.steps, "42")


@pytest.mark.parametrize("path", [GSM8K, MATH])
def test_a_larger_part_of_the_reference_never_shows_less(path: Path) -> None:
    task = MathTask(path, probe_size=2)
    for problem in one_pass(task):
        ending = task.teacher_request(problem, (), problem.answer).partition("Final answer:")[2]
        shown_before = ""
        for count in range(len(problem.steps) + 1):
            request = task.teacher_request(problem, problem.steps[:count], problem.answer)
            assert request.endswith(ending)
            shown = request.removesuffix(ending).removesuffix("Final answer:").rstrip()
            assert shown.startswith(shown_before)
            assert len(shown) > len(shown_before)
            assert "".join(problem.steps[:count]).strip() in shown
            shown_before = shown


def test_another_problems_solution_can_be_shown(task: MathTask) -> None:
    problem, other = task.training_problem(0, 0), task.training_problem(0, 1)
    request = task.teacher_request(problem, other.steps, other.answer)
    assert request.startswith(problem.problem)
    assert other.steps[-1].strip() in request
    assert rf"\boxed{{{other.answer}}}" in request


# ---- grading ----


@pytest.mark.parametrize("path", [GSM8K, MATH])
def test_every_reference_completion_is_graded_as_correct(path: Path) -> None:
    task = MathTask(path, probe_size=2)
    for problem in one_pass(task):
        completion = task.reference_completion(problem)
        assert completion.startswith("".join(problem.steps).strip())
        assert task.is_correct(completion, problem)


def test_a_box_is_added_only_where_the_solution_has_none(task: MathTask) -> None:
    plain = Problem("x", "?", ("1+1\n", "=2\n"), "2", 2.0)
    boxed = Problem("y", "?", (r"So \boxed{2}.",), "2", 1.0)
    assert task.reference_completion(plain) == "1+1\n=2\nFinal answer: \\boxed{2}"
    assert task.reference_completion(boxed) == r"So \boxed{2}."


def test_a_rollout_is_graded_by_its_last_box_alone(task: MathTask) -> None:
    problem = Problem("x", "?", ("1",), "72", 1.0)
    assert task.is_correct(r"It is \boxed{71}, no: \boxed{72.0}", problem)
    assert not task.is_correct(r"It is \boxed{72}, no: \boxed{71}", problem)
    assert not task.is_correct("The final answer is 72", problem)
    assert task.extract_answer("The final answer is 72") is None
    assert not task.is_correct(r"The final answer is \boxed{72", problem)
    assert not task.is_correct("", problem)


@pytest.mark.parametrize(
    "shape", ["<<" + "=" * 100_000, "\\," + "{" * 100_000, "$" + "\\,{" * 33_000, "\\," + "\n" * 100_000]
)
def test_no_text_takes_more_than_linear_time(shape: str):
    """Each once took minutes; now hundredths of a second, so the bound is no statement about the machine's speed."""
    started = time.process_time()
    assert "".join(split_steps(shape)) == shape
    assert time.process_time() - started < 5.0
