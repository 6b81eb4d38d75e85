"""Simultaneous intervals: closed forms where there are some, and simulated tables of equal agents with stated odds elsewhere."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.contrasts import _null, paired, to_best, to_best_fixed, to_reference


def test_two_agents_are_the_paired_t_test() -> None:
    table = np.random.default_rng(0).normal(size=(6, 2))
    known = stats.ttest_rel(table[:, 1], table[:, 0])
    interval = known.confidence_interval(0.9)
    for contrast in (
        to_reference(table, 0, confidence=0.9),
        to_best_fixed(table, [0], higher_is_better=True, confidence=0.9),
        to_best_fixed(table, [0], higher_is_better=False, confidence=0.9),
    ):
        assert contrast.difference[1] == pytest.approx((table[:, 1] - table[:, 0]).mean())
        assert (contrast.low[1], contrast.high[1]) == pytest.approx((interval.low, interval.high))
    assert to_reference(table, 0).p_value[1] == pytest.approx(known.pvalue)
    contrast, best = to_best(table, higher_is_better=True)
    assert best == int(table.mean(axis=0).argmax())
    assert contrast.p_value[1 - best] == pytest.approx(known.pvalue)
    assert math.isnan(contrast.p_value[best])


def test_errors_are_those_of_the_differences() -> None:
    table = np.random.default_rng(1).normal(size=(5, 4))
    differences, errors = paired(table)
    assert differences[2, 0] == pytest.approx((table[:, 2] - table[:, 0]).mean())
    assert errors[2, 0] == pytest.approx(stats.sem(table[:, 2] - table[:, 0]))
    np.testing.assert_allclose(errors, errors.T)
    np.testing.assert_allclose(differences, -differences.T)


def test_a_pair_that_agrees_by_chance_does_not_count_as_certain() -> None:
    """Agents 0 and 1 differ by 1 on each seed: their own error is 0, half of the lower quartile of the six pairs' stands in."""
    rng = np.random.default_rng(2)
    first = rng.normal(size=(3, 1))
    table = np.hstack([first, first + 1.0, rng.normal(size=(3, 2))])
    errors = paired(table)[1]
    own = [stats.sem(table[:, i] - table[:, j]) ** 2 for i, j in zip(*np.triu_indices(4, 1), strict=True)]
    assert errors[0, 1] == pytest.approx(0.5 * math.sqrt(np.quantile(own, 0.25)))
    assert errors[2, 3] == pytest.approx(stats.sem(table[:, 2] - table[:, 3]))


def test_the_limit_against_a_reference_is_dunnetts_where_seeds_are_many() -> None:
    """Two-sided 5% points for 4 comparisons, correlation 1/2, infinite degrees of freedom: 2.44 (Dunnett's table).

    With 400 seeds the limit is within 0.01 of that; 20,000 draws know it to 0.02 (one standard error), 4 of which are allowed.
    """
    assert np.quantile(_null(400, 5).to_reference, 0.95) == pytest.approx(2.44, abs=0.08)


def test_the_limit_against_the_best_is_tukeys_where_seeds_are_many() -> None:
    """The largest of the best's statistics is the range / sqrt(2): the studentised range's 5% point for 5 agents is 3.858."""
    assert np.quantile(_null(400, 5).to_best, 0.95) == pytest.approx(
        stats.studentized_range.ppf(0.95, 5, np.inf) / math.sqrt(2), abs=0.08
    )


@pytest.mark.parametrize(("num_seeds", "num_agents", "num_fixed"), [(3, 5, 2), (8, 5, 3), (8, 16, 5)])
def test_equal_agents_are_told_apart_in_five_percent_of_tables(num_seeds: int, num_agents: int, num_fixed: int) -> None:
    """1,500 tables of fresh seeds: a share of 5% has a standard error of 0.6 points; 4 of them, odds of an alarm 1 in 16,000."""
    rng = np.random.default_rng(7)
    alarms = np.zeros(3)
    num_tables = 1500
    fixed = list(range(num_fixed))
    for _ in range(num_tables):
        table = rng.normal(size=(num_seeds, num_agents)) + rng.normal(size=(num_seeds, 1))
        for place, contrast in enumerate(
            (
                to_reference(table, 0),
                to_best(table, higher_is_better=False)[0],
                to_best_fixed(table, fixed, higher_is_better=False),
            )
        ):
            alarms[place] += bool(((contrast.low > 0) | (contrast.high < 0)).any())
    np.testing.assert_allclose(alarms / num_tables, 0.05, atol=4 * math.sqrt(0.05 * 0.95 / num_tables) + 0.005)


