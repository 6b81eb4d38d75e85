"""The student: a causal language model with places for adapters, its tokenizer and what its prompts need."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from atesd_env.config import EnvConfig
from atesd_env.errors import StudentError
from atesd_env.student.adapters import StackedLoRALinear
from atesd_env.student.chat_template import check_chat_template, turn_end
from atesd_env.student.forward import FusedBody, is_known
from atesd_env.student.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Student:
    """A frozen base model, cut where the divergence needs it.

    Attributes:
        model: The causal language model, without gradients, in evaluation mode.
        body: The part that turns token ids into final hidden states [rows, T, D].
        head_weight: [V, D] output embedding.
        head_bias: [V] or None.
        tokenizer: Its tokenizer, with a chat template.
        eos_token_ids: Tokens that end a rollout.
        pad_token_id: Token that fills; always masked.
        source: Where the weights came from, for the log.
        fused: ``body``, written out; None to go through ``body`` itself.
        cuda_graph: Decoding makes steps of one shape, which a GPU captures; ``fused`` only.
        ranks: The processes of the run, each with the whole base, that share each batch's rows.
    """

    model: PreTrainedModel
    body: nn.Module
    head_weight: Tensor
    head_bias: Tensor | None
    tokenizer: Any
    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    source: str
    fused: FusedBody | None = None
    cuda_graph: bool = False
    ranks: Ranks = ALONE

    @property
    def device(self) -> torch.device:
        """The device that the model lies on."""
        return self.head_weight.device

    @property
    def vocabulary_size(self) -> int:
        """Rows of the output embedding: V."""
        return self.head_weight.shape[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """Maps final hidden states [N, D] to logits [N, V]."""
        if self.fused is None or self.fused.product is torch.matmul:
            return functional.linear(hidden, self.head_weight, self.head_bias)
        logits = self.fused.product(hidden, self.head_weight.t())
        return logits if self.head_bias is None else logits + self.head_bias


def wrap_student(model: PreTrainedModel, tokenizer: Any, source: str, config: EnvConfig) -> Student:
    """Returns a loaded model as a student: frozen, checked, cut into body and head.

    Args:
        model: A causal language model with a plain linear head.
        tokenizer: Its tokenizer.
        source: Where it came from.
        config: Gives the lengths that must fit, and gradient checkpointing.

    Raises:
        StudentError: If the head is not linear, transforms its logits, or has fewer rows than the tokenizer has tokens, the context is too
            short for the configuration, or the chat template cannot be used (`chat_template`).
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise StudentError(
            f"student {source}: expected a linear output layer, got {type(head).__name__}; not supported."
        )
    num_tokens = 1 + max(tokenizer.get_vocab().values(), default=-1)
    if num_tokens > head.weight.shape[0]:
        raise StudentError(
            f"student {source}: expected a model with a row for each of the tokenizer's {num_tokens} tokens, got "
            f"{head.weight.shape[0]} rows; use the tokenizer that the model was trained with."
        )
    for thinking in {config.student_thinking, config.teacher_thinking}:
        check_chat_template(tokenizer, source, thinking)
    text_config = model.config.get_text_config()
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(text_config, name, None) not in (None, 1, 1.0):
            raise StudentError(
                f"student {source}: expected logits straight from the head, but it sets {name}; not supported."
            )
    context = getattr(text_config, "max_position_embeddings", None)
    needed = config.max_prompt_tokens + max(config.max_new_tokens, config.probe_max_tokens)
    if context is not None and needed > context:
        raise StudentError(
            f"student {source}: expected prompts and answers within its context of {context} tokens, but max_prompt_tokens "
            f"({config.max_prompt_tokens}) plus the longest answer makes {needed}; lower max_prompt_tokens or max_new_tokens."
        )
    model.requires_grad_(False).eval()
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    eos_token_ids = _eos_token_ids(model, tokenizer, source)
    pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos_token_ids[0]
    return Student(
        model=model,
        body=getattr(model, model.base_model_prefix),
        head_weight=head.weight,
        head_bias=head.bias,
        tokenizer=tokenizer,
        eos_token_ids=eos_token_ids,
        pad_token_id=pad_token_id,
        source=source,
        fused=_fused(model, source, config),
        cuda_graph=config.cuda_graph,
    )


def _fused(model: PreTrainedModel, source: str, config: EnvConfig) -> FusedBody | None:
    """Returns the model's body written out; None where its modules are asked for, or its architecture is not known."""
    fused = None
    if config.forward == "fused" and is_known(model):
        fused = FusedBody(model, config.products, merges=config.lora_merge)
    if config.cuda_graph and fused is None:
        raise StudentError(
            f"student {source}: expected a model that runs written out with cuda_graph=True (forward='fused', an unquantised Llama, Qwen2 "
            f"or Qwen3), got a {model.config.model_type} with forward={config.forward!r}; leave cuda_graph out."
        )
    return fused


def bare_copy(student: Student) -> Student:
    """Returns a student on the same weights, in modules of its own, without the adapters that wrap the first one's layers.

    So a second stack of adapters costs no second base. What is shared is frozen.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*student.model.parameters(), *student.model.buffers())}
    # Where a copy would be made of a wrapped layer, the layer inside takes its place.
    shared |= {id(module): module.base for module in student.model.modules() if isinstance(module, StackedLoRALinear)}
    model = copy.deepcopy(student.model, shared)
    fused = None if student.fused is None else student.fused.on(model)
    return dataclasses.replace(student, model=model, body=getattr(model, model.base_model_prefix), fused=fused)


def _eos_token_ids(model: PreTrainedModel, tokenizer: Any, source: str) -> tuple[int, ...]:
    """Returns the tokens that end an answer: the generation config's, the tokenizer's and the end of the template's turn."""
    generation_config = getattr(model, "generation_config", None)
    configured = generation_config.eos_token_id if generation_config is not None else None
    configured = configured if configured is not None else []
    ids = [configured] if isinstance(configured, int) else list(configured)
    end_ids = {*ids, tokenizer.eos_token_id, turn_end(tokenizer, source)} - {None}
    if not end_ids:
        raise StudentError(
            f"student {source}: expected a token that ends an answer, got none in the generation config, the tokenizer or the chat "
            "template; set eos_token in tokenizer_config.json."
        )
    return tuple(sorted(end_ids))


def torch_device(name: str) -> torch.device:
    """Returns the device of a name; "auto" takes a GPU if there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise StudentError(
            f'device: expected a torch device such as "cpu" or "cuda:0", got {name!r}; pass "auto" to have it chosen.'
        ) from error
