"""K students over several processes, each with a stack of its own on its own cores.

An update of a small student is many short operations, which two processes make side by side and two threads do not. Each
process holds the frozen base once, and a ``Population`` with its share of the students.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from atesd_env.config import EnvConfig, instance_configs
from atesd_env.envs.columns import Row
from atesd_env.envs.contract import ExposureScores, Students
from atesd_env.envs.observation import RunningStatistics
from atesd_env.errors import AtesdError, ConfigError
from atesd_env.files.checkpoint import Checkpoint
from atesd_env.population.population import Population
from atesd_env.population.run_state import RunState
from atesd_env.population.samples import Sample
from atesd_env.population.snapshot import StudentSnapshot, from_checkpoint, to_checkpoint
from atesd_env.processes import Child, ChildEndedError


class ParallelPopulation(Students):
    """K students in the processes of this machine.

    Student k is what it is in one process, to float tolerance: batches of other sizes round differently. The parent's
    threads (``torch.get_num_threads()``) and cores are shared out among the processes.

    Args:
        config: The environment's configuration.
        num_students: K.
        num_workers: Processes, at most K.
        instances: As for ``Population``.

    Attributes:
        runs: The state of each student's run, as its process told it last.
        num_adapter_parameters: P, the parameters of one student's adapter.
        timings: Seconds that the slowest process spent in the last window on rollouts, updates and probe.

    Raises:
        ConfigError: If there are not between 1 and K processes.
        AtesdError: Whatever a process's ``Population`` raises, or that a process ended.
    """

    config: EnvConfig

    def __init__(
        self,
        config: EnvConfig,
        num_students: int,
        num_workers: int,
        instances: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        if not 1 <= num_workers <= num_students:
            raise ConfigError(
                f"workers: expected between 1 and {num_students} processes for {num_students} students, got {num_workers}; "
                "lower workers, or train more students."
            )
        if config.rollout_engine == "vllm":
            raise ConfigError(
                f"workers: expected one process with rollout_engine='vllm', which each would start, got {num_workers}; give "
                "the address of a vLLM server, or one process."
            )
        self.config = config
        self._configs = instance_configs(config, instances, num_students)
        self.num_students = num_students
        self.runs: list[RunState] = [RunState(seed=0) for _ in range(num_students)]
        self.timings: dict[str, float] = {}
        shares = [share.tolist() for share in np.array_split(np.arange(num_students), num_workers)]
        self._places = {
            student: (worker, place) for worker, share in enumerate(shares) for place, student in enumerate(share)
        }
        threads = max(1, torch.get_num_threads() // num_workers)
        cores = _shared_cores(num_workers)
        self._workers: list[_Worker] = []
        self._finalizer = weakref.finalize(self, _kill, self._workers)
        # All are started before the first is waited for: loading takes seconds.
        for share, its_cores in zip(shares, cores, strict=True):
            its_instances = None if instances is None else [dict(instances[student]) for student in share]
            self._workers.append(_Worker(share, (config, len(share), its_instances, threads, its_cores)))
        with self._closed_on_failure():
            sizes = [worker.receive() for worker in self._workers]
        self.num_adapter_parameters: int = sizes[0]

    @contextlib.contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        """Ends all processes if anything goes wrong between a request and its reply, which would then be lost."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _ask(self, index: int, method: str, *arguments: Any) -> Any:
        """Calls a method of the process of student ``index``, whose place there is the first argument."""
        number, place = self._places[index]
        with self._closed_on_failure():
            worker = self._worker(number)
            worker.send(method, place, *arguments)
            return worker.receive()

    def _worker(self, number: int) -> _Worker:
        if not self._workers:
            raise AtesdError("workers: expected running processes, but they have ended; make a new environment.")
        return self._workers[number]

    def reset(self, index: int, seed: int) -> RunningStatistics:
        """Starts a new run of student ``index`` from the base model; returns the statistics before the first window."""
        self.runs[index] = self._ask(index, "reset", seed)
        return self.runs[index].statistics

    def window(self, reveal_ratios: NDArray[np.float64], students: Sequence[int] | None = None) -> list[Row]:
        """Trains students for one hold window, all processes at once; as ``Population.window``."""
        students = list(range(self.num_students)) if students is None else list(students)
        shares: dict[int, list[int]] = {}
        for position, student in enumerate(students):
            shares.setdefault(self._places[student][0], []).append(position)
        with self._closed_on_failure():
            for number, positions in shares.items():
                places = [self._places[students[position]][1] for position in positions]
                self._worker(number).send("window", places, reveal_ratios[positions])
            timings = []
            for number, positions in shares.items():
                runs, its_timings = self._worker(number).receive()
                timings.append(its_timings)
                for position, run in zip(positions, runs, strict=True):
                    run.rows = self.runs[students[position]].rows + run.rows
                    self.runs[students[position]] = run
        self.timings = {name: max(one[name] for one in timings) for name in timings[0]} if timings else {}
        return [self.runs[student].rows[-1] for student in students]

    def exposure_scores(
        self,
        index: int,
        ratios: NDArray[np.float64],
        with_mismatch: bool = True,
        num_problems: int | None = None,
        by_problem: bool = False,
    ) -> ExposureScores:
        """Returns what ratios [N] show student ``index``."""
        asked = (ratios, with_mismatch, num_problems, by_problem)
        scores: ExposureScores = self._ask(index, "exposure_scores", *asked)
        return scores

    def samples(self, index: int, num_samples: int) -> list[Sample]:
        """Returns rollouts of student ``index``'s last update, with both prompts."""
        samples: list[Sample] = self._ask(index, "samples", num_samples)
        return samples

    def save_adapter(self, index: int, directory: Path) -> None:
        """Writes student ``index``'s adapter as a plain peft adapter directory."""
        self._ask(index, "save_adapter", directory.absolute())

    def snapshot(self, index: int) -> StudentSnapshot:
        """Returns a copy of everything that student ``index``'s future depends on."""
        snapshot: StudentSnapshot = self._ask(index, "snapshot")
        return snapshot

    def restore(self, index: int, snapshot: StudentSnapshot) -> None:
        """Puts student ``index`` into the state of a snapshot, which stays usable."""
        self.runs[index] = self._ask(index, "restore", snapshot)

    def checkpoint(self, index: int) -> Checkpoint:
        """Returns student ``index``'s state and its configuration in a form that files can hold."""
        return to_checkpoint(self.snapshot(index), self._configs[index])

    def restored(self, index: int, checkpoint: Checkpoint) -> StudentSnapshot:
        """Returns the snapshot, for student ``index``, that ``checkpoint`` was made of."""
        return from_checkpoint(checkpoint, self._configs[index], self.num_adapter_parameters)

    def twin(self, num_students: int, index: int = 0) -> ParallelPopulation:
        """Returns students like student ``index``, in processes of their own."""
        return ParallelPopulation(self._configs[index], num_students, min(num_students, len(self._workers)))

    def close(self) -> None:
        """Ends the processes; the population cannot be used afterwards."""
        _kill(self._workers)


