"""Task code: where programs are cut, what both requests say, and that references pass while everything else fails."""

import ast
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atesd_env.config import EnvConfig
from atesd_env.errors import ConfigError, DataError
from atesd_env.evaluation.benchmarks import read_benchmark
from atesd_env.population.samples import Sample
from atesd_env.tasks.choice import ChoiceTask
from atesd_env.tasks.code import CodeTask
from atesd_env.tasks.data.rows import read_rows
from atesd_env.tasks.data.sources import find_data_set
from atesd_env.tasks.from_rows import RowsTask
from atesd_env.tasks.programs import program_of, split_program, visible_examples
from atesd_env.tasks.registry import make_task

pytest.importorskip("pydantic_monty", reason="the sandbox is missing: pip install 'atesd-env[code]'")

SAMPLES = Path(__file__).parents[2] / "data"
HUMANEVAL = SAMPLES / "humaneval_sample.jsonl"
MBPPPLUS = SAMPLES / "mbppplus_sample.jsonl"
AQUA = SAMPLES / "aqua_sample.jsonl"


@pytest.fixture(scope="module", params=[HUMANEVAL, MBPPPLUS], ids=["humaneval", "mbppplus"])
def task(request: pytest.FixtureRequest) -> CodeTask:
    return CodeTask(request.param, probe_size=12, heldout_size=4)


# ---- steps ----


@pytest.mark.parametrize(
    ("program", "steps"),
    [
        ("", ()),
        ("no python at all (", ("no python at all (",)),
        ("x = 1\ny = 2\n", ("x = 1\n", "y = 2\n")),
        ("x = 1; y = 2\nz = 3", ("x = 1; y = 2\n", "z = 3")),
        (
            "import a\n\n\ndef f(x):\n    '''Doc.'''\n\n    return x\n",
            ("import a\n\n\ndef f(x):\n    '''Doc.'''\n\n    return x\n",),
        ),
        ("def f(x): return x\n\n# behind\n", ("def f(x): return x\n\n# behind\n",)),
        (
            "def f(x):\n    # why\n    # at all\n    y = x\n\n    # then\n    return y\n",
            ("def f(x):\n    # why\n    # at all\n    y = x\n\n", "    # then\n    return y\n"),
        ),
        (
            "@cache\ndef f(\n    x,\n):\n    if x:\n        return 1\n\n        # deep\n    return 0\nf(1)\n",
            ("@cache\ndef f(\n    x,\n):\n    if x:\n        return 1\n\n        # deep\n", "    return 0\n", "f(1)\n"),
        ),
        (
            'def f():\n    a = """\n# no comment"""\n    return a\n',
            ('def f():\n    a = """\n# no comment"""\n', "    return a\n"),
        ),
        ("class A:\n    x = 1\n    y = 2\nA()", ("class A:\n    x = 1\n    y = 2\n", "A()")),
        ("def f():\r\n    a = 1\r\n    return a\r\n", ("def f():\r\n    a = 1\r\n", "    return a\r\n")),
        ("x = '\x0c'\ny = 1\n", ("x = '\x0c'\n", "y = 1\n")),
    ],
)
def test_the_rule_of_blocks(program: str, steps: tuple[str, ...]):
    if program.startswith("def f(x):\n    # why"):
        assert steps[0].endswith("y = x\n\n"), "a comment stays with what it explains"
    assert split_program(program) == steps


LINES = st.lists(
    st.sampled_from(
        [
            "x = 1",
            "# note",
            "",
            "def f(a):",
            "    return a",
            "    # inner",
            "    if a:",
            "        pass",
            "import os",
            '"""',
            "y = [",
            "]",
        ]
    ),
    max_size=14,
)


