"""Rules of the exposed teacher's scores: on the closed form by hand, on the packaged student, by group, and what they cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3 import PPO

import agents
import atesd_env  # noqa: F401  (registers the ids)
from agents.sb3.vec_env import PopulationVecEnv
from agents.scored import BalanceController, GroundedController, MetaController, MismatchController
from analysis import final_outcomes, load_runs
from atesd.experiments.run import execute
from atesd.experiments.specs import plan_runs
from atesd_env.config import preset
from atesd_env.envs.branch import exposure_scores
from atesd_env.envs.contract import ExposureScores
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.simulated.toy import ToyExposureEnv
from tests.agents.playing import actions_of

TINY = {"windows": 3, "hold_window": 1, "num_rollouts": 2, "probe_size": 6, "probe_accuracy_every": 0}


def tiny(**fields: Any) -> Any:
    return gymnasium.make("ATESD-Tiny-v0", disable_env_checker=True, **{**TINY, **fields})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("grounded", 1.0),
        ("mismatch", 0.0),
        ("balance:weight=0", 1.0),
        ("balance:weight=0.19", 1.0),
        ("balance:weight=0.21", 0.0),
        ("grounded:ratios=[0.6,0.2]", 0.6),
        ("mismatch:ratios=[0.6,0.2]", 0.2),
    ],
)
def test_the_closed_form_by_hand(spec: str, expected: float):
    """The score is -0.3 + 0.1 a, the mismatch at first 0.5 + 0.5 a: at a weight of 0.2 they balance."""
    np.testing.assert_allclose(actions_of(agents.make(spec, ToyExposureEnv(), seed=1), 2), expected)


def test_a_group_that_has_learned_is_shown_more():
    """At the weight 0.3 they balance where a third is left to learn; the first group has learned more, the second nothing."""
    env = ToyExposureEnv(windows=200, groups=2, toy_best_ratio=0.5, toy_group_spread=1.0)
    agent = BalanceController(env, weight=0.3)
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(agent.predict(observation)[0], [0.0, 0.0])
    for _ in range(80):
        observation, *_ = env.step(np.array([0.0, 0.0]))
    np.testing.assert_array_equal(agent.predict(observation)[0], [1.0, 0.0])


def test_of_a_vector_each_student_is_asked_about():
    """One of two has learned at full exposure until less than a third was left."""
    envs = gymnasium.make_vec("ATESD-Toy-v0", num_envs=2, windows=200, toy_best_ratio=1.0)
    agent = agents.make("balance:weight=0.3", envs)
    envs.reset(seed=0)
    for _ in range(80):
        observations, *_ = envs.step(np.array([[0.0], [1.0]], dtype=np.float32))
    np.testing.assert_array_equal(agent.predict(observations)[0], [[0.0], [1.0]])


def test_among_equals_the_lowest_ratio_is_shown_and_groups_without_problems_follow_the_others():
    nan = float("nan")
    env = ToyExposureEnv(groups=3)
    env.reset(seed=0)
    agent = GroundedController(env, ratios=[1.0, 0.0, 0.5])
    scores = ExposureScores(np.array([[-3.0, -1.0, nan], [-2.0, -1.0, nan], [-2.0, -1.5, nan]]), np.zeros((3, 3)), 0, 0)
    env.population.exposure_scores = lambda *_: scores  # type: ignore[method-assign]
    np.testing.assert_array_equal(agent.plan(0, np.full(3, nan)), [0.5, 0.0, 0.5])


@pytest.mark.parametrize("groups", [1, 2])
def test_on_a_language_model_it_is_the_best_of_the_scores(groups: int):
    env = tiny(groups=groups)
    env.reset(seed=4)
    ratios = np.array([0.0, 0.5, 1.0])
    few, all_ = exposure_scores(env, ratios, num_problems=2), exposure_scores(env, ratios)
    for agent, values in (
        (GroundedController(env, ratios=ratios), all_.grounded),
        (MismatchController(env, ratios=ratios), -all_.mismatch),
        (BalanceController(env, ratios=ratios, weight=0.05), all_.grounded - 0.05 * all_.mismatch),
        (BalanceController(env, ratios=ratios, weight=0.01, problems=2), all_.grounded - 0.01 * few.mismatch),
    ):
        observation = env.unwrapped.population.observations()[0]
        action, _ = agent.predict(observation)
        known = np.where(np.isnan(values), np.nanmean(values, axis=1, keepdims=True), values)
        np.testing.assert_array_equal(action, ratios[known.argmax(axis=0)])
        asked = few if agent.problems == 2 else all_
        cost = {"sampled_tokens": asked.num_sampled_tokens, "scored_tokens": asked.num_scored_tokens}
        if isinstance(agent, MismatchController):
            assert agent.diagnostics() == cost
        else:
            assert agent.diagnostics()["sampled_tokens"] == 0
            assert 0 < agent.diagnostics()["scored_tokens"] < cost["scored_tokens"]


BY_PROBLEM: dict[str, Any] = {"hold_window": 2, "action_ratios": "problem"}


def test_each_problem_of_the_next_window_is_asked_about():
    """By hand: the probe's own measurement, made on those problems; the run goes on to the bit as it would."""
    env, alone = tiny(**BY_PROBLEM), tiny(**BY_PROBLEM)
    for one in (env, alone):
        one.reset(seed=4)
    population = env.unwrapped.population
    problems = population.window_problems(0)
    assert problems == [population.training_problem(0, number) for number in range(4)]
    scores = exposure_scores(env, [0.0, 1.0], by_problem=True)
    probe = population.instances[0].probe.of_others(problems)
    for ratio, line in zip((0.0, 1.0), scores.grounded, strict=True):
        of_all = probe.grounded(0, [ratio] * 4, "reference", population.learner.teacher_bank, is_fixed=True)
        assert line.mean() == pytest.approx(of_all, abs=1e-6)
    assert scores.grounded.shape == scores.mismatch.shape == (2, 4)
    assert len({*scores.grounded[0]}) == len({*scores.mismatch[0]}) == 4
    assert env.step(np.full(4, 0.5))[-1] == alone.step(np.full(4, 0.5))[-1]
    assert population.window_problems(0) == [population.training_problem(0, number) for number in range(4, 8)]


