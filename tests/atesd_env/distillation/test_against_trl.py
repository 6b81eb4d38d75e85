"""One update's loss and gradient against TRL's ``SDFTTrainer``: same model, adapter, problems, rollouts; reveal ratio 1.

TRL samples the batch; both score it. TRL tokenizes both prompts itself, runs the whole model through peft, and takes the
divergence of full logits by autograd; ours builds prompts with ``PromptBuilder``, writes the model out, and makes the
gradient in closed form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import set_peft_model_state_dict
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback

from atesd_env.config import EnvConfig, preset
from atesd_env.distillation.chunked import token_divergence
from atesd_env.distillation.divergence import DivergenceSpec
from atesd_env.population.population import Population
from atesd_env.student.model import bare_copy
from tests.trl_batches import rollouts_of

pytest.importorskip("trl", reason="needs the package trl (pip install atesd-env[trl])")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning"),
    pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'"),
]

NUM_ROWS = 6


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What both make of one batch: the population after our update, and TRL's trainer and batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return compared(tmp_path_factory.mktemp("trl"))


def config_of(**changes: Any) -> EnvConfig:
    return preset("ATESD-Tiny-v0", num_rollouts=NUM_ROWS, probe_size=2, learning_rate=0.0, max_grad_norm=1e9, **changes)


def compared(folder: Path) -> dict[str, Any]:
    from benchmarks.trl_sdft import sdft_trainer

    config = config_of()
    population = Population(config)
    population.reset(0, 0)
    # The adapter is not at its beginning, where student and teacher are one model but for the prompt.
    flat = population.adapters.flat
    flat.copy_(0.05 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(1)))
    instance, student = population.instances[0], population.student
    problems = [population.training_problem(0, number) for number in range(NUM_ROWS)]
    base = bare_copy(student).model
    trainer = sdft_trainer(
        config, base, student.tokenizer, instance.task, problems, str(folder), logging_strategy="steps", logging_steps=1
    )
    model = trainer.model
    set_peft_model_state_dict(model, population.adapters.state_dict(0))
    gradients: dict[str, Tensor] = {}
    batch: dict[str, Tensor] = {}
    prepare = trainer._prepare_training_batch

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            gradients.update({name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None})

    def watched(inputs: Any) -> Any:
        batch.update(prepare(inputs))
        return batch

    trainer._prepare_training_batch = watched
    trainer.add_callback(Watch())
    trainer.remove_callback(PrinterCallback)
    trainer.train()

    prompts = [instance.builder.teacher_prompt(problem, 1.0).token_ids for problem in problems]
    rollouts = rollouts_of(batch)
    statistics = population.learner.update(0, rollouts, prompts)
    return {
        "population": population,
        "prompts": prompts,
        "problems": problems,
        "batch": batch,
        "gradients": gradients,
        "loss": trainer.state.log_history[0]["loss"],
        "statistics": statistics,
    }


def test_the_loss_is_trls(seen: dict[str, Any]):
    """To 1e-5 of itself; the losses of another divergence or reveal ratio are percents away."""
    assert seen["loss"] > 0.1, "a batch on which student and teacher agree would prove nothing"
    assert seen["statistics"].loss == pytest.approx(seen["loss"], rel=1e-5)
    lengths = seen["batch"]["completion_mask"].sum(dim=1).tolist()
    assert len(set(lengths)) > 1, "rows of one length would not tell a mean over rollouts from one over tokens"


def test_the_gradient_is_trls(seen: dict[str, Any]):
    """Of every matrix, to 1e-4 of the whole gradient's norm."""
    adapters = seen["population"].adapters
    ours = {}
    for slot in adapters.slots:
        for kind, gradient in zip("AB", adapters._matrices(adapters.flat_grad, slot), strict=True):
            ours[f"base_model.model.{slot.name}.lora_{kind}.default.weight"] = gradient[0]
    theirs = seen["gradients"]
    assert theirs.keys() == ours.keys()
    norm = float(torch.stack([gradient.norm() for gradient in theirs.values()]).norm())
    assert seen["statistics"].grad_norm == pytest.approx(norm, rel=1e-4)
    for name, gradient in theirs.items():
        assert float((gradient - ours[name]).norm()) < 1e-4 * norm, name


def test_the_prompts_are_trls(seen: dict[str, Any]):
    batch, instance = seen["batch"], seen["population"].instances[0]
    width = batch["completion_ids"].shape[1]
    for row, (problem, prompt) in enumerate(zip(seen["problems"], seen["prompts"], strict=True)):
        student = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        teacher = batch["teacher_input_ids"][row, :-width][batch["teacher_attention_mask"][row, :-width].bool()]
        assert student.tolist() == list(instance.builder.student_prompt(problem))
        assert teacher.tolist() == list(prompt)


@pytest.mark.parametrize(
    ("spec", "alpha"),
    [
        (DivergenceSpec("forward_kl"), 0.0),
        (DivergenceSpec("reverse_kl"), 1.0),
        (DivergenceSpec("jsd", jsd_beta=0.3), 0.3),
        (DivergenceSpec("jsd", jsd_beta=0.7), 0.7),
    ],
    ids=lambda one: str(getattr(one, "kind", one)),
)
def test_each_divergence_and_its_gradient_is_trls(spec: DivergenceSpec, alpha: float):
    """TRL's alpha is the teacher's share of the mixture, as jsd_beta is; logits reach ours through an identity as the head."""
    from trl.experimental.sdft.loss_utils import compute_full_logit_self_distillation_loss

    generator = torch.Generator().manual_seed(2)
    student, teacher = (2.0 * torch.randn(9, 31, generator=generator, dtype=torch.float64) for _ in range(2))
    ours, theirs = student.clone().requires_grad_(), student.clone().requires_grad_()
    tokens = torch.zeros(9, dtype=torch.long)
    loss = token_divergence(ours, teacher, torch.eye(31, dtype=torch.float64), tokens, spec).loss
    expected = compute_full_logit_self_distillation_loss(theirs, teacher, distillation_alpha=alpha)
    assert torch.allclose(loss, expected, rtol=1e-6, atol=1e-9)
    weights = torch.arange(1.0, 10.0, dtype=torch.float64)
    (loss * weights).sum().backward()
    (expected * weights).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-5, atol=1e-8)
