"""Landscapes: runs of the bench that come back from their file as analysis reads them, for the very set they were made on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gymnasium
import pandas as pd
import pytest

import atesd
from analysis import load_runs
from analysis.bench import bench_outcomes
from atesd_env.bench import Instance, InstanceSet, landscape, landscapes_card
from atesd_env.bench.landscapes import by_group, landscapes_file, write_landscapes
from atesd_env.errors import ConfigError, DataError
from benchmarks.references import branch_windows
from tests.atesd_env.bench.sets import toy_set

CARD = {"what": "Two agents.", "command": "python -m benchmarks.x", "commit": "abc1234", "licence": "Apache-2.0"}


@pytest.fixture
def mine(tmp_path: Path) -> InstanceSet:
    toy_set().save(tmp_path / "mine.json")
    return InstanceSet.from_file(tmp_path / "mine.json")


@pytest.fixture
def runs(mine: InstanceSet, tmp_path: Path) -> pd.DataFrame:
    for instance in ("low", "high"):
        atesd.run(
            env="ATESD-Bench-v0",
            agents=["fixed:0.5", "random"],
            seeds=[0, 1],
            out=tmp_path / "runs" / instance,
            instances=str(tmp_path / "mine.json"),
            instance=instance,
        )
    return load_runs(tmp_path / "runs")


def test_runs_come_back_as_analysis_reads_them(mine: InstanceSet, runs: pd.DataFrame, tmp_path: Path):
    write_landscapes(mine, runs, **CARD)
    assert landscapes_file(mine) == tmp_path / "mine.landscapes.parquet"
    card = landscapes_card(mine)
    assert ({name: card[name] for name in CARD}, card["fingerprint"]) == (CARD, mine.fingerprint)
    found = landscape(mine)
    assert not [name for name in found if name.startswith("time/")]
    times = ["controller_sec", "run_sec"]
    expected = bench_outcomes(runs).drop(columns=times)
    pd.testing.assert_frame_equal(bench_outcomes(found).drop(columns=times), expected, check_dtype=False)
    env = gymnasium.make("ATESD-Bench-v0", instances=str(tmp_path / "mine.json")).unwrapped
    assert set(env.landscape("low")["instance"]) == {"low"}
    with pytest.raises(ConfigError, match="did you mean 'low'"):
        env.landscape("lwo")


def test_windows_on_branches_stand_apart(mine: InstanceSet, tmp_path: Path):
    """They are kept with the run, packaged with its rows, and returned for themselves: the runs are read as without them."""
    agents = ["lookahead:ratios=[0,1]:windows=2:race=null", "random"]
    atesd.run(
        env="ATESD-Bench-v0",
        agents=agents,
        out=tmp_path / "runs",
        instances=str(tmp_path / "mine.json"),
        instance="low",
    )
    runs = load_runs(tmp_path / "runs")
    tried = branch_windows([tmp_path / "runs"], runs)
    write_landscapes(mine, pd.concat([runs, tried], ignore_index=True), **CARD)
    times = ["controller_sec", "run_sec"]
    assert "branch" not in landscape(mine)
    pd.testing.assert_frame_equal(
        bench_outcomes(landscape(mine)).drop(columns=times), bench_outcomes(runs).drop(columns=times), check_dtype=False
    )
    found = landscape(mine, "low", branches=True)
    assert found[["agent", "decision", "branch", "window"]].to_numpy().tolist() == [
        [agents[0], 1, branch, window] for window in (1, 2) for branch in (0, 1)
    ]
    assert found["exposure/reveal_ratio"].tolist() == [0.0, 1.0] * 2
    assert found["reward/total"].notna().all()


def test_runs_by_problem_can_be_left_out():
    frame = pd.DataFrame({"run": ["a", "b"], "exposure/problem_ratio_0": [None, 0.5]})
    assert by_group(frame)["run"].tolist() == ["a"]
    assert by_group(frame[["run"]])["run"].tolist() == ["a", "b"]


def test_what_is_not_theirs_is_refused(mine: InstanceSet, runs: pd.DataFrame):
    with pytest.raises(DataError, match=r"in mine\.landscapes\.parquet, found no such file"):
        landscape(mine)
    with pytest.raises(ConfigError, match="got none of window; pass its frame"):
        write_landscapes(mine, runs.drop(columns="window"), **CARD)
    assert not landscapes_file(mine).exists()
    write_landscapes(mine, runs, **CARD)
    more = (*mine.instances, Instance("new", "test", "New.", {"toy_best_ratio": 0.7}))
    with pytest.raises(DataError, match="expected landscapes of this set"):
        landscape(dataclasses.replace(mine, instances=more))
