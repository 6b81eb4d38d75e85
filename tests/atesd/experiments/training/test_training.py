"""``atesd.experiments.training.training``: evaluations, the best agent, and going on after an interruption as if there had been none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch

from agents.base import Agent
from agents.sb3.agent import load_agent
from atesd.experiments.training.evaluation import EvaluatedRun, evaluate
from atesd.experiments.training.legs import leg_seed
from atesd.experiments.training.training import EVALUATION_COLUMNS, TrainSpec, evaluation_row, read_evaluations, train
from atesd_env.config import SurrogateConfig, preset
from atesd_env.errors import AgentError, ConfigError, NonFiniteError, RunFilesError
from atesd_env.files.checkpoint import read_checkpoint

CONFIG = preset("ATESD-Toy-v0", windows=5)


def spec(folder: Path, agent: str = "ppo", **changes: Any) -> TrainSpec:
    fields: dict[str, Any] = {
        "env_id": "ATESD-Toy-v0",
        "config": CONFIG,
        "agent": agent,
        "num_envs": 2,
        "total_windows": 60,
        "seed": 1,
        "eval_every": 20,
        "eval_seeds": (0, 1, 2),
        "folder": folder,
    }
    return TrainSpec(**{**fields, **changes})


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "time/sec"} for row in rows]


def interrupting(at: int) -> Any:
    """Returns a report that presses Ctrl-C once some windows have been made."""

    def report(windows: int, row: dict[str, Any] | None) -> None:
        if windows >= at:
            raise KeyboardInterrupt

    return report


def test_a_training_is_evaluated_before_between_and_after(tmp_path: Path):
    trained = train(spec(tmp_path))
    rows = read_evaluations(tmp_path)
    assert [row["windows"] for row in rows] == [0, 20, 40, 60]
    assert all(list(row) == list(EVALUATION_COLUMNS) for row in rows)
    assert without_time(rows) == without_time(trained.rows)
    for row in rows:
        assert len(row["evaluation/returns"]) == 3
        assert row["evaluation/return_mean"] == pytest.approx(np.mean(row["evaluation/returns"]))
    assert json.loads((tmp_path / "training.json").read_text())["config"]["windows"] == 5


def test_the_best_agent_is_kept(tmp_path: Path):
    trained = train(spec(tmp_path, "sac:ent_coef=auto", total_windows=80))
    env = gymnasium.make("ATESD-Toy-v0", windows=5)

    def mean_return(path: Path) -> float:
        return float(np.mean([run.total_reward for run in evaluate(load_agent(path, env, trust=True), env, (0, 1, 2))]))

    means = [row["evaluation/return_mean"] for row in trained.rows]
    assert mean_return(trained.best_agent) == pytest.approx(max(means))
    assert mean_return(trained.last_agent) == pytest.approx(means[-1])
    for index, row in enumerate(trained.rows):
        assert row["is_best"] == all(means[index] > mean for mean in means[:index])
    assert max(means) > means[-1], "with this seed the best is not the last, so that the two files differ"


@pytest.mark.parametrize("agent", ["ppo", "recurrent_ppo", "sac", "td3", "dqn", "beta"])
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(agent: str, tmp_path: Path):
    """Interrupted between two evaluations; replay buffers and DQN's random exploration go on."""
    numbers: dict[str, Any] = {
        "num_envs": None if agent == "beta" else 2,
        "total_windows": 120,
        "eval_every": 40,
    }
    whole = train(spec(tmp_path / "whole", agent, **numbers))
    interrupted = spec(tmp_path / "interrupted", agent, **numbers)
    with pytest.raises(KeyboardInterrupt, match=r"--resume .* go on from the evaluation after 40 windows"):
        train(interrupted, report=interrupting(at=60))
    assert [row["windows"] for row in read_evaluations(interrupted.folder)] == [0, 40]
    assert (interrupted.folder / f"last_agent{whole.last_agent.suffix}").exists()
    resumed = train(interrupted, resume=True)
    assert without_time(resumed.rows) == without_time(whole.rows)
    assert without_time(read_evaluations(interrupted.folder)) == without_time(whole.rows)
    ends = [read_checkpoint(one.folder / "checkpoint.safetensors") for one in (spec(tmp_path / "whole"), interrupted)]
    assert ends[0].arrays.keys() == ends[1].arrays.keys()
    for name, array in ends[0].arrays.items():
        if name != "zip":  # which holds dates
            assert np.array_equal(array, ends[1].arrays[name], equal_nan=True), name
    if agent != "beta":
        ends_of = [
            load_agent(one.last_agent, gymnasium.make_vec("ATESD-Toy-v0", num_envs=2), learn=True, trust=True)
            for one in (whole, resumed)
        ]
        first, second = (end.algorithm.policy.state_dict() for end in ends_of)
        assert all(torch.equal(first[name], second[name]) for name in first)
    again = train(interrupted, resume=True)
    assert without_time(again.rows) == without_time(whole.rows), "nothing is left to do"