@given(LINES, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_steps_joined_are_the_program_whatever_it_is(lines: list[str], end: str, ends: bool):
    program = end.join(lines) + (end if ends else "")
    steps = split_program(program)
    assert "".join(steps) == program
    assert all(steps)


@pytest.mark.parametrize("path", [HUMANEVAL, MBPPPLUS], ids=["humaneval", "mbppplus"])
def test_blocks_of_the_samples_hold_whole_statements(path: Path):
    task = CodeTask(path, probe_size=16, heldout_size=0)
    num_steps = []
    for problem in task.probe_problems(16):
        assert "".join(problem.steps)
        num_steps.append(len(problem.steps))
        for number in range(1, len(problem.steps) + 1):
            ast.parse("".join(problem.steps[:number]))
    assert max(num_steps) > 2


# ---- requests ----


def test_more_of_a_program_never_shows_less_and_both_requests_end_alike(task: CodeTask):
    for problem in task.probe_problems(12):
        requests = [
            task.teacher_request(problem, problem.steps[:shown], problem.answer)
            for shown in range(len(problem.steps) + 1)
        ]
        student = task.student_request(problem)
        closing = student.removeprefix(problem.problem)
        assert all(request.startswith(problem.problem) and request.endswith(closing) for request in requests)
        for shown in range(1, len(problem.steps) + 1):
            part = "".join(problem.steps[:shown]).strip("\n")
            assert all(part in request for request in requests[shown:])


def test_what_stands_for_the_final_answer():
    (problem,) = (p for p in CodeTask(HUMANEVAL, probe_size=15).probe_problems(15) if p.id == "HumanEval/0")
    assert problem.answer.splitlines() == [
        "def has_close_elements(numbers: List[float], threshold: float) -> bool",
        "assert has_close_elements([1.0, 2.0, 3.0], 0.5) == False",
        "assert has_close_elements([1.0, 2.8, 3.0, 4.0, 5.0, 2.0], 0.3) == True",
    ]
    examples, nothing = (CodeTask(HUMANEVAL, probe_size=2, shown_answer=shown) for shown in ("examples", "nothing"))
    assert problem.answer in examples.teacher_request(problem, (), problem.answer)
    assert "The function and what it returns" not in nothing.teacher_request(problem, (), problem.answer)
    assert nothing.teacher_request(problem, (), problem.answer) == examples.teacher_request(problem, (), None)
    assert "numbers: List[float]" in nothing.teacher_request(problem, problem.steps[:1], problem.answer)


def test_examples_are_of_the_function_and_have_values():
    text = '>>> f(1)\n>>> f(2) == 3\n>>> g(1)\n2\n>>> f(3)\n4\n>>> f(5)\n"""\nassert f(4) == 5\nassert h(1)\n'
    assert visible_examples(text, "f") == ("assert f(2) == 3", "assert f(3) == 4", "assert f(4) == 5")


# ---- judging ----


def test_references_pass_and_others_fail(task: CodeTask):
    for problem in task.probe_problems(12):
        reference = task.reference_completion(problem)
        # Monty lacks a few modules; where bubblewrap is, it runs them.
        assert task.judge(f"So:\n{reference}\nThat is it.", problem) in (True, None)
        assert task.remark(reference, problem).startswith("not executed") is (task.judge(reference, problem) is None)
        cut = f"def {problem.entry_point}(*args):\n    return 'no'\n"
        assert task.judge(f"```python\n{cut}```", problem) is False
        assert task.remark(f"```python\n{cut}```", problem).startswith("failed: assert ")
    verdicts = [task.is_correct(task.reference_completion(p), p) for p in task.probe_problems(12)]
    assert sum(verdicts) >= 9, "most of these run everywhere"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("def f(x): return x", None),
        ("```python\ndef f(x): return x", None),
        ("```py\na\n```\nthen\n```\nb\n```", "b\n"),
        ("```python\n\n```", None),
        ("```json\n{}\n```", None),
        ("  ```python\n  a\n  ```", "  a\n"),
    ],
)
def test_the_last_closed_block_is_the_program(text: str, program: str | None):
    assert program_of(text) == program


# ---- rows, configuration, benchmarks ----


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"solution": "no python ("}, "field 'solution': expected Python that defines 'f'"),
        ({"solution": "def g(x):\n    return x\n"}, "field 'solution': expected Python that defines 'f'"),
        ({"entry_point": "f; import os"}, "field 'entry_point': expected the name of the function"),
        ({"answer": 3}, "field 'answer': expected text"),
        ({"problem": None}, "field 'problem': expected text"),
    ],
)
def test_malformed_rows_are_refused_by_field(tmp_path: Path, change: dict[str, object], message: str):
    row = {
        "problem": "Doubles.",
        "solution": "def f(x):\n    return x\n",
        "answer": "assert f(1) == 1",
        "entry_point": "f",
    }
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row | change) + "\n")
    with pytest.raises(DataError, match=message):
        CodeTask(path, probe_size=1)


