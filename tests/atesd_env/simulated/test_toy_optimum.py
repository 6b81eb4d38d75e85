"""The optimum of the closed-form learners: closed forms, enumeration, dynamic programming, and policies that miss it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import atesd_env  # noqa: F401  (registers the ids)
from agents.credit import decision_returns
from atesd_env.config import ToyConfig, preset
from atesd_env.envs.branch import counterfactual
from atesd_env.envs.recording import RecordTrajectory
from atesd_env.files.run_folder import RunWriter, read_rows
from atesd_env.simulated.toy import ToyExposureEnv
from atesd_env.simulated.toy_dynamics import bump, next_levels
from atesd_env.simulated.toy_optimum import ToyOptimum, optimum

FAMILY: list[dict[str, Any]] = [
    {},
    {"toy_kind": "drift"},
    {"toy_kind": "drift", "toy_best_ratio": 0.1, "hold_window": 4},
    {"toy_kind": "delayed"},
    {"toy_kind": "delayed", "toy_tempting_ratio": 0.55, "hold_window": 2},
    {"groups": 3, "toy_group_spread": 0.6},
    {"toy_kind": "drift", "groups": 3, "toy_group_spread": 0.3},
    {"toy_kind": "delayed", "groups": 2, "toy_group_spread": 0.3},
]


def toy_config(**fields: Any) -> ToyConfig:
    return preset("ATESD-Toy-v0", **fields)


def play(policies: np.ndarray, config: ToyConfig) -> np.ndarray:
    """Returns the noise-free probe NLL, mean over groups, of S policies [S, W, G] after 0..W windows, [S, W + 1]."""
    nll, skill = np.full((len(policies), config.groups), 4.0), np.zeros((len(policies), config.groups))
    seen = [nll.mean(axis=1)]
    for window in range(policies.shape[1]):
        nll, skill = next_levels(nll, skill, policies[:, window], config)
        seen.append(nll.mean(axis=1))
    return np.array(seen).T


def test_constant_and_drift_have_the_known_final_nll():
    for fields in ({}, {"toy_kind": "drift"}, {"groups": 3, "toy_group_spread": 0.5}):
        for windows, hold_window in ((1, 1), (100, 1), (20, 3)):
            config = toy_config(windows=windows, hold_window=hold_window, **fields)
            expected = 0.5 + 3.5 * 0.98 ** (windows * hold_window)
            assert optimum(config).final_nll == pytest.approx(expected, rel=1e-13)
            assert optimum(config).nll(windows) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("fields", FAMILY)
@pytest.mark.parametrize("windows", [1, 3, 90])
def test_the_optimal_policy_gets_there_and_regrets_nothing(fields: dict[str, Any], windows: int):
    """Played from ``info`` alone, as float32 actions: the best ratio is at a maximum, so their rounding costs nothing
    in the end, though along the way it moves the NLL by 1e-8."""
    env = ToyExposureEnv(windows=windows, **fields)
    groups = env.config.groups
    _, info = env.reset(seed=0)
    for window in range(windows):
        names = [f"toy/best_ratio_{group}" for group in range(groups)] if groups > 1 else ["toy/best_ratio"]
        ratios = [info[name] for name in names]
        assert info["toy/best_ratio"] == pytest.approx(np.mean(ratios))
        assert info["toy/optimal_nll"] == pytest.approx(np.mean(env.snapshot().nll), abs=1e-7)
        assert 0.0 <= info["toy/regret"] < 1e-12, window
        info = env.step(np.array(ratios, dtype=np.float32))[-1]
    assert 0.0 <= info["toy/regret"] < 1e-12
    assert info["toy/reached_rate"] == pytest.approx(1.0, rel=1e-12)
    assert np.mean(env.snapshot().nll) == pytest.approx(optimum(env.config).final_nll, rel=1e-12)


@pytest.mark.parametrize("fields", FAMILY)
@pytest.mark.parametrize("windows", [2, 30])
def test_no_random_fixed_or_neighbouring_policy_is_better(fields: dict[str, Any], windows: int):
    config = toy_config(windows=windows, **fields)
    shape = (windows, config.groups)
    rng = np.random.default_rng(0)
    best = optimum(config).policy()
    random = rng.random((300, *shape))
    fixed = np.broadcast_to(np.linspace(0, 1, 101)[:, None, None], (101, *shape))
    linear = np.linspace(rng.random((200, config.groups)), rng.random((200, config.groups)), windows, axis=1)
    near = np.clip(best + rng.normal(0, 0.03, (300, *shape)), 0, 1)
    finals = play(np.concatenate([random, fixed, linear, near]), config)[:, -1]
    assert finals.min() >= optimum(config).final_nll - 1e-12
    assert play(near, config)[:, -1].min() < optimum(config).final_nll + 0.02  # so they are close enough to find more


@pytest.mark.parametrize("kind", ["constant", "drift", "delayed"])
def test_enumeration_finds_the_same_optimum(kind: str):
    """All policies of four windows on a grid that holds the optimal ratios too: 15 or so of them, to the fourth power."""
    config = toy_config(toy_kind=kind, toy_best_ratio=0.3, windows=4, hold_window=5)
    best = optimum(config).policy()
    grid = np.unique(np.concatenate([np.linspace(0, 1, 11), best.ravel()]))
    policies = np.array(list(itertools.product(grid, repeat=4)))[..., None]
    finals = play(policies, config)[:, -1]
    assert finals.min() == pytest.approx(optimum(config).final_nll, rel=1e-13)
    on_grid = policies[np.isin(policies, np.linspace(0, 1, 11)).all(axis=(1, 2))]
    assert optimum(config).final_nll < play(on_grid, config)[:, -1].min() + 1e-13


def test_dynamic_programming_over_the_skill_finds_the_same_optimum():
    """Value iteration on 201 skills and 401 ratios. The value is linear in the skill, so interpolation is exact; a ratio off
    by half a grid step, 0.00125, costs at most (0.00125 / 0.15)^2 / 2 = 0.004% of a window's speed."""
    config = toy_config(toy_kind="delayed", windows=40)
    skills, ratios = np.linspace(0, 1, 201)[:, None], np.linspace(0, 1, 401)[None, :]
    tempted, practised = (np.exp(-0.5 * ((ratios - peak) / 0.15) ** 2) for peak in (0.9, 0.4))
    value = np.zeros(201)
    for _ in range(config.windows):
        after = np.interp(practised + (skills - practised) * 0.5, skills[:, 0], value)
        value = (0.2 * tempted + 0.8 * skills + after).max(axis=1)
    expected = 0.5 + 3.5 * 0.98 ** value[0]
    assert optimum(config).final_nll == pytest.approx(expected, abs=5e-5)
    reachable = optimum(config).reachable_nll(np.array([[4.0]]), np.array([[0.5]]), np.array([40]))
    assert reachable[0] == pytest.approx(0.5 + 3.5 * 0.98 ** value[100], abs=5e-5)


