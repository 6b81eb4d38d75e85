"""The closed-form learners' dynamics: each kind's formula by hand, groups, noise, and K students as each is alone."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

import atesd_env  # noqa: F401  (registers the ids)
from atesd_env.config import ToyConfig, preset
from atesd_env.envs.observation import RunningStatistics, each
from atesd_env.simulated.toy import ToyExposureEnv
from atesd_env.simulated.toy_dynamics import bump, fastest_ratios, group_ratios, next_levels, noise
from atesd_env.simulated.toy_population import ToyPopulation

FAMILY: list[dict[str, Any]] = [
    {},
    {"toy_kind": "drift", "toy_best_ratio": 0.1},
    {"toy_kind": "delayed"},
    {"toy_kind": "drift", "groups": 3, "toy_group_spread": 0.4, "toy_relative_noise": 0.05},
    {"toy_kind": "delayed", "groups": 10, "toy_group_spread": -0.3, "hold_window": 3},
]
"""Settings of every kind, with groups and both kinds of noise among them."""


def toy_config(**fields: Any) -> ToyConfig:
    return preset("ATESD-Toy-v0", **fields)


def nlls(ratios: list[float], config: ToyConfig) -> list[float]:
    """Returns the noise-free probe NLL after each window of one student with one group."""
    nll, skill, seen = np.array([[4.0]]), np.array([[0.0]]), []
    for ratio in ratios:
        nll, skill = next_levels(nll, skill, np.array([[ratio]]), config)
        seen.append(float(nll[0, 0]))
    return seen


# The formulas


def test_the_default_learner_is_the_plain_formula_to_the_bit():
    """Written out with Python numbers: whatever is added to the family, seeds keep giving what they gave."""
    env = ToyExposureEnv(windows=40)
    _, info = env.reset(seed=3)
    normals = [np.random.default_rng(np.random.SeedSequence([3, 11, window])).standard_normal() for window in range(41)]
    nll, measured = 4.0, 4.0 + 0.01 * normals[0]
    assert info["probe/nll"] == measured
    for window, ratio in enumerate(np.random.default_rng(0).random(40).astype(np.float32), start=1):
        rate = 0.02 * math.exp(-0.5 * ((float(ratio) - 0.4) / 0.15) ** 2)
        nll = 0.5 + (nll - 0.5) * (1.0 - rate) ** 1
        before, measured = measured, nll + 0.01 * normals[window]
        info = env.step(np.array([ratio]))[-1]
        assert info["probe/nll"] == measured
        assert info["reward/total"] == max(0.0, before - measured) + 0.1 * (-0.3 + 0.1 * float(ratio))


@pytest.mark.parametrize("hold_window", [1, 3])
def test_drift_moves_the_best_ratio_with_the_share_learned(hold_window: int):
    config = toy_config(toy_kind="drift", toy_best_ratio=0.2, toy_final_ratio=0.7, hold_window=hold_window)
    left, expected = 1.0, []
    for ratio in (0.2, 0.2, 0.9):
        best = 0.2 + 0.5 * (1.0 - left)
        left *= (1.0 - 0.02 * bump(ratio, best)) ** hold_window
        expected.append(0.5 + 3.5 * left)
    assert nlls([0.2, 0.2, 0.9], config) == pytest.approx(expected, rel=1e-14)
    levels = np.array([[4.0], [2.25], [0.5]])
    np.testing.assert_allclose(fastest_ratios(levels, config), [[0.2], [0.45], [0.7]], rtol=1e-14)


@pytest.mark.parametrize("hold_window", [1, 3])
def test_delayed_pays_for_practice_from_the_next_window_on(hold_window: int):
    config = toy_config(toy_kind="delayed", toy_best_ratio=0.3, toy_tempting_ratio=0.8, hold_window=hold_window)
    left, skill, expected = 1.0, 0.0, []
    for ratio in (0.3, 0.8, 0.5):
        left *= 0.98 ** (hold_window * (0.2 * bump(ratio, 0.8) + 0.8 * skill))
        skill = bump(ratio, 0.3) + (skill - bump(ratio, 0.3)) * 0.5**hold_window
        expected.append(0.5 + 3.5 * left)
    assert nlls([0.3, 0.8, 0.5], config) == pytest.approx(expected, rel=1e-14)


def test_delayed_rewards_the_tempting_ratio_first_and_the_best_one_later():
    practised, tempted = (np.array(nlls([ratio] * 6, toy_config(toy_kind="delayed"))) for ratio in (0.4, 0.9))
    assert practised[0] > tempted[0]
    assert (practised[2:] < tempted[2:]).all()  # within the default lookahead of three


# Groups


def test_groups_spread_evenly_around_the_ratio_and_stay_ratios():
    config = toy_config(groups=3, toy_group_spread=0.4)
    np.testing.assert_allclose(group_ratios(0.5, config), [0.3, 0.5, 0.7])
    np.testing.assert_allclose(group_ratios(0.9, config), [0.7, 0.9, 1.0])
    np.testing.assert_allclose(group_ratios(0.5, config.replace(toy_group_spread=-0.4)), [0.7, 0.5, 0.3])
    assert group_ratios(0.5, config.replace(groups=1)).tolist() == [0.5]
    with pytest.raises(ValueError, match="read-only"):
        group_ratios(0.5, config)[:] = 0.0


@pytest.mark.parametrize("kind", ["constant", "drift", "delayed"])
def test_a_group_learns_as_a_student_with_its_ratios_does(kind: str):
    grouped = toy_config(toy_kind=kind, toy_best_ratio=0.5, toy_final_ratio=0.6, groups=2, toy_group_spread=0.4)
    shift = {"toy_best_ratio": 0.7, "toy_final_ratio": 0.8, "toy_tempting_ratio": 1.0}  # the harder group's: 0.2 above
    alone = toy_config(toy_kind=kind, **shift)
    nll, skill = np.full((1, 2), 4.0), np.zeros((1, 2))
    ratios = np.random.default_rng(0).random((5, 2))
    for pair in ratios:
        nll, skill = next_levels(nll, skill, pair[None], grouped)
    assert nll[0, 1] == pytest.approx(nlls(ratios[:, 1].tolist(), alone)[-1], rel=1e-12)
    assert nll[0, 0] != nll[0, 1]


# Noise


def test_relative_noise_grows_with_the_nll():
    """Seeds 0..399 at two levels: the ratio of two standard deviations from the same normal numbers has no error."""
    config = toy_config(toy_noise=0.1, toy_relative_noise=0.05)
    early, late = (noise(range(400), [7] * 400, np.full(400, level), config) for level in (4.0, 1.0))
    assert early.std() / late.std() == pytest.approx(0.3 / 0.15)
    plain = noise(range(400), [7] * 400, np.full(400, 4.0), config.replace(toy_relative_noise=0.0))
    np.testing.assert_allclose(early, 3.0 * plain)


def test_noise_belongs_to_run_and_window_and_takes_seeds_of_any_size():
    config = toy_config(toy_noise=1.0)
    seeds, windows = [0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**70], [0, 5, 5, 5, 2, 1]
    drawn = noise(seeds, windows, np.zeros(6), config).tolist()
    assert drawn == [
        noise([seed], [window], np.zeros(1), config)[0] for seed, window in zip(seeds, windows, strict=True)
    ]
    # Published figures hang on the small seeds' numbers.
    sequences = [
        np.random.SeedSequence([seed, 11, window]) for seed, window in zip(seeds[:3], windows[:3], strict=True)
    ]
    assert drawn[:3] == [np.random.default_rng(sequence).standard_normal() for sequence in sequences]
    assert len(set(drawn)) == len(drawn)
    assert noise(seeds, windows, np.ones(6), config.replace(toy_noise=0.0)).tolist() == [0.0] * 6


# Alone or together


@pytest.mark.parametrize("fields", FAMILY)
def test_students_of_a_population_are_scalar_environments_to_the_bit(fields: dict[str, Any]):
    """Over two episodes, with one student out of step with the others; every observation, reward, flag and info."""
    fields = {"windows": 5, "probe_accuracy_every": 2, "probe_pass_k": 3, **fields}
    ours = gymnasium.make_vec("ATESD-Toy-v0", num_envs=5, **fields)
    theirs = SyncVectorEnv([lambda: ToyExposureEnv(**fields)] * 5)
    rng = np.random.default_rng(0)
    pairs = [(ours.reset(seed=7), theirs.reset(seed=7))]
    for step in range(11):
        if step == 2:
            mask = np.array([False, False, True, False, False])
            pairs.append((ours.reset(options={"reset_mask": mask}), theirs.reset(options={"reset_mask": mask.copy()})))
        actions = rng.random((5, fields.get("groups", 1))).astype(np.float32)
        pairs.append((ours.step(actions), theirs.step(actions)))
    for left, right in pairs:
        for one, other in zip(left[:-1], right[:-1], strict=True):
            np.testing.assert_array_equal(one, other)
        assert set(left[-1]) == set(right[-1])
        for name, values in left[-1].items():
            there = right[-1][name]
            if name.startswith("_"):
                continue
            for index in np.flatnonzero(left[-1][f"_{name}"]).tolist():
                assert values[index] == there[index], (name, index)


def test_a_batch_of_any_size_gives_each_student_the_same_bits():
    """Vector instructions take several numbers at once and what is left over one by one: 1 and 37 students cover both."""
    config = toy_config(toy_kind="delayed", groups=3)
    seeds, ratios = range(37), np.random.default_rng(0).random((4, 37, 3))
    together = ToyPopulation(config, 37)
    for seed in seeds:
        together.reset(seed, seed)
    for window in range(4):
        together.window(ratios[window])
    for seed in seeds:
        alone = ToyPopulation(config)
        alone.reset(0, seed)
        for window in range(4):
            alone.window(ratios[window, seed][None])
        assert alone.snapshot(0) == together.snapshot(seed)


def test_a_snapshot_is_not_reached_by_what_comes_after():
    population = ToyPopulation(toy_config(toy_kind="delayed", groups=2), 3)
    ratios = np.random.default_rng(0).random((3, 2))
    population.window(ratios)
    before = population.snapshot(1)
    assert isinstance(before.statistics, RunningStatistics)
    assert type(before.statistics.num_windows) is int
    kept = (before.nll, before.skill, before.statistics, before.rows)
    population.window(ratios)
    population.window(ratios[:1], [1])
    later = population.snapshot(1)
    assert (before.nll, before.skill, before.statistics, before.rows) == kept
    assert len(later.rows) == 3
    population.restore(0, before)
    population.window(ratios[[1]], [0])
    population.window(ratios[:1], [0])
    assert population.snapshot(0) == later
    assert population.runs[:2] == [later, later]


def test_each_keeps_the_shape_and_python_s_bits():
    values = np.random.default_rng(0).normal(size=(3, 5))
    assert each(math.exp, values).tolist() == [[math.exp(value) for value in line] for line in values.tolist()]
    assert each(math.exp, np.zeros((0, 2))).shape == (0, 2)


def test_rows_that_are_made_late_are_those_of_the_student_alone():
    """A student that stands still for many episodes of the others keeps its rows too, and those of a restored state."""
    config = toy_config(toy_kind="delayed", groups=2, windows=4)
    together, alone = ToyPopulation(config, 3), ToyPopulation(config)
    ratios = np.random.default_rng(0).random((40, 3, 2))
    together.reset_many([0, 1, 2], [5, 6, 7])
    alone.reset(0, 6)
    for window in range(2):
        together.window_results(ratios[window], range(3))
        alone.window(ratios[window, 1][None])
    for window in range(2, 38):
        if window % 4 == 0:
            together.reset_many([0, 2], [window, window + 1])
        together.window_results(ratios[window, [0, 2]], [0, 2])
    assert len(together._history._windows) <= 3 * config.windows
    assert together.snapshot(1) == alone.snapshot(0)
    together.restore(2, alone.snapshot(0))
    together.window_results(ratios[38], range(3))
    alone.window(ratios[38, 2][None])
    assert together.snapshot(2) == alone.snapshot(0)
    assert [len(run.rows) for run in together.runs] == [3, 3, 3]
