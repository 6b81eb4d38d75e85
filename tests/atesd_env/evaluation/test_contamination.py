"""Contamination: copies are found however they are set, stock phrases are not taken for copies."""

from __future__ import annotations

import pytest

from atesd_env.errors import ConfigError
from atesd_env.evaluation.contamination import find_overlaps

STOCK = "can be written as m/n where m and n are relatively prime positive integers. Find m + n now"
BENCHMARK = {
    "a": f"A frog hops along a line of nine lily pads and never turns back before the seventh. Its chance {STOCK}",
    "b": f"Two coins of unequal weight lie on a table beside a jar that holds eleven marbles. The ratio {STOCK}",
    "short": "What is $1+1$?",
}


def test_a_copy_in_another_setting_is_found_and_a_stock_phrase_is_not():
    training = [
        ("copy", BENCHMARK["a"].upper().replace(" ", "\n  ").replace(",", " ;")),
        ("part", "Suppose that two coins of unequal weight lie on a table beside a jar that holds some marbles."),
        ("stock", f"The area of a regular hexagon {STOCK}"),
        ("other", "How many ways are there to seat six people at a round table with two chairs left free?"),
        ("same short", "what is 1 + 1"),
    ]
    found = find_overlaps(training, BENCHMARK)
    assert [(o.training_id, o.benchmark_id) for o in found] == [("copy", "a"), ("part", "b"), ("same short", "short")]
    assert [o.shared_ratio == 1.0 for o in found] == [True, False, True]
    assert found[1].example == "two coins of unequal weight lie on a table beside a jar that"


def test_many_copies_of_one_problem_are_no_stock_phrase():
    found = find_overlaps([(str(index), BENCHMARK["b"]) for index in range(20)], BENCHMARK)
    assert len(found) == 20


def test_a_run_of_words_in_many_training_problems_is_a_stock_phrase():
    start = " ".join(BENCHMARK["b"].split()[:13])
    few, many = ([(str(i), f"{start} number {i}") for i in range(count)] for count in (10, 11))
    assert len(find_overlaps(few, BENCHMARK)) == 10
    assert find_overlaps(many, BENCHMARK) == []


def test_too_short_runs_are_refused():
    with pytest.raises(ConfigError, match="3 words or more, got 2"):
        find_overlaps([], BENCHMARK, num_words=2)
