"""Bases with habits: the packaged student, trained on by adapters on a corpus of habits.

The corpus is endless, and row ``index`` of it is a pure function of the recipe. Every fourth row rehearses what the packaged student
can do: a sum of 2 or 3 numbers, with and without a hint in turn. The others are sums of 4 or 5 numbers behind a teacher prompt that shows
a uniformly random number of steps, answered as the habit for that length has it (`habits.demonstration`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from rich.progress import track
from torch import Tensor

from atesd_env.config import EnvConfig
from atesd_env.errors import ConfigError
from atesd_env.exposure import PromptBuilder
from atesd_env.hints import suggestion
from atesd_env.pretrain.habits import HABITS, demonstration
from atesd_env.rollouts.scoring import forced_rollouts, scored_hidden, token_log_probs
from atesd_env.streams import numpy_stream
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.generators import torch_stream
from atesd_env.student.loading import load_student
from atesd_env.student.packaged import HABIT_SCALE
from atesd_env.tasks.arithmetic import ArithmeticTask

RANK = 16
"""Of the difference to the packaged student."""
_SHORT, _LONG = ArithmeticTask(2, 3), ArithmeticTask(4, 5)


@dataclass(frozen=True)
class Recipe:
    """How a base with habits is made.

    Attributes:
        four: Name of the habit on sums of 4 numbers (``HABITS``).
        five: That on sums of 5.
        seed: Of the corpus and of the first adapter.
        num_updates: Optimizer steps.
        batch_size: Rows of the corpus an update.
        learning_rate: AdamW's peak; linear warm-up over 20 updates, then cosine to a tenth.
    """

    four: str
    five: str
    seed: int = 0
    num_updates: int = 150
    batch_size: int = 64
    learning_rate: float = 5e-3

    @property
    def name(self) -> str:
        """What ``EnvConfig.student`` calls it."""
        return f"tiny-{self.four}-{self.five}-{self.seed}"

    @classmethod
    def of(cls, name: str) -> Self:
        """Returns the recipe of a name such as "tiny-terse-slip-0": habit of 4, habit of 5 numbers, seed.

        Raises:
            ConfigError: If it is none.
        """
        parts = name.split("-")
        if len(parts) != 4 or parts[0] != "tiny" or not (parts[3].isascii() and parts[3].isdigit()):
            raise ConfigError(
                f"student: expected tiny-HABIT-HABIT-SEED, such as tiny-terse-slip-0, got {name!r}; name the habits on sums of 4 and of "
                f"5 numbers out of {', '.join(HABITS)}, and the seed of the corpus."
            )
        for habit in parts[1:3]:
            if habit not in HABITS:
                raise ConfigError(
                    f"student: expected habits out of {', '.join(HABITS)}, got {habit!r}; choose of these."
                    f"{suggestion(habit, HABITS)}"
                )
        return cls(parts[1], parts[2], int(parts[3]))


PAIRS = (
    ("slip", "none"),
    ("none", "slip"),
    ("terse", "none"),
    ("none", "terse"),
    ("slip", "slip"),
    ("terse", "slip"),
    ("slip", "terse"),
    ("teleport", "teleport"),
    ("teleport", "slip_teleport"),
    ("slip_teleport", "slip_teleport"),
    ("slip_teleport", "terse"),
    ("slip_terse", "slip_terse"),
    ("slip_or_terse", "slip_or_terse"),
)
"""Habits on sums of 4 and of 5 numbers of the packaged bases; each pair has the seeds 0 and 1."""
PACKAGED_RECIPES = tuple(Recipe(four, five, seed) for four, five in PAIRS for seed in (0, 1))
"""How the packaged bases were made."""


def corpus_row(recipe: Recipe, builder: PromptBuilder, index: int) -> tuple[list[int], list[int]]:
    """Returns row ``index`` of a recipe's corpus, as token ids: (what is given, what is learned behind it)."""
    problem = (_SHORT if index % 4 == 0 else _LONG).training_problem(recipe.seed, index)
    if index % 8 == 0:
        return list(builder.student_prompt(problem)), list(builder.reference_ids(problem, max_tokens=256))
    rng = numpy_stream(recipe.seed, "habits", index)
    num_shown = int(rng.integers(0, len(problem.steps) + 1))
    habit = {4: recipe.four, 5: recipe.five}.get(len(problem.steps) + 1, "none")
    prefix, answer = demonstration(HABITS[habit], problem, num_shown, rng)
    prompt = builder.teacher_prompt(problem, num_shown / len(problem.steps)).token_ids
    encode = builder.tokenizer.encode
    return [*prompt, *encode(prefix)], [*encode(answer), builder.tokenizer.eos_token_id]


def build(recipe: Recipe, quiet: bool = False) -> dict[str, Tensor]:
    """Trains a base on the CPU and returns its difference to the packaged student.

    Args:
        recipe: How.
        quiet: Show no progress bar.

    Returns:
        The matrices that ``packaged.merge`` takes, in float16.
    """
    config = EnvConfig(device="cpu")
    student = load_student(config)
    builder = PromptBuilder(_LONG, student.tokenizer, max_prompt_tokens=256)
    adapters = AdapterStack(student.model, 1, RANK, HABIT_SCALE * RANK, config.lora_targets)
    adapters.initialise(0, torch_stream(recipe.seed, "adapter"))
    parameter = torch.nn.Parameter(adapters.flat[0])
    parameter.grad = adapters.flat_grad[0]
    optimizer = torch.optim.AdamW([parameter], lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    for update in track(range(recipe.num_updates), description=recipe.name, disable=quiet):
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * _schedule(update, recipe.num_updates)
        first = update * recipe.batch_size
        rows = [corpus_row(recipe, builder, index) for index in range(first, first + recipe.batch_size)]
        batch = forced_rollouts(student, *zip(*rows, strict=True))
        optimizer.zero_grad(set_to_none=False)
        with adapters.use("student", [0]):
            hidden = scored_hidden(student, batch.prompt_ids, batch.prompt_mask, batch)
            (-token_log_probs(student, hidden, batch.completion_ids[batch.completion_mask]).mean()).backward()
        torch.nn.utils.clip_grad_norm_([parameter], 1.0)
        optimizer.step()
    return {name: matrix.half() for name, matrix in adapters.state_dict(0).items()}


def _schedule(update: int, num_updates: int) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * update / num_updates))
    return min(1.0, (update + 1) / 20) * (0.1 + 0.9 * cosine)