def test_a_training_that_died_before_its_first_evaluation_begins_anew(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        train(spec(tmp_path), report=interrupting(at=0))
    (tmp_path / "checkpoint.safetensors").unlink()
    assert [row["windows"] for row in train(spec(tmp_path), resume=True).rows] == [0, 20, 40, 60]


def test_a_training_that_has_lost_its_checkpoint_keeps_its_evaluations(tmp_path: Path):
    train(spec(tmp_path))
    (tmp_path / "checkpoint.safetensors").unlink()
    before = (tmp_path / "evaluations.jsonl").read_bytes()
    with pytest.raises(RunFilesError, match=r"checkpoint\.safetensors: expected the checkpoint that the evaluations"):
        train(spec(tmp_path), resume=True)
    assert (tmp_path / "evaluations.jsonl").read_bytes() == before


def test_a_training_can_be_made_longer(tmp_path: Path):
    train(spec(tmp_path))
    longer = train(spec(tmp_path, total_windows=80), resume=True)
    assert [row["windows"] for row in longer.rows] == [0, 20, 40, 60, 80]
    assert without_time(longer.rows) == without_time(train(spec(tmp_path / "at_once", total_windows=80)).rows)


def test_an_agent_of_ours_learns_from_one_run_after_the_other(tmp_path: Path):
    trained = train(spec(tmp_path, "beta", num_envs=None, eval_every=12))
    assert [row["windows"] for row in trained.rows] == [0, 15, 30, 45, 60], "an evaluation waits for the end of a run"
    assert trained.best_agent.name == "best_agent.safetensors"
    assert trained.rows[0]["evaluation/returns"] != trained.rows[-1]["evaluation/returns"]
    assert trained.last_agent.exists()


class Deciding(Agent):
    """An agent with one decision while it learns, and one where it is evaluated."""

    learning, evaluated = 0.5, 0.5

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        return np.full(self.groups, self.evaluated if deterministic else self.learning, dtype=np.float32), state


class Watching(Deciding):
    """An agent that notes the seeds of the runs that it learned from."""

    seeds: ClassVar[list[int]] = []

    def observe(self, transition: Any) -> None:
        if transition.truncated:
            self.seeds.append(self.env.unwrapped.snapshot().seed)


def test_legs_meet_new_problems_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seeds: list[int] = []
    monkeypatch.setattr(Watching, "seeds", seeds)
    train(spec(tmp_path, f"{__name__}:Watching", num_envs=1))
    assert len(seeds) == len(set(seeds)) == 12
    assert not set(seeds) & {0, 1, 2}, "held-out seeds are not trained on"
    assert leg_seed(1, 20) != leg_seed(2, 20)


def test_a_folder_is_not_overwritten_without_being_asked(tmp_path: Path):
    train(spec(tmp_path))
    before = (tmp_path / "evaluations.jsonl").read_bytes()
    with pytest.raises(RunFilesError, match="--resume to go on with it, or --overwrite"):
        train(spec(tmp_path))
    assert (tmp_path / "evaluations.jsonl").read_bytes() == before
    (tmp_path / "notes.txt").write_text("the user's own")
    train(spec(tmp_path, "a2c", total_windows=20), overwrite=True)
    assert [row["windows"] for row in read_evaluations(tmp_path)] == [0, 20]
    assert (tmp_path / "notes.txt").exists()
    with pytest.raises(ConfigError, match="either resume or overwrite"):
        train(spec(tmp_path), resume=True, overwrite=True)


def test_going_on_with_something_else_is_refused(tmp_path: Path):
    train(spec(tmp_path))
    with pytest.raises(ConfigError, match=r"seed \(1 there, 2 now\)"):
        train(spec(tmp_path, seed=2), resume=True)
    with pytest.raises(ConfigError, match=r"windows \(5 there, 6 now\)"):
        train(dataclasses.replace(spec(tmp_path), config=CONFIG.replace(windows=6)), resume=True)


def test_an_environment_can_be_made_from_a_file(tmp_path: Path):
    """As a fitted surrogate is."""

    def make_vec(file: str, on_extrapolation: str, num_envs: int, **fields: Any) -> Any:
        assert Path(file).read_text() == "0.8"
        return gymnasium.make_vec("ATESD-Toy-v0", num_envs=num_envs, **{**fields, "toy_best_ratio": 0.8})

    made_from = tmp_path / "file.txt"
    made_from.write_text("0.8")
    gymnasium.register("FromFile-v0", entry_point=lambda **_: None, vector_entry_point=make_vec)
    try:
        config = SurrogateConfig(file=made_from, windows=CONFIG.windows)
        one = dataclasses.replace(spec(tmp_path / "out"), env_id="FromFile-v0", config=config)
        assert len(train(one).rows) == 4
        with pytest.raises(ConfigError, match=r"file \(.*file.txt' there, 'other' now\)"):
            train(dataclasses.replace(one, config=config.replace(file="other")), resume=True)
    finally:
        del gymnasium.registry["FromFile-v0"]


def test_the_columns_are_documented():
    page = (Path(__file__).parents[4] / "docs" / "file_formats.md").read_text()
    for name, meaning in EVALUATION_COLUMNS.items():
        assert f"| `{name}` | {meaning} |" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_windows": 0}, "total_windows: expected a whole number from 1"),
        ({"num_envs": 0}, "num_envs"),
        ({"eval_every": -1}, "eval_every"),
        ({"seed": -1}, "seed"),
        ({"eval_seeds": ()}, "eval_seeds"),
        ({"eval_seeds": (1, 1)}, "named once"),
    ],
)
def test_wrong_numbers_are_explained(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        spec(tmp_path, **changes)


def test_an_agent_of_ours_takes_one_student(tmp_path: Path):
    with pytest.raises(ConfigError, match="num_envs: expected 1 for beta"):
        train(spec(tmp_path, "beta", num_envs=4))
    assert not (tmp_path / "training.json").exists()


def evaluated(*returns: float) -> list[EvaluatedRun]:
    return [EvaluatedRun(seed, one, 1.0, 0.5, 5, False) for seed, one in enumerate(returns)]


def test_a_row_by_hand():
    first = evaluation_row(0, evaluated(1.0, 3.0), [], elapsed_sec=2.0)
    assert first["evaluation/return_mean"] == 2.0
    assert first["evaluation/return_std"] == pytest.approx(2.0**0.5)
    assert first["is_best"] is True
    assert evaluation_row(1, evaluated(2.0, 2.0), [first], elapsed_sec=0.0)["is_best"] is False, "a tie keeps the older"
    assert evaluation_row(1, evaluated(2.1, 2.0), [first], elapsed_sec=0.0)["is_best"] is True
    nothing = evaluation_row(0, evaluated(float("nan")), [], elapsed_sec=0.0)
    assert evaluation_row(1, evaluated(float("nan")), [first], elapsed_sec=0.0)["is_best"] is False
    assert evaluation_row(1, evaluated(-9.0), [nothing], elapsed_sec=0.0)["is_best"] is True


class Spoilt(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose third window has a reward that is no number."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.num_steps = 0

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, *rest = super().step(action)
        self.num_steps += 1
        return observation, float("nan") if self.num_steps == 3 else reward, *rest


class NotANumber(Deciding):
    learning = np.nan


class TooFar(Deciding):
    evaluated = 1.5


class Raising(Deciding):
    """An agent with a mistake in what it learns by."""

    def observe(self, transition: Any) -> None:
        raise KeyError("misspelt")


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        ("NotANumber", "window 1: its decision cannot be used. .* got nan"),
        ("TooFar", "window 1: its decision cannot be used. .* got 1.5"),
        ("Raising", "go on after window 1, but it raised KeyError: 'misspelt'"),
    ],
)
def test_what_is_wrong_with_an_agent_is_said_in_training_too(agent: str, message: str, tmp_path: Path):
    with pytest.raises(AgentError, match=message):
        train(spec(tmp_path, f"{__name__}:{agent}", num_envs=None))


def test_a_diverged_algorithm_is_told_from_a_broken_environment(tmp_path: Path):
    """The step size makes the weights overflow: the policy's outputs are NaN after the first update."""
    with pytest.raises(AgentError, match="agent 'ppo'"):
        train(spec(tmp_path, "ppo:learning_rate=1e38"))


def test_a_reward_that_is_no_number_reaches_no_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make = gymnasium.make
    monkeypatch.setattr(gymnasium, "make", lambda *args, **keywords: Spoilt(make(*args, **keywords)))
    with pytest.raises(NonFiniteError, match="reward of window 3: expected a finite number, got nan"):
        train(spec(tmp_path / "ours", "beta", num_envs=None))


def test_what_a_report_raises_is_not_called_the_agents(tmp_path: Path):
    def report(windows: int, row: Any) -> None:
        if windows > 0:
            raise ZeroDivisionError("of the caller")

    for agent in ("ppo", "beta"):
        with pytest.raises(ZeroDivisionError, match="of the caller"):
            train(spec(tmp_path / agent, agent, num_envs=2 if agent == "ppo" else None), report=report)
