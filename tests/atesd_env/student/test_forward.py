"""The written-out forward pass against transformers' modules: hidden states, gradients, and which models it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from atesd_env.rollouts.scoring import forced_rollouts, scored_hidden
from atesd_env.student.adapters import MOST_ZEROS, AdapterStack
from atesd_env.student.forward import FusedBody, is_known
from atesd_env.student.model import Student, bare_copy

SIZES: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "eos_token_id": 3,
}
LLAMA3_ROTARY = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def build(kind: str) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        models: dict[str, Callable[[], PreTrainedModel]] = {
            "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)),
            "qwen3 wide heads": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16, attention_bias=True)),
            "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
            "llama with biases": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)),
            "llama 3 rotary": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=LLAMA3_ROTARY)),
            "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
        }
        model = models[kind]()
        for name, parameter in model.named_parameters():
            # As they are made, biases are 0 and norms 1: a forward pass that forgot them would pass.
            if name.endswith("bias") or "norm" in name:
                parameter.data.add_(0.3 * torch.randn(parameter.shape))
        return model.eval()


KINDS = ("qwen3", "qwen3 wide heads", "llama", "llama with biases", "llama 3 rotary", "qwen2")
TARGETS = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, as_student) -> tuple[Student, Student]:
    """The same model twice, written out and through its modules."""
    return (
        as_student(build(request.param), forward="fused"),
        as_student(build(request.param), forward="modules"),
    )


def with_adapters(student: Student, num_students: int = 1) -> AdapterStack:
    """Adapters on some of the layers only (k_proj has none), none of them zero."""
    stack = AdapterStack(student.model, num_students, r=3, alpha=6.0, targets=TARGETS)
    stack.flat.copy_(0.2 * torch.randn(stack.flat.shape, generator=torch.Generator().manual_seed(1)))
    return stack


def hidden_states(student: Student, prompts: list[list[int]], answers: list[list[int]], **options: Any) -> torch.Tensor:
    batch = forced_rollouts(student, prompts, answers)
    return scored_hidden(student, batch.prompt_ids, batch.prompt_mask, batch, **options)


def test_hidden_states_equal_the_modules(pair, make_prompts):
    """Rows of different lengths, padded on both sides; float32 to 1e-5."""
    prompts, answers = make_prompts(5), make_prompts(5, seed=1, shortest=1, longest=20)
    fused, modules = (hidden_states(student, prompts, answers) for student in pair)
    assert fused.shape == (sum(map(len, answers)), SIZES["hidden_size"])
    torch.testing.assert_close(fused, modules, rtol=0, atol=1e-5)


@pytest.mark.parametrize("most_zeros", [0, MOST_ZEROS])
def test_gradients_of_adapters_equal_the_modules(pair, make_prompts, most_zeros, monkeypatch):
    """With one product for adapters side by side, and with one each."""
    monkeypatch.setattr("atesd_env.student.adapters.MOST_ZEROS", most_zeros)
    prompts, answers = make_prompts(4), make_prompts(4, seed=1, shortest=1)
    gradients, norms = [], []
    for student in pair:
        stack = with_adapters(student)
        with stack.use("student", [0]):
            hidden = hidden_states(student, prompts, answers)
        weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
        (hidden * weights).sum().backward()
        gradients.append(stack.flat_grad.clone())
        norms.append(float(hidden.detach().norm()))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert gradients[0].abs().max() > 1e-2
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5 * float(gradients[1].abs().max()))


def test_recomputing_activations_changes_memory_not_gradients(as_student, make_prompts):
    gradients, saved = [], []
    for recompute in (False, True):
        student = as_student(build("qwen3"))
        stack = with_adapters(student)
        elements = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal elements
            elements += tensor.numel()
            return tensor

        with stack.use("student", [0]), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            hidden = hidden_states(student, make_prompts(4), make_prompts(4, seed=1), recompute_activations=recompute)
            saved.append(elements)
            hidden.square().sum().backward()
        gradients.append(stack.flat_grad.clone())
    assert torch.equal(gradients[0], gradients[1])
    assert saved[1] < saved[0] / 2


def test_bfloat16_base_with_float32_adapters(as_student, make_prompts):
    """Both ways round to bfloat16 at different places; neither may be further from float32 than 1.3 times the other."""
    prompts, answers = make_prompts(8), make_prompts(8, seed=1)
    results = {}
    for forward, dtype in (("modules", torch.float32), ("fused", torch.bfloat16), ("modules", torch.bfloat16)):
        student = as_student(build("qwen3").to(dtype), forward=forward)
        stack = with_adapters(student)
        with torch.no_grad(), stack.use("student", [0]):
            results[forward, dtype] = hidden_states(student, prompts, answers)
    exact = results["modules", torch.float32]
    errors = [float((results[forward, torch.bfloat16] - exact).norm()) for forward in ("fused", "modules")]
    assert results["fused", torch.bfloat16].dtype == torch.bfloat16
    assert 0 < errors[0] < 1.3 * errors[1] < 0.1 * float(exact.norm()), errors


def test_weights_are_kept_once(as_student):
    """The modules' weights are views into the fused ones, and keep their values."""
    before = {name: tensor.clone() for name, tensor in build("qwen3").state_dict().items()}
    student = as_student(build("qwen3"))
    attention = student.body.layers[0].self_attn
    assert student.fused is not None
    fused = student.fused.layers[0].qkv.weight
    assert attention.k_proj.weight.untyped_storage().data_ptr() == fused.untyped_storage().data_ptr()
    for name, tensor in student.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_bare_copy_has_the_same_weights_and_its_own_adapters(as_student, make_prompts):
    student = as_student(build("qwen3"))
    prompts, answers = make_prompts(3), make_prompts(3, seed=1)
    plain = hidden_states(student, prompts, answers)
    first = with_adapters(student)
    copy = bare_copy(student)
    second = with_adapters(copy)
    assert copy.fused is not None
    assert student.fused is not None
    assert copy.fused.layers[1].down.weight is student.fused.layers[1].down.weight
    with first.use("student", [0]):
        assert not torch.allclose(hidden_states(student, prompts, answers), plain)
        assert torch.equal(hidden_states(copy, prompts, answers), plain)
    with second.use("student", [0]):
        assert torch.equal(hidden_states(student, prompts, answers), plain)
        assert not torch.allclose(hidden_states(copy, prompts, answers), plain)


