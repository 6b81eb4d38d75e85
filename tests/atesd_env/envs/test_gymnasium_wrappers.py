"""Gymnasium's own wrappers for films and statistics, on the closed form and on a Tiny of one window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import RecordEpisodeStatistics, RecordVideo

import atesd_env  # noqa: F401  (registers the ids)

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "ATESD-Toy-v0": {"windows": 3},
    "ATESD-Tiny-v0": {"windows": 1, "hold_window": 1, "num_rollouts": 2, "probe_size": 2, "max_new_tokens": 8},
}


def play(env: gymnasium.Env[Any, Any]) -> tuple[list[float], dict[str, Any]]:
    """Plays an episode; returns its rewards and the last info."""
    env.reset(seed=0)
    rewards, is_over = [], False
    info: dict[str, Any] = {}
    while not is_over:
        _, reward, terminated, truncated, info = env.step(np.array([0.5], dtype=np.float32))
        rewards.append(float(reward))
        is_over = terminated or truncated
    return rewards, info


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_episode_statistics_are_the_run(env_id: str):
    env = RecordEpisodeStatistics(gymnasium.make(env_id, **ENVIRONMENTS[env_id]))
    rewards, info = play(env)
    assert info["episode"]["l"] == len(rewards) == ENVIRONMENTS[env_id]["windows"]
    assert info["episode"]["r"] == pytest.approx(sum(rewards), abs=1e-5)
    assert info["window"] == len(rewards), "the row is still there"
    env.close()


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_a_film_of_a_run_has_a_frame_for_its_beginning_and_each_window(env_id: str, tmp_path: Path):
    pytest.importorskip("moviepy", reason="the package moviepy, which Gymnasium's RecordVideo needs, is missing")
    env: Any = RecordVideo(
        gymnasium.make(env_id, render_mode="rgb_array", **ENVIRONMENTS[env_id]),
        str(tmp_path / "film"),
        episode_trigger=lambda episode: True,
        disable_logger=True,
    )
    rewards, _ = play(env)
    frames = [frame.tobytes() for frame in env.recorded_frames]
    assert len(set(frames)) == 1 + len(rewards), "each window changes the picture"
    env.close()
    (film,) = (tmp_path / "film").glob("*.mp4")
    assert film.stat().st_size > 1000
