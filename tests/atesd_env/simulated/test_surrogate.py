"""The surrogate environment, on a model made by hand whose windows can be computed in the head."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import atesd_env  # noqa: F401  (registers the ids)
from atesd_env.config import preset
from atesd_env.envs.branch import counterfactual, exposure_scores
from atesd_env.envs.columns import COLUMNS
from atesd_env.envs.contract import make_spaces
from atesd_env.envs.infos import vector_infos
from atesd_env.envs.observation import FEATURE_NAMES, RunningStatistics, advance, observation
from atesd_env.errors import ConfigError, ExtrapolationError, NoEpisodeError, RunFilesError
from atesd_env.files.checkpoint import Checkpoint, write_checkpoint
from atesd_env.simulated.surrogate import ExtrapolationWarning, SurrogateExposureEnv, SurrogateExposureVectorEnv
from atesd_env.simulated.surrogate_model import (
    QUANTITIES,
    SurrogateModel,
    WindowModel,
    decode,
    encode,
    expand,
    input_names,
)
from tests.atesd_env.simulated.hand_made import QUANTITY, WINDOWS, surrogate_model, window_model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "surrogate.safetensors"
    surrogate_model().save(path)
    return path


def play(env: SurrogateExposureEnv, ratios: list[float], seed: int | None = 0) -> list[tuple[Any, ...]]:
    """Resets, steps through ratios, and returns everything that came out."""
    observation, info = env.reset(seed=seed)
    seen: list[tuple[Any, ...]] = [(observation.tolist(), info)]
    for ratio in ratios:
        observation, *rest = env.step(np.full(env.config.groups, ratio))
        seen.append((observation.tolist(), *rest))
    return seen


def test_it_is_made_by_id_and_has_what_it_was_fitted_on(file: Path):
    env = gymnasium.make("ATESD-Surrogate-v0", file=str(file)).unwrapped
    envs = gymnasium.make_vec("ATESD-Surrogate-v0", num_envs=3, file=file)
    assert isinstance(env, SurrogateExposureEnv)
    assert isinstance(envs, SurrogateExposureVectorEnv)
    config = preset("ATESD-Tiny-v0", windows=WINDOWS)
    for one, spaces in (
        (env, (env.observation_space, env.action_space)),
        (envs, (envs.single_observation_space, envs.single_action_space)),
    ):
        assert one.config == config
        assert one.feature_names == FEATURE_NAMES
        assert spaces == make_spaces(config)
    assert envs.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.NEXT_STEP


def test_a_window_is_what_the_model_says():
    env = SurrogateExposureEnv(surrogate_model(grounded_weight=0.2))
    (_, first), (_, reward, terminated, truncated, info), second = play(env, [0.3, 0.5])[:3]
    assert first["probe/nll"] in (4.0, 5.0, 6.0)
    drop = first["probe/nll"] - info["probe/nll"]
    assert min(abs(drop - 0.39), abs(drop - 0.41)) < 1e-12, "0.1 + 0.3, and noise of 0.01"
    assert info["reward/progress"] == pytest.approx(drop)
    assert reward == info["reward/total"] == pytest.approx(drop + 0.2 * 0.25)
    assert (terminated, truncated) == (False, False)
    assert info["student/loss"] == pytest.approx(math.exp(0.3))
    assert info["student/self_confidence"] == 0.25
    assert info["rollout/length"] == 0.25 * env.config.max_new_tokens
    assert info["exposure/reveal_ratio"] == 0.3
    assert info["surrogate/is_extrapolating"] is False
    assert second[-1]["window"] == 2
    assert second[-1]["update"] == 2 * env.config.hold_window


@pytest.mark.parametrize("groups", [1, 2])
def test_info_is_a_row_with_the_types_of_rows(groups: int):
    info = play(SurrogateExposureEnv(surrogate_model(groups)), [0.25])[1][-1]
    extra = [f"exposure/reveal_ratio_{group}" for group in range(groups)] if groups > 1 else []
    assert list(info) == [*(column.name for column in COLUMNS), *extra, "surrogate/is_extrapolating"]
    for column in COLUMNS:
        null = column.name in ("probe/accuracy", "probe/pass_at_k")
        assert isinstance(info[column.name], type(None) if null else int if column.type == "int" else float)


def test_the_observation_is_that_of_the_rows():
    """What ``statistics.advance`` makes of the same rows, one after the other."""
    env = SurrogateExposureEnv(surrogate_model())
    seen = play(env, [0.1, 0.5, 0.0, 0.3])
    statistics = RunningStatistics(probe_nll_ema=seen[0][1]["probe/nll"])
    for features, *_, row in seen[1:]:
        statistics = advance(
            statistics,
            row,
            windows=WINDOWS,
            max_new_tokens=env.config.max_new_tokens,
            ema_coefficient=env.config.ema_coefficient,
        )
        np.testing.assert_allclose(features, observation(statistics), rtol=1e-6)
    assert env.snapshot().statistics == pytest.approx(statistics)


def test_seeds_repeat_and_noise_does_not_depend_on_actions():
    model = surrogate_model()
    ratios = [0.1, 0.2, 0.3, 0.4]
    assert play(SurrogateExposureEnv(model), ratios, seed=7) == play(SurrogateExposureEnv(model), ratios, seed=7)
    firsts = {play(SurrogateExposureEnv(model), [], seed=seed)[0][1]["probe/nll"] for seed in range(20)}
    assert firsts == {4.0, 5.0, 6.0}

    def noise(ratio: float, seed: int) -> list[float]:
        nll = [step[-1]["probe/nll"] for step in play(SurrogateExposureEnv(model), [ratio] * WINDOWS, seed=seed)]
        return [round(before - after - 0.1 - ratio, 6) for before, after in itertools.pairwise(nll)]

    assert noise(0.1, seed=3) == noise(0.4, seed=3)
    assert len({tuple(noise(0.1, seed=seed)) for seed in range(20)}) > 5
    env = SurrogateExposureEnv(model)
    seeds = [env.reset(seed=3)[1]["seed"], env.reset()[1]["seed"], env.reset()[1]["seed"]]
    assert seeds[0] == 3
    assert len(set(seeds)) == 3


@pytest.mark.parametrize("groups", [1, 2])
def test_a_vector_of_runs_is_the_runs_one_by_one(groups: int):
    """Over two episodes and the step between them; infos in the form of ``vector_infos``."""
    model = surrogate_model(groups)
    envs = SurrogateExposureVectorEnv(model, num_envs=3)
    singles = [SurrogateExposureEnv(model) for _ in range(3)]
    rng = np.random.default_rng(0)
    observations, infos = envs.reset(seed=5)
    results = [env.reset(seed=5 + index) for index, env in enumerate(singles)]
    np.testing.assert_allclose(observations, [result[0] for result in results], rtol=1e-6)
    assert_same_infos(infos, vector_infos([result[1] for result in results]))
    for step in range(2 * WINDOWS + 1):
        actions = rng.uniform(0.0, 0.5, (3, groups)).astype(np.float32)
        observations, rewards, terminations, truncations, infos = envs.step(actions)
        if step == WINDOWS:
            seeds = infos["seed"].tolist()
            assert len(set(seeds)) == 3
            results = [(*env.reset(seed=seed), 0.0, False, False) for env, seed in zip(singles, seeds, strict=True)]
            expected = [(result[0], 0.0, False, False, result[1]) for result in results]
        else:
            expected = [env.step(action) for env, action in zip(singles, actions, strict=True)]
        np.testing.assert_allclose(observations, [result[0] for result in expected], rtol=1e-6)
        np.testing.assert_allclose(rewards, [result[1] for result in expected], rtol=1e-12)
        assert terminations.tolist() == [result[2] for result in expected]
        assert truncations.tolist() == [result[3] for result in expected]
        assert_same_infos(infos, vector_infos([result[4] for result in expected]))
    assert truncations.all()


def assert_same_infos(infos: dict[str, Any], expected: dict[str, Any]) -> None:
    assert infos.keys() == expected.keys()
    for name, values in expected.items():
        if name == "surrogate/reason":
            assert infos[name].tolist() == values.tolist()
        else:
            np.testing.assert_allclose(infos[name].astype(float), values.astype(float), rtol=1e-12, err_msg=name)
        if name.lstrip("_") in {column.name for column in COLUMNS}:
            assert infos[name].dtype == values.dtype, name


def test_runs_that_end_at_different_times_do_not_disturb_each_other():
    """The first run of two is truncated by an extrapolation in window 2, and starts anew while the other goes on."""
    envs = SurrogateExposureVectorEnv(surrogate_model(), num_envs=2)
    envs.reset(seed=[1, 2])
    windows, ends = [], []
    for actions in ([0.1, 0.1], [0.9, 0.1], [0.1, 0.1], [0.1, 0.1], [0.1, 0.1]):
        _, rewards, _, truncations, infos = envs.step(np.array(actions)[:, None])
        windows.append(infos["window"].tolist())
        ends.append(truncations.tolist())
    assert windows == [[1, 1], [2, 2], [0, 3], [1, 4], [2, 0]]
    assert ends == [[False, False], [True, False], [False, False], [False, True], [False, False]]
    assert rewards[1] == 0.0
    assert envs.snapshot(0).rows[1]["window"] == 2


def test_extrapolation_ends_the_episode_and_says_why():
    env = SurrogateExposureEnv(surrogate_model())
    reached, asked = play(env, [0.3, 0.9])[1:]
    assert reached[3] is False
    assert asked[2:4] == (False, True), "truncated, not terminated: a value-based agent bootstraps"
    assert asked[-1]["surrogate/is_extrapolating"] is True
    assert asked[-1]["surrogate/reason"] == "reveal_ratio 0.9 outside [0, 0.5]"
    nearest = play(SurrogateExposureEnv(surrogate_model()), [0.3, 0.5])[-1]
    assert asked[-1]["probe/nll"] == nearest[-1]["probe/nll"], "made for the nearest ratio that is known"
    assert asked[-1]["exposure/reveal_ratio"] == 0.9, "but the row says what was asked for"
    with pytest.raises(NoEpisodeError):
        env.step(np.array([0.3]))


def test_an_episode_that_an_extrapolation_cut_stays_ended_wherever_it_is_restored(tmp_path: Path):
    env = SurrogateExposureEnv(surrogate_model())
    play(env, [0.3, 0.9])
    env.save_state(tmp_path / "state")
    for way in ("memory", "file"):
        other = SurrogateExposureEnv(surrogate_model())
        other.restore(env.snapshot()) if way == "memory" else other.load_state(tmp_path / "state")
        with pytest.raises(NoEpisodeError):
            other.step(np.array([0.3]))
    going_on = SurrogateExposureEnv(surrogate_model(), on_extrapolation="warn")
    going_on.load_state(tmp_path / "state")
    assert going_on.step(np.array([0.3]))[-1]["window"] == 3, "where extrapolations end no episode"
    envs = SurrogateExposureVectorEnv(surrogate_model(), num_envs=2)
    envs.reset(seed=0)
    envs.restore(1, env.snapshot())
    assert envs.is_running.tolist() == [True, False]


def test_extrapolation_can_be_warned_of_and_the_episode_goes_on():
    env = SurrogateExposureEnv(surrogate_model(), on_extrapolation="warn")
    env.reset(seed=0)
    with pytest.warns(ExtrapolationWarning, match="surrogate/reason"):
        *_, truncated, info = env.step(np.array([0.9]))
    assert truncated is False
    assert info["surrogate/is_extrapolating"] is True
    assert env.step(np.array([0.3]))[-1]["surrogate/is_extrapolating"] is False


def test_extrapolation_can_be_refused_and_nothing_has_changed():
    env = SurrogateExposureEnv(surrogate_model(), on_extrapolation="raise")
    env.reset(seed=0)
    with pytest.raises(ExtrapolationError, match=re.escape("student 0: expected a window like those")):
        env.step(np.array([0.9]))
    assert env.step(np.array([0.3]))[-1] == play(SurrogateExposureEnv(surrogate_model()), [0.3])[-1][-1]
    envs = SurrogateExposureVectorEnv(surrogate_model(), num_envs=3, on_extrapolation="raise")
    envs.reset(seed=0)
    with pytest.raises(ExtrapolationError, match=re.escape("student 2: ")):
        envs.step(np.array([[0.1], [0.1], [0.6]]))
    assert envs.step(np.full((3, 1), 0.3))[-1]["window"].tolist() == [1, 1, 1]


def test_a_state_far_from_all_others_is_an_extrapolation_though_each_number_is_known():
    groups = 1
    size = len(input_names("later", groups))
    whitening = np.eye(size)
    model = surrogate_model()
    # The ratio and the probe NLL were never seen apart by more than 3.
    whitening[0, -1], whitening[-1, -1] = -1.0, 1.0
    later = window_model("later", groups, whitening=whitening, largest_distance=4.6)
    env = SurrogateExposureEnv(SurrogateModel(model.config, model.first, later, np.array([4.0]), {}))
    known = play(env, [0.5, 0.5])[-1]
    assert known[-1]["surrogate/is_extrapolating"] is True
    assert re.fullmatch(r"distance \d.* from the training windows above 4.6", known[-1]["surrogate/reason"])


def test_what_is_not_a_number_is_outside():
    support = window_model("first", 1).support
    assert support.is_outside(np.array([[4.0, 0.2], [np.nan, 0.2], [4.0, np.nan]])).tolist() == [False, True, True]


def test_a_prediction_stays_near_what_was_seen():
    model = window_model("first", 1)
    model.arrays["intercept"][QUANTITY["student/loss"]] = 1e6
    (predicted,) = model.predict(np.array([[4.0, 0.5]]))
    assert predicted[QUANTITY["student/loss"]] == 3.0
    assert predicted[QUANTITY["probe/nll"]] == pytest.approx(-0.6)


def test_groups_are_named_in_the_reason():
    env = SurrogateExposureEnv(surrogate_model(groups=2))
    env.reset(seed=0)
    assert env.step(np.array([0.1, 0.8]))[-1]["surrogate/reason"] == "reveal_ratio_1 0.8 outside [0, 0.5]"


def test_reward_fields_may_differ_from_those_of_the_runs_and_others_may_not():
    model = surrogate_model()
    every_field = {**model.config.__dict__, "grounded_weight": 2.0, "progress": "signed", "gamma": 0.5}
    env = SurrogateExposureEnv(model, **every_field)
    assert env.config.gamma == 0.5
    _, reward, *_, info = play(env, [0.5])[1]
    assert reward == pytest.approx(info["reward/progress"] + 2.0 * 0.25)
    with pytest.raises(ConfigError, match=re.escape("other values of windows (4 there, 9 asked for)")):
        SurrogateExposureEnv(model, windows=9)
    with pytest.raises(ConfigError, match="did you mean 'gamma'"):
        SurrogateExposureEnv(model, gama=0.5)


def test_signed_progress_can_be_negative_and_positive_cannot():
    model = surrogate_model()
    rising = window_model("later", 1)
    rising.arrays["intercept"][QUANTITY["probe/nll"]] = 1.0
    model = SurrogateModel(model.config, rising_first(), rising, model.initial_nll, {})
    assert play(SurrogateExposureEnv(model, progress="signed"), [0.0])[1][-1]["reward/progress"] < -0.9
    assert play(SurrogateExposureEnv(model), [0.0])[1][-1]["reward/progress"] == 0.0


def rising_first() -> WindowModel:
    first = window_model("first", 1)
    first.arrays["intercept"][QUANTITY["probe/nll"]] = 1.0
    return first


def test_another_answer_to_extrapolation_is_refused():
    with pytest.raises(ConfigError, match="on_extrapolation: expected 'truncate', 'warn' or 'raise', got 'ignore'"):
        SurrogateExposureEnv(surrogate_model(), on_extrapolation="ignore")  # type: ignore[arg-type]


def test_a_file_gives_the_same_surrogate(file: Path):
    ratios = [0.1, 0.2, 0.3, 0.4]
    assert play(SurrogateExposureEnv(file), ratios) == play(SurrogateExposureEnv(surrogate_model()), ratios)
    loaded = SurrogateModel.load(file)
    assert loaded.report == {"env_id": "ATESD-Tiny-v0"}
    assert loaded.config == surrogate_model().config


def test_files_that_hold_no_surrogate_are_refused(tmp_path: Path, file: Path):
    with pytest.raises(RunFilesError, match="missing"):
        SurrogateModel.load(tmp_path / "missing.safetensors")
    write_checkpoint(tmp_path / "other.safetensors", Checkpoint({}, {"toy": {}}))
    with pytest.raises(
        ConfigError, match="expected a surrogate's file of version 1, which `atesd fit-surrogate` writes"
    ):
        SurrogateModel.load(tmp_path / "other.safetensors")
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(RunFilesError, match="cut short, or changed"):
        SurrogateModel.load(file)


def test_counterfactuals_work_and_warn_beyond_what_is_known():
    env = SurrogateExposureEnv(surrogate_model())
    play(env, [0.1])
    frame = counterfactual(env, [0.0, 0.5], windows=2)
    assert frame["window"].tolist() == [2, 3, 2, 3]
    drop = frame["probe/nll"][1] - frame["probe/nll"][3]
    assert drop == pytest.approx(1.0), "two windows, 0.5 more in each, on the same noise"
    assert env.step(np.array([0.2]))[-1]["window"] == 2, "the run itself stays where it was"
    with pytest.warns(ExtrapolationWarning):
        counterfactual(env, [0.9], windows=1)


def test_a_surrogate_has_no_teacher_to_ask():
    env = SurrogateExposureEnv(surrogate_model())
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"expected students whose teacher can be asked .* got SurrogatePopulation"):
        exposure_scores(env, [0.0])


def test_encoding_can_be_undone_and_decoding_keeps_ranges():
    rng = np.random.default_rng(0)
    config = preset("ATESD-Tiny-v0")
    quantities = {name: rng.uniform(0.01, 0.99, 10) for name in QUANTITIES}
    nll = rng.uniform(1.0, 2.0, 10)
    decoded = decode(encode(quantities, nll, config), nll, config)
    for name, values in quantities.items():
        np.testing.assert_allclose(decoded[name], values, rtol=1e-9, err_msg=name)
    wild = decode(rng.normal(0.0, 30.0, (100, len(QUANTITIES))), np.ones(100), config)
    for name, kind in QUANTITIES.items():
        highest = config.max_new_tokens if name == "rollout/length" else 1.0 if kind == "share" else math.inf
        assert wild[name].max() <= highest, name
        assert kind == "number" or wild[name].min() >= 0.0, name


def test_varying_coefficients_are_straight_lines_between_knots():
    """Terms at a ratio half way between two knots are the mean of those at the knots; at a knot only its own terms live."""
    scaled = np.array([[2.0, 0.0]])
    at = {ratio: expand("varying", scaled, np.array([[ratio]])).ravel() for ratio in (0.125, 0.1875, 0.25)}
    assert at[0.125].tolist() == [0, 0, 1, 2] + [0] * 14
    np.testing.assert_allclose(at[0.1875], (at[0.125] + at[0.25]) / 2)
    assert expand("quadratic", np.array([[2.0, 3.0]]), np.array([[3.0]])).tolist() == [[2, 3, 4, 6, 9]]
