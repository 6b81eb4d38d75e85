"""Files that were written before configurations had leaves, with every field of every kind of student, are still used."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from analysis import load_runs
from atesd.experiments.export import export_minari, shared_config
from atesd.experiments.resuming import CHECKPOINT_FOLDER
from atesd.experiments.run import execute
from atesd.experiments.specs import RunSpec, check_folders, plan_runs
from atesd.experiments.surrogate.data import find_runs, read_windows
from atesd.experiments.surrogate.fitting import fit
from atesd.experiments.training.training import TrainSpec, train
from atesd_env.config import EnvConfig, RunConfig, SurrogateConfig, preset
from atesd_env.errors import ConfigError
from atesd_env.files.checkpoint import read_checkpoint, write_checkpoint
from atesd_env.files.ownership import MARKER
from atesd_env.files.run_folder import CONFIG_FILE
from atesd_env.simulated.surrogate_model import SurrogateModel
from tests.runs import rows_of, rows_without_times

BEFORE = Path(__file__).parents[2] / "data" / "before_leaves"
TOY = preset("ATESD-Toy-v0", windows=5, toy_noise=0.02)
EVERY_FIELD: dict[str, Any] = json.loads((BEFORE / "language_model.json").read_text())["config"]


def as_before(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a configuration's fields as the version before wrote them: in one class, whose student says "toy"."""
    return {**EVERY_FIELD, "student": "toy", **config}


def rewrite(path: Path, name: str = "config") -> None:
    """Turns a folder's description into one of before, which had no marker."""
    description = json.loads(path.read_text())
    if name == "config":
        description.pop(MARKER, None)
    path.write_text(json.dumps({**description, name: as_before(description[name])}))


def rewrite_checkpoint(path: Path) -> None:
    checkpoint = read_checkpoint(path)
    description = checkpoint.description
    content = {**description, "config": as_before(description["config"])}
    arrays = {name: array for name, array in checkpoint.arrays.items() if not name.endswith(CONFIG_FILE)}
    write_checkpoint(path, dataclasses.replace(checkpoint, arrays=arrays, description=content))


def plan(out: Path, config: RunConfig = TOY, agent: str = "beta") -> RunSpec:
    (spec,) = plan_runs("ATESD-Tiny-v0" if isinstance(config, EnvConfig) else "ATESD-Toy-v0", config, [agent], [0], out)
    return spec


@pytest.fixture
def stopped(tmp_path: Path) -> RunSpec:
    """A run that the version before began and did not end."""
    spec = plan(tmp_path / "before")
    shutil.copytree(BEFORE / "toy_run", spec.folder)
    return spec


def test_its_rows_are_loaded_beside_those_of_today(stopped: RunSpec):
    execute(plan(stopped.folder.parent, agent="fixed:0.5"))
    frame = load_runs(stopped.folder.parent, config=["toy_noise"])
    assert frame.groupby("agent", observed=True)["window"].max().to_dict() == {"beta": 3, "fixed:0.5": 5}
    assert set(frame["config/toy_noise"]) == {0.02}


def test_it_goes_on_as_if_it_had_not_been_stopped(stopped: RunSpec, tmp_path: Path):
    check_folders([stopped], resume=True)
    execute(stopped, resume=True)
    alone = plan(tmp_path / "alone")
    execute(alone)
    assert rows_without_times(stopped.folder) == rows_without_times(alone.folder)
    assert len(rows_of(alone.folder)) == 5
    other = dataclasses.replace(stopped, config=TOY.replace(toy_noise=0.5))
    with pytest.raises(ConfigError, match=r"toy_noise \(0\.02 there, 0\.5 now\)"):
        check_folders([other], resume=True)


