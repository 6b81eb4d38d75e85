"""Our controllers inside TRL's trainer: prompts and gradients are our own loop's, and the files are a run's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PrinterCallback, TrainerCallback

from analysis import load_runs
from atesd_env.config import EnvConfig, preset
from atesd_env.distillation.statistics import UpdateStatistics
from atesd_env.errors import ConfigError
from atesd_env.population.population import Population
from atesd_env.student.model import Student, bare_copy
from tests.trl_batches import rollouts_of

pytest.importorskip("trl", reason="needs the package trl (pip install atesd-env[trl])")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning"),
    pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'"),
]

SIZES: dict[str, Any] = {"num_rollouts": 4, "windows": 2, "hold_window": 2, "probe_size": 3, "max_new_tokens": 40}


def attached(config: EnvConfig, student: Student, folder: Path, agent: str, **changes: Any) -> tuple[Any, Any]:
    """A trainer of TRL's for a copy of the student, and the callback that is attached to it."""
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    from atesd.trl import ExposureCallback

    exposure = ExposureCallback(agent, config, student.tokenizer, folder / "run")
    fields = {
        "output_dir": str(folder / "trl"),
        "max_steps": config.windows * config.hold_window,
        "per_device_train_batch_size": config.num_rollouts,
        "num_generations": 1,
        "learning_rate": 0.0,
        "max_grad_norm": 1e9,
        "max_completion_length": config.max_new_tokens,
        "distillation_mode": "full_logits",
        "distillation_alpha": 0.0,
        "distillation_is_clip": None,
        "teacher_model_kind": "base",
        "shuffle_dataset": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    lora = LoraConfig(r=config.lora_r, lora_alpha=config.lora_alpha, target_modules=list(config.lora_targets))
    trainer = SDFTTrainer(
        model=bare_copy(student).model,
        args=SDFTConfig(**(fields | changes)),
        train_dataset=exposure.dataset(),
        processing_class=student.tokenizer,
        peft_config=lora,
    )
    exposure.attach(trainer)
    trainer.remove_callback(PrinterCallback)
    return trainer, exposure


def trained(config: EnvConfig, population: Population, folder: Path) -> dict[str, Any]:
    """What a short training with TRL was: the callback, each step's batch, and each step's gradient norm before clipping."""
    trainer, exposure = attached(config, population.student, folder, "linear:0.5:1")
    set_peft_model_state_dict(trainer.model, population.adapters.state_dict(0))
    batches: list[Any] = []
    prepare = trainer._prepare_training_batch

    def watched(inputs: Any) -> Any:
        batches.append((prepare(inputs), exposure.decision.reveal_ratios.tolist()))
        return batches[-1][0]

    trainer._prepare_training_batch = watched
    norms: list[float] = []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            gradients = [one.grad.norm() for one in model.parameters() if one.grad is not None]
            norms.append(float(torch.stack(gradients).norm()))

    trainer.add_callback(Watch())
    trainer.train()
    return {"exposure": exposure, "batches": batches, "norms": norms}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("trl")
    config = preset("ATESD-Tiny-v0", **SIZES, learning_rate=0.0, max_grad_norm=1e9)
    assert isinstance(config, EnvConfig)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        population = Population(config)
        population.reset(0, 0)
        flat = population.adapters.flat
        flat.copy_(0.05 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(1)))
        found = trained(config, population, folder)
    ours = [own_update(population, step, batch, ratio) for step, (batch, (ratio,)) in enumerate(found["batches"])]
    return found | {"population": population, "folder": folder, "ours": ours}


def own_update(population: Population, step: int, batch: Any, ratio: float) -> UpdateStatistics:
    """Our own loop's update on TRL's rollouts; at a learning rate of 0 the adapter stays."""
    problems = [population.training_problem(0, 4 * step + place) for place in range(4)]
    prompts = [population.instances[0].builder.teacher_prompt(problem, ratio).token_ids for problem in problems]
    rollouts = rollouts_of(batch)
    return population.learner.update(0, rollouts, prompts)


def test_ratios_are_the_controllers_window_by_window(seen: dict[str, Any]):
    assert [ratios for _, ratios in seen["batches"]] == [[0.5], [0.5], [0.75], [0.75]]


def test_prompts_and_gradients_are_our_own_loops_at_the_same_ratio(seen: dict[str, Any]):
    population, builder = seen["population"], seen["population"].instances[0].builder
    for step, (batch, (ratio,)) in enumerate(seen["batches"]):
        problems = [population.training_problem(0, 4 * step + place) for place in range(4)]
        width = batch["completion_ids"].shape[1]
        prompts = [builder.teacher_prompt(problem, ratio).token_ids for problem in problems]
        for row, (problem, prompt) in enumerate(zip(problems, prompts, strict=True)):
            student = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
            teacher = batch["teacher_input_ids"][row, :-width][batch["teacher_attention_mask"][row, :-width].bool()]
            assert student.tolist() == list(builder.student_prompt(problem))
            assert teacher.tolist() == list(prompt)
        assert seen["norms"][step] == pytest.approx(seen["ours"][step].grad_norm, rel=1e-3)


