"""What was built for a GPU, on this CPU: each way against the one before it, in one interleaved run, by CPU time of one thread.

No figure here is a GPU's: a CPU shows that a way gives the same numbers, what memory it needs and what it spares in work, not in
launches and waits. The ways before that are no longer in the code are written out here. Not measured: snapshots in the host's memory,
which is all the memory that there is on a CPU.

Example: OMP_NUM_THREADS=1 python -m benchmarks.paths_for_a_gpu
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

from atesd_env.config import EnvConfig, preset_of
from atesd_env.planning.memory import Lengths, memory_plan
from atesd_env.planning.shape import ModelShape, shape_of
from atesd_env.population.population import Population
from atesd_env.rollouts import passes, sampling
from atesd_env.rollouts.decoding import begin_decoding
from atesd_env.rollouts.sampling import Rollouts, SamplingSpec, generate, kept_probabilities, position_ids
from atesd_env.rollouts.scoring import scored_hidden, token_log_probs
from atesd_env.student import adapters as adapter_code
from atesd_env.student import forward
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.model import Student, wrap_student
from atesd_env.student.operations import causal_attention
from atesd_env.student.packaged import TINY_DIRECTORY
from atesd_env.student.products import Product
from benchmarks.common import peak_bytes, save
from benchmarks.gpu_window import random_model

WIDE = Qwen3Config(
    vocab_size=512,
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=64,
)
GROUPS = {"query, key, value": (2048, (2048, 1024, 1024)), "gate, up": (2048, (6144, 6144))}
"""Products of Qwen3-1.7B with adapters side by side: inputs, outputs of each layer."""
Line = dict[str, Any]


def compared(
    name: str, before: Callable[[], object], after: Callable[[], object], agreement: str, repetitions: int = 5
) -> Line:
    """Returns the CPU milliseconds of two ways that take turns, medians."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(repetitions + 1):
        for times, action in zip(seconds, (before, after), strict=True):
            started = time.process_time()
            action()
            if number:  # the first finds nothing ready
                times.append(time.process_time() - started)
    return line(name, "ms", [1e3 * median(times) for times in seconds], agreement)


def line(name: str, unit: str, numbers: Sequence[float], agreement: str) -> Line:
    """Returns a line of the result, of the numbers (before, after)."""
    before, after = numbers
    print(f"{name}: {before:.4g} {unit} before, {after:.4g} after; {agreement}", flush=True)
    return {"name": name, "unit": unit, "before": before, "after": after, "agreement": agreement}


def sorting() -> list[Line]:
    """Top-p over the whole sorted vocabulary, and inside the top-k columns."""
    logits = 3 * torch.randn(32, 151_936, generator=torch.Generator().manual_seed(0))
    spec, uniforms = SamplingSpec(1, 1.1, 0.95, 20), torch.rand(32, generator=torch.Generator().manual_seed(1))

    def everything() -> Tensor:
        scaled = logits / spec.temperature
        scaled = scaled.masked_fill(scaled < scaled.topk(spec.top_k).values[:, -1:], -torch.inf)
        ascending, order = scaled.sort(dim=-1)
        remove = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1.0 - spec.top_p
        remove[:, -1] = False
        probabilities = scaled.masked_fill(remove.scatter(1, order, remove), -torch.inf).softmax(dim=-1)
        cumulative = probabilities.cumsum(dim=-1)
        return torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True)[:, 0]

    def columns() -> Tensor:
        return sampling.sample_next_token(logits, uniforms, spec)

    words = kept_probabilities(logits, spec)[1]
    assert words is not None
    assert words.shape[1] < 100
    same = int((everything() == columns()).sum())
    return [compared("sampling of 32 rows, 151,936 words", everything, columns, f"{same} of 32 words the same")]


def decoding(population: Population, prompts: list[list[int]]) -> list[Line]:
    """A look at ended rows after every token and every eight; steps of growing and of one shape."""
    spec = population.sampling
    uniforms = torch.rand(len(prompts), spec.max_new_tokens, generator=torch.Generator().manual_seed(0))
    fixed = Population(population.config.replace(cuda_graph=True))
    fixed.reset(0, 0)
    fixed.adapters.flat.copy_(population.adapters.flat)

    def rollouts(students: Population, look: AbstractContextManager[Any] | None = None) -> Rollouts:
        with look or nullcontext(), students.adapters.use("student", [0]):
            return generate(students.student, prompts, spec, uniforms)

    def seldom() -> Rollouts:
        return rollouts(population, patch.object(sampling, "CHECK_TOKENS", {"cpu": 8}))

    plain = rollouts(population)
    found = []
    for name, way in (
        ("look for ended rows: every token, every 8", seldom),
        ("decoding steps: growing, of one shape (`cuda_graph`)", lambda: rollouts(fixed)),
    ):
        same = torch.equal(plain.completion_ids, way().completion_ids)
        found.append(compared(f"{name}; 16 rows", lambda: rollouts(population), way, told(same, "tokens")))
    return found


