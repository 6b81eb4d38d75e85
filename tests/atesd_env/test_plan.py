"""Plans of memory and time: exact counts, terms that move as they must, remedies, and the preset that must fit 80 GB."""

from __future__ import annotations

import dataclasses

import pytest
from transformers import Qwen3Config, Qwen3ForCausalLM

from atesd_env.adapters import AdapterStack
from atesd_env.config import preset
from atesd_env.errors import ConfigError, StudentError
from atesd_env.model_shape import ModelShape, shape_of, student_shape
from atesd_env.plan import Lengths, cache_bytes, divergence_bytes, memory_plan, remedies, saved_bytes
from atesd_env.plan_time import DEVICES, evaluation_batch, parse_gpus, time_plan, token_plan

GPU = DEVICES["H100-80GB"]


@pytest.fixture(scope="module")
def large() -> ModelShape:
    config = preset("ATESD-Qwen3-8B-v0")
    return student_shape(config.student, config.lora_r, config.lora_targets)


def test_parameters_are_counted_exactly_without_weights(large: ModelShape) -> None:
    """Against a model that is really made, and against the parameters that Qwen3-8B has (8.19e9)."""
    sizes = Qwen3Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        tie_word_embeddings=False,
    )
    shape, model = shape_of(sizes, 3, ("q_proj", "down_proj")), Qwen3ForCausalLM(sizes)
    assert shape.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.num_matrix_parameters == shape.num_parameters - 50 * 16
    assert shape.num_adapter_parameters == AdapterStack(model, 1, 3, 3.0, ("q_proj", "down_proj")).num_parameters
    assert large.num_parameters == 8_190_735_360


def test_the_8b_preset_fits_one_80_gb_device_even_at_its_longest(large: ModelShape) -> None:
    plan = memory_plan(preset("ATESD-Qwen3-8B-v0"), large)
    assert plan.fits(GPU.memory_bytes)
    assert plan.peak > plan.fixed["weights"] > 16e9


def test_parts_by_hand(large: ModelShape) -> None:
    assert cache_bytes(large, 3, 100, 2) == 2 * 36 * 3 * 100 * 8 * 128 * 2
    assert divergence_bytes(1000, large, 64, 2) == 151_936 * (2 * 64 * 2 + 6 * 13 * 4)
    whole = saved_bytes(1000, 100, large, 2, recompute=False)
    recomputed = saved_bytes(1000, 100, large, 2, recompute=True)
    assert recomputed < whole / 5
    config = preset("ATESD-Qwen3-8B-v0")
    plans = [
        memory_plan(config.replace(**changes), large) for changes in ({}, {"teacher": "ema"}, {"dtype": "float32"})
    ]
    assert plans[1].fixed["adapters"] * 2 == plans[0].fixed["adapters"] * 3
    assert plans[2].fixed["weights"] == 2 * plans[0].fixed["weights"]


def test_remedies_make_it_fit_or_say_that_they_cannot(large: ModelShape) -> None:
    config = preset("ATESD-Qwen3-8B-v0", gradient_checkpointing=False, micro_batch_size=None, num_rollouts=8)
    found, fits = remedies(config, large, GPU.memory_bytes)
    assert fits
    assert found[0].changes == {"gradient_checkpointing": True}
    peaks = [remedy.peak for remedy in found]
    assert peaks == sorted(peaks, reverse=True)
    changed = config.replace(**{name: value for remedy in found for name, value in remedy.changes.items()})
    assert memory_plan(changed, large).peak == peaks[-1]
    assert remedies(config, large, 10e9)[1] is False


def test_tokens_and_hours(large: ModelShape) -> None:
    config, lengths = preset("ATESD-Qwen3-8B-v0"), Lengths(300, 3000, 1000, 1000)
    tokens = token_plan(config, lengths)
    assert (tokens.sampled, tokens.trained, tokens.scored) == (3_200_000, 4_160_000, 12_800_000)
    hours = time_plan(config, large, GPU, lengths)
    twice = time_plan(config.replace(windows=50), large, GPU, lengths)
    assert twice.total_sec == pytest.approx(2 * hours.total_sec)
    half_as_fast = dataclasses.replace(GPU, matrix_rate=GPU.matrix_rate / 2)
    assert time_plan(config, large, half_as_fast, lengths).update_sec == pytest.approx(2 * hours.update_sec)
    assert 0 < evaluation_batch(large, GPU, 40_960, 2) < evaluation_batch(large, DEVICES["H200-141GB"], 40_960, 2)


def test_devices_and_models_that_are_not_known() -> None:
    with pytest.raises(ConfigError, match=r"expected \[NUMBERx\]DEVICE, got 'H100-81GB'; did you mean 'H100-80GB'"):
        parse_gpus("H100-81GB")
    with pytest.raises(StudentError, match=r"config\.json can be read, got '\./nothing'"):
        student_shape("./nothing", 8, ("q_proj",))
