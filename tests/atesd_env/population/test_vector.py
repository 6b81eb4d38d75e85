"""K students in one Gymnasium vector environment: its form, its autoreset, and each student as it would be alone."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics, RescaleAction

import atesd_env
from atesd_env.config import EnvConfig, preset
from atesd_env.envs.branch import counterfactual
from atesd_env.envs.columns import COLUMNS, TOY_COLUMNS
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.errors import AtesdError, ConfigError
from atesd_env.population.environment import TeacherExposureEnv
from atesd_env.population.vector import TeacherExposureVectorEnv
from atesd_env.simulated.toy import ToyExposureEnv

VECTOR: dict[str, Any] = {"vectorization_mode": "vector_entry_point"}
CLOSE = {"rtol": 1e-3, "atol": 1e-5}
"""Batches of other sizes round differently; the tolerance of the population's own tests."""


def toy(num_envs: int = 3, **fields: Any) -> TeacherExposureVectorEnv:
    return TeacherExposureVectorEnv(preset("ATESD-Toy-v0", **{"windows": 3, **fields}), num_envs)


@pytest.fixture
def trio(tiny_config: EnvConfig) -> TeacherExposureVectorEnv:
    return TeacherExposureVectorEnv(tiny_config, 3)


def column(*ratios: float) -> np.ndarray:
    """Actions [K, 1]."""
    return np.array(ratios, dtype=np.float32)[:, None]


