"""The written set of answer pairs, `tests/data/answer_pairs.jsonl`: each verdict was set down by hand."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from atesd_env.evaluation.estimators import equivalence_classes
from atesd_env.tasks.grading.answers import answers_match
from atesd_env.tasks.grading.reading import read

PAIRS = [
    json.loads(line)
    for line in (Path(__file__).parents[3] / "data" / "answer_pairs.jsonl").read_text(encoding="utf-8").splitlines()
]
KINDS = sorted({pair["kind"] for pair in PAIRS})
"""Kinds of answers: integers, units, ..."""


def test_the_set_is_large_and_two_sided():
    assert len({(pair["given"], pair["expected"]) for pair in PAIRS}) == len(PAIRS) >= 300
    verdicts = Counter((pair["kind"], pair["same"]) for pair in PAIRS)
    for kind in KINDS:
        assert verdicts[kind, False] >= 3, kind
        assert verdicts[kind, True] >= 3 or kind == "nothing and broken", kind


@pytest.mark.parametrize("kind", KINDS)
def test_every_pair_is_judged_rightly_in_both_orders(kind: str):
    wrong = [
        (given, expected, pair["same"])
        for pair in PAIRS
        if pair["kind"] == kind
        for given, expected in ((pair["given"], pair["expected"]), (pair["expected"], pair["given"]))
        if answers_match(given, expected) is not pair["same"]
    ]
    assert wrong == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_vote_counts_classes_in_which_all_answers_match_whatever_their_order(kind: str):
    answers = list(
        dict.fromkeys(text for pair in PAIRS if pair["kind"] == kind for text in (pair["given"], pair["expected"]))
    )
    # Some 20 answers of a kind, so that the pairs stay few; those with and without units are among them.
    answers = [answer for answer in answers if answer][:20]
    classes = [[answers[index] for index in members] for members in equivalence_classes(answers, answers_match)]
    for texts in classes:
        assert all(answers_match(*pair) for pair in combinations(texts, 2)), texts
    turned = [
        [answers[::-1][index] for index in members] for members in equivalence_classes(answers[::-1], answers_match)
    ]
    assert {frozenset(texts) for texts in turned} == {frozenset(texts) for texts in classes}


def test_a_deeply_nested_answer_is_read_in_time():
    for text in ("(" * 250 + "1" + ")" * 249, r"\{" * 240, r"\text{" * 80, "1," * 249, r"\frac{1}{" * 55, "½" * 500):
        assert read(text).text
