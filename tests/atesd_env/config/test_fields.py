"""The configuration: every field documented and bounded, wrong values refused, presets as published."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import math
import pickle
import re
import textwrap
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import tyro

from atesd_env.config import PRESETS, Bounds, EnvConfig, RunConfig, SurrogateConfig, ToyConfig, preset
from atesd_env.errors import AtesdError, ConfigError

LEAVES = (EnvConfig, ToyConfig, SurrogateConfig)
FIELDS = {field.name: field for leaf in LEAVES for field in dataclasses.fields(leaf)}
LEAF_OF = {name: next(leaf for leaf in LEAVES if name in leaf.names()) for name in FIELDS}
KINDS = {name: str(field.type).removesuffix(" | None") for name, field in FIELDS.items()}
NUMBERS = [name for name, kind in KINDS.items() if kind in ("int", "float")]
WHOLE_NUMBERS = [name for name in NUMBERS if KINDS[name] == "int"]
REAL_NUMBERS = [name for name in NUMBERS if KINDS[name] == "float"]
CHOICES = [name for name, field in FIELDS.items() if "choices" in field.metadata]
TEXTS = [name for name, kind in KINDS.items() if kind == "str"]
SWITCHES = [name for name, kind in KINDS.items() if kind == "bool"]
OPTIONAL = [name for name, field in FIELDS.items() if str(field.type).endswith("| None")]


def bounds_of(name: str) -> Bounds:
    return FIELDS[name].metadata["bounds"]


def documentation() -> dict[str, str]:
    """Returns the text below each field of the leaves."""
    texts = {}
    for leaf in (RunConfig, *LEAVES):
        (class_definition,) = ast.parse(textwrap.dedent(inspect.getsource(leaf))).body
        assert isinstance(class_definition, ast.ClassDef)
        for statement, below in zip(class_definition.body, class_definition.body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                texts[statement.target.id] = " ".join(str(below.value.value).split()) if is_text else ""
    return texts


def with_field(name: str, value: Any, **others: Any) -> RunConfig:
    """Returns a configuration of the leaf that has the field."""
    return LEAF_OF[name](**{name: value, **others})


def refusal(name: str, value: Any) -> str:
    """Returns the message with which a value is refused, after checking what every such message has."""
    with pytest.raises(ConfigError) as caught:
        with_field(name, value)
    assert isinstance(caught.value, AtesdError)
    assert isinstance(caught.value, ValueError)
    message = str(caught.value)
    assert message.startswith(f"{name}: expected "), "the field, then what was expected"
    assert f"got {value!r}" in message
    return message


# Documentation


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_documented_with_its_source(name: str):
    text = documentation()[name]
    assert re.fullmatch(r"[A-Z].{15,}\. \[(paper|OPSD|ours)\b[^\]]*\]", text), f"{name}: {text!r}"


@pytest.mark.parametrize("leaf", LEAVES)
def test_the_documentation_reaches_the_command_line(leaf: type[RunConfig], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        tyro.cli(leaf, args=["--help"])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in leaf.names():
        text = documentation()[name]
        assert f"--{name.replace('_', '-')}" in words
        assert text[:20] in words, name


def test_fields_come_back_from_the_command_line():
    arguments = "--lora-targets q_proj v_proj --lora-alpha 4 --token-clip None --no-student-thinking"
    config = tyro.cli(EnvConfig, args=arguments.split())
    assert config == EnvConfig(lora_targets=("q_proj", "v_proj"), lora_alpha=4.0)


def test_field_names_leave_gymnasiums_own_keywords_free():
    taken = {*inspect.signature(gymnasium.make).parameters, *inspect.signature(gymnasium.make_vec).parameters}
    assert not taken & set(FIELDS)
    assert "render_mode" not in FIELDS


@pytest.mark.parametrize("name", NUMBERS)
def test_every_numeric_field_has_bounds_and_its_default_lies_inside(name: str):
    bounds = bounds_of(name)
    assert bounds.low is not None
    default = FIELDS[name].default
    assert default in bounds if default is not None else name in OPTIONAL


def test_every_field_belongs_to_a_kind_that_is_tested_here():
    assert {*NUMBERS, *CHOICES, *TEXTS, *SWITCHES, "lora_targets"} == set(FIELDS)
    assert {KINDS["lora_targets"], *KINDS.values()} >= {"tuple[str, ...]", "bool"}


# Wrong values


def wrong_values() -> Iterator[tuple[str, Any, str]]:
    """Yields a field, a value that it refuses, and what the message must say."""
    for name in NUMBERS:
        yield name, below(name), f"expected a number in {bounds_of(name)}"
        yield from ((name, value, "") for value in (math.nan, math.inf, -math.inf, np.float32("nan")))
        for value in (True, False, "1", "", b"1", [1], (1,), 1j, np.array([1.0]), np.bool_(True)):
            yield name, value, f"expected {FIELDS[name].type}, got {value!r} ({type(value).__name__})"
    for name in WHOLE_NUMBERS:
        yield from ((name, value, "expected int") for value in (2.0, 2.5, np.float64(2.0), Fraction(5, 2)))
    for name in TEXTS:
        yield from ((name, value, "expected str") for value in (1, 1.5, True, b"cpu", ["cpu"]))
    for name in SWITCHES:
        yield from ((name, value, "expected bool") for value in (0, 1, "true", None, 1.0))
    for value in ("q_proj", (), [], ("q_proj", 1), ("q_proj", ""), {"q_proj"}, 3):
        yield "lora_targets", value, "expected a non-empty tuple of names"
    yield from ((name, None, "") for name in FIELDS if name not in OPTIONAL)


def below(name: str) -> float:
    low = bounds_of(name).low
    assert low is not None
    return low - (1 if KINDS[name] == "int" else 1e-9)


@pytest.mark.parametrize(("name", "value", "said"), list(wrong_values()))
def test_wrong_values_are_refused(name: str, value: Any, said: str):
    assert said in refusal(name, value)


@pytest.mark.parametrize("name", NUMBERS)
def test_the_lower_bound_itself_is_accepted_unless_it_is_open(name: str):
    bounds = bounds_of(name)
    if bounds.open_low:
        assert str(bounds).startswith("(")
        refusal(name, bounds.low)
    else:
        assert str(bounds).startswith("[")
        changes = {"min_addends": bounds.low} if name == "max_addends" else {}
        assert getattr(with_field(name, bounds.low, **changes), name) == bounds.low


@pytest.mark.parametrize("name", [name for name in NUMBERS if bounds_of(name).high is not None])
def test_the_upper_bound_is_accepted_and_what_is_above_refused(name: str):
    bounds = bounds_of(name)
    assert bounds.high is not None
    changes = {"max_addends": bounds.high} if name == "min_addends" else {}
    assert getattr(with_field(name, bounds.high, **changes), name) == bounds.high
    assert f"expected a number in {bounds}" in refusal(name, bounds.high + (1 if KINDS[name] == "int" else 1e-9))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_beyond_every_float_is_an_answer_not_a_crash(name: str):
    if KINDS[name] == "float" or bounds_of(name).high is not None:
        refusal(name, 10**400)
    else:
        assert getattr(with_field(name, 10**400), name) == 10**400


@pytest.mark.parametrize("name", OPTIONAL)
def test_none_is_accepted_where_the_field_says_so(name: str):
    assert getattr(with_field(name, None), name) is None


@pytest.mark.parametrize("name", CHOICES)
def test_a_wrong_choice_lists_the_choices_and_suggests_the_nearest(name: str):
    choices = FIELDS[name].metadata["choices"]
    assert f"Literal{list(choices)}" == str(FIELDS[name].type).replace('"', "'")
    for choice in choices:
        message = refusal(name, choice[:-1])
        assert str(choices) in message
        assert f"Did you mean {choice!r}?" in message
        assert f"Did you mean {choice!r}?" in refusal(name, choice.upper())
    for other in ("zzz", "", 1, (), ["x"], np.array(["a", "b"])):
        assert "Did you mean" not in refusal(name, other)


# Names


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("temprature", "temperature"), ("hold_windows", "hold_window"), ("LoraR", "lora_r"), ("Gamma", "gamma")],
)
def test_a_misspelt_field_suggests_the_nearest(wrong: str, meant: str):
    for call in (lambda: EnvConfig().replace(**{wrong: 1}), lambda: preset("ATESD-Tiny-v0", **{wrong: 1})):
        with pytest.raises(ConfigError) as caught:
            call()
        assert str(caught.value).startswith(f"{wrong}: expected the name of a configuration field")
        assert f"did you mean {meant!r}?" in str(caught.value)


def test_a_name_like_no_field_lists_the_fields():
    for leaf in LEAVES:
        with pytest.raises(ConfigError, match=rf"zzzz: .*the fields are {', '.join(leaf.names())}\."):
            leaf().replace(zzzz=1)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("ATESD-Tiny-v1", "ATESD-Tiny-v0"),
        ("atesd-tiny-v0", "ATESD-Tiny-v0"),
        ("ATESD-Qwen3-17B-v0", "ATESD-Qwen3-1.7B-v0"),
        ("atesd_env:ATESD-Toi-v0", "ATESD-Toy-v0"),
    ],
)
def test_an_unknown_id_suggests_the_nearest(wrong: str, meant: str):
    with pytest.raises(ConfigError) as caught:
        preset(wrong)
    assert f"got {wrong!r}; did you mean {meant!r}?" in str(caught.value)


def test_an_id_like_none_of_ours_lists_the_ids():
    with pytest.raises(
        ConfigError, match=r"got 'CartPole-v1'; the ids are ATESD-Tiny-v0, .*ATESD-Surrogate-v0, ATESD-Bench-v0\."
    ):
        preset("CartPole-v1")


# Fields that depend on each other


def test_fewest_addends_may_not_exceed_most():
    with pytest.raises(ConfigError, match=r"min_addends: expected at most max_addends \(5\), got 6; set both"):
        EnvConfig(min_addends=6)
    assert EnvConfig(min_addends=6, max_addends=6).min_addends == 6


def test_phases_are_addends_and_reach_as_far_as_the_probe():
    assert EnvConfig(phases="4,5").phases == "4,5"
    assert EnvConfig(min_addends=2, phases="2-3, 4-5", phase_jitter=0.25).phase_jitter == 0.25
    for text in ("", "4;5", "4,", "5-4", "1,5", "4,five", "٤,5", "-4,5"):
        with pytest.raises(ConfigError, match=rf"phases: expected addends .* got {re.escape(repr(text))}; "):
            EnvConfig(phases=text)
    with pytest.raises(
        ConfigError, match=r"phases: .* 4 to 5 addends .* got '3,5'; set min_addends=3 and max_addends=5"
    ):
        EnvConfig(phases="3,5")
    with pytest.raises(ConfigError, match=r"phase_jitter: expected at most half a phase, 0\.25 .* 2 phases, got 0\.3"):
        EnvConfig(phases="4,5", phase_jitter=0.3)
    with pytest.raises(ConfigError, match=r"phases: expected None with task='math'"):
        EnvConfig(task="math", data_path="gsm8k", phases="4,5")


@pytest.mark.parametrize("path", [None, ""])
def test_task_math_needs_data(path: str | None):
    with pytest.raises(ConfigError, match=r"data_path: expected a JSONL file .* got none; pass data_path="):
        EnvConfig(task="math", data_path=path)
    assert EnvConfig(task="math", data_path="problems.jsonl").data_path == "problems.jsonl"


# Plain values


@pytest.mark.parametrize("name", REAL_NUMBERS)
def test_whole_numbers_and_numpy_numbers_become_floats(name: str):
    one = 1 if 1 in bounds_of(name) else 0.5
    for value in (one, np.float64(one), np.float32(one), *([np.int64(one), Fraction(1)] if one == 1 else [])):
        stored = getattr(with_field(name, value), name)
        assert type(stored) is float
        assert stored == one


@pytest.mark.parametrize("name", WHOLE_NUMBERS)
def test_numpy_whole_numbers_become_ints(name: str):
    value = 2 if name == "min_addends" else 8
    for number_type in (np.int64, np.int32, np.uint8):
        stored = getattr(with_field(name, number_type(value)), name)
        assert type(stored) is int
        assert stored == value


def test_lists_paths_and_numpy_switches_become_plain():
    config = EnvConfig(
        lora_targets=["q_proj", "v_proj"],  # type: ignore[arg-type]
        task="math",
        data_path=Path("data") / "problems.jsonl",  # type: ignore[arg-type]
        student=Path("models") / "mine",  # type: ignore[arg-type]
        student_thinking=np.bool_(True),  # type: ignore[arg-type]
    )
    assert config.lora_targets == ("q_proj", "v_proj")
    assert config.data_path == str(Path("data") / "problems.jsonl")
    assert config.student == str(Path("models") / "mine")
    assert config.student_thinking is True


@pytest.mark.parametrize("env_id", PRESETS)
def test_a_configuration_survives_json_and_pickle(env_id: str):
    config = preset(env_id, gamma=np.float32(0.5), hold_window=np.int64(2))
    if isinstance(config, EnvConfig):
        config = config.replace(lora_targets=["q_proj"], lora_alpha=4)
    text = json.dumps(config.keywords(), allow_nan=False)
    back = type(config)(**json.loads(text))
    assert back == config
    assert hash(back) == hash(config)
    assert json.dumps(back.keywords()) == text
    assert pickle.loads(pickle.dumps(config)) == config


# Changing


def test_a_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EnvConfig().windows = 3  # type: ignore[misc]


def test_replace_leaves_the_original_and_checks_the_copy():
    config = EnvConfig()
    changed = config.replace(windows=3, gamma=1)
    assert (changed.windows, changed.gamma) == (3, 1.0)
    assert config == EnvConfig()
    assert changed.replace(windows=config.windows, gamma=config.gamma) == config
    with pytest.raises(ConfigError, match="windows: expected a number in"):
        config.replace(windows=0)


# Presets


def test_the_ids_are_the_promised_ones():
    assert list(PRESETS) == [
        "ATESD-Tiny-v0",
        "ATESD-SmolLM2-135M-v0",
        "ATESD-Qwen3-1.7B-v0",
        "ATESD-Qwen3-4B-v0",
        "ATESD-Qwen3-8B-v0",
        "ATESD-Toy-v0",
    ]


@pytest.mark.parametrize("size", ["1.7B", "4B", "8B"])
def test_qwen3_presets_carry_opsds_published_recipe(size: str):
    config = preset(f"ATESD-Qwen3-{size}-v0")
    assert config.student == f"Qwen/Qwen3-{size}"
    assert (config.lora_r, config.lora_alpha) == (64, 128.0)
    assert set(config.lora_targets) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert config.teacher == "initial"
    assert config.divergence == "forward_kl"
    assert config.num_rollouts == 32
    assert (config.temperature, config.top_p, config.top_k) == (1.1, 0.95, 20)
    assert 1024 <= config.max_new_tokens <= 2048
    assert 5e-6 <= config.learning_rate <= 2e-4
    assert config.dtype == "bfloat16"
    assert config.gradient_checkpointing
    assert 100 <= config.windows * config.hold_window <= 200, "paper-scale runs have 100 to 200 updates"
    assert config.exposure == "reference"
    assert config.groups == 1
    assert config.progress == "positive"
    assert config.replace(student="") == preset("ATESD-Qwen3-1.7B-v0", student=""), "sizes differ in the model only"


def test_small_presets_name_their_student_and_task():
    tiny, smollm2, toy = (preset(f"ATESD-{name}-v0") for name in ("Tiny", "SmolLM2-135M", "Toy"))
    assert (tiny.student, tiny.task) == ("tiny", "arithmetic")
    assert (smollm2.student, smollm2.task, smollm2.data_path) == (
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "math",
        "gsm8k",
    )
    assert smollm2.windows >= 8
    assert smollm2.hold_window == 2
    assert (type(toy), toy.windows, toy.hold_window) == (ToyConfig, 100, 1)


def test_a_preset_takes_the_id_with_its_module_and_changes():
    assert preset("atesd_env:ATESD-Tiny-v0", windows=5) == preset("ATESD-Tiny-v0").replace(windows=5)
    assert PRESETS["ATESD-Tiny-v0"].windows != 5
