"""The contract of agents: the learning loop, its callbacks, and files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from agents import make
from agents.base import Agent, AgentProtocol, Transition
from agents.schedules import FixedSchedule, RandomSchedule
from agents.specs.table import AGENTS
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.simulated.toy import ToyExposureEnv
from tests.agents.playing import BANDITS, actions_of, observed


class RememberingEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps the seeds of resets and the actions."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(ToyExposureEnv(**fields))
        self.seeds: list[int | None] = []
        self.actions: list[float] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.seeds.append(seed)
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.actions.append(float(action[0]))
        return super().step(action)


class Watching(Agent):
    """Reveals 0.1 more in each window of an episode, and keeps every transition."""

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int = 0) -> None:
        super().__init__(env, seed)
        self.transitions: list[Transition] = []
        self.starts: list[bool] = []
        self.num_begun = 0

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        self.starts.append(bool(episode_start[0]))
        count = 0 if state is None else state
        return np.array([0.1 * count], dtype=np.float32), count + 1

    def begin_episode(self) -> None:
        self.num_begun += 1

    def observe(self, transition: Transition) -> None:
        self.transitions.append(transition)


def test_learning_observes_every_window_over_several_episodes():
    env = RememberingEnv(windows=3)
    agent = Watching(env, seed=7)
    assert agent.learn(7) is agent
    assert agent.num_timesteps == len(agent.transitions) == 7
    assert [transition.truncated for transition in agent.transitions] == [False, False, True, False, False, True, False]
    assert agent.num_begun == 3
    np.testing.assert_allclose(env.actions, [0.0, 0.1, 0.2, 0.0, 0.1, 0.2, 0.0], rtol=1e-6)
    assert agent.starts == [True, False, False, True, False, False, True]
    for before, after in zip(agent.transitions[:-1], agent.transitions[1:], strict=True):
        if not before.truncated:
            np.testing.assert_array_equal(before.next_observation, after.observation)
    assert agent.transitions[2].info["window"] == 3
    assert agent.transitions[2].reward == agent.transitions[2].info["reward/total"]


def test_only_the_first_reset_is_seeded():
    env = RememberingEnv(windows=2)
    Watching(env, seed=7).learn(5)
    assert env.seeds == [7, None, None]


def test_agents_with_one_seed_meet_the_same_run():
    firsts = []
    for kind in (Watching, RandomSchedule):
        agent = kind(ToyExposureEnv(), seed=3)
        seen: list[Any] = []
        agent.learn(1, callback=lambda names, _, seen=seen: seen.append(names["transition"].observation))
        firsts.append(seen[0])
    np.testing.assert_array_equal(*firsts)


def test_learning_can_go_on_inside_an_episode():
    whole, parts = (Watching(RememberingEnv(windows=4)) for _ in range(2))
    whole.learn(6)
    parts.learn(3).learn(3, reset_num_timesteps=False)
    assert parts.num_timesteps == 6
    assert parts.env.actions == whole.env.actions
    assert parts.env.seeds == whole.env.seeds == [0, None]
    parts.learn(1)  # starts anew
    assert parts.num_timesteps == 1
    assert parts.env.seeds == [0, None, None]
    assert parts.env.actions[-1] == 0.0


def test_a_function_as_callback_sees_the_window_and_can_stop():
    env = RememberingEnv()
    agent = FixedSchedule(env, ratio=0.25)
    seen: list[dict[str, Any]] = []

    def callback(names: dict[str, Any], _: dict[str, Any]) -> bool:
        seen.append(names)
        return len(seen) < 3

    agent.learn(10, callback=callback)
    assert len(env.actions) == len(seen) == 3
    assert seen[0]["self"] is agent
    assert seen[1]["infos"][0]["window"] == 2
    assert seen[1]["infos"][0]["exposure/reveal_ratio"] == 0.25
    assert seen[1]["rewards"] == [seen[1]["infos"][0]["reward/total"]]
    assert seen[1]["dones"] == [False]
    assert seen[1]["transition"].info is seen[1]["infos"][0]


def test_a_callback_that_returns_nothing_does_not_stop():
    env = RememberingEnv()
    FixedSchedule(env).learn(4, callback=lambda names, _: None)
    assert len(env.actions) == 4


class CountingCallback(BaseCallback):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def _on_training_start(self) -> None:
        self.events.append("start")

    def _on_step(self) -> bool:
        self.events.append(f"{self.num_timesteps}: window {self.locals['infos'][0]['window']}")
        return self.num_timesteps < 2

    def _on_training_end(self) -> None:
        self.events.append("end")


def test_a_stable_baselines_callback_works():
    callback = CountingCallback()
    agent = FixedSchedule(ToyExposureEnv())
    agent.learn(5, callback=callback)
    assert callback.model is agent
    assert callback.events == ["start", "1: window 1", "2: window 2", "end"]


def test_a_wrong_callback_is_refused():
    with pytest.raises(ConfigError, match="callback: expected a function of two dicts or a BaseCallback, got 3"):
        FixedSchedule(ToyExposureEnv()).learn(1, callback=3)


def test_the_progress_bar_changes_nothing(capsys: pytest.CaptureFixture[str]):
    env = RememberingEnv()
    FixedSchedule(env).learn(4, progress_bar=True)
    assert len(env.actions) == 4
    assert "windows" in capsys.readouterr().out


def test_the_protocol_asks_for_predict_only():
    class Other:
        def predict(self, observation: Any) -> Any:
            return observation

    assert isinstance(Other(), AgentProtocol)
    assert isinstance(FixedSchedule(ToyExposureEnv()), AgentProtocol)
    assert not isinstance(object(), AgentProtocol)


def test_an_agent_without_predict_says_so():
    with pytest.raises(NotImplementedError, match="Agent: expected a method predict"):
        Agent(ToyExposureEnv()).learn(1)


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_a_wrong_seed_is_refused(seed: Any):
    with pytest.raises(ConfigError, match="seed: expected a whole number from 0"):
        FixedSchedule(ToyExposureEnv(), seed=seed)


def test_an_environment_with_other_actions_is_refused():
    with pytest.raises(ConfigError, match="expected actions Box"):
        FixedSchedule(gymnasium.make("CartPole-v1"))


SPECS = [
    *("fixed:0.3", "random", "linear:0:1", "cosine:0:1", "staged:0.3:1:0.5", "binomial", "feedback:gain=0.7"),
    *("beta:batch_size=5:features=all", *BANDITS),
]
"""Every agent that is not Stable-Baselines3's, but for those that ask the environment."""
ASKING = [
    "lookahead:ratios=[0.2,0.5]:every=5:start=3:initial_ratio=0.3",
    *(f"{rule}:start=3" for rule in ("grounded", "mismatch", "balance", "meta")),
]
"""Agents that decide for the environment that they were made for alone: they take no other observations."""