def test_the_files_are_a_runs(seen: dict[str, Any]):
    """Read by the analysis; what the rows say is what our own loop measures of the same rollouts and probe."""
    frame = load_runs(seen["folder"])
    assert frame["window"].tolist() == [1, 2]
    assert frame["update"].tolist() == [2, 4]
    assert frame["status"].tolist() == ["running", "truncated"]
    assert frame["exposure/reveal_ratio"].tolist() == [0.5, 0.75]
    population, instance = seen["population"], seen["population"].instances[0]
    nll = instance.probe.nll(0)
    assert frame["probe/nll"].tolist() == pytest.approx([nll, nll], rel=1e-4)
    for window, ratio in enumerate((0.5, 0.75)):
        grounded = instance.probe.grounded(0, [ratio] * 3, "reference", population.learner.teacher_bank, is_fixed=True)
        assert frame["probe/grounded"][window] == pytest.approx(grounded, rel=1e-3, abs=1e-5)
        pair = seen["ours"][2 * window : 2 * window + 2]
        for column, name in (
            ("loss", "loss"),
            ("mismatch", "mismatch"),
            ("entropy", "student_entropy"),
            ("grad_norm", "grad_norm"),
        ):
            assert frame[f"student/{column}"][window] == pytest.approx(
                np.mean([getattr(one, name) for one in pair]), rel=1e-3
            )
        lengths = [
            seen["batches"][step][0]["completion_mask"].sum(dim=1).tolist() for step in (2 * window, 2 * window + 1)
        ]
        assert frame["rollout/length"][window] == pytest.approx(np.mean(lengths))
        assert frame["rollout/num_tokens"][window] == np.sum(lengths)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logging_steps": 5}, r"logging_steps: expected 1 in SDFTConfig, got 5"),
        (
            {"save_strategy": "steps", "save_steps": 3},
            r"save_steps: expected a multiple of hold_window \(2\) in SDFTConfig, got 3",
        ),
        (
            {"steps_per_generation": 3},
            r"steps_per_generation: expected whole generations in a hold window \(2 updates\) .*, got 3",
        ),
        (
            {"per_device_train_batch_size": 2},
            r"per_device_train_batch_size: expected num_rollouts \(4\) in all .*, got 2",
        ),
    ],
)
def test_a_trainer_that_would_be_another_run_is_refused(
    seen: dict[str, Any], tmp_path: Path, changes: dict[str, Any], message: str
):
    with pytest.raises(ConfigError, match=message):
        attached(seen["exposure"].config, seen["population"].student, tmp_path, "beta", **changes)


class BrokenOff(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt


def test_a_run_that_was_broken_off_goes_on_as_if_it_had_not_been(seen: dict[str, Any], tmp_path: Path):
    """Its third row is written, its last checkpoint is the second window's: rows, controller and student are those of one go."""
    sizes = SIZES | {"windows": 4, "hold_window": 1}
    config, student = preset("ATESD-Tiny-v0", **sizes), seen["population"].student
    fields = {"learning_rate": 2e-3, "save_strategy": "steps", "save_steps": 2}

    def start(folder: Path, agent: str = "beta:batch_size=2:credit=one-step") -> tuple[Any, Any]:
        return attached(config, student, folder, agent, **fields)

    whole, exposure = start(tmp_path / "whole")
    whole.train()
    trainer, broken = start(tmp_path / "again")
    trainer.add_callback(BrokenOff())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    broken.on_train_end(None, None, None)  # closes its files, as the end of a process would
    assert len(load_runs(tmp_path / "again")) == 3
    other, _ = start(tmp_path / "again", "beta:batch_size=3:credit=one-step")
    with pytest.raises(ConfigError, match="agent"):
        other.train(resume_from_checkpoint=True)
    trainer, resumed = start(tmp_path / "again")
    trainer.train(resume_from_checkpoint=True)
    rows, expected = (load_runs(tmp_path / name).drop(columns="time/window_sec") for name in ("again", "whole"))
    assert_frame_equal(rows, expected, check_exact=True)
    assert expected["agent/num_updates"].iloc[-1] > 1
    assert_same_arrays(resumed.controller.agent.arrays(), exposure.controller.agent.arrays())
    assert_same_arrays(*(get_peft_model_state_dict(one.model) for one in (trainer, whole)))


def assert_same_arrays(ours: Any, theirs: Any) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert np.array_equal(np.asarray(array), np.asarray(theirs[name])), name
