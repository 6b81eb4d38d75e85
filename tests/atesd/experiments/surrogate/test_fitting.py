"""Fitting a surrogate to runs of the closed-form learner, whose dynamics, noise and best ratio are known."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import pytest
from gymnasium.utils.env_checker import check_env
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor

from analysis import load_runs
from atesd.commands.cli import main
from atesd.experiments.run import execute
from atesd.experiments.specs import plan_runs
from atesd.experiments.surrogate.data import LoggedWindows, find_runs, read_windows, windows_of
from atesd.experiments.surrogate.fitting import _RIDGE_STRENGTHS, FAMILIES, _coefficients, fit, heldout_errors
from atesd_env.config import ToyConfig, preset
from atesd_env.envs.observation import FEATURE_NAMES, RunningStatistics
from atesd_env.envs.observation import observation as observed
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.run_folder import TRAJECTORY_FILE, read_rows
from atesd_env.simulated.surrogate import SurrogateExposureVectorEnv
from atesd_env.simulated.surrogate_model import Support, SurrogateModel, WindowModel, expand
from atesd_env.simulated.toy import ToyExposureEnv
from tests.programs import refusal

CONFIG = preset("ATESD-Toy-v0", windows=20, hold_window=5)
AGENTS = ["random", "linear:0:1", "linear:1:0", *(f"fixed:{ratio}" for ratio in (0, 0.2, 0.4, 0.6, 0.8, 1))]
SEEDS = range(7)


def make_runs(folder: Path, agents: list[str], config: ToyConfig = CONFIG, seeds: range = SEEDS) -> Path:
    for spec in plan_runs("ATESD-Toy-v0", config, agents, seeds, folder):
        execute(spec)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """63 runs of 20 windows."""
    return make_runs(tmp_path_factory.mktemp("runs"), AGENTS)


@pytest.fixture(scope="module")
def windows(runs: Path) -> LoggedWindows:
    return read_windows(find_runs([runs]))[0]


@pytest.fixture(scope="module")
def surrogate(windows: LoggedWindows) -> SurrogateModel:
    return fit(windows, CONFIG, "ATESD-Toy-v0")


def test_seeds_are_held_out_whole_and_runs_that_are_the_same_count_once(runs: Path, windows: LoggedWindows):
    """Of a frame, as landscapes are, an agent that did what another one did adds nothing."""
    frame = load_runs(runs)
    copied = frame[frame["agent"] == "fixed:0.4"].assign(agent="copy", run="copy of " + frame["run"])
    found = windows_of(pd.concat([frame, copied]), CONFIG)
    by_run = [sorted(part.tobytes() for part in _of_each_run(one)) for one in (found, windows)]
    assert by_run[0] == by_run[1]
    assert set(found.group) == set(SEEDS)
    report = fit(found, CONFIG, "ATESD-Toy-v0", families=["linear"], heldout_share=0.3).report
    assert (report["num_runs"], report["num_heldout_runs"]) == (63, 2 * len(AGENTS))


def _of_each_run(windows: LoggedWindows) -> list[Any]:
    runs = [windows.select(windows.run == run) for run in np.unique(windows.run)]
    return [np.column_stack([run.statistics, run.nll, run.ratios, *run.quantities.values()]) for run in runs]


def test_statistics_before_each_window_are_those_that_the_environment_had(runs: Path, windows: LoggedWindows):
    folders = find_runs([runs])
    assert len(folders) == 63
    for index in (0, 30, 62):
        rows = read_rows(folders[index] / TRAJECTORY_FILE)
        run = windows.select(windows.run == index)
        assert len(rows) == len(run.run) == 20
        env = ToyExposureEnv(config=CONFIG)
        observation, info = env.reset(seed=json.loads((folders[index] / "config.json").read_text())["seed"])
        for position, row in enumerate(rows):
            before = [getattr(env.snapshot().statistics, name) for name in FEATURE_NAMES]
            assert run.statistics[position].tolist() == before, "to the bit"
            assert run.nll[position] == info["probe/nll"]
            assert observation.tolist() == observed(RunningStatistics(position, *before)).tolist()
            observation, *_, info = env.step(run.ratios[position])
            assert info["reward/total"] == row["reward/total"] == run.quantities["reward/total"][position]


def changed_rows(folder: Path, change: Any) -> None:
    rows = [change(row) for row in read_rows(folder / TRAJECTORY_FILE)]
    (folder / TRAJECTORY_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_runs_that_do_not_tell_the_first_nll_tell_it_by_their_progress(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Near the best ratio the first window makes progress; at 1 noise alone decides, and some runs made none."""
    make_runs(tmp_path, ["fixed:0.4", "fixed:1"], CONFIG.replace(windows=2), seeds=range(12))
    folders = find_runs([tmp_path])
    whole, *_ = read_windows(folders)
    for folder in folders:
        changed_rows(folder, lambda row: {name: value for name, value in row.items() if name != "probe/nll_before"})
    with caplog.at_level(logging.WARNING):
        old, *_ = read_windows(folders)
    left_out = [record for record in caplog.records if "the run is left out" in record.message]
    no_progress = (whole.quantities["reward/progress"] <= 0) & (whole.window == 1)
    assert len(left_out) == no_progress.sum() > 0
    kept = ~np.isin(whole.run, whole.run[no_progress])
    np.testing.assert_allclose(old.nll, whole.nll[kept], rtol=1e-12)


