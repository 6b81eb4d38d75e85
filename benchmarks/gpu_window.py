"""A window of a Qwen3-shaped student of random weights on this machine's device: tokens a second, memory, share of the matrix rate.

    python -m benchmarks.gpu_window --shape qwen3-1.7b --rollouts 32 --new-tokens 1024 --micro-batch 4
    python -m benchmarks.gpu_window --shape narrow     # on a CPU: that the script works, no measurement of anything

Random weights cost what trained ones cost. The device's matrix rate is measured here, with square products in the same number
format; a window's share counts the products of decoding, scoring and the backward pass (attention's scores left out).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from atesd_env.config import EnvConfig, preset
from atesd_env.population.population import Population
from atesd_env.student.model import wrap_student
from atesd_env.student.packaged import TINY_DIRECTORY
from benchmarks.common import save

SHAPES: dict[str, dict[str, int]] = {
    "narrow": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16},
    "qwen3-1.7b": {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "head_dim": 128,
    },
}
_HEADS = {"narrow": (4, 2), "qwen3-1.7b": (16, 8)}


def random_population(shape: str, config: EnvConfig, device: str) -> Population:
    """Returns one student with random weights of a shape, in the configuration's number format, on a device."""
    heads, key_value_heads = _HEADS[shape]
    model_config = Qwen3Config(
        **SHAPES[shape],
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=40_960,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        model = Qwen3ForCausalLM._from_config(model_config, dtype=getattr(torch, config.dtype))
    tokenizer = AutoTokenizer.from_pretrained(TINY_DIRECTORY, trust_remote_code=False)
    return Population(config, student=wrap_student(model, tokenizer, f"random {shape}", config))


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Returns operations a second of square products, the best of several."""
    size = 8192 if device.startswith("cuda") else 512
    left = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(10):
        _synchronize(device)
        started = time.perf_counter()
        left @ left
        _synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def measure(shape: str, config: EnvConfig, device: str, windows: int = 2) -> dict[str, Any]:
    """Returns what windows cost; the first one, which is not counted, prepares the kernels."""
    population = random_population(shape, config, device)
    population.reset(0, seed=0)
    ratio = np.full((1, config.groups), 0.5)
    population.window(ratio)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    timings = dict.fromkeys(population.timings, 0.0)
    num_tokens = operations = 0.0
    parameters = sum(parameter.numel() for parameter in population.student.model.parameters())
    passes_of_student = 8 if config.gradient_checkpointing else 6  # forward (again), gradient of activations
    passes_of_student -= 2  # no gradient of the frozen weights
    for _ in range(windows):
        row = population.window(ratio)[0]
        _synchronize(device)
        for name, seconds in population.timings.items():
            timings[name] += seconds
        new = int(row["rollout/num_tokens"] or 0)
        batch = population.batches[0]
        student_prompts = [population.instances[0].builder.student_prompt(problem) for problem in batch.problems]
        prompt = config.hold_window * sum(map(len, student_prompts))
        taught = config.hold_window * sum(len(one.token_ids) for one in batch.teacher_prompts)
        num_tokens += new
        operations += parameters * (2 * (prompt + new) + passes_of_student * (prompt + new) + 2 * (taught + new))
    seconds = timings["time/rollout_sec"] + timings["time/update_sec"]
    rate = matrix_rate(device, getattr(torch, config.dtype))
    is_cuda = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name() if is_cuda else "CPU (no GPU: a smoke test, not a measurement)",
        "shape": shape,
        "parameters": parameters,
        "config": {
            name: getattr(config, name)
            for name in (
                *("dtype", "forward", "gradient_checkpointing", "num_rollouts", "micro_batch_size", "hold_window"),
                *("max_new_tokens", "lora_r", "divergence_chunk"),
            )
        },
        "windows": windows,
        "sampled_tokens_per_sec": num_tokens / timings["time/rollout_sec"],
        "trained_tokens_per_sec": num_tokens / timings["time/update_sec"],
        "seconds_per_window": {name: value / windows for name, value in timings.items()},
        "matrix_rate_per_sec": rate,
        "share_of_matrix_rate": operations / seconds / rate,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if is_cuda else None,
    }


def window_config(arguments: argparse.Namespace, device: str) -> EnvConfig:
    """Returns the configuration of the measured windows: the shape's preset with the lengths that were asked for."""
    if arguments.shape == "narrow":
        return preset(
            "ATESD-Tiny-v0",
            dtype=arguments.dtype or "float32",
            gradient_checkpointing=True,
            num_rollouts=arguments.rollouts or 4,
            micro_batch_size=arguments.micro_batch or 2,
            max_new_tokens=arguments.new_tokens or 16,
            forward=arguments.forward,
            device=device,
            hold_window=1,
            probe_size=2,
            probe_accuracy_every=0,
        )
    # Arithmetic problems and a character tokenizer: what is measured are lengths, not answers.
    return preset(
        "ATESD-Qwen3-1.7B-v0",
        task="arithmetic",
        data_path=None,
        dtype=arguments.dtype or "bfloat16",
        num_rollouts=arguments.rollouts or 32,
        micro_batch_size=arguments.micro_batch or 4,
        max_new_tokens=arguments.new_tokens or 1024,
        forward=arguments.forward,
        device=device,
        hold_window=1,
        probe_size=4,
        probe_accuracy_every=0,
    )


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="qwen3-1.7b")
    parser.add_argument("--rollouts", type=int, help="of an update")
    parser.add_argument("--new-tokens", type=int, help="longest rollout")
    parser.add_argument("--micro-batch", type=int)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--forward", choices=["fused", "modules"], default="fused")
    parser.add_argument("--windows", type=int, default=2)
    return parser.parse_args(arguments)


def main() -> None:
    """Measures and writes ``benchmarks/results/gpu_window_<shape>.json``."""
    arguments = parsed()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    result = measure(arguments.shape, window_config(arguments, device), device, arguments.windows)
    save(f"gpu_window_{arguments.shape}", result)


if __name__ == "__main__":
    main()
