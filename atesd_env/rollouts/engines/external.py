"""Rollouts from an engine outside this package: adapters handed over, one seed a request, answers checked, failures repeated."""

from __future__ import annotations

import logging
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import torch

from atesd_env.errors import EngineError, EngineUnavailableError
from atesd_env.rollouts.engines.completions import (
    SEED_LIMIT,
    Completion,
    CompletionBackend,
    CompletionRequest,
    check_completion,
)
from atesd_env.rollouts.engines.retries import complete
from atesd_env.rollouts.sampling import Rollouts, SamplingSpec, left_pad, right_pad
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.model import Student

_logger = logging.getLogger(__name__)


class ExternalEngine:
    """A rollout engine (``engine.RolloutEngine``) made of a backend.

    Every call hands the students' adapters over anew, under names that were never used before: an engine that keeps keys and
    values of earlier prompts keeps them by the adapter's name.

    Args:
        backend: The way to the engine.
        folder: Where adapters are written for the engine; None is a temporary folder.
        retries: How often a dead or silent engine is asked again, after pauses (`retries`).
    """

    can_fail = True

    def __init__(self, backend: CompletionBackend, folder: Path | None = None, retries: int = 2) -> None:
        self.backend = backend
        self.retries = retries
        # Several runs may share a folder and a server: names must not meet.
        self._token = secrets.token_hex(4)
        self._num_written = 0
        if folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="atesd-adapters-"))
            self._finalizer = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        else:
            self._folder = folder.expanduser().absolute()
        self._written: list[Path] = []

    @property
    def description(self) -> str:
        """What the engine is, for messages."""
        return self.backend.description

    def sample(
        self,
        student: Student,
        adapters: AdapterStack,
        prompts: Sequence[Sequence[int]],
        spec: SamplingSpec,
        students: Sequence[int],
        generators: Sequence[torch.Generator],
        num_rows: int | None = None,
    ) -> Rollouts:
        """Samples one answer to each prompt, in a run of one process; see ``RolloutEngine.sample``.

        Raises:
            EngineUnavailableError: If the engine is still dead or silent after all retries.
            EngineError: If it cannot be used, or answers what it was not asked for.
        """
        share = len(prompts) // len(generators)
        seeds = [
            seed
            for generator in generators
            for seed in torch.randint(0, SEED_LIMIT, (share,), generator=generator).tolist()
        ]
        return _as_rollouts(student, prompts, self._completions(student, adapters, prompts, seeds, spec, students))

    def _completions(
        self,
        student: Student,
        adapters: AdapterStack,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        spec: SamplingSpec,
        students: Sequence[int],
    ) -> list[Completion]:
        share = len(prompts) // max(1, len(students))

        def ask(left: Sequence[int]) -> list[Completion | EngineUnavailableError]:
            self.backend.begin()
            names = self._hand_over(student, adapters, students)
            requests = [CompletionRequest(prompts[row], seeds[row], names[row // share]) for row in left]
            answers = self.backend.complete(requests, spec, student.eos_token_ids)
            if len(answers) != len(requests):
                raise EngineError(
                    f"{self.description}: expected {len(requests)} answers, got {len(answers)}; look at its log."
                )
            for answer in answers:
                if not isinstance(answer, EngineUnavailableError):
                    check_completion(answer, spec, student.eos_token_ids, student.vocabulary_size, self.description)
            return answers

        completions = complete(ask, len(prompts), self.retries, self.backend.reset)
        self._rest()
        return completions

    def _rest(self) -> None:
        try:
            self.backend.end()
        except EngineUnavailableError as error:
            _logger.warning("%s It is started anew for the next rollouts.", error)
            self.backend.reset()

    def _hand_over(self, student: Student, adapters: AdapterStack, students: Sequence[int]) -> list[str | None]:
        """Gives the engine the students as they are now; returns the adapter's name of each, of none that of the bare base."""
        self._num_written += 1
        stem = f"atesd-{self._token}-{self._num_written}"
        earlier, self._written = self._written, []
        try:
            names = {f"{stem}-{index}": index for index in students}
            directories = {name: self._new_directory(name) for name in names}
            for name, index in names.items():
                adapters.save(index, directories[name], base_model=student.source)
            self.backend.load_adapters(directories)
            return list(names) or [None]
        except OSError as error:
            raise EngineError(
                f"{self.description}: expected to write the adapter to {self._folder}, got {error}; choose another engine_folder."
            ) from error
        finally:
            for directory in earlier:
                shutil.rmtree(directory, ignore_errors=True)

    def _new_directory(self, name: str) -> Path:
        directory = self._folder / name
        self._written.append(directory)
        return directory

    def close(self) -> None:
        """Lets go of the engine, and deletes what was written for it; the next ``sample`` starts it anew."""
        self.backend.close()
        for directory in self._written:
            shutil.rmtree(directory, ignore_errors=True)
        self._written = []


def _as_rollouts(student: Student, prompts: Sequence[Sequence[int]], completions: Sequence[Completion]) -> Rollouts:
    """Returns answers as rollouts, on the student's device."""
    prompt_ids, prompt_mask = left_pad(prompts, student.pad_token_id, student.device)
    answers = [completion.token_ids for completion in completions]
    token_ids, mask = right_pad(answers, student.pad_token_id, student.device)
    is_finished = torch.tensor([answer[-1] in student.eos_token_ids for answer in answers], device=student.device)
    log_probs = torch.zeros(mask.shape, device=student.device)
    told = [value for completion in completions for value in completion.log_probs]
    log_probs[mask] = torch.tensor(told, device=student.device)
    return Rollouts(prompt_ids, prompt_mask, token_ids, mask, is_finished, log_probs)
