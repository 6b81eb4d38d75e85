"""The probe against plain forward passes, and pass@k against counting."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch

from atesd_env.config import EnvConfig
from atesd_env.exposure import PromptBuilder
from atesd_env.population.probe import Probe, pass_at_k
from atesd_env.rollouts.sampling import SamplingSpec
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.loading import load_student
from atesd_env.tasks.arithmetic import ArithmeticTask, running_sum
from atesd_env.tasks.controls import ExposureKind


@pytest.fixture
def probe(tiny_config: EnvConfig) -> Probe:
    student = load_student(tiny_config)
    task = ArithmeticTask(2, 4)
    stack = AdapterStack(student.model, 1, 4, 8.0, ("q_proj", "v_proj"))
    stack.initialise(0, torch.Generator().manual_seed(0))
    builder = PromptBuilder(task, student.tokenizer, max_prompt_tokens=120)
    return Probe(student, stack, builder, task.probe_problems(7), max_tokens=60, batch_size=3)


def plain_mean_log_prob(probe: Probe, prompts: list[tuple[int, ...]]) -> float:
    """Row by row, without padding or batching."""
    means = []
    for prompt, problem in zip(prompts, probe.problems, strict=True):
        answer = torch.tensor(probe.builder.reference_ids(problem, 60))
        token_ids = torch.cat([torch.tensor(prompt), answer])[None]
        with torch.no_grad():
            log_probs = probe.student.model(input_ids=token_ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        means.append(log_probs.gather(1, answer[:, None]).mean())
    return float(torch.stack(means).mean())


def test_nll_is_the_mean_over_problems_of_the_mean_over_tokens(probe: Probe):
    prompts = [probe.builder.student_prompt(problem) for problem in probe.problems]
    assert probe.nll(0) == pytest.approx(-plain_mean_log_prob(probe, prompts), rel=1e-4)


def test_grounded_is_the_exposed_teachers_log_probability(probe: Probe):
    for ratio in (0.0, 0.5, 1.0):
        prompts = [probe.builder.teacher_prompt(problem, ratio).token_ids for problem in probe.problems]
        ours = probe.grounded(0, [ratio] * 7, "reference", None, is_fixed=True)
        assert ours == pytest.approx(plain_mean_log_prob(probe, prompts), rel=1e-3, abs=1e-6)


def test_thinking_scores_references_behind_the_think_block(probe: Probe):
    """As a template with the switch would have it: each side's reference behind its own block, and rollouts behind none."""
    assert probe.builder.student_think_ids == probe.builder.teacher_think_ids == ()
    student, teacher = probe.builder.tokenizer.encode("12"), probe.builder.tokenizer.encode("7")
    probe.builder.student_think_ids, probe.builder.teacher_think_ids = tuple(student), tuple(teacher)
    prompts = [(*probe.builder.student_prompt(problem), *student) for problem in probe.problems]
    assert probe.nll(0) == pytest.approx(-plain_mean_log_prob(probe, prompts), rel=1e-4)
    exposed = probe.exposed([0.5] * 7, "reference")
    prompts = [(*prompt.token_ids, *teacher) for prompt in exposed]
    ours = probe.grounded(0, [0.5] * 7, "reference", None, is_fixed=True)
    assert ours == pytest.approx(plain_mean_log_prob(probe, prompts), rel=1e-3, abs=1e-6)
    probe.builder.teacher_think_ids = ()
    assert probe.num_scored_tokens(exposed) == sum(map(len, prompts)) - 7 * len(teacher) + sum(
        map(len, probe._references)
    )


@pytest.mark.parametrize("kind", ["other", "other_matched", "wrong_answer"])
def test_a_control_shows_of_the_probes_next_problem(probe: Probe, kind: Any, monkeypatch: pytest.MonkeyPatch):
    """Of the next with another answer, where the control needs one."""
    answers = ["1", "1", "2", "3", "3", "1", "1"]
    probe.problems = [dataclasses.replace(one, answer=said) for one, said in zip(probe.problems, answers, strict=True)]
    seen: list[Any] = []
    monkeypatch.setattr(probe.builder, "teacher_prompt", lambda problem, ratio, kind, other: seen.append(other))
    probe.exposed([0.5] * 7, kind)
    places = [2, 2, 3, 5, 5, 2, 2] if kind == "wrong_answer" else [1, 2, 3, 4, 5, 6, 0]
    assert seen == [probe.problems[place] for place in places]


