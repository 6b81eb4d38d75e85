"""Lookahead: the best of its ratios on closed forms whose best is known, never a collapse, and a run that never notices."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import pytest

import agents
import atesd_env  # noqa: F401  (registers the ids)
from agents.lookahead import Branch, LookaheadController, keeps_up, standing
from analysis import load_runs
from atesd.experiments.run import execute
from atesd.experiments.specs import plan_runs
from atesd_env.config import EnvConfig, preset
from atesd_env.envs.contract import ExposureScores
from atesd_env.errors import AtesdError, ConfigError
from atesd_env.files.run_folder import read_rows
from atesd_env.population.environments import TeacherExposureEnv
from atesd_env.simulated.toy import ToyExposureEnv
from atesd_env.simulated.toy_population import ToyPopulation
from tests.agents.playing import actions_of, transitions_of
from tests.atesd_env.bench.sets import toy_set

GRID = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
TINY = {"windows": 4, "hold_window": 1, "num_rollouts": 2, "probe_size": 3, "probe_accuracy_every": 0}


def toy(**fields: Any) -> Any:
    return gymnasium.make("ATESD-Toy-v0", disable_env_checker=True, **{"windows": 20, **fields})


def chosen(agent: Any, num_windows: int = 20, **options: Any) -> list[Any]:
    """Returns the ratios of the windows that an agent makes: numbers, or a list a window with several groups."""
    actions = actions_of(agent, num_windows, **options).astype(np.float64).round(6)
    return (actions[:, 0] if actions.shape[1] == 1 else actions).tolist()


def test_a_branch_is_judged_by_discounted_signed_progress_unless_it_collapsed():
    """At gamma 0.5 a gain of 1 in the first window outweighs a loss of 1.5 in the second; not where it ends above the start."""
    assert standing(Branch([4.0, 3.0, 2.0]), 0.5) == (2, 2, 1.5)
    steady, hasty, collapsed = Branch([4.0, 3.8, 3.7]), Branch([4.0, 3.0, 3.9]), Branch([4.0, 2.0, 4.5])
    broken, not_a_number = Branch([4.0, 1.0], is_broken=True), Branch([4.0, float("nan")])
    mildly = Branch([4.0, 4.0, 4.1])
    ranked = sorted([steady, hasty, collapsed, broken, mildly, not_a_number], key=lambda one: standing(one, 0.5))
    assert ranked[2:] == [collapsed, mildly, steady, hasty]
    assert standing(hasty, 0.95) < standing(steady, 0.95)
    assert standing(Branch([4.0, 1.0]), 0.5) < standing(steady, 0.5), "a loser of the race was followed for less"


def test_who_keeps_up_in_the_race():
    best, half, none = Branch([4.0, 2.0, 1.0]), Branch([4.0, 3.0]), Branch([4.0, 4.5])
    rivals = [best, half, none]
    assert [keeps_up(one, rivals, 0.5) for one in rivals] == [True, True, False]
    assert [keeps_up(one, rivals, 0.6) for one in rivals] == [True, False, False]
    assert [keeps_up(one, rivals, 0.0) for one in rivals] == [True, True, False]
    assert [keeps_up(one, rivals, None) for one in rivals] == [True, True, True]
    assert keeps_up(none, [none, Branch([4.0, 4.1])], 1.0), "nobody has a drop: nobody has lost"
    assert keeps_up(half, [half, Branch([4.0, 1.0], is_broken=True)], 1.0), "who broke sets no pace"


@pytest.mark.parametrize("best", [0.0, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("race", [None, 0.5])
def test_it_chooses_the_best_ratio_of_its_grid(best: float, race: float | None):
    """The noise is common to all branches, so that it cannot change the choice."""
    agent = agents.make("lookahead", toy(toy_best_ratio=best, toy_noise=0.3), ratios=GRID, every=5, race=race)
    made = transitions_of(agent, 20)
    assert [float(one.action[0]) for one in made] == pytest.approx([best] * 20)
    assert made[-1].info["toy/reached_rate"] == pytest.approx(1.0)


def test_what_won_in_other_runs_is_remembered_in_the_file_too(tmp_path: Path):
    """Two looks try all six ratios, the third the two that won most: 0.2, and the lowest of those that never did."""
    env = toy(toy_best_ratio=0.2)
    agent = agents.make("lookahead:remember=2", env, ratios=GRID, windows=1)
    for seed, tried in enumerate((GRID, GRID, [0.0, 0.2])):
        observation, _ = env.reset(seed=seed)
        agent.begin_episode()
        assert agent.decide(observation) == pytest.approx(0.2)
        assert [row["exposure/reveal_ratio"] for row in agent.branch_rows] == tried
    agent.save(tmp_path / "agent")
    again = agents.make(str(tmp_path / "agent.safetensors"), env)
    assert again.predict(env.reset(seed=3)[0])[0] == pytest.approx(0.2)
    assert [row["exposure/reveal_ratio"] for row in again.agent.branch_rows] == [0.0, 0.2]
    with pytest.raises(ConfigError, match="remember: expected 0 with candidates='scores', got 2"):
        agents.make("lookahead:remember=2:candidates=scores", env)


def test_racing_costs_less_and_chooses_the_same_where_losers_are_clear():
    costs = []
    for race in (None, 0.5):
        agent = agents.make("lookahead", toy(toy_best_ratio=0.4), ratios=GRID, every=0, race=race)
        assert chosen(agent) == [0.4] * 20
        agent.learn(1)
        costs.append(agent.diagnostics())
    hold_window = preset("ATESD-Toy-v0").hold_window
    assert costs[0]["branch_updates"] == 6 * 3 * hold_window
    assert costs[1]["branch_updates"] == (6 + 1 + 1) * hold_window
    assert costs[1]["branches"] == costs[0]["branches"] == 6
    assert 0 < costs[1]["branch_tokens"] < costs[0]["branch_tokens"] / 2


def test_looking_further_is_not_tempted():
    """The toy "delayed": 0.8 has the best drop of one window, and practice at 0.2 pays later; a discount of 0 is one window."""
    fields = {"toy_kind": "delayed", "toy_best_ratio": 0.2, "toy_tempting_ratio": 0.8}
    first = [
        chosen(agents.make("lookahead:race=null", toy(**fields), ratios=GRID, **options), 1)
        for options in ({"windows": 1}, {"gamma": 0.0}, {"windows": 5}, {"windows": 5, "gamma": 1.0})
    ]
    assert first == [[0.8], [0.8], [0.2], [0.2]]
    racing = agents.make("lookahead:race=0.7:windows=5", toy(**fields), ratios=GRID)
    assert chosen(racing, 1) == [0.8], "the race is over before practice pays"


def test_it_looks_every_so_many_windows_from_the_start_on():
    """The toy "drift": the best ratio rises from 0 to 1 while the student learns."""
    fields = {"toy_kind": "drift", "toy_best_ratio": 0.0, "toy_final_ratio": 1.0, "windows": 60}
    ratios = chosen(agents.make("lookahead:every=20:start=10:initial_ratio=0.3", toy(**fields), ratios=GRID), 60)
    assert ratios[:10] == [0.3] * 10
    parts = [set(ratios[start : start + 20]) for start in (10, 30, 50)]
    assert [len(part) for part in parts] == [1, 1, 1]
    assert parts[0] != parts[2]
    assert len(set(chosen(agents.make("lookahead:every=0", toy(**fields), ratios=GRID), 60))) == 1
    assert max(chosen(agents.make("lookahead:every=5", toy(**fields), ratios=GRID), 60)) >= 0.6


def test_each_group_gets_its_own_best_ratio():
    """Best are 0, 0.4, 0.8. The first look follows the grid for all groups, then each group's others in turn: 6 + 3 * 5."""
    fields = {"groups": 3, "toy_best_ratio": 0.4, "toy_group_spread": 0.8, "toy_noise": 0.0}
    agent = agents.make("lookahead:every=5:windows=2", toy(**fields), ratios=GRID)
    seen: list[dict[str, float]] = []
    agent.learn(20, callback=lambda *_: seen.append(agent.diagnostics()))
    assert [one["branches"] for one in seen[:6]] == [21, 0, 0, 0, 0, 16]
    np.testing.assert_allclose(chosen(agent), [[0.0, 0.4, 0.8]] * 20, rtol=1e-6)


