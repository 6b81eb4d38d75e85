"""Our controllers inside TRL's ``SDFTTrainer``: the trainer stays the user's, its teacher prompts are built at a controller's ratio.

TRL 1.16 (experimental ``sdft``) has no hook for what the teacher is shown, nor one that hands out the loss: ``ExposureCallback.attach``
puts an object of ours in the place of ``trainer.teacher_context_builder``, and looks on at ``trainer._compute_self_distillation_loss``.
Everything else goes through callbacks. A row's problem reaches the builder by its number, in TRL's column ``privileged_context``.
TRL's own checkpoints are enough to go on from: what the controller knew is made again from the rows of the run.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from gymnasium.spaces import Box
from torch import Tensor
from transformers import TrainerCallback

import agents
from agents.specs.registry import Spec, label
from atesd_env.config import EnvConfig
from atesd_env.distillation.statistics import UpdateStatistics, measured_update
from atesd_env.envs.columns import group_columns
from atesd_env.envs.own_loop import LoopStatistics
from atesd_env.errors import ConfigError
from atesd_env.exposure import PromptBuilder, TeacherPrompt
from atesd_env.files.run_folder import TRAJECTORY_FILE, RunWriter, read_rows
from atesd_env.population.decision import Decision
from atesd_env.population.problems import next_problems
from atesd_env.population.totals import RolloutRow, WindowTotals, finished_row
from atesd_env.rollouts.health import ends_in_a_loop, repetition
from atesd_env.rollouts.sampling import left_pad, right_pad
from atesd_env.tasks.base import Problem
from atesd_env.tasks.controls import others_around
from atesd_env.tasks.groups import DifficultyGroups
from atesd_env.tasks.registry import make_task

ENV_ID = "TRL-SDFT"
"""What runs inside TRL's trainer are called where others have an environment's id."""


class ExposureCallback(TrainerCallback):
    """Lets a controller choose the reveal ratio of each hold window of TRL's ``SDFTTrainer``, and writes the run's files.

    Args:
        controller: A spec, as of ``agents.make``; one that decides from statistics.
        config: Data, exposure, prompts, hold window, windows, probe and reward. What the trainer decides is taken from it.
        tokenizer: The student's.
        out: Folder of the run.
        seed: Seed of the problems' order and of the controller.
        overwrite: Replace a run that is in the folder.

    Attributes:
        controller: The controller, once training has begun.
        statistics: What it was told last.

    Raises:
        ConfigError: If the spec or a field cannot be used.
        DataError: If the data cannot be used.
    """

    controller: Any
    statistics: LoopStatistics

    def __init__(
        self,
        controller: Spec,
        config: EnvConfig,
        tokenizer: Any,
        out: str | Path,
        *,
        seed: int = 0,
        overwrite: bool = False,
    ) -> None:
        if config.action_size != config.groups or config.action_ratios != "group":
            raise ConfigError(
                "action_ratios, action_views, action_retire: expected none inside TRL, where a controller chooses groups' ratios alone, "
                "got one; leave it out."
            )
        self.config, self.tokenizer, self.out = config, tokenizer, Path(out)
        self.seed, self.overwrite, self._spec = seed, overwrite, controller
        self.task = make_task(config)
        self.builder = PromptBuilder.of(config, self.task, tokenizer)
        self.task.restrict(self.builder.is_usable)
        self.groups = DifficultyGroups.from_task(self.task, config.groups)
        self.probe = self.task.probe_problems(config.probe_size)
        self._probe_others = others_around(self.task, config.exposure, self.probe)
        num_problems = config.windows * config.hold_window * config.num_rollouts
        self._problems, self._others = next_problems(self.task, seed, 0, num_problems, config.exposure)
        self._updates: list[UpdateStatistics] = []
        self._rollouts: list[RolloutRow] = []

    def dataset(self) -> Dataset:
        """Returns the run's problems as TRL's rows, in order, ``num_rollouts`` an update."""
        requests = [self.task.student_request(problem) for problem in self._problems]
        rows = [
            {"prompt": [{"role": "user", "content": request}], "privileged_context": str(number)}
            for number, request in enumerate(requests)
        ]
        return Dataset.from_list(rows)

    def attach(self, trainer: Any) -> None:
        """Connects the callback and a trainer that was made with ``dataset``.

        Raises:
            ConfigError: If the trainer does what would not be the run that the configuration says.
        """
        arguments = trainer.args
        _check_trainer(arguments, self.config)
        self._trainer = trainer
        self.config = self.config.replace(
            learning_rate=arguments.learning_rate,
            max_new_tokens=arguments.max_completion_length,
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            top_k=arguments.top_k,
        )
        trainer.chat_template_kwargs = {**trainer.chat_template_kwargs, "enable_thinking": self.config.student_thinking}
        trainer.teacher_context_builder = _ExposedTeacher(self)
        self._loss_of = trainer._compute_self_distillation_loss
        trainer._compute_self_distillation_loss = self._watched_loss
        trainer.add_callback(self)

    # What the trainer calls

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measures the probe before the first window; a run that goes on is read from its rows, and told to the controller again."""
        window, rest = divmod(state.global_step, self.config.hold_window)
        if rest:
            raise ConfigError(
                f"resume_from_checkpoint: expected a checkpoint at a hold window's end (every {self.config.hold_window} updates), got "
                f"one after update {state.global_step}; take an earlier one."
            )
        self.controller = agents.make(
            self._spec, space=Box(0.0, 1.0, (self.config.groups,), dtype=np.float32), config=self.config, seed=self.seed
        )
        rows: list[Any] = [[]]
        if self._is_main:
            description = {"env_id": ENV_ID, "agent": label(self._spec), "seed": self.seed, "config": self.config}
            self._writer = RunWriter(
                self.out, description, overwrite=self.overwrite, keep_windows=window if window else None
            )
            rows = [read_rows(self.out / TRAJECTORY_FILE)]
        (done,) = broadcast_object_list(rows)
        nll = done[0]["probe/nll_before"] if done else -self._log_prob(self._student_prompts(), is_teacher=False)
        self._nll_before: float | None = None if done else nll
        self.statistics = LoopStatistics.begin(nll, self.config)
        for row in done:
            self._follow(row)

    def _follow(self, row: dict[str, Any]) -> None:
        """Lets the controller decide on a window that is done, and tells it what came of it.

        Raises:
            ConfigError: If it decides otherwise than it did.
        """
        names = [column.name for column in group_columns(self.config.groups)] or ["exposure/reveal_ratio"]
        decided, was = self.controller.decide(self.statistics), [row[name] for name in names]
        if not np.allclose(decided, was):
            raise ConfigError(
                f"agent {label(self._spec)!r}: expected the ratios of the run that it goes on with, {was} in window {row['window']}, got "
                f"{decided.tolist()}; only a controller that its seed determines can go on: begin anew (overwrite=True)."
            )
        self.statistics = self.statistics.after(row)
        self.controller.observe(self.statistics)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Asks for a ratio before a window's first update."""
        if state.global_step % self.config.hold_window == 0 and not self.statistics.is_last:
            self._decide()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Ends a window behind its last update, which TRL logs before it samples the next."""
        if "grad_norm" not in (logs or {}):
            return
        self._updates = [
            update if update.grad_norm == update.grad_norm else _with_norm(update, float(logs["grad_norm"]))
            for update in self._updates
        ]
        if state.global_step % self.config.hold_window == 0 and not self.statistics.is_last:
            self._end_window(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Closes the run's files."""
        if self._is_main:
            self._writer.sync()
            self._writer.close()

    # A window

    @property
    def _is_main(self) -> bool:
        return bool(self._trainer.accelerator.is_main_process)

    def _decide(self) -> None:
        """Asks the controller, in the main process, and tells the others."""
        self._began_sec = time.perf_counter()
        told = [self.controller.decide(self.statistics) if self._is_main else None]
        self.decision = Decision(broadcast_object_list(told)[0])

    def _end_window(self, step: int) -> None:
        totals = WindowTotals(self.decision)
        rollouts = gather_object(self._rollouts)
        for number, update in enumerate(gather_object(self._updates)):
            totals.add(update, rollouts if number == 0 else ())
        self._updates, self._rollouts = [], []
        ratios = self.groups.ratios(self.probe, self.decision.reveal_ratios)
        shown = map(self._teacher_prompt, self.probe, ratios, self._probe_others)
        exposed = [(*prompt.token_ids, *self.builder.teacher_think_ids) for prompt in shown]
        measured = {
            **totals.means(self.config),
            "update": step,
            "probe/nll": -self._log_prob(self._student_prompts(), is_teacher=False),
            "probe/grounded": self._log_prob(exposed, is_teacher=True),
            "probe/accuracy": None,
            "probe/pass_at_k": None,
        }
        self.statistics = self.statistics.after(measured)
        if not self._is_main:
            return
        self.controller.observe(self.statistics)
        assert self.statistics.row is not None
        first = {} if self._nll_before is None else {"probe/nll_before": self._nll_before}
        self._nll_before = None
        self._writer.write_row(
            {
                **finished_row(self.config, measured | self.statistics.row),
                **first,
                "update/num_tokens": totals.num_trained_tokens(None),
                "time/window_sec": time.perf_counter() - self._began_sec,
                **{f"agent/{name}": value for name, value in self.controller.diagnostics().items()},
                "status": "truncated" if self.statistics.is_last else "running",
                "reason": None,
            }
        )

    def _watched_loss(self, model: Any, inputs: Any, logits: Any) -> Tensor:
        """Returns TRL's loss, and keeps what it was made of."""
        loss: Tensor = self._loss_of(model, inputs, logits)
        if model.training:
            temperature = self._trainer.temperature
            self._updates.append(
                measured_update(
                    logits.student_logits * temperature,
                    logits.teacher_logits * temperature,
                    logits.completion_ids,
                    logits.loss_mask.bool(),
                    loss=float(loss.detach()),
                    grad_norm=float("nan"),
                )
            )
        return loss

    def exposed(self, numbers: Sequence[int]) -> tuple[list[Problem], list[TeacherPrompt]]:
        """Returns problems by their numbers, and what the teacher is given for them in this window."""
        problems = [self._problems[number] for number in numbers]
        ratios = self.groups.ratios(problems, self.decision.reveal_ratios)
        return problems, [*map(self._teacher_prompt, problems, ratios, (self._others[number] for number in numbers))]

    def _teacher_prompt(self, problem: Problem, ratio: float, other: Problem) -> TeacherPrompt:
        view, kind = self.config.view, self.config.exposure
        return self.builder.teacher_prompt(problem.seen_as(view), ratio, kind, other.seen_as(view))

    def count(self, problems: Sequence[Problem], prompts: Sequence[TeacherPrompt], ids: Tensor, mask: Tensor) -> None:
        """Keeps what a row sums up of rollouts [B, T]."""
        answers = [row[: int(length)].tolist() for row, length in zip(ids, mask.sum(dim=1), strict=True)]
        texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        for problem, prompt, answer, text in zip(problems, prompts, answers, texts, strict=True):
            group = self.groups.group(problem)
            self._rollouts.append(
                RolloutRow(
                    float(self.decision.reveal_ratios[group]),
                    prompt.shown_ratio,
                    prompt.is_cut,
                    self.task.is_correct(text, problem),
                    len(answer),
                    answer[-1] not in self._trainer.eos_token_ids,
                    group,
                    ends_in_a_loop(answer),
                    repetition(answer),
                )
            )

    def _student_prompts(self) -> list[tuple[int, ...]]:
        think = self.builder.student_think_ids
        return [(*self.builder.student_prompt(problem), *think) for problem in self.probe]

    def _log_prob(self, prompts: Sequence[Sequence[int]], *, is_teacher: bool) -> float:
        """Returns the mean over the probe of the mean log-probability of a reference's tokens behind its prompt."""
        trainer, pad = self._trainer, self.tokenizer.pad_token_id
        model = trainer.accelerator.unwrap_model(trainer.teacher_model if is_teacher else trainer.model)
        references = [self.builder.reference_ids(problem, self.config.probe_max_tokens) for problem in self.probe]
        was_training, size, means = model.training, self.config.probe_batch_size, []
        model.eval()
        for start in range(0, len(prompts), size):
            device = trainer.accelerator.device
            before, before_mask = left_pad(prompts[start : start + size], pad, device)
            answer, mask = right_pad(references[start : start + size], pad, device)
            attended = torch.cat([before_mask, mask], dim=1).long()
            context = trainer._get_teacher_context_for_self_distillation
            with torch.no_grad(), context() if is_teacher else torch.no_grad():
                logits = model(
                    input_ids=torch.cat([before, answer], dim=1),
                    attention_mask=attended,
                    position_ids=(attended.cumsum(dim=1) - 1).clamp_min(0),
                ).logits[:, before.shape[1] - 1 : -1]
            said = logits.float().log_softmax(dim=-1).gather(2, answer[..., None])[..., 0]
            means += ((said * mask).sum(dim=1) / mask.sum(dim=1)).tolist()
        model.train(was_training)
        return float(np.mean(means))


