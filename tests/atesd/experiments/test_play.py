"""`atesd.run`: what a notebook calls makes the runs of `atesd run`, and returns their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import analysis
import atesd
from atesd_env.errors import ConfigError, RunFilesError


def run(out: Path, **changes: Any) -> pd.DataFrame:
    arguments: dict[str, Any] = {
        "env": "ATESD-Toy-v0",
        "agents": ["fixed:0.4", "fixed:0.9"],
        "seeds": [0, 1],
        "windows": 4,
    }
    return atesd.run(**arguments | {"out": out, "quiet": True} | changes)


def test_it_returns_every_row_of_every_run_and_only_of_these(tmp_path: Path):
    run(tmp_path, agents=["random"], seeds=[7])
    frame = run(tmp_path)
    assert frame.groupby("run", observed=True).size().to_dict() == {
        "fixed-0.4-seed0": 4,
        "fixed-0.4-seed1": 4,
        "fixed-0.9-seed0": 4,
        "fixed-0.9-seed1": 4,
    }
    ratios = frame.groupby("agent", observed=True)["exposure/reveal_ratio"].unique()
    assert {agent: one.tolist() for agent, one in ratios.items()} == {
        "fixed:0.4": [pytest.approx(0.4)],
        "fixed:0.9": [pytest.approx(0.9)],
    }


def test_its_frame_can_be_compared(tmp_path: Path):
    comparison = analysis.compare(run(tmp_path, seeds=range(6)))
    assert set(comparison.table["agent"]) == {"fixed:0.4", "fixed:0.9"}


def test_agents_may_be_classes(tmp_path: Path):
    class Half:
        def __init__(self, env: Any, seed: int = 0) -> None:
            self.shape = env.action_space.shape

        def predict(self, observation: Any, state: Any = None, **_: Any) -> tuple[Any, Any]:
            return np.full(self.shape, 0.5, dtype=np.float32), state

    assert set(run(tmp_path, agents=[Half])["exposure/reveal_ratio"]) == {0.5}


def test_runs_that_are_there_are_refused_replaced_or_gone_on_with(tmp_path: Path):
    first = run(tmp_path)
    with pytest.raises(RunFilesError, match="found 4 of the 4 runs there already"):
        run(tmp_path)
    pd.testing.assert_frame_equal(run(tmp_path, resume=True), first)  # finished: only read, times and all
    assert len(run(tmp_path, overwrite=True)) == len(first)
    with pytest.raises(ConfigError, match="expected either resume=True or overwrite=True, got both"):
        run(tmp_path, resume=True, overwrite=True)


def test_a_misspelt_field_is_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(ConfigError, match="windws"):
        run(tmp_path / "out", windws=3)
    assert not (tmp_path / "out").exists()


def test_it_tells_of_each_window_unless_it_is_to_be_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(tmp_path / "quiet")
    assert capsys.readouterr().err == ""
    run(tmp_path / "told", quiet=False, seeds=[0], agents=["fixed:0.4"])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert "[1/1] fixed:0.4 seed 0: 4/4  ratio 0.40" in lines[-1]


def test_the_home_folder_is_meant_by_its_sign_and_one_spec_is_an_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(run(Path("~/out"), agents="random", seeds=[0])) == 4
    assert (tmp_path / "out" / "random-seed0").is_dir()


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"env": [" "]}, "env id: expected one of ours"),
        ({"env": -1}, "env id: expected one of ours"),
        ({"seeds": float("nan")}, "seeds: expected whole numbers"),
        ({"seeds": 1j}, "seeds: expected whole numbers"),
        ({"agents": 0.3}, "agent.*expected"),
    ],
)
def test_arguments_of_another_kind_are_refused(odd: dict[str, Any], message: str, tmp_path: Path):
    arguments = {"env": "ATESD-Toy-v0", "agents": ["random"], "seeds": [0], "out": tmp_path / "out"} | odd
    with pytest.raises(ConfigError, match=message):
        atesd.run(**arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["agents", "seeds"])
def test_no_agent_and_no_seed_are_refused_by_their_names(name: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=rf"{name}: expected at least one, got \[\]"):
        run(tmp_path, **{name: []})
