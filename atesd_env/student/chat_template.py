"""The student's chat template, checked when a student is loaded: whatever it does to prompts, no training shows later.

A template may leave the message out (teacher and student then see the same, and nothing is learned), write the date (then no seed fixes
a run), or end the assistant's turn with a token that ends no rollout (all then run to their limit).
"""

from __future__ import annotations

from typing import Any

from atesd_env.errors import StudentError

# As much of a teacher's request as a template could stumble over: lines, blank lines, LaTeX, braces, brackets of tags.
_REQUEST = (
    "Ann has 3 pens and buys $4$ more. How many has she?\n\n=== Reference ===\nShe adds them: 3 + 4 = 7.\n"
    "So $x = \\frac{14}{2}$ {pens} <all>.\n\nFinal answer: \\boxed{7}\n=== End ===\n\nWork it out [step by step]."
)
_ANSWER = "3 + 4 = 7, so \\boxed{7}"
# Macros that go before the template's own clock: two different times, in whatever format they are asked for.
_CLOCKS = tuple("{% macro strftime_now(format) %}{{ format }}" + time + "{% endmacro %}" for time in ("07", "19"))
_REMEDY = "in the student's tokenizer (chat_template.jinja, or chat_template of tokenizer_config.json)"


def check_chat_template(tokenizer: Any, source: str, enable_thinking: bool) -> None:
    """Checks what a chat template makes of a request.

    Args:
        tokenizer: A tokenizer; without a template there is nothing to check.
        source: Where the student came from, for messages.
        enable_thinking: As it will be passed to the template.

    Raises:
        StudentError: If the prompt does not hold the request, or depends on more than the request, such as the date.
    """
    if not getattr(tokenizer, "chat_template", None):
        return
    options = {"add_generation_prompt": True, "enable_thinking": enable_thinking}
    messages = [{"role": "user", "content": _REQUEST}]
    template = tokenizer.get_chat_template()
    first, second = (
        _rendered(tokenizer, source, messages, chat_template=clock + template, **options) for clock in _CLOCKS
    )
    plain, again = (_rendered(tokenizer, source, messages, **options) for _ in range(2))
    if _REQUEST not in first:
        raise StudentError(
            f"student {source}: expected a chat template that writes the user's message into the prompt, got a prompt without it or with "
            f"another text; have it write message['content'], a text, as it is {_REMEDY}."
        )
    if first != second or plain != again:
        raise StudentError(
            f"student {source}: expected a chat template that makes the same prompt at any time, got one with date or time in it, under "
            f"which no seed fixes a run; write a fixed date in place of strftime_now {_REMEDY}."
        )


def turn_end(tokenizer: Any, source: str = "tokenizer") -> int | None:
    """Returns the token with which the template ends an assistant's turn; None if it writes nothing behind the answer.

    Raises:
        StudentError: If something stands there that no end of a rollout could be: a text, not a control token.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    messages = [{"role": "user", "content": _REQUEST}, {"role": "assistant", "content": _ANSWER}]
    behind = _rendered(tokenizer, source, messages).rpartition(_ANSWER)[2].strip()
    if not behind:
        return None
    first = int(tokenizer.encode(behind, add_special_tokens=False)[0])
    if first in tokenizer.all_special_ids or first in tokenizer.added_tokens_decoder:
        return first
    raise StudentError(
        f"student {source}: expected a chat template that ends the assistant's turn with a control token, at which a rollout ends, got "
        f"{behind[:40]!r}; end it with the tokenizer's eos_token {_REMEDY}."
    )


def think_block(tokenizer: Any, enable_thinking: bool) -> str:
    """Returns what the template writes between the head of the assistant's turn and an answer that comes without thoughts.

    Args:
        tokenizer: A tokenizer with a template.
        enable_thinking: As in the prompt. Qwen3's template writes an empty block where it is on; where it is off the prompt ends in
            that block already, and "" stands between them, as in every template that knows no thinking.
    """
    messages = [{"role": "user", "content": _REQUEST}, {"role": "assistant", "content": _ANSWER}]
    options = {"enable_thinking": enable_thinking}
    prompt = _rendered(tokenizer, "tokenizer", messages[:1], add_generation_prompt=True, **options)
    before = _rendered(tokenizer, "tokenizer", messages, **options).rpartition(_ANSWER)[0]
    return before[len(prompt) :] if before.startswith(prompt) else ""


def _rendered(tokenizer: Any, source: str, messages: list[dict[str, str]], **options: Any) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))
    except Exception as error:  # a template is a program: it may raise anything
        raise StudentError(
            f"student {source}: expected a chat template that renders a user's message and an answer, got "
            f"{type(error).__name__}: {str(error)[:200]}; mend it {_REMEDY}."
        ) from error