def told(is_same: bool, what: str) -> str:
    """Returns whether two ways agree, in words."""
    return f"the same {what}" if is_same else f"OTHER {what}"


def float32_products(
    inputs: Tensor, weight: Tensor, matrix_a: Tensor, parts: list[tuple[int, Tensor]], product: Product, **_: bool
) -> Tensor:
    """``linear_with_adapter`` as it was: what adapters add is made in float32, and rounded once; weights of 16 bits never merge."""
    ((_, matrix_b),) = parts
    return product(inputs, weight) + (inputs.float() @ matrix_a.float() @ matrix_b.float()).to(inputs.dtype)


def student_of(dtype: str) -> tuple[Student, AdapterStack, ModelShape]:
    """Returns a Qwen3 of four layers of 512, of random weights, with adapters of rank 16."""
    config = preset_of(EnvConfig, "ATESD-Tiny-v0", dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(TINY_DIRECTORY, trust_remote_code=False)
    student = wrap_student(random_model(WIDE, dtype).eval(), tokenizer, "random weights", config)
    adapters = AdapterStack(student.model, 1, 16, 32.0, config.lora_targets)
    adapters.flat.copy_(0.05 * torch.randn(adapters.flat.shape, generator=torch.Generator().manual_seed(1)))
    return student, adapters, shape_of(WIDE, 16, config.lora_targets)


def half_precision() -> list[Line]:
    """Adapters on a 16-bit base: products in float32, and in 16 bits."""
    student, adapters, shape = student_of("bfloat16")
    prompts, answers = torch.full((32, 128), 5), torch.full((8, 64), 6)
    batch = Rollouts(prompts[:8], prompts[:8].bool(), answers, answers.bool(), torch.ones(8, dtype=torch.bool))
    along = torch.randn(WIDE.hidden_size, generator=torch.Generator().manual_seed(0))

    def feed() -> Tensor:
        with torch.inference_mode(), adapters.use("student", [0]):
            return begin_decoding(student, prompts, prompts.bool(), 4).hidden

    def train() -> Tensor:
        adapters.flat_grad.zero_()
        with adapters.use("student", [0]):
            (scored_hidden(student, batch.prompt_ids, batch.prompt_mask, batch).float() @ along).sum().backward()
        return adapters.flat_grad.clone()

    def wide(action: Callable[[], Tensor]) -> Tensor:
        with patch.object(forward, "linear_with_adapter", float32_products):
            return action()

    gradients = wide(train), train()
    distance = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    config = preset_of(EnvConfig, "ATESD-Tiny-v0", dtype="bfloat16", num_rollouts=32, max_new_tokens=4, lora_r=16)
    planned = sum(memory_plan(config, shape, Lengths(128, 128, 4, 4)).phases["prompts"].values())
    bytes_ = [peak_bytes(partial(wide, feed)), peak_bytes(feed)]
    return [
        compared("16-bit adapters: 32 prompts of 128", partial(wide, feed), feed, "see peft below"),
        compared(
            "16-bit adapters: an update, 8 rows of 192", partial(wide, train), train, f"gradient {distance:.1%} apart"
        ),
        line(
            "16-bit adapters: 32 prompts of 128, memory",
            "MiB",
            [size / 2**20 for size in bytes_],
            f"planned: {planned / 2**20:.1f} MiB",
        ),
    ]


def agreement_with_peft(half: Population, prompts: list[list[int]]) -> list[Line]:
    """Log-probabilities of sampled tokens on a 16-bit base: peft's (float32 adapters) and ours, from peft's in float32."""
    student = half.student
    with half.adapters.use("student", [0]), torch.no_grad():
        uniforms = torch.rand(len(prompts), 30, generator=torch.Generator().manual_seed(0))
        batch = generate(student, prompts, SamplingSpec(30), uniforms)
    tokens = batch.completion_ids[batch.completion_mask]

    def ours(students: tuple[int, ...]) -> Tensor:
        with torch.no_grad(), half.adapters.use("student" if students else None, students):
            return token_log_probs(student, scored_hidden(student, batch.prompt_ids, batch.prompt_mask, batch), tokens)

    inputs = torch.cat([batch.prompt_ids, batch.completion_ids], dim=1)
    mask = torch.cat([batch.prompt_mask, batch.completion_mask], dim=1)

    def theirs(dtype: torch.dtype, folder: Path) -> Tensor:
        base = AutoModelForCausalLM.from_pretrained(TINY_DIRECTORY, dtype=dtype, trust_remote_code=False)
        model = PeftModel.from_pretrained(base, str(folder), trust_remote_code=False).eval()
        with torch.no_grad():
            logits = model(input_ids=inputs, attention_mask=mask, position_ids=position_ids(mask)).logits.float()
        logits = logits[:, batch.prompt_ids.shape[1] - 1 : -1].log_softmax(dim=-1)
        chosen: Tensor = logits.gather(2, batch.completion_ids[..., None])[..., 0][batch.completion_mask]
        return chosen

    with tempfile.TemporaryDirectory() as folder:
        half.adapters.save(0, Path(folder) / "adapter", "tiny")
        exact, peft = (theirs(dtype, Path(folder) / "adapter") for dtype in (torch.float32, torch.bfloat16))
    mine, bare = ours((0,)), ours(())
    moved, apart = float((exact - bare).abs().mean()), float((mine - peft).abs().mean())
    distances = [float((one - exact).abs().mean()) for one in (peft, mine)]
    return [
        line(
            "16-bit base, from peft in float32: peft's, ours",
            "nats a token",
            distances,
            f"{apart:.4f} from each other; adapters move a token by {moved:.2f} ({len(tokens)} tokens)",
        )
    ]


def side_by_side() -> list[Line]:
    """Adapters on layers with the same input: as one product with zeros between them, and a product each."""
    found = []
    generator = torch.Generator().manual_seed(0)
    for name, (inputs, outputs) in GROUPS.items():
        for dtype, students, tokens in (
            ("float32", 1, 256),
            ("float32", 16, 64),
            ("bfloat16", 1, 256),
            ("bfloat16", 16, 64),
        ):
            number, whose = getattr(torch, dtype), "one student" if students == 1 else f"{students} students"
            module = torch.nn.Module()
            for index, size in enumerate(outputs):
                module.add_module(
                    str(index), torch.nn.Linear(inputs, size, bias=False).to(number).requires_grad_(False)
                )
            names = tuple(str(index) for index in range(len(outputs)))
            product = forward.Projection.fuse(module, *names, product=torch.matmul)
            stack = AdapterStack(module, students, 64, 128.0, names)
            stack.flat.copy_(0.02 * torch.randn(stack.flat.shape, generator=generator))
            hidden = torch.randn(tokens, inputs, generator=generator).to(number)
            pairs = []
            for most in (10**9, 0):
                with patch.object(adapter_code, "MOST_ZEROS", most), stack.use("student", range(students)):
                    low_rank = product.low_rank()
                    assert low_rank is not None
                    pairs.append(low_rank.contiguous())
            with torch.inference_mode():
                before, after = (partial(product, hidden, pair) for pair in pairs)
                same = told(torch.equal(before(), after()), "bits")
                title = f"adapters side by side, rank 64: {name}, {dtype}, {whose}, {tokens} tokens"
                found.append(compared(title, before, after, same, 15))
    return found


def attention() -> list[Line]:
    """Attention that writes each head's scores, and the one that is used, in float32."""
    query = torch.randn(1, 16, 1024, 64, generator=torch.Generator().manual_seed(0))
    key, value = torch.randn(2, 1, 8, 1024, 64, generator=torch.Generator().manual_seed(1))

    def used() -> Tensor:
        return causal_attention(query, key, value)

    def written() -> Tensor:
        with sdpa_kernel([SDPBackend.MATH]):
            return used()

    distance = f"{float((used() - written()).abs().max()):.0e} apart at most"
    sizes = [peak_bytes(action) / 2**20 for action in (written, used)]
    name = "float32 attention, 16 heads of 1,024 tokens"
    return [compared(name, written, used, distance), line(f"{name}, memory", "MiB", sizes, distance)]


def dropped_rows() -> list[Line]:
    """The most memory while a quarter of 32 rows is dropped: all layers' keys copied at once, and a layer's at a time."""
    student, _, _ = student_of("float32")
    prompts = torch.full((32, 256), 5)

    def drop(at_once: bool) -> Any:
        with torch.inference_mode():
            decoded: Any = begin_decoding(student, prompts, prompts.bool(), 1024)
            rows = torch.arange(24)
            if at_once:
                decoded._keys = [keys[rows] for keys in decoded._keys]
                decoded._values = [values[rows] for values in decoded._values]
            else:
                decoded.keep(rows)
        return decoded

    with patch.object(passes, "PASS_BYTES", 1):  # prompts row by row, whose activations are not what is looked at here
        sizes = [peak_bytes(partial(drop, at_once)) / 2**20 for at_once in (True, False)]
    return [line("keys and values while a quarter of the rows is dropped, memory", "MiB", sizes, "the same bits")]


def main() -> None:
    """Measures, and writes ``results/paths_for_a_gpu.json``."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    students = {
        dtype: Population(preset_of(EnvConfig, "ATESD-Tiny-v0", dtype=dtype, num_rollouts=16))
        for dtype in ("float32", "bfloat16")
    }
    for population in students.values():
        population.reset(0, 0)
        population.adapters.flat.add_(
            0.06 * torch.randn(population.adapters.flat.shape, generator=torch.Generator().manual_seed(1))
        )
    instance = students["float32"].instances[0]
    prompts = [list(instance.builder.student_prompt(problem)) for problem in instance.probe.problems[:16]]
    lines = [
        *sorting(),
        *decoding(students["float32"], prompts),
        *half_precision(),
        *agreement_with_peft(students["bfloat16"], prompts),
        *side_by_side(),
        *attention(),
        *dropped_rows(),
    ]
    save("paths_for_a_gpu", {"lines": lines})


if __name__ == "__main__":
    main()