def test_no_agent_is_left_out():
    own = {entry.name for entry in AGENTS if not entry.target.startswith("agents.sb3")}
    on_the_bench_alone = {"oracle"}  # test_oracle
    assert {spec.partition(":")[0] for spec in (*SPECS, *ASKING)} == own - on_the_bench_alone


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("spec", SPECS)
def test_shapes_follow_the_observation(spec: str, groups: int):
    env = ToyExposureEnv(groups=groups)
    agent = make(spec, env).learn(30)  # so that different states get different ratios
    state = None if spec.startswith("feedback") else "kept"
    one, after = agent.predict(observed()[0], state=state)
    assert state is None or after == "kept"
    assert one.shape == (groups,)
    assert one.dtype == np.float32
    assert env.action_space.contains(one)
    several = agent.predict(observed(4), deterministic=True)[0]
    assert several.shape == (4, groups)
    assert several.dtype == np.float32
    np.testing.assert_allclose(several[2], agent.predict(observed(4)[2], deterministic=True)[0], rtol=1e-6)


@pytest.mark.parametrize("spec", ["random", "binomial", "beta", *BANDITS])
def test_runs_repeat_with_their_seed_and_ignore_global_generators(spec: str):
    first = actions_of(make(spec, ToyExposureEnv(), seed=3), 40)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002 (the global generators are the subject)
    before = torch.get_rng_state()
    np.testing.assert_array_equal(actions_of(make(spec, ToyExposureEnv(), seed=3), 40), first)
    assert torch.equal(torch.get_rng_state(), before)
    differs = actions_of(make(spec, ToyExposureEnv(), seed=4), 40) != first
    assert differs.all() if spec in ("random", "beta") else differs.any()
    assert len(np.unique(first[3:10])) > 1, "each window has a decision of its own"


@pytest.mark.parametrize("spec", [*SPECS, *ASKING])
@pytest.mark.parametrize("num_windows", [0, 1, 43])
def test_a_loaded_agent_goes_on_bit_for_bit(tmp_path: Path, spec: str, num_windows: int):
    """43 windows of runs of 20 leave two decisions waiting for their return, and for beta some for their batch."""
    agent, never_saved = (make(spec, ToyExposureEnv(windows=20, groups=2), seed=3) for _ in range(2))
    for one in (agent, never_saved):
        one.learn(num_windows)
    if hasattr(agent, "_pending"):
        assert len(agent._pending.entries) == min(num_windows, 2)
    if num_windows == 43 and spec.startswith("beta"):
        assert agent._completed
        assert agent.num_updates > 0
    agent.save(tmp_path / "agent")
    loaded = type(agent).load(tmp_path / "agent", copy.deepcopy(agent.env))
    assert agent.is_resumable
    assert loaded.options() == agent.options()
    ahead, behind, whole = (actions_of(one, 30, reset_num_timesteps=False) for one in (agent, loaded, never_saved))
    np.testing.assert_array_equal(ahead, behind)
    np.testing.assert_array_equal(ahead, whole)
    assert len(np.unique(ahead)) > 1 or spec == "fixed:0.3"
    (arrays, description), (loaded_arrays, loaded_description) = agent.state(), loaded.state()
    assert description == loaded_description
    assert arrays.keys() == loaded_arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, loaded_arrays[name])
    assert agent.diagnostics() == loaded.diagnostics()


