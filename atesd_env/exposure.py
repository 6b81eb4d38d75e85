"""Exposure: what a reveal ratio lets the teacher see, and the two prompts that come of it.

At reveal ratio ``a`` the teacher sees the first ``floor(a * m)`` of the reference solution's ``m`` steps, and always
the final answer (ATESD, "teacher context"). Student and teacher prompts pass through the same chat template, each with its
own thinking switch, and end where the assistant's answer begins, so that a rollout's tokens can be scored behind either. With
the same switch they end in the same tokens. This module holds no state and no randomness.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args

from atesd_env.config import EnvConfig
from atesd_env.config.checks import RATIO_TOLERANCE
from atesd_env.errors import ConfigError, DataError, StudentError
from atesd_env.student.chat_template import think_block, turn_end
from atesd_env.tasks.base import Problem, Task
from atesd_env.tasks.controls import WITH_ANOTHER, ExposureKind, source


def num_shown_steps(reveal_ratio: float, num_steps: int) -> int:
    """Returns how many of ``num_steps`` steps a reveal ratio in [0, 1] shows: ``floor(reveal_ratio * num_steps)``.

    Ratios within ``RATIO_TOLERANCE`` below a step's threshold count as reaching it, because float32 cannot hold 0.7.

    Raises:
        ConfigError: If the ratio is not a finite number in [0, 1].

    >>> [num_shown_steps(ratio, 4) for ratio in (0.0, 0.24, 0.25, 0.99, 1.0)]
    [0, 0, 1, 3, 4]
    """
    if not 0.0 <= reveal_ratio <= 1.0:
        raise ConfigError(f"reveal ratio: expected a number in [0, 1], got {reveal_ratio}; clip it before acting.")
    # Actions arrive as float32, where 0.7 * 10 is 6.9999999: without the tolerance an asked-for step would be hidden.
    return min(num_steps, math.floor((reveal_ratio + RATIO_TOLERANCE) * num_steps))


@dataclass(frozen=True)
class TeacherPrompt:
    """A teacher's prompt and what it shows.

    Attributes:
        token_ids: The prompt, chat template applied.
        text: The same prompt as text, for people.
        num_shown: Steps shown.
        num_asked: Steps that the reveal ratio asked for; larger than ``num_shown`` only if the context was too long.
        num_steps: Steps of the solution that was drawn from (0 without privileged context).
    """

    token_ids: tuple[int, ...]
    text: str
    num_shown: int
    num_asked: int
    num_steps: int

    @property
    def is_cut(self) -> bool:
        """Whether steps that were asked for had to be left out because the prompt was too long."""
        return self.num_shown < self.num_asked

    @property
    def shown_ratio(self) -> float:
        """The share of the steps that is shown, 0..1."""
        return self.num_shown / self.num_steps if self.num_steps else 0.0


class PromptBuilder:
    """Builds both prompts of a problem with one tokenizer and one task.

    Args:
        task: Wording of the requests.
        tokenizer: A Hugging Face tokenizer with a chat template.
        max_prompt_tokens: Longest allowed prompt, in tokens. An over-long *teacher* prompt loses its last shown steps
            until it fits (the final answer stays); a problem whose shortest prompts do not fit is refused.
        student_thinking: Passed to the chat template for the student's prompts (Qwen3's switch; other templates ignore it).
        teacher_thinking: The same for the teacher's.

    Attributes:
        student_think_ids: What stands between the student's prompt and an answer that it writes without thoughts: the tokens of an
            empty think block where thinking is on, none elsewhere.
        teacher_think_ids: The same for the teacher.

    Raises:
        StudentError: If the tokenizer has no chat template.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: Any,
        max_prompt_tokens: int,
        student_thinking: bool = False,
        teacher_thinking: bool = False,
    ) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise StudentError(
                "tokenizer: expected one with a chat template, got none; set `chat_template` in the student's "
                "tokenizer_config.json (an instruction-tuned model has one)."
            )
        self.task = task
        self.tokenizer = tokenizer
        self.max_prompt_tokens = max_prompt_tokens
        self.student_thinking = student_thinking
        self.teacher_thinking = teacher_thinking
        self.student_think_ids = self._think_ids(student_thinking)
        self.teacher_think_ids = self._think_ids(teacher_thinking)
        end = turn_end(tokenizer)
        self._end_token_id = tokenizer.eos_token_id if end is None else end
        # A probe meets the same few prompts in every window; applying a template costs more than scoring a Tiny one.
        self._tokenize = lru_cache(maxsize=4096)(self._tokenize_uncached)

    @classmethod
    def of(cls, config: EnvConfig, task: Task, tokenizer: Any) -> PromptBuilder:
        """Returns the builder of a configuration's prompts."""
        return cls(task, tokenizer, config.max_prompt_tokens, config.student_thinking, config.teacher_thinking)

    def student_prompt(self, problem: Problem) -> tuple[int, ...]:
        """Returns the token ids of the problem-only prompt.

        Raises:
            DataError: If the prompt is longer than ``max_prompt_tokens``.
        """
        token_ids, _ = self._tokenize(self.task.student_request(problem), self.student_thinking)
        if len(token_ids) > self.max_prompt_tokens:
            raise self._too_long(problem, len(token_ids))
        return token_ids

    def student_text(self, problem: Problem) -> str:
        """Returns the problem-only prompt as text, chat template applied."""
        return self._tokenize(self.task.student_request(problem), self.student_thinking)[1]

    def teacher_prompt(
        self, problem: Problem, reveal_ratio: float, kind: ExposureKind = "reference", other: Problem | None = None
    ) -> TeacherPrompt:
        """Returns the teacher's prompt at a reveal ratio.

        Args:
            problem: The problem that the student solves.
            reveal_ratio: Share of the steps to show, in [0, 1].
            kind: What the context is taken from.
            other: The problem of which something is shown, for the kinds ``WITH_ANOTHER``.

        Raises:
            ConfigError: If the ratio is out of range, ``kind`` is unknown, or ``other`` is missing where it is needed.
            DataError: If the prompt does not fit even with no step shown (with another problem's answer, the context is then left
                out altogether, which counts as cut).
        """
        if kind not in get_args(ExposureKind):
            raise ConfigError(f"exposure: expected one of {get_args(ExposureKind)}, got {kind!r}; pass one of these.")
        if kind == "none":
            num_shown_steps(reveal_ratio, 1)  # the same check of the ratio as for the other kinds
            return self._alone(problem, num_asked=0, num_steps=0)
        if kind in WITH_ANOTHER and other is None:
            raise ConfigError(
                f"other: expected a problem of which something is shown (kind={kind!r}), got None; pass one."
            )
        if kind == "other_matched":
            assert other is not None
            return self._matched(problem, reveal_ratio, other)
        steps, answer = source(kind, problem, other)
        num_asked = num_shown_steps(reveal_ratio, len(steps))
        for num_shown in range(num_asked, -1, -1):
            if answer is None and num_shown == 0:
                return self._alone(problem, num_asked, len(steps))
            request = self.task.teacher_request(problem, steps[:num_shown], answer)
            token_ids, text = self._tokenize(request, self.teacher_thinking)
            if len(token_ids) <= self.max_prompt_tokens:
                return TeacherPrompt(token_ids, text, num_shown, num_asked, len(steps))
        if kind in WITH_ANOTHER:
            # Which problem comes as the other one is not known when problems are checked, and a control must not end a run.
            return self._alone(problem, max(1, num_asked), len(steps))
        raise self._too_long(problem, len(token_ids))

    def _matched(self, problem: Problem, reveal_ratio: float, other: Problem) -> TeacherPrompt:
        """Returns a prompt with as much of another solution that it has the tokens of the prompt with the reference.

        The other solution is cut at a token, and begins again where it is too short. Token borders shift where texts meet, so that
        prompts may differ by a token or two.
        """
        reference = self.teacher_prompt(problem, reveal_ratio)
        token_ids = self.tokenizer.encode("".join(other.steps), add_special_tokens=False)
        num_tokens, wanted = 0, len(reference.token_ids)
        found = self._with_tokens_of(problem, other, token_ids, 0)
        for _ in range(3):
            if len(found[0]) == wanted:
                break
            num_tokens = max(0, num_tokens + wanted - len(found[0]))
            found = self._with_tokens_of(problem, other, token_ids, num_tokens)
        if len(found[0]) > self.max_prompt_tokens:
            return self._alone(problem, max(1, reference.num_asked), reference.num_steps)
        return dataclasses.replace(reference, token_ids=found[0], text=found[1])

    def _with_tokens_of(
        self, problem: Problem, other: Problem, token_ids: Sequence[int], num_tokens: int
    ) -> tuple[tuple[int, ...], str]:
        repeated = itertools.islice(itertools.cycle(token_ids), num_tokens)
        text = self.tokenizer.decode(list(repeated), clean_up_tokenization_spaces=False)
        request = self.task.teacher_request(problem, (text,) if text else (), other.answer)
        return self._tokenize(request, self.teacher_thinking)

    def is_usable(self, problem: Problem) -> bool:
        """Returns whether a problem can be trained on.

        Its prompts must fit when nothing but the final answer is shown, and no text of it may contain one of the tokenizer's
        control tokens, with which a row of data could end its turn and begin another.
        """
        texts = (problem.problem, problem.answer, *problem.steps)
        if any(token in text for token in self.tokenizer.all_special_tokens for text in texts):
            return False
        prompts = (
            self._tokenize_uncached(self.task.student_request(problem), self.student_thinking),
            self._tokenize_uncached(self.task.teacher_request(problem, (), problem.answer), self.teacher_thinking),
        )
        return all(len(token_ids) <= self.max_prompt_tokens for token_ids, _ in prompts)

    def reference_ids(self, problem: Problem, max_tokens: int) -> tuple[int, ...]:
        """Returns the reference solution as an assistant's answer, end token included, at most ``max_tokens`` long."""
        token_ids = self.tokenizer.encode(self.task.reference_completion(problem), add_special_tokens=False)
        return tuple([*token_ids, self._end_token_id][:max_tokens])

    def _alone(self, problem: Problem, num_asked: int, num_steps: int) -> TeacherPrompt:
        """Returns the teacher's prompt without a reference: the student's request."""
        token_ids, text = self._tokenize(self.task.student_request(problem), self.teacher_thinking)
        if len(token_ids) > self.max_prompt_tokens:
            raise self._too_long(problem, len(token_ids))
        return TeacherPrompt(token_ids, text, 0, num_asked, num_steps)

    def _think_ids(self, thinking: bool) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(think_block(self.tokenizer, thinking), add_special_tokens=False))

    def _tokenize_uncached(self, request: str, thinking: bool) -> tuple[tuple[int, ...], str]:
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": request}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=thinking,
        )
        return tuple(self.tokenizer.encode(text, add_special_tokens=False)), text

    def _too_long(self, problem: Problem, num_tokens: int) -> DataError:
        return DataError(
            f"problem {problem.id!r}: expected a prompt of at most {self.max_prompt_tokens} tokens "
            f"(max_prompt_tokens), got {num_tokens}; raise max_prompt_tokens or leave the problem out."
        )


def common_suffix_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Returns how many tokens two prompts share at their end.

    >>> common_suffix_length([1, 2, 3, 4], [9, 3, 4])
    2
    """
    length = 0
    for left, right in zip(reversed(first), reversed(second), strict=False):
        if left != right:
            break
        length += 1
    return length