def test_each_problem_is_shown_the_best_of_its_own_scores():
    """Before each window anew, and for each student of a vector."""
    env = tiny(**BY_PROBLEM)
    envs = gymnasium.make_vec("ATESD-Tiny-v0", num_envs=2, **{**TINY, **BY_PROBLEM})
    agent, of_two = (agents.make("balance:by=problem:weight=0.2:ratios=[0,0.5,1]", one) for one in (env, envs))
    observation, _ = env.reset(seed=4)
    observations, _ = envs.reset(seed=4)
    state = states = None
    for window in range(2):
        scores = exposure_scores(env, [0.0, 0.5, 1.0], by_problem=True)
        action, state = agent.predict(observation, state)
        best = (scores.grounded - 0.2 * scores.mismatch).argmax(axis=0)
        np.testing.assert_array_equal(action, np.array([0.0, 0.5, 1.0])[best])
        assert agent.diagnostics()["scored_tokens"] == scores.num_scored_tokens, window
        actions, states = of_two.predict(observations, states)
        np.testing.assert_array_equal(actions[0], action)
        observation, *_ = env.step(action)
        observations, *_ = envs.step(actions)
    assert (actions[0] != actions[1]).any(), "another seed has other problems"


def test_ratios_by_problem_need_an_action_that_has_them(tmp_path: Path):
    message = r"by: expected 'group', or an environment with action_ratios='problem' and every=1"
    with pytest.raises(ConfigError, match=message):
        agents.make("grounded:by=problem", tiny())
    with pytest.raises(ConfigError, match=message):
        agents.make("grounded:by=problem:every=2", tiny(**BY_PROBLEM))
    with pytest.raises(ConfigError, match=r"by_problem: expected students that learn from problems"):
        exposure_scores(started(ToyExposureEnv()), [0.0], by_problem=True)
    specs = plan_runs(
        "ATESD-Tiny-v0", preset("ATESD-Tiny-v0", **TINY), ["balance", "balance:by=problem"], [0], tmp_path
    )
    assert [spec.config.action_ratios for spec in specs] == ["group", "problem"], "runs have it by themselves"