class _Worker:
    """One process with its share of the students; requests and replies are pickled."""

    def __init__(self, students: list[int], arguments: tuple[Any, ...]) -> None:
        self._students = students
        self.child = Child(_serve)
        self.send(*arguments)

    def send(self, *request: Any) -> None:
        with self._named():
            self.child.send(pickle.dumps(request))

    def receive(self) -> Any:
        with self._named():
            reply = self.child.receive()
        is_error, value = pickle.loads(reply)
        if is_error:
            raise value
        return value

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except ChildEndedError as ended:
            raise AtesdError(
                f"workers: expected a reply from the process of students {self._students}, but it ended with exit code "
                f"{ended.exitcode}; -9 often means that memory ran out: use fewer students or processes."
            ) from None


def _kill(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.child.kill()
    workers.clear()


def _shared_cores(num_workers: int) -> list[list[int]]:
    """Returns cores for each process; empty lists where they cannot be chosen or do not suffice."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < num_workers:
        return [[] for _ in range(num_workers)]
    return [share.tolist() for share in np.array_split(np.asarray(cores), num_workers)]


def _serve(requests: Iterator[bytes], reply: Callable[[bytes], None]) -> None:
    """Runs in the process: makes the population, then answers requests."""
    population: Population | None = None
    for request in requests:
        try:
            if population is None:
                population = _started(*pickle.loads(request))
                value: Any = population.num_adapter_parameters
            else:
                value = _answer(population, *pickle.loads(request))
            message = (False, value)
        except BaseException as error:
            error.add_note(f"in the process of a worker:\n{traceback.format_exc()}")
            message = (True, error)
        reply(pickle.dumps(message))


def _started(
    config: EnvConfig, num_students: int, instances: list[dict[str, Any]] | None, threads: int, cores: list[int]
) -> Population:
    torch.set_num_threads(threads)
    if cores:
        os.sched_setaffinity(0, cores)
    return Population(config, num_students, instances=instances)


def _answer(population: Population, method: str, place: Any, *arguments: Any) -> Any:
    if method == "window":
        (reveal_ratios,) = arguments
        population.window(reveal_ratios, place)
        # The last rows only: the parent has the others.
        runs = [population.runs[one] for one in place]
        return [dataclasses.replace(run, rows=run.rows[-1:]) for run in runs], population.timings
    result = getattr(population, method)(place, *arguments)
    return population.runs[place] if method in ("reset", "restore") else result