def test_with_groups_the_race_is_against_all_that_were_tried_before():
    """Both groups want 0.4. Of the first two only it is followed for 3 windows; then each group's 0 loses after one."""
    agent = agents.make("lookahead:race=0.9:every=0", toy(groups=2, toy_best_ratio=0.4), ratios=[0.0, 0.4])
    np.testing.assert_allclose(chosen(agent, 1), [[0.4, 0.4]])
    assert agent.diagnostics()["branch_updates"] == (3 + 1 + 1 + 1) * preset("ATESD-Toy-v0").hold_window


def test_only_ratios_that_the_scores_favour_are_tried(monkeypatch: pytest.MonkeyPatch):
    """The scores favour 0.8 (grounded) and 0.6 (with the mismatch, lowest at 0.2) for the first group, for the second 0.4."""
    grounded = np.array([[-0.9, -0.9], [-0.5, -0.5], [-0.4, -0.1], [-0.10, -0.9], [-0.09, -0.9], [-0.5, -0.9]])
    mismatch = np.array([[0.9, 0.9], [0.1, 0.9], [0.9, 0.1], [0.3, 0.9], [0.9, 0.9], [0.9, 0.9]])
    scores = ExposureScores(grounded, mismatch, num_sampled_tokens=7, num_scored_tokens=11)
    monkeypatch.setattr("agents.lookahead.exposure_scores", lambda *_, **__: scores)
    followed: list[list[float]] = []

    class Watched(LookaheadController):
        def _followed(self, student: int, ratios: Any, rivals: Any) -> list[Branch]:
            followed.extend(ratios.tolist())
            return super()._followed(student, ratios, rivals)

    env = toy(groups=2, toy_best_ratio=0.5)
    agent = Watched(env, ratios=GRID, candidates="scores", windows=1, every=0)
    agent.learn(1)
    assert followed[:3] == [[0.4, 0.4], [0.6, 0.6], [0.8, 0.8]], "any group's, together"
    assert {tuple(one) for one in followed[3:]} <= {(a, b) for a in (0.6, 0.8) for b in (0.4, 0.6, 0.8)}
    assert (agent.diagnostics()["sampled_tokens"], agent.diagnostics()["scored_tokens"]) == (7, 11)

    alone = ExposureScores(-mismatch[:, 1:], mismatch[:, 1:], 7, 11)
    monkeypatch.setattr("agents.lookahead.exposure_scores", lambda *_, **__: alone)
    single = LookaheadController(toy(), ratios=GRID, candidates="scores")
    assert chosen(single, 1) == [0.4]
    assert single.diagnostics()["branches"] == 0, "where the scores agree there is nothing to try"


