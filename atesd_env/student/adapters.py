"""K LoRA adapters on one frozen base: stacked parameters, switching, and peft's file format in and out.

All adapters of a student lie in one flat vector, and the layers' A and B matrices are views into it. So an optimizer step,
gradient clipping, an average of weights and a snapshot are one operation on ``[P]`` for each student.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from atesd_env.errors import ConfigError, StudentError
from atesd_env.files.atomic import make_own_folder, write_atomically
from atesd_env.student.adapter_files import WEIGHTS_FILE, read_adapter_config, read_adapter_weights

Bank = Literal["student", "teacher"]
"""Whose adapters: the students' own, or their teachers'."""
MOST_ZEROS = 2**18
"""Zeros between adapters laid side by side, as one product: with more, a product each is quicker (docs/log.md)."""
_PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class LowRank:
    """Adapters of S students on layers whose outputs lie side by side, as right-hand factors.

    Attributes:
        matrix_a: [S, in, m].
        parts: Of x A, the first columns are multiplied with the first part's B, the next with the next one's: (first column of the
            outputs that it adds to, B [S, m_i, out_i], the scale in it); the m_i add up to m.
    """

    matrix_a: Tensor
    parts: tuple[tuple[int, Tensor], ...]

    def of(self, students: slice) -> LowRank:
        """Returns those of some students."""
        return LowRank(self.matrix_a[students], tuple((start, matrix_b[students]) for start, matrix_b in self.parts))

    def contiguous(self) -> LowRank:
        """Returns them as they are multiplied fastest, for many products."""
        parts = tuple((start, matrix_b.contiguous()) for start, matrix_b in self.parts)
        return LowRank(self.matrix_a.contiguous(), parts)


def num_zeros(r: int, out_features: Sequence[int], width: int) -> int:
    """Returns the zeros between adapters of rank r on some of the layers whose outputs, side by side, are ``width`` wide."""
    return r * sum(width - size for size in out_features)


@dataclass(frozen=True)
class _Slot:
    """Where one wrapped layer's matrices lie in a student's flat vector, in elements."""

    name: str
    start_a: int
    start_b: int
    in_features: int
    out_features: int


class StackedLoRALinear(nn.Module):
    """A frozen linear layer with K adapters on it; which of them act is decided by the stack that owns it.

    Attributes:
        base: The frozen layer.
        adapters: Per bank, a list over students of (A [r, in], B [out, r]).
        stacked: Per bank, (A [K, r, in], B [K, out, r]): the same memory, for rows of several students at once.
    """

    def __init__(self, base: nn.Linear, stack: AdapterStack) -> None:
        super().__init__()
        self.base = base
        self.adapters: dict[Bank, list[tuple[Tensor, Tensor]]] = {}
        self.stacked: dict[Bank, tuple[Tensor, Tensor]] = {}
        self._stack = (stack,)  # in a tuple, so that the stack does not become a submodule

    @property
    def out_features(self) -> int:
        """Outputs of the layer."""
        return self.base.out_features

    def matrices(self, bank: Bank, students: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns (A [S, r, in], B [S, out, r]) of S students; those of a single one are leaves with gradients."""
        if len(students) == 1:
            matrix_a, matrix_b = self.adapters[bank][students[0]]
            return matrix_a[None], matrix_b[None]
        stacked_a, stacked_b = self.stacked[bank]
        if list(students) == list(range(len(stacked_a))):
            return stacked_a, stacked_b
        return stacked_a[list(students)], stacked_b[list(students)]

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps [rows, T, in] to [rows, T, out]; rows belong in equal shares to the students that are switched on.

        The adapters are multiplied in the inputs' number format (see ``active_low_rank``).
        """
        output: Tensor = self.base(hidden)
        stack = self._stack[0]
        if stack.active is None:
            return output
        bank, students = stack.active
        if len(students) == 1:
            matrix_a, matrix_b = (matrix.to(hidden.dtype) for matrix in self.adapters[bank][students[0]])
            return output + functional.linear(functional.linear(hidden, matrix_a), matrix_b) * stack.scaling
        stacked_a, stacked_b = (matrix.to(hidden.dtype) for matrix in self.matrices(bank, students))
        inner = torch.bmm(hidden.reshape(len(students), -1, hidden.shape[-1]), stacked_a.transpose(1, 2))
        delta = torch.bmm(inner, stacked_b.transpose(1, 2)) * stack.scaling
        return output + delta.reshape(output.shape)


def active_low_rank(layers: Sequence[nn.Linear | StackedLoRALinear], dtype: torch.dtype) -> LowRank | None:
    """Returns the adapters that are switched on for linear layers with the same input, as those of one layer.

    The adapters themselves stay float32, for the optimizer. A product in 16 bits still adds up in float32 and rounds its sum
    once, so that with a 16-bit base no activation is ever held in float32.

    Args:
        layers: Wrapped or plain linear layers, whose outputs are laid side by side.
        dtype: The base's number format, to which the adapters are rounded.

    Returns:
        One part, with zeros where a layer has no business with another's outputs, or a part for each where these would be more than
        ``MOST_ZEROS``; gradients flow through it for a single student. None if no layer has an adapter that is on.
    """
    wrapped = [layer for layer in layers if isinstance(layer, StackedLoRALinear)]
    stack = wrapped[0]._stack[0] if wrapped else None
    if stack is None or stack.active is None:
        return None
    bank, students = stack.active
    width = sum(layer.out_features for layer in layers)
    parts_a, parts_b, start = [], [], 0
    for layer in layers:
        if isinstance(layer, StackedLoRALinear):
            matrix_a, matrix_b = layer.matrices(bank, students)
            parts_a.append(matrix_a)
            parts_b.append((start, matrix_b))
        start += layer.out_features
    if num_zeros(stack.r, [layer.out_features for layer in wrapped], width) <= MOST_ZEROS:
        padded = [
            functional.pad(matrix_b, (0, 0, start, width - start - matrix_b.shape[1])) for start, matrix_b in parts_b
        ]
        parts_b = [(0, torch.cat(padded, dim=2))]
    return LowRank(
        torch.cat(parts_a, dim=1).to(dtype).transpose(1, 2),
        tuple((start, (matrix_b * stack.scaling).to(dtype).transpose(1, 2)) for start, matrix_b in parts_b),
    )


class AdapterStack:
    """K LoRA adapters, wrapped around the linear layers of one model.

    Args:
        model: The base model; its target layers are replaced by wrapped ones, in place.
        num_students: K.
        r: Rank.
        alpha: LoRA scale; the adapters' output is multiplied by ``alpha / r``.
        targets: Layer names, or endings of names after a dot, as in peft's ``target_modules``; with none, P is 0.
        keep_teacher: Also hold a teacher's adapter for each student (a starting adapter, or an average).

    Attributes:
        flat: [K, P] float32, the adapters of each student.
        flat_grad: [K, P] float32, their gradients.
        teacher_flat: [K, P] float32 or None.
        active: Which adapters act: None (all off), or (bank, students).

    Raises:
        ConfigError: If no layer matches, or a match is not a linear layer.
    """

    def __init__(
        self,
        model: nn.Module,
        num_students: int,
        r: int,
        alpha: float,
        targets: Sequence[str],
        keep_teacher: bool = False,
    ) -> None:
        self.r = r
        self.alpha = alpha
        self.scaling = alpha / r
        self.targets = tuple(targets)
        self.num_students = num_students
        self.active: tuple[Bank, tuple[int, ...]] | None = None
        layers = _matching_layers(model, self.targets)
        self.slots, self.num_parameters = _layout(layers, r)
        device = next(model.parameters()).device
        self.flat = torch.zeros(num_students, self.num_parameters, device=device)
        self.flat_grad = torch.zeros_like(self.flat)
        self.teacher_flat = torch.zeros_like(self.flat) if keep_teacher else None
        for slot in self.slots:
            wrapped = StackedLoRALinear(layers[slot.name], self)
            self._attach(wrapped, slot)
            parent_name, _, child_name = slot.name.rpartition(".")
            setattr(model.get_submodule(parent_name), child_name, wrapped)

    def _attach(self, layer: StackedLoRALinear, slot: _Slot) -> None:
        banks: list[tuple[Bank, Tensor]] = [("student", self.flat)]
        if self.teacher_flat is not None:
            banks.append(("teacher", self.teacher_flat))
        for bank, flat in banks:
            layer.stacked[bank] = self._matrices(flat, slot)
            stacked_a, stacked_b = layer.stacked[bank]
            layer.adapters[bank] = list(zip(stacked_a.unbind(), stacked_b.unbind(), strict=True))
        # The student's matrices become leaves whose gradients accumulate straight into the flat vector.
        grad_a, grad_b = self._matrices(self.flat_grad, slot)
        for student, (matrix_a, matrix_b) in enumerate(layer.adapters["student"]):
            leaves = (nn.Parameter(matrix_a), nn.Parameter(matrix_b))
            leaves[0].grad, leaves[1].grad = grad_a[student], grad_b[student]
            layer.adapters["student"][student] = leaves

    def _matrices(self, flat: Tensor, slot: _Slot) -> tuple[Tensor, Tensor]:
        """Returns views (A [K, r, in], B [K, out, r]) into [K, P]."""
        size_a, size_b = self.r * slot.in_features, self.r * slot.out_features
        matrix_a = flat[:, slot.start_a : slot.start_a + size_a].view(-1, self.r, slot.in_features)
        matrix_b = flat[:, slot.start_b : slot.start_b + size_b].view(-1, slot.out_features, self.r)
        return matrix_a, matrix_b

    @torch.no_grad()
    def initialise(self, student: int, generator: torch.Generator) -> None:
        """Sets a student's adapter as peft does: A uniform in +-1/sqrt(in), B zero, so that it starts as the base."""
        self.flat[student].zero_()
        for slot in self.slots:
            matrix_a, _ = self._matrices(self.flat[student : student + 1], slot)
            bound = 1.0 / math.sqrt(slot.in_features)
            # Drawn on the CPU, so that a GPU run starts from the same adapter.
            matrix_a.copy_(torch.empty(matrix_a.shape).uniform_(-bound, bound, generator=generator))

    @contextmanager
    def use(self, bank: Bank | None, students: Sequence[int] = ()) -> Iterator[None]:
        """Switches adapters on for the rows of a forward pass: rows in equal shares to ``students``, in order.

        Args:
            bank: "student", "teacher", or None for the bare base model.
            students: Whose adapters; one student may be given more than one row.
        """
        before = self.active
        self.active = None if bank is None else (bank, tuple(students))
        try:
            yield
        finally:
            self.active = before

    def state_dict(self, student: int) -> dict[str, Tensor]:
        """Returns a student's matrices under peft's names, contiguous copies on the CPU."""
        state = {}
        for slot in self.slots:
            matrix_a, matrix_b = self._matrices(self.flat[student : student + 1], slot)
            state[f"{_PEFT_PREFIX}{slot.name}.lora_A.weight"] = matrix_a[0].detach().cpu().clone()
            state[f"{_PEFT_PREFIX}{slot.name}.lora_B.weight"] = matrix_b[0].detach().cpu().clone()
        return state

    def peft_config(self, base_model: str) -> LoraConfig:
        """Returns the peft configuration of these adapters."""
        return LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            target_modules=list(self.targets),
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
            inference_mode=True,
            base_model_name_or_path=base_model,
        )

    def save(self, student: int, directory: Path, base_model: str) -> None:
        """Writes a student's adapter as a plain peft adapter directory, each file whole or not at all.

        Raises:
            RunFilesError: If it cannot be written; older files of the same names then stay as they are.
        """
        make_own_folder(directory)
        config = self.peft_config(base_model)
        config.target_modules = list(self.targets)  # peft's set would be written in another order by each process
        with tempfile.TemporaryDirectory() as beside:
            config.save_pretrained(beside)
            (description,) = Path(beside).iterdir()
            write_atomically(directory / description.name, description.read_bytes())
        weights = save(self.state_dict(student), metadata={"format": "pt"})
        write_atomically(directory / WEIGHTS_FILE, weights)

    def load(self, student: int, directory: Path) -> None:
        """Reads a plain peft LoRA adapter into a student's slot.

        Raises:
            StudentError: If the directory holds no adapter, or one of another kind, rank, scale or set of layers.
        """
        self.load_state_dict(student, _read_peft_adapter(directory, self), str(directory))

    @torch.no_grad()
    def load_state_dict(self, student: int, state: Mapping[str, Tensor], source: str) -> None:
        """Copies matrices under peft's names (as ``state_dict`` returns them) into a student's slot.

        Args:
            student: Which student.
            state: Name -> matrix.
            source: What messages call the adapter.

        Raises:
            StudentError: If a matrix is missing, of another shape, or of a layer that has no adapter here.
        """
        rest = dict(state)
        for slot in self.slots:
            matrices = self._matrices(self.flat[student : student + 1], slot)
            for matrix, kind in zip(matrices, ("lora_A", "lora_B"), strict=True):
                name = f"{_PEFT_PREFIX}{slot.name}.{kind}.weight"
                if name not in rest or rest[name].shape != matrix.shape[1:]:
                    found = tuple(rest[name].shape) if name in rest else "nothing"
                    raise StudentError(
                        f"adapter {source}: expected {name} of shape {tuple(matrix.shape[1:])}, found {found}; it was made "
                        f"for another base model or other lora_targets."
                    )
                matrix[0].copy_(rest.pop(name))
        if rest:
            raise StudentError(
                f"adapter {source}: expected only layers in lora_targets={self.targets}, but it also has {sorted(rest)[0]}; "
                f"set lora_targets to the adapter's target_modules."
            )