@pytest.mark.parametrize("fields", FAMILY)
def test_regret_is_what_is_lost_for_good(fields: dict[str, Any]):
    config = toy_config(windows=12, **fields)
    best = optimum(config)
    policies = np.random.default_rng(1).random((20, 12, config.groups))
    nll, skill = np.full((20, config.groups), 4.0), np.zeros((20, config.groups))
    regrets = [best.regret(nll, skill, np.full(20, 12))]
    for window in range(12):
        nll, skill = next_levels(nll, skill, policies[:, window], config)
        regrets.append(best.regret(nll, skill, np.full(20, 11 - window)))
        # Playing optimally from here on costs what the regret says.
        there, then = nll, skill
        for left in range(11 - window, 0, -1):
            there, then = next_levels(there, then, best.best_ratios(there, np.full(20, left)), config)
        np.testing.assert_allclose(there.mean(axis=1) - best.final_nll, regrets[-1], atol=1e-12)
    assert (np.diff(regrets, axis=0) > -1e-12).all()
    np.testing.assert_allclose(regrets[-1], nll.mean(axis=1) - best.final_nll, rtol=1e-12)
    np.testing.assert_allclose(best.reached_rate(nll), (4.0 - nll.mean(axis=1)) / (4.0 - best.final_nll), rtol=1e-12)


def test_regret_and_reached_rate_know_no_noise():
    quiet, loud = (ToyExposureEnv(toy_noise=noise) for noise in (0.0, 5.0))
    infos = []
    for env in (quiet, loud):
        env.reset(seed=0)
        infos.append(env.step(np.array([0.9]))[-1])
    assert infos[0]["probe/nll"] != infos[1]["probe/nll"]
    assert {name: value for name, value in infos[0].items() if name.startswith("toy/")} == {
        name: value for name, value in infos[1].items() if name.startswith("toy/")
    }


def test_an_optimum_is_made_once_and_stays_small():
    config = toy_config(toy_kind="delayed", windows=100_000_000)
    assert optimum(config) is optimum(toy_config(toy_kind="delayed", windows=100_000_000))
    assert len(optimum(config)._ratios) <= 60
    # Far from the end every window is alike: one more window adds one more step of the same size.
    a, b, c = (ToyOptimum(config.replace(windows=windows)).final_nll - 0.5 for windows in (200, 201, 202))
    assert b / a == pytest.approx(c / b, rel=1e-12)
    assert ToyOptimum(config.replace(hold_window=10**6)).final_nll == pytest.approx(0.5)


