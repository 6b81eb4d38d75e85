"""Exposure: how many steps a ratio shows, and that both prompts end in the same tokens, for three tokenizers."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atesd_env.config import preset
from atesd_env.errors import ConfigError, DataError, StudentError
from atesd_env.exposure import PromptBuilder, common_suffix_length, num_shown_steps
from atesd_env.tasks.arithmetic import ArithmeticTask, running_sum
from atesd_env.tasks.base import Problem, Task
from atesd_env.tasks.boxed import CLOSING_REQUEST
from atesd_env.tasks.controls import WITH_ANOTHER, ExposureKind
from atesd_env.tasks.math import MathTask

ROOMY = 100_000
RATIOS = (0.0, 0.24, 0.25, 0.5, 0.75, 1.0)

ROWS = (
    {
        "problem": "Nora has 12 shelves with 9 books each. She gives 25 books away. How many are left?",
        "solution": "At first there are 12*9 = 108 books.\nShe gives away 25 of them.\nSo 108-25 = 83 are left.",
        "answer": "83",
    },
    {
        "problem": "What is the sum of the roots of $x^2 - 7x + 10 = 0$?",
        "solution": r"Factor: $(x-2)(x-5) = 0.$ The roots are $2$ and $5.$ Their sum is \[2 + 5 = \boxed{7}.\]",
        "answer": "7",
    },
    {
        "problem": "A tram makes 6 stops; 3 people get on at each. Nobody gets off. How many ride at the end!",
        "solution": "Each stop adds 3 people.\n\nThere are 6 stops.\n\n6*3 = 18 people ride.\n\nSo 18 ride.",
        "answer": "18",
    },
    {
        "problem": "Simplify $\\frac{6}{8}$",
        "solution": "Divide both by $2$, which gives $\\frac{3}{4}$.",
        "answer": "\\frac{3}{4}",
    },
)


@pytest.fixture
def math_task(tmp_path: Path) -> MathTask:
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n", encoding="utf-8")
    return MathTask(path, probe_size=1, heldout_size=0)


def problems_of(task: Task) -> list[Problem]:
    if isinstance(task, MathTask):
        return [*task.probe_problems(1), *(task.training_problem(0, index) for index in range(len(ROWS) - 1))]
    return [task.training_problem(0, index) for index in range(4)]


@pytest.fixture(params=["arithmetic", "math"])
def task(request: pytest.FixtureRequest) -> Task:
    return ArithmeticTask(2, 5) if request.param == "arithmetic" else request.getfixturevalue("math_task")


def in_template(tokenizer: Any, request: str) -> str:
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": request}], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )


def decoded(tokenizer: Any, token_ids: Sequence[int]) -> str:
    return tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


# How many steps a ratio shows


@pytest.mark.parametrize("number_type", [float, np.float64, np.float32])
def test_every_fraction_of_the_steps_shows_that_many(number_type: type):
    for num_steps in range(1, 61):
        shown = [num_shown_steps(number_type(k / num_steps), num_steps) for k in range(num_steps + 1)]
        assert shown == list(range(num_steps + 1)), f"{num_steps} steps"


def test_a_ratio_just_below_a_step_does_not_reach_it():
    for num_steps in range(1, 61):
        for k in range(1, num_steps + 1):
            assert num_shown_steps(k / num_steps - 2e-6, num_steps) == k - 1


@settings(derandomize=True, database=None, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 500))
def test_a_larger_ratio_never_shows_less(first: float, second: float, num_steps: int):
    fewer, more = (num_shown_steps(ratio, num_steps) for ratio in sorted((first, second)))
    assert 0 <= fewer <= more <= num_steps
    assert abs(fewer - min(first, second) * num_steps) <= 1.0


@pytest.mark.parametrize("ratio", [float("nan"), float("inf"), -float("inf"), -1e-3, 1.001, np.float32("nan"), 2])
def test_a_ratio_that_is_not_in_0_1_is_refused(ratio: float):
    with pytest.raises(ConfigError, match=r"reveal ratio: expected a number in \[0, 1\], got "):
        num_shown_steps(ratio, 4)


def test_a_solution_of_one_step_is_shown_only_whole():
    assert [num_shown_steps(ratio, 1) for ratio in (0.0, 0.5, 0.99, 1.0)] == [0, 0, 0, 1]


def test_common_suffix_length_at_its_ends():
    assert common_suffix_length([1, 2], [1, 2]) == 2
    assert common_suffix_length([1, 2], [3]) == 0
    assert common_suffix_length([], [3]) == 0
    assert common_suffix_length([2, 3], [1, 2, 3]) == 2


# Both prompts


def test_qwens_vocabulary_is_the_real_one(qwen_tokenizer: Any):
    assert len(qwen_tokenizer) == 151_669
    assert qwen_tokenizer.encode("Hello, world!") == [9707, 11, 1879, 0]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    assert qwen_tokenizer.convert_tokens_to_ids(tokens) == [151_643, 151_644, 151_645, 151_667, 151_668]


@pytest.mark.parametrize("kind", get_args(ExposureKind))
def test_both_prompts_end_in_the_same_tokens(any_tokenizer: Any, task: Task, kind: Any):
    """The closing request (math has one) and the assistant header are token for token the same: rollouts line up."""
    builder = PromptBuilder(task, any_tokenizer, ROOMY)
    closing = CLOSING_REQUEST if isinstance(task, MathTask) else ""
    header = in_template(any_tokenizer, "?").rpartition("?")[2]
    ending = any_tokenizer.encode(closing + header, add_special_tokens=False)
    assert len(ending) >= 2
    problems = problems_of(task)
    for problem, other in zip(problems, [*problems[1:], problems[0]], strict=True):
        student = builder.student_prompt(problem)
        assert list(student[-len(ending) :]) == ending
        for ratio in RATIOS:
            teacher = builder.teacher_prompt(problem, ratio, kind, other)
            assert common_suffix_length(student, teacher.token_ids) >= len(ending)
            is_alone = kind == "none" or (kind == "no_answer" and teacher.num_shown == 0)
            assert (teacher.token_ids == student) == is_alone, "only without context are the prompts the same"


def test_both_prompts_go_through_the_chat_template(any_tokenizer: Any, task: Task):
    builder = PromptBuilder(task, any_tokenizer, ROOMY)
    for problem in problems_of(task):
        student_text = in_template(any_tokenizer, task.student_request(problem))
        assert student_text != task.student_request(problem)
        assert builder.student_text(problem) == student_text
        assert decoded(any_tokenizer, builder.student_prompt(problem)) == student_text
        prompt = builder.teacher_prompt(problem, 1.0)
        assert prompt.text == in_template(any_tokenizer, task.teacher_request(problem, problem.steps, problem.answer))
        assert decoded(any_tokenizer, prompt.token_ids) == prompt.text


def test_the_teacher_sees_exactly_the_first_steps_and_always_the_answer(any_tokenizer: Any, task: Task):
    builder = PromptBuilder(task, any_tokenizer, ROOMY)
    answer_is_shown_as = "#{}" if isinstance(task, ArithmeticTask) else "Final answer: \\boxed{{{}}}"
    for problem in problems_of(task):
        num_steps = len(problem.steps)
        for ratio in (*RATIOS, *(np.float32(k / num_steps) for k in range(num_steps + 1))):
            prompt = builder.teacher_prompt(problem, ratio)
            text = decoded(any_tokenizer, prompt.token_ids)
            num_shown = int(float(ratio) * num_steps + 1e-5)
            assert (prompt.num_shown, prompt.num_asked, prompt.num_steps) == (num_shown, num_shown, num_steps)
            assert prompt.shown_ratio == pytest.approx(num_shown / num_steps)
            assert not prompt.is_cut
            assert "".join(problem.steps[:num_shown]).strip() in text
            assert all(step.strip() not in text for step in problem.steps[num_shown:])
            assert answer_is_shown_as.format(problem.answer) in text
            assert problem.problem in text


def test_the_student_sees_neither_step_nor_answer(any_tokenizer: Any, math_task: MathTask):
    builder = PromptBuilder(math_task, any_tokenizer, ROOMY)
    for problem in problems_of(math_task):
        text = decoded(any_tokenizer, builder.student_prompt(problem))
        assert problem.problem in text
        assert f"{{{problem.answer}}}" not in text
        assert all(step.strip() not in text for step in problem.steps)


def test_letters_beyond_ascii_survive(math_task: MathTask, smollm2_tokenizer: Any, qwen_tokenizer: Any):
    problem = Problem("p", "Was kostet 1 Stück? Preis: 3 € — 数学", ("Größe: 3 €\n", "also 3 €"), "3 €", 2.0)
    for tokenizer in (smollm2_tokenizer, qwen_tokenizer):
        prompt = PromptBuilder(math_task, tokenizer, ROOMY).teacher_prompt(problem, 1.0)
        assert decoded(tokenizer, prompt.token_ids) == prompt.text
        assert "数学" in prompt.text


@pytest.mark.parametrize("student_thinking", [False, True])
@pytest.mark.parametrize("teacher_thinking", [False, True])
@pytest.mark.parametrize("kind", ["reference", "none"])
def test_each_side_has_its_own_thinking_switch(
    qwen_tokenizer: Any, math_task: MathTask, student_thinking: bool, teacher_thinking: bool, kind: Any
):
    """Both prompts end where the answer begins, so the same tokens are scored behind each; the think block is the only difference."""
    problem = problems_of(math_task)[0]
    builder = PromptBuilder(math_task, qwen_tokenizer, ROOMY, student_thinking, teacher_thinking)
    endings = {False: "<|im_start|>assistant\n<think>\n\n</think>\n\n", True: "<|im_start|>assistant\n"}
    teacher = builder.teacher_prompt(problem, 0.5, kind)
    for token_ids, thinking in (
        (builder.student_prompt(problem), student_thinking),
        (teacher.token_ids, teacher_thinking),
    ):
        assert decoded(qwen_tokenizer, token_ids).endswith(f"{CLOSING_REQUEST}<|im_end|>\n{endings[thinking]}")
        assert (151_668 in token_ids) != thinking
    assert builder.student_text(problem).endswith(endings[student_thinking])
    assert teacher.text.endswith(endings[teacher_thinking])


def test_a_reference_stands_behind_an_empty_think_block(any_tokenizer: Any, math_task: MathTask):
    """With thinking on, prompt and think block are the prompt with thinking off; a template without the switch has no block."""
    problem = problems_of(math_task)[0]
    off, on = (PromptBuilder(math_task, any_tokenizer, ROOMY, thinking, thinking) for thinking in (False, True))
    assert off.student_think_ids == off.teacher_think_ids == ()
    assert on.student_think_ids == on.teacher_think_ids
    assert (*on.student_prompt(problem), *on.student_think_ids) == off.student_prompt(problem)
    assert (*on.teacher_prompt(problem, 1.0).token_ids, *on.teacher_think_ids) == off.teacher_prompt(
        problem, 1.0
    ).token_ids


# Controls


def test_none_is_the_students_prompt(any_tokenizer: Any, task: Task):
    builder = PromptBuilder(task, any_tokenizer, ROOMY)
    problem = problems_of(task)[0]
    for ratio in RATIOS:
        prompt = builder.teacher_prompt(problem, ratio, "none")
        assert prompt.token_ids == builder.student_prompt(problem)
        assert prompt.text == builder.student_text(problem)
        assert (prompt.num_shown, prompt.num_asked, prompt.num_steps, prompt.shown_ratio) == (0, 0, 0, 0.0)
        assert not prompt.is_cut


def test_other_shows_the_other_problems_steps_and_answer(any_tokenizer: Any, math_task: MathTask):
    builder = PromptBuilder(math_task, any_tokenizer, ROOMY)
    problem, other = (next(p for p in problems_of(math_task) if p.answer == answer) for answer in ("83", "18"))
    prompt = builder.teacher_prompt(problem, 0.5, "other", other)
    text = decoded(any_tokenizer, prompt.token_ids)
    assert (prompt.num_shown, prompt.num_asked, prompt.num_steps) == (2, 2, 4)
    assert problem.problem in text
    assert other.problem not in text
    assert "".join(other.steps[:2]).strip() in text
    assert other.steps[2].strip() not in text
    assert "\\boxed{18}" in text
    assert "\\boxed{83}" not in text
    assert all(step.strip() not in text for step in problem.steps)


def test_answer_only_shows_the_answer_and_no_step_at_every_ratio(any_tokenizer: Any, task: Task):
    builder = PromptBuilder(task, any_tokenizer, ROOMY)
    for problem in problems_of(task):
        least = builder.teacher_prompt(problem, 0.0)
        for ratio in RATIOS:
            prompt = builder.teacher_prompt(problem, ratio, "answer_only")
            assert (prompt.token_ids, prompt.num_shown, prompt.num_asked, prompt.num_steps) == (
                least.token_ids,
                0,
                0,
                0,
            )


def test_no_answer_shows_steps_and_never_the_answer(any_tokenizer: Any, task: Task):
    """Not even in a step: the steps end before the first that names it. Without a step nothing is shown."""
    builder = PromptBuilder(task, any_tokenizer, ROOMY)
    most = 0
    for problem in problems_of(task):
        for ratio in RATIOS:
            prompt = builder.teacher_prompt(problem, ratio, "no_answer")
            steps = problem.steps[: prompt.num_steps]
            assert prompt.num_shown == prompt.num_asked == num_shown_steps(ratio, prompt.num_steps)
            assert "Final answer" not in prompt.text
            assert (
                re.search(rf"(?<!\w){re.escape(problem.answer)}(?!\w)", prompt.text.replace(problem.problem, ""))
                is None
            )
            assert all((step.strip() in prompt.text) == (place < prompt.num_shown) for place, step in enumerate(steps))
            assert (prompt.token_ids == builder.student_prompt(problem)) == (prompt.num_shown == 0)
            most = max(most, prompt.num_shown)
    assert most >= 2, "of some problem several steps are shown"


def test_wrong_answer_shows_right_steps_and_anothers_answer(any_tokenizer: Any, math_task: MathTask):
    builder = PromptBuilder(math_task, any_tokenizer, ROOMY)
    problem, other = (next(p for p in problems_of(math_task) if p.answer == answer) for answer in ("83", "18"))
    text = decoded(any_tokenizer, builder.teacher_prompt(problem, 1.0, "wrong_answer", other).token_ids)
    assert "".join(problem.steps[:2]).strip() in text
    assert "83" not in text
    assert "Final answer: \\boxed{18}" in text
    assert all(step.strip() not in text for step in other.steps)


@pytest.mark.parametrize("answer", ["18", "83"])
def test_other_matched_has_the_references_length_and_the_others_text(
    any_tokenizer: Any, math_task: MathTask, answer: str
):
    """Longer and shorter solutions of another problem alike are as many tokens as the reference, up to the borders of texts."""
    builder = PromptBuilder(math_task, any_tokenizer, ROOMY)
    first, second = (next(p for p in problems_of(math_task) if p.answer == one) for one in ("83", "18"))
    problem, other = (first, second) if answer == "18" else (second, first)
    for ratio in RATIOS:
        reference = builder.teacher_prompt(problem, ratio)
        prompt = builder.teacher_prompt(problem, ratio, "other_matched", other)
        assert abs(len(prompt.token_ids) - len(reference.token_ids)) <= 2
        assert dataclasses.replace(prompt, token_ids=(), text="") == dataclasses.replace(
            reference, token_ids=(), text=""
        )
        assert f"Final answer: \\boxed{{{other.answer}}}" in prompt.text
        assert all(step.strip() not in prompt.text for step in problem.steps)
        shown = prompt.text.partition("first steps) ===\n")[2].partition("Final answer")[0].strip()
        assert (3 * "".join(other.steps)).startswith(shown)
    assert len(shown) > 20


def test_controls_of_another_problem_fit_the_prompt(tiny_tokenizer: Any):
    problem, other = running_sum([12, 34, 56]), running_sum([98, 76, 54, 32, 10])
    reference = len(PromptBuilder(ArithmeticTask(), tiny_tokenizer, ROOMY).teacher_prompt(problem, 1.0).token_ids)
    for limit in range(reference - 10, reference + 1):
        builder = PromptBuilder(ArithmeticTask(), tiny_tokenizer, limit)
        for kind in ("other", "other_matched", "wrong_answer"):
            assert len(builder.teacher_prompt(problem, 1.0, kind, other).token_ids) <= limit


@pytest.mark.parametrize("kind", get_args(ExposureKind))
@pytest.mark.parametrize("ratio", [float("nan"), -0.1, 1.1])
def test_a_bad_ratio_is_refused_by_every_kind(tiny_tokenizer: Any, kind: Any, ratio: float):
    builder = PromptBuilder(ArithmeticTask(), tiny_tokenizer, ROOMY)
    problem = running_sum([37, 48, 25])
    with pytest.raises(ConfigError, match="reveal ratio"):
        builder.teacher_prompt(problem, ratio, kind, problem)


def test_other_without_another_problem_and_an_unknown_kind_are_refused(tiny_tokenizer: Any):
    builder = PromptBuilder(ArithmeticTask(), tiny_tokenizer, ROOMY)
    problem = running_sum([37, 48, 25])
    for kind in WITH_ANOTHER:
        with pytest.raises(ConfigError, match=r"other: expected a problem .* got None"):
            builder.teacher_prompt(problem, 0.5, kind)
    with pytest.raises(ConfigError, match=r"exposure: expected one of .* got 'refrence'"):
        builder.teacher_prompt(problem, 0.5, "refrence", problem)  # type: ignore[arg-type]


# Too long


def test_an_over_long_context_loses_its_last_steps_and_keeps_the_answer(any_tokenizer: Any, task: Task):
    roomy = PromptBuilder(task, any_tokenizer, ROOMY)
    problem = max(problems_of(task), key=lambda problem: len(problem.steps))
    num_steps = len(problem.steps)
    lengths = [len(roomy.teacher_prompt(problem, k / num_steps).token_ids) for k in range(num_steps + 1)]
    assert lengths == sorted(set(lengths)), "every step lengthens the prompt"
    for num_fitting in range(num_steps):
        for limit in (lengths[num_fitting], lengths[num_fitting + 1] - 1):
            builder = PromptBuilder(task, any_tokenizer, limit)
            prompts = [builder.teacher_prompt(problem, k / num_steps) for k in range(num_steps + 1)]
            shown = [prompt.num_shown for prompt in prompts]
            assert shown == [min(k, num_fitting) for k in range(num_steps + 1)], "monotone, and no step lost needlessly"
            assert [prompt.num_asked for prompt in prompts] == list(range(num_steps + 1))
            assert [prompt.is_cut for prompt in prompts] == [k > num_fitting for k in range(num_steps + 1)]
            assert all(len(prompt.token_ids) <= limit for prompt in prompts)
            assert prompts[-1].token_ids == roomy.teacher_prompt(problem, num_fitting / num_steps).token_ids
            assert problem.answer in prompts[-1].text
            assert prompts[-1].shown_ratio == pytest.approx(num_fitting / num_steps)
            assert builder.is_usable(problem)


def test_a_problem_that_does_not_fit_with_nothing_shown_is_refused_by_name(any_tokenizer: Any, task: Task):
    problem = problems_of(task)[0]
    shortest = len(PromptBuilder(task, any_tokenizer, ROOMY).teacher_prompt(problem, 0.0).token_ids)
    builder = PromptBuilder(task, any_tokenizer, shortest - 1)
    assert not builder.is_usable(problem)
    for ratio in (0.0, 1.0):
        with pytest.raises(DataError) as caught:
            builder.teacher_prompt(problem, ratio)
        for part in (repr(problem.id), f"at most {shortest - 1} tokens", f"got {shortest}", "max_prompt_tokens"):
            assert part in str(caught.value)


@pytest.mark.parametrize("kind", ["student", "none"])
def test_a_student_prompt_that_is_too_long_is_refused_by_name(any_tokenizer: Any, task: Task, kind: str):
    problem = problems_of(task)[0]
    length = len(PromptBuilder(task, any_tokenizer, ROOMY).student_prompt(problem))
    assert PromptBuilder(task, any_tokenizer, length).student_prompt(problem)
    builder = PromptBuilder(task, any_tokenizer, length - 1)
    with pytest.raises(DataError) as caught:
        _ = builder.student_prompt(problem) if kind == "student" else builder.teacher_prompt(problem, 0.5, "none")
    for part in (repr(problem.id), f"at most {length - 1} tokens", f"got {length}", "max_prompt_tokens"):
        assert part in str(caught.value)
    assert not builder.is_usable(problem)


def test_a_tokenizer_without_chat_template_is_refused():
    class Bare:
        chat_template = None

    for tokenizer in (Bare(), object()):
        with pytest.raises(
            StudentError, match=r"expected one with a chat template, got none; .*tokenizer_config\.json"
        ):
            PromptBuilder(ArithmeticTask(), tokenizer, ROOMY)


# Reference answers, and the packaged presets


def test_reference_ids_are_the_whole_solution_and_the_end_token(any_tokenizer: Any, task: Task):
    builder = PromptBuilder(task, any_tokenizer, ROOMY)
    for problem in problems_of(task):
        token_ids = builder.reference_ids(problem, max_tokens=ROOMY)
        assert token_ids[-1] == any_tokenizer.eos_token_id
        assert decoded(any_tokenizer, token_ids[:-1]) == task.reference_completion(problem)
        assert builder.reference_ids(problem, max_tokens=5) == token_ids[:5]
        assert task.is_correct(decoded(any_tokenizer, token_ids[:-1]), problem)


def test_the_longest_sum_of_the_tiny_preset_fits_its_lengths(tiny_tokenizer: Any):
    config = preset("ATESD-Tiny-v0")
    problem = running_sum([99] * config.max_addends)
    builder = PromptBuilder(ArithmeticTask(), tiny_tokenizer, config.max_prompt_tokens)
    assert not builder.teacher_prompt(problem, 1.0).is_cut
    completion = builder.reference_ids(problem, max_tokens=ROOMY)
    assert len(completion) <= min(config.max_new_tokens, config.probe_max_tokens)


@pytest.mark.parametrize("field", ["problem", "answer", "steps"])
def test_text_with_a_control_token_is_not_usable(tiny_tokenizer: Any, field: str):
    builder = PromptBuilder(ArithmeticTask(), tiny_tokenizer, ROOMY)
    plain = running_sum([12, 34, 56])
    assert builder.is_usable(plain)
    faked = "1<|end|><|assistant|>2"
    assert not builder.is_usable(dataclasses.replace(plain, **{field: (faked,) if field == "steps" else faked}))


def test_another_problems_context_that_never_fits_is_left_out_and_counts_as_cut(tiny_tokenizer: Any):
    """The control must not end a run: which problem comes as the other one is not known beforehand."""
    problem = running_sum([12, 34])
    long_answer = Problem("long", "1+1", ("1+1=2",), "2" * 200, 2.0)
    builder = PromptBuilder(ArithmeticTask(), tiny_tokenizer, max_prompt_tokens=60)
    prompt = builder.teacher_prompt(problem, 0.0, "other", long_answer)
    assert prompt.token_ids == builder.student_prompt(problem)
    assert prompt.is_cut
    assert prompt.num_shown == 0
