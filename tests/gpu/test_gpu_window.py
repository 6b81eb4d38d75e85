"""On a GPU: bf16, fused and module forward, recomputed activations, and a window of a Qwen3-1.7B-shaped student.

No GPU was there when these were written: they have run on none.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from atesd_env.config import preset
from atesd_env.population.population import Population

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is False"),
]
SMALL: dict[str, Any] = {"windows": 2, "hold_window": 1, "num_rollouts": 4, "probe_size": 4, "max_new_tokens": 24}


@pytest.fixture
def gpu_window(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark's module."""
    root = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(root)
    spec = importlib.util.spec_from_file_location("gpu_window", root / "benchmarks" / "gpu_window.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_window", module)
    spec.loader.exec_module(module)
    return module


NEAR = 0.05
"""How far one training may be from another of the same student, as a share of what training changed."""


def distance_of_changes(start: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> float:
    """Returns how far two ends of training are from each other, as a share of the longer of their ways from the start.

    A student that was not trained is 1 away from one that was, whatever the step's size; two that were not are infinitely far.
    """
    changes = (one - start).double(), (other - start).double()
    longest = max(float(change.norm()) for change in changes)
    return float((changes[0] - changes[1]).norm()) / longest if longest > 0 else math.inf


def adapters_around_a_window(**fields: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a student's adapter as it starts, and after a window of greedy rollouts."""
    population = Population(preset("ATESD-Tiny-v0", **SMALL, temperature=0.0, **fields))
    population.reset(0, seed=2)
    start = population.adapters.flat.detach().cpu().clone()
    population.window(np.full((1, 1), 0.5))
    return start, population.adapters.flat.detach().cpu()


class TestOnAGpu:
    pytestmark = needs_gpu

    def test_window_is_that_of_a_cpu_with_greedy_rollouts(self) -> None:
        start, on_gpu = adapters_around_a_window(device="cuda")
        same_start, on_cpu = adapters_around_a_window(device="cpu")

        assert torch.equal(start, same_start)
        assert distance_of_changes(start, on_gpu, on_cpu) < NEAR

    @pytest.mark.parametrize("fields", [{"forward": "modules"}, {"gradient_checkpointing": True}])
    def test_ways_through_the_model_agree(self, fields: dict[str, Any]) -> None:
        """Through the modules attention is transformers' SDPA."""
        start, plain = adapters_around_a_window(device="cuda")

        assert distance_of_changes(start, adapters_around_a_window(device="cuda", **fields)[1], plain) < NEAR

    def test_bf16_base_learns(self) -> None:
        population = Population(preset("ATESD-Tiny-v0", **SMALL, dtype="bfloat16", device="cuda"))
        population.reset(0, seed=2)
        row = population.window(np.full((1, 1), 0.5))[0]

        assert population.adapters.flat.dtype == torch.float32
        assert row["probe/nll"] < population.runs[0].initial_nll

    def test_checkpointed_window_of_qwen3_1_7b_shape(
        self, gpu_window: ModuleType, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = gpu_window.parsed(
            ["--rollouts", "8", "--new-tokens", "128", "--micro-batch", "4", "--windows", "1"]
        )
        found = gpu_window.measure("qwen3-1.7b", gpu_window.window_config(arguments, "cuda"), "cuda", windows=1)
        with capsys.disabled():
            sys.stdout.write(
                f"\n{found['device']}: {found['sampled_tokens_per_sec']:.0f} tokens/s sampled, "
                f"{found['trained_tokens_per_sec']:.0f} trained, peak {found['peak_memory_bytes'] / 2**30:.1f} GiB\n"
            )

        assert 1.6e9 < found["parameters"] < 1.8e9
        assert 0 < found["share_of_matrix_rate"] < 1
        assert found["peak_memory_bytes"] < 40 * 2**30


def test_students_that_were_trained_alike_are_near_and_one_that_was_not_is_far() -> None:
    """On a CPU, where the step is as long as on a GPU: modules stand in for another device's rounding."""
    start, plain = adapters_around_a_window(device="cpu")
    _, through_modules = adapters_around_a_window(device="cpu", forward="modules")

    assert 0 < distance_of_changes(start, through_modules, plain) < NEAR
    for untrained in ((start, plain), (plain, start), (start, start)):
        assert distance_of_changes(start, *untrained) >= 1.0
    half = start + 0.5 * (plain - start)
    assert distance_of_changes(start, half, plain) == pytest.approx(0.5, rel=1e-3)
    torch.testing.assert_close(start, plain, rtol=0, atol=2e-3)  # what was compared before cannot tell them apart


def test_benchmark_runs_on_a_cpu_with_a_narrow_model(gpu_window: ModuleType) -> None:
    arguments = gpu_window.parsed(["--shape", "narrow", "--windows", "1"])
    found = gpu_window.measure("narrow", gpu_window.window_config(arguments, "cpu"), "cpu", windows=1)

    assert "no GPU" in found["device"]
    assert math.isfinite(found["share_of_matrix_rate"])
    assert found["sampled_tokens_per_sec"] > 0