# What each kind asks of a controller


@pytest.mark.parametrize(
    ("fields", "fixed", "full", "random"),
    [
        ({}, 1.0, 0.001, 0.607),
        ({"toy_kind": "drift", "toy_best_ratio": 0.1}, 0.756, 0.0, 0.577),
        ({"toy_kind": "delayed"}, 0.999, 0.348, 0.633),
        ({"groups": 3, "toy_group_spread": 0.6}, 0.551, 0.091, 0.569),
    ],
)
def test_the_table_of_the_docs(fields: dict[str, Any], fixed: float, full: float, random: float):
    """What the best fixed ratio of 41, full exposure, and random ratios (mean of 20 students) reach of the optimum."""
    config = toy_config(**fields)
    shape = (config.windows, config.groups)
    same = np.broadcast_to(np.linspace(0, 1, 41)[:, None, None], (41, *shape))
    reached = optimum(config).reached_rate(play(same, config)[:, -1:])
    assert (reached.max(), reached[-1]) == pytest.approx((fixed, full), abs=0.001)
    drawn = np.random.default_rng(0).random((config.windows, 20, config.groups)).swapaxes(0, 1)
    assert optimum(config).reached_rate(play(drawn, config)[:, -1:]).mean() == pytest.approx(random, abs=0.002)


def test_one_ratio_for_all_groups_leaves_the_outer_groups_behind():
    config = toy_config(groups=3, toy_group_spread=0.6)
    shared = np.broadcast_to(np.linspace(0, 1, 101)[:, None, None], (101, 100, 3))
    assert optimum(config).reached_rate(play(shared, config)[:, -1:]).max() < 0.6
    apart = np.broadcast_to(np.array([0.1, 0.4, 0.7]), (1, 100, 3))
    assert optimum(config).reached_rate(play(apart, config)[:, -1:])[0] == pytest.approx(1.0)


