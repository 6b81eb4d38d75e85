"""What a refusal calls the fields: by the flags of the verb that was typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atesd.commands.run import Command as Run
from atesd.commands.spelled import check_flags, flag_names, in_flags
from atesd.commands.verbs import VERBS
from docs.generator.command_pages import help_of
from tests.programs import refusal, typed

NAMES = flag_names(Run)


@pytest.mark.parametrize(
    ("message", "expected"),
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
def test_fields_are_written_as_flags(message: str, expected: str):
    assert in_flags(message, NAMES) == expected


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
        (["--split", "test"], "--split: expected a field of a language model, got 'split', which only a benchmark has"),
        (
            ["--env", "ATESD-Toy-v0", "--no-gradient-checkpointing"],
            "--gradient-checkpointing: expected a field of a closed form, got",
        ),
    ],
)
def test_a_refusal_names_the_flag(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status = 1 if "--data-path" in arguments else 2
    assert message in refusal(capsys, "run", *arguments, "--agent", "beta", "--out", tmp_path / "runs", status=status)


@pytest.mark.parametrize(
    ("verb", "flag", "hint"),
    [
        ("run", "--windws", "did you mean --windows?"),
        ("evaluate", "--max_problem=3", "did you mean --max-problems?"),
        ("export", "--no-overwrit", "did you mean --overwrite?"),
        ("report", "--seeds", "--help lists them."),
    ],
)
def test_a_mistyped_flag_is_told_the_nearest_in_a_line(
    verb: str, flag: str, hint: str, capsys: pytest.CaptureFixture[str]
):
    """Before anything else that may be missing."""
    said = refusal(capsys, verb, flag, "3")
    name = flag.partition("=")[0]
    assert said == f"atesd {verb}: {name}: expected a flag of this verb, got one that it has not; {hint}"


@pytest.mark.parametrize("typed_first", [*VERBS, "run --env ATESD-Toy-v0"])
def test_every_flag_of_a_verbs_help_is_one(typed_first: str):
    words = typed_first.split()
    shown = re.findall(r"^[\s\u2502|]+(?:-\w, )?(--[a-z][\w-]*)", help_of([*words, "--help"]), flags=re.MULTILINE)
    more = ["--config=run.yaml", "--lora_r=8", "--no-engine-sleep"] if "run" in words else []
    check_flags([*shown, *more], flag_names(VERBS[words[0]].module().Command))


def test_columns_are_named_one_by_one_too_and_a_mistyped_one_is_told_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "1+1?", "work": "1+1=2 so 2", "final": 2}\n')
    columns = ["problem=text", "solution=work", "answer=final"]
    result = typed("data", rows, "--data-columns", *columns, "--examples", "0")
    assert "1 of 1 rows are used" in result.stdout
    said = refusal(capsys, "data", rows, "--data-columns", "problem=texd", *columns[1:], status=1)
    assert "name one of these (did you mean 'text'?)." in said
