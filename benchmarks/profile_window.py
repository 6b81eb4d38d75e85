"""Where a window's time goes, and how far it is from what the processor could do.

Each stage of the students' updates is timed (medians over windows of one update, the first not counted): by CPU time of the process
where it has one thread, by the clock elsewhere. Beside it stand the floating-point operations that the stage cannot avoid, and the
time that they take at the rate that this machine reaches on a large matrix product in the same process: the floor. Operations are
counted from the sizes: 2 a weight and token forward, 2 more backward (the base is frozen, so only the gradient of the
activations), 6 a weight of the adapters, attention 4 a head's width and pair of tokens that see each other. Left out is what the
code skips too: padding, rows that have ended, behind the last layer's attention every token that predicts nothing, and the
gradient of what the first layer reads.

Examples:
    OMP_NUM_THREADS=1 python -m benchmarks.profile_window
    OMP_NUM_THREADS=1 python -m benchmarks.profile_window --students 16 --windows 5 --fast
    OMP_NUM_THREADS=2 python -m benchmarks.profile_window --env ATESD-SmolLM2-135M-v0 --windows 3
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from atesd_env.config import preset
from atesd_env.distillation import update as distillation
from atesd_env.population.population import Population
from atesd_env.rollouts.sampling import Rollouts
from benchmarks.common import FAST, save

STAGES = ("prompts", "rollout", "teacher", "student", "divergence", "backward", "optimizer", "grading", "other")


class Stages:
    """Collects the seconds of each stage, and what the last window sampled and scored."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = defaultdict(float)
        self.rollouts: Rollouts | None = None
        self.teacher_tokens: list[int] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            wait_for_device()
            started = self.clock()
            result = function(*arguments, **options)
            wait_for_device()
            self.seconds[name] += self.clock() - started
            return result

        return call

    def sampled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.rollouts = function(*arguments)
            return self.rollouts

        return self.timed("rollout", call)

    def scored(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(student: Any, ids: Any, mask: Any, rollouts: Any, **options: Any) -> Any:
            name = "student" if torch.is_grad_enabled() else "teacher"
            if name == "teacher":
                self.teacher_tokens += mask.sum(dim=1).tolist()
            return self.timed(name, function)(student, ids, mask, rollouts, **options)

        return call


def measure(config: Any, windows: int, num_students: int = 1) -> tuple[dict[str, float], Population, Stages]:
    """Returns the median seconds of each stage of an update of all students."""
    students, stages = Population(config, num_students), Stages(clock())
    for index in range(num_students):
        students.reset(index, index)
    collected = [timed_update(students, stages, 0.5) for _ in range(windows + 1)]
    return {name: float(np.median([one[name] for one in collected[1:]])) for name in collected[0]}, students, stages


def timed_update(students: Population, stages: Stages, ratio: float) -> dict[str, float]:
    """Makes a window of all students; returns the seconds of each stage, and of its updates in all."""
    stages.seconds, stages.teacher_tokens = defaultdict(float), []
    instances = {id(instance): instance for instance in students.instances}.values()
    timed = [
        *((optimizer, "step", "optimizer") for optimizer in students.learner.optimizers),
        *((instance.builder, "student_prompt", "prompts") for instance in instances),
        *((instance.builder, "teacher_prompt", "prompts") for instance in instances),
        *((instance.task, "is_correct", "grading") for instance in instances),
        (distillation, "token_divergence", "divergence"),
        (torch.Tensor, "backward", "backward"),
    ]
    with ExitStack() as stack:
        stack.enter_context(patch.object(students.engine, "sample", stages.sampled(students.engine.sample)))
        stack.enter_context(patch.object(distillation, "scored_hidden", stages.scored(distillation.scored_hidden)))
        for target, name, stage in timed:
            stack.enter_context(patch.object(target, name, stages.timed(stage, getattr(target, name))))
        stack.enter_context(patch.object(students, "_update", stages.timed("total", students._update)))
        students.window(np.full((students.num_students, 1), ratio))
    total = stages.seconds.pop("total")
    seconds = {**dict.fromkeys(STAGES, 0.0), **stages.seconds}
    return {**seconds, "other": total - sum(stages.seconds.values()), "total": total}


def operations(students: Population, stages: Stages) -> dict[str, float]:
    """Returns the floating-point operations that the last update could not avoid, by stage."""
    student, rollouts = students.student, stages.rollouts
    assert rollouts is not None
    model: Any = student.model.config
    head_dim = getattr(model, "head_dim", None) or model.hidden_size // model.num_attention_heads
    attention_width = model.num_hidden_layers * model.num_attention_heads * head_dim
    layers: Any = student.body
    linear = sum(module.weight.numel() for module in layers.layers.modules() if type(module) is torch.nn.Linear)
    adapters, head = students.num_adapter_parameters, student.head_weight.numel()
    skipped, first = behind_attention(layers.layers[-1]), layers.layers[0].self_attn
    read_first = sum(base_weight(getattr(first, name)).numel() for name in ("q_proj", "k_proj", "v_proj"))
    answers = rollouts.lengths.double()
    # The last token of an answer is scored, not fed.
    fed = rollouts.prompt_mask.sum(dim=1).double() + answers - 1
    teacher_fed = torch.tensor(stages.teacher_tokens).double() + answers - 1

    def passes(lengths: torch.Tensor) -> tuple[float, float]:
        """(products with weights a weight, attention) of rows."""
        return 2 * float(lengths.sum()), 4 * attention_width * float((lengths * (lengths + 1) / 2).sum())

    tokens, attention = passes(fed)
    teacher_tokens, teacher_attention = passes(teacher_fed)
    scored = 2 * float(answers.sum())
    return {
        "rollout": tokens * (linear + adapters) + attention + scored * head - (tokens - scored) * skipped,
        "teacher": teacher_tokens * linear + teacher_attention - (teacher_tokens - scored) * skipped,
        "student": tokens * (linear + adapters) + attention - (tokens - scored) * skipped,
        "divergence": 3 * scored * head,
        "backward": tokens * (linear - read_first + 2 * adapters) + 2.5 * attention - (tokens - scored) * skipped,
    }


def base_weight(layer: Any) -> torch.Tensor:
    """Returns a linear layer's own weight, adapters or not."""
    weight: torch.Tensor = getattr(layer, "base", layer).weight
    return weight


def behind_attention(layer: Any) -> int:
    """Returns the weights that follow a layer's attention, which only tokens that are asked for meet in the last one."""
    attention = layer.self_attn
    return sum(
        base_weight(getattr(parent, name)).numel()
        for parent, name in (
            (attention, "o_proj"),
            *((layer.mlp, name) for name in ("gate_proj", "up_proj", "down_proj")),
        )
    )


def clock() -> Callable[[], float]:
    """Returns the clock that is worth reading: other programs do not count by CPU time, but a second thread that waits does."""
    return time.process_time if torch.get_num_threads() == 1 and not torch.cuda.is_available() else time.perf_counter


def products_per_sec(device: str = "cpu", dtype: torch.dtype = torch.float32, size: int = 2000) -> float:
    """Returns the floating-point operations a second of a large matrix product, the best of several."""
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    return 2 * size**3 / fastest(lambda: left @ right)


def fastest(action: Callable[[], object]) -> float:
    """Returns the seconds of something, the least of six times."""
    seconds, now = [], clock()
    for _ in range(6):
        wait_for_device()
        started = now()
        action()
        wait_for_device()
        seconds.append(now() - started)
    return min(seconds)


def wait_for_device() -> None:
    """A GPU's work goes on behind the host's back; a time is right once it has ended."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """Measures, prints a table, and writes ``results/profile_window_<student>.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="ATESD-Tiny-v0", help="environment id")
    parser.add_argument("--students", type=int, default=1, help="K, side by side")
    parser.add_argument("--fast", action="store_true", help=f"with {FAST}")
    parser.add_argument("--windows", type=int, default=15, help="timed updates; one before them is not counted")
    parser.add_argument("--forward", choices=("fused", "modules"), default="fused", help="the way through the model")
    arguments = parser.parse_args()
    config = preset(
        arguments.env,
        hold_window=1,
        windows=10_000,
        probe_size=1,
        probe_accuracy_every=0,
        forward=arguments.forward,
        **(FAST if arguments.fast else {}),
    )
    rate = products_per_sec()
    seconds, students, stages = measure(config, arguments.windows, arguments.students)
    floors = {name: count / rate for name, count in operations(students, stages).items()}
    floors["total"] = sum(floors.values())
    print(f"{'stage':12} {'ms':>9} {'share':>7} {'floor ms':>9} {'of floor':>9}")
    for name in (*STAGES, "total"):
        floor = floors.get(name, 0.0)
        part = f"{1e3 * floor:9.1f} {floor / seconds[name]:9.0%}" if floor else ""
        print(f"{name:12} {1e3 * seconds[name]:9.1f} {seconds[name] / seconds['total']:7.0%} {part}")
    tag = arguments.env.removeprefix("ATESD-").removesuffix("-v0").lower()
    ways = {
        arguments.forward: "fused",
        "fast" if arguments.fast else "": "",
        f"{arguments.students}_students": "1_students",
    }
    suffix = "".join(f"_{way}" for way, usual in ways.items() if way != usual)
    save(
        f"profile_window_{tag}{suffix}",
        {
            "fields": FAST if arguments.fast else {},
            "windows": arguments.windows,
            "students": arguments.students,
            "gigaflops_per_sec": rate / 1e9,
            "seconds": seconds,
            "floor_sec": floors,
            "share_of_floor": floors["total"] / seconds["total"],
        },
    )


if __name__ == "__main__":
    main()
