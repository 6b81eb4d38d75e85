"""Runs in other tools' formats: what went in comes out, and observations are the ones that the agent saw."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import pytest

from analysis import load_runs
from atesd.experiments.export import export_minari, export_table, landscapes_config, shared_config, transitions
from atesd.experiments.run import execute
from atesd.experiments.specs import plan_runs
from atesd_env.bench import InstanceSet, landscape
from atesd_env.bench.landscapes import write_landscapes
from atesd_env.config import EnvConfig, RunConfig, preset
from atesd_env.envs.recording import RecordTrajectory
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.run_folder import RunWriter
from tests.atesd_env.bench.sets import toy_set

WINDOWS = 6


@pytest.fixture
def config() -> RunConfig:
    return preset("ATESD-Toy-v0", windows=WINDOWS)


@pytest.fixture
def runs(tmp_path: Path, config: RunConfig) -> Path:
    """Two agents and two seeds on the closed form."""
    for spec in plan_runs("ATESD-Toy-v0", config, ["random", "fixed:0.5"], [0, 1], tmp_path / "runs"):
        execute(spec)
    return tmp_path / "runs"


class Seen(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Notes everything that passes between an agent and an environment."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observations: list[Any] = []
        self.actions: list[Any] = []
        self.results: list[tuple[float, bool, bool]] = []
        self.nll_before = 0.0

    def reset(self, **keywords: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(**keywords)
        self.observations.append(observation)
        self.nll_before = info["probe/nll"]
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        self.observations.append(observation)
        self.actions.append(action)
        self.results.append((float(reward), terminated, truncated))
        return observation, reward, terminated, truncated, info


def record(folder: Path, env_id: str, config: RunConfig, seed: int = 3) -> Seen:
    """Plays an episode with known actions, and writes its files as a run's."""
    seen = Seen(gymnasium.make(env_id, **config.keywords(), disable_env_checker=True))
    writer = RunWriter(folder, {"env_id": env_id, "agent": "known", "seed": seed, "config": config})
    env = RecordTrajectory(seen, writer)
    env.reset(seed=seed)
    is_over = False
    rng = np.random.default_rng(0)
    while not is_over:
        action = rng.uniform(size=env.action_space.shape).astype(np.float32)
        *_, terminated, truncated, _ = env.step(action)
        is_over = terminated or truncated
    env.close()
    return seen


@pytest.mark.parametrize(
    "changes", [{}, {"groups": 3, "toy_group_spread": 0.4}, {"toy_kind": "delayed"}], ids=["one", "groups", "delayed"]
)
def test_transitions_are_what_passed_between_agent_and_environment_bit_for_bit(
    tmp_path: Path, config: RunConfig, changes: dict[str, Any]
):
    config = config.replace(**changes)
    seen = record(tmp_path / "run", "ATESD-Toy-v0", config)
    run = transitions("run", load_runs(tmp_path / "run"), config, seen.nll_before)
    np.testing.assert_array_equal(run.observations, np.stack(seen.observations))
    np.testing.assert_array_equal(run.actions, np.stack(seen.actions))
    np.testing.assert_array_equal(run.rewards, [reward for reward, _, _ in seen.results])
    np.testing.assert_array_equal(run.terminations, [terminated for _, terminated, _ in seen.results])
    np.testing.assert_array_equal(run.truncations, [truncated for _, _, truncated in seen.results])
    assert run.seed == 3


def test_a_tiny_students_transitions_too(tmp_path: Path, tiny_config: EnvConfig):
    seen = record(tmp_path / "run", "ATESD-Tiny-v0", tiny_config)
    run = transitions("run", load_runs(tmp_path / "run"), tiny_config, seen.nll_before)
    np.testing.assert_array_equal(run.observations, np.stack(seen.observations))
    np.testing.assert_array_equal(run.rewards, [reward for reward, _, _ in seen.results])


def test_an_unfinished_run_ends_truncated_and_a_gap_is_refused(runs: Path, config: RunConfig):
    rows = load_runs(runs / "random-seed0")
    cut = transitions("cut", rows[rows["window"] < WINDOWS], config, 4.0)
    assert cut.truncations.tolist() == [False] * (WINDOWS - 2) + [True]
    assert len(cut.observations) == WINDOWS
    with pytest.raises(RunFilesError, match="expected the windows 1 to 5"):
        transitions("gap", rows[rows["window"] != 2], config, 4.0)