def test_grounded_is_higher_with_the_reference_than_without_and_with_an_unrelated_solution(probe: Probe):
    """The packaged teacher is nearly sure at every ratio; what it cannot do is to guess long sums, or to use a wrong hint."""
    shown = {kind: probe.grounded(0, [1.0] * 7, kind, None, is_fixed=True) for kind in ("reference", "none", "other")}
    assert shown["none"] < shown["reference"] < 0.0
    assert shown["other"] < shown["reference"]


def test_fixed_teachers_scores_are_remembered_and_a_moving_ones_are_not(probe: Probe, monkeypatch: pytest.MonkeyPatch):
    first = probe.grounded(0, [0.5] * 7, "reference", None, is_fixed=True)
    exposed = probe.exposed([0.5] * 7, "reference")
    by_problem = probe.grounded_by_problem(0, exposed, "reference", None, is_fixed=True)
    assert len(set(by_problem)) == 7
    assert sum(by_problem) / 7 == pytest.approx(first, rel=1e-12)
    monkeypatch.setattr(probe, "_log_probs", lambda *_: [torch.full((7,), -1.0, dtype=torch.float64)])
    assert probe.grounded_by_problem(0, exposed, "reference", None, is_fixed=True) == by_problem
    assert probe.grounded_by_problem(0, exposed, "reference", None, is_fixed=False) == [-1.0] * 7
    assert probe.grounded(0, [0.5] * 7, "reference", None, is_fixed=True) == first
    assert probe.grounded(0, [0.5] * 7, "reference", None, is_fixed=False) == -1.0


def test_a_score_is_remembered_for_what_each_problem_shows_and_for_nothing_else(probe: Probe):
    """As many steps in all, shown of another problem, have another score; so has another kind of hint, of as many steps."""
    steps = [probe.builder.teacher_prompt(problem, 1.0).num_shown for problem in probe.problems]
    first, second = next(pair for pair in itertools.combinations(range(7), 2) if steps[pair[0]] == steps[pair[1]] > 1)
    of_first, of_second = ([float(place == one) for place in range(7)] for one in (first, second))
    kinds: tuple[ExposureKind, ...] = ("reference", "none", "other", "other_matched", "wrong_answer", "no_answer")
    asked = [*((of_first, kind) for kind in kinds), (of_second, "reference")]
    fresh = [probe.grounded(0, shown, kind, None, is_fixed=False) for shown, kind in asked]
    assert len(set(fresh)) == len(asked)
    for _ in range(2):  # computed, and remembered
        assert [probe.grounded(0, shown, kind, None, is_fixed=True) for shown, kind in asked] == fresh


def test_longest_reference_is_cut_at_max_tokens(probe: Probe):
    assert len(probe.builder.reference_ids(running_sum([10, 20, 30]), 5)) == 5


def test_accuracy_counts_right_answers(probe: Probe, monkeypatch: pytest.MonkeyPatch):
    """Texts are replaced by right and wrong ones, in the order of the problems."""
    right = [f"#{problem.answer}" for problem in probe.problems]
    queue = iter([right[:3], ["#0", right[4], "no answer"], ["#1"]])
    monkeypatch.setattr("atesd_env.population.probe.decode_texts", lambda *_: next(queue))
    assert probe.accuracy(0, max_new_tokens=2) == pytest.approx(4 / 7)


def test_packaged_student_solves_short_sums(probe: Probe):
    assert probe.accuracy(0, max_new_tokens=40) > 0.4


def test_pass_at_k_is_at_least_the_accuracy_of_samples(probe: Probe):
    spec = SamplingSpec(max_new_tokens=40)
    one = probe.pass_at_k(0, 1, spec, torch.Generator().manual_seed(0))
    four = probe.pass_at_k(0, 4, spec, torch.Generator().manual_seed(0))
    assert 0.0 < one <= four <= 1.0


@pytest.mark.parametrize(
    ("num_samples", "num_correct", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 2), (4, 1, 4), (4, 3, 2)]
)
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(num_samples: int, num_correct: int, k: int):
    is_correct = [index < num_correct for index in range(num_samples)]
    subsets = list(itertools.combinations(is_correct, k))
    assert pass_at_k(num_samples, num_correct, k) == pytest.approx(
        sum(any(subset) for subset in subsets) / len(subsets)
    )