def test_the_tests_name_the_function_where_no_field_does():
    rows, _ = read_rows(MBPPPLUS, parse=CodeTask.parse)
    named = {row.id: row.entry_point for row in rows}
    stripped = [
        CodeTask.parse(MBPPPLUS, 1, {k: v for k, v in json.loads(line).items() if k != "entry_point"})
        for line in MBPPPLUS.read_text().splitlines()
    ]
    assert {row.id: row.entry_point for row in stripped} == named


def test_prose_is_no_context_though_it_may_be_python():
    row = CodeTask.parse(
        "x.jsonl", 1, {"problem": "Sum", "solution": "def f(x):\n    return x\n", "answer": "assert f(1) == 1"}
    )
    assert row.context == ""


def test_the_configuration_makes_the_task():
    config = EnvConfig(task="code", data_path=str(MBPPPLUS), probe_size=4, code_answer="nothing")
    made = make_task(config)
    assert isinstance(made, CodeTask)
    (problem,) = made.probe_problems(1)
    assert "The function and what it returns" not in made.teacher_request(problem, problem.steps, problem.answer)
    with pytest.raises(ConfigError, match=r"data_path: .*'code', got 'gsm8k', the packaged problems of task 'math'"):
        EnvConfig(task="code", data_path="gsm8k")
    with pytest.raises(ConfigError, match=r"data_path: expected a JSONL file .*task='code'"):
        EnvConfig(task="code")
    with pytest.raises(ConfigError, match=r"task: expected one of .*Did you mean 'code'"):
        EnvConfig(task="coda")


def test_benchmarks_of_programs_are_read_by_the_same_rule():
    benchmark = read_benchmark(str(HUMANEVAL), 3, task="code")
    assert [problem.id for problem in benchmark.problems] == ["HumanEval/0", "HumanEval/1", "HumanEval/2"]
    assert all(problem.steps == () and problem.tests for problem in benchmark.problems)
    other = read_benchmark(str(HUMANEVAL), 2, task="code")
    assert other.fingerprint != benchmark.fingerprint
    with pytest.raises(ConfigError, match=r"expected one that task 'math' can judge, got 'humaneval'"):
        read_benchmark("humaneval")


def test_the_hubs_rows_become_ours():
    theirs = {
        "task_id": 2,
        "prompt": "Adds.",
        "code": "def f(x):\n    return x\n",
        "test_imports": ["import math"],
        "test_list": ["assert f(1) == 1"],
    }
    row = CodeTask.parse("x", 1, find_data_set("evalplus/mbppplus", "measuring").row(theirs))
    assert (row.id, row.entry_point, row.tests) == ("Mbpp/2", "f", "import math\nassert f(1) == 1")
    there = {
        "task_id": "HumanEval/0",
        "prompt": "def f(x):\n",
        "canonical_solution": "    return x\n",
        "test": "def check(c):\n    assert c(1) == 1\n",
        "entry_point": "f",
    }
    row = CodeTask.parse("x", 1, find_data_set("openai/openai_humaneval", "measuring").row(there))
    assert (row.id, row.solution) == ("HumanEval/0", "def f(x):\n    return x\n")


@pytest.mark.parametrize(("path", "kind"), [(HUMANEVAL, CodeTask), (MBPPPLUS, CodeTask), (AQUA, ChoiceTask)])
def test_rows_that_are_written_are_read_as_they_were(path: Path, kind: type[RowsTask]):
    rows, _ = read_rows(path, parse=kind.parse)
    assert [
        kind.parse(path, row.line, {"id": row.id, **json.loads(json.dumps(row.as_fields()))}) for row in rows
    ] == rows


def test_a_sample_has_a_remark_only_where_there_is_one():
    fields = dict.fromkeys(("problem_id", "problem", "student_prompt", "teacher_prompt", "rollout", "answer"), "")
    numbers = {"reveal_ratio": 0.5, "num_shown": 1, "num_steps": 2, "is_correct": False}
    sample = Sample(**fields, **numbers, remark="failed: assert f(2) == 4")
    assert sample.as_row()["remark"] == "failed: assert f(2) == 4"
    assert "remark" not in dataclasses.replace(sample, remark="").as_row()
