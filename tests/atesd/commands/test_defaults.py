"""Thirty rows and a model in a folder run at first try, with one line that says what was chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from atesd.commands import cli
from atesd.commands.defaults import fitted
from atesd.commands.evaluate import Command as Evaluation
from atesd.commands.evaluate import _sampled_with, parse_command
from atesd_env.config import EnvConfig, preset
from tests.atesd_env.student.test_chat_template import SIZES, small_tokenizer
from tests.runs import rows_of

ROWS = [
    {
        "question": f"Ann has {i} pens and buys {i + 1}. How many?",
        "answer": f"She adds {i} and {i + 1}.\nSo {2 * i + 1}.\n#### {2 * i + 1}",
    }
    for i in range(30)
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's folder: rows like GSM8K's, and a model as ``save_pretrained`` writes it."""
    monkeypatch.chdir(tmp_path)
    tokenizer = small_tokenizer()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**SIZES))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained("model")
    tokenizer.save_pretrained("model")
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_thirty_rows_and_a_local_model_run_at_first_try(folder: Path, capsys: pytest.CaptureFixture[str]):
    own = ["--task", "math", "--data-path", "rows.jsonl", "--student", "model"]
    short = ["--windows", "1", "--hold-window", "1", "--num-rollouts", "2", "--max-new-tokens", "8", "--quiet"]
    cli.main(["run", *own, *short, "--agent", "fixed:1", "--out", "runs"])
    error = capsys.readouterr().err
    assert error.count("chosen for rows.jsonl and model: --max-prompt-tokens ") == 1
    assert "--probe-size 6. Of 27 problems counted, 0 lose steps at full exposure and 0 are scored in part." in error
    (row,) = rows_of(Path("runs/fixed-1-seed0"))
    assert (row["exposure/shown_ratio"], row["exposure/cut_rate"]) == (1.0, 0.0)
    config = json.loads(Path("runs/fixed-1-seed0/config.json").read_text())["config"]
    assert (config["probe_size"], config["max_new_tokens"]) == (6, 8)


def test_sizes_fit_the_students_context_and_what_is_left_out_is_counted(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    config = preset("ATESD-Tiny-v0", task="math", data_path="rows.jsonl", student="model")
    assert isinstance(config, EnvConfig)
    model = json.loads(Path("model/config.json").read_text())
    Path("model/config.json").write_text(json.dumps(model | {"max_position_embeddings": 128}))
    chosen = fitted(config, [])
    assert isinstance(chosen, EnvConfig)
    assert chosen.max_prompt_tokens + chosen.max_new_tokens == 128
    assert "Of 27 problems counted, 27 lose steps" in capsys.readouterr().err
    typed = ["--probe-size=9", "--max-prompt-tokens", "8", "--max_new_tokens", "8", "--probe-max-tokens", "8"]
    assert fitted(config, typed) == config
    assert fitted(preset("ATESD-Tiny-v0"), []) == preset("ATESD-Tiny-v0")


def test_an_evaluation_samples_what_its_student_can_hold(folder: Path):
    for context, tokens in ((1024, 48), (40_960, 38_912)):
        model = json.loads(Path("model/config.json").read_text())
        Path("model/config.json").write_text(json.dumps(model | {"max_position_embeddings": context}))
        typed = ["--student", "model", "--benchmark", "rows.jsonl", "--out", "there"]
        _, spec = _sampled_with(parse_command(Evaluation, typed, "atesd evaluate", EnvConfig), {})
        assert spec.max_new_tokens == tokens
