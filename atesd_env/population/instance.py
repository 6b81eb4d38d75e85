"""An instance: what a student's episode is drawn from beside its base model, problems and the settings of its updates.

Students of one population may have different instances. What shapes their common batch (base model, adapters, rollouts, the
length of windows and episodes) is theirs together.
"""

from __future__ import annotations

from dataclasses import dataclass

from atesd_env.config import EnvConfig
from atesd_env.exposure import PromptBuilder
from atesd_env.population.decision import Decision
from atesd_env.population.probe import Probe
from atesd_env.student.adapters import AdapterStack, Bank
from atesd_env.student.model import Student
from atesd_env.tasks.base import Task
from atesd_env.tasks.groups import DifficultyGroups
from atesd_env.tasks.registry import make_task


@dataclass(frozen=True)
class Instance:
    """One instance, ready to train on.

    Attributes:
        config: The whole configuration.
        task: Problems.
        builder: Both prompts of a problem.
        groups: Difficulty groups of the problems.
        probe: Held-out problems.
    """

    config: EnvConfig
    task: Task
    builder: PromptBuilder
    groups: DifficultyGroups
    probe: Probe

    def grounded(self, index: int, decision: Decision, teacher_bank: Bank | None) -> float:
        """Returns the teacher-grounded score of student ``index`` (``Probe.grounded``) under a window's decision."""
        return self.probe.grounded(
            index,
            self.groups.ratios(self.probe.problems, decision.reveal_ratios),
            self.config.exposure,
            teacher_bank,
            is_fixed=self.config.teacher == "initial",
            view=self.config.views[decision.view],
        )


def make_instance(config: EnvConfig, student: Student, adapters: AdapterStack) -> Instance:
    """Reads an instance's data and tokenizes its probe.

    Raises:
        DataError: If the data cannot be used, or lacks a view that is asked for.
    """
    task = make_task(config)
    builder = PromptBuilder.of(config, task, student.tokenizer)
    task.restrict(lambda problem: all(builder.is_usable(problem.seen_as(view)) for view in config.views))
    probe = Probe(
        student,
        adapters,
        builder,
        task.probe_problems(config.probe_size),
        config.probe_max_tokens,
        config.probe_batch_size,
    )
    groups = DifficultyGroups.from_task(task, config.groups)
    return Instance(config, task, builder, groups, probe)
