"""What an action decides beside reveal ratios: the version of the reference, and windows without a teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import atesd_env  # noqa: F401  (registers the ids)
from atesd_env.config import EnvConfig
from atesd_env.errors import ConfigError, DataError
from atesd_env.population.decision import decide

SMALL: dict[str, Any] = {
    "num_rollouts": 2,
    "probe_size": 3,
    "windows": 3,
    "hold_window": 1,
    "max_new_tokens": 8,
    "probe_accuracy_every": 0,
}


@pytest.fixture(scope="module")
def views_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose versions share no line."""
    rows = [
        {
            "problem": f"{i}+{i + 1}=?",
            "solution": f"{i}+1 is {i + 1}\nplus {i} is {2 * i + 1}",
            "answer": str(2 * i + 1),
            "views": {"gist": "add both", "points": "first one\nthen the other"},
        }
        for i in range(10, 24)
    ]
    path = tmp_path_factory.mktemp("views") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packaged student reads letter by letter: requests must be short to fit its context."""
    for name, words in {"_REFERENCE_BEGINS": "=", "_OWN_WORDS": "!", "_REFERENCE_ENDS": "="}.items():
        monkeypatch.setattr(f"atesd_env.tasks.wording.{name}", words)
    monkeypatch.setattr("atesd_env.tasks.math.MathTask.closing_request", "?")


def with_views(path: Path, **fields: Any) -> gym.Env[Any, Any]:
    lengths = {"max_prompt_tokens": 200, "probe_max_tokens": 20}
    return gym.make("ATESD-Tiny-v0", task="math", data_path=str(path), **SMALL, **lengths, **fields)


def shown(env: gym.Env[Any, Any]) -> list[str]:
    """What the last update's teacher prompts hold between the reference's markers."""
    prompts = env.unwrapped.population.batches[0].teacher_prompts  # type: ignore[attr-defined]
    return [prompt.text.partition("\n=\n")[2].partition("\nFinal answer")[0] for prompt in prompts]


def test_an_actions_entries():
    config = EnvConfig(
        task="math", data_path="gsm8k", groups=2, action_views="gist, points,solution", action_retire=True
    )
    assert config.action_size == 4
    assert config.views == ("gist", "points", None)
    for entry, view in ((0.0, 0), (0.33, 0), (0.34, 1), (0.66, 1), (0.67, 2), (1.0, 2)):
        decision = decide(config, np.array([0.2, 0.8, entry, 0.5]))
        assert decision.reveal_ratios.tolist() == [0.2, 0.8]
        assert (decision.view, decision.is_retired) == (view, False)
        assert decision.columns == {"exposure/view": view, "exposure/retired": 0}
    assert decide(config, np.array([0.2, 0.8, 0.0, 0.51])).is_retired
    plain = decide(EnvConfig(), np.array([1.0]))
    assert (plain.view, plain.is_retired, plain.columns) == (0, False, {})


@pytest.mark.parametrize("fields", [{"view": "gist"}, {"action_views": "gist,solution"}])
def test_generated_problems_have_no_views(fields: Any):
    with pytest.raises(ConfigError, match=r"view, action_views: expected None with task='arithmetic'"):
        EnvConfig(**fields)
    with pytest.raises(ConfigError, match=r"view: expected None where the action picks it"):
        EnvConfig(task="math", data_path="gsm8k", view="gist", action_views="gist,solution")


def test_the_action_picks_the_version_that_the_teacher_sees(views_file: Path):
    env = with_views(views_file, action_views="gist,points,solution")
    assert env.action_space.shape == (2,)
    env.reset(seed=0)
    grounded = []
    for entry, text in ((0.1, "add both"), (0.5, "first one\nthen the other"), (0.9, "is")):
        info = env.step(np.array([1.0, entry], dtype=np.float32))[-1]
        assert info["exposure/view"] == int(entry * 3)
        assert all(text in one for one in shown(env))
        assert all(("add both" in one) == (text == "add both") for one in shown(env))
        grounded.append(info["probe/grounded"])
    assert len(set(grounded)) == 3, "the probe's teacher sees the same version"


def test_one_version_for_a_whole_run(views_file: Path):
    env = with_views(views_file, view="points")
    env.reset(seed=0)
    info = env.step(np.array([0.5], dtype=np.float32))[-1]
    assert "exposure/view" not in info
    assert shown(env) == ["first one"] * 2


def test_a_version_that_a_row_lacks_is_named(views_file: Path):
    with pytest.raises(DataError, match=r"problem '.*': expected a view 'ful' of its solution .*\['gist', 'points'\]"):
        with_views(views_file, view="ful").reset(seed=0)


def test_a_retired_window_trains_nothing_and_says_so():
    """Adapter, problems and random numbers stay; the next window is what it would have been, bit for bit."""
    env = gym.make("ATESD-Tiny-v0", action_retire=True, **SMALL)
    plain = gym.make("ATESD-Tiny-v0", **SMALL)
    env.reset(seed=3)
    plain.reset(seed=3)
    before = env.unwrapped.population.adapters.flat.clone()  # type: ignore[attr-defined]
    first_nll = env.unwrapped.population.runs[0].probe_nll  # type: ignore[attr-defined]
    _, _, _, _, retired = env.step(np.array([0.5, 1.0], dtype=np.float32))
    assert (env.unwrapped.population.adapters.flat == before).all()  # type: ignore[attr-defined]
    assert (retired["exposure/retired"], retired["update"], retired["rollout/num_tokens"]) == (1, 0, 0)
    assert retired["exposure/reveal_ratio"] == 0.5
    assert retired["student/loss"] is retired["rollout/length"] is retired["rollout/loop_rate"] is None
    assert (retired["probe/nll"], retired["reward/progress"]) == (first_nll, 0.0)
    assert env.unwrapped.num_trained_tokens == 0  # type: ignore[attr-defined]
    taught = env.step(np.array([0.5, 0.0], dtype=np.float32))[-1]
    expected = plain.step(np.array([0.5], dtype=np.float32))[-1]
    assert taught.pop("exposure/retired") == 0
    assert taught | {"window": 1} == expected


def test_students_retire_one_by_one():
    envs = gym.make_vec("ATESD-Tiny-v0", num_envs=2, action_retire=True, **SMALL)
    envs.reset(seed=0)
    infos = envs.step(np.array([[0.5, 1.0], [0.5, 0.0]], dtype=np.float32))[-1]
    assert infos["update"].tolist() == [0, 1]
    assert infos["exposure/retired"].tolist() == [1, 0]


def test_rows_tell_how_healthy_rollouts_are(monkeypatch: pytest.MonkeyPatch):
    env = gym.make("ATESD-Tiny-v0", **SMALL | {"num_rollouts": 8, "max_new_tokens": 40})
    env.reset(seed=0)
    info = env.step(np.array([0.5], dtype=np.float32))[-1]
    rollouts = env.unwrapped.population.batches[0].rollouts  # type: ignore[attr-defined]
    lengths = sorted(rollouts.lengths.tolist())
    assert [info[f"rollout/length_p{share}"] for share in (10, 50, 90)] == [lengths[0], lengths[3], lengths[6]]
    assert info["rollout/loop_rate"] == 0.0
    answers = [ids[mask].tolist() for ids, mask in zip(rollouts.completion_ids, rollouts.completion_mask, strict=True)]
    runs = [[tuple(one[i : i + 4]) for i in range(len(one) - 3)] for one in answers]
    assert info["rollout/repetition"] == pytest.approx(np.mean([1 - len(set(run)) / len(run) for run in runs]))


def test_loops_break_a_student_where_the_rule_is_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("atesd_env.population.totals.ends_in_a_loop", lambda token_ids: True)
    for rate, broken in ((None, False), (1.0, False), (0.9, True)):
        env = gym.make("ATESD-Tiny-v0", **SMALL, collapse_loop_rate=rate)
        env.reset(seed=0)
        _, reward, terminated, _, info = env.step(np.array([0.5], dtype=np.float32))
        assert info["rollout/loop_rate"] == 1.0
        assert terminated == broken
        if broken:
            assert info["termination_reason"].startswith("collapsed: 100% of the rollouts end in a loop")
            assert reward == -env.unwrapped.config.collapse_nll  # type: ignore[attr-defined]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("ratio", [0.1, 0.7])
def test_one_ratio_for_all_problems_is_that_action(groups: int, ratio: float):
    """Adapter, observation, reward and every number of the row, to the bit; beside them stand the problems' ratios."""
    fields = {**SMALL, "hold_window": 2, "num_rollouts": 3, "probe_accuracy_every": 1, "groups": groups}
    plain, env = gym.make("ATESD-Tiny-v0", **fields), gym.make("ATESD-Tiny-v0", **fields, action_ratios="problem")
    envs = gym.make_vec("ATESD-Tiny-v0", num_envs=2, **fields, action_ratios="problem")
    assert env.action_space.shape == (6,)
    for one in (plain, env, envs):
        one.reset(seed=3)
    *expected, info = plain.step(np.full(groups, ratio))
    *found, its_info = env.step(np.full(6, ratio))
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1:] == expected[1:]
    by_problem = {f"exposure/problem_ratio_{number}": ratio for number in range(6)}
    assert its_info == {**info, **by_problem}
    assert torch.equal(*(one.unwrapped.population.adapters.flat for one in (env, plain)))  # type: ignore[attr-defined]
    *_, infos = envs.step(np.array([np.full(6, ratio), np.linspace(0, 1, 6)]))
    assert infos["probe/nll"][0] == pytest.approx(info["probe/nll"], abs=1e-3)
    assert infos["exposure/problem_ratio_5"].tolist() == [ratio, 1.0]


