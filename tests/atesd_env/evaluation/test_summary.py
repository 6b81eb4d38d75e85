"""Summaries of samples, by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest

from atesd_env.errors import ConfigError
from atesd_env.evaluation.estimators import compare
from atesd_env.evaluation.samples import SampleRow
from atesd_env.evaluation.summary import NOISE_NOTE, comparison_as_json, correctness, sample_table, summarise

RIGHT = {"1/2", "0.5"}


def sample(
    problem: str, number: int, answer: str | None, *, adapter: str = "a", timed_out: bool = False, cut: bool = False
) -> SampleRow:
    is_correct = answer in RIGHT and not timed_out
    return SampleRow(adapter, problem, number, 10 * (number + 1), not cut, answer, is_correct, timed_out, str(answer))


def table_of(*answers: Sequence[str | None]) -> list[list[SampleRow]]:
    return [[sample(str(row), number, one) for number, one in enumerate(line)] for row, line in enumerate(answers)]


def same(first: str, second: str) -> bool:
    return first == second or {first, second} == RIGHT


def test_a_summary():
    summary = summarise(table_of(["1/2", "0.5", "3", None], ["3", "3", "0.5", "4"]), same)
    assert (summary.adapter, summary.num_problems, summary.num_samples) == ("a", 2, 4)
    assert summary.average.mean == pytest.approx(3 / 8)
    assert summary.pass_at == pytest.approx({1: 3 / 8, 2: (5 / 6 + 1 / 2) / 2, 4: 1.0})
    assert summary.majority == 0.5, "1/2 and 0.5 vote together; the second problem's majority is wrong"
    assert summary.format_rate == pytest.approx(7 / 8)
    assert summary.mean_tokens == pytest.approx(25.0)
    assert (summary.truncation_rate, summary.timeouts) == (0.0, ())


@pytest.mark.parametrize(
    ("num_samples", "sizes"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (12, [1, 2, 4, 8, 12])]
)
def test_pass_at_powers_of_two_and_k(num_samples: int, sizes: list[int]):
    summary = summarise(table_of(["0.5"] * num_samples), same)
    assert list(summary.pass_at) == sizes


def test_answers_that_could_not_be_checked_are_not_compared_again():
    """They vote for their own text: comparing them would blow up once for each class."""
    asked = []

    def watched(first: str, second: str) -> bool:
        asked.append({first, second})
        return same(first, second)

    rows = [sample("0", 0, "9**9**9", timed_out=True), sample("0", 1, "9**9**9", timed_out=True)]
    rows += [sample("0", 2, "0.5", cut=True), sample("0", 3, "1/2")]
    summary = summarise([rows], watched)
    assert asked == [{"1/2", "0.5"}]
    assert summary.timeouts == (("0", 0), ("0", 1))
    assert summary.majority == pytest.approx(0.5), "two against two"
    assert summary.truncation_rate == 0.25


def test_samples_of_one_adapter_in_their_order():
    rows = [sample("p", 1, "3"), sample("q", 0, "0.5"), sample("p", 0, "0.5", adapter="b"), sample("p", 0, "1/2")]
    rows.append(sample("q", 1, None))
    table = sample_table(rows, "a", ["p", "q"], 2)
    assert [[one.answer for one in line] for line in table] == [["1/2", "3"], ["0.5", None]]
    np.testing.assert_array_equal(correctness(table), [[1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(ConfigError, match="a: expected 3 samples of each of 2 problems, got 2 fewer"):
        sample_table(rows, "a", ["p", "q"], 3)


def test_json_has_no_nan():
    one = compare([np.array([[1.0], [0.0]])], [np.array([[0.0], [0.0]])])
    found = comparison_as_json(one, ["p", "q"])
    assert found["seed_error"] is None
    assert found["difference"]["sampling_error"] is None, "one sample of each problem"
    assert found["by_problem"] == {"p": 1.0, "q": 0.0}
    two = compare([np.eye(2), np.zeros((2, 2))], [np.zeros((2, 2)), np.zeros((2, 2))])
    assert comparison_as_json(two, ["p", "q"])["seed_error"] == pytest.approx(math.sqrt(np.var([0.5, 0.0], ddof=1) / 2))
    json.dumps([found, summarise(table_of(["3"]), same).as_json()], allow_nan=False)


def test_the_note_is_true_of_contests():
    """Accuracies as contests have them, many near 0 and 1: Beta(0.5, 0.5) and flatter. Seed 0; deviations are exact, not sampled."""
    assert "about 2 points" in NOISE_NOTE
    assert "about +-12 points" in NOISE_NOTE
    rng = np.random.default_rng(0)
    for shape in (0.4, 0.7):
        accuracies = rng.beta(shape, shape, size=100_000)
        sampling = 100 * math.sqrt(np.mean(accuracies * (1 - accuracies)) / (30 * 12))
        problems = 196 * math.sqrt(np.var(accuracies) / 30)
        assert 1.5 < sampling < 2.2
        assert 10.0 < problems < 14.5
