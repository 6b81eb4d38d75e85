"""Time and memory of the full-vocabulary divergence: naive autograd, chunks with recomputation, and ours.

Claim: `atesd_env.distillation.token_divergence` makes loss, statistics and the student's gradient faster than naive
autograd and in a fraction of its memory, because no [N, V] tensor exists and no logits are computed twice. What is left
are the three products with the head, which every method needs: they bound the speed-up (``products_only``).

Every method gives the same: loss, its gradient, and the six statistics of `TokenDivergence`; ``naive_loss_only`` leaves
the statistics out. Times are taken in one process with the methods interleaved, their order rotated from repeat to
repeat; read the ratios, not the seconds. Peak memory is that of a fresh process for each method, above what its inputs
take.

Example:
    OMP_NUM_THREADS=2 python benchmarks/divergence.py --tokens 256 1024 --repeats 7
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from atesd_env.distillation.chunked import TokenDivergence, token_divergence
from atesd_env.distillation.divergence import DivergenceSpec, forward_kl

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]  # student hidden [N, D], teacher hidden [N, D], head [V, D], tokens [N]
Outputs = tuple[TokenDivergence, Tensor]  # values, and the gradient [N, D] of the mean loss

SMALL = {"tokens": 1000, "vocabulary": 60, "width": 128}  # the packaged student's size
MIB = 2**20
TITLES = ["sec", "naive / it", "at fastest", "peak MiB", "naive / it"]


def make_inputs(num_tokens: int, vocabulary: int, width: int) -> Inputs:
    """Random inputs with a forward KL of about 0.2 nats, made in place: their making needs no more than they do."""
    rng = torch.Generator().manual_seed(0)
    student = torch.randn(num_tokens, width, generator=rng).mul_(2.0)
    teacher = torch.randn(num_tokens, width, generator=rng).mul_(0.6).add_(student)
    head = torch.empty(vocabulary, width).normal_(generator=rng).mul_(width**-0.5)
    return student, teacher, head, torch.randint(vocabulary, (num_tokens,), generator=rng)


def plain(student: Tensor, teacher: Tensor, head: Tensor, tokens: Tensor, with_statistics: bool) -> TokenDivergence:
    """The definition on whole logits."""
    student_log_probs = torch.log_softmax(student @ head.T, dim=-1)
    with torch.no_grad():
        teacher_log_probs = torch.log_softmax(teacher @ head.T, dim=-1)
    loss = forward_kl(student_log_probs, teacher_log_probs)
    with torch.no_grad():
        mismatch = loss.detach()
        if not with_statistics:
            return TokenDivergence._make([loss] + [mismatch] * 6)
        models = (student_log_probs, teacher_log_probs)
        entropies = [-(log_probs.exp() * log_probs).sum(dim=-1) for log_probs in models]
        disagreement = (student_log_probs.argmax(dim=-1) != teacher_log_probs.argmax(dim=-1)).float()
        sampled = [log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) for log_probs in models]
    return TokenDivergence(loss, mismatch, *entropies, disagreement, *sampled)


def run_naive(inputs: Inputs, with_statistics: bool) -> Outputs:
    """Autograd through [N, V] tensors."""
    student = inputs[0].clone().requires_grad_()
    values = plain(student, *inputs[1:], with_statistics=with_statistics)
    values.loss.mean().backward()
    return values, gradient_of(student)


def run_checkpoint(inputs: Inputs, chunk_size: int) -> Outputs:
    """Autograd a chunk at a time, each chunk computed again in the backward pass."""
    student, (_, teacher, head, tokens) = inputs[0].clone().requires_grad_(), inputs
    chunks = []
    for start in range(0, len(tokens), chunk_size):
        rows = slice(start, start + chunk_size)
        chunks.append(checkpoint(plain, student[rows], teacher[rows], head, tokens[rows], True, use_reentrant=False))
    values = TokenDivergence(*(torch.cat(columns) for columns in zip(*chunks, strict=True)))
    values.loss.mean().backward()
    return values, gradient_of(student)


def run_ours(inputs: Inputs, chunk_size: int) -> Outputs:
    """The closed form."""
    student = inputs[0].clone().requires_grad_()
    values = token_divergence(student, *inputs[1:], DivergenceSpec("forward_kl", chunk_size=chunk_size))
    values.loss.mean().backward()
    return values, gradient_of(student)


def run_products_only(inputs: Inputs) -> Outputs:
    """The three products with the head alone, whole: what every exact method does, and so the bound of any speed-up."""
    student, teacher, head, _ = inputs
    logits = torch.cat([student, teacher]) @ head.T
    nothing = torch.zeros(len(student))
    return TokenDivergence._make([nothing] * len(TokenDivergence._fields)), logits[: len(student)] @ head


def gradient_of(leaf: Tensor) -> Tensor:
    """The gradient that the backward pass left."""
    assert leaf.grad is not None
    return leaf.grad


METHODS: dict[str, Callable[[Inputs], Outputs]] = {
    "naive": partial(run_naive, with_statistics=True),
    "naive_loss_only": partial(run_naive, with_statistics=False),
    "checkpoint_64": partial(run_checkpoint, chunk_size=64),
    "ours_64": partial(run_ours, chunk_size=64),
    "ours_128": partial(run_ours, chunk_size=128),
    "ours_256": partial(run_ours, chunk_size=256),
    "products_only": run_products_only,
}


def measure_times(inputs: Inputs, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of each method, and naive's time over its own in the same repeat (medians over repeats).

    The ratio of the fastest repeats stands beside it: it is the least disturbed by whatever else runs on the machine.
    """
    names = list(METHODS)
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            METHODS[name](inputs)
            wall[name].append(time.perf_counter() - wall_start)
            cpu[name].append(time.process_time() - cpu_start)

    def speedup(seconds: dict[str, list[float]], name: str) -> float:
        return statistics.median(base / own for base, own in zip(seconds["naive"], seconds[name], strict=True))

    return {
        name: {
            "wall_sec": round(statistics.median(wall[name]), 5),
            "wall_sec_fastest": round(min(wall[name]), 5),
            "speedup_over_naive": round(speedup(wall, name), 2),
            "fastest_speedup_over_naive": round(min(wall["naive"]) / min(wall[name]), 2),
            "cpu_speedup_over_naive": round(speedup(cpu, name), 2),
        }
        for name in names
    }


