"""One run on several devices: the first process runs the program, the others make the same passes on their share of the rows.

``torchrun`` (or ``accelerate launch``) starts the processes. The first one, rank 0, is the only one with an agent, an
environment and files. Each of the others holds the same students, waits for the first one's next call and makes it too:

    rank 0:  program -> environment -> DistributedPopulation --(the call)--> Population, its share of the rows
    rank 1:  begin() -> serve -----------------------------------(same call)--> Population, its share of the rows

Random numbers are drawn for all rows and cut afterwards, gradients are added up before they are clipped, so that the students
are those of one process, up to the rounding of sums.
"""

from __future__ import annotations

import datetime
import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from atesd_env.config import EnvConfig
from atesd_env.envs.columns import Row
from atesd_env.envs.contract import ExposureScores
from atesd_env.envs.observation import RunningStatistics
from atesd_env.errors import ConfigError
from atesd_env.population.population import Population
from atesd_env.population.snapshot import StudentSnapshot
from atesd_env.student.loading import load_student
from atesd_env.student.model import Student, bare_copy
from atesd_env.student.ranks import Ranks, others_answering

_PATIENCE = datetime.timedelta(days=30)
"""How long the others wait for the next call: an agent may think, and files may be written, for as long as they like."""
_LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass
class _Calls:
    """How rank 0's calls reach the others.

    Attributes:
        group: Process group with a patience of its own.
        is_between: No call is being made; only then can an end be announced.
        num_populations: Made so far; their numbers name them.
        dropped: Numbers of those that rank 0 no longer has, and the others need not know of yet.
    """

    group: Any
    is_between: bool = True
    num_populations: int = 0
    dropped: list[int] = field(default_factory=list)

    @contextmanager
    def announced(self, *call: Any) -> Iterator[None]:
        """Tells the others of a call, which the caller makes inside."""
        self.is_between = False
        dropped, self.dropped[:] = list(self.dropped), []
        with others_answering():
            dist.broadcast_object_list([(dropped, call)], src=0, group=self.group)
            yield
        self.is_between = True

    def heard(self) -> tuple[list[int], tuple[Any, ...]]:
        """Returns (numbers of populations to forget, the next call); waits for it."""
        content: list[Any] = [None]
        with others_answering():
            dist.broadcast_object_list(content, src=0, group=self.group)
        dropped, call = content[0]
        return dropped, call


_calls: _Calls | None = None
_groups: dict[float, Any] = {}