def test_a_broken_students_last_window_is_left_out(tmp_path: Path):
    make_runs(tmp_path, ["random"], CONFIG.replace(windows=3), seeds=range(12))
    folders = find_runs([tmp_path])
    changed_rows(
        folders[0], lambda row: {**row, "status": "terminated", "probe/nll": None} if row["window"] == 3 else row
    )
    windows, *_ = read_windows(folders)
    assert np.bincount(windows.run).tolist() == [2] + [3] * 11


@pytest.mark.parametrize("what", ["swapped", "doubled", "lost", "a link to nothing", "no description"])
def test_damaged_runs_are_refused_by_name(what: str, tmp_path: Path):
    make_runs(tmp_path, ["random"], CONFIG.replace(windows=3), seeds=range(2))
    folder = find_runs([tmp_path])[1]
    path = folder / ("config.json" if what == "no description" else "trajectory.jsonl")
    first, second, third = (folder / "trajectory.jsonl").read_text().splitlines(keepends=True)
    path.unlink()
    if what == "a link to nothing":
        path.symlink_to("nothing")
    elif what != "no description":
        lines = {"swapped": [second, first, third], "doubled": [first, first, second, third], "lost": [first, third]}
        path.write_text("".join(lines[what]))
    with pytest.raises(RunFilesError, match=rf"{re.escape(str(path))}.*: expected"):
        read_windows(find_runs([tmp_path]))


def test_runs_that_do_not_fit_together_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="expected a folder of runs, found none"):
        find_runs([tmp_path])
    make_runs(tmp_path / "few", ["random"], CONFIG.replace(windows=2), seeds=range(3))
    with pytest.raises(ConfigError, match="expected at least 10 with windows to fit to, got 3"):
        read_windows(find_runs([tmp_path / "few"]))
    make_runs(tmp_path / "other", ["random"], CONFIG.replace(windows=2, gamma=0.5), seeds=range(1))
    with pytest.raises(
        ConfigError, match=r"one environment and configuration.*\(different: gamma \(0\.9 there, 0\.5 here\)\)"
    ):
        read_windows(find_runs([tmp_path / "few", tmp_path / "other"]))
    assert find_runs([tmp_path / "few", tmp_path]) == find_runs([tmp_path])


def test_whole_runs_are_held_out(surrogate: SurrogateModel):
    report = surrogate.report
    assert (report["num_runs"], report["num_heldout_runs"]) == (63, 13)
    assert report["num_heldout_windows"] == 13 * 20
    assert report["num_training_windows"] == 50 * 20


def test_it_beats_both_baselines_wherever_there_is_something_to_predict(surrogate: SurrogateModel):
    """Data of seeds 0 to 6, fit with seed 0: no chance is left, but margins are wide all the same."""
    errors = {line["quantity"]: line for line in surrogate.report["errors"]}
    assert list(errors) == [*FEATURE_NAMES, "probe/nll", "probe/grounded", "reward/progress", "reward/total"]
    exact = [name for name, line in errors.items() if line["skill"] is None]
    assert exact == ["progress", "truncation_rate"], "a baseline is exact there"
    assert all(errors[name]["rmse"] < 1e-9 for name in exact)
    assert min(line["skill"] for line in errors.values() if line["skill"] is not None) > 0.5
    # The measurement's noise is 0.01, and nobody can foretell it.
    assert 0.007 < errors["probe/nll"]["rmse"] < 0.015
    whole = surrogate.report["whole_run"]
    assert whole["final_nll_rmse"] < 0.05 < whole["final_nll_mean_rmse"]
    assert surrogate.report["heldout_flagged_rate"] < 0.01


