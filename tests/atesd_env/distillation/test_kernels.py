"""Triton's kernels against the definitions, on a CPU in Triton's interpreter; what is a GPU's alone is in tests/gpu."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from atesd_env.distillation import chunked
from atesd_env.distillation.divergence import DivergenceSpec
from atesd_env.errors import NonFiniteError
from tests.atesd_env.distillation.divergence_cases import SPECS, by_token_divergence, make_inputs, spec_name

pytest.importorskip("triton", reason="needs the package triton (which PyTorch for CUDA brings along)")


@pytest.fixture(scope="module")
def kernels() -> Iterator[ModuleType]:
    """The module, interpreted: which triton decides when it is imported, and others may have imported it before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        for name in [name for name in sys.modules if name.startswith("triton") and not name.startswith("triton._C")]:
            patch.delitem(sys.modules, name)
        yield importlib.import_module("atesd_env.distillation.kernels")


@pytest.fixture
def _interpreted(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels are taken where a GPU would take them, in blocks that do not divide the vocabulary."""
    monkeypatch.setattr(chunked, "_kernel_agrees", lambda device: True)
    monkeypatch.setattr(chunked, "CHUNK_BYTES", 1)
    monkeypatch.setattr(kernels, "BLOCK", 32)


WRITTEN = [spec for spec in SPECS if spec.kind != "jsd" and spec.top_k is None and not spec.end_tokens]


def test_losses_that_are_written_down(kernels: ModuleType):
    assert [spec for spec in SPECS if kernels.has_kernel(spec)] == WRITTEN
    assert {spec.kind for spec in WRITTEN} == {"forward_kl", "reverse_kl"}


@pytest.mark.parametrize("spec", [*WRITTEN, DivergenceSpec("reverse_kl", token_clip=0.4)], ids=spec_name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("_interpreted")
def test_loss_statistics_and_gradient_are_the_references(
    spec: DivergenceSpec, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    """In bfloat16 both make the same logits; the reference keeps its gradient in float32 until it is stored, as the kernel does."""
    inputs = make_inputs(9, vocabulary=75, dtype=dtype)
    found, gradient = by_token_divergence(*inputs, DivergenceSpec(spec.kind, token_clip=spec.token_clip, chunk_size=4))
    assert spec.token_clip is None or 0 < (found.loss == spec.token_clip).sum() < 9
    monkeypatch.setattr(chunked, "_kernel_agrees", lambda device: False)
    wanted, expected = by_token_divergence(*inputs, spec)
    torch.testing.assert_close(tuple(found), tuple(wanted), rtol=1e-5, atol=2e-6)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(gradient, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter
@pytest.mark.usefixtures("_interpreted")
def test_numbers_that_are_not_finite_are_refused_as_ever():
    student, teacher, head, tokens = make_inputs(4, vocabulary=75, dtype=torch.float32)
    for place in (teacher, student):
        broken = place.clone()
        broken[2, 1] = torch.inf
        pair = (student, broken) if place is teacher else (broken, teacher)
        with pytest.raises(NonFiniteError, match="1 of 4 tokens"):
            chunked.token_divergence(*pair, head, tokens, DivergenceSpec())


@pytest.mark.usefixtures("_interpreted")
def test_what_is_tried_before_they_are_used_sees_a_wrong_number(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch):
    device, measure_rows = torch.device("cpu"), kernels.measure_rows
    monkeypatch.setattr(kernels, "BLOCK", 4096)
    assert max(chunked.kernel_difference(device, kind) for kind in ("forward_kl", "reverse_kl")) < 1e-4

    def almost(*arguments: object) -> torch.Tensor:
        found = measure_rows(*arguments)
        found[3, 5] += 0.01
        return found

    monkeypatch.setattr(kernels, "measure_rows", almost)
    assert chunked.kernel_difference(device, "forward_kl") > 5e-3
