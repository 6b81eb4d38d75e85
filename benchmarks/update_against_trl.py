"""One student's update: ours against TRL's SDFTTrainer, interleaved in one process.

The same base model, LoRA shape, problems, prompts (reveal ratio 1), batch, rollout length and full-vocabulary forward KL. Both
sample their own rollouts; mean rollout lengths are reported, since time grows with them. After each TRL step (sampling,
teacher, student, backward, optimizer) one of ours is timed; the ratio is between the medians. Needs `pip install atesd-env[trl]`.

Example: OMP_NUM_THREADS=2 python -m benchmarks.update_against_trl --updates 15
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.experimental.sdft import SDFTConfig, SDFTTrainer

from atesd_env.config import EnvConfig, preset
from atesd_env.population import Population
from atesd_env.student import TINY_DIRECTORY
from benchmarks.common import save


class Interleaved(TrainerCallback):
    """Times TRL's step from its beginning to its end, then one update of ours."""

    def __init__(self, population: Population) -> None:
        self.population = population
        self.trl_sec: list[float] = []
        self.ours_sec: list[float] = []
        self.our_lengths: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.trl_sec.append(time.perf_counter() - self._began)
        (row,) = self.population.window(np.array([[1.0]]))
        timings = self.population.timings
        self.ours_sec.append(timings["time/rollout_sec"] + timings["time/update_sec"])
        self.our_lengths.append(float(row["rollout/length"] or 0.0))


def trl_trainer(config: EnvConfig, population: Population, updates: int, folder: str) -> SDFTTrainer:
    """Returns TRL's trainer on the same problems and prompts."""
    task = population.task
    problems = [task.training_problem(0, index) for index in range(config.num_rollouts * updates)]
    rows = [
        {
            "prompt": [{"role": "user", "content": task.student_request(problem)}],
            "privileged_context": task.teacher_request(problem, problem.steps, problem.answer).removeprefix(
                task.student_request(problem)
            ),
        }
        for problem in problems
    ]
    arguments = SDFTConfig(
        output_dir=folder,
        per_device_train_batch_size=config.num_rollouts,
        num_generations=1,
        max_steps=updates,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=config.max_grad_norm,
        weight_decay=0.0,
        max_completion_length=config.max_new_tokens,
        max_prompt_length=config.max_prompt_tokens,
        temperature=config.temperature,
        distillation_mode="full_logits",
        distillation_alpha=0.0,
        distillation_is_clip=None,
        teacher_model_kind="base",
        teacher_prompt_template="{prompt}{privileged_context}",
        shuffle_dataset=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        use_cpu=population.student.device.type == "cpu",
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        target_modules=list(config.lora_targets),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    return SDFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(TINY_DIRECTORY, dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(TINY_DIRECTORY),
        peft_config=lora,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=15, help="timed updates of each; the first is not counted")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    config = preset("ATESD-Tiny-v0", hold_window=1, windows=10_000, probe_size=1, probe_accuracy_every=0)
    population = Population(config)
    population.reset(0, 0)
    callback = Interleaved(population)
    lengths: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl_trainer(config, population, arguments.updates + 1, folder)
        trainer.add_callback(callback)
        sample = trainer.sample_rollouts

        def watched(inputs: Any) -> Any:
            batch = sample(inputs)
            lengths.append(float(batch["completion_mask"].sum(dim=1).float().mean()))
            return batch

        trainer.sample_rollouts = watched
        trainer.train()
    trl, ours = np.asarray(callback.trl_sec[1:]), np.asarray(callback.ours_sec[1:])
    save(
        "update_against_trl",
        {
            "updates": arguments.updates,
            "trl_sec": {"median": float(np.median(trl)), "min": float(trl.min()), "max": float(trl.max())},
            "ours_sec": {"median": float(np.median(ours)), "min": float(ours.min()), "max": float(ours.max())},
            "mean_rollout_length": {
                "trl": float(np.mean(lengths[1:])),
                "ours": float(np.mean(callback.our_lengths[1:])),
            },
            "ratio_of_medians": float(np.median(trl) / np.median(ours)),
        },
    )


if __name__ == "__main__":
    main()