def started(env: Any) -> Any:
    env.reset(seed=0)
    return env


def test_a_policy_of_stable_baselines_decides_by_problem():
    env = PopulationVecEnv(gymnasium.make_vec("ATESD-Tiny-v0", num_envs=2, **{**TINY, **BY_PROBLEM}))
    model = PPO("MlpPolicy", env, n_steps=2, batch_size=4, n_epochs=1, seed=0).learn(4)
    action, _ = model.predict(env.reset())
    assert action.shape == (2, 4)
    assert env.num_windows == 4


@pytest.mark.parametrize(
    ("options", "windows"), [("every=2:problems=3", [True, False, True]), ("by=problem", [True, True, True])]
)
def test_a_run_that_is_interrupted_ends_with_the_same_rows_and_counts_what_was_asked(
    tmp_path: Path, options: str, windows: list[bool]
):
    """Asked before windows 1 and 3, or before each; the run is interrupted after window 2."""
    config = preset("ATESD-Tiny-v0", **TINY)
    rows = []
    for name in ("alone", "stopped"):
        (spec,) = plan_runs("ATESD-Tiny-v0", config, [f"balance:{options}"], [0], tmp_path / name)

        def interrupt(info: dict[str, Any]) -> None:
            if info["window"] == 2:
                raise KeyboardInterrupt

        if name == "stopped":
            with pytest.raises(KeyboardInterrupt):
                execute(spec, checkpoint_every=1, report=interrupt)
        execute(spec, resume=name == "stopped")
        frame = load_runs(tmp_path / name)
        rows.append(frame[[column for column in frame if not column.startswith(("time/", "run"))]])
        asked = frame["agent/sampled_tokens"]
        assert (asked > 0).tolist() == windows
        (cost,) = final_outcomes(frame, ["probe/nll"])["num_tokens"]
        assert cost == frame["rollout/num_tokens"].sum() + asked.sum()
    assert rows[0].equals(rows[1])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (GroundedController, {"ratios": [0.5]}, "ratios: expected a list of at least two different reveal ratios"),
        (MismatchController, {"problems": 0}, "problems: expected a whole number from 1, got 0"),
        (BalanceController, {"weight": -1}, "weight: expected a number from 0, got -1"),
    ],
)
def test_wrong_options_are_refused(kind: Any, options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        kind(ToyExposureEnv(), **options)


def test_weights_that_were_learned_decide(tmp_path: Path):
    """By hand as above: the score rises by 0.1 with the ratio, the mismatch by 0.5."""
    for name, (grounded, mismatch), expected in (
        ("a", (1.0, -0.19), 1.0),
        ("b", (1.0, -0.21), 0.0),
        ("c", (-1.0, 0.0), 0.0),
    ):
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"weights": {"grounded": grounded, "mismatch": mismatch}}))
        np.testing.assert_allclose(actions_of(MetaController(ToyExposureEnv(), file=file), 2), expected)
    packaged = agents.make("meta", ToyExposureEnv())
    assert packaged.weights[0] > 0 > packaged.weights[1]
    for content in ("{}", '{"weights": {"grounded": 1}}', '{"weights": {"grounded": "x", "mismatch": 0}}'):
        file.write_text(content)
        with pytest.raises((RunFilesError, ConfigError), match=str(file)):
            MetaController(ToyExposureEnv(), file=file)
