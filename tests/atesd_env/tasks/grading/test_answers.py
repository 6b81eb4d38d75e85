"""Final answers: which one a rollout states, and when two of them are the same."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

import pytest

from atesd_env.errors import AtesdError
from atesd_env.tasks.grading import verification
from atesd_env.tasks.grading.answers import answers_match, last_boxed
from atesd_env.tasks.grading.verification import num_grading_timeouts

HANG_SEC = 60.0
"""Only to tell a hang from a slow machine; nothing here is a statement about speed."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"So it is \boxed{72}.", "72"),
        (r"First \boxed{1}, no, \boxed{2}", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{x \in \{1\} \}} more", r"x \in \{1\} \}"),
        (r"\fbox{ 5 } and \text{more}", "5"),
        (r"\boxed {7}", "7"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{1} then cut off in \boxed{2", None),
        (r"\boxed{\frac{1}{2}", None),
        (r"\boxed{5} and then \boxed{}", None),
        (r"write \boxed around it", None),
        ("The answer is 72", None),
        ("", None),
    ],
)
def test_only_the_last_closed_box_counts(text: str, expected: str | None) -> None:
    assert last_boxed(text) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # numbers
        ("72", "72"),
        ("072.0", "72"),
        ("$-72$", "-72.00"),
        ("1,234,567", "1234567"),
        (r"10,\!080", "10080"),
        ("10{,}080", "10,080"),
        (r"\$32,\!348", "32348"),
        (".5", "0.50"),
        # fractions and other forms of a number
        ("1/2", r"\frac{1}{2}"),
        (r"\frac12", "0.5"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"1\frac{4}{5}", "9/5"),
        (r"2^{10}", "1024"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        # units and percent, as math-verify has them
        (r"50\%", "0.5"),
        (r"5\%", "5"),
        (r"5 \text{ cm}", "5"),
        (r"90^\circ", "90"),
        # tuples, intervals, sets, matrices
        ("(3, 4)", r"\left( 3,4 \right)"),
        (r"(3, \frac{8}{2}]", "(3,4]"),
        ("7, 5, 3", "3,5,7"),
        (r"\{2, 1\}", r"\{1, 2\}"),
        (r"\begin{pmatrix} 0.5 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1/2 \\ 2 \end{pmatrix}"),
        # algebra
        ("1+2x", "2x + 1"),
        ("-q+p", "p - q"),
        ("x=5", "5"),
        # words and choices
        ("East", r"\text{east}"),
        (r"\text{ Even }", "even"),
        (r"\text{(C)}", "C"),
        ("C", r"\text{(C)}"),
        ("(B)", "B"),
        ("C) Rs. 4000", "C"),
    ],
)
def test_the_same_answer_in_another_form_matches(given: str, expected: str) -> None:
    assert answers_match(given, expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("71", "72"),
        ("-72", "72"),
        ("7.2", "72"),
        ("1,234", "1234.5"),
        ("1 1/2", "11/2"),
        ("0.33", "1/3"),
        ("(3,4)", "(4,3)"),
        ("(3,4)", "(3,4]"),
        ("5", "5, 6"),
        ("2x+1", "2x-1"),
        ("seat", r"\text{east}"),
        ("seat", "east"),
        ("D", "C"),
        ("4000", "C"),
        (r"\frac{1}{", "5"),
        (r"\text{", "east"),
        ("", "5"),
        ("5", ""),
        ("", ""),
        (None, "5"),
    ],
)
def test_another_answer_does_not_match(given: str | None, expected: str) -> None:
    assert not answers_match(given, expected)


def in_a_thread(function: Callable[[], bool]) -> bool:
    """Calls a function off the main thread; fails instead of hanging, and passes errors on."""
    outcome: list[bool | BaseException] = []

    def call() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(HANG_SEC)
    assert outcome, "the comparison hangs"
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def test_math_verify_works_off_the_main_thread() -> None:
    assert in_a_thread(lambda: answers_match(r"\frac{21}{34}", "42/68"))


