"""A population: K students on one frozen base, each distilled for one hold window at its own reveal ratios.

A window is written once, here: the scalar environment is the population of one. Each student has its own seed, random
streams, order of problems, optimizer, gradient clipping and learning curve. Rollouts of all students are sampled together;
updates are made student by student. What is the same for several students is made once (``paired``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atesd_env.config import EnvConfig, RunConfig, instance_configs
from atesd_env.distillation.update import Learner
from atesd_env.envs.columns import Row
from atesd_env.envs.contract import ExposureScores, Students, group_means
from atesd_env.envs.observation import RunningStatistics, advance, initial_statistics, without_updates
from atesd_env.envs.reward import learning_progress, window_reward
from atesd_env.errors import NonFiniteError
from atesd_env.files.checkpoint import Checkpoint
from atesd_env.population.batch import Answered, Batch, make_batch
from atesd_env.population.collapse import collapse_reason
from atesd_env.population.decision import Decision, decide
from atesd_env.population.instance import Instance, make_instance
from atesd_env.population.paired import likenesses, meeting
from atesd_env.population.problems import next_problems, problem_at
from atesd_env.population.run_state import RunState
from atesd_env.population.samples import Sample, readable
from atesd_env.population.snapshot import (
    StudentSnapshot,
    from_checkpoint,
    keeps_teacher,
    put_snapshot,
    take_snapshot,
    to_checkpoint,
    undone_if_engine_fails,
)
from atesd_env.population.totals import WindowTotals, broken_row, finished_row, rollout_rows
from atesd_env.rollouts.engines.checked import check_difference
from atesd_env.rollouts.engines.engine import RolloutEngine
from atesd_env.rollouts.engines.registry import make_engine
from atesd_env.rollouts.sampling import SamplingSpec, decode_texts
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.generators import torch_stream
from atesd_env.student.loading import load_student
from atesd_env.student.model import Student, bare_copy
from atesd_env.tasks.base import Problem


class Population(Students):
    """K students trained side by side.

    Args:
        config: What the students share.
        num_students: K.
        student: The frozen base without adapters; None loads it. Of several processes (``student.ranks``) each has a population,
            and all of them call the same methods (``distributed.DistributedPopulation``).
        instances: For each student the fields of the configuration in which it differs (``INSTANCE_FIELDS``), or None.
        engine: What samples rollouts; None makes what ``config.rollout_engine`` names.

    Attributes:
        engine: What samples rollouts.
        instances: Each student's problems and settings; equal ones are one object.
        runs: The state of each student's run.
        batches: Each student's last update, once it has made one.
        num_trained_tokens: Tokens that each student's updates of its last window learned from.
        timings: Seconds that the last window spent on rollouts, updates and probe, by column name.

    Raises:
        StudentError: If the base model or the starting adapter cannot be loaded.
        DataError: If the task's data cannot be used.
        EngineError: If the rollout engine needs a package that is not installed.
    """

    config: EnvConfig

    def __init__(
        self,
        config: EnvConfig,
        num_students: int = 1,
        student: Student | None = None,
        instances: Sequence[Mapping[str, Any]] | None = None,
        engine: RolloutEngine | None = None,
    ) -> None:
        self.config = config
        self.num_students = num_students
        configs = instance_configs(config, instances, num_students)
        self.engine = make_engine(config, num_students) if engine is None else engine
        self.student = load_student(config) if student is None else student
        its_adapters = config.lora_r, config.lora_alpha, config.lora_targets, keeps_teacher(config)
        self.adapters = AdapterStack(self.student.model, num_students, *its_adapters)
        self._different = {one: make_instance(one, self.student, self.adapters) for one in dict.fromkeys(configs)}
        self.instances: list[Instance] = [self._different[one] for one in configs]
        self.learner = Learner(self.student, self.adapters, configs)
        self.sampling = SamplingSpec.of(config)
        self.runs: list[RunState] = [RunState(seed=0) for _ in range(num_students)]
        self.batches: dict[int, Batch] = {}
        self.num_trained_tokens: dict[int, int] = {}
        self.timings: dict[str, float] = {}

    def config_of(self, index: int) -> EnvConfig:
        """Returns the whole configuration of student ``index``."""
        return self.instances[index].config

    def take_instance(self, index: int, config: RunConfig) -> None:
        """Gives student ``index`` another instance, from its next ``reset`` or ``restore`` on; those that it had are kept."""
        assert isinstance(config, EnvConfig)
        if config not in self._different:
            self._different[config] = make_instance(config, self.student, self.adapters)
        self.instances[index] = self._different[config]
        self.learner.configs[index] = config

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
        self.batches.pop(index, None)
        nll = self.instances[index].probe.nll(index)
        self.runs[index] = RunState(seed=seed, initial_nll=nll, probe_nll=nll, statistics=initial_statistics(nll))
        return self.runs[index].statistics

    def window(self, reveal_ratios: NDArray[np.float64], students: Sequence[int] | None = None) -> list[Row]:
        """Trains students for one hold window: ``hold_window`` times sampled and updated, then measured.

        Args:
            reveal_ratios: [S, action_size] in [0, 1], one line for each student that takes part: its ratios, and what else
                its action decides (``decision``).
            students: Which S students take part; None is all of them.

        Returns:
            One row for each of them. A student that broke has ``runs[k].broken`` set, and a row without measurements if its
            loss was not finite.

        Raises:
            EngineError: If the rollout engine fails; the students are as before the window, which can be made again.
        """
        students = list(range(self.num_students)) if students is None else list(students)
        decisions = [self._decided(*turn) for turn in zip(students, reveal_ratios, strict=True)]
        totals = {student: WindowTotals(decision) for student, decision in zip(students, decisions, strict=True)}
        taught = [student for student in students if not totals[student].decision.is_retired]
        self.timings = dict.fromkeys(("time/rollout_sec", "time/update_sec", "time/probe_sec"), 0.0)
        with undone_if_engine_fails(self, taught if self.engine.can_fail else ()):
            for _ in range(self.config.hold_window):
                going = [student for student in taught if self.runs[student].broken is None]
                if going:
                    self._update(going, totals)
            for total in totals.values():
                difference = total.agreement.mean_difference
                check_difference(self.engine.description, difference, self.config.engine_tolerance)
        self.student.ranks.check_same(self.adapters.flat, "adapters")
        with self._timed("time/probe_sec"):
            return [self._measure(student, totals[student]) for student in students]

    def _decided(self, student: int, action: NDArray[np.float64]) -> Decision:
        """Returns what an action means for a student's next window."""
        group, is_by_problem = self.instances[student].groups.group, self.config.action_ratios == "problem"
        return decide(
            self.config, action, [group(one) for one in self.window_problems(student)] if is_by_problem else ()
        )

    def _update(self, students: Sequence[int], totals: Mapping[int, WindowTotals]) -> None:
        """Samples rollouts of several students in one batch, then updates them one by one."""
        lots = meeting(students, self.instances, self.runs)
        with self._timed("time/rollout_sec"):
            first = likenesses(lots, self.adapters.flat)
            answered = self._sample([student for student in students if first[student] == student])
        with self._timed("time/update_sec"):
            share = self.student.ranks.share(self.config.num_rollouts)
            for lot in lots:
                decisions = [totals[student].next_decision(self.config.num_rollouts, share) for student in lot]
                batches = [make_batch(*answered[first[one]], its) for one, its in zip(lot, decisions, strict=True)]
                hidden = self.learner.teachers_hidden(lot, [(batch.rollouts, batch.shown) for batch in batches])
                for student, batch, teacher_hidden in zip(lot, batches, hidden, strict=True):
                    self._learn(student, batch, totals[student], teacher_hidden)

    def _next_problems(self, student: int) -> tuple[list[Problem], list[Problem]]:
        """Returns this process's share of the next update's problems, and of those that the control ``other`` shows."""
        run, task, size = self.runs[student], self.instances[student].task, self.config.num_rollouts
        problems, others = next_problems(task, run.seed, run.num_updates * size, size, self.config.exposure)
        mine = self.student.ranks.share(size)
        return problems[mine], others[mine]

    def _sample(self, students: Sequence[int]) -> dict[int, Answered]:
        """Samples a rollout to each of the students' next problems, in one batch."""
        drawn = {student: self._next_problems(student) for student in students}
        prompts = [
            self.instances[student].builder.student_prompt(one) for student in students for one in drawn[student][0]
        ]
        runs = [self.runs[student] for student in students]
        streams = [torch_stream(run.seed, "rollout", run.num_updates) for run in runs]
        rollouts = self.engine.sample(
            self.student, self.adapters, prompts, self.sampling, students, streams, self.config.num_rollouts
        )
        texts, size = decode_texts(self.student, rollouts), len(prompts) // len(students)
        rows = {student: slice(place * size, (place + 1) * size) for place, student in enumerate(students)}
        return {one: (self.instances[one], *drawn[one], rollouts.rows(its), texts[its]) for one, its in rows.items()}

    def _learn(self, student: int, batch: Batch, totals: WindowTotals, teacher_hidden: list[Tensor] | None) -> None:
        """Makes a student's update, unless it breaks in it."""
        self.batches[student] = batch
        groups = batch.groups if self.config.groups > 1 else None
        its_update = batch.rollouts, batch.shown, self.config.num_rollouts, groups, teacher_hidden
        try:
            update = self.learner.update(student, *its_update)
        except NonFiniteError as error:
            self.runs[student].broken = f"non-finite: {error}"
            return
        totals.add(update, self.student.ranks.gathered(rollout_rows(batch)))
        self.runs[student].num_updates += 1

    def _measure(self, student: int, totals: WindowTotals) -> Row:
        """Measures the probe, decides on reward and health, and appends the row."""
        config, run, instance = self.config, self.runs[student], self.instances[student]
        number = len(run.rows) + 1
        if run.broken is not None:
            run.rows.append(broken_row(number, run.num_updates, totals.decision, config))
            return run.rows[-1]
        nll_before = run.probe_nll
        probed = self.measure_probe(student, number)
        progress = learning_progress(nll_before, run.probe_nll, config.progress)
        grounded = instance.grounded(student, totals.decision, self.learner.teacher_bank)
        means = totals.means(config)
        run.broken = collapse_reason(
            run.probe_nll, run.initial_nll, config.collapse_nll, means["rollout/loop_rate"], config.collapse_loop_rate
        )
        reward = -config.collapse_nll if run.broken else window_reward(progress, grounded, config.grounded_weight)
        measured: Row = {
            **means,
            "window": number,
            "update": run.num_updates,
            **probed,
            "probe/grounded": grounded,
            "reward/progress": progress,
            "reward/total": reward,
        }
        run.rows.append(finished_row(config, measured))
        if totals.decision.is_retired:
            run.statistics = without_updates(run.statistics, number / config.windows)
        else:
            run.statistics = advance(
                run.statistics,
                run.rows[-1],
                windows=config.windows,
                max_new_tokens=config.max_new_tokens,
                ema_coefficient=config.ema_coefficient,
            )
        self.num_trained_tokens[student] = totals.num_trained_tokens(config.loss_horizon)
        return run.rows[-1]

    def measure_probe(self, student: int, window: int) -> Row:
        """Returns what the probe says of a student's adapter after a window, and keeps the NLL.

        Args:
            student: Which student.
            window: Number of the window that has just ended, from 1.

        Returns:
            ``probe/nll``, and what is due of ``Probe.success_rates``.
        """
        run, probe = self.runs[student], self.instances[student].probe
        run.probe_nll = probe.nll(student)
        return {"probe/nll": run.probe_nll, **probe.success_rates(student, window, run.seed, self.config)}

    def exposure_scores(
        self,
        index: int,
        ratios: NDArray[np.float64],
        with_mismatch: bool = True,
        num_problems: int | None = None,
        by_problem: bool = False,
    ) -> ExposureScores:
        """Returns what ratios [N] show student ``index`` (``Students.exposure_scores``), by passes of the models and no update."""
        instance, bank = self.instances[index], self.learner.teacher_bank
        probe = instance.probe.of_others(self.window_problems(index)) if by_problem else instance.probe
        kind, is_fixed = instance.config.exposure, instance.config.teacher == "initial"
        view = instance.config.views[0]
        exposed = [probe.exposed([float(ratio)] * len(probe.problems), kind, view) for ratio in ratios]
        if by_problem and self.student.fused is not None and self.student.ranks.size == 1:
            grounded = probe.grounded_together(index, exposed, bank)
        else:
            grounded = [
                probe.grounded_by_problem(index, one, kind, bank, is_fixed=is_fixed, view=view) for one in exposed
            ]
        num_sampled, num_scored = 0, sum(map(probe.num_scored_tokens, exposed))
        mismatches = np.full((len(ratios), 0), np.nan)
        if with_mismatch:
            prompts = [[prompt.token_ids for prompt in one[:num_problems]] for one in exposed]
            mismatches, num_sampled, num_fed = self._mismatches(index, probe.problems, prompts)
            num_scored += num_fed
        numbers = range(len(probe.problems))
        groups = np.array(numbers if by_problem else [instance.groups.group(one) for one in probe.problems])
        num_groups = len(groups) if by_problem else self.config.groups
        on_grounded, on_mismatch = (group_means(one, groups, num_groups) for one in (np.array(grounded), mismatches))
        return ExposureScores(on_grounded, on_mismatch, num_sampled, num_scored)

    def _mismatches(
        self, index: int, problems: Sequence[Problem], exposures: Sequence[Sequence[Sequence[int]]]
    ) -> tuple[NDArray[np.float64], int, int]:
        """Returns mismatches [N, P] on rollouts of the first P problems, the tokens sampled, and those scored; ``exposures`` are [N][P]."""
        run, builder, num_problems = self.runs[index], self.instances[index].builder, len(exposures[0])
        prompts = [builder.student_prompt(one) for one in problems[:num_problems]]
        mine = self.student.ranks.share(num_problems)
        means, lengths = np.zeros((len(exposures), 0)), []
        if prompts[mine]:
            # A stream of its own: the run draws what it would have drawn.
            streams = [torch_stream(run.seed, "scores", run.num_updates)]
            rollouts = self.engine.sample(
                self.student, self.adapters, prompts[mine], self.sampling, [index], streams, num_problems
            )
            means = self.learner.mismatches(index, rollouts, [one[mine] for one in exposures])
            lengths = rollouts.lengths.tolist()
        gathered = np.array(self.student.ranks.gathered(means.T.tolist())).T
        num_sampled = sum(self.student.ranks.gathered(lengths))
        num_fed = sum(map(len, prompts)) + sum(len(token_ids) for one in exposures for token_ids in one)
        return gathered, num_sampled, num_fed + (1 + len(exposures)) * num_sampled

    @contextmanager
    def _timed(self, column: str) -> Iterator[None]:
        """Adds what happens inside to a column of ``timings``."""
        started = time.perf_counter()
        yield
        self.timings[column] += time.perf_counter() - started

    def training_problem(self, student: int, number: int) -> Problem:
        """Returns problem ``number`` (from 0) in the order that a student's run trains on."""
        return problem_at(self.instances[student].task, self.runs[student].seed, number)

    def window_problems(self, student: int) -> list[Problem]:
        """Returns the problems of a student's next window, [hold_window * num_rollouts], update by update."""
        first = self.runs[student].num_updates * self.config.num_rollouts
        num_problems = self.config.hold_window * self.config.num_rollouts
        return [self.training_problem(student, first + offset) for offset in range(num_problems)]

    def samples(self, index: int, num_samples: int) -> list[Sample]:
        """Returns rollouts of student ``index``'s last update, with both prompts; none before its first."""
        if index not in self.batches:
            return []
        return readable(self.batches[index], self.instances[index].builder, num_samples)

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
        twin = Population(self.instances[index].config, num_students, bare_copy(self.student), engine=self.engine)
        twin.instances[0].probe.know(self.instances[index].probe)
        return twin

    def close(self) -> None:
        """Lets go of the rollout engine's memory and processes, which the next window would start again."""
        self.engine.close()

    def snapshot(self, index: int) -> StudentSnapshot:
        """Returns a copy of everything that student ``index``'s future depends on."""
        return take_snapshot(self.runs[index], self.learner, index)

    def restore(self, index: int, snapshot: StudentSnapshot) -> None:
        """Puts student ``index`` into the state of a snapshot, which stays usable."""
        self.batches.pop(index, None)
        self.runs[index] = put_snapshot(snapshot, self.learner, index)

    def checkpoint(self, index: int) -> Checkpoint:
        """Returns student ``index``'s state and its configuration in a form that files can hold."""
        return to_checkpoint(self.snapshot(index), self.instances[index].config)

    def restored(self, index: int, checkpoint: Checkpoint) -> StudentSnapshot:
        """Returns the snapshot, for student ``index``, that ``checkpoint`` was made of."""
        return from_checkpoint(checkpoint, self.instances[index].config, self.num_adapter_parameters)
