"""TRL's ``SDFTTrainer`` set up to do what an update here does: for comparisons of time, and of loss and gradient.

Needs `pip install atesd-env[trl]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel
from trl.experimental.sdft import SDFTConfig, SDFTTrainer

from atesd_env.config import EnvConfig
from atesd_env.tasks.base import Problem, Task


def sdft_trainer(
    config: EnvConfig,
    model: PreTrainedModel,
    tokenizer: Any,
    task: Task,
    problems: Sequence[Problem],
    folder: str,
    **changes: Any,
) -> SDFTTrainer:
    """Returns TRL's trainer with reveal ratio 1, a batch of ``num_rollouts`` problems an update, and full-vocabulary forward KL.

    Args:
        config: Lengths, sampling, adapter and optimizer.
        model: The base model; a new peft adapter is put on it.
        tokenizer: Its tokenizer.
        task: Wording of the requests.
        problems: In the order in which they are trained on, a whole number of batches.
        folder: Where TRL may write.
        **changes: Other fields of ``SDFTConfig``.
    """
    rows = []
    for problem in problems:
        request = task.student_request(problem)
        shown = task.teacher_request(problem, problem.steps, problem.answer).removeprefix(request)
        rows.append({"prompt": [{"role": "user", "content": request}], "privileged_context": shown})
    fields = {
        "output_dir": folder,
        "per_device_train_batch_size": config.num_rollouts,
        "num_generations": 1,
        "max_steps": len(problems) // config.num_rollouts,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "constant",
        "max_grad_norm": config.max_grad_norm,
        "weight_decay": 0.0,
        "max_completion_length": config.max_new_tokens,
        "max_prompt_length": config.max_prompt_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
        "distillation_mode": "full_logits",
        "distillation_alpha": 0.0,
        "distillation_is_clip": None,
        "teacher_model_kind": "base",
        "teacher_prompt_template": "{prompt}{privileged_context}",
        "shuffle_dataset": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "use_cpu": model.device.type == "cpu",
        "bf16": config.dtype == "bfloat16",
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        target_modules=list(config.lora_targets),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    return SDFTTrainer(
        model=get_peft_model(model, lora),
        args=SDFTConfig(**(fields | changes)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
