"""The contract of the vector environment, the same for every kind of students: its form, its autoreset, its states."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics, RescaleAction

import atesd_env
from atesd_env.envs.columns import COLUMNS
from atesd_env.envs.infos import vector_infos
from atesd_env.envs.vector import ExposureVectorEnv
from atesd_env.errors import AtesdError, ConfigError
from tests.atesd_env.envs.kinds import Kind, Surrogate, Tiny, Toy, assert_same_step, by_student

COLUMN_NAMES = {column.name for column in COLUMNS}


@pytest.mark.parametrize("env_id", atesd_env.PRESETS)
@pytest.mark.parametrize("mode", [{"vectorization_mode": "vector_entry_point"}, {}])
def test_every_id_makes_a_population_without_loading_its_student(env_id: str, mode: dict[str, Any]):
    env = gymnasium.make_vec(env_id, num_envs=4, windows=2, groups=2, **mode)
    assert isinstance(env, ExposureVectorEnv)
    assert env.config == atesd_env.preset(env_id, windows=2, groups=2)
    assert env.num_envs == 4
    assert env.single_action_space.shape == (2,)
    assert env.spec is not None
    assert env.spec.id == env_id
    assert type(gymnasium.make_vec(env.spec)) is type(env)
    assert callable(load_env_creator(str(gymnasium.spec(env_id).vector_entry_point)))
    env.close()


class VectorEnvContract(Kind):
    """What every vector environment promises, whoever its students are."""

    autoreset_steps = 14

    @pytest.fixture
    def trio(self) -> Iterator[Any]:
        env = self.make_vector()
        yield env
        env.close()

    def play(self, env: Any, steps: int) -> list[tuple[Any, ...]]:
        """Steps with ratios that differ from student to student and from step to step."""
        shares = [np.linspace(0.1 * step, 1.0, env.num_envs) % 1.0 for step in range(steps)]
        return [env.step(self.action(*share)) for share in shares]

    def ended(self) -> Any:
        """Three students of which the third's next step starts a new run."""
        env = self.make_vector()
        env.reset(seed=3)
        self.play(env, self.windows - 1)
        env.reset(options={"reset_mask": np.array([True, True, False])})
        self.play(env, 1)
        assert env.is_running.tolist() == [True, True, False]
        return env

    @pytest.mark.parametrize("groups", [1, 2])
    def test_spaces_shapes_and_types(self, groups: int) -> None:
        env, alone = self.make_vector(5, groups), self.make(groups)
        observations, infos = env.reset(seed=0)
        assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
        assert env.observation_space.shape == (5, len(self.feature_names(groups)))
        assert env.action_space.shape == (5, groups)
        assert env.single_observation_space == alone.observation_space
        assert env.single_action_space == alone.action_space
        assert env.feature_names == alone.feature_names
        assert env.observation_space.contains(observations)
        np.testing.assert_array_equal(infos["seed"], [0, 1, 2, 3, 4])
        env.action_space.seed(0)
        observations, rewards, terminations, truncations, infos = env.step(self.high * env.action_space.sample())
        assert env.observation_space.contains(observations)
        assert (rewards.shape, rewards.dtype) == ((5,), np.float64)
        assert (terminations.shape, terminations.dtype) == ((5,), np.bool_)
        assert (truncations.shape, truncations.dtype) == ((5,), np.bool_)
        assert all(len(infos[name]) == 5 for name in infos)

    def test_what_a_caller_changes_does_not_reach_the_environment(self, trio: Any) -> None:
        twin = self.make_vector()
        observations, _ = trio.reset(seed=0)
        twin.reset(seed=0)
        observations[:] = 9.0
        actions = self.action(0.1, 0.2, 0.3)
        step = trio.step(actions)
        for array in (*step[:4], *step[-1].values()):
            array[:] = True
        twin.step(actions)
        assert_same_step(trio.step(actions), twin.step(actions))

    @pytest.mark.parametrize("seed", [7, [4, 9, 4]])
    def test_autoreset_is_gymnasiums_next_step(self, seed: int | list[int]) -> None:
        """Against SyncVectorEnv of scalar environments, over episodes with students out of step with each other."""
        ours, theirs = self.make_vector(), SyncVectorEnv([self.make] * 3)
        rng = np.random.default_rng(0)
        left, right = ours.reset(seed=seed), theirs.reset(seed=seed)
        num_resets = 0
        for step in range(self.autoreset_steps):
            assert_same_step(left, right, self.tolerance)
            if step == 2:
                mask = {"reset_mask": np.array([False, True, False])}
                left, right = ours.reset(options=mask), theirs.reset(options=dict(mask))
                assert_same_step(left, right, self.tolerance)
            actions = self.action(*rng.random(3))
            left, right = ours.step(actions), theirs.step(actions)
            num_resets += int(left[-1].get("_seed", np.zeros(3)).sum())
        assert num_resets == 3 * (self.autoreset_steps // (self.windows + 1))

    def test_a_resetting_students_action_is_not_looked_at(self) -> None:
        env = self.ended()
        _, rewards, terminations, truncations, infos = env.step(np.array([[0.1], [0.2], [np.nan]]))
        assert rewards[2] == 0.0
        assert not terminations.any()
        assert not truncations.any()
        assert infos["_seed"].tolist() == [False, False, True]
        assert infos["window"].tolist() == [2, 2, 0]

    def test_unnamed_seeds_are_drawn_for_each_student(self, trio: Any) -> None:
        _, infos = trio.reset(seed=[3, None, 3])
        first = infos["seed"].tolist()
        assert first[0] == first[2] == 3
        second, third = (trio.reset()[1]["seed"].tolist() for _ in range(2))
        assert second[0] == second[2], "students with one seed draw alike"
        assert len({first[1], second[0], second[1], third[0], third[1]}) == 5
        assert self.make_vector().reset()[1]["seed"].tolist() != self.make_vector().reset()[1]["seed"].tolist()

    def test_masked_reset_leaves_the_others_where_they_are(self, trio: Any) -> None:
        trio.reset(seed=0)
        before, *_ = trio.step(self.action(0.1, 0.2, 0.3))
        options = {"reset_mask": np.array([False, True, False])}
        after, infos = trio.reset(seed=20, options=options)
        assert list(options) == ["reset_mask"]
        np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
        assert (after[1] != before[1]).any()
        assert by_student(infos, 3)[1]["seed"] == 21
        assert infos["_seed"].tolist() == [False, True, False]
        *_, infos = trio.step(self.action(0.1, 0.2, 0.3))
        assert infos["window"].tolist() == [2, 1, 2]

    def test_misuse_is_refused_with_a_remedy_and_costs_nothing(self, trio: Any) -> None:
        for num_envs in (0, True, 1.5):
            with pytest.raises(ConfigError, match="num_envs: expected a whole number"):
                self.make_vector(num_envs)
        with pytest.raises(ConfigError, match="render_mode"):
            self.make_vector(render_mode="human")
        with pytest.raises(ConfigError, match="did you mean 'gamma'"):
            self.make_vector(gama=0.5)
        with pytest.raises(AtesdError, match="call reset"):
            trio.step(self.action(0.1, 0.2, 0.3))
        with pytest.raises(AtesdError, match="none was started"):
            trio.checkpoint()
        with pytest.raises(AtesdError, match=r"but \[1, 2\] have not"):
            trio.reset(options={"reset_mask": np.array([True, False, False])})
        with pytest.raises(ConfigError, match="expected one seed for each of 3 students, got 2"):
            trio.reset(seed=[1, 2])
        trio.reset(seed=0)
        before = [self.bits(trio, index) for index in range(3)]
        with pytest.raises(ConfigError, match=r"student 2: action: expected reveal ratios in \[0, 1\], got nan"):
            trio.step(self.action(0.1, 0.2, np.nan))
        with pytest.raises(ConfigError, match=r"expected shape \(3, 1\)"):
            trio.step(self.action(0.1, 0.2))
        for mask in ([True, False, False], np.array([1, 0, 0]), np.array([True]), np.zeros(3, dtype=np.bool_)):
            with pytest.raises(ConfigError, match="reset_mask: expected a bool array of shape"):
                trio.reset(options={"reset_mask": mask})
        assert [self.bits(trio, index) for index in range(3)] == before
        assert trio.is_running.all()

    def test_infos_are_arrays_with_masks_whatever_was_measured(self, trio: Any) -> None:
        trio.reset(seed=0)
        trio.step(self.action(0.1, 0.2, 0.3))
        trio.reset(options={"reset_mask": np.array([False, False, True])})
        *_, infos = trio.step(self.action(0.1, 0.2, 0.3))
        assert {name for name in infos if not name.startswith("_")} >= COLUMN_NAMES
        assert infos["window"].dtype.kind == infos["rollout/num_tokens"].dtype.kind == "i"
        assert infos["probe/accuracy"].dtype == infos["probe/nll"].dtype == np.float64
        assert infos["_probe/nll"].tolist() == [True] * 3
        measured = infos["_probe/accuracy"].tolist()
        assert measured == ([True, True, False] if trio.config.probe_accuracy_every == 2 else [False] * 3)
        assert np.isnan(infos["probe/accuracy"]).tolist() == [not one for one in measured]
        assert np.isnan(infos["probe/pass_at_k"]).all(), "never measured: the name is there, the mask is empty"
        assert not infos["_probe/pass_at_k"].any()

    def test_infos_are_those_of_the_scalar_environments(self, trio: Any) -> None:
        """In the form of ``vector_infos``: the same names and types."""
        alone = self.make()
        pairs = [(trio.reset(seed=5)[1], vector_infos([alone.reset(seed=5)[1]]))]
        pairs.append((trio.step(self.action(0.1, 0.1, 0.1))[-1], vector_infos([alone.step(self.action(0.1))[-1]])))
        for infos, expected in pairs:
            assert infos.keys() == expected.keys()
            assert all(infos[name].dtype == expected[name].dtype for name in infos if name.strip("_") in COLUMN_NAMES)

    def test_gymnasiums_vector_wrappers_work(self, trio: Any) -> None:
        env = DictInfoToList(RecordEpisodeStatistics(RescaleAction(trio, np.float32(-1), np.float32(1))))
        env.reset(seed=0)
        actions = 2 * self.action(0.0, 0.5, 1.0) - 1
        rewards = np.zeros(3)
        for _ in range(self.windows):
            _, reward, *_, infos = env.step(actions)
            rewards += reward
        for index in range(3):
            assert infos[index]["exposure/reveal_ratio"] == pytest.approx(self.high * index / 2)
            assert infos[index]["episode"]["r"] == pytest.approx(rewards[index])
            assert infos[index]["episode"]["l"] == self.windows

    @pytest.mark.parametrize("mode", ["ansi", "rgb_array", None])
    def test_renders_each_student(self, mode: str | None) -> None:
        env = self.make_vector(2, render_mode=mode)
        env.reset(seed=0)
        env.step(self.action(0.1, 0.9))
        frames = env.render()
        if mode is None:
            assert frames is None
        elif mode == "ansi":
            assert f"{0.1 * self.high:.2f}" in frames[0]
            assert f"{0.9 * self.high:.2f}" in frames[1]
        else:
            assert all(frame.dtype == np.uint8 and frame.ndim == 3 for frame in frames)
            assert (frames[0] != frames[1]).any()

    def test_closing_twice_is_fine_and_a_reset_brings_it_back(self, trio: Any) -> None:
        first = trio.reset(seed=0)
        trio.close()
        trio.close()
        with pytest.raises(AtesdError, match="call reset"):
            trio.step(self.action(0.1, 0.2, 0.3))
        assert_same_step(trio.reset(seed=0), first)

    def test_a_snapshot_repeats_in_its_slot_and_moves_to_others_and_to_a_scalar_environment(self, trio: Any) -> None:
        trio.reset(seed=0)
        trio.step(self.action(0.2, 0.5, 0.8))
        states = [trio.snapshot(index) for index in range(3)]
        first = trio.step(self.action(0.2, 0.9, 0.8))
        for index, state in enumerate(states):
            trio.restore(index, state)
        assert_same_step(trio.step(self.action(0.2, 0.9, 0.8)), first)
        trio.restore(0, states[1])
        scalar = self.make()
        scalar.restore(states[1])
        moved, alone = trio.step(self.action(0.9, 0.1, 0.1)), scalar.step(self.action(0.9))
        np.testing.assert_allclose(moved[0][0], alone[0], rtol=self.tolerance, atol=1e-5)
        np.testing.assert_allclose(moved[1][0], alone[1], rtol=self.tolerance, atol=1e-5)
        assert moved[-1]["window"][0] == alone[-1]["window"] == 2
        trio.restore(2, scalar.snapshot())
        assert self.bits(trio, 2) == self.bits(scalar)
        fresh = self.make_vector(1)
        fresh.restore(0, scalar.snapshot())
        assert fresh.step(self.action(0.5)[None])[-1]["window"].tolist() == [3]

    def test_an_ended_run_that_is_restored_starts_anew(self) -> None:
        env = self.ended()
        env.restore(0, env.snapshot(2))
        assert env.is_running.tolist() == [False, True, False]
        assert self.play(env, 1)[0][-1]["_seed"].tolist() == [True, False, True]

    def test_a_pickled_copy_goes_on_where_it_was(self) -> None:
        env = self.ended()
        copy = pickle.loads(pickle.dumps(env))
        for ours, theirs in zip(self.play(env, 2), self.play(copy, 2), strict=True):
            assert_same_step(ours, theirs)
        assert pickle.loads(pickle.dumps(self.make_vector())).config == env.config

    def test_a_file_holds_all_students_and_the_seeds_to_come(self, tmp_path: Path) -> None:
        env = self.ended()
        env.save_state(tmp_path / "state")
        expected = self.play(env, self.windows)
        again = self.make_vector()
        observations, infos = again.reset(options={"state": tmp_path / "state"})
        assert observations.shape == env.observation_space.shape
        assert infos["seed"].tolist()[2] == 5
        for ours, theirs in zip(self.play(again, self.windows), expected, strict=True):
            assert_same_step(ours, theirs)
        assert [self.bits(again, index) for index in range(3)] == [self.bits(env, index) for index in range(3)]

    def test_states_that_do_not_fit_are_refused_and_change_nothing(self, trio: Any, tmp_path: Path) -> None:
        trio.reset(seed=0)
        trio.save_state(tmp_path / "state")
        scalar = self.make()
        scalar.reset(seed=0)
        scalar.save_state(tmp_path / "scalar")
        with pytest.raises(ConfigError, match="expected that of 2 students, got 3 students"):
            self.make_vector(2).load_state(tmp_path / "state")
        with pytest.raises(ConfigError, match="got a scalar environment's"):
            trio.load_state(tmp_path / "scalar")
        other = self.make_vector(**self.refused)
        other.reset(seed=9)
        with pytest.raises(ConfigError, match=next(iter(self.refused))):
            other.load_state(tmp_path / "state")
        assert [run.seed for run in other.population.runs] == [9, 10, 11]


class TestTiny(VectorEnvContract, Tiny):
    autoreset_steps = 6  # the third student's reset is the last of three


class WithoutAdapters(VectorEnvContract):
    def test_there_are_no_adapters_samples_or_timings(self, trio: Any, tmp_path: Path) -> None:
        trio.reset(seed=0)
        trio.step(self.action(0.1, 0.2, 0.3))
        assert trio.samples(0) == []
        assert trio.timings == {}
        with pytest.raises(ConfigError, match="save_adapter: expected a language model as student"):
            trio.save_adapter(0, tmp_path)


class TestToy(WithoutAdapters, Toy):
    pass


class TestSurrogate(WithoutAdapters, Surrogate):
    pass
