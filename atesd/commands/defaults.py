"""Sizes that nobody typed, chosen for data of one's own: from its rows, and from the student's tokenizer and context."""

from __future__ import annotations

import math
from collections.abc import Sequence

from atesd.console import say
from atesd_env.config import EnvConfig, RunConfig

_MOST_COUNTED = 512
_SIZES = ("probe_size", "max_prompt_tokens", "max_new_tokens", "probe_max_tokens")


def fitted(config: RunConfig, arguments: Sequence[str]) -> RunConfig:
    """Returns a configuration whose untyped sizes fit its data and its student, and tells what was chosen.

    Only where the data is the user's: the packaged tasks have their presets'. A quarter of few problems is the probe; prompts and
    answers are as long as the data asks for (for answers, half more than nine tenths of its solutions), within the student's context.

    Args:
        config: What was typed, with the environment's defaults.
        arguments: What was typed: sizes named there stay.

    Raises:
        DataError: If the data cannot be read.
        StudentError: If the student's tokenizer cannot be loaded.
    """
    if not isinstance(config, EnvConfig) or config.task != "math" or config.data_path == "gsm8k":
        return config
    typed = {argument.partition("=")[0].lstrip("-").replace("-", "_") for argument in arguments if argument[:2] == "--"}
    open_sizes = [name for name in _SIZES if name not in typed]
    if not open_sizes:
        return config
    from atesd_env.exposure import PromptBuilder
    from atesd_env.student.loading import load_tokenizer
    from atesd_env.tasks.registry import make_task

    task = make_task(config.replace(probe_size=1))
    tokenizer, context = load_tokenizer(config.student)
    builder = PromptBuilder.of(config.replace(max_prompt_tokens=2**31), task, tokenizer)
    problems = [*task.probe_problems(1), *(task.typical_problem(index) for index in range(_MOST_COUNTED))]
    problems = list({problem.id: problem for problem in problems}.values())
    prompts = sorted(len(builder.teacher_prompt(problem, 1.0).token_ids) for problem in problems)
    answers = sorted(len(builder.reference_ids(problem, 2**31)) for problem in problems)
    most = (context or 2**31) // 2
    answer = min(_rounded(1.5 * answers[math.ceil(0.9 * len(answers)) - 1]), most)
    chosen = {
        "probe_size": min(config.probe_size, max(1, len(problems) // 4)),
        "max_new_tokens": answer,
        "probe_max_tokens": min(_rounded(answers[-1]), answer),
        "max_prompt_tokens": min(_rounded(prompts[-1]), (context or 2**31) - answer),
    }
    if config.probe_data_path is not None:
        del chosen["probe_size"]
    chosen = {name: size for name, size in chosen.items() if name in open_sizes and size != getattr(config, name)}
    fits = config.replace(**chosen)
    if chosen:
        num_cut = sum(length > fits.max_prompt_tokens for length in prompts)
        num_short = sum(length > fits.probe_max_tokens for length in answers)
        sizes = ", ".join(f"--{name.replace('_', '-')} {size}" for name, size in sorted(chosen.items()))
        say(
            f"chosen for {config.data_path} and {config.student}: {sizes}. Of {len(problems)} problems counted, {num_cut} lose steps "
            f"at full exposure and {num_short} are scored in part.",
            error=True,
        )
    return fits


def _rounded(length: float) -> int:
    """Returns a length, a little longer: a multiple of 16 tokens."""
    return 16 * math.ceil(length / 16)
