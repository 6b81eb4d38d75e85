"""``ATESD-Bench-v0``: what every environment promises, and how instances are drawn, named, kept and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import atesd_env
from atesd_env.bench import SEEDS, InstanceSet
from atesd_env.bench.instances import MOST_WINDOWS
from atesd_env.envs.observation import FEATURE_NAMES, squash
from atesd_env.errors import ConfigError
from tests.atesd_env.bench.sets import Bench, tiny_set, toy_set
from tests.atesd_env.envs.test_env import EnvContract
from tests.atesd_env.envs.test_vector import VectorEnvContract

IDS = ["low", "high", "both"]
BOTH = np.array([0.3, 0.6], dtype=np.float32)


class TestBench(EnvContract, Bench):
    pass


class TestBenchVector(VectorEnvContract, Bench):
    pass


def made(instances: InstanceSet | None = None, **fields: Any) -> Any:
    instances = toy_set() if instances is None else instances
    return gymnasium.make("ATESD-Bench-v0", instances=instances, disable_env_checker=True, **fields).unwrapped


def made_vector(num_envs: int, instances: InstanceSet | None = None, **fields: Any) -> Any:
    instances = toy_set() if instances is None else instances
    return gymnasium.make_vec("ATESD-Bench-v0", num_envs=num_envs, instances=instances, **fields).unwrapped


def drawn(env: Any, seeds: Any) -> list[str]:
    return [env.reset(seed=seed)[1]["instance"] for seed in seeds]


def test_the_id_draws_the_packaged_set_and_pays_the_signed_drop():
    spec, packaged = gymnasium.spec("ATESD-Bench-v0"), InstanceSet.load("atesd-bench")
    assert spec.max_episode_steps == MOST_WINDOWS >= packaged.windows
    claims = json.loads((Path(__file__).parents[3] / "benchmarks" / "results" / "claims.json").read_text())
    assert spec.reward_threshold == round(claims["return"]["balance"], 2)
    env: Any = gymnasium.make("ATESD-Bench-v0", split="test").unwrapped
    assert env.instance_set == packaged
    assert list(env.instances) == [instance for instance in packaged if instance.split == "test"]
    assert env.config.progress == "signed"
    env = made(toy_set(toy_noise=3.0))
    env.reset(seed=0)
    progress = [env.step(BOTH)[-1]["reward/progress"] for _ in range(3)]
    assert min(progress) < 0.0


def test_a_seed_draws_its_instance_and_every_instance_is_drawn():
    ids = drawn(made(), range(300))
    assert ids == drawn(made(), range(300))
    assert all(75 < ids.count(one) < 125 for one in IDS), "seeds are fixed: 100 each, and 3 standard deviations are 24"
    assert len({tuple(ids[start : start + 3]) for start in range(0, 300, 3)}) > 20, (
        "of 27 ways to draw three; in turns there is one"
    )
    _, infos = made_vector(8).reset(seed=0)
    assert infos["instance"].tolist() == ids[:8]
    env = made()
    assert [env.reset(seed=5)[1]["instance"], *drawn(env, [None] * 3)] == [
        (again := made()).reset(seed=5)[1]["instance"],
        *drawn(again, [None] * 3),
    ]


def test_round_robin_takes_one_after_the_other():
    env = made(order="round-robin")
    assert drawn(env, [None] * 4) == [*IDS, "low"]
    assert drawn(env, [4, None, None, 300]) == ["high", "both", "low", "low"]
    vector = made_vector(4, order="round-robin")
    assert vector.reset()[1]["instance"].tolist() == [*IDS, "low"]
    assert vector.reset(seed=1)[1]["instance"].tolist() == ["high", "both", "low", "high"]
    seen = [vector.step(np.tile(BOTH, (4, 1)))[-1] for _ in range(5)]
    # Episodes are 4, 3, 3 and 4 windows long; each student's next one is that of the next instance.
    assert seen[3]["instance"].tolist() == ["high", "low", "high", "high"]
    assert seen[4]["instance"].tolist() == ["both", "low", "high", "both"]


def test_an_instance_is_named_and_told():
    env = made()
    _, info = env.reset(seed=1, options={"instance": "high"})
    assert info["instance"] == "high"
    assert (env.config.windows, env.config.toy_best_ratio) == (4, 0.9)
    steps = [env.step(BOTH) for _ in range(4)]
    assert [step[3] for step in steps] == [False, False, False, True]
    assert {step[-1]["instance"] for step in steps} == {"high"}
    assert drawn(made(instance="both"), range(5)) == ["both"] * 5
    _, infos = made_vector(3).reset(options={"instance": ["both", None, "low"]})
    assert infos["instance"][[0, 2]].tolist() == ["both", "low"]
    vector = made_vector(2, order="round-robin")
    vector.reset(seed=0, options={"instance": "both"})
    after = [vector.step(np.tile(BOTH, (2, 1)))[-1]["instance"].tolist() for _ in range(4)]
    assert after == [["both"] * 2] * 3 + [["low"] * 2], "the name is that of one reset"


@pytest.mark.parametrize("make", [made, lambda **fields: made_vector(2, **fields)])
def test_splits_keep_to_themselves(make: Any):
    env = make(split="test")
    with pytest.raises(ConfigError, match="instance: expected one of the split 'test', got 'low', which is in 'train'"):
        env.reset(options={"instance": "low"})
    with pytest.raises(ConfigError, match=r"seed: expected one of the split 'test', 20000 to 29999, got 7, .* 'train'"):
        env.reset(seed=7)
    with pytest.raises(ConfigError, match=r"instance: expected one of .*, got 'hihg'; did you mean 'high'"):
        env.reset(options={"instance": "hihg"})
    assert not np.any(env.is_running), "what is refused starts nothing"
    env.reset(seed=2**31)
    for split, seeds in SEEDS.items():
        env = make(split=split)
        drawn_seeds = np.concatenate([np.atleast_1d(env.reset()[1]["seed"]) for _ in range(20)])
        assert all(seed in seeds for seed in drawn_seeds)


def test_spaces_are_those_of_the_set_whatever_the_instance():
    environments = [made(split="train"), made(split="test"), made(instance="low")]
    assert {env.action_space.shape for env in environments} == {(2,)}
    assert {env.feature_names for env in environments} == {environments[0].feature_names}
    names = environments[0].feature_names
    assert names[: len(FEATURE_NAMES)] == FEATURE_NAMES
    assert names[len(FEATURE_NAMES) :] == tuple(
        f"{name}_{group}" for group in range(2) for name in ("rollout_length", "student_entropy", "student_mismatch")
    )


def test_ratios_of_groups_that_an_instance_lacks_are_not_looked_at():
    def played(instance: str, action: list[float]) -> float:
        env = made(instance=instance)
        env.reset(seed=0)
        return env.step(np.array(action, dtype=np.float32))[-1]["probe/nll"]

    assert played("low", [0.2, 0.0]) == played("low", [0.2, 1.0]) != played("low", [0.3, 0.0])
    assert played("both", [0.2, 0.0]) != played("both", [0.2, 1.0])


def test_each_group_has_its_slots():
    env = made()
    observation, _ = env.reset(seed=0, options={"instance": "both"})
    slots = slice(len(FEATURE_NAMES), None)
    assert not observation[slots].any(), "nothing is measured yet"
    observation, *_, info = env.step(BOTH)
    longest = env.config.max_new_tokens
    expected = [
        value
        for group in range(2)
        for value in (
            info[f"rollout/length_{group}"] / longest,
            squash(info[f"student/entropy_{group}"]),
            squash(info[f"student/mismatch_{group}"]),
        )
    ]
    np.testing.assert_allclose(observation[slots], expected, rtol=1e-6)
    assert len(set(observation[slots].tolist())) == 6
    env.reset(seed=0, options={"instance": "low"})
    observation, *_, info = env.step(BOTH)
    whole = [info["rollout/length"] / longest, squash(info["student/entropy"]), squash(info["student/mismatch"])]
    np.testing.assert_allclose(observation[slots], [*whole, 0.0, 0.0, 0.0], rtol=1e-6)


def test_context_shows_the_instance():
    env, hidden = made(tiny_set(), context=True), made(tiny_set())
    assert env.feature_names[: len(hidden.feature_names)] == hidden.feature_names
    seen = {
        one: dict(zip(env.feature_names, env.reset(options={"instance": one})[0], strict=True))
        for one in ("short", "long")
    }
    assert seen["short"]["instance_max_addends"] == pytest.approx(0.1)
    assert seen["long"]["instance_max_addends"] == pytest.approx(0.2)
    assert seen["long"]["instance_learning_rate"] == pytest.approx(0.6)
    assert all(env.observation_space.contains(np.array(list(one.values()), dtype=np.float32)) for one in seen.values())


def test_states_keep_their_instance(tmp_path: Path):
    env = made()
    env.reset(seed=0, options={"instance": "both"})
    env.step(BOTH)
    env.save_state(tmp_path / "state")
    snapshot = env.snapshot()
    expected = env.step(BOTH)
    for other in (made(), made(order="round-robin")):
        other.reset(seed=3, options={"instance": "high"})
        _, info = other.reset(options={"state": tmp_path / "state"})
        assert info["instance"] == "both"
        assert other.config == env.config
        again = other.step(BOTH)
        assert again[0].tobytes() == expected[0].tobytes()
        assert again[1:] == expected[1:]
        other.reset(seed=3, options={"instance": "high"})
        other.restore(snapshot)
        assert other.step(BOTH)[1:] == expected[1:]
    changed = made(toy_set(toy_noise=0.2))
    changed.reset(seed=3, options={"instance": "high"})
    with pytest.raises(ConfigError, match="toy_noise"):
        changed.load_state(tmp_path / "state")
    assert changed.step(BOTH)[-1]["instance"] == "high", "a refused state changes nothing"
    plain = gymnasium.make("ATESD-Toy-v0").unwrapped
    plain.reset(seed=0)
    plain.save_state(tmp_path / "plain")
    with pytest.raises(ConfigError, match="got one without an instance"):
        env.load_state(tmp_path / "plain")


def test_branches_are_in_the_instance(tmp_path: Path):
    env = made_vector(2)
    env.reset(seed=0, options={"instance": ["low", "both"]})
    env.step(np.tile(BOTH, (2, 1)))
    frame = atesd_env.counterfactual(env, [BOTH, [0.9, 0.1]], 2, student=1)
    _, _, _, _, infos = env.step(np.array([[0.0, 0.0], BOTH]))
    assert frame.loc[0, "probe/nll"] == infos["probe/nll"][1]
    assert frame.loc[2, "probe/nll"] != infos["probe/nll"][1]


def test_students_of_one_base_share_it_and_those_of_one_batch_a_population():
    """Student k learns what the scalar environment learns with its seed and instance, to rounding, also after it changed."""
    ids, ratios = ["short", "long", "both"], np.array([[0.2, 0.9], [0.9, 0.2], [0.1, 0.8]], dtype=np.float32)
    vector, alone = made_vector(3, tiny_set()), made(tiny_set())
    for places in ([0, 1, 2], [1, 2, 0]):
        names = [ids[place] for place in places]
        vector.reset(seed=0, options={"instance": names})
        observations, rewards, *_, infos = vector.step(ratios)
        assert infos["instance"].tolist() == names
        for index, name in enumerate(names):
            alone.reset(seed=index, options={"instance": name})
            observation, reward, *_, info = alone.step(ratios[index])
            assert info["rollout/num_tokens"] == infos["rollout/num_tokens"][index]
            np.testing.assert_allclose(observations[index], observation, rtol=1e-3, atol=1e-4)
            assert rewards[index] == pytest.approx(reward, rel=1e-3, abs=1e-5)
    populations = list(vector.population._populations.values())
    assert len(populations) == 2
    heads = {population.student.head_weight.data_ptr() for population in populations}
    assert len(heads) == 1
    before = set(map(id, populations))
    vector.reset(seed=3)
    assert {id(one) for one in vector.population._populations.values()} == before, "nothing is loaded or built again"
