"""Every kind of agent learns on the bench as it does elsewhere, over runs of different instances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3 import PPO

import agents
import atesd
from agents.sb3.vec_env import PopulationVecEnv
from atesd.commands.cli import main
from atesd_env.files.run_folder import read_rows
from tests.atesd_env.bench.sets import toy_set


class Halves:
    """A controller of one's own: nothing but ``predict``."""

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int = 0) -> None:
        self.num_ratios = env.action_space.shape[0]  # type: ignore[index]

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        return np.full((*np.shape(observation)[:-1], self.num_ratios), 0.5, dtype=np.float32), state


def bench(num_envs: int | None = None) -> Any:
    fields: dict[str, Any] = {"instances": toy_set(), "order": "round-robin"}
    if num_envs is None:
        return gymnasium.make("ATESD-Bench-v0", **fields)
    return gymnasium.make_vec("ATESD-Bench-v0", num_envs=num_envs, **fields)


@pytest.mark.parametrize(
    "spec",
    [
        *("beta", "beta:credit=one-step", "fixed:1", "random", "linear:1:0", "feedback", "lookahead:windows=1:every=2"),
        *("grounded", "mismatch", "balance"),
        *(
            "ucb",
            "thompson",
            "exp3s",
            "linucb",
            "ppo:n_steps=6:batch_size=6",
            "a2c:n_steps=3",
            "dqn:grid=3",
        ),
    ],
)
def test_agents_learn_over_instances(spec: str):
    env, seen = bench(), []
    agent = agents.make(spec, env, seed=0)
    agent.learn(12, callback=lambda names, _: seen.append(names["infos"][0]["instance"]))
    assert seen[:10] == ["low"] * 3 + ["high"] * 4 + ["both"] * 3
    action, _ = agent.predict(env.reset(seed=3)[0], deterministic=True)
    assert env.action_space.contains(np.asarray(action))


def test_stable_baselines_own_class_learns_from_a_population_of_instances():
    env = PopulationVecEnv(bench(4))
    PPO("MlpPolicy", env, n_steps=4, batch_size=8, n_epochs=1, seed=0).learn(32)
    assert env.num_windows == 32


def test_runs_of_the_bench_say_which_instance_they_are(tmp_path: Path):
    toy_set().save(tmp_path / "mine.json")
    fields = {"instances": str(tmp_path / "mine.json"), "quiet": True}
    frame = atesd.run("ATESD-Bench-v0", ["beta", Halves], seeds=[0, 1, 3], out=tmp_path / "runs", **fields)
    lengths = frame.groupby(["agent", "seed"])["window"].max()
    assert set(lengths) == {3, 4}
    assert frame.groupby("seed")["instance"].nunique().eq(1).all(), "a seed is the same instance for every agent"
    assert set(frame["instance"]) > {"high"}
    assert (frame["instance"].eq("high") == frame["run"].map(frame.groupby("run")["window"].max()).eq(4)).all()


def test_the_verbs_train_and_play_on_it(tmp_path: Path):
    toy_set().save(tmp_path / "mine.json")
    where = ["--env", "ATESD-Bench-v0", "--instances", str(tmp_path / "mine.json"), "--quiet"]
    for spec, name in (("ppo:n_steps=4:batch_size=8", "ppo"), ("beta", "beta")):
        out = tmp_path / name
        main(["train", *where, "--agent", spec, "--total-windows", "20", "--eval-seeds", "0", "1", "--out", str(out)])
    trained = str(tmp_path / "ppo" / "best_agent.zip")
    test = ["--split", "test", "--instance", "other", "--seeds", "20000"]
    main(["run", *where, *test, "--agent", trained, "--trust-pickle", "--out", str(tmp_path / "runs")])
    (trajectory,) = (tmp_path / "runs").rglob("trajectory.jsonl")
    rows = read_rows(trajectory)
    assert [row["instance"] for row in rows] == ["other"] * 3
    assert rows[-1]["status"] == "truncated"
