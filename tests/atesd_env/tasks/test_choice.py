"""Task choice: what is cut off a rationale, when options are shuffled, and that letters are judged exactly."""

import json
from pathlib import Path

import pytest

from atesd_env.config import EnvConfig
from atesd_env.errors import DataError
from atesd_env.tasks.choice import ChoiceProblem, ChoiceTask, without_announcement
from atesd_env.tasks.registry import make_task

AQUA = Path(__file__).parents[2] / "data" / "aqua_sample.jsonl"


@pytest.fixture(scope="module")
def task() -> ChoiceTask:
    return ChoiceTask(AQUA, probe_size=8, heldout_size=4)


@pytest.mark.parametrize(
    "ending",
    [
        *(
            "\nAnswer: C",
            "\nANSWER:C.",
            "\nAnswer is C",
            "\nThe answer is option C) 61.",
            "\nCorrect Option: C",
            "\nC",
            "\n(C)",
        ),
        *(
            " Hence (C) is the correct answer",
            "\nC is the answer.",
            "\nChoice C.",
            "\nThe Answer is, C.",
            "\nANSWER :(Option C)",
        ),
        *("\nAnswer : C\nAnswer is C", ", so the answer is C.", "\nans. C"),
    ],
)
def test_the_announcement_is_no_step(ending: str):
    assert without_announcement(f"We get 2+2=4{ending}").rstrip(",") == "We get 2+2=4"


@pytest.mark.parametrize(
    "kept", ["So AC = 4", "The area of C is 5", "Let the answer be x", "The answer is 40", "x = C", "vitamin C"]
)
def test_what_is_no_announcement_stays(kept: str):
    assert without_announcement(kept) == kept


def test_shuffling_is_fixed_by_seed_and_index_and_moves_the_letter_with_its_text(task: ChoiceTask):
    originals = {p.id: p for p in (*task._training, *task.probe_problems(8))}
    num_moved = 0
    for index in range(task.num_training_problems):
        problem = task.training_problem(0, index)
        assert isinstance(problem, ChoiceProblem)
        assert problem == task.training_problem(0, index)
        original = originals[problem.id]
        right = "ABCDEFGHIJ".index
        assert problem.options[right(problem.answer)] == original.options[right(original.answer)]
        assert sorted(problem.options) == sorted(original.options)
        assert f"{problem.answer}) {problem.options[right(problem.answer)]}" in problem.problem
        assert problem.steps == original.steps
        assert original.may_shuffle or problem == original, "left alone"
        num_moved += problem.options != original.options
    assert num_moved > task.num_training_problems // 3
    # 120 orders of five options: that all of these come again under another seed has odds below 120^-8.
    assert [task.training_problem(0, i).answer for i in range(28)] != [
        task.training_problem(1, i).answer for i in range(28)
    ]


@pytest.mark.parametrize(
    ("solution", "options", "may"),
    [
        ("2+2=4. So 4.\nAnswer: B", ["3", "4"], True),
        ("Let A be 2. So 4.\nAnswer: B", ["3", "4"], False),
        ("Let X be 2. So 4.\nAnswer: B", ["3", "4"], True),
        ("2+2=4. So 4.", ["None of these", "4"], False),
        ("2+2=4. So 4.", ["3", "Both of them"], False),
    ],
)
def test_rows_where_a_letter_or_a_place_means_something_are_left_alone(solution: str, options: list[str], may: bool):
    row = ChoiceTask.parse("x", 1, {"problem": "2+2?", "solution": solution, "answer": "B", "options": options})
    assert ChoiceTask.as_problem(row, has_levels=False).may_shuffle is may


def test_letters_and_texts_of_options_are_judged_exactly(task: ChoiceTask):
    fields = {"problem": "2+2?", "options": ["A)3 m", "B)4 m", "C)5 m", "D)5 m"], "solution": "It is 4.", "answer": "B"}
    problem = task.as_problem(task.parse("x", 1, fields), has_levels=False)
    right = [r"\boxed{B}", r"\boxed{b}", r"\boxed{(B)}", r"\boxed{B) 4 m}", r"\boxed{\text{B}}", r"\boxed{4  M}"]
    wrong = [
        "B",
        r"\boxed{C}",
        r"\boxed{4}",
        r"\boxed{AB}",
        r"\boxed{}",
        r"\boxed{C) 4 m}",
        r"\boxed{B} or \boxed{C}",
        "",
    ]
    assert [task.is_correct(text, problem) for text in right] == [True] * len(right)
    assert [task.is_correct(text, problem) for text in wrong] == [False] * len(wrong)
    twin = task.as_problem(task.parse("x", 1, fields | {"answer": "C"}), has_levels=False)
    assert not task.is_correct(r"\boxed{5 m}", twin), "two options have this text"


def test_references_are_right_and_show_the_letter_at_every_ratio(task: ChoiceTask):
    for problem in task.probe_problems(8):
        assert task.is_correct(task.reference_completion(problem), problem)
        for shown in range(len(problem.steps) + 1):
            request = task.teacher_request(problem, problem.steps[:shown], problem.answer)
            assert f"Final answer: \\boxed{{{problem.answer}}}" in request
            assert request.startswith(problem.problem)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": ["one"]}, "field 'options': expected 2 to 10 options"),
        ({"options": "3, 4"}, "field 'options': expected a list of texts"),
        ({"options": None}, "field 'options': expected 2 to 10 options"),
        ({"answer": "C"}, "field 'answer': expected a letter, A to B"),
        ({"answer": "4"}, "field 'answer': expected a letter, A to B"),
    ],
)
def test_malformed_rows_are_refused_by_field(tmp_path: Path, change: dict[str, object], message: str):
    row = {"problem": "2+2?", "solution": "It is 4.", "answer": "B", "options": ["3", "4"]} | change
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=message):
        ChoiceTask(path, probe_size=1)


def test_the_configuration_makes_the_task():
    assert isinstance(make_task(EnvConfig(task="choice", data_path=str(AQUA), probe_size=8)), ChoiceTask)
