"""A base in 4 bits: its gradients are those of the weights that it stands for."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from atesd_env.config import EnvConfig
from atesd_env.errors import StudentError
from atesd_env.population.population import Population
from atesd_env.student.loading import load_student

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="the package 'bitsandbytes' is not installed"
)


@needs_bitsandbytes
def test_gradients_flow_through_4_bit_layers(tiny_config: EnvConfig) -> None:
    """After a pass without gradients, in which bitsandbytes may pack its weights anew for the CPU."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    student = load_student(tiny_config.replace(base_quantization="nf4"))
    plain = load_student(tiny_config.replace(forward="modules"))
    layers = {name: layer for name, layer in student.model.named_modules() if isinstance(layer, Linear4bit)}
    token_ids = torch.arange(4, 24).view(2, 10)
    with torch.inference_mode():
        student.body(input_ids=token_ids)
    for name, layer in layers.items():
        original = plain.model.get_submodule(name).weight.data
        stands_for = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        assert 0 < (stands_for - original).abs().max() < 0.3 * original.abs().max()
        original.copy_(stands_for)
    gradients = []
    for one in (student, plain):
        inputs = one.model.get_input_embeddings()(token_ids).detach().requires_grad_()
        one.body(inputs_embeds=inputs).last_hidden_state.square().sum().backward()
        gradients.append(inputs.grad)

    assert len(layers) == 7 * len(student.body.layers)  # type: ignore[arg-type]
    assert student.fused is None
    torch.testing.assert_close(gradients[0], gradients[1])


@needs_bitsandbytes
def test_4_bit_base_learns(tiny_config: EnvConfig) -> None:
    population = Population(tiny_config.replace(base_quantization="nf4", windows=1))
    population.reset(0, seed=1)
    before = population.runs[0].probe_nll
    population.window(torch.full((1, 1), 0.5).double().numpy())

    assert population.runs[0].probe_nll < before


def test_4_bit_base_without_bitsandbytes_says_what_to_install(
    tiny_config: EnvConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))

    with pytest.raises(StudentError, match=r"atesd-env\[quantization\]"):
        load_student(tiny_config.replace(base_quantization="nf4"))
