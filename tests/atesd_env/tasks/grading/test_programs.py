"""Programs of a model in isolation: hostile ones are stopped or fail, and the process that asks survives them all."""

import json
import os
import time
from pathlib import Path

import pytest

from atesd_env.tasks.grading import bubblewrap, inside, programs
from atesd_env.tasks.grading.bubblewrap import BubblewrappedProgram, ProgramError, is_usable
from atesd_env.tasks.grading.programs import run_tests
from benchmarks.hostile_programs import HOSTILE, TESTS

pytest.importorskip("pydantic_monty", reason="the sandbox is missing: pip install 'atesd-env[code]'")

STAGE_SEC = 0.5
needs_bubblewrap = pytest.mark.skipif(not is_usable(), reason="bubblewrap is not installed, or may not make namespaces")
BARE_MARK = Path("/var/hostile")


def test_there_are_many_hostile_programs():
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_are_stopped_or_fail_within_their_bound(name: str):
    start = time.monotonic()
    verdict = run_tests(HOSTILE[name], "", TESTS, "f", STAGE_SEC)
    assert verdict.outcome != "passed", verdict
    assert time.monotonic() - start < programs.LIMIT_SEC
    assert not BARE_MARK.exists()


@needs_bubblewrap
@pytest.mark.parametrize("name", HOSTILE)
def test_bubblewrap_stops_them_too(name: str):
    # Monty has no heapq, so CPython comes to it.
    verdict = run_tests("import heapq\n" + HOSTILE[name], "", TESTS, "f", STAGE_SEC)
    assert verdict.outcome == "failed", verdict
    assert not BARE_MARK.exists()


def test_an_honest_program_passes_after_all_of_them():
    assert run_tests("def f(x):\n    return 2 * x\n", "", TESTS, "f").outcome == "passed"
    wrong = run_tests("def f(x):\n    return 3 * x\n", "", TESTS, "f")
    assert (wrong.outcome, wrong.reason) == ("failed", "assert f(2) == 4: AssertionError: assert 6 == 4")


def test_a_judge_that_dies_costs_its_own_program(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(programs, "LIMIT_SEC", 0.2)
    verdict = run_tests("def f(x):\n    while x:\n        pass\n", "", TESTS, "f", 5.0)
    assert (verdict.outcome, verdict.by) == ("failed", "")
    monkeypatch.undo()
    assert run_tests("def f(x):\n    return x + 2\n", "", TESTS, "f").outcome == "passed"


def test_tests_may_be_a_function_and_may_use_what_the_problem_defines():
    context = "def twice(x):\n    return 2 * x\ndef f(x):\n    pass\n"
    tests = "def check(candidate):\n    assert candidate(2) == twice(2)\n    assert math.isclose(candidate(1), 2)\n"
    assert run_tests("def f(x):\n    return twice(x)\n", context, tests, "f").outcome == "passed"
    assert run_tests("def f(x):\n    return 5\n", context, tests, "f").outcome == "failed"


def test_expected_exceptions_count_and_exceeded_limits_do_not():
    tests = "try:\n    f(1)\n    assert False\nexcept ValueError:\n    pass\n"
    assert run_tests("def f(x):\n    raise ValueError('no')\n", "", tests, "f").outcome == "passed"
    assert run_tests("def f(x):\n    return 1\n", "", tests, "f").outcome == "failed"
    anything = tests.replace("ValueError", "Exception")
    assert run_tests("def f(x):\n    while True:\n        pass\n", "", anything, "f", STAGE_SEC).outcome == "failed"


def test_what_the_subset_lacks_is_not_executed_or_goes_to_bubblewrap():
    verdict = run_tests("import heapq\ndef f(x):\n    return heapq.nlargest(1, [x, 4])[0]\n", "", TESTS, "f")
    assert (verdict.outcome, verdict.by) == (("passed", "bubblewrap") if is_usable() else ("not executed", "monty"))


def test_nothing_runs_bare():
    """The harness refuses an ordinary process before it reads a program."""
    assert os.getpid() > 2
    with pytest.raises(SystemExit, match="inside of bubblewrap"):
        inside.main(1)


@needs_bubblewrap
def test_without_the_filter_of_system_calls_no_program_is_taken(monkeypatch: pytest.MonkeyPatch):
    let_all_through = (0x06).to_bytes(2, "little") + bytes(2) + (0x7FFF0000).to_bytes(4, "little")
    monkeypatch.setattr(bubblewrap, "seccomp_filter", lambda: let_all_through)
    with (
        BubblewrappedProgram(time.monotonic() + 5.0) as program,
        pytest.raises(ProgramError, match="ended its process"),
    ):
        program.define("pass")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        2.5,
        "a",
        b"a",
        1j,
        [1, [2]],
        (1, "b"),
        {1, 2},
        frozenset({3}),
        {(1, 2): [None]},
        float("inf"),
        10**40,
    ],
)
def test_plain_data_comes_back_as_it_was(value: object):
    there = inside.unpacked(json.loads(json.dumps(inside.packed(value))))
    assert (there, type(there)) == (value, type(value))
