"""The oracle's schedule as an agent: what each instance's says, window by window, also after the agent was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import agents
from agents.oracle import OracleSchedule
from atesd_env.bench import InstanceSet
from atesd_env.bench.schedules import write_schedules
from atesd_env.errors import ConfigError
from tests.atesd_env.bench.sets import toy_set

CARD = {"command": "python -m benchmarks.x", "commit": "abc1234", "seeds": [0], "windows_spent": 9}
RATIOS: dict[str, Any] = {"low": [[0.1], [0.2], [0.3]], "both": [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]}


@pytest.fixture
def env(tmp_path: Path) -> gymnasium.Env[Any, Any]:
    toy_set().save(tmp_path / "mine.json")
    mine = InstanceSet.from_file(tmp_path / "mine.json")
    write_schedules(mine, {name: {"ratios": ratios, **CARD} for name, ratios in RATIOS.items()})
    return gymnasium.make("ATESD-Bench-v0", instances=mine)


def test_it_shows_the_schedule_of_each_instance(env: gymnasium.Env[Any, Any], tmp_path: Path):
    agents.make("oracle", env).save(tmp_path / "agent")
    for agent in (agents.make("oracle", env), OracleSchedule.load(tmp_path / "agent", env)):
        for name, ratios in RATIOS.items():
            observation, _ = env.reset(options={"instance": name})
            state, shown = None, []
            for _ in range(3):
                action, state = agent.predict(observation, state)
                assert env.action_space.contains(action)
                shown.append(action[: len(ratios[0])].tolist())
                observation, *_ = env.step(action)
            np.testing.assert_allclose(shown, ratios, rtol=1e-6)


def test_an_instance_without_a_schedule_is_named(env: gymnasium.Env[Any, Any]):
    observation, _ = env.reset(options={"instance": "high"})
    with pytest.raises(ConfigError, match="oracle: expected a schedule of 'high', got those of low, both"):
        agents.make("oracle", env).predict(observation)


def test_elsewhere_than_on_the_bench_it_is_refused():
    with pytest.raises(ConfigError, match=r"oracle: expected an environment of the bench, got \w+"):
        agents.make("oracle", gymnasium.make("ATESD-Toy-v0"))