def test_ratios_that_somebody_else_chose_are_kept_where_they_are_better():
    env = toy(toy_best_ratio=0.4)
    observation, _ = env.reset(seed=0)
    action, _ = agents.make("lookahead:every=1", env, ratios=[0.0, 1.0]).predict(observation, np.array([0.4]))
    assert float(action[0]) == pytest.approx(0.4)


def test_it_looks_no_further_than_the_end_of_the_run():
    agent = agents.make("lookahead:every=4:windows=3:race=null", toy(windows=6, hold_window=2), ratios=[0.0, 0.5, 1.0])
    updates: list[float] = []
    agent.learn(6, callback=lambda *_: updates.append(agent.diagnostics()["branch_updates"]))
    assert updates == [3 * 3 * 2, 0, 0, 0, 3 * 2 * 2, 0]


class CollapsingPopulation(ToyPopulation):
    """At ratio 1 the NLL halves in the first window, and from the second on it lies above where the run began."""

    def window(self, reveal_ratios: np.ndarray, students: Sequence[int] | None = None) -> list[Any]:
        students = list(range(self.num_students)) if students is None else students
        super().window(reveal_ratios, students)
        for index, ratio in zip(students, reveal_ratios[:, 0], strict=True):
            if ratio == 1.0:
                state = self.snapshot(index)
                nll = 2.0 if len(state.rows) == 1 else 4.5
                rows = (*state.rows[:-1], {**state.rows[-1], "probe/nll": nll})
                self.restore(index, dataclasses.replace(state, nll=(nll,), probe_nll=nll, rows=rows))
        return [self.runs[index].rows[-1] for index in students]

    def twin(self, num_students: int, index: int = 0) -> ToyPopulation:
        return CollapsingPopulation(self.config, num_students)