def test_threads_get_the_answers_to_their_own_questions() -> None:
    results: dict[int, bool] = {}

    def compare(number: int) -> None:
        # Every other pair is equal, so that a swapped reply shows.
        results[number] = answers_match(rf"\frac{{{number}}}{{997}}", f"{number + number % 2}/997")

    threads = [threading.Thread(target=compare, args=(number,), daemon=True) for number in range(1, 17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_SEC)
    assert results == {number: number % 2 == 0 for number in range(1, 17)}


@pytest.mark.parametrize(
    "blow_up",
    [
        "9^{9^{9^9}}",
        "9^9^9^9",
        "9**9**9",
        "(1+1)^{10^{10}}",
        "9^(9^9)",
        "2^{99999999}",
        "99999!",
        "((9!)!)!",
        "7!!!",
        r"\sum_{k=1}^{10^{10}} k",
        "1+" * 5000 + "1",
        "(" * 5000,
        r"\text{" * 5000,
        "9" * 100_000,
    ],
)
def test_what_looks_costly_is_compared_as_text_only(blow_up: str) -> None:
    before = num_grading_timeouts()
    assert not in_a_thread(lambda: answers_match(blow_up, "5"))
    assert not in_a_thread(lambda: answers_match(r"\frac{10}{2}", blow_up))
    assert in_a_thread(lambda: answers_match(f" {blow_up} ", blow_up))
    assert num_grading_timeouts() == before


@pytest.mark.parametrize("harmless", ["10^{100}", "3^{2x}", "x^2+3^4", "5!", "e^{x^2}", r"\frac{x^{10}}{2^{12}}", "n!"])
def test_ordinary_powers_still_reach_math_verify(harmless: str) -> None:
    assert answers_match(f"{harmless}+1-1", harmless)


def test_a_comparison_that_takes_too_long_is_given_up_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert answers_match(r"\frac{55}{89}", "110/178")  # math-verify runs
    before = num_grading_timeouts()
    with (
        caplog.at_level(logging.WARNING, logger="atesd_env.tasks.grading.verification"),
        monkeypatch.context() as patch,
    ):
        patch.setattr(verification, "TIME_LIMIT_SEC", 0.5)
        assert not in_a_thread(lambda: answers_match(r"\binom{1000000000}{500000000}", "5"))
        # The second time costs nothing: the outcome is remembered.
        assert not in_a_thread(lambda: answers_match(r"\binom{1000000000}{500000000}", "5"))
    assert num_grading_timeouts() == before + 1
    assert "given up" in caplog.text
    assert answers_match(r"\frac{89}{144}", "178/288"), "math-verify must run again after a time-out"


def test_an_endless_check_holds_up_no_other_and_a_crash_costs_its_own_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "TIME_LIMIT_SEC", 10 * HANG_SEC)  # so that only the crash ends it
    pool = verification._Pool(2)
    outcome: list[bool | None] = []
    try:
        assert pool.verify(r"\frac{3}{7}", "6/14")
        endless = threading.Thread(target=lambda: outcome.append(pool.verify(r"\binom{1000000000}{500000000}", "5")))
        endless.start()
        assert [pool.verify(rf"\frac{{{n}}}{{13}}", f"{2 * n}/26") for n in range(1, 4)] == [True] * 3
        assert endless.is_alive()
        (busy,) = [worker for worker in pool.workers if worker._lock.locked()]
        assert busy.child is not None
        os.kill(busy.child.process.pid, signal.SIGSEGV)
        endless.join(HANG_SEC)
        assert outcome == [None]
        assert pool.num_timeouts == 1
        assert pool.verify(r"\frac{5}{17}", "10/34"), "a new process takes the place of the one that crashed"
    finally:
        pool.close()


def test_without_math_verify_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    false = shutil.which("false")
    if false is None:
        pytest.skip("needs a program that ends at once")
    monkeypatch.setattr(sys, "executable", false)
    with pytest.raises(AtesdError, match=r"expected math-verify .*got: .*import math_verify"):
        verification._Pool(1).verify("1", "2")


def test_works_in_scripts_without_main_guard_in_forked_and_daemonic_processes() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("forks")
    script = """
        import multiprocessing
        from atesd_env.tasks.grading.answers import answers_match

        assert answers_match(r"\\frac{3}{7}", "6/14")
        with multiprocessing.get_context("fork").Pool(2) as pool:
            pairs = [(rf"\\frac{{{n}}}{{11}}", f"{n}/11") for n in range(1, 9)]
            assert pool.starmap(answers_match, pairs) == [True] * 8
        assert answers_match(r"\\frac{3}{13}", "6/26")
        print("done")
    """
    ran = subprocess.run(
        # A fork beside threads is only a deprecation from Python 3.12 on, and it is what is tested.
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=HANG_SEC,
        check=False,
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("done\n", "", 0)
