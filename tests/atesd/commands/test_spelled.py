"""What a refusal calls the fields: by the flags of the verb that was typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from atesd.commands.run import Command as Run
from atesd.commands.spelled import flag_names, in_flags
from tests.programs import refusal

NAMES = flag_names(Run)


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("lower max_prompt_tokens or windows", "lower --max-prompt-tokens or windows"),
        ("windows: expected one, got none", "--windows: expected one, got none"),
        ("pass train_on_benchmark=True", "pass --train-on-benchmark"),
        ("pass engine_sleep=False", "pass --no-engine-sleep"),
        ("got 'data_path'; see a/data_path.md and --data-path", "got 'data_path'; see a/data_path.md and --data-path"),
        ("agent 'beta:learning_rate=-1', option learning_rate: expected",) * 2,
        ("eval_seeds: expected one, which is another verb's", "eval_seeds: expected one, which is another verb's"),
    ],
)
def test_fields_are_written_as_flags(message: str, typed: str):
    assert in_flags(message, NAMES) == typed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-prompt-tokens", "3"], "atesd run: --max-prompt-tokens: expected a number in [8, inf), got 3"),
        (["--task", "math"], "(--task math), got none; pass --data-path problems.jsonl."),
        (
            ["--task", "math", "--data-path", "rows.jsonl", "--data-split", "test"],
            "--data-split: expected it beside a data set of the hub or a folder that names none itself, got 'test'",
        ),
        (
            ["--task", "math", "--data-path", "openai/gsm8k:train", "--data-config", "socratic"],
            "--data-config: expected it beside a data set",
        ),
        (
            ["--task", "math", "--data-path", "openai/gsm8k", "--data-split", "test"],
            "--data-path: expected data to train on, got 'openai/gsm8k:test', a split that a benchmark measures on",
        ),
    ],
)
def test_a_refusal_names_the_flag(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status = 1 if "--data-path" in arguments else 2
    assert message in refusal(capsys, "run", *arguments, "--agent", "beta", "--out", tmp_path / "runs", status=status)