def _matching_layers(model: nn.Module, targets: Sequence[str]) -> dict[str, nn.Linear]:
    layers: dict[str, nn.Linear] = {}
    for name, module in model.named_modules():
        if not any(name == target or name.endswith(f".{target}") for target in targets):
            continue
        if not isinstance(module, nn.Linear):
            raise ConfigError(
                f"lora_targets: expected linear layers, but {name} is a {type(module).__name__}; leave it out."
            )
        layers[name] = module
    missing = [
        target for target in targets if not any(name == target or name.endswith(f".{target}") for name in layers)
    ]
    if missing:
        linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        raise ConfigError(
            f"lora_targets: expected names of linear layers ({', '.join(sorted(linear))}), got {missing}; "
            "name layers that the student has."
        )
    return layers


def _layout(layers: dict[str, nn.Linear], r: int) -> tuple[list[_Slot], int]:
    slots, position = [], 0
    for name, layer in layers.items():
        start_b = position + r * layer.in_features
        slots.append(_Slot(name, position, start_b, layer.in_features, layer.out_features))
        position = start_b + r * layer.out_features
    return slots, position


def _read_peft_adapter(directory: Path, stack: AdapterStack) -> dict[str, Tensor]:
    if not os.path.isfile(directory / WEIGHTS_FILE):
        raise StudentError(
            f"adapter: expected a peft adapter directory with {WEIGHTS_FILE}, found none in {directory}; save one "
            f"with `PeftModel.save_pretrained`."
        )
    config = read_adapter_config(directory)
    if config.r != stack.r or config.alpha != stack.alpha:
        raise StudentError(
            f"adapter {directory}: expected r={stack.r} and lora_alpha={stack.alpha:g}, got r={config.r} and "
            f"lora_alpha={config.alpha:g}; set lora_r and lora_alpha to the adapter's values."
        )
    return read_adapter_weights(directory)
