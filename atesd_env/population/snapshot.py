"""A student's snapshot: taken in memory, and as arrays and a JSON description that files can hold, bit for bit."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atesd_env.config import EnvConfig, check_same_config
from atesd_env.distillation.update import Learner
from atesd_env.envs.columns import check_rows
from atesd_env.envs.contract import Students
from atesd_env.envs.observation import RunningStatistics
from atesd_env.errors import ConfigError, EngineError
from atesd_env.files.checkpoint import Checkpoint
from atesd_env.files.reading import check_fields
from atesd_env.population.run_state import RunState

_ADAPTER = "student/adapter"
_TEACHER = "student/teacher_adapter"
_OPTIMIZER = "student/optimizer/"
_MOMENTS = {"step", "exp_avg", "exp_avg_sq"}


@dataclass(frozen=True)
class StudentSnapshot:
    """Everything that a student's future depends on; opaque to users.

    Attributes:
        run: Counters, statistics and rows.
        adapter: [P] float32, on the host, as all tensors here.
        teacher_adapter: [P] float32 or None.
        optimizer: AdamW's state.
    """

    run: RunState
    adapter: Tensor
    teacher_adapter: Tensor | None
    optimizer: dict[str, Any]


def keeps_teacher(config: EnvConfig) -> bool:
    """Returns whether teachers have adapters of their own: an average's, or those that the students began with."""
    return config.teacher == "ema" or config.adapter is not None


def take_snapshot(run: RunState, learner: Learner, index: int) -> StudentSnapshot:
    """Returns a copy of the state of student ``index``, whose run has come to ``run``, in the host's memory."""
    adapters = learner.adapters
    optimizer = learner.optimizers[index].state_dict()
    moments = {
        parameter: {name: on_host(moment) for name, moment in state.items()}
        for parameter, state in optimizer["state"].items()
    }
    return StudentSnapshot(
        run=copy.deepcopy(run),
        adapter=on_host(adapters.flat[index].detach()),
        teacher_adapter=None if adapters.teacher_flat is None else on_host(adapters.teacher_flat[index]),
        optimizer={"state": moments, "param_groups": copy.deepcopy(optimizer["param_groups"])},
    )


def on_host(tensor: Tensor) -> Tensor:
    """Returns a copy in the host's memory; a GPU's in pages that stay where they are, from which it is fetched back fastest."""
    return torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda).copy_(tensor)


def put_snapshot(snapshot: StudentSnapshot, learner: Learner, index: int) -> RunState:
    """Puts a snapshot's tensors into the place of student ``index``; returns a copy of what its run has come to."""
    adapters = learner.adapters
    adapters.flat[index].copy_(snapshot.adapter)
    if adapters.teacher_flat is not None and snapshot.teacher_adapter is not None:
        adapters.teacher_flat[index].copy_(snapshot.teacher_adapter)
    learner.reset(index)
    learner.optimizers[index].load_state_dict(copy.deepcopy(snapshot.optimizer))
    return copy.deepcopy(snapshot.run)


@contextmanager
def undone_if_engine_fails(students: Students, indices: Sequence[int]) -> Iterator[None]:
    """Puts students back to where they were if the rollout engine fails in between: what is inside can be made again."""
    before = {index: students.snapshot(index) for index in indices}
    try:
        yield
    except EngineError:
        for index, snapshot in before.items():
            students.restore(index, snapshot)
        raise


def to_checkpoint(snapshot: StudentSnapshot, config: EnvConfig) -> Checkpoint:
    """Returns a snapshot, and the configuration that it belongs to, in a form that files can hold.

    Arrays: ``student/adapter`` [P] float32, ``student/teacher_adapter`` likewise (where the teacher has one), and AdamW's
    ``student/optimizer/<parameter>/<moment>``. Description: ``config``, ``run`` (counters, statistics, rows) and
    ``optimizer`` (AdamW's settings).
    """
    arrays = {_ADAPTER: _array(snapshot.adapter)}
    if snapshot.teacher_adapter is not None:
        arrays[_TEACHER] = _array(snapshot.teacher_adapter)
    for parameter, moments in snapshot.optimizer["state"].items():
        arrays |= {f"{_OPTIMIZER}{parameter}/{name}": _array(moment) for name, moment in moments.items()}
    return Checkpoint(
        arrays,
        {
            "config": config.keywords(),
            "run": dataclasses.asdict(snapshot.run),
            "optimizer": snapshot.optimizer["param_groups"],
        },
    )


def from_checkpoint(checkpoint: Checkpoint, config: EnvConfig, num_parameters: int) -> StudentSnapshot:
    """Returns the snapshot that ``to_checkpoint`` was given; what else the checkpoint holds is passed over.

    Args:
        checkpoint: The checkpoint.
        config: The configuration of the environment that it is for.
        num_parameters: P, the adapter parameters of that environment's students.

    Raises:
        ConfigError: If it was made under another configuration, or for another base model.
    """
    check_same_config(config, checkpoint.description.get("config", {}))
    arrays = {name: torch.tensor(array) for name, array in checkpoint.arrays.items()}
    if arrays[_ADAPTER].shape != (num_parameters,):
        raise ConfigError(
            f"state: expected an adapter of {num_parameters} parameters, got {arrays[_ADAPTER].numel()}; it was saved with "
            f"another base model under the name {config.student!r}."
        )
    _check_like_adapter(arrays, num_parameters)
    moments: dict[int, dict[str, Tensor]] = {}
    for name in (name for name in arrays if name.startswith(_OPTIMIZER)):
        parameter, _, moment = name.removeprefix(_OPTIMIZER).partition("/")
        moments.setdefault(int(parameter), {})[moment] = arrays[name]
    run = dict(checkpoint.description["run"])
    statistics = RunningStatistics(**run.pop("statistics"))
    groups: list[dict[str, Any]] = [
        {name: tuple(value) if name == "betas" else value for name, value in group.items()}
        for group in checkpoint.description["optimizer"]
    ]
    state = RunState(statistics=statistics, **run)
    check_fields(state)
    check_fields(statistics)
    check_rows(state.rows)
    settings = torch.optim.AdamW([torch.zeros(1)], lr=config.learning_rate, weight_decay=config.weight_decay)
    (ours,) = settings.state_dict()["param_groups"]
    if moments.keys() - {0} or any(set(one) != _MOMENTS for one in moments.values()):
        raise ValueError("other arrays of the optimizer than AdamW's")
    if keeps_teacher(config) and _TEACHER not in arrays:
        raise KeyError(_TEACHER)
    if len(groups) != 1 or any(groups[0].get(name, value) != value for name, value in ours.items()):
        raise ValueError(f"{groups!r:.60} as the optimizer's settings")
    return StudentSnapshot(
        run=state,
        adapter=arrays[_ADAPTER],
        teacher_adapter=arrays.get(_TEACHER),
        optimizer={"state": moments, "param_groups": groups},
    )


def _check_like_adapter(arrays: Mapping[str, Tensor], num_parameters: int) -> None:
    """Refuses tensors that could not have been a student's, so that nothing has changed when putting them back would fail."""
    for name, tensor in arrays.items():
        if name.startswith((_ADAPTER, _TEACHER, _OPTIMIZER)):
            shape = () if name.endswith("/step") else (num_parameters,)
            if tensor.shape != shape or tensor.dtype != torch.float32:
                raise ValueError(f"{name} of shape {tuple(tensor.shape)} and type {tensor.dtype}")


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.asarray(tensor.detach().cpu().numpy())
