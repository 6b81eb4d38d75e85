"""A population: K students on one frozen base, each distilled for one hold window at its own reveal ratios.

A window is written once, here: the scalar environment is the population of one. Each student has its own seed, random
streams, order of problems, optimizer, gradient clipping and learning curve. Rollouts of all students are sampled together;
updates are made student by student.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atesd_env.config import EnvConfig
from atesd_env.config.instance_fields import instance_configs
from atesd_env.distillation.update import Learner
from atesd_env.envs.columns import COLUMNS, Row, engine_columns, group_columns
from atesd_env.envs.observation import RunningStatistics, advance, initial_statistics
from atesd_env.envs.reward import learning_progress, window_reward
from atesd_env.errors import EngineError, NonFiniteError
from atesd_env.exposure import TeacherPrompt
from atesd_env.population.instance import Instance, make_instance
from atesd_env.population.totals import WindowTotals, broken_row
from atesd_env.rollouts.engines.check import check_engine
from atesd_env.rollouts.engines.engine import RolloutEngine, make_engine
from atesd_env.rollouts.sampling import SamplingSpec, decode_texts
from atesd_env.streams import stream_seed
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.generators import torch_stream
from atesd_env.student.loading import load_student
from atesd_env.student.model import Student, bare_copy
from atesd_env.student.ranks import ALONE, Ranks
from atesd_env.tasks.base import Problem


@dataclass
class RunState:
    """What a student's run has come to, apart from its tensors.

    Attributes:
        seed: Seed of the run.
        num_updates: Updates made; also counts the random streams and the problems used.
        initial_nll: Probe NLL of the base.
        probe_nll: Latest probe NLL.
        statistics: What a controller may know.
        rows: The rows so far.
        broken: Why the student counts as broken, or None.
    """

    seed: int
    num_updates: int = 0
    initial_nll: float = 0.0
    probe_nll: float = 0.0
    statistics: RunningStatistics = field(default_factory=RunningStatistics)
    rows: list[Row] = field(default_factory=list)
    broken: str | None = None


@dataclass(frozen=True)
class StudentSnapshot:
    """Everything that a student's future depends on; opaque to users.

    Attributes:
        run: Counters, statistics and rows.
        adapter: [P] float32.
        teacher_adapter: [P] float32 or None.
        optimizer: AdamW's state.
    """

    run: RunState
    adapter: Tensor
    teacher_adapter: Tensor | None
    optimizer: dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """One rollout for people to read, with both prompts.

    Attributes:
        problem_id: The problem's name.
        problem: Its text.
        student_prompt: What the student was given, with the chat template.
        teacher_prompt: What the teacher was given: the same, and what the reveal ratio shows.
        reveal_ratio: The ratio that was asked for, 0..1.
        num_shown: Steps of the reference solution in the teacher's prompt.
        num_steps: Steps that the reference solution has.
        rollout: The student's text.
        answer: The right answer.
        is_correct: Whether the rollout's answer is right.
    """

    problem_id: str
    problem: str
    student_prompt: str
    teacher_prompt: str
    reveal_ratio: float
    num_shown: int
    num_steps: int
    rollout: str
    answer: str
    is_correct: bool


class Population:
    """K students trained side by side.

    Args:
        config: What the students share.
        num_students: K.
        student: The frozen base without adapters; None loads it.
        instances: For each student the fields of the configuration in which it differs (``INSTANCE_FIELDS``), or None.
        ranks: The processes that share each batch's rows (``distributed.DistributedPopulation``); each calls the same methods.
        engine: What samples rollouts; None makes what ``config.rollout_engine`` names.

    Attributes:
        engine: What samples rollouts.
        instances: Each student's problems and settings; equal ones are one object.
        runs: The state of each student's run.
        timings: Seconds that the last window spent on rollouts, updates and probe, by column name.

    Raises:
        StudentError: If the base model or the starting adapter cannot be loaded.
        DataError: If the task's data cannot be used.
        EngineError: If the rollout engine needs a package that is not installed.
    """

    def __init__(
        self,
        config: EnvConfig,
        num_students: int = 1,
        student: Student | None = None,
        instances: Sequence[Mapping[str, Any]] | None = None,
        ranks: Ranks = ALONE,
        engine: RolloutEngine | None = None,
    ) -> None:
        self.ranks = ranks
        self.config = config
        self.num_students = num_students
        configs = instance_configs(config, instances, num_students)
        self.engine = make_engine(config, num_students, ranks) if engine is None else engine
        self._is_engine_tested = config.rollout_engine == "own"
        self.student = load_student(config, ranks) if student is None else student
        keep_teacher = config.teacher == "ema" or config.adapter is not None
        self.adapters = AdapterStack(
            self.student.model, num_students, config.lora_r, config.lora_alpha, config.lora_targets, keep_teacher
        )
        different = {one: make_instance(one, self.student, self.adapters, ranks) for one in dict.fromkeys(configs)}
        self.instances: list[Instance] = [different[one] for one in configs]
        settings = [instance.settings for instance in self.instances]
        self.learner = Learner(self.student, self.adapters, settings, ranks)
        self.sampling = SamplingSpec(config.max_new_tokens, config.temperature, config.top_p, config.top_k)
        self.runs = [RunState(seed=0) for _ in range(num_students)]
        self.timings: dict[str, float] = {}
        self._last_batches: dict[int, tuple[list[Problem], list[float], list[TeacherPrompt], list[str]]] = {}

    def reset(self, index: int, seed: int) -> RunningStatistics:
        """Starts a new run of student ``index`` from the base model.

        Args:
            index: Which student.
            seed: Seed of the run.

        Returns:
            The statistics before the first window.
        """
        self.adapters.initialise(index, torch_stream(seed, "adapter"))
        if self.config.adapter is not None:
            self.adapters.load(index, Path(self.config.adapter))
        if self.adapters.teacher_flat is not None:
            self.adapters.teacher_flat[index].copy_(self.adapters.flat[index])
        self.learner.reset(index)
        self._last_batches.pop(index, None)
        nll = self.instances[index].probe.nll(index)
        self.runs[index] = RunState(seed=seed, initial_nll=nll, probe_nll=nll, statistics=initial_statistics(nll))
        return self.runs[index].statistics

    def window(self, reveal_ratios: NDArray[np.float64], students: Sequence[int] | None = None) -> list[Row]:
        """Trains students for one hold window.

        Args:
            reveal_ratios: [S, groups] in [0, 1], one line for each student that takes part.
            students: Which S students take part; None is all of them.

        Returns:
            One row for each of them. A student that broke has ``runs[k].broken`` set, and a row without measurements if its
            loss was not finite.

        Raises:
            EngineError: If the rollout engine fails; the students are as before the window, which can be made again.
        """
        students = list(range(self.num_students)) if students is None else list(students)
        self.timings = dict.fromkeys(("time/rollout_sec", "time/update_sec", "time/probe_sec"), 0.0)
        windows = [WindowTotals(reveal_ratios[position], self.ranks) for position in range(len(students))]
        with self._undone_without_engine(students):
            for _ in range(self.config.hold_window):
                going = [position for position, student in enumerate(students) if self.runs[student].broken is None]
                if going:
                    self._update_together(
                        [students[position] for position in going], [windows[position] for position in going]
                    )
        self.ranks.check_same(self.adapters.flat, "adapters")
        started = time.perf_counter()
        rows = [self._finish_window(student, window) for student, window in zip(students, windows, strict=True)]
        self.timings["time/probe_sec"] = time.perf_counter() - started
        return rows

    @contextmanager
    def _undone_without_engine(self, students: Sequence[int]) -> Iterator[None]:
        """Puts students back to where they were if the rollout engine fails in between; the own one cannot."""
        before = (
            {} if self.config.rollout_engine == "own" else {student: self.snapshot(student) for student in students}
        )
        try:
            if not self._is_engine_tested:
                self.test_engine()
            yield
        except EngineError:
            for student, snapshot in before.items():
                self.restore(student, snapshot)
            raise

    def test_engine(self) -> float:
        """Makes the engine's start-up test (``engine_check``); called before its first rollouts.

        Returns:
            Mean difference between its and the trainer's log-probabilities in the test, in nats a token.

        Raises:
            EngineError: If the engine fails it.
        """
        instance = self.instances[0]
        problems = instance.probe.problems[:4]
        difference = check_engine(
            self.engine,
            self.student,
            self.adapters,
            [instance.builder.student_prompt(problem) for problem in problems],
            [instance.builder.reference_ids(problem, self.config.probe_max_tokens) for problem in problems],
            self.sampling,
            self.config.engine_tolerance,
        )
        self._is_engine_tested = True
        return difference

    def _update_together(self, students: list[int], windows: list[WindowTotals]) -> None:
        """Samples rollouts of several students in one batch, then updates them one by one."""
        started = time.perf_counter()
        mine = self.ranks.share(self.config.num_rollouts)
        size = mine.stop - mine.start
        batches = [
            (problems[mine], others[mine])
            for problems, others in (self._next_problems(student) for student in students)
        ]
        prompts = [
            self.instances[student].builder.student_prompt(problem)
            for student, (problems, _) in zip(students, batches, strict=True)
            for problem in problems
        ]
        generators = [
            torch_stream(self.runs[student].seed, "rollout", self.runs[student].num_updates) for student in students
        ]
        rollouts = self.engine.sample(self.student, self.adapters, prompts, self.sampling, students, generators)
        texts = decode_texts(self.student, rollouts)
        self.timings["time/rollout_sec"] += time.perf_counter() - started
        started = time.perf_counter()
        for position, (student, window, (problems, others)) in enumerate(zip(students, windows, batches, strict=True)):
            selection = slice(position * size, (position + 1) * size)
            instance = self.instances[student]
            ratios = instance.groups.ratios(problems, window.reveal_ratios)
            teacher_prompts = [
                instance.builder.teacher_prompt(problem, ratio, self.config.exposure, other)
                for problem, ratio, other in zip(problems, ratios, others, strict=True)
            ]
            part = rollouts.rows(selection)
            self._last_batches[student] = (problems, ratios, teacher_prompts, texts[selection])
            try:
                update = self.learner.update(
                    student, part, [prompt.token_ids for prompt in teacher_prompts], self.config.num_rollouts
                )
            except NonFiniteError as error:
                self.runs[student].broken = f"non-finite: {error}"
                continue
            is_correct = [
                instance.task.is_correct(text, problem)
                for text, problem in zip(texts[selection], problems, strict=True)
            ]
            window.add(update, part, ratios, teacher_prompts, is_correct)
            self.runs[student].num_updates += 1
        self.timings["time/update_sec"] += time.perf_counter() - started

    def _next_problems(self, student: int) -> tuple[list[Problem], list[Problem]]:
        """Returns the next update's problems, and for each of them another one (for the control ``other``)."""
        run = self.runs[student]
        size = self.config.num_rollouts
        first = run.num_updates * size
        drawn = [self.training_problem(student, first + offset) for offset in range(size + 2)]
        problems = drawn[:size]
        # Two problems on, where the next one is the same problem (the seam between two passes over the data).
        others = [drawn[i + 1] if drawn[i + 1].id != drawn[i].id else drawn[i + 2] for i in range(size)]
        return problems, others

    def training_problem(self, student: int, number: int) -> Problem:
        """Returns problem ``number`` (from 0) in the order that a student's run trains on."""
        order = stream_seed(self.runs[student].seed, "problems")
        return self.instances[student].task.training_problem(order, number)

    def measure_probe(self, student: int, window: int) -> Row:
        """Returns what the probe says of a student's adapter as it is now, and keeps the NLL.

        Args:
            student: Which student.
            window: Number of the window that has just ended: it decides whether accuracy is measured.

        Returns:
            ``probe/nll``, and ``probe/accuracy`` and ``probe/pass_at_k``, which are None where they are not measured.
        """
        run = self.runs[student]
        run.probe_nll = self.instances[student].probe.nll(student)
        return {
            "probe/nll": run.probe_nll,
            "probe/accuracy": self._accuracy(student, window),
            "probe/pass_at_k": self._pass_at_k(student, window),
        }

    def collapse(self, student: int) -> str | None:
        """Returns why a student counts as broken by its latest probe NLL, or None."""
        run = self.runs[student]
        if np.isfinite(run.probe_nll) and run.probe_nll - run.initial_nll <= self.config.collapse_nll:
            return None
        return (
            f"collapsed: probe NLL {run.probe_nll:.3f} exceeds the initial {run.initial_nll:.3f} by more than "
            f"collapse_nll={self.config.collapse_nll:g}"
        )

    def _finish_window(self, student: int, window: WindowTotals) -> Row:
        """Measures the probe, decides on reward and health, and appends the row."""
        run, probe = self.runs[student], self.instances[student].probe
        number = len(run.rows) + 1
        if run.broken is not None:
            row = broken_row(number, run.num_updates, window.reveal_ratios, self.config)
            run.rows.append(row)
            return row
        nll_before = run.probe_nll
        probed = self.measure_probe(student, number)
        progress = learning_progress(nll_before, run.probe_nll, self.config.progress)
        grounded = probe.grounded(
            student,
            self.instances[student].groups.ratios(probe.problems, window.reveal_ratios),
            self.config.exposure,
            self.learner.teacher_bank,
            is_fixed=self.config.teacher == "initial",
        )
        run.broken = self.collapse(student)
        reward = window_reward(progress, grounded, self.config.grounded_weight)
        measured: Row = {
            "window": number,
            "update": run.num_updates,
            **window.means(),
            **probed,
            "probe/grounded": grounded,
            "reward/progress": progress,
            "reward/total": -self.config.collapse_nll if run.broken else reward,
        }
        columns = (*COLUMNS, *group_columns(self.config.groups), *engine_columns(self.config.rollout_engine))
        names = [column.name for column in columns]
        row = {name: measured[name] for name in names}
        run.statistics = advance(
            run.statistics,
            row,
            windows=self.config.windows,
            max_new_tokens=self.config.max_new_tokens,
            ema_coefficient=self.config.ema_coefficient,
        )
        run.rows.append(row)
        return row

    def _accuracy(self, student: int, window: int) -> float | None:
        every = self.config.probe_accuracy_every
        if every == 0 or (window % every and window != self.config.windows):
            return None
        return self.instances[student].probe.accuracy(student, self.config.max_new_tokens)

    def _pass_at_k(self, student: int, window: int) -> float | None:
        if self.config.probe_pass_k == 0:
            return None
        generator = torch_stream(self.runs[student].seed, "probe", window)
        return self.instances[student].probe.pass_at_k(student, self.config.probe_pass_k, self.sampling, generator)

    def samples(self, index: int, num_samples: int) -> list[Sample]:
        """Returns rollouts of student ``index``'s last update, with both prompts; none before its first."""
        if index not in self._last_batches:
            return []
        problems, ratios, teacher_prompts, texts = self._last_batches[index]
        instance = self.instances[index]
        return [
            Sample(
                problem_id=problem.id,
                problem=problem.problem,
                student_prompt=instance.builder.student_text(problem),
                teacher_prompt=prompt.text,
                reveal_ratio=ratio,
                num_shown=prompt.num_shown,
                num_steps=prompt.num_steps,
                rollout=text,
                answer=problem.answer,
                is_correct=instance.task.is_correct(text, problem),
            )
            for problem, ratio, prompt, text, _ in zip(
                problems, ratios, teacher_prompts, texts, range(num_samples), strict=False
            )
        ]

    @property
    def num_adapter_parameters(self) -> int:
        """P, the parameters of one student's adapter."""
        return self.adapters.num_parameters

    def save_adapter(self, index: int, directory: Path) -> None:
        """Writes student ``index``'s adapter as a plain peft adapter directory."""
        self.adapters.save(index, directory, base_model=self.config.student)

    def twin(self, num_students: int, index: int = 0) -> Population:
        """Returns students like student ``index``, on the same frozen weights; they are not reset.

        Args:
            num_students: How many, which costs the memory of as many adapters and their optimizers.
            index: Whose configuration they have.
        """
        twins = Population(
            self.instances[index].config, num_students, bare_copy(self.student), ranks=self.ranks, engine=self.engine
        )
        twins._is_engine_tested = self._is_engine_tested
        return twins

    def close(self) -> None:
        """Lets go of the rollout engine's memory and processes, which the next window would start again."""
        self.engine.close()

    def snapshot(self, index: int) -> StudentSnapshot:
        """Returns a copy of everything that student ``index``'s future depends on."""
        teacher = self.adapters.teacher_flat
        return StudentSnapshot(
            run=copy.deepcopy(self.runs[index]),
            adapter=self.adapters.flat[index].detach().clone(),
            teacher_adapter=None if teacher is None else teacher[index].clone(),
            optimizer=copy.deepcopy(self.learner.optimizers[index].state_dict()),
        )

    def restore(self, index: int, snapshot: StudentSnapshot) -> None:
        """Puts student ``index`` into the state of a snapshot, which stays usable."""
        self.runs[index] = copy.deepcopy(snapshot.run)
        self._last_batches.pop(index, None)
        self.adapters.flat[index].copy_(snapshot.adapter)
        if self.adapters.teacher_flat is not None and snapshot.teacher_adapter is not None:
            self.adapters.teacher_flat[index].copy_(snapshot.teacher_adapter)
        self.learner.reset(index)
        self.learner.optimizers[index].load_state_dict(copy.deepcopy(snapshot.optimizer))