@pytest.mark.parametrize("to", ["parquet", "csv"])
def test_a_table_comes_back_as_it_went(runs: Path, tmp_path: Path, to: Any):
    if to == "parquet":
        pytest.importorskip("pyarrow", reason="the package pyarrow, which writes Parquet, is missing")
    frame = load_runs(runs)
    path = export_table(frame, tmp_path / "new" / f"runs.{to}", to)
    if to == "parquet":
        pd.testing.assert_frame_equal(pd.read_parquet(path), frame)
    else:
        read = pd.read_csv(path)
        assert list(read.columns) == list(frame.columns)
        np.testing.assert_array_equal(read["probe/nll"], frame["probe/nll"])
    with pytest.raises(RunFilesError, match="--overwrite"):
        export_table(frame, path, to)
    export_table(frame.head(3), path, to, overwrite=True)
    assert len(pd.read_parquet(path) if to == "parquet" else pd.read_csv(path)) == 3
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_minari_dataset_opens_and_gives_back_the_transitions(
    runs: Path, tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
):
    minari = pytest.importorskip("minari", reason="the package minari is missing")
    pytest.importorskip("h5py", reason="the package h5py, which minari[hdf5] brings, is missing")
    frame = load_runs(runs)
    name = export_minari(frame, shared_config(frame, runs), tmp_path / "minari")
    assert name == "atesd/ATESD-Toy-v0"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    dataset = minari.load_dataset(name)
    assert (dataset.total_episodes, dataset.total_steps) == (4, 4 * WINDOWS)
    env = dataset.recover_environment()
    assert env.unwrapped.config == config
    for episode, (run, rows) in zip(dataset.iterate_episodes(), frame.groupby("run", sort=False), strict=True):
        first, _ = env.reset(seed=int(rows["seed"].iloc[0]))
        np.testing.assert_array_equal(episode.observations[0], first)
        for window, action in enumerate(episode.actions):
            observation, reward, terminated, truncated, _ = env.step(action)
            np.testing.assert_array_equal(episode.observations[window + 1], observation, err_msg=str(run))
            assert episode.rewards[window] == reward
            assert (episode.terminations[window], episode.truncations[window]) == (terminated, truncated)
    with pytest.raises(RunFilesError, match="--overwrite"):
        export_minari(frame, config, tmp_path / "minari")
    export_minari(frame[frame["agent"] == "random"], config, tmp_path / "minari", overwrite=True)
    assert minari.load_dataset(name).total_episodes == 2


def test_a_sets_landscapes_are_a_dataset_of_what_the_bench_showed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Instances of one ratio and of two, in one space: a ratio that nobody looked at reads 0."""
    minari = pytest.importorskip("minari", reason="the package minari is missing")
    pytest.importorskip("h5py", reason="the package h5py, which minari[hdf5] brings, is missing")
    toy_set().save(tmp_path / "mine.json")
    mine, own = InstanceSet.load(tmp_path / "mine.json"), {"instances": str(tmp_path / "mine.json")}
    seen = {
        name: record(tmp_path / "runs" / name, "ATESD-Bench-v0", preset("ATESD-Bench-v0", instance=name, **own))
        for name in ("both", "low")
    }
    card = {"what": "Two runs.", "command": "python -m benchmarks.x", "commit": "abc1234", "licence": "Apache-2.0"}
    write_landscapes(mine, load_runs(tmp_path / "runs"), **card)
    frame = landscape(mine)
    name = export_minari(frame, landscapes_config(mine, frame), tmp_path / "minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    dataset = minari.load_dataset(name)
    for episode, (instance, one) in zip(dataset.iterate_episodes(), seen.items(), strict=True):
        np.testing.assert_array_equal(episode.observations, np.stack(one.observations))
        groups = mine.config(instance).groups
        np.testing.assert_array_equal(episode.actions[:, :groups], np.stack(one.actions)[:, :groups])
        assert not episode.actions[:, groups:].any()
        np.testing.assert_array_equal(episode.rewards, [reward for reward, _, _ in one.results])
    options = dataset.storage.get_episode_metadata([0, 1])
    assert [told["options"]["instance"] for told in options] == [*seen]


def test_a_dataset_of_several_configurations_is_refused(runs: Path, config: RunConfig):
    (spec,) = plan_runs("ATESD-Toy-v0", config.replace(toy_noise=0.5), ["random"], [7], runs)
    execute(spec)
    with pytest.raises(ConfigError, match="different: toy_noise"):
        shared_config(load_runs(runs), runs)


def test_what_is_no_name_of_a_dataset_is_refused(runs: Path, tmp_path: Path, config: RunConfig):
    pytest.importorskip("minari", reason="the package minari is missing")
    with pytest.raises(ConfigError, match="--name: expected a Minari name"):
        export_minari(load_runs(runs), config, tmp_path / "minari", "no spaces allowed")


def test_a_missing_package_is_named(runs: Path, tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    with pytest.raises(ConfigError, match="pip install"):
        export_minari(load_runs(runs), config, tmp_path / "minari")


def test_a_first_observation_that_cannot_be_known_is_refused(tmp_path: Path, tiny_config: EnvConfig):
    """A run of a version that did not log the base model's NLL, whose first window made no progress."""
    pytest.importorskip("minari", reason="the package minari is missing")
    record(tmp_path / "run", "ATESD-Tiny-v0", tiny_config)
    frame = load_runs(tmp_path / "run").drop(columns="probe/nll_before", errors="ignore")
    frame["reward/progress"] = 0.0
    with pytest.raises(RunFilesError, match="probe/nll_before"):
        export_minari(frame, tiny_config, tmp_path / "minari")


