"""Each kind of student has its own fields: those of another are refused by name, and what is known of a field stands with it."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import pytest

import atesd_env
from atesd_env.config import (
    INSTANCE_FIELDS,
    PRESETS,
    BenchConfig,
    EnvConfig,
    RunConfig,
    SurrogateConfig,
    ToyConfig,
    preset,
    preset_of,
)
from atesd_env.errors import ConfigError

LEAVES = {
    "ATESD-Tiny-v0": EnvConfig,
    "ATESD-Toy-v0": ToyConfig,
    "ATESD-Surrogate-v0": SurrogateConfig,
    "ATESD-Bench-v0": BenchConfig,
}


def own_names(leaf: type[RunConfig]) -> list[str]:
    return [name for name in leaf.names() if name not in RunConfig.names()]


@pytest.mark.parametrize(
    ("env_id", "name"),
    [(env_id, name) for env_id in LEAVES for leaf in LEAVES.values() for name in own_names(leaf)],
)
def test_a_field_belongs_to_one_kind_of_student_and_others_refuse_it_by_name(env_id: str, name: str):
    leaf, owner = LEAVES[env_id], next(leaf for leaf in LEAVES.values() if name in own_names(leaf))
    config = preset(env_id)
    assert type(config) is leaf
    if leaf is owner:
        assert name in config.keywords()
        return
    with pytest.raises(ConfigError) as caught:
        config.replace(**{name: 1})
    message = str(caught.value)
    assert message.startswith(
        f"{name}: expected a field of a {leaf.student_kind}, got {name!r}, which only a {owner.student_kind}"
    )


@pytest.mark.parametrize(
    ("env_id", "fields", "owner"),
    [
        ("ATESD-Toy-v0", {"student": "Qwen/Qwen3-8B"}, "language model"),
        ("ATESD-Toy-v0", {"windows": 3, "learning_rate": 9.0}, "language model"),
        ("ATESD-Tiny-v0", {"toy_noise": 0.1}, "closed form"),
        ("ATESD-Tiny-v0", {"on_extrapolation": "warn"}, "surrogate"),
    ],
)
def test_gymnasium_refuses_it_too(env_id: str, fields: dict[str, Any], owner: str):
    name = list(fields)[-1]
    for make in (gymnasium.make, gymnasium.make_vec):
        with pytest.raises(
            ConfigError, match=f"{name}: expected a field of .*, which only a {owner} has; leave it out"
        ):
            make(env_id, **fields)


@pytest.mark.parametrize("env_id", PRESETS)
def test_keywords_make_the_same_configuration(env_id: str):
    config = preset(env_id, groups=2)
    assert list(config.keywords()) == [field.name for field in dataclasses.fields(config)]
    assert type(config)(**config.keywords()) == config
    assert preset(env_id, **config.keywords()) == config


def test_what_every_run_has_is_what_every_kind_of_student_has():
    shared = set.intersection(*(set(leaf.names()) for leaf in LEAVES.values()))
    assert set(RunConfig.names()) == shared
    assert not hasattr(ToyConfig, "learning_rate")
    assert atesd_env.ToyConfig is ToyConfig


@pytest.mark.parametrize("name", sorted({*ToyConfig.names()} - {"gamma", "lookahead", "action_ratios"}))
def test_every_field_of_the_closed_form_plays_a_part(name: str):
    """Discount and lookahead play theirs in agents; a ratio for each problem is refused."""
    base = preset("ATESD-Toy-v0", windows=3, groups=2, toy_kind="delayed", toy_noise=0.5)
    if name == "toy_final_ratio":
        base = base.replace(toy_kind="drift")
    other: dict[str, Any] = {
        "groups": 3,
        "progress": "signed",
        "toy_kind": "constant",
        "probe_pass_k": 4,
        "probe_accuracy_every": 2,
        "toy_group_spread": 0.5,
        "windows": 2,
    }
    if name not in other:
        value = getattr(base, name)
        other[name] = value * 2 if isinstance(value, int) else value / 2 + 0.03
    changed = base.replace(**{name: other[name]})
    assert played(base) != played(changed)


def played(config: RunConfig) -> list[Any]:
    env = gymnasium.make("ATESD-Toy-v0", **config.keywords())
    seen: list[Any] = [env.reset(seed=0)[1]]
    for window in range(config.windows):
        observation, *rest = env.step(np.full(config.groups, 0.9 - 0.4 * window, dtype=np.float32))
        seen.append([observation.tolist(), *rest])
    return seen


def test_a_language_model_is_not_called_toy():
    """When all fields stood in one class, this name meant the closed form."""
    with pytest.raises(ConfigError, match=r"student: expected a base model, got 'toy', .*ATESD-Toy-v0 .*'\./toy'"):
        EnvConfig(student="toy")


def test_a_preset_of_another_kind_of_student_is_refused():
    assert preset_of(EnvConfig, "ATESD-Tiny-v0", windows=2) == preset("ATESD-Tiny-v0", windows=2)
    assert preset_of(RunConfig, "ATESD-Toy-v0") == preset("ATESD-Toy-v0")
    with pytest.raises(
        ConfigError,
        match="env: expected an environment with a language model, got ATESD-Toy-v0, which has a closed form",
    ):
        preset_of(EnvConfig, "ATESD-Toy-v0")


def test_what_an_instance_decides_is_no_field_of_the_bench():
    config = preset("ATESD-Bench-v0", split="test", gamma=0.5)
    assert list(config.keywords()) == [
        *("action_ratios", "progress", "grounded_weight", "gamma", "lookahead"),
        *("instances", "split", "instance", "order", "context"),
    ]
    assert preset("ATESD-Bench-v0", **config.keywords()) == config
    for make in (gymnasium.make, gymnasium.make_vec, preset):
        with pytest.raises(ConfigError, match="windows: expected a field that a benchmark leaves open"):
            make("ATESD-Bench-v0", windows=5)


# What is known of a field


def test_the_fields_in_which_students_of_a_population_may_differ():
    assert INSTANCE_FIELDS == (
        "task",
        "data_path",
        "probe_data_path",
        "data_columns",
        "train_on_benchmark",
        "code_answer",
        "min_level",
        "max_level",
        "min_addends",
        "max_addends",
        "phases",
        "phase_jitter",
        "divergence",
        "jsd_beta",
        "token_clip",
        "divergence_top_k",
        "learning_rate",
        "weight_decay",
        "max_grad_norm",
        "ema_decay",
    )


def test_the_fields_that_carry_a_run_out_and_those_of_the_reward():
    carrying_out = EnvConfig.names("is_carrying_out")
    assert carrying_out
    assert all(name.startswith("engine_") for name in carrying_out)
    assert RunConfig.names("is_reward") == ("progress", "grounded_weight", "gamma", "lookahead")
    assert not ToyConfig.names("instance")
