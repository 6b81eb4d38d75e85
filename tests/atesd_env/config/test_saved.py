"""Configurations in files: those of this version and of before are read, and compared by what plays a part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atesd_env.config import (
    PRESETS,
    EnvConfig,
    SurrogateConfig,
    ToyConfig,
    check_same_config,
    differing_fields,
    preset,
    read_config,
)
from atesd_env.errors import ConfigError

BEFORE = Path(__file__).parents[2] / "data" / "before_leaves"
TOY: dict[str, Any] = json.loads((BEFORE / "toy_run" / "config.json").read_text())["config"]
LANGUAGE_MODEL: dict[str, Any] = json.loads((BEFORE / "language_model.json").read_text())["config"]
TOY_NOW = preset("ATESD-Toy-v0", windows=5, toy_noise=0.02)
LANGUAGE_MODEL_NOW = preset(
    "ATESD-Tiny-v0",
    windows=3,
    hold_window=1,
    num_rollouts=2,
    probe_size=2,
    probe_accuracy_every=0,
    max_new_tokens=8,
)


@pytest.mark.parametrize(
    "config",
    [*(preset(env_id, windows=7) for env_id in PRESETS), SurrogateConfig(file="there.safetensors", groups=2)],
    ids=lambda config: type(config).__name__,
)
def test_what_was_written_is_read(config: Any):
    there = json.loads(json.dumps(config.keywords()))
    assert read_config(there) == config
    check_same_config(config, there)


def test_files_of_before_hold_every_field_of_every_leaf():
    since_then = {"data_columns", "train_on_benchmark", "phases", "phase_jitter"}  # a missing field has its default
    since_then |= {"student_thinking", "teacher_thinking", "evaluation_thinking", "merge_end_tokens", "loss_horizon"}
    since_then |= {"view", "action_views", "action_retire", "action_ratios", "collapse_loop_rate"}
    since_then |= {"code_answer", "min_level", "max_level", "cuda_graph", "products", "lora_merge"}
    for there in (TOY, LANGUAGE_MODEL):
        assert {*EnvConfig.names(), *ToyConfig.names()} - set(there) == since_then


def test_a_closed_form_of_before_is_read_and_is_the_same():
    assert read_config(TOY) == TOY_NOW
    check_same_config(TOY_NOW, TOY)
    with pytest.raises(ConfigError, match=r"toy_noise \(0\.02 there, 0\.3 here\)"):
        check_same_config(TOY_NOW.replace(toy_noise=0.3), TOY)


def test_a_language_model_of_before_is_read_and_is_the_same():
    assert read_config(LANGUAGE_MODEL) == LANGUAGE_MODEL_NOW
    check_same_config(LANGUAGE_MODEL_NOW, LANGUAGE_MODEL)
    with pytest.raises(ConfigError, match=r"learning_rate \(0\.002 there, 1\.0 here\)"):
        check_same_config(LANGUAGE_MODEL_NOW.replace(learning_rate=1.0), LANGUAGE_MODEL)


def test_another_leafs_fields_play_no_part_whatever_their_values():
    there = TOY | {"learning_rate": 9.0, "lora_targets": ["nothing"]}
    assert read_config(there) == TOY_NOW
    check_same_config(TOY_NOW, there)
    there = LANGUAGE_MODEL | {"toy_kind": "of long ago"}
    assert read_config(there) == LANGUAGE_MODEL_NOW
    check_same_config(LANGUAGE_MODEL_NOW, there)


def test_fields_that_are_gone_are_passed_over_and_new_ones_have_their_defaults():
    there = {**LANGUAGE_MODEL, "gone": "anything"}
    del there["importance_cap"]
    assert read_config(there) == LANGUAGE_MODEL_NOW
    assert differing_fields(there, LANGUAGE_MODEL_NOW.keywords(), "now") == []
    changed = LANGUAGE_MODEL_NOW.replace(importance_cap=2).keywords()
    assert differing_fields(there, changed, "now") == ["importance_cap (None there, 2.0 now)"]
    without_noise = {name: value for name, value in TOY.items() if name != "toy_relative_noise"}
    changed = TOY_NOW.replace(toy_relative_noise=1).keywords()
    assert differing_fields(without_noise, changed, "now") == ["toy_relative_noise (0.0 there, 1.0 now)"]


def test_another_kind_of_student_is_another_run():
    """Even where all fields that both have are the same."""
    kinds = [preset("ATESD-Tiny-v0"), ToyConfig(), SurrogateConfig()]
    for here in kinds:
        for there in kinds:
            different = differing_fields(there.keywords(), here.keywords(), "now")
            expected = f"student ({there.student_kind!r} there, {here.student_kind!r} now)"
            assert different == ([] if there is here else [expected])
    assert differing_fields(TOY, LANGUAGE_MODEL, "now") == ["student ('closed form' there, 'language model' now)"]


def test_a_run_may_be_carried_out_in_another_way():
    there = LANGUAGE_MODEL | {"engine_retries": 5, "rollout_engine": "http://a:1"}
    check_same_config(LANGUAGE_MODEL_NOW.replace(rollout_engine="http://b:2"), there)
    with pytest.raises(ConfigError, match="rollout_engine"):
        check_same_config(LANGUAGE_MODEL_NOW, there)


def test_a_value_that_no_version_wrote_is_refused():
    with pytest.raises(ConfigError, match="toy_noise: expected a number in"):
        read_config(TOY | {"toy_noise": -1})
