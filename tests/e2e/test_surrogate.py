"""A surrogate is fitted, and its environment played, gone on with, compared on and trained on, as a user does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis import load_runs
from atesd.commands.cli import main
from atesd.experiments.resuming import CHECKPOINT_FOLDER
from atesd.experiments.run import execute
from atesd.experiments.specs import plan_runs
from atesd_env.config import SurrogateConfig, preset
from atesd_env.simulated.surrogate import surrogate_config
from tests.programs import refusal
from tests.runs import rows_without_times

SURROGATE = ("--env", "ATESD-Surrogate-v0")


def atesd(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A surrogate of the closed form, fitted by the verb."""
    folder = tmp_path_factory.mktemp("surrogate")
    config = preset("ATESD-Toy-v0", windows=6)
    for spec in plan_runs("ATESD-Toy-v0", config, ["random", "linear:0:1", "linear:1:0"], range(10), folder / "runs"):
        execute(spec)
    atesd("fit-surrogate", folder / "runs", "--families", "linear", "--out", folder / "surrogate.safetensors")
    return folder / "surrogate.safetensors"


def test_a_run_records_whose_surrogate_it_was_and_what_its_runs_had(file: Path, tmp_path: Path):
    atesd(
        "run", *SURROGATE, "--file", file, "--agent", "beta", "fixed:0.5", "--gamma", 0.8, "--out", tmp_path, "--quiet"
    )
    description = json.loads((tmp_path / "beta-seed0" / "config.json").read_text())
    assert (description["env_id"], description["student_source"]) == ("ATESD-Surrogate-v0", "surrogate")
    config = SurrogateConfig(**description["config"])
    assert config == surrogate_config(file, gamma=0.8)
    assert (config.windows, config.hold_window, config.file) == (6, 1, str(file))
    frame = load_runs(tmp_path, config=["gamma"])
    assert frame.groupby("agent", observed=True)["window"].max().to_dict() == {"beta": 6, "fixed:0.5": 6}
    assert set(frame["config/gamma"]) == {0.8}


@pytest.mark.filterwarnings("ignore::atesd_env.simulated.surrogate_population.ExtrapolationWarning")
def test_resume_goes_on_with_the_same_rows_and_refuses_others(file: Path, tmp_path: Path, capsys):
    config = surrogate_config(file, on_extrapolation="warn")
    alone, stopped = (plan_runs("ATESD-Surrogate-v0", config, ["beta"], [0], tmp_path / name)[0] for name in ("a", "b"))
    execute(alone)

    def stop(row: dict[str, Any]) -> None:
        if row["window"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(stopped, checkpoint_every=1, report=stop)
    assert list((stopped.folder / CHECKPOINT_FOLDER).glob("*.safetensors"))
    arguments = ("--agent", "beta", "--on-extrapolation", "warn", "--out", stopped.folder.parent, "--quiet", "--resume")
    assert "gamma (0.9 there, 0.5 now)" in refusal(
        capsys, "run", *SURROGATE, "--file", file, *arguments, "--gamma", 0.5
    )
    atesd("run", *SURROGATE, "--file", file, *arguments)
    assert rows_without_times(alone.folder) == rows_without_times(stopped.folder)
    assert len(rows_without_times(alone.folder)) == 6


def test_compare_and_train_take_it_too(file: Path, tmp_path: Path):
    common = (*SURROGATE, "--file", file, "--quiet", "--out")
    atesd("compare", *common, tmp_path / "compared", "--agent", "random", "fixed:1", "--seeds", 0, 1, "--processes", 2)
    assert json.loads((tmp_path / "compared" / "comparison.json").read_text())["env_id"] == "ATESD-Surrogate-v0"
    atesd("train", *common, tmp_path / "trained", "--agent", "beta", "--total-windows", 12, "--eval-seeds", 0)
    assert (tmp_path / "trained" / "best_agent.safetensors").exists()
    assert json.loads((tmp_path / "trained" / "training.json").read_text())["config"]["file"] == str(file)


def test_its_flags_are_its_own(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        atesd("run", *SURROGATE, "--help")
    words = capsys.readouterr().out.split()
    own = {"--file", "--on-extrapolation", "--progress", "--grounded-weight", "--gamma", "--lookahead"}
    assert own <= set(words)
    assert not {"--windows", "--groups", "--learning-rate", "--toy-noise"} & set(words)


def test_what_it_cannot_do_is_refused_by_name(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = ("--out", tmp_path / "none")
    assert "--file" in refusal(capsys, "run", *SURROGATE, "--agent", "beta", *out)
    assert "--windows" in refusal(capsys, "run", *SURROGATE, "--file", file, "--agent", "beta", "--windows", 3, *out)
    assert "a language model" in refusal(capsys, "run", *SURROGATE, "--file", file, "--agent", "grpo", *out)
    assert "which has a surrogate" in refusal(capsys, "evaluate", *SURROGATE, "--benchmark", "heldout", *out)
    assert "which has a surrogate" in refusal(capsys, "plan", "ATESD-Surrogate-v0")
    assert not (tmp_path / "none").exists()
