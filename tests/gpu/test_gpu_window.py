"""On a GPU: bf16, fused and module forward, recomputed activations, and a window of a Qwen3-1.7B-shaped student.

No GPU was there when these were written: they have run on none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atesd_env.config import preset
from atesd_env.distillation.chunked import _kernel_agrees, kernel_difference
from atesd_env.distillation.divergence import DivergenceKind
from atesd_env.population.population import Population
from atesd_env.student.operations import causal_attention
from benchmarks.gpu_window import Preset
from benchmarks.tiny_agreement import SMALL, adapters_around_a_window, distance_of_changes

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is False"),
]


NEAR = 0.05
"""How far one training may be from another of the same student, as a share of what training changed."""


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

    def test_captured_steps_sample_what_steps_of_growing_shape_do(self) -> None:
        start, plain = adapters_around_a_window(device="cuda")

        assert distance_of_changes(start, adapters_around_a_window(device="cuda", cuda_graph=True)[1], plain) < NEAR

    @pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
    def test_kernels_of_the_divergence_agree(self, kind: DivergenceKind) -> None:
        assert _kernel_agrees(torch.device("cuda")), "they are what is used"
        assert kernel_difference(torch.device("cuda"), kind) < 1e-4

    def test_float32_attention_writes_no_scores(self) -> None:
        """64 heads of 4,096 tokens: scores alone would take 4 GiB."""
        query, key = torch.randn(1, 64, 4096, 64, device="cuda"), torch.randn(1, 8, 4096, 64, device="cuda")
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        causal_attention(query, key, key)
        assert torch.cuda.max_memory_allocated() - before < 2**29

    def test_snapshots_lie_on_the_host_and_go_back(self) -> None:
        population = Population(preset("ATESD-Tiny-v0", **SMALL, device="cuda"))
        population.reset(0, seed=2)
        population.window(np.full((1, 1), 0.5))
        snapshot, trained = population.snapshot(0), population.adapters.flat.clone()
        tensors = [snapshot.adapter, *snapshot.optimizer["state"][0].values()]
        rows = [population.window(np.full((1, 1), 0.5))[0]["probe/nll"]]
        population.restore(0, snapshot)
        assert torch.equal(population.adapters.flat, trained)
        rows.append(population.window(np.full((1, 1), 0.5))[0]["probe/nll"])

        assert {tensor.device.type for tensor in tensors} == {"cpu"}
        assert snapshot.adapter.is_pinned()
        assert rows[1] == pytest.approx(rows[0], rel=1e-4)

    def test_bf16_base_learns(self) -> None:
        population = Population(preset("ATESD-Tiny-v0", **SMALL, dtype="bfloat16", device="cuda"))
        population.reset(0, seed=2)
        row = population.window(np.full((1, 1), 0.5))[0]

        assert population.adapters.flat.dtype == torch.float32
        assert row["probe/nll"] < population.runs[0].initial_nll

    def test_checkpointed_update_of_qwen3_1_7b_needs_what_was_planned(self, tmp_path: Path) -> None:
        found = Preset(tmp_path, small=False, num_rollouts=8, max_new_tokens=128).update()

        assert found["sampled_tokens"] > 4 * 128
        assert 0 < found["share_of_matrix_rate"] < 1
        assert found["peak_bytes"] < 1.15 * found["planned_bytes"]


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
