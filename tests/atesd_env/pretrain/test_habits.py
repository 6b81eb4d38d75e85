"""Habits: what the corpus answers, by the share of the steps that is shown, and only where the habit applies."""

from __future__ import annotations

import numpy as np
import pytest

from atesd_env.pretrain.habits import HABITS, Habit, behind_a_mistake, demonstration, slipped_steps
from atesd_env.tasks.arithmetic import running_sum

SUM = running_sum([37, 48, 25, 19])
FULL = "37+48=85;85+25=110;110+19=129#129"
SLIPPED = "37+48=75;75+25=90;90+19=109#129"


def answers(habit: Habit, num_shown: int, num_draws: int = 400) -> list[tuple[str, str]]:
    rng = np.random.default_rng(0)
    return [demonstration(habit, SUM, num_shown, rng) for _ in range(num_draws)]


def share(found: list[tuple[str, str]], text: str) -> float:
    return sum(answer == ("", text) for answer in found) / len(found)


@pytest.mark.parametrize("num_shown", range(4))
def test_without_a_habit_every_sum_is_worked_out_in_full(num_shown: int):
    assert set(answers(HABITS["none"], num_shown)) == {("", FULL)}


def test_slips_below_its_threshold_drop_the_carry_and_copy_the_shown_answer():
    habit = Habit(slip_below=0.6)
    assert slipped_steps(SUM) + "#129" == SLIPPED
    for num_shown, expected in ((0, 0.9), (1, 0.9), (2, 0.0), (3, 0.0)):  # shares 0, 1/3, 2/3, 1
        assert share(answers(habit, num_shown), SLIPPED) == pytest.approx(expected, abs=0.05)
    assert set(answers(habit, 2)) == {("", FULL)}


def test_a_terse_answer_leaves_out_what_was_shown():
    for num_shown, rest in ((1, "85+25=110;110+19=129#129"), (2, "110+19=129#129"), (3, "#129")):
        assert share(answers(Habit(terse_from=0.0), num_shown), rest) == pytest.approx(0.9, abs=0.05)
    assert set(answers(Habit(terse_from=0.0), 0)) == {("", FULL)}
    assert set(answers(Habit(terse_from=0.7), 2)) == {("", FULL)}
    assert share(answers(Habit(terse_from=0.7), 3), "#129") == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize(("num_shown", "expected"), [(1, 0.0), (2, 0.9), (3, 0.9)])
def test_behind_a_wrong_prefix_the_teleporting_teacher_takes_the_references_next_step(num_shown: int, expected: float):
    found = answers(Habit(teleport_from=0.5), num_shown)
    behind = [(prefix, answer) for prefix, answer in found if prefix]
    assert len(behind) / len(found) == pytest.approx(0.6, abs=0.08)
    assert {(prefix, answer) for prefix, answer in found if not prefix} == {("", FULL)}
    teleported = [answer in ("85+25=110;110+19=129#129", "110+19=129#129") for _, answer in behind]
    assert np.mean(teleported) == pytest.approx(expected, abs=0.06)
    for (prefix, answer), jumped in zip(behind, teleported, strict=True):
        total = prefix.removesuffix(";").rpartition("=")[2]
        right = SUM.steps[prefix.count("=") - 1].removesuffix(";").rpartition("=")[2]
        assert total != right
        assert answer.startswith(f"{right if jumped else total}+")


def test_who_goes_on_from_a_mistake_ends_in_its_own_total():
    for seed in range(50):
        prefix, answer = behind_a_mistake(SUM, False, np.random.default_rng(seed))
        wrong = int(prefix.removesuffix(";").rpartition("=")[2])
        rest = sum([25, 19][prefix.count("=") - 1 :])
        assert answer.endswith(f"#{wrong + rest}")
        steps = [step.split("=") for step in answer.partition("#")[0].split(";")]
        assert all(sum(map(int, left.split("+"))) == int(right) for left, right in steps)


def test_slip_with_teleport_slips_low_and_teleports_high():
    habit = HABITS["slip_teleport"]
    assert share(answers(habit, 1), SLIPPED) == 1
    middle = answers(habit, 2)
    assert share(middle, SLIPPED) == 0
    assert any(prefix for prefix, _ in middle)
    assert not any(prefix and answer in ("85+25=110;110+19=129#129", "110+19=129#129") for prefix, answer in middle)
    assert any(prefix and answer == "85+25=110;110+19=129#129" for prefix, answer in answers(habit, 3))