def test_each_problem_of_a_window_is_shown_its_own_ratio():
    env: Any = gym.make("ATESD-Tiny-v0", **{**SMALL, "hold_window": 2, "groups": 2}, action_ratios="problem").unwrapped
    env.reset(seed=0)
    problems = env.population.window_problems(0)
    ratios = np.array([0.1, 0.4, 1.0, 0.6])
    info = env.step(ratios)[-1]
    batch = env.population.batches[0]
    assert list(batch.problems) == problems[2:], "the second update's"
    assert batch.reveal_ratios == [1.0, 0.6]
    assert [prompt.num_asked for prompt in batch.teacher_prompts] == [
        int(ratio * len(problem.steps)) for ratio, problem in zip((1.0, 0.6), problems[2:], strict=True)
    ]
    assert info["exposure/reveal_ratio"] == pytest.approx(ratios.mean())
    groups = np.array([env.population.instances[0].groups.group(problem) for problem in problems])
    for group in range(2):
        expected = ratios[groups == group].mean() if group in groups else ratios.mean()
        assert info[f"exposure/reveal_ratio_{group}"] == pytest.approx(expected)
    assert len({*groups}) == 2, "or the means by group show nothing"


def test_students_without_problems_have_no_ratio_for_each():
    with pytest.raises(ConfigError, match=r"action_ratios: expected 'group' with a closed form"):
        gym.make("ATESD-Toy-v0", action_ratios="problem")