def is_launched() -> bool:
    """Returns whether a launcher such as ``torchrun`` started this process as one of several."""
    return all(name in os.environ for name in _LAUNCH_VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def several_processes() -> Iterator[None]:
    """For a program that a launcher starts in several processes: rank 0 runs what is inside, the others help and exit.

    Environments that are made inside share their rows out. In a process by itself nothing happens.

    Raises:
        SystemExit: In the other processes, when the first one is through.
        RankError: In the other processes, if the first one ended otherwise.
    """
    if not is_launched() or _calls is not None:
        yield
        return
    calls = _begin()
    if dist.get_rank() > 0:
        _serve(calls)
        _finish()
        sys.exit(0)
    try:
        yield
    finally:
        # In the middle of a call the others wait for this process's share: they see its end by the broken connection.
        if calls.is_between:
            with calls.announced("end"):
                pass
            _finish()


def _begin() -> _Calls:
    global _calls
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    _calls = _Calls(dist.new_group(timeout=_PATIENCE, backend="gloo"))
    return _calls


def _finish() -> None:
    global _calls
    _calls = None
    _groups.clear()
    dist.destroy_process_group()


def _ranks(config: EnvConfig) -> Ranks:
    """Returns the processes of the run; all of them ask in the same order.

    Raises:
        ConfigError: If they cannot share this configuration's rows out.
    """
    size = dist.get_world_size()
    if config.num_rollouts < size:
        raise ConfigError(
            f"num_rollouts: expected at least one for each of the {size} processes, got {config.num_rollouts}; start fewer, or "
            "raise num_rollouts."
        )
    if config.rollout_engine != "own":
        raise ConfigError(
            f"rollout_engine: expected 'own' with {size} processes, got {config.rollout_engine!r}; start one process, or leave "
            "rollout_engine out."
        )
    timeout = config.rank_timeout_sec
    if timeout not in _groups:
        _groups[timeout] = dist.new_group(timeout=datetime.timedelta(seconds=timeout))
    return Ranks(dist.get_rank(), size, _groups[timeout])


def make_population(
    config: EnvConfig, num_students: int = 1, instances: Sequence[Mapping[str, Any]] | None = None
) -> Population:
    """Returns K students: of this process, or inside ``several_processes`` of all of them."""
    if _calls is None:
        return Population(config, num_students, instances=instances)
    return DistributedPopulation(config, num_students, instances=instances)


class DistributedPopulation(Population):
    """Rank 0's students: what is called here is called in the other processes too, on their share of the rows.

    Args:
        config: What the students share.
        num_students: K.
        student: The frozen base without adapters; None loads it, in every process.
        instances: As for ``Population``.

    Raises:
        ConfigError: If the rows cannot be shared out.
        RankError: From every method, if another process ended or does not answer within ``rank_timeout_sec``.
    """

    def __init__(
        self,
        config: EnvConfig,
        num_students: int = 1,
        student: Student | None = None,
        instances: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        assert _calls is not None
        self._calls = _calls
        self._number = _calls.num_populations
        _calls.num_populations += 1
        weakref.finalize(self, _calls.dropped.append, self._number)
        if student is None:
            with self._calls.announced("make", config, num_students, instances):
                super().__init__(config, num_students, load_student(config, _ranks(config)), instances)
        else:  # a twin, of which the others were told
            super().__init__(config, num_students, student, instances)

    def reset(self, index: int, seed: int) -> RunningStatistics:
        """Starts a new run of student ``index`` from the base model."""
        with self._calls.announced("reset", self._number, index, seed):
            return super().reset(index, seed)

    def window(self, reveal_ratios: NDArray[np.float64], students: Sequence[int] | None = None) -> list[Row]:
        """Trains students for one hold window; as ``Population.window``."""
        with self._calls.announced("window", self._number, reveal_ratios, students):
            return super().window(reveal_ratios, students)

    def restore(self, index: int, snapshot: StudentSnapshot) -> None:
        """Puts student ``index`` of every process into the state of a snapshot."""
        with self._calls.announced("restore", self._number, index, snapshot):
            super().restore(index, snapshot)

    def exposure_scores(
        self,
        index: int,
        ratios: NDArray[np.float64],
        with_mismatch: bool = True,
        num_problems: int | None = None,
        by_problem: bool = False,
    ) -> ExposureScores:
        """Returns what ratios [N] show student ``index``; every process asks about its share of the problems."""
        asked = (index, ratios, with_mismatch, num_problems, by_problem)
        with self._calls.announced("exposure_scores", self._number, *asked):
            return super().exposure_scores(*asked)

    def twin(self, num_students: int, index: int = 0) -> DistributedPopulation:
        """Returns students like student ``index``, on the same frozen weights, in every process."""
        with self._calls.announced("twin", self._number, num_students, index):
            return DistributedPopulation(self.instances[index].config, num_students, bare_copy(self.student))


def _serve(calls: _Calls) -> None:
    """Makes rank 0's calls until it is through."""
    # Launchers pass Ctrl-C and SIGTERM on to every process; rank 0 decides what comes of them, and takes the others with it.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    populations: dict[int, Population] = {}
    while True:
        dropped, (method, *arguments) = calls.heard()
        for number in dropped:
            populations.pop(number, None)
        if method == "end":
            return
        if method == "make":
            config, num_students, instances = arguments
            made = Population(config, num_students, load_student(config, _ranks(config)), instances)
        elif method == "twin":
            number, *its_arguments = arguments
            made = populations[number].twin(*its_arguments)
        else:
            number, *its_arguments = arguments
            with others_answering():
                getattr(populations[number], method)(*its_arguments)
            continue
        populations[calls.num_populations] = made
        calls.num_populations += 1