def test_an_agent_as_good_as_a_far_better_fixed_ratio_is_rarely_called_better() -> None:
    """One fixed ratio is 10 above the others, and so is agent 3: above it by chance in 2.5% of tables; 1,500 of them."""
    rng = np.random.default_rng(8)
    shift = np.array([10.0, 0.0, 0.0, 10.0])
    better = 0
    for _ in range(1500):
        contrast = to_best_fixed(rng.normal(size=(5, 4)) + shift, [0, 1, 2], higher_is_better=True)
        better += bool(contrast.low[3] > 0)
    assert better / 1500 < 0.025 + 4 * math.sqrt(0.025 * 0.975 / 1500)


def test_a_fixed_ratio_is_compared_with_the_best_of_the_others() -> None:
    table = np.array([[1.0, 2.0, 5.0], [1.5, 2.5, 4.0], [0.5, 3.0, 6.0]])
    contrast = to_best_fixed(table, [0, 1], higher_is_better=True)
    assert contrast.difference == pytest.approx([-1.5, 1.5, 2.5])
    lone = to_best_fixed(table, [1], higher_is_better=True)
    assert np.isnan(lone.difference).tolist() == [False, True, False]
    assert np.isnan(to_best_fixed(table, [], higher_is_better=True).difference).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(2, 5), st.floats(0.01, 100.0), st.floats(-50.0, 50.0))
def test_what_is_said_does_not_depend_on_unit_sign_or_seed_effects(
    seed: int, num_seeds: int, num_agents: int, scale: float, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(num_seeds, num_agents))
    other = scale * (table + shift + rng.normal(size=(num_seeds, 1)))
    for compare in (
        lambda values, better: to_reference(values, 0),
        lambda values, better: to_best(values, higher_is_better=better)[0],
        lambda values, better: to_best_fixed(values, [0], higher_is_better=better),
    ):
        ours, scaled, turned = compare(table, True), compare(other, True), compare(-table, False)
        np.testing.assert_allclose(scaled.low, scale * ours.low, rtol=1e-6, atol=1e-6 * scale)
        np.testing.assert_allclose(scaled.p_value, ours.p_value, atol=1e-4)
        np.testing.assert_allclose(turned.difference, -ours.difference)
        np.testing.assert_allclose(turned.low, -ours.high)


def test_one_seed_has_differences_and_no_intervals() -> None:
    table = np.array([[1.0, 3.0, 2.0]])
    for contrast in (to_reference(table, 0), to_best_fixed(table, [0], higher_is_better=True)):
        assert contrast.difference[1:].tolist() == [2.0, 1.0]
        assert np.isnan(contrast.low).all()
    contrast, best = to_best(table, higher_is_better=False)
    assert (best, contrast.difference.tolist()) == (0, [0.0, 2.0, 1.0])


def test_agents_that_did_the_same_do_not_differ() -> None:
    table = np.repeat(np.random.default_rng(3).normal(size=(4, 1)), 3, axis=1)
    contrast = to_reference(table, 0)
    assert (contrast.low[1:] == 0).all()
    assert (contrast.p_value[1:] == 1).all()


def test_what_float32_actions_differ_by_tells_no_agents_apart():
    levels = np.linspace(2.0, 3.0, 6)[:, None]
    contrast = to_reference(levels * np.array([1.0, 1.0 + 5e-7]), 0)  # 5e-7 on every seed, without noise
    assert contrast.difference[1] == contrast.low[1] == contrast.high[1] == 0.0
    assert contrast.p_value[1] == 1.0
    assert to_reference(levels * np.array([1.0, 1.0 + 1e-4]), 0).low[1] > 0.0