def test_baselines_are_what_they_say(surrogate: SurrogateModel, windows: LoggedWindows):
    """Progress rises by 1/20 a window in every run; the ratio of a fixed agent stays; rewards are those of the window before."""
    errors = {line["quantity"]: line for line in surrogate.report["errors"]}
    assert errors["progress"]["persistence_rmse"] == pytest.approx(0.05)
    assert errors["progress"]["window_mean_rmse"] == pytest.approx(0.0, abs=1e-6)
    one = windows.select(windows.run == 0)
    lines = {line["quantity"]: line for line in heldout_errors(surrogate, one, one)}
    rewards = one.quantities["reward/total"]
    assert lines["reward/total"]["persistence_rmse"] == pytest.approx(np.sqrt(np.mean(np.diff(rewards) ** 2)))
    assert lines["reward/total"]["window_mean_rmse"] == pytest.approx(0.0, abs=1e-12), (
        "the mean over one run is the run"
    )


def test_the_family_with_the_least_cross_validated_error_is_chosen(surrogate: SurrogateModel):
    for phase in ("first", "later"):
        errors = surrogate.report["cross_validated_error"][phase]
        assert list(errors) == list(FAMILIES)
        assert surrogate.report["chosen"][phase] == min(errors, key=lambda family: errors[family])
    assert errors["linear"] > 2 * errors["varying"], "learning is fastest in the middle, which no line has"


@pytest.mark.parametrize("family", FAMILIES)
def test_numpy_predicts_what_the_library_predicts(windows: LoggedWindows, family: str):
    inputs = windows.inputs("later")
    targets = np.stack([windows.quantities["probe/nll"], windows.quantities["student/loss"]], axis=1)
    size = inputs.shape[1]
    everywhere = Support(np.full(size, -9.0), np.full(size, 9.0), np.zeros(size), np.eye(size), 9.0)
    model = WindowModel(family, _coefficients(family, inputs, targets, 1, seed=3), targets, everywhere, 1)
    scaled = (inputs - inputs.mean(axis=0)) / np.where(inputs.std(axis=0) > 1e-9, inputs.std(axis=0), 1.0)
    center, scale = targets.mean(axis=0), targets.std(axis=0)
    if family == "network":
        networks = [
            MLPRegressor(
                hidden_layer_sizes=(32,),
                activation="tanh",
                alpha=1e-3,
                learning_rate_init=3e-3,
                max_iter=150,
                random_state=seed,
            ).fit(scaled, (targets - center) / scale)
            for seed in (3, 4, 5)
        ]
        expected = np.mean([network.predict(scaled) for network in networks], axis=0)
    else:
        basis = expand(family, scaled, inputs[:, -1:])
        expected = (
            RidgeCV(_RIDGE_STRENGTHS, alpha_per_target=True).fit(basis, (targets - center) / scale).predict(basis)
        )
    np.testing.assert_allclose(model.predict(inputs), expected * scale + center, rtol=1e-6, atol=1e-9)


def test_its_best_fixed_ratio_is_the_toys(surrogate: SurrogateModel):
    """64 runs at each of 11 ratios on the same noise; the toy's best is 0.4, and 0.3 and 0.5 lie a nat of return below."""
    ratios = np.linspace(0.0, 1.0, 11)
    returns = []
    for ratio in ratios:
        envs = SurrogateExposureVectorEnv(surrogate, num_envs=64)
        envs.reset(seed=0)
        total = np.zeros(64)
        for _ in range(CONFIG.windows):
            _, rewards, _, truncations, infos = envs.step(np.full((64, 1), ratio, dtype=np.float32))
            total += rewards
        assert truncations.all()
        returns.append(total.mean())
        assert infos["surrogate/is_extrapolating"].mean() < 0.1
    assert ratios[int(np.argmax(returns))] == pytest.approx(0.4)


