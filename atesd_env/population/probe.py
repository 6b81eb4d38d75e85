"""The probe: fixed held-out problems on which a student's progress is measured, the same in every run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from atesd_env.config import EnvConfig
from atesd_env.envs.columns import Row
from atesd_env.evaluation.estimators import pass_at_k
from atesd_env.exposure import PromptBuilder, TeacherPrompt
from atesd_env.rollouts.sampling import SamplingSpec, decode_texts, generate
from atesd_env.rollouts.scoring import forced_rollouts, scored_hidden, token_log_probs
from atesd_env.rollouts.sharing import answers_hidden
from atesd_env.student.adapters import AdapterStack, Bank
from atesd_env.student.generators import torch_stream
from atesd_env.student.model import Student
from atesd_env.tasks.base import Problem
from atesd_env.tasks.controls import ExposureKind, others_around

Shown = tuple[ExposureKind, str | None]
"""What the teacher is shown a part of: the kind of exposure, and the version of the solution."""


class Probe:
    """Measures students on fixed problems.

    Args:
        student: The frozen base.
        adapters: The students' adapters.
        builder: Makes prompts.
        problems: The probe's problems.
        max_tokens: Tokens of a reference solution that are scored.
        batch_size: Problems in one forward pass.
    """

    def __init__(
        self,
        student: Student,
        adapters: AdapterStack,
        builder: PromptBuilder,
        problems: Sequence[Problem],
        max_tokens: int,
        batch_size: int,
    ) -> None:
        self.student = student
        self.adapters = adapters
        self.builder = builder
        self.problems = list(problems)
        self.max_tokens = max_tokens
        self.batch_size = batch_size
        self._student_prompts = [builder.student_prompt(problem) for problem in problems]
        self._references = [builder.reference_ids(problem, max_tokens) for problem in problems]
        self._other_problems: dict[ExposureKind, list[Problem]] = {}
        self._grounded_cache: dict[tuple[Shown, tuple[int, ...]], list[Tensor]] = {}

    def of_others(self, problems: Sequence[Problem]) -> Probe:
        """Returns the same measurements on other problems."""
        return Probe(self.student, self.adapters, self.builder, problems, self.max_tokens, self.batch_size)

    def know(self, other: Probe) -> None:
        """Shares what is remembered of a fixed teacher with another probe, of the same problems and the same base."""
        self._grounded_cache = other._grounded_cache

    def success_rates(self, index: int, window: int, seed: int, config: EnvConfig) -> Row:
        """Returns how many problems student ``index`` solves, as far as it is due after a window.

        Args:
            index: Which student.
            window: Number of the window that has just ended, from 1.
            seed: Seed of the student's run.
            config: Its ``probe_accuracy_every`` and ``probe_pass_k`` say what is due, its sampling fields how it is sampled.

        Returns:
            ``probe/accuracy`` and ``probe/pass_at_k``, None where they are not due.
        """
        row: Row = {"probe/accuracy": None, "probe/pass_at_k": None}
        every = config.probe_accuracy_every
        if every > 0 and (window % every == 0 or window == config.windows):
            row["probe/accuracy"] = self.accuracy(index, config.max_new_tokens)
        if config.probe_pass_k > 0:
            generator = torch_stream(seed, "probe", window)
            row["probe/pass_at_k"] = self.pass_at_k(index, config.probe_pass_k, SamplingSpec.of(config), generator)
        return row

    def nll(self, index: int) -> float:
        """Returns student ``index``'s negative log-likelihood of the reference solutions, in nats a token.

        The mean over problems of the mean over the solution's tokens, end token included. With ``student_thinking`` a solution stands
        where the student would write it, behind an empty think block.
        """
        prompts = [(*prompt, *self.builder.student_think_ids) for prompt in self._student_prompts]
        return -self._mean(self._log_probs("student", index, prompts))

    def grounded(
        self,
        index: int,
        reveal_ratios: Sequence[float],
        kind: ExposureKind,
        teacher_bank: Bank | None,
        *,
        is_fixed: bool,
        view: str | None = None,
    ) -> float:
        """Returns the teacher-grounded score: the exposed teacher's mean log-probability of the reference solutions.

        Args:
            index: Which student's teacher.
            reveal_ratios: One ratio for each probe problem.
            kind: What the teacher is shown.
            teacher_bank: Its adapters, or None for the bare base model.
            is_fixed: The teacher never changes, so a score that was computed before may be used again.
            view: Which version of the solutions it is shown.
        """
        exposed = self.exposed(reveal_ratios, kind, view)
        return self._mean(self._grounded(index, exposed, (kind, view), teacher_bank, is_fixed=is_fixed))

    def grounded_by_problem(
        self,
        index: int,
        exposed: Sequence[TeacherPrompt],
        kind: ExposureKind,
        bank: Bank | None,
        *,
        is_fixed: bool,
        view: str | None = None,
    ) -> list[float]:
        """Returns the same of each problem, of what ``exposed`` returned."""
        scores = self._grounded(index, exposed, (kind, view), bank, is_fixed=is_fixed)
        return [score for batch in scores for score in self.student.ranks.gathered(batch.tolist())]

    def grounded_together(
        self, index: int, exposed: Sequence[Sequence[TeacherPrompt]], bank: Bank | None
    ) -> list[list[float]]:
        """Returns the same under several exposures, [N, problems], in a pass that shares what prompts have in common; by one process."""
        prompts = [
            (*one.token_ids, *self.builder.teacher_think_ids) for shown in zip(*exposed, strict=True) for one in shown
        ]
        answers = [reference for reference in self._references for _ in exposed]
        with torch.inference_mode(), self.adapters.use(bank, [index]):
            hidden = torch.cat(answers_hidden(self.student, prompts, answers))
            tokens = torch.tensor([token for answer in answers for token in answer], device=self.student.device)
            log_probs = token_log_probs(self.student, hidden, tokens).double().split(list(map(len, answers)))
        means = [float(part.mean()) for part in log_probs]
        return [means[number :: len(exposed)] for number in range(len(exposed))]

    def exposed(
        self, reveal_ratios: Sequence[float], kind: ExposureKind, view: str | None = None
    ) -> list[TeacherPrompt]:
        """Returns the teacher's prompt for each problem, given its ratio."""
        return [
            self.builder.teacher_prompt(problem.seen_as(view), ratio, kind, other.seen_as(view))
            for problem, ratio, other in zip(self.problems, reveal_ratios, self._others(kind), strict=True)
        ]

    def _others(self, kind: ExposureKind) -> list[Problem]:
        if kind not in self._other_problems:
            self._other_problems[kind] = others_around(self.builder.task, kind, self.problems)
        return self._other_problems[kind]

    def num_scored_tokens(self, exposed: Sequence[TeacherPrompt]) -> int:
        """Returns the tokens of a forward pass over the reference solutions behind these prompts."""
        think = len(self.builder.teacher_think_ids)
        return sum(len(prompt.token_ids) + think for prompt in exposed) + sum(map(len, self._references))

    def _grounded(
        self, index: int, exposed: Sequence[TeacherPrompt], shown: Shown, bank: Bank | None, *, is_fixed: bool
    ) -> list[Tensor]:
        prompts = [(*prompt.token_ids, *self.builder.teacher_think_ids) for prompt in exposed]
        if not is_fixed:
            return self._log_probs(bank, index, prompts)
        # Keyed by all prompts together: the score of one prompt depends, in its last bits, on the others in its batch.
        # What is shown of each problem determines the prompts, and unlike their tokens it is small enough to keep.
        key = shown, tuple(prompt.num_shown for prompt in exposed)
        if key not in self._grounded_cache:
            self._grounded_cache[key] = self._log_probs(bank, index, prompts)
        return self._grounded_cache[key]

    def accuracy(self, index: int, max_new_tokens: int) -> float:
        """Returns student ``index``'s greedy accuracy, 0..1."""
        spec = SamplingSpec(max_new_tokens=max_new_tokens, temperature=0.0)
        return float(sum(self._correct(index, self._student_prompts, self.problems, spec))) / len(self.problems)

    def pass_at_k(self, index: int, num_samples: int, spec: SamplingSpec, generator: torch.Generator) -> float:
        """Returns pass@k with k = ``num_samples``: the share of problems that at least one of k samples solves."""
        prompts = [prompt for prompt in self._student_prompts for _ in range(num_samples)]
        problems = [problem for problem in self.problems for _ in range(num_samples)]
        correct = torch.tensor(self._correct(index, prompts, problems, spec, generator)).view(
            len(self.problems), num_samples
        )
        return sum(pass_at_k(num_samples, int(row.sum()), num_samples) for row in correct) / len(self.problems)

    def _correct(
        self,
        index: int,
        prompts: Sequence[Sequence[int]],
        problems: Sequence[Problem],
        spec: SamplingSpec,
        generator: torch.Generator | None = None,
    ) -> list[bool]:
        correct = []
        for start in range(0, len(prompts), self.batch_size):
            batch = prompts[start : start + self.batch_size]
            uniforms = None if generator is None else torch.rand(len(batch), spec.max_new_tokens, generator=generator)
            share, counts = self._share(len(batch))
            if uniforms is not None:
                uniforms = uniforms[share]
            with self.adapters.use("student", [index]):
                texts = decode_texts(self.student, generate(self.student, batch[share], spec, uniforms))
            its_problems = problems[start : start + self.batch_size][share]
            judged = [
                self.builder.task.is_correct(text, problem) for text, problem in zip(texts, its_problems, strict=True)
            ]
            correct += self.student.ranks.gathered(judged if counts else [])
        return correct

    def _share(self, num_rows: int) -> tuple[slice, bool]:
        """Returns this process's rows of a batch, and whether they count: a process without rows runs along with the first."""
        share = self.student.ranks.share(num_rows)
        return (share, True) if share.start < share.stop else (slice(0, 1), False)

    def _log_probs(self, bank: Bank | None, index: int, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
        """Returns the mean log-probability of each reference solution behind its prompt, float64: this process's rows of each batch."""
        means = []
        for start in range(0, len(prompts), self.batch_size):
            share, counts = self._share(len(prompts[start : start + self.batch_size]))
            selection = slice(start + share.start, start + share.stop)
            batch = forced_rollouts(self.student, prompts[selection], self._references[selection])
            with torch.inference_mode(), self.adapters.use(bank, [index]):
                hidden = scored_hidden(self.student, batch.prompt_ids, batch.prompt_mask, batch)
                tokens = batch.completion_ids[batch.completion_mask]
                log_probs = torch.zeros_like(batch.completion_mask, dtype=torch.float64)
                log_probs[batch.completion_mask] = token_log_probs(self.student, hidden, tokens).double()
                means.append((log_probs.sum(dim=1) / batch.lengths)[: None if counts else 0])
        return means

    def _mean(self, log_probs: Sequence[Tensor]) -> float:
        """Returns the mean over all problems."""
        total = torch.zeros((), dtype=torch.float64)
        for batch in log_probs:
            total += batch.sum().cpu()
        self.student.ranks.sum_(total)
        return float(total) / len(self.problems)