def planned(config: ToyConfig, lookahead: int, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (ratios [W], noise-free NLL [W + 1]) of the policy that always begins the plan with the largest return R.

    A plan is a ratio of the grid for each of the next ``lookahead`` windows; R is the paper's, with the config's gamma.
    """
    plans = np.array(list(itertools.product(grid, repeat=lookahead)))[..., None]
    weights = config.gamma ** np.arange(lookahead)
    nll, skill = np.full((1, 1), 4.0), np.zeros((1, 1))
    ratios, nlls = [], [4.0]
    for _ in range(config.windows):
        there, then = nll.repeat(len(plans), axis=0), skill.repeat(len(plans), axis=0)
        progress = []
        for window in range(lookahead):
            before = there
            there, then = next_levels(there, then, plans[:, window], config)
            progress.append((before - there)[:, 0])
        grounded = (-0.3 + 0.1 * plans[..., 0]) @ weights / weights.sum()
        chosen = plans[np.argmax(weights @ np.array(progress) + config.grounded_weight * grounded), 0]
        nll, skill = next_levels(nll, skill, chosen[None], config)
        ratios.append(float(chosen[0]))
        nlls.append(float(nll[0, 0]))
    return np.array(ratios), np.array(nlls)


def test_the_one_window_reward_misleads_and_the_discounted_return_does_not():
    """The two greedy policies of kind "delayed" under the default gamma, lookahead and weight of the grounded score.

    What maximises each window's reward shows 0.92 and reaches 42% of the optimum, less than random ratios do; what
    maximises the lookahead's R shows 0.4 and reaches 99.9% of it, with more reward and more R.
    """
    config = toy_config(toy_kind="delayed")
    outcomes = {}
    for lookahead, num_ratios in ((1, 101), (config.lookahead, 21)):
        ratios, nlls = planned(config, lookahead, np.linspace(0, 1, num_ratios))
        progress, grounded = -np.diff(nlls), -0.3 + 0.1 * ratios
        returns = decision_returns(
            progress, grounded, gamma=config.gamma, lookahead=config.lookahead, grounded_weight=config.grounded_weight
        )
        reached = optimum(config).reached_rate(nlls[None, -1:])[0]
        total = progress.sum() + config.grounded_weight * grounded.sum()
        outcomes[lookahead] = (ratios, reached, total, returns.mean())
    myopic, patient = outcomes[1], outcomes[config.lookahead]
    assert np.abs(myopic[0] - 0.9).max() < 0.03
    assert np.abs(patient[0] - 0.4).max() < 0.051
    assert myopic[1] == pytest.approx(0.418, abs=0.005)
    assert patient[1] == pytest.approx(0.999, abs=0.001)
    assert patient[2] > myopic[2] + 1.0
    assert patient[3] > 4 * myopic[3]


@pytest.mark.parametrize("kind", ["constant", "delayed"])
def test_credit_of_a_single_ratio_points_the_right_way_only_over_the_lookahead(kind: str):
    """What a bandit sees: the window of a ratio and the two after it, with 0.65 there, as far from 0.4 as from 0.9."""
    env = ToyExposureEnv(toy_kind=kind, toy_noise=0.0)
    env.reset(seed=0)
    credit: dict[int, list[float]] = {1: [], env.config.lookahead: []}
    ratios = np.linspace(0, 1, 41)
    for ratio in ratios:
        env.reset(seed=0)
        rewards = [env.step(np.array([one]))[-1]["reward/total"] for one in (ratio, 0.65, 0.65)]
        for lookahead, values in credit.items():
            values.append(float(np.array(rewards[:lookahead]) @ env.config.gamma ** np.arange(lookahead)))
    one_step, discounted = (ratios[np.argmax(values)] for values in credit.values())
    assert discounted == pytest.approx(0.4, abs=0.026)
    assert one_step == pytest.approx(0.9 if kind == "delayed" else 0.4, abs=0.026)


def test_a_counterfactual_shows_when_the_best_ratio_pays():
    env = gymnasium.make("ATESD-Toy-v0", toy_kind="delayed", toy_noise=0.0)
    env.reset(seed=0)
    env.step(np.array([0.9], dtype=np.float32))
    frame = counterfactual(env, [0.4, 0.9], windows=3).pivot(index="offset", columns="reveal_ratio", values="return")
    assert frame.loc[1, 0.4] < frame.loc[1, 0.9]
    assert frame.loc[3, 0.4] > frame.loc[3, 0.9]


# Where it is told


def test_optimum_and_regret_are_in_the_log_of_a_run(tmp_path: Path):
    env = gymnasium.make("ATESD-Toy-v0", windows=3, groups=2, toy_group_spread=0.2)
    config = env.unwrapped.config
    writer = RunWriter(tmp_path / "run", {"env_id": "ATESD-Toy-v0", "agent": "mine", "seed": 0, "config": config})
    recorded = RecordTrajectory(env, writer)
    recorded.reset(seed=0)
    infos = [recorded.step(np.array([0.3, 0.9], dtype=np.float32))[-1] for _ in range(3)]
    recorded.close()
    rows = read_rows(tmp_path / "run" / "trajectory.jsonl")
    names = [
        f"toy/{name}"
        for name in ("optimal_nll", "regret", "reached_rate", "best_ratio", "best_ratio_0", "best_ratio_1")
    ]
    assert [{name: row[name] for name in names} for row in rows] == [
        {name: info[name] for name in names} for info in infos
    ]
    assert rows[-1]["toy/best_ratio_1"] == pytest.approx(0.5)


def test_vector_infos_have_them_too_at_reset_and_step():
    envs = gymnasium.make_vec("ATESD-Toy-v0", num_envs=2, windows=4, toy_kind="drift", toy_best_ratio=0.2)
    _, infos = envs.reset(seed=0)
    assert infos["toy/best_ratio"].tolist() == [0.2, 0.2]
    assert infos["toy/regret"].tolist() == [0.0, 0.0]
    *_, infos = envs.step(np.array([[0.2], [1.0]], dtype=np.float32))
    assert infos["toy/regret"][0] == pytest.approx(0.0, abs=1e-12)
    lost = 3.5 * 0.98**3 * (0.02 - 0.02 * bump(1.0, 0.2))
    assert infos["toy/regret"][1] == pytest.approx(lost, rel=1e-9)
    assert infos["_toy/regret"].all()


def test_a_state_in_a_file_keeps_the_skill(tmp_path: Path):
    env = ToyExposureEnv(toy_kind="delayed", windows=6)
    env.reset(seed=0)
    env.step(np.array([0.4]))
    env.save_state(tmp_path / "state")
    other = ToyExposureEnv(toy_kind="delayed", windows=6)
    _, info = other.reset(options={"state": tmp_path / "state"})
    assert info["toy/regret"] == env.snapshot().rows[-1]["toy/regret"]
    assert other.snapshot() == env.snapshot()
    assert other.snapshot().skill[0] > 0.4
    assert json.dumps(env.step(np.array([0.1]))[-1]) == json.dumps(other.step(np.array([0.1]))[-1])