def test_a_language_models_run_goes_on_too(tmp_path: Path, tiny_config: EnvConfig):
    config = tiny_config.replace(windows=2, hold_window=1, num_rollouts=2, probe_size=2, max_new_tokens=8)
    stopped, alone = plan(tmp_path / "stopped", config), plan(tmp_path / "alone", config)

    def stop(row: dict[str, Any]) -> None:
        if row["window"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(stopped, checkpoint_every=1, report=stop)
    rewrite(stopped.folder / "config.json")
    (checkpoint,) = (stopped.folder / CHECKPOINT_FOLDER).glob("*.safetensors")
    rewrite_checkpoint(checkpoint)
    assert "toy_noise" in read_checkpoint(checkpoint).description["config"]
    execute(stopped, resume=True)
    execute(alone)
    assert rows_without_times(stopped.folder) == rows_without_times(alone.folder)


def test_an_environment_goes_on_at_its_checkpoint(stopped: RunSpec):
    (checkpoint,) = (stopped.folder / CHECKPOINT_FOLDER).glob("*.safetensors")
    env = gymnasium.make("ATESD-Toy-v0", **TOY.keywords())
    env.reset(options={"state": checkpoint})
    row = rows_of(stopped.folder)[2]
    *_, info = env.step(np.array([row["exposure/reveal_ratio"]], dtype=np.float32))
    assert info["window"] == 3
    assert info["probe/nll"] == pytest.approx(row["probe/nll"])


def test_its_configuration_is_shared_with_runs_of_today(stopped: RunSpec, tmp_path: Path):
    execute(plan(stopped.folder.parent, agent="fixed:0.5"))
    frame = load_runs(stopped.folder.parent)
    assert shared_config(frame, stopped.folder.parent) == TOY
    pytest.importorskip("minari", reason="the package minari is missing")
    assert export_minari(frame, TOY, tmp_path / "datasets") == "atesd/ATESD-Toy-v0"


def test_a_surrogate_is_fitted_to_runs_of_both_and_its_file_of_before_is_read(tmp_path: Path):
    config = TOY.replace(windows=3)
    for seed in range(12):
        (spec,) = plan_runs("ATESD-Toy-v0", config, ["random"], [seed], tmp_path / "runs")
        execute(spec)
        if seed % 2:
            rewrite(spec.folder / "config.json")
    windows, read, env_id = read_windows(find_runs([tmp_path / "runs"]))
    assert (read, env_id, len(windows.run)) == (config, "ATESD-Toy-v0", 36)
    file = tmp_path / "surrogate.safetensors"
    fit(windows, read, env_id, families=["linear"]).save(file)
    rewrite_checkpoint(file)
    assert SurrogateModel.load(file).config == config


def test_a_training_goes_on(tmp_path: Path):
    spec = TrainSpec("ATESD-Toy-v0", TOY, "beta", None, 5, 0, None, (0,), tmp_path / "training")
    train(spec)
    rewrite(spec.folder / "training.json")
    assert len(train(dataclasses.replace(spec, total_windows=10), resume=True).rows) > 2
    with pytest.raises(ConfigError, match=r"toy_noise \(0\.02 there, 0\.5 now\)"):
        train(dataclasses.replace(spec, config=TOY.replace(toy_noise=0.5)), resume=True)


def test_a_training_on_a_surrogate_named_its_file_beside_the_configuration(tmp_path: Path):
    spec = TrainSpec(
        "ATESD-Surrogate-v0", SurrogateConfig(file="a.safetensors"), "beta", None, 5, 0, None, (0,), tmp_path
    )
    there = {
        "env_id": spec.env_id,
        "agent": "beta",
        "seed": 0,
        "eval_seeds": [0],
        "env_file": "a.safetensors",
        "config": as_before({}) | {name: getattr(spec.config, name) for name in RunConfig.names()},
    }
    (tmp_path / "training.json").write_text(json.dumps(there))
    with pytest.raises(ConfigError, match=r"file \('a.safetensors' there, 'b' now\)"):
        train(dataclasses.replace(spec, config=spec.config.replace(file="b")), resume=True)
    with pytest.raises(OSError, match=r"a\.safetensors"):  # it is accepted, and then there is no such file
        train(spec, resume=True)