def exported(runs: Path, config: RunConfig, root: Path, **options: Any) -> str:
    pytest.importorskip("minari", reason="the package minari is missing")
    pytest.importorskip("h5py", reason="the package h5py, which minari[hdf5] brings, is missing")
    return export_minari(load_runs(runs), config, root, **options)


@pytest.mark.parametrize("foreign", ["data/notes.txt", "notes.txt", "data/metadata.json"])
def test_only_a_dataset_of_ours_is_replaced(foreign: str, runs: Path, tmp_path: Path, config: RunConfig):
    target = tmp_path / "minari" / exported(runs, config, tmp_path / "minari")
    (target / foreign).write_text("{}")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunFilesError, match=r"expected .* got|expected nothing there"):
        exported(runs, config, tmp_path / "minari", overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_namespace_that_is_a_link_is_not_entered(runs: Path, tmp_path: Path, config: RunConfig):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "minari").mkdir()
    (tmp_path / "minari" / "atesd").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFilesError, match="atesd: expected a folder of its own, or nothing, got a link"):
        exported(runs, config, tmp_path / "minari")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert [path.name for path in (tmp_path / "minari").iterdir()] == ["atesd"]


def test_a_dataset_that_fails_half_way_leaves_nothing_in_the_way(
    runs: Path, tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("Unable to flush file (No space left on device)")

    h5py = pytest.importorskip("h5py", reason="the package h5py, which minari[hdf5] brings, is missing")
    monkeypatch.setenv("MINARI_DATASETS_PATH", "elsewhere")
    monkeypatch.setattr(h5py.Group, "create_dataset", fail)
    with pytest.raises(RunFilesError, match=r"No space left on device\)'; free some space"):
        exported(runs, config, tmp_path / "minari")
    assert list((tmp_path / "minari").rglob("*")) == []
    assert os.environ["MINARI_DATASETS_PATH"] == "elsewhere"
    monkeypatch.undo()
    exported(runs, config, tmp_path / "minari")


@pytest.mark.parametrize(
    ("to", "values"),
    [("parquet", [1, "one"]), ("parquet", [b"one", 1.0]), ("parquet", ["\ud800", "x"]), ("csv", ["\ud800", "x"])],
)
def test_values_that_a_format_cannot_hold_are_named_and_nothing_is_left(to: Any, values: list[Any], tmp_path: Path):
    if to == "parquet":
        pytest.importorskip("pyarrow", reason="the package pyarrow, which writes Parquet, is missing")
    frame = pd.DataFrame({"agent/odd": pd.Series(values, dtype=object)})
    with pytest.raises(ConfigError, match=rf"--to {to}: expected .*leave out the runs that have it"):
        export_table(frame, tmp_path / "new" / "runs", to)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_table_is_written_through_no_link(overwrite: bool, tmp_path: Path):
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "runs.csv").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFilesError, match=r"runs\.csv: expected a file of its own, or nothing, got a link"):
        export_table(pd.DataFrame({"x": [1]}), tmp_path / "runs.csv", "csv", overwrite=overwrite)
    assert (tmp_path / "elsewhere").read_text() == "mine"


FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1+1",
    "\uff20SUM(1)",
    "=",
    "-",
    "--1",
    "+e5",
]
HARMLESS = ["beta", "a=1", "1", "-1", "+1.5", "-1e-5", ".5", "-.5", "'=1", "", " =1", "two\rrows"]


def test_texts_that_a_spreadsheet_would_compute_are_marked(tmp_path: Path):
    texts = [*FORMULAS, *HARMLESS]
    frame = pd.DataFrame({"agent": pd.Categorical(texts), "=cmd()": texts, "number": [-1.0] * len(texts)})
    export_table(frame, tmp_path / "runs.csv", "csv")
    read = pd.read_csv(tmp_path / "runs.csv", dtype=str, keep_default_na=False)
    assert list(read.columns) == ["agent", "'=cmd()", "number"]
    for name in ("agent", "'=cmd()"):
        marked = [f"'{text}".replace("\r", "\n") for text in FORMULAS]
        assert read[name].tolist() == marked + [text.replace("\r", "\n") for text in HARMLESS]
    assert read["number"].tolist() == ["-1.0"] * len(texts), "numbers are no formulas"