def peak_rss_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure_peak_here(method: str, num_tokens: int, vocabulary: int, width: int) -> float:
    """MiB that one call adds to what the process needed before it; for a fresh process."""
    METHODS[method](make_inputs(8, 100, width))  # loads the libraries and starts the threads
    inputs = make_inputs(num_tokens, vocabulary, width)
    before = peak_rss_bytes()
    METHODS[method](inputs)
    return round((peak_rss_bytes() - before) / MIB, 1)


def measure_peaks(num_tokens: int, vocabulary: int, width: int) -> dict[str, float]:
    """Peak of each method in MiB, each in its own process; call it while this process is still small."""
    peaks = {}
    for name in METHODS:
        sizes = map(str, ["--tokens", num_tokens, "--vocabulary", vocabulary, "--width", width])
        command = [sys.executable, __file__, "--peak-of", name, *sizes]
        peaks[name] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return peaks


def relative_difference(got: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what was expected."""
    return float(((got - expected).norm() / expected.norm()).detach())


def measure_agreement(inputs: Inputs) -> dict[str, dict[str, float]]:
    """Relative difference (norms) from naive autograd in the same dtype."""
    expected_values, expected_gradient = METHODS["naive"](inputs)
    agreement = {}
    for name in ("checkpoint_64", "ours_128"):
        values, gradient = METHODS[name](inputs)
        agreement[name] = {
            "loss": relative_difference(values.loss, expected_values.loss),
            "gradient": relative_difference(gradient, expected_gradient),
        }
    return agreement


def current_commit() -> str | None:
    """The commit of this checkout, or None outside of one."""
    command = ["git", "rev-parse", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return result.stdout.strip() or None


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 1024], help="scored tokens N, one or several")
    parser.add_argument("--vocabulary", type=int, default=151_936, help="words V (Qwen3: 151936)")
    parser.add_argument("--width", type=int, default=1024, help="hidden size D")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats, at least 5 for a claim")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "divergence.json", help="JSON")
    parser.add_argument("--peak-of", choices=list(METHODS), help="only print the peak of one method in MiB")
    return parser.parse_args()


def main() -> None:
    """Measure, print a table, write the JSON file."""
    arguments = parse_arguments()
    vocabulary, width = arguments.vocabulary, arguments.width
    if arguments.peak_of:
        print(measure_peak_here(arguments.peak_of, arguments.tokens[0], vocabulary, width))
        return
    peaks = {num_tokens: measure_peaks(num_tokens, vocabulary, width) for num_tokens in arguments.tokens}
    agreement = measure_agreement(make_inputs(arguments.tokens[0], vocabulary, width))
    times = {
        num_tokens: measure_times(make_inputs(num_tokens, vocabulary, width), arguments.repeats)
        for num_tokens in arguments.tokens
    }
    small = measure_times(make_inputs(*SMALL.values()), 5 * arguments.repeats)

    result = {
        "command": " ".join(["python", "benchmarks/divergence.py", *sys.argv[1:]]),
        "commit": current_commit(),
        "machine": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load_average_at_end": round(os.getloadavg()[0], 1),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "dtype": "float32",
        "vocabulary": vocabulary,
        "width": width,
        "repeats": arguments.repeats,
        "by_tokens": {
            str(num_tokens): {
                "times": times[num_tokens],
                "peak_mib": peaks[num_tokens],
                "naive_peak_over_own": {name: ratio(peaks[num_tokens], name) for name in METHODS},
            }
            for num_tokens in arguments.tokens
        },
        "small": {**SMALL, "repeats": 5 * arguments.repeats, "times": small},
        "relative_difference_from_naive": agreement,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    print(f"V = {vocabulary}, D = {width}, float32, {torch.get_num_threads()} threads")
    for num_tokens in arguments.tokens:
        print(f"\n{num_tokens:5} tokens      " + " ".join(f"{title:>11}" for title in TITLES))
        for name in METHODS:
            own, peak = times[num_tokens][name], peaks[num_tokens][name]
            columns = [own["wall_sec"], own["speedup_over_naive"], own["fastest_speedup_over_naive"]]
            columns += [peak, ratio(peaks[num_tokens], name)]
            print(f"{name:16} " + " ".join(f"{column:11.2f}" for column in columns))
    print(f"\nV = {SMALL['vocabulary']}: naive over ours_128 {small['ours_128']['speedup_over_naive']:.2f}")
    print(f"wrote {arguments.out}")


def ratio(peaks: dict[str, float], name: str) -> float:
    """How many times a method's own peak naive's is."""
    return round(peaks["naive"] / max(peaks[name], 0.1), 1)


if __name__ == "__main__":
    main()