def test_runs_of_a_random_agent_look_like_the_toys(surrogate: SurrogateModel):
    """200 runs each, the same 200 ratio sequences, seed 0: the final probe NLL has the toy's mean and spread. The standard
    error of a mean is its spread / sqrt(200), and of a difference of spreads about a tenth of it; five of them are allowed, and
    0.02 nats of model error: odds of a false alarm below 1e-5."""
    rng = np.random.default_rng(0)
    ratios = rng.random((CONFIG.windows, 200, 1)).astype(np.float32)
    final = []
    for envs in (
        SurrogateExposureVectorEnv(surrogate, num_envs=200, on_extrapolation="truncate"),
        gymnasium.make_vec("ATESD-Toy-v0", num_envs=200, windows=20, hold_window=5),
    ):
        envs.reset(seed=1000)
        for actions in ratios:
            *_, truncations, infos = envs.step(actions)
        final.append(infos["probe/nll"][truncations & (infos["window"] == CONFIG.windows)])
    ours, toys = final
    assert len(ours) > 180, "few runs of a random agent are taken for extrapolation"
    assert abs(ours.mean() - toys.mean()) < 5 * toys.std() * np.sqrt(2 / 200) + 0.02
    assert abs(ours.std() - toys.std()) < 5 * toys.std() * 0.1 + 0.02


def test_ratios_that_the_runs_never_had_are_flagged(tmp_path: Path):
    """Fitted on ratios from 0 to 0.5, asked for 0.9, in the first window and in a later one."""
    make_runs(tmp_path, ["linear:0:0.5", "linear:0.5:0", "fixed:0.25", "fixed:0.5"], seeds=range(4))
    windows, config, env_id = read_windows(find_runs([tmp_path]))
    low = fit(windows, config, env_id, families=["varying"])
    assert low.report["reveal_ratio_range"] == [0.0, 0.5]
    for num_known in (0, 3):
        env = gymnasium.make("ATESD-Surrogate-v0", file=low)
        env.reset(seed=0)
        for _ in range(num_known):
            *_, truncated, info = env.step(np.array([0.3]))
            assert (truncated, info["surrogate/is_extrapolating"]) == (False, False)
        *_, truncated, info = env.step(np.array([0.9]))
        assert (truncated, info["surrogate/is_extrapolating"]) == (True, True)
        assert info["surrogate/reason"].startswith("reveal_ratio 0.9 outside [")


def test_the_fitted_environment_passes_gymnasiums_checker(surrogate: SurrogateModel):
    check_env(gymnasium.make("ATESD-Surrogate-v0", file=surrogate, disable_env_checker=True).unwrapped)


def test_several_groups_have_ratios_of_their_own(tmp_path: Path):
    """Both groups learn best at 0.4: the surrogate knows that one alone there is better than none, and worse than both."""
    config = CONFIG.replace(groups=2, windows=10)
    make_runs(tmp_path, ["random"], config, seeds=range(40))
    windows, config, env_id = read_windows(find_runs([tmp_path]))
    assert windows.ratios.shape == (400, 2)
    surrogate = fit(windows, config, env_id, families=["varying"])
    envs = SurrogateExposureVectorEnv(surrogate, num_envs=3, on_extrapolation="warn")
    envs.reset(seed=[0, 0, 0])
    *_, infos = envs.step(np.array([[0.4, 0.4], [0.4, 0.8], [0.8, 0.8]], dtype=np.float32))
    both, one, none = infos["probe/nll"]
    assert both < one - 0.05
    assert one < none - 0.05
    assert infos["exposure/reveal_ratio_1"][1] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"families": ["trees"]}, "families: expected some of linear"), ({"heldout_share": 0.99}, "heldout_share")],
)
def test_wrong_arguments_are_refused(windows: LoggedWindows, arguments: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        fit(windows, CONFIG, "ATESD-Toy-v0", **arguments)


def test_the_command_prints_errors_and_writes_the_file(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "models" / "toy.safetensors"
    command = ["fit-surrogate", str(runs), "--out", str(out), "--families", "varying", "linear"]
    main(command)
    printed = capsys.readouterr().out
    assert "One window ahead on 13 held-out of 63 runs" in printed
    assert "probe_nll_slope" in printed
    assert f"surrogate: {out}" in printed
    env = gymnasium.make("ATESD-Surrogate-v0", file=out)
    assert env.unwrapped.config == CONFIG
    assert "--overwrite" in refusal(capsys, *command)
    main([*command, "--overwrite"])