class CollapsingEnv(ToyExposureEnv):
    def _make_population(self) -> ToyPopulation:
        return CollapsingPopulation(self.config)


@pytest.mark.parametrize("race", [None, 0.0])
def test_a_collapse_is_never_followed(race: float | None):
    """Full exposure has by far the best first window, and at this discount the best return: 2 - 0.1 * 2.5 = 1.75.

    The other ratio gains; or it gains nothing, and noise lifts it above the start by less than the collapse does.
    """
    options: dict[str, Any] = {"gamma": 0.1, "every": 0, "race": race}
    for other in (0.5, 0.0):
        env = CollapsingEnv(windows=6, toy_best_ratio=0.5)
        assert chosen(LookaheadController(env, ratios=[other, 1.0], windows=1, **options), 6)[0] == 1.0
        assert chosen(LookaheadController(env, ratios=[other, 1.0], windows=2, **options), 6) == [other] * 6


def test_where_all_branches_break_a_decision_is_made_all_the_same(tiny_config: EnvConfig):
    env = TeacherExposureEnv(tiny_config.replace(collapse_nll=1e-6, learning_rate=0.5))
    agent = LookaheadController(env, ratios=[0.25, 0.75])
    (made,) = transitions_of(agent, 1)
    assert made.action.tolist() == [0.25]
    assert agent.diagnostics()["branch_updates"] > 0


@pytest.mark.parametrize("groups", [1, 2])
def test_the_run_never_notices_to_the_bit(groups: int):
    """Another run that is only told the ratios has the same rows; of the packaged student."""
    seen = [gymnasium.make("ATESD-Tiny-v0", disable_env_checker=True, groups=groups, **TINY) for _ in range(2)]
    agent = agents.make("lookahead:every=2:windows=2", seen[0], ratios=[0.0, 1.0])
    made = transitions_of(agent, 4)
    seen[1].reset(seed=0)
    for one in made:
        observation, reward, *_, info = seen[1].step(one.action)
        np.testing.assert_array_equal(observation, one.next_observation)
        assert (reward, info) == (one.reward, one.info)


def test_its_cost_is_in_the_rows_and_in_the_outcome_of_the_run(tmp_path: Path):
    """Two looks, at windows 1 and 3: two ratios for two windows, and for the one that is left."""
    config = preset("ATESD-Tiny-v0", **{**TINY, "windows": 3, "hold_window": 2})
    specs = plan_runs("ATESD-Tiny-v0", config, ["lookahead:every=2:windows=2:ratios=[0,1]:race=null"], [0], tmp_path)
    execute(specs[0])
    rows = load_runs(tmp_path)
    assert rows["agent/branches"].tolist() == [2, 0, 2]
    assert rows["agent/branch_updates"].tolist() == [2 * 2 * 2, 0, 2 * 1 * 2]
    assert (rows["agent/branch_tokens"] > 0).tolist() == [True, False, True]
    tried = pd.DataFrame(read_rows(specs[0].folder / "branches.jsonl"))
    assert tried.groupby(["decision", "branch"])["window"].agg(list).to_dict() == {
        (1, 0): [1, 2],
        (1, 1): [1, 2],
        (3, 0): [3],
        (3, 1): [3],
    }
    assert tried.groupby("branch")["exposure/reveal_ratio"].unique().tolist() == [[0.0], [1.0]]
    tokens = tried.groupby("decision")["rollout/num_tokens"].sum()
    assert tokens.tolist() == rows["agent/branch_tokens"][[0, 2]].tolist()