class _ExposedTeacher:
    """Stands where TRL builds its teacher's prompts."""

    def __init__(self, exposure: ExposureCallback) -> None:
        self._exposure = exposure

    def build(
        self,
        prompts: Sequence[Any],
        privileged_contexts: Sequence[Any],
        completion_ids: Tensor,
        completion_mask: Tensor,
    ) -> dict[str, Tensor]:
        """Returns what TRL's own builder does, at the window's ratio."""
        problems, shown = self._exposure.exposed([int(number) for number in privileged_contexts])
        self._exposure.count(problems, shown, completion_ids, completion_mask)
        pad = self._exposure.tokenizer.pad_token_id
        ids, mask = left_pad([prompt.token_ids for prompt in shown], pad, completion_ids.device)
        return {
            "teacher_input_ids": torch.cat([ids, completion_ids], dim=1),
            "teacher_attention_mask": torch.cat([mask.to(completion_mask.dtype), completion_mask], dim=1),
        }


def _check_trainer(arguments: Any, config: EnvConfig) -> None:
    """Raises ConfigError where what a trainer does would not be the run that the configuration says."""
    hold, rollouts = config.hold_window, config.num_rollouts
    accumulated = arguments.gradient_accumulation_steps
    for is_right, name, expected in (
        (arguments.logging_strategy == "steps" and arguments.logging_steps == 1, "logging_steps", "1"),
        (not arguments.generate_from_teacher, "generate_from_teacher", "False"),
        (arguments.teacher_model_kind in ("base", "live", "ema"), "teacher_model_kind", "base, live or ema"),
        (not arguments.use_teacher_server, "use_teacher_server", "False"),
        (
            arguments.save_strategy != "steps" or arguments.save_steps % hold == 0,
            "save_steps",
            f"a multiple of hold_window ({hold})",
        ),
        (
            hold * accumulated % (arguments.steps_per_generation * arguments.num_iterations) == 0,
            "steps_per_generation",
            f"whole generations in a hold window ({hold} updates)",
        ),
        (
            arguments.per_device_train_batch_size * accumulated * arguments.world_size == rollouts,
            "per_device_train_batch_size",
            f"num_rollouts ({rollouts}) in all processes' batches of an update",
        ),
    ):
        if not is_right:
            raise ConfigError(
                f"{name}: expected {expected} in SDFTConfig, got {getattr(arguments, name)!r}; set it so."
            )


def _with_norm(update: UpdateStatistics, grad_norm: float) -> UpdateStatistics:
    """Returns an update's statistics with the gradient norm that was not known when its loss was."""
    return dataclasses.replace(update, grad_norm=grad_norm)
