"""Evaluations: one run a seed, the same whether students stand side by side or not."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import pytest

import agents
from atesd.experiments.training.evaluation import evaluate
from atesd_env.envs.contract import Students
from atesd_env.simulated.toy_population import ToyPopulation, ToyState


def population(num_envs: int, **fields: Any) -> Any:
    return gymnasium.make_vec("ATESD-Toy-v0", num_envs=num_envs, windows=5, **fields)


def single(**fields: Any) -> Any:
    return gymnasium.make("ATESD-Toy-v0", windows=5, **fields)


class Remembering:
    """Reveals more with every window of a run; forgets where an episode starts."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        assert deterministic
        observations = np.atleast_2d(observation)
        counts = np.zeros(len(observations)) if state is None else state
        counts = np.where(np.broadcast_to(episode_start, counts.shape), 0.0, counts) + 1.0
        ratios = (0.1 * counts[:, None]).astype(np.float32)
        return (ratios if np.ndim(observation) > 1 else ratios[0]), counts


def test_a_run_is_what_a_loop_makes_of_it():
    env = single()
    _, info = env.reset(seed=7)
    rewards = []
    for window in range(5):
        _, reward, _, _, info = env.step(np.array([0.1 * (window + 1)], dtype=np.float32))
        rewards.append(reward)
    (run,) = evaluate(Remembering(), single(), [7])
    assert run.seed == 7
    assert run.total_reward == pytest.approx(sum(rewards))
    assert run.probe_nll == info["probe/nll"]
    assert run.reveal_ratio == pytest.approx(0.3)
    assert (run.windows, run.is_broken) == (5, False)


@pytest.mark.parametrize("num_envs", [1, 2, 3, 7])
def test_students_side_by_side_give_the_same_runs(num_envs: int):
    alone = evaluate(Remembering(), single(), [3, 9, 4])
    together = evaluate(Remembering(), population(num_envs), [3, 9, 4])
    assert [run.seed for run in together] == [3, 9, 4]
    for one, other in zip(alone, together, strict=True):
        assert other.total_reward == pytest.approx(one.total_reward)
        assert other.probe_nll == one.probe_nll
        assert other.reveal_ratio == pytest.approx(one.reveal_ratio)
        assert other.windows == one.windows


def test_a_broken_student_ends_its_own_run_only(monkeypatch: pytest.MonkeyPatch):
    breaks = lambda run: "broke in a test" if run.seed == 4 and len(run.rows) == 2 else None  # noqa: E731
    monkeypatch.setattr(ToyState, "broken", property(breaks))

    def without_a_measurement(students: ToyPopulation, ratios: Any, chosen: Any) -> Any:
        # The way that asks each student whether it broke; a closed form never does, and has a faster one.
        results = Students.window_results(students, ratios, chosen)
        results.infos["probe/nll"][results.terminations] = np.nan
        results.infos["_probe/nll"][results.terminations] = False
        return results

    monkeypatch.setattr(ToyPopulation, "window_results", without_a_measurement)
    monkeypatch.setattr(ToyPopulation, "window_result", Students.window_result)
    runs = evaluate(Remembering(), population(2), [3, 4])
    assert [run.windows for run in runs] == [5, 2]
    assert [run.is_broken for run in runs] == [False, True]
    assert runs[1].reveal_ratio == pytest.approx(0.15)
    assert math.isfinite(runs[1].probe_nll), "the last one that was measured"


def test_an_evaluation_leaves_an_agent_as_it_was():
    env = population(3)
    agent = agents.make("ppo", env, seed=0)
    observations, _ = env.reset(seed=0)
    first = evaluate(agent, env, [1, 2, 3])
    drawn = agent.predict(observations)[0].tolist()
    again = agents.make("ppo", env, seed=0)
    assert again.predict(observations)[0].tolist() == drawn, "no random number was used up"
    assert evaluate(agent, env, [1, 2, 3]) == first