@pytest.mark.parametrize("is_tiny", [False, True])
def test_a_saved_agent_goes_on_to_the_bit(is_tiny: bool, tmp_path: Path):
    """After window 3, between two looks (at windows 2 and 5), environment and agent move to new objects."""
    spec = "lookahead:every=3:start=1:windows=2:race=0.5"
    env_id, fields = ("ATESD-Tiny-v0", {**TINY, "windows": 6}) if is_tiny else ("ATESD-Toy-v0", {"windows": 6})
    whole, first, second = (gymnasium.make(env_id, disable_env_checker=True, **fields) for _ in range(3))
    expected = transitions_of(agents.make(spec, whole), 6)
    before = agents.make(spec, first)
    made = transitions_of(before, 3)
    first.unwrapped.save_state(tmp_path / "state")
    before.save(tmp_path / "agent")
    second.reset(options={"state": tmp_path / "state"})
    after = LookaheadController.load(tmp_path / "agent", second)
    made += transitions_of(after, 3, reset_num_timesteps=False)
    for left, right in zip(made, expected, strict=True):
        np.testing.assert_array_equal(left.action, right.action)
        assert (left.reward, left.info) == (right.reward, right.info)


@pytest.mark.parametrize("planned", [[0.5, 0.5], [1.5], [float("inf")]])
def test_a_file_with_a_plan_that_cannot_be_shown_is_refused(planned: list[float], tmp_path: Path):
    agent = LookaheadController(toy()).learn(1)
    agent._planned = np.array(planned)
    agent.save(tmp_path / "agent")
    with pytest.raises(AtesdError, match="agent"):
        LookaheadController.load(tmp_path / "agent", toy())


def test_students_of_a_vector_environment_are_each_as_alone():
    """Bit for bit, and each from where it stands: three students that were shown different things want different ratios."""
    drift = {"toy_kind": "drift", "toy_best_ratio": 0.0, "toy_final_ratio": 1.0}
    fields = {"windows": 8, "hold_window": 20, "toy_noise": 0.2, **drift}
    envs = gymnasium.make_vec("ATESD-Toy-v0", num_envs=3, **fields)
    spec = "lookahead:every=2:windows=1"
    agent = agents.make(spec, envs, ratios=GRID)
    envs.reset(seed=5)
    observations, *_ = envs.step(np.array([[0.0], [0.4], [1.0]], dtype=np.float32))
    alone = [toy(**fields).unwrapped for _ in range(3)]
    for student, env in enumerate(alone):
        env.restore(envs.unwrapped.snapshot(student))
    singles = [agents.make(spec, env, ratios=GRID) for env in alone]
    states: list[Any] = [None] * 3
    state, made = None, []
    for _ in range(7):
        actions, state = agent.predict(observations, state)
        made.append(actions)
        for student, (env, single) in enumerate(zip(alone, singles, strict=True)):
            action, states[student] = single.predict(observations[student], states[student])
            np.testing.assert_array_equal(action, actions[student])
            env.step(action)
        observations, *_ = envs.step(actions)
    assert len(np.unique(made[0])) > 1
    assert len(np.unique(np.stack(made)[:, 1])) > 1


def test_on_the_bench_each_student_is_looked_ahead_for_in_its_own_instance():
    """Best are 0.1, 0.9, and for two groups 0.2 and 0.6; an instance with one group has no turn for a second one."""
    envs = gymnasium.make_vec("ATESD-Bench-v0", num_envs=3, instances=toy_set(), order="round-robin")
    agent = agents.make("lookahead:windows=1", envs, ratios=[0.1, 0.2, 0.6, 0.9])
    observations, infos = envs.reset(seed=[0, 1, 2])
    assert infos["instance"].tolist() == ["low", "high", "both"]
    action, _ = agent.predict(observations)
    np.testing.assert_allclose(action, [[0.1, 0.1], [0.9, 0.9], [0.2, 0.6]])
    assert agent.diagnostics()["branches"] == 4 + 4 + (4 + 3 + 3)
    action, _ = agents.make("grounded", envs).predict(observations)
    np.testing.assert_array_equal(action, np.ones((3, 2)))