@pytest.mark.parametrize(
    ("spec", "groups", "some"),
    [
        ("feedback", 1, {"set_point", "mismatch", "is_saturated"}),
        ("lookahead", 1, {"branches", "branch_updates", "branch_tokens"}),
        ("beta", 1, {"mean"}),
        ("beta", 2, {"mean_0", "mean_1"}),
    ],
)
def test_diagnostics_have_the_same_names_at_any_time(spec: str, groups: int, some: set[str]):
    agent = make(spec, ToyExposureEnv(groups=groups))
    first = agent.diagnostics()
    assert some <= set(first)
    assert np.isnan([first[name] for name in first if name in ("c1", "c2_1", "set_point", "mismatch")]).all()
    agent.learn(9)
    assert list(agent.diagnostics()) == list(first)


def test_saved_and_loaded_agents_go_on_alike(tmp_path: Path):
    env = RememberingEnv(windows=10)
    agent = RandomSchedule(env, seed=4)
    agent.learn(3)
    agent.save(tmp_path / "agent")
    copied_env = copy.deepcopy(env)
    loaded = RandomSchedule.load(tmp_path / "agent", copied_env)
    assert [path.name for path in tmp_path.iterdir()] == ["agent.safetensors"]
    assert (loaded.seed, loaded.num_timesteps) == (4, 3)
    for one in (agent, loaded):
        one.learn(12, reset_num_timesteps=False)
    assert copied_env.actions == env.actions
    assert copied_env.seeds == env.seeds == [4, None]
    assert len(set(env.actions)) == 15


def test_a_loaded_agent_that_starts_anew_seeds_its_environment(tmp_path: Path):
    RandomSchedule(ToyExposureEnv(), seed=4).learn(3).save(tmp_path / "agent")
    env = RememberingEnv()
    RandomSchedule.load(tmp_path / "agent", env).learn(1)
    assert env.seeds == [4]


def test_options_come_back(tmp_path: Path):
    FixedSchedule(ToyExposureEnv(), ratio=0.3).save(tmp_path / "fixed.bin")
    assert FixedSchedule.load(tmp_path / "fixed.bin", ToyExposureEnv()).ratio == 0.3


def test_files_that_hold_no_such_agent_are_refused(tmp_path: Path):
    with pytest.raises(RunFilesError, match=r"missing.safetensors: expected an agent's file"):
        FixedSchedule.load(tmp_path / "missing", ToyExposureEnv())
    RandomSchedule(ToyExposureEnv()).save(tmp_path / "random")
    with pytest.raises(ConfigError, match=r"class agents.schedules.FixedSchedule, got agents.schedules.RandomSchedule"):
        FixedSchedule.load(tmp_path / "random", ToyExposureEnv())


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path):
    with pytest.raises(RunFilesError, match="expected to write this file"):
        FixedSchedule(ToyExposureEnv()).save(tmp_path / "no folder" / "agent")


def test_an_agent_tells_whether_its_state_is_everything():
    class Counting(FixedSchedule):
        starts: list[bool]

        def predict(self, observation, state=None, episode_start=None, deterministic=False):  # type: ignore[override]
            self.starts.append(bool(episode_start[0]))
            return super().predict(observation)[0], (state or 0) + 1

    agent = Counting(ToyExposureEnv())
    agent.starts = []
    assert agent.is_resumable
    agent.learn(2)
    assert not agent.is_resumable, "predict passes a state on, which no file holds"
    plain = RandomSchedule(ToyExposureEnv()).learn(2)
    assert plain.is_resumable


def test_an_agent_that_goes_on_in_the_middle_of_an_episode_is_not_told_that_it_begins():
    starts = []

    class Watching(RandomSchedule):
        def predict(self, observation, state=None, episode_start=None, deterministic=False):  # type: ignore[override]
            starts.append(bool(episode_start[0]))
            return super().predict(observation, state, episode_start, deterministic)

    env = ToyExposureEnv(windows=3)
    agent = Watching(env).learn(2)
    Watching.from_state(*agent.state(), env).learn(2, reset_num_timesteps=False)
    assert starts == [True, False, False, True]
