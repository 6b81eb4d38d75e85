"""Running agents on environments, in this process; the console command is tested end to end in tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.experiment import RunSpec, execute, plan_runs
from atesd_env.config import EnvConfig, preset
from atesd_env.errors import AtesdError, ConfigError

TOY = preset("ATESD-Toy-v0", windows=3)


def toy_run(folder: Path, config: EnvConfig = TOY) -> RunSpec:
    return RunSpec("ATESD-Toy-v0", config, "random", seed=0, folder=folder)


def test_an_overwritten_run_that_dies_keeps_nothing_of_the_old_one(tmp_path: Path):
    execute(toy_run(tmp_path / "run"))
    assert (tmp_path / "run" / "agent.safetensors").exists()
    (tmp_path / "run" / "notes.txt").write_text("the user's own")

    def die(_info: dict[str, object]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(toy_run(tmp_path / "run"), overwrite=True, report=die)
    assert not (tmp_path / "run" / "agent.safetensors").exists()
    assert (tmp_path / "run" / "notes.txt").read_text() == "the user's own"


def test_runs_of_one_seed_stand_together(tmp_path: Path):
    specs = plan_runs("ATESD-Toy-v0", TOY, ["fixed:0.5", "random"], [3, 4], tmp_path)
    assert [(spec.agent, spec.seed) for spec in specs] == [
        ("fixed:0.5", 3),
        ("random", 3),
        ("fixed:0.5", 4),
        ("random", 4),
    ]
    assert specs[0].folder == tmp_path / "fixed-0.5-seed3"


def test_a_misspelt_agent_is_found_before_anything_runs(tmp_path: Path):
    with pytest.raises(ConfigError, match="linaer"):
        plan_runs("ATESD-Toy-v0", TOY, ["random", "linaer:0:1"], [0], tmp_path)


def test_an_agent_named_twice_is_refused(tmp_path: Path):
    with pytest.raises(AtesdError, match="each agent and each seed once"):
        plan_runs("ATESD-Toy-v0", TOY, ["random", "random"], [0], tmp_path)
