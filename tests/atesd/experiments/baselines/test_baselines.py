"""Baselines: what they train and measure, the files they write, and what they refuse."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import agents
from analysis import load_runs
from analysis.statistics import compare_agents, final_outcomes
from atesd.commands.cli import main
from atesd.experiments.baselines.environment import BaselineEnv, WindowTraining
from atesd.experiments.resuming import CHECKPOINT_FOLDER
from atesd.experiments.run import execute
from atesd.experiments.specs import RunSpec, plan_runs
from atesd.experiments.training.training import TrainSpec, train
from atesd_env.config import EnvConfig, preset
from atesd_env.errors import ConfigError, NoEpisodeError
from atesd_env.population.problems import next_problems
from atesd_env.student.packaged import TINY_DIRECTORY
from tests.runs import rows_of, rows_without_times

needs_trl = pytest.mark.skipif(
    importlib.util.find_spec("trl") is None, reason="needs the package trl (pip install atesd-env[trl])"
)

SIZES = {"windows": 2, "hold_window": 2, "num_rollouts": 4, "probe_size": 6, "max_new_tokens": 40}
CONFIG = preset("ATESD-Tiny-v0", **SIZES, probe_accuracy_every=2, min_addends=2)
COMPARED = ("fixed:1", "base", "sft", "grpo:num_generations=4:num_problems=1")


def run_of(agent: str, folder: Path, config: EnvConfig = CONFIG, seed: int = 3) -> RunSpec:
    return RunSpec("ATESD-Tiny-v0", config, agent, seed, folder)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run of each: a controller and the three baselines, on one seed."""
    out = tmp_path_factory.mktemp("compared")
    for spec in plan_runs("ATESD-Tiny-v0", CONFIG, COMPARED, [3], out):
        execute(spec)
    return out


