"""SFT and GRPO by TRL's own trainers, on the environment's student, problems and windows.

TRL trains plain peft adapters on modules of its own around the same frozen weights; after each window's updates they are
copied into the environment's student, which is measured. Both begin with the adapter that a controller's run with the same
seed begins with. What TRL draws at random comes from torch's global generator, which is seeded from the run's seed and put
back afterwards.
"""

from __future__ import annotations

import random
import tempfile
import time
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import gymnasium
import numpy as np
import torch
from datasets import Dataset
from huggingface_hub import constants as hub_constants
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from atesd.experiments.baselines.base import Baseline, Callback
from atesd.experiments.baselines.environment import WindowTraining
from atesd_env.envs.columns import Row
from atesd_env.errors import ConfigError
from atesd_env.streams import stream_seed
from atesd_env.student.model import bare_copy
from atesd_env.tasks.base import Problem


class TrlBaseline(Baseline):
    """Trains with a trainer of TRL's.

    Args:
        env: A ``BaselineEnv``, wrapped or not.
        seed: Seed of the run.
        learning_rate: AdamW's step size, constant; None is the configuration's.

    Raises:
        ConfigError: If the learning rate is no number from 0.
    """

    logged: tuple[str, ...] = ("student/loss", "student/grad_norm")
    """Columns that TRL logs under the same names, without the "student/"."""
    sampled_sec = 0.0
    """When the newest rollouts were there, on ``time.perf_counter``'s clock."""

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int = 0, *, learning_rate: float | None = None) -> None:
        super().__init__(env, seed)
        self.config = self.measured.config
        self.learning_rate = self.config.learning_rate if learning_rate is None else learning_rate
        is_number = isinstance(self.learning_rate, int | float) and not isinstance(self.learning_rate, bool)
        if not (is_number and self.learning_rate >= 0):
            raise ConfigError(
                f"option learning_rate: expected a number from 0, got {learning_rate!r}; change the option."
            )

    @abstractmethod
    def make_trainer(self, model: PeftModel, arguments: dict[str, Any], num_updates: int) -> Any:
        """Returns TRL's trainer.

        Args:
            model: The student with its adapter.
            arguments: What all trainers are configured with.
            num_updates: Updates that it will be asked for.
        """

    @abstractmethod
    def counted(self) -> tuple[int, Row]:
        """Returns the tokens trained on and the columns that the baseline counts itself, and begins to count anew."""

    def learn(self, total_timesteps: int, callback: Callback | None = None) -> Self:
        self.env.reset(seed=self.seed)
        num_updates = total_timesteps * self.config.hold_window
        with _kept_apart(), tempfile.TemporaryDirectory() as folder:
            model = self._peft_model()
            trainer = self.make_trainer(model, self._arguments(folder, num_updates), num_updates)
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(_Windows(self, model, callback))
            trainer.train()
        return self

    def _peft_model(self) -> PeftModel:
        """Returns the student's frozen weights in modules of their own, with its adapter as a plain peft adapter."""
        population = self.measured.population
        config = population.adapters.peft_config(self.config.student)
        config.inference_mode, config.base_model_name_or_path = False, None  # peft fills in the name
        model = get_peft_model(bare_copy(population.student).model, config)
        set_peft_model_state_dict(model, population.adapters.state_dict(0))
        return model

    def _arguments(self, folder: str, num_updates: int) -> dict[str, Any]:
        config = self.config
        return {
            "output_dir": folder,
            "max_steps": num_updates,
            "learning_rate": self.learning_rate,
            "lr_scheduler_type": "constant",
            "optim": "adamw_torch",
            "weight_decay": config.weight_decay,
            "max_grad_norm": config.max_grad_norm,
            "seed": stream_seed(self.seed, "rollout"),
            "shuffle_dataset": False,
            "bf16": config.dtype == "bfloat16",
            "gradient_checkpointing": config.gradient_checkpointing,
            "use_cpu": self.measured.population.student.device.type == "cpu",
            "dataloader_pin_memory": False,
            "disable_tqdm": True,
            "report_to": [],
            "save_strategy": "no",
            "logging_steps": 1,
        }

    def batches(self, num_rows: int) -> dict[str, int]:
        """Returns how TRL cuts an update of ``num_rows`` into micro-batches: the largest that fit evenly."""
        most = min(self.config.micro_batch_size or num_rows, num_rows)
        size = next(size for size in range(most, 0, -1) if num_rows % size == 0)
        return {"per_device_train_batch_size": size, "gradient_accumulation_steps": num_rows // size}

    def problems(self, number: int) -> list[Problem]:
        """Returns the first problems of the run's order."""
        return [self.measured.population.training_problem(0, index) for index in range(number)]


class Sft(TrlBaseline):
    """Supervised fine-tuning on (prompt, reference solution), by TRL's ``SFTTrainer``; loss on the solution only.

    An update takes the problems that a controller's update takes. Prompts and solutions are the tokens that the environment
    itself makes, so that the loss is the probe's NLL on training problems, but for its mean: over all tokens of the batch.

    Arguments and errors: those of ``TrlBaseline``.
    """

    _num_tokens: list[int]
    _num_reported: int

    def make_trainer(self, model: PeftModel, arguments: dict[str, Any], num_updates: int) -> Any:
        builder = self.measured.population.instances[0].builder
        size = self.config.num_rollouts
        most = max(self.config.max_new_tokens, self.config.probe_max_tokens)  # what the context was checked for
        rows = []
        for problem in self.problems(size * num_updates):
            prompt = builder.student_prompt(problem)
            solution = builder.reference_ids(problem, most)
            rows.append({"input_ids": [*prompt, *solution], "labels": [-100] * len(prompt) + list(solution)})
        lengths = [sum(label != -100 for label in row["labels"]) for row in rows]
        self._num_tokens = [sum(lengths[start : start + size]) for start in range(0, len(lengths), size)]
        self._num_reported = 0
        return SFTTrainer(
            model=model,
            args=SFTConfig(**arguments, **self.batches(size), max_length=None, train_sampling_strategy="sequential"),
            train_dataset=Dataset.from_list(rows),
            processing_class=self.measured.population.student.tokenizer,
        )

    def counted(self) -> tuple[int, Row]:
        first, self._num_reported = self._num_reported, self._num_reported + self.config.hold_window
        return sum(self._num_tokens[first : self._num_reported]), {}


class Grpo(TrlBaseline):
    """GRPO with a verifiable reward (1 for a right final answer, else 0), by TRL's ``GRPOTrainer`` with its own defaults.

    TRL samples with transformers' ``generate``. By default an update takes the problems that a controller's update takes,
    each ``num_generations`` times, so it samples as many times the tokens. With ``num_problems`` = num_rollouts /
    num_generations an update has as many rollouts as a controller's, on fewer problems (the first ones of the same order).

    Args:
        env: A ``BaselineEnv``, wrapped or not.
        seed: Seed of the run.
        learning_rate: AdamW's step size, constant; None is the configuration's.
        num_generations: Rollouts of a problem, which are compared with each other; at least 2.
        num_problems: Problems of an update; None is the configuration's ``num_rollouts``.

    Raises:
        ConfigError: If an argument is out of range, or the configuration samples greedily, which makes all rollouts equal.
    """

    _rollouts: list[tuple[int, bool, bool]]
    # SFT's entropy is over the solutions' tokens, which are no rollouts.
    logged = (*TrlBaseline.logged, "student/entropy")

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        seed: int = 0,
        *,
        learning_rate: float | None = None,
        num_generations: int = 8,
        num_problems: int | None = None,
    ) -> None:
        super().__init__(env, seed, learning_rate=learning_rate)
        self.num_generations = num_generations
        self.num_problems = self.config.num_rollouts if num_problems is None else num_problems
        for name, least in (("num_generations", 2), ("num_problems", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(
                    f"option {name}: expected a whole number from {least}, got {value!r}; change the option."
                )
        if self.config.temperature == 0:
            raise ConfigError("temperature: expected a number above 0 for grpo, got 0; rollouts would all be equal.")

    def make_trainer(self, model: PeftModel, arguments: dict[str, Any], num_updates: int) -> Any:
        population = self.measured.population
        instance, student, config = population.instances[0], population.student, self.config
        problems = self.problems(self.num_problems * num_updates)
        requests = [[{"role": "user", "content": instance.task.student_request(problem)}] for problem in problems]
        self._rollouts, self.sampled_sec = [], 0.0

        def is_right(completion_ids: Sequence[list[int]], number: Sequence[int], **_: Any) -> list[float]:
            self.sampled_sec = time.perf_counter()
            texts = student.tokenizer.batch_decode(completion_ids, skip_special_tokens=True)
            rewards = []
            for text, ids, index in zip(texts, completion_ids, number, strict=True):
                is_correct = instance.task.is_correct(text, problems[index])
                self._rollouts.append((len(ids), is_correct, ids[-1] not in student.eos_token_ids))
                rewards.append(float(is_correct))
            return rewards

        return GRPOTrainer(
            model=model,
            reward_funcs=is_right,
            args=GRPOConfig(
                **arguments,
                **self.batches(self.num_problems * self.num_generations),
                num_generations=self.num_generations,
                max_completion_length=config.max_new_tokens,
                temperature=config.temperature,
                top_p=config.top_p,
                top_k=config.top_k,
                chat_template_kwargs={"enable_thinking": config.student_thinking},
            ),
            train_dataset=Dataset.from_dict({"prompt": requests, "number": list(range(len(problems)))}),
            processing_class=student.tokenizer,
        )

    def counted(self) -> tuple[int, Row]:
        lengths, are_correct, are_truncated = np.asarray(self._rollouts, dtype=np.float64).T
        self._rollouts.clear()
        num_tokens = int(lengths.sum())
        return num_tokens, {
            "rollout/num_tokens": num_tokens,
            "rollout/success_rate": float(are_correct.mean()),
            "rollout/length": float(lengths.mean()),
            "rollout/truncation_rate": float(are_truncated.mean()),
        }


class _Windows(TrainerCallback):
    """Ends a window after every ``hold_window`` updates of TRL's."""

    def __init__(self, baseline: TrlBaseline, model: PeftModel, callback: Callback | None) -> None:
        self.baseline = baseline
        self.model = model
        self.callback = callback
        self._logs: list[dict[str, float]] = []
        self._began_sec = self._step_began_sec = self._rollout_sec = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._began_sec = time.perf_counter()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._step_began_sec = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        # An update of TRL's begins with its rollouts, if it has some, and they are graded as soon as they are there.
        self._rollout_sec += max(0.0, self.baseline.sampled_sec - self._step_began_sec)

    def on_log(self, _args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
        """Comes after every update (logging_steps=1), and at the end with a summary, which has no loss."""
        if logs is None or "loss" not in logs:
            return
        self._logs.append(logs)
        if len(self._logs) < self.baseline.config.hold_window:
            return
        population = self.baseline.measured.population
        population.adapters.load_state_dict(0, get_peft_model_state_dict(self.model), "trained by TRL")
        num_trained_tokens, counted = self.baseline.counted()
        training = WindowTraining(
            num_updates=len(self._logs),
            num_trained_tokens=num_trained_tokens,
            measured={**{name: self._mean(name) for name in self.baseline.logged}, **counted},
            rollout_sec=self._rollout_sec,
            update_sec=time.perf_counter() - self._began_sec - self._rollout_sec,
        )
        self._logs.clear()
        if not self.baseline.finish_window(training, self.callback):
            control.should_training_stop = True
        self._began_sec, self._rollout_sec = time.perf_counter(), 0.0

    def _mean(self, column: str) -> float | None:
        name = column.removeprefix("student/")
        values = [logs[name] for logs in self._logs if name in logs]
        return float(np.mean(values)) if values else None


@contextmanager
def _kept_apart() -> Iterator[None]:
    """Keeps TRL to itself: global generators are put back, its authors are told nothing, old names warn nobody."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 (it is TRL that uses it)
    devices = list(range(torch.cuda.device_count()))
    telemetry = hub_constants.HF_HUB_DISABLE_TELEMETRY
    hub_constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL would report each trainer that is made over the network
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            # TRL 1.16 and peft 0.21 ask transformers 5.24 by older names, which no user can change.
            warnings.filterwarnings("ignore", ".*is deprecated and will be removed in v6", FutureWarning)
            yield
    finally:
        hub_constants.HF_HUB_DISABLE_TELEMETRY = telemetry
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
