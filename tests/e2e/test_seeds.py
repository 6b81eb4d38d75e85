"""Seeds that no table could hold are refused before anything is done, wherever seeds are taken."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import atesd
from analysis import load_runs
from atesd_env.errors import ConfigError
from atesd_env.pretrain.__main__ import main as rebuild
from tests.programs import refusal

TOY = ("--env", "ATESD-Toy-v0", "--windows", 2, "--quiet")
COMMANDS: dict[str, tuple[object, ...]] = {
    "run": ("run", *TOY, "--agent", "beta", "--seeds"),
    "compare": ("compare", *TOY, "--agent", "beta", "--seeds"),
    "train": ("train", *TOY, "--agent", "beta", "--seed"),
    "its evaluations": ("train", *TOY, "--agent", "beta", "--eval-seeds"),
    "evaluate": ("evaluate", "--benchmark", "heldout", "--seed"),
    "fit-surrogate": ("fit-surrogate", "nothing", "--seed"),
}


@pytest.mark.parametrize("seed", [2**63, 10**400, -1])
@pytest.mark.parametrize("command", COMMANDS)
def test_verbs_refuse_them_before_there_is_a_folder(command: str, seed: int, tmp_path: Path, capsys: Any):
    said = refusal(capsys, *COMMANDS[command], seed, "--out", tmp_path / "out")
    assert re.search(r"expected (a whole number|whole numbers) from 0 to 2\^63 - 1, got", said)
    assert str(COMMANDS[command][-1]) in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [2**63, -1])
def test_so_do_the_functions_of_a_notebook_and_the_rebuilding_of_students(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    for seeds in (seed, [0, seed]):
        with pytest.raises(ConfigError, match=r"seeds: expected whole numbers from 0 to 2\^63 - 1"):
            atesd.run("ATESD-Toy-v0", ["beta"], out=tmp_path / "out", seeds=seeds)
    monkeypatch.setattr(sys, "argv", ["pretrain", "--out", str(tmp_path / "out"), "--seed", str(seed)])
    with pytest.raises(SystemExit) as ended:
        rebuild()
    assert ended.value.code == 2
    assert re.search(r"seed: expected a whole number from 0 to 2\^63 - 1", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [2**63, -1, 1.5, True])
def test_environments_refuse_them_and_stay_where_they_are(seed: Any):
    env = gymnasium.make("ATESD-Toy-v0")
    vector = gymnasium.make_vec("ATESD-Toy-v0", num_envs=2)
    before = env.reset(seed=5)[0], vector.reset(seed=5)[0]
    for reset in (lambda: env.reset(seed=seed), lambda: vector.reset(seed=[0, seed])):
        with pytest.raises(ConfigError, match="seed: expected a whole number from 0"):
            reset()
    again = env.unwrapped.population.observations()[0], vector.unwrapped.population.observations()  # type: ignore[attr-defined]
    for one, other in zip(before, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_last_of_several_students_counts_too():
    vector = gymnasium.make_vec("ATESD-Toy-v0", num_envs=2)
    with pytest.raises(ConfigError, match="got 9223372036854775808"):
        vector.reset(seed=2**63 - 1)


def test_the_largest_seed_is_read_back(tmp_path: Path):
    atesd.run("ATESD-Toy-v0", ["beta"], out=tmp_path, seeds=2**63 - 1, windows=2, quiet=True)
    assert load_runs(tmp_path)["seed"].tolist() == [2**63 - 1] * 2


def test_libraries_with_smaller_seeds_say_theirs(tmp_path: Path, capsys: Any):
    said = refusal(capsys, "run", *TOY, "--agent", "ppo", "--seeds", 2**32, "--out", tmp_path)
    assert "expected one below 2^32 for the agent 'ppo'" in said