@needs_trl
class TestRuns:
    """Runs of all baselines beside a controller's."""

    def test_all_stand_in_one_table(self, compared: Path):
        frame = load_runs(compared)
        assert set(frame["run_status"]) == {"finished"}
        metrics = ["probe/nll", "probe/accuracy"]
        comparison = compare_agents(final_outcomes(frame, metrics), metrics)
        assert set(comparison["agent"]) == set(COMPARED)
        assert comparison["to_reference"].notna().all()
        nll = comparison[comparison["metric"] == "probe/nll"].set_index("agent")
        assert nll.loc["base", ["num_updates", "num_tokens", "num_trained_tokens"]].tolist() == [0, 0, 0]
        assert nll.loc["sft", "num_tokens"] == 0 < nll.loc["sft", "num_trained_tokens"]
        for agent in (COMPARED[0], COMPARED[3]):
            assert nll.loc[agent, "num_tokens"] == nll.loc[agent, "num_trained_tokens"] > 0

    def test_they_are_measured_in_the_same_windows_from_the_same_start(self, compared: Path):
        controller, *baselines = (rows_of(spec.folder) for spec in plan_runs("", CONFIG, COMPARED, [3], compared))
        for rows in baselines:
            assert [row["window"] for row in rows] == [1, 2]
            assert set(rows[0]) == set(controller[0])
            assert rows[0]["probe/nll_before"] == controller[0]["probe/nll_before"]
            assert [row["probe/accuracy"] is None for row in rows] == [True, False]
            assert [row["status"] for row in rows] == ["running", "truncated"]
            assert all(row["exposure/reveal_ratio"] is row["reward/total"] is None for row in rows)
            assert all(row["time/window_sec"] >= row["time/update_sec"] >= 0 for row in rows)
        base, sft, grpo = baselines
        assert [row["probe/nll"] for row in base] == [base[0]["probe/nll_before"]] * 2
        assert [row["update"] for row in sft] == [row["update"] for row in grpo] == [2, 4]
        assert sft[-1]["probe/nll"] < base[-1]["probe/nll"], "SFT trains on such solutions"
        assert all(0 < row["time/rollout_sec"] < row["time/window_sec"] for row in grpo)
        assert all(row["rollout/num_tokens"] == row["rollout/length"] * 8 for row in grpo)

    def test_an_adapter_is_a_plain_peft_adapter_of_what_was_measured(self, compared: Path):
        """What the probe measured after the last window is the loss of the saved adapter through peft and transformers."""
        (folder,) = compared.glob("sft-*")
        tokenizer = AutoTokenizer.from_pretrained(TINY_DIRECTORY)
        base = AutoModelForCausalLM.from_pretrained(TINY_DIRECTORY)
        model = PeftModel.from_pretrained(base, folder / "adapter").eval()
        env = gymnasium.make("ATESD-Tiny-v0", **vars(CONFIG)).unwrapped
        instance = env.population.instances[0]  # type: ignore[attr-defined]
        losses = []
        for problem in instance.probe.problems:
            prompt = instance.builder.student_prompt(problem)
            solution = tokenizer.encode(instance.task.reference_completion(problem), add_special_tokens=False)
            ids = torch.tensor([[*prompt, *solution, tokenizer.eos_token_id]])
            labels = ids.clone()
            labels[:, : len(prompt)] = -100
            with torch.no_grad():
                losses.append(float(model(input_ids=ids, labels=labels).loss))
        assert rows_of(folder)[-1]["probe/nll"] == pytest.approx(np.mean(losses), rel=1e-4)

    def test_the_first_update_of_sft_is_on_the_controllers_problems(self, compared: Path):
        """Told by the lengths of the solutions in the order of a controller's run, which differ from problem to problem."""
        env = BaselineEnv(gymnasium.make("ATESD-Tiny-v0", **vars(CONFIG)))
        env.reset(seed=3)
        population = env.population
        update = CONFIG.num_rollouts * CONFIG.hold_window
        problems = [population.training_problem(0, number) for number in range(update)]
        lengths = [len(population.instances[0].builder.reference_ids(problem, 99)) for problem in problems]
        (folder,) = compared.glob("sft-*")
        assert rows_of(folder)[0]["update/num_tokens"] == sum(lengths)
        drawn, _ = next_problems(population.instances[0].task, 3, 0, CONFIG.num_rollouts)
        assert drawn == problems[: CONFIG.num_rollouts]

    @pytest.mark.parametrize("agent", ["sft", COMPARED[3]])
    def test_a_run_repeats_and_leaves_the_global_generators_alone(self, compared: Path, tmp_path: Path, agent: str):
        """A run that was cut off begins anew when it is resumed, and neither loses nor doubles a row."""
        states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
        spec = run_of(agent, tmp_path / "run")

        def die(_: dict[str, Any]) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            execute(spec, report=die)
        assert (tmp_path / "run" / CHECKPOINT_FOLDER).is_dir()
        reported: list[dict[str, Any]] = []
        execute(spec, resume=True, report=reported.append)
        assert [info["window"] for info in reported] == [1, 2]
        assert torch.equal(states[0], torch.get_rng_state())
        assert states[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
        (before,) = (one.folder for one in plan_runs("", CONFIG, [agent], [3], compared))
        assert rows_without_times(tmp_path / "run") == rows_without_times(before)
        reported.clear()
        execute(spec, resume=True, report=reported.append)  # finished: read, not made again
        assert [row["window"] for row in reported] == [1, 2]

    # trl 1.16 asks transformers 5.24 by older names; ``learn`` keeps that quiet.
    @pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")
    def test_grpo_learns_from_its_own_rewards(self, tmp_path: Path):
        """Rewards, prompts and groups as TRL sees them: the environment's prompts, each once for every rollout of it."""
        from atesd.experiments.baselines.trl_trainers import Grpo

        env = BaselineEnv(gymnasium.make("ATESD-Tiny-v0", **vars(CONFIG)))
        env.reset(seed=3)
        baseline = Grpo(env, 3, num_generations=2)
        trainer = baseline.make_trainer(baseline._peft_model(), baseline._arguments(str(tmp_path), 1), 1)
        builder = env.population.instances[0].builder
        rows = next(iter(trainer.get_train_dataloader()))
        assert [row["number"] for row in rows] == [0, 0, 1, 1, 2, 2, 3, 3]
        prompts, *_ = trainer._tokenize_prompts([row["prompt"] for row in rows])
        problems = baseline.problems(4)
        assert prompts == [list(builder.student_prompt(problems[row["number"]])) for row in rows]
        tokenizer = env.population.student.tokenizer
        texts = ["#" + problems[0].answer, "#1", "1", "#" + problems[1].answer]
        ids = [[*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id] for text in texts]
        ids[1] = ids[1][:-1]
        (grade,) = trainer.reward_funcs
        assert grade(completion_ids=ids, number=[0, 0, 1, 1]) == [1.0, 0.0, 0.0, 1.0]
        num_trained_tokens, counted = baseline.counted()
        assert num_trained_tokens == counted["rollout/num_tokens"] == sum(map(len, ids))
        assert (counted["rollout/success_rate"], counted["rollout/truncation_rate"]) == (0.5, 0.25)

    def test_micro_batches_fill_an_update_evenly(self, tmp_path: Path):
        from atesd.experiments.baselines.trl_trainers import Sft

        env = BaselineEnv(gymnasium.make("ATESD-Tiny-v0", **vars(CONFIG.replace(micro_batch_size=3))))
        assert Sft(env).batches(16) == {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
        assert Sft(env).batches(9) == {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("num_generations=1", "num_generations: expected a whole number from 2, got 1"),
            ("num_problems=0", "num_problems: expected a whole number from 1, got 0"),
            ("learning_rate=-1", "learning_rate: expected a number from 0, got -1"),
            ("learning_rate=fast", "learning_rate: expected a number from 0, got 'fast'"),
            ("rollouts=3", "rollouts"),
        ],
    )
    def test_a_wrong_option_is_named(self, tmp_path: Path, options: str, message: str):
        with pytest.raises(ConfigError, match=message):
            execute(run_of(f"grpo:{options}", tmp_path / "run"))

    def test_greedy_rollouts_are_refused(self, tmp_path: Path):
        with pytest.raises(ConfigError, match="temperature: expected a number above 0 for grpo, got 0"):
            execute(run_of("grpo", tmp_path / "run", CONFIG.replace(temperature=0)))


def test_runs_without_a_reveal_ratio_have_no_picture_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    small = ["--windows", "1", "--hold-window", "1", "--num-rollouts", "2", "--probe-size", "2"]
    main(["run", "--agent", "base", "--seeds", "0", "--out", str(tmp_path / "runs"), "--quiet", *small])
    shown = capsys.readouterr().out
    assert "runs: " in shown
    assert "picture: " not in shown
    assert [row["window"] for row in rows_of(tmp_path / "runs" / "base-seed0")] == [1]


def test_a_baseline_is_no_controller(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"got the baseline BaseModel, which takes none; name it in `atesd run`"):
        agents.make("atesd.experiments.baselines.base:BaseModel", gymnasium.make("ATESD-Toy-v0"))
    with pytest.raises(ConfigError, match="agent: expected one of beta"):
        agents.make("base", gymnasium.make("ATESD-Toy-v0"))
    config = preset("ATESD-Toy-v0", windows=3)
    with pytest.raises(ConfigError, match="got the baseline BaseModel"):
        train(TrainSpec("ATESD-Toy-v0", config, "base", None, 6, 0, None, (0,), tmp_path / "trained"))


def test_a_closed_form_has_nothing_to_train(tmp_path: Path):
    config = preset("ATESD-Toy-v0", windows=3)
    with pytest.raises(ConfigError, match="agent base: expected an environment whose student is a language model"):
        plan_runs("ATESD-Toy-v0", config, ["random", "base"], [0], tmp_path)
    with pytest.raises(ConfigError, match="got ToyExposureEnv, which has none to train"):
        execute(RunSpec("ATESD-Toy-v0", config, "base", 0, tmp_path / "run"))


def test_a_launchers_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The others would wait for ever for a trainer that does not call them."""
    launched = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    assert plan_runs("ATESD-Tiny-v0", CONFIG, ["fixed:1"], [0], tmp_path)
    with pytest.raises(ConfigError, match=r"agent sft: expected one process .*WORLD_SIZE=2.*without torchrun"):
        plan_runs("ATESD-Tiny-v0", CONFIG, ["fixed:1", "sft"], [0], tmp_path)


def test_without_trl_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "trl" else found(name, *rest))
    with pytest.raises(ConfigError, match=r"agent 'sft': expected the package trl, .* `pip install atesd-env\[trl\]`"):
        plan_runs("ATESD-Tiny-v0", CONFIG, ["base", "sft"], [0], tmp_path)


def test_a_student_that_breaks_ends_the_run():
    """An adapter of NaNs is what a diverged trainer hands over."""
    env = BaselineEnv(gymnasium.make("ATESD-Tiny-v0", **vars(CONFIG)))
    env.reset(seed=0)
    with pytest.raises(NoEpisodeError, match="expected a baseline that trained a window"):
        env.step(None)
    env.population.adapters.flat.fill_(math.nan)
    env.training = WindowTraining(num_updates=2)
    _, reward, terminated, truncated, info = env.step(None)
    assert (reward, terminated, truncated) == (-CONFIG.collapse_nll, True, False)
    assert info["termination_reason"].startswith("collapsed: probe NLL nan")