def by_student(infos: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Undoes the vector form: what each student's info holds, without what was not measured.

    Gymnasium's collector makes of a scalar environment's None a NaN, where numbers came before it, or leaves it.
    """
    names = [name for name in infos if not name.startswith("_")]
    students: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for name in names:
        for index in np.flatnonzero(infos[f"_{name}"]).tolist():
            value = infos[name][index]
            if value is not None and value == value:  # noqa: PLR0124 (NaN is not itself)
                students[index][name] = value
    return students


def assert_same_step(left: tuple[Any, ...], right: tuple[Any, ...]) -> None:
    for one, other in zip(left[:-1], right[:-1], strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert by_student(left[-1], len(left[0])) == by_student(right[-1], len(right[0]))


@pytest.mark.parametrize("env_id", atesd_env.PRESETS)
@pytest.mark.parametrize("mode", [VECTOR, {}])
def test_every_id_makes_a_population_without_loading_its_student(env_id: str, mode: dict[str, Any]):
    env = gymnasium.make_vec(env_id, num_envs=4, windows=2, groups=2, **mode)
    assert isinstance(env, TeacherExposureVectorEnv)
    assert env.config == preset(env_id, windows=2, groups=2)
    assert env.num_envs == 4
    assert env.single_action_space.shape == (2,)
    assert env.spec is not None
    assert env.spec.id == env_id
    assert isinstance(gymnasium.make_vec(env.spec), TeacherExposureVectorEnv)
    assert callable(load_env_creator(str(gymnasium.spec(env_id).vector_entry_point)))
    env.close()


@pytest.mark.parametrize("groups", [1, 2])
def test_spaces_shapes_and_types(groups: int):
    env = toy(num_envs=5, groups=groups)
    observations, infos = env.reset(seed=0)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert env.observation_space.shape == (5, len(FEATURE_NAMES))
    assert env.action_space.shape == (5, groups)
    assert env.single_observation_space == ToyExposureEnv(groups=groups).observation_space
    assert env.single_action_space == ToyExposureEnv(groups=groups).action_space
    assert env.observation_space.contains(observations)
    np.testing.assert_array_equal(infos["seed"], [0, 1, 2, 3, 4])
    env.action_space.seed(0)
    observations, rewards, terminations, truncations, infos = env.step(env.action_space.sample())
    assert env.observation_space.contains(observations)
    assert (rewards.shape, rewards.dtype) == ((5,), np.float64)
    assert (terminations.shape, terminations.dtype) == ((5,), np.bool_)
    assert (truncations.shape, truncations.dtype) == ((5,), np.bool_)
    assert all(len(infos[name]) == 5 for name in infos)


def test_what_a_caller_changes_does_not_reach_the_environment():
    first, second = toy(), toy()
    observations, _ = first.reset(seed=0)
    second.reset(seed=0)
    observations[:] = 9.0
    step = first.step(column(0.1, 0.2, 0.3))
    step[3][:] = True
    assert_same_step(first.step(column(0.1, 0.2, 0.3)), [second.step(column(0.1, 0.2, 0.3)) for _ in range(2)][1])


@pytest.mark.parametrize("seed", [7, [4, 9, 4]])
def test_autoreset_is_gymnasiums_next_step_to_the_bit(seed: int | list[int]):
    """Against SyncVectorEnv of scalar environments, over three episodes with students out of step with each other."""
    fields = {"windows": 3, "toy_noise": 0.1}
    ours = toy(**fields)
    theirs = SyncVectorEnv([lambda: ToyExposureEnv(**fields)] * 3)
    rng = np.random.default_rng(0)
    left, right = ours.reset(seed=seed), theirs.reset(seed=seed)
    num_resets = 0
    for step in range(14):
        np.testing.assert_array_equal(left[0], right[0])
        if step == 2:
            mask = {"reset_mask": np.array([False, True, False])}
            left, right = ours.reset(options=mask), theirs.reset(options=dict(mask))
            assert_same_step(left, right)
        actions = rng.random((3, 1)).astype(np.float32)
        left, right = ours.step(actions), theirs.step(actions)
        assert_same_step(left, right)
        num_resets += int(left[-1].get("_seed", np.zeros(3)).sum())
    assert num_resets == 9


def test_a_resetting_students_action_is_not_looked_at():
    env = toy(windows=1)
    env.reset(seed=0)
    *_, truncations, _ = env.step(column(0.1, 0.2, 0.3))
    assert truncations.all()
    _, rewards, terminations, truncations, infos = env.step(column(np.nan, 7.0, 0.3))
    assert not rewards.any()
    assert not terminations.any()
    assert not truncations.any()
    assert len(set(infos["seed"].tolist())) == 3
    assert "window" not in infos


def test_unnamed_seeds_are_drawn_for_each_student():
    env = toy()
    _, infos = env.reset(seed=[3, None, 3])
    first = infos["seed"].tolist()
    assert first[0] == first[2] == 3
    second, third = (env.reset()[1]["seed"].tolist() for _ in range(2))
    assert second[0] == second[2], "students with one seed draw alike"
    assert len({first[1], second[0], second[1], third[0], third[1]}) == 5
    assert toy().reset()[1]["seed"].tolist() != toy().reset()[1]["seed"].tolist()


def test_masked_reset_leaves_the_others_where_they_are():
    env = toy(windows=9)
    env.reset(seed=0)
    before, *_ = env.step(column(0.1, 0.2, 0.3))
    options = {"reset_mask": np.array([False, True, False])}
    after, infos = env.reset(seed=20, options=options)
    assert list(options) == ["reset_mask"]
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    assert (after[1] != before[1]).any()
    assert by_student(infos, 3)[1]["seed"] == 21
    assert infos["_seed"].tolist() == [False, True, False]
    *_, infos = env.step(column(0.1, 0.2, 0.3))
    assert infos["window"].tolist() == [2, 1, 2]


@pytest.mark.parametrize(
    "mask", [[True, False, False], np.array([1, 0, 0]), np.array([True]), np.zeros(3, dtype=np.bool_)]
)
def test_bad_reset_mask_is_refused(mask: Any):
    env = toy()
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="reset_mask: expected a bool array of shape"):
        env.reset(options={"reset_mask": mask})


def test_misuse_is_refused_with_a_remedy_and_costs_nothing():
    with pytest.raises(ConfigError, match="num_envs: expected a whole number"):
        toy(num_envs=0)
    with pytest.raises(ConfigError, match="did you mean 'windows'"):
        gymnasium.make_vec("ATESD-Tiny-v0", num_envs=2, window=2, **VECTOR)
    with pytest.raises(ConfigError, match="render_mode"):
        gymnasium.make_vec("ATESD-Toy-v0", num_envs=2, render_mode="human", **VECTOR)
    env, twin = toy(), toy()
    with pytest.raises(AtesdError, match="call reset"):
        env.step(column(0.1, 0.2, 0.3))
    with pytest.raises(AtesdError, match=r"but \[1, 2\] have not"):
        env.reset(options={"reset_mask": np.array([True, False, False])})
    with pytest.raises(ConfigError, match="expected one seed for each of 3 students, got 2"):
        env.reset(seed=[1, 2])
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(ConfigError, match=r"student 2: action: expected reveal ratios in \[0, 1\], got nan"):
        env.step(column(0.1, 0.2, np.nan))
    with pytest.raises(ConfigError, match=r"expected shape \(3, 1\)"):
        env.step(column(0.1, 0.2))
    assert_same_step(env.step(column(0.1, 0.2, 0.3)), twin.step(column(0.1, 0.2, 0.3)))


def test_infos_are_arrays_with_masks_whatever_was_measured():
    env = toy(windows=4, probe_accuracy_every=2)
    env.reset(seed=0)
    env.step(column(0.1, 0.2, 0.3))
    env.reset(options={"reset_mask": np.array([False, False, True])})
    *_, infos = env.step(column(0.1, 0.2, 0.3))
    assert {name for name in infos if not name.startswith("_")} == {entry.name for entry in (*COLUMNS, *TOY_COLUMNS)}
    assert infos["probe/accuracy"].dtype == np.float64
    assert infos["_probe/accuracy"].tolist() == [True, True, False]
    assert np.isnan(infos["probe/accuracy"]).tolist() == [False, False, True]
    assert infos["window"].dtype.kind == "i"
    assert np.isnan(infos["probe/pass_at_k"]).all(), "never measured: the name is there, the mask is empty"
    assert not infos["_probe/pass_at_k"].any()


def test_gymnasiums_vector_wrappers_work():
    env = DictInfoToList(RecordEpisodeStatistics(RescaleAction(toy(windows=2), np.float32(-1), np.float32(1))))
    env.reset(seed=0)
    rewards = [env.step(column(-1.0, 0.0, 1.0))]
    rewards.append(env.step(column(-1.0, 0.0, 1.0)))
    infos = rewards[1][-1]
    for index in range(3):
        assert infos[index]["exposure/reveal_ratio"] == pytest.approx([0.0, 0.5, 1.0][index])
        assert infos[index]["episode"]["r"] == pytest.approx(rewards[0][1][index] + rewards[1][1][index])
        assert infos[index]["episode"]["l"] == 2


@pytest.mark.parametrize("mode", ["ansi", "rgb_array", None])
def test_renders_each_student(mode: str | None):
    env = gymnasium.make_vec("ATESD-Toy-v0", num_envs=2, render_mode=mode, windows=3, **VECTOR)
    env.reset(seed=0)
    env.step(column(0.1, 0.9))
    frames = env.render()
    if mode is None:
        assert frames is None
    elif mode == "ansi":
        assert "0.10" in frames[0]
        assert "0.90" in frames[1]
    else:
        assert all(frame.dtype == np.uint8 and frame.ndim == 3 for frame in frames)
        assert (frames[0] != frames[1]).any()


def test_closing_twice_is_fine_and_a_reset_brings_it_back():
    env = toy()
    first = env.reset(seed=0)
    env.close()
    env.close()
    with pytest.raises(AtesdError, match="call reset"):
        env.step(column(0.1, 0.2, 0.3))
    assert_same_step(env.reset(seed=0), first)


def test_students_differ_and_the_whole_repeats_to_the_bit(tiny_config: EnvConfig):
    """Over an episode and the reset after it, adapters included; another seed gives another run."""

    def play(seed: int) -> tuple[list[tuple[Any, ...]], torch.Tensor]:
        env = TeacherExposureVectorEnv(tiny_config.replace(windows=2), 3)
        steps = [env.reset(seed=seed)] + [env.step(column(0.0, 0.5, 1.0)) for _ in range(3)]
        return steps, env.population.adapters.flat.clone()

    first, again, other = play(5), play(5), play(6)
    for left, right in zip(first[0], again[0], strict=True):
        assert_same_step(left, right)
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    losses = first[0][1][-1]["student/loss"]
    assert len(set(losses.tolist())) == 3
    assert losses[0] != other[0][1][-1]["student/loss"][0]


def test_each_student_is_the_scalar_environment_with_its_seed(tiny_config: EnvConfig):
    """Against SyncVectorEnv, over one short episode, its end, and the first window of the next."""
    config = tiny_config.replace(windows=2)
    ours, theirs = TeacherExposureVectorEnv(config, 3), SyncVectorEnv([lambda: TeacherExposureEnv(config)] * 3)
    left, right = ours.reset(seed=[5, 8, 5]), theirs.reset(seed=[5, 8, 5])
    for step in range(5):
        np.testing.assert_allclose(left[0], right[0], **CLOSE)
        for one, other in zip(by_student(left[-1], 3), by_student(right[-1], 3), strict=True):
            assert set(one) == set(other)
            for name in one:
                np.testing.assert_allclose(one[name], other[name], **CLOSE, err_msg=name)
        if step:
            np.testing.assert_allclose(left[1], right[1], **CLOSE)
            np.testing.assert_array_equal(left[2], right[2])
            np.testing.assert_array_equal(left[3], right[3])
            assert left[3].all() == (step == 2)
        actions = column(0.0, 1.0, 0.6)
        left, right = ours.step(actions), theirs.step(actions)


def test_a_student_that_breaks_starts_anew_while_the_others_train_on(trio: TeacherExposureVectorEnv):
    trio.reset(seed=0)
    trio.population.adapters.flat[1].fill_(float("nan"))
    observations, rewards, terminations, truncations, infos = trio.step(column(0.2, 0.5, 0.8))
    assert terminations.tolist() == [False, True, False]
    assert not truncations.any()
    assert rewards[1] == -trio.config.collapse_nll
    assert infos["_termination_reason"].tolist() == terminations.tolist()
    assert infos["termination_reason"][1].startswith("non-finite")
    assert infos["_student/loss"].tolist() == [True, False, True]
    assert trio.observation_space.contains(observations)
    before = trio.population.adapters.flat.clone()
    _, rewards, terminations, _, infos = trio.step(column(0.2, 0.5, 0.8))
    assert rewards[1] == 0.0
    assert not terminations.any()
    assert infos["_seed"].tolist() == [False, True, False]
    assert infos["window"].tolist() == [2, 0, 2]
    assert not torch.equal(trio.population.adapters.flat[0], before[0])
    assert torch.isfinite(trio.population.adapters.flat).all()
    *_, truncations, infos = trio.step(column(0.2, 0.5, 0.8))
    assert infos["window"].tolist() == [3, 1, 3]
    assert truncations.tolist() == [True, False, True]


def test_a_snapshot_repeats_in_its_slot_and_moves_to_another_and_to_a_scalar_environment(
    trio: TeacherExposureVectorEnv,
):
    trio.reset(seed=0)
    trio.step(column(0.2, 0.5, 0.8))
    states = [trio.snapshot(index) for index in range(3)]
    first = trio.step(column(0.2, 0.9, 0.8))
    for index, state in enumerate(states):
        trio.restore(index, state)
    assert_same_step(trio.step(column(0.2, 0.9, 0.8)), first)

    trio.restore(0, states[1])
    trio.restore(1, states[1])
    moved = trio.step(column(0.9, 0.9, 0.1))
    scalar = TeacherExposureEnv(trio.config)
    scalar.restore(states[1])
    observation, reward, _, _, info = scalar.step(np.array([0.9], dtype=np.float32))
    for index in (0, 1):
        np.testing.assert_allclose(moved[0][index], first[0][1], **CLOSE)
        np.testing.assert_allclose(moved[0][index], observation, **CLOSE)
        np.testing.assert_allclose(moved[1][index], reward, **CLOSE)
        assert moved[-1]["rollout/num_tokens"][index] == info["rollout/num_tokens"]
        assert moved[-1]["window"][index] == 2

    back = scalar.snapshot()
    trio.restore(2, back)
    assert torch.equal(trio.population.adapters.flat[2], scalar.population.adapters.flat[0])


def test_a_closed_forms_snapshot_moves_too_and_an_ended_run_starts_anew():
    env = toy(windows=1)
    env.reset(seed=0)
    env.step(column(0.1, 0.2, 0.3))
    assert not env.is_running.any()
    ended = env.snapshot(2)
    env.step(column(0.1, 0.2, 0.3))
    env.restore(0, ended)
    *_, infos = env.step(column(0.1, 0.2, 0.3))
    assert infos["_seed"].tolist() == [True, False, False]
    scalar = ToyExposureEnv(windows=2)
    scalar.reset(seed=4)
    scalar.step([0.3])
    env = toy(num_envs=1, windows=2)
    env.restore(0, scalar.snapshot())
    scalar.restore(env.snapshot(0))
    assert env.step(column(0.5))[1][0] == scalar.step([0.5])[1]


def test_a_pickled_copy_goes_on_where_it_was(trio: TeacherExposureVectorEnv):
    trio.reset(seed=0)
    trio.step(column(0.2, 0.5, 0.8))
    copy = pickle.loads(pickle.dumps(trio))
    for _ in range(3):  # the last step starts new runs, whose seeds are drawn
        assert_same_step(trio.step(column(0.2, 0.5, 0.8)), copy.step(column(0.2, 0.5, 0.8)))
    assert pickle.loads(pickle.dumps(toy())).config == toy().config


def test_samples_and_adapters_are_a_students_own(trio: TeacherExposureVectorEnv, tmp_path):
    trio.reset(seed=0)
    trio.step(column(0.0, 0.5, 1.0))
    assert [trio.samples(index)[0]["reveal_ratio"] for index in range(3)] == [0.0, 0.5, 1.0]
    assert set(trio.timings) == {"time/rollout_sec", "time/update_sec", "time/probe_sec"}
    trio.save_adapter(1, tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    again = TeacherExposureEnv(trio.config.replace(adapter=str(tmp_path / "adapter")))
    again.reset(seed=0)
    assert torch.equal(again.population.adapters.flat[0], trio.population.adapters.flat[1])
    closed_form = toy()
    closed_form.reset(seed=0)
    assert closed_form.samples(0) == []
    assert closed_form.timings == {}
    with pytest.raises(ConfigError, match="got the closed form"):
        closed_form.save_adapter(0, tmp_path)


def test_make_vec_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gymnasium.make_vec("ATESD-Toy-v0", num_envs=2, **VECTOR).reset(seed=0)


def test_students_of_different_instances_learn_what_they_would_learn_alone(tiny_config: EnvConfig):
    """Different problems and step sizes in one population; each student equals the scalar environment of its instance."""
    instances = [
        {"learning_rate": 5e-3, "min_addends": 2, "max_addends": 3},
        {"learning_rate": 5e-4},
        {"divergence": "jsd", "max_grad_norm": 0.1},
    ]
    config = tiny_config.replace(windows=2, hold_window=1)
    env = TeacherExposureVectorEnv(config, 3, instances=instances)
    env.reset(seed=[7, 7, 7])
    actions = column(0.5, 0.5, 0.5)
    env.step(actions)
    observations, rewards, *_ = env.step(actions)
    adapters = [env.snapshot(index)[0].adapter for index in range(3)]
    assert not any(torch.allclose(adapters[left], adapters[right]) for left, right in ((0, 1), (0, 2), (1, 2)))
    for index, fields in enumerate(instances):
        alone = TeacherExposureEnv(config=config.replace(**fields))
        alone.reset(seed=7)
        alone.step(actions[index])
        observation, reward, *_ = alone.step(actions[index])
        np.testing.assert_allclose(observations[index], observation, **CLOSE)
        np.testing.assert_allclose(rewards[index], reward, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(adapters[index], alone.population.snapshot(0).adapter, rtol=0, atol=1e-3)


def test_instances_that_do_not_fit_are_refused(tiny_config: EnvConfig):
    for instances, message in (
        ([{}], "one dictionary of fields for each of 2 students, got 1"),
        ([{}, {"num_rollouts": 3}], "got 'num_rollouts'"),
        ([{}, {"learning_rat": 1e-3}], "did you mean 'learning_rate'"),
        ([{}, {"learning_rate": -1.0}], "learning_rate"),
    ):
        with pytest.raises(ConfigError, match=message):
            TeacherExposureVectorEnv(tiny_config, 2, instances=instances).reset(seed=0)
    with pytest.raises(ConfigError, match="closed form"):
        gymnasium.make_vec("ATESD-Toy-v0", num_envs=1, instances=[{}], **VECTOR)


def test_a_counterfactual_follows_the_instance_of_its_student(tiny_config: EnvConfig):
    """The second student takes no steps (learning rate 0), and neither do its branches."""
    config = tiny_config.replace(windows=3, hold_window=1)
    env = TeacherExposureVectorEnv(config, 2, instances=[{}, {"learning_rate": 0.0}])
    env.reset(seed=[1, 1])
    nll = [run.probe_nll for run in env.population.runs]
    still = counterfactual(env, [0.0, 1.0], windows=1, student=1)
    moving = counterfactual(env, [0.0, 1.0], windows=1, student=0)
    assert still["probe/nll"].tolist() == pytest.approx([nll[1]] * 2, abs=1e-6)
    assert abs(moving["probe/nll"] - nll[0]).min() > 1e-4


def play(env: TeacherExposureVectorEnv, steps: int) -> list[tuple[Any, ...]]:
    """Steps with ratios that differ from student to student and from step to step."""
    return [
        env.step(np.linspace(0.1 * step, 1.0, env.num_envs, dtype=np.float32)[:, None] % 1.0) for step in range(steps)
    ]


def test_a_file_holds_all_students_and_the_seeds_to_come(tmp_path):
    """Closed form: two of three students are in the middle of a run, the third's next step starts a new one."""
    env = toy(3, windows=4)
    env.reset(seed=3)
    play(env, 3)
    env.reset(options={"reset_mask": np.array([True, True, False])})
    play(env, 1)
    assert env.is_running.tolist() == [True, True, False]
    env.save_state(tmp_path / "state")
    expected = play(env, 7)
    again = toy(3, windows=4)
    again.load_state(tmp_path / "state")
    for ours, theirs in zip(play(again, 7), expected, strict=True):
        assert_same_step(ours, theirs)
    third = toy(3, windows=4)
    observations, infos = third.reset(options={"state": tmp_path / "state"})
    assert observations.shape == env.observation_space.shape
    assert infos["seed"].tolist()[2] == 5
    assert_same_step(play(third, 1)[0], expected[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_of_language_model_students_repeats_bit_for_bit(tiny_config: EnvConfig, tmp_path, workers: int):
    config = tiny_config.replace(windows=2, hold_window=1, teacher="ema")
    make = lambda: TeacherExposureVectorEnv(config, 2, workers=workers, instances=[{}, {"learning_rate": 1e-4}])  # noqa: E731
    env = make()
    env.reset(seed=1)
    play(env, 1)
    env.save_state(tmp_path / "state")
    expected = play(env, 3)  # through an autoreset
    adapters = [env.snapshot(index)[0].adapter for index in range(2)]
    env.close()
    again = make()
    again.load_state(tmp_path / "state")
    for ours, theirs in zip(play(again, 3), expected, strict=True):
        assert_same_step(ours, theirs)
    assert all(torch.equal(again.snapshot(index)[0].adapter, adapters[index]) for index in range(2))
    again.close()


def test_states_that_do_not_fit_are_refused_and_change_nothing(tmp_path):
    env = toy(2)
    with pytest.raises(AtesdError, match="reset"):
        env.save_state(tmp_path / "state")
    env.reset(seed=0)
    env.save_state(tmp_path / "state")
    scalar = ToyExposureEnv(windows=3)
    scalar.reset(seed=0)
    scalar.save_state(tmp_path / "scalar")
    with pytest.raises(ConfigError, match="expected that of 3 students, got 2 students"):
        toy(3).load_state(tmp_path / "state")
    with pytest.raises(ConfigError, match="got a scalar environment's"):
        env.load_state(tmp_path / "scalar")
    other = toy(2, toy_noise=0.5)
    other.reset(seed=9)
    with pytest.raises(ConfigError, match="toy_noise"):
        other.load_state(tmp_path / "state")
    assert [run.seed for run in other.population.runs] == [9, 10]