def test_students_that_have_ended_are_not_asked_about():
    envs = gymnasium.make_vec("ATESD-Toy-v0", num_envs=2, windows=2)
    agent = agents.make("lookahead:every=2", envs, ratios=[0.0, 0.5, 1.0])
    observations, _ = envs.reset(seed=0)
    state = None
    for branches in (6, 0):
        actions, state = agent.predict(observations, state)
        assert agent.diagnostics()["branches"] == branches
        observations, *_ = envs.step(actions)
    ended, state = agent.predict(observations, state)
    np.testing.assert_array_equal(ended, actions)
    assert agent.diagnostics()["branches"] == 0
    observations, *_ = envs.step(ended)
    agent.predict(observations, state, np.array([True, False]))
    assert agent.diagnostics()["branches"] == 6, "one because its episode begins, the other at window 0"


def test_without_a_state_it_looks_whenever_it_is_asked():
    """In ten lines of Gymnasium, without the program: what the documentation shows."""
    env = toy(toy_best_ratio=0.8)
    agent = agents.make("lookahead:every=0", env, ratios=GRID)
    observation, _ = env.reset(seed=0)
    for asks in range(3):
        action, _ = agent.predict(observation)
        assert (float(action[0]), agent.diagnostics()["branches"]) == (pytest.approx(0.8), 6), asks
        observation, *_ = env.step(action)
    action, _ = agent.predict(observation, np.array([0.1]))
    assert (float(action[0]), agent.diagnostics()["branches"]) == (pytest.approx(0.1), 0)
    action, _ = agent.predict(observation, np.array([0.1]), np.array([True]))
    assert float(action[0]) == pytest.approx(0.8)


def test_it_refuses_to_decide_for_another_environment():
    env, other = toy(), toy()
    agent = agents.make("lookahead", env)
    (observation, _), _ = env.reset(seed=0), other.reset(seed=0)
    later, *_ = other.step(np.array([0.5]))
    agent.predict(observation)
    for wrong in (later, np.stack([observation] * 2)):
        with pytest.raises(ConfigError, match="expected the present one of each of the 1 students"):
            agent.predict(wrong)


def test_in_a_vector_of_students_it_does_not_learn():
    agent = agents.make("lookahead", gymnasium.make_vec("ATESD-Toy-v0", num_envs=2))
    with pytest.raises(ConfigError, match="expected the environment of one student to learn in, got a vector of 2"):
        agent.learn(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": [0.5]}, "ratios: expected a list of at least two different reveal ratios"),
        ({"ratios": [0.5, 0.5]}, "ratios: expected a list of at least two different reveal ratios"),
        ({"ratios": "half"}, "ratios: expected a list of at least two different reveal ratios.* got 'half'"),
        ({"ratios": [0.5, 1.5]}, r"ratios: expected a reveal ratio in \[0, 1\], got 1\.5"),
        ({"windows": 0}, "windows: expected a whole number from 1, got 0"),
        ({"every": -1}, "every: expected a whole number from 0, got -1"),
        ({"start": 0.5}, r"start: expected a whole number from 0, got 0\.5"),
        ({"initial_ratio": 2}, r"initial_ratio: expected a reveal ratio in \[0, 1\], got 2"),
        ({"gamma": 1.1}, r"gamma: expected a number from 0 to 1, got 1\.1"),
        ({"gamma": 10**400}, r"gamma: expected a number from 0 to 1, got 1000"),
        ({"race": -0.1}, r"race: expected a number from 0 to 1, got -0\.1"),
        ({"candidates": "some"}, r"candidates: expected one of all, scores, got 'some'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        LookaheadController(ToyExposureEnv(), **options)
