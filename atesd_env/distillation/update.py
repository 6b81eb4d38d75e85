"""One update of one student: score the rollouts with student and teacher, descend their divergence.

Loss (ATESD, "student's update"): for each rollout the mean over its tokens of the divergence between teacher and student over
the full vocabulary, then the mean over rollouts. Gradients flow into the student's adapter only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atesd_env.config import EnvConfig
from atesd_env.distillation.chunked import token_divergence
from atesd_env.distillation.divergence import DivergenceSpec, rollout_weights
from atesd_env.distillation.importance import Agreement, agreement, importance_weights
from atesd_env.distillation.statistics import UpdateStatistics
from atesd_env.errors import NonFiniteError
from atesd_env.rollouts.passes import PASS_BYTES
from atesd_env.rollouts.sampling import Rollouts, left_pad
from atesd_env.rollouts.scoring import scored_hidden
from atesd_env.rollouts.sharing import answers_hidden, in_parts
from atesd_env.student.adapters import AdapterStack, Bank
from atesd_env.student.model import Student

_MEANS = 6
"""Means over tokens among the statistics of an update."""


class Learner:
    """Holds the optimizer of each student of an ``AdapterStack``, and makes updates.

    Args:
        student: The frozen base.
        adapters: The students' adapters.
        configs: How to update each of the students.
    """

    def __init__(self, student: Student, adapters: AdapterStack, configs: Sequence[EnvConfig]) -> None:
        self.student = student
        self.adapters = adapters
        self.configs = list(configs)
        self.optimizers = [self._new_optimizer(index) for index in range(adapters.num_students)]

    @property
    def teacher_bank(self) -> Bank | None:
        """The bank of adapters that the teacher uses; None is the bare base model."""
        return None if self.adapters.teacher_flat is None else "teacher"

    def _new_optimizer(self, index: int) -> torch.optim.AdamW:
        parameter = torch.nn.Parameter(self.adapters.flat[index])
        parameter.grad = self.adapters.flat_grad[index]
        config = self.configs[index]
        return torch.optim.AdamW([parameter], lr=config.learning_rate, weight_decay=config.weight_decay)

    def reset(self, index: int) -> None:
        """Forgets a student's optimizer state."""
        self.optimizers[index] = self._new_optimizer(index)

    def update(
        self,
        index: int,
        rollouts: Rollouts,
        teacher_prompts: Sequence[Sequence[int]],
        num_rollouts: int | None = None,
        groups: Sequence[int] | None = None,
        teacher_hidden: list[Tensor] | None = None,
    ) -> UpdateStatistics:
        """Makes one optimizer step of student ``index``.

        Args:
            index: Which student.
            rollouts: Its B rollouts behind the problem-only prompts; with several processes this one's share of them.
            teacher_prompts: B teacher prompts of token ids, row by row.
            num_rollouts: Rollouts of the whole batch; None where these are all of them.
            groups: The rollouts' difficulty groups, B of them, for statistics by group; None makes none.
            teacher_hidden: What ``teachers_hidden`` gave for this update; None makes it here.

        Returns:
            The update's statistics, measured before the step.

        Raises:
            NonFiniteError: If loss or gradient is not finite; the adapter is left as it was.
        """
        config = self.configs[index]
        gradient = self.adapters.flat_grad[index].zero_()
        membership = self._membership(index, groups, len(teacher_prompts))
        rollouts = rollouts.beginning(config.loss_horizon)
        totals, agreed = self._accumulate_together(
            index, rollouts, teacher_prompts, num_rollouts, membership, teacher_hidden
        )
        grad_norm = float(torch.linalg.vector_norm(gradient))
        if not torch.isfinite(torch.tensor([grad_norm, float(totals[0])])).all():
            raise NonFiniteError(
                f"student {index}: expected a finite loss and gradient, got loss {float(totals[0])} and gradient norm {grad_norm}; "
                f"lower learning_rate or max_grad_norm."
            )
        if grad_norm > config.max_grad_norm:
            gradient.mul_(config.max_grad_norm / grad_norm)
        self.optimizers[index].step()
        if config.teacher == "ema" and self.adapters.teacher_flat is not None:
            self.adapters.teacher_flat[index].lerp_(self.adapters.flat[index], 1.0 - config.ema_decay)
        loss, mismatch, student_entropy, teacher_entropy, top1_disagreement, log_confidence = totals[:_MEANS].tolist()
        by_group = None if groups is None else totals[_MEANS:].reshape(3, -1).numpy()
        return UpdateStatistics(
            loss,
            mismatch,
            student_entropy,
            teacher_entropy,
            top1_disagreement,
            log_confidence,
            grad_norm,
            agreed,
            by_group,
        )

    def _membership(self, index: int, groups: Sequence[int] | None, num_rows: int) -> Tensor:
        """Returns 1 where a rollout is in a difficulty group, [B, groups] float64; [B, 0] where nobody asks."""
        if groups is None:
            return torch.zeros(num_rows, 0, dtype=torch.float64, device=self.student.device)
        chosen = torch.tensor(groups, dtype=torch.int64, device=self.student.device)
        return torch.nn.functional.one_hot(chosen, self.configs[index].groups).double()

    def _accumulate_together(
        self,
        index: int,
        rollouts: Rollouts,
        teacher_prompts: Sequence[Sequence[int]],
        num_rollouts: int | None,
        membership: Tensor,
        teacher_hidden: list[Tensor] | None,
    ) -> tuple[Tensor, Agreement | None]:
        """Adds up the gradients of all processes' shares of the batch; returns what ``_accumulate`` does, over the whole batch."""
        ranks = self.student.ranks
        if ranks.size == 1:
            return self._accumulate(index, rollouts, teacher_prompts, num_rollouts, membership, teacher_hidden)
        failure = ""
        totals = _zeros(membership)
        try:
            totals, _ = self._accumulate(index, rollouts, teacher_prompts, num_rollouts, membership)
        except NonFiniteError as error:
            failure = str(error)
        # What is wrong with one process's rows is an end for all of them: nobody may wait for a gradient that never comes.
        flagged = torch.cat([totals, totals.new_tensor([float(bool(failure))])])
        ranks.sum_(flagged)
        if flagged[-1] > 0:
            raise NonFiniteError(next(text for text in ranks.gathered([failure]) if text))
        ranks.sum_(self.adapters.flat_grad[index])
        return flagged[:-1], None

    def _accumulate(
        self,
        index: int,
        rollouts: Rollouts,
        teacher_prompts: Sequence[Sequence[int]],
        num_rollouts: int | None,
        membership: Tensor,
        teacher_hidden: list[Tensor] | None = None,
    ) -> tuple[Tensor, Agreement | None]:
        """Adds these rows' gradient in micro-batches.

        Returns:
            The weighted means [6] in ``UpdateStatistics``' order with ``by_group`` [3 groups] behind them, and another engine's
            agreement.
        """
        weights = rollout_weights(rollouts.completion_mask)
        num_rows = len(teacher_prompts)
        if num_rollouts is not None and num_rollouts != num_rows:
            weights = weights * (num_rows / num_rollouts)
        size = self.configs[index].micro_batch_size or num_rows
        totals = _zeros(membership)
        agreed = None if rollouts.token_log_probs is None else Agreement()
        for start in range(0, num_rows, size):
            selection = slice(start, min(start + size, num_rows))
            part = rollouts.rows(selection)
            if part.completion_ids.shape[1] == 0:
                continue
            token_weights = weights[selection, : part.completion_ids.shape[1]][part.completion_mask]
            of_tokens = membership[selection][part.completion_mask.nonzero()[:, 0]]
            if teacher_hidden is None:
                its_hidden = self._teacher_hidden(index, part, teacher_prompts[selection])
            else:
                its_hidden = torch.cat(teacher_hidden[selection])
            means, part_agreed = self._backward(index, part, its_hidden, token_weights, of_tokens)
            totals += means
            agreed = agreed + part_agreed if agreed is not None and part_agreed is not None else agreed
        return totals, agreed

    @contextmanager
    def _recomputing_activations(self, is_asked_for: bool) -> Iterator[None]:
        """Turns transformers' gradient checkpointing on, where it is asked for: it is active in training mode only."""
        if not is_asked_for or self.student.fused is not None:
            yield
            return
        self.student.model.train()
        try:
            yield
        finally:
            self.student.model.eval()

    def _backward(
        self,
        index: int,
        rollouts: Rollouts,
        teacher_hidden: Tensor,
        token_weights: Tensor,
        membership: Tensor,
    ) -> tuple[Tensor, Agreement | None]:
        """Adds the gradient of some rows with N scored tokens, weighted [N] and in groups [N, groups]; returns what they add."""
        config = self.configs[index]
        with self.adapters.use("student", [index]), self._recomputing_activations(config.gradient_checkpointing):
            student_hidden = scored_hidden(
                self.student,
                rollouts.prompt_ids,
                rollouts.prompt_mask,
                rollouts,
                recompute_activations=config.gradient_checkpointing,
            )
            tokens = token_divergence(
                student_hidden,
                teacher_hidden,
                self.student.head_weight,
                rollouts.completion_ids[rollouts.completion_mask],
                DivergenceSpec.of(config, self.student.eos_token_ids),
                head_bias=self.student.head_bias,
                rows_owner=f"student {index}",
            )
            token_loss, agreed = tokens.loss, None
            if rollouts.token_log_probs is not None:
                engine_log_probs = rollouts.token_log_probs[rollouts.completion_mask]
                compared = tokens.student_log_prob, engine_log_probs, config.importance_cap
                agreed = agreement(*compared)
                token_loss = importance_weights(*compared) * token_loss
            loss = (token_weights * token_loss).sum()
            loss.backward()
        per_token = torch.stack(
            [
                token_loss.detach(),
                tokens.mismatch,
                tokens.student_entropy,
                tokens.teacher_entropy,
                tokens.top1_disagreement,
                tokens.student_log_prob,
            ]
        )
        weights = token_weights.double()
        of_groups = torch.stack([torch.ones_like(tokens.mismatch), tokens.student_entropy, tokens.mismatch]).double()
        by_group = of_groups @ (weights[:, None] * membership)
        return torch.cat([per_token.double() @ weights, by_group.flatten()]).cpu(), agreed

    def _teacher_hidden(self, index: int, rollouts: Rollouts, teacher_prompts: Sequence[Sequence[int]]) -> Tensor:
        """Returns the teacher's final hidden states that predict the rollouts' tokens, [N, D]."""
        prompt_ids, prompt_mask = left_pad(teacher_prompts, self.student.pad_token_id, self.student.device)
        with torch.no_grad(), self.adapters.use(self.teacher_bank, [index]):
            return scored_hidden(self.student, prompt_ids, prompt_mask, rollouts)

    def _hidden_together(
        self, index: int, prompts: Sequence[Sequence[Sequence[int]]], answers: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[Tensor]]:
        """Returns the same, row by row, for several lots of rows to the same problems, of one pass; the model must be written out.

        Args:
            index: Which student.
            prompts: For each lot B teacher prompts.
            answers: For each lot B answers.
        """
        # Rows of one problem, which begin alike, stand together.
        by_problem = ([row for rows in zip(*lots, strict=True) for row in rows] for lots in (prompts, answers))
        with self.adapters.use(self.teacher_bank, [index]):
            hidden = answers_hidden(self.student, *by_problem)
        return [hidden[lot :: len(prompts)] for lot in range(len(prompts))]

    def teachers_hidden(
        self, students: Sequence[int], batches: Sequence[tuple[Rollouts, Sequence[Sequence[int]]]]
    ) -> Iterator[list[Tensor] | None]:
        """Yields the teacher's hidden states for the next update of students that meet the same problems, row by row, or None.

        As many as ``PASS_BYTES`` has room for come of one pass. None, which leaves it to the update, is yielded for a student by itself,
        where teachers differ, in modules, and where processes share the rows.

        Args:
            students: Which, S of them, whose horizons are the same.
            batches: For each of them its B rollouts, and B teacher prompts of token ids.
        """
        is_shared = self.teacher_bank is None and self.student.fused is not None and self.student.ranks.size == 1
        if len(students) == 1 or not is_shared:
            yield from [None] * len(students)
            return
        cut = [rollouts.beginning(self.configs[students[0]].loss_horizon) for rollouts, _ in batches]
        head = self.student.head_weight
        most_tokens = PASS_BYTES // (head.shape[1] * head.element_size())
        for part in in_parts([int(one.lengths.sum()) for one in cut], most_tokens):
            if len(students[part]) > 1:
                prompts = [shown for _, shown in batches[part]]
                yield from self._hidden_together(students[0], prompts, [one.answers for one in cut[part]])
            else:
                yield None

    def mismatches(
        self, index: int, rollouts: Rollouts, exposures: Sequence[Sequence[Sequence[int]]]
    ) -> NDArray[np.float64]:
        """Returns the mismatch of each rollout under several exposures, [len(exposures), B], nats a token; nothing is learned.

        Args:
            index: Which student.
            rollouts: Its B rollouts behind the problem-only prompts.
            exposures: For each of them B teacher prompts of token ids, row by row.
        """
        rollouts = rollouts.beginning(self.configs[index].loss_horizon)
        num_rows = len(rollouts.prompt_ids)
        size = self.configs[index].micro_batch_size or num_rows
        parts = [slice(start, start + size) for start in range(0, num_rows, size)]
        measured = [self._mismatches(index, rollouts.rows(rows), [one[rows] for one in exposures]) for rows in parts]
        return np.concatenate(measured, axis=1)

    def _mismatches(
        self, index: int, rollouts: Rollouts, exposures: Sequence[Sequence[Sequence[int]]]
    ) -> NDArray[np.float64]:
        mask = rollouts.completion_mask
        with torch.no_grad(), self.adapters.use("student", [index]):
            student_hidden = scored_hidden(self.student, rollouts.prompt_ids, rollouts.prompt_mask, rollouts)
        teachers: Iterator[Tensor]
        if self.student.fused is None:
            teachers = (self._teacher_hidden(index, rollouts, prompts) for prompts in exposures)
        else:
            teachers = map(torch.cat, self._hidden_together(index, exposures, [rollouts.answers] * len(exposures)))
        means = []
        for teacher_hidden in teachers:
            tokens = token_divergence(
                student_hidden,
                teacher_hidden,
                self.student.head_weight,
                rollouts.completion_ids[mask],
                DivergenceSpec.of(self.configs[index], self.student.eos_token_ids),
                head_bias=self.student.head_bias,
                rows_owner=f"student {index}",
            )
            per_token = torch.zeros_like(mask, dtype=torch.float64)
            per_token[mask] = tokens.mismatch.double()
            means.append((per_token.sum(dim=1) / rollouts.lengths.clamp_min(1)).cpu().numpy())
        return np.stack(means)


def _zeros(membership: Tensor) -> Tensor:
    """Returns room for the means of an update and its sums by group."""
    return torch.zeros(_MEANS + 3 * membership.shape[1], dtype=torch.float64)