def test_models_with_other_mathematics_go_through_their_modules(as_student):
    assert as_student(build("llama")).fused is not None
    sliding = Qwen3Config(**SIZES, head_dim=8, use_sliding_window=True, sliding_window=8, max_window_layers=1)
    others = [
        MistralForCausalLM(MistralConfig(**SIZES)),
        Qwen3ForCausalLM(sliding),
        LlamaForCausalLM(LlamaConfig(**SIZES, hidden_act="gelu")),
        LlamaForCausalLM(
            LlamaConfig(**SIZES, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
        ),
    ]
    for model in others:
        assert not is_known(model), model.config
        assert as_student(model.eval()).fused is None


def test_quantised_layers_go_through_their_modules():
    class Quantised(torch.nn.Linear):
        """Stands for a layer whose weight is not a plain matrix."""

    model = build("llama")
    model.model.layers[1].mlp.up_proj = Quantised(SIZES["hidden_size"], SIZES["intermediate_size"])
    assert not is_known(model)


def test_a_second_body_on_the_same_model_gives_the_same_numbers(as_student, make_prompts):
    student = as_student(build("llama"))
    prompts, answers = make_prompts(3), make_prompts(3, seed=1)
    before = hidden_states(student, prompts, answers)
    again = FusedBody(student.model)
    batch = forced_rollouts(student, prompts, answers)
    inputs = torch.cat([batch.prompt_ids, batch.completion_ids[:, :-1]], dim=1)
    mask = torch.cat([batch.prompt_mask, batch.completion_mask[:, :-1]], dim=1)
    wanted = torch.nn.functional.pad(batch.completion_mask, (batch.prompt_ids.shape[1] - 1, 0))
    assert torch.equal(again.hidden(inputs, mask, wanted), before)


@pytest.mark.parametrize("kind", ["qwen3", "llama with biases"])
def test_adapters_added_to_the_weights_change_rounding_only(as_student, make_prompts, kind):
    """Hidden states and gradients of an update, and the body that samples; the weights stay the base's."""
    prompts, answers = make_prompts(6), make_prompts(6, seed=1)
    found = []
    for merges in (False, True):
        student = as_student(build(kind), lora_merge=merges)
        assert student.fused.merges is merges
        stack = with_adapters(student)
        with stack.use("student", [0]):
            hidden = hidden_states(student, prompts, answers)
            (hidden * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
            with torch.no_grad():
                sampling = hidden_states(replace(student, fused=student.fused.merged()), prompts, answers)
        bare = hidden_states(student, prompts, answers)
        found.append((hidden.detach(), sampling, bare, stack.flat_grad.clone()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5 * float(found[0][-1].abs().max()))
    torch.testing.assert_close(found[0][1], found[0][0], rtol=0, atol=1e-5)


def test_adapters_are_not_added_to_weights_of_16_bits(as_student):
    assert not as_student(build("qwen3").bfloat16(), lora_merge=True).fused.merges
