"""`atesd plan`: what it prints, and which environment's defaults it takes."""

from __future__ import annotations

import re

import pytest

from atesd.commands.cli import main
from tests.programs import refusal


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(["plan", *arguments])
    return " ".join(capsys.readouterr().out.split())


def test_what_does_not_fit_comes_with_what_to_change(capsys: pytest.CaptureFixture[str]):
    text = shown(capsys, "ATESD-Qwen3-8B-v0", "--gpus", "2xRTX4090-24GB", "--runs", "3")
    assert "does not fit one RTX4090-24GB" in text
    assert "--max-prompt-tokens 2048" in text
    assert "3 runs on 2" in text


def test_without_a_gpu_it_plans_a_cpus_process(capsys: pytest.CaptureFixture[str]):
    assert "weights' file, mapped" in shown(capsys, "ATESD-Tiny-v0")


def test_the_id_may_stand_behind_options(capsys: pytest.CaptureFixture[str]):
    """Its presets are the defaults wherever it stands; those of Tiny under another's name would be a wrong plan."""
    before = shown(capsys, "ATESD-Qwen3-1.7B-v0", "--runs", "3", "--windows", "5")
    assert "Qwen/Qwen3-1.7B: 1,7" in before
    assert "20 updates" in before
    assert shown(capsys, "--runs", "3", "ATESD-Qwen3-1.7B-v0", "--windows", "5") == before


def test_several_processes_are_a_run_on_as_many_devices(capsys: pytest.CaptureFixture[str]):
    text = shown(capsys, *["ATESD-Qwen3-8B-v0", "--gpus", "8xH100-80GB", "--processes", "4", "--runs", "6"])
    assert "hours of a run on 4 H100-80GB" in text
    hours, of_all = re.search(r"H100-80GB: ([\d.]+) .*; 6 runs on 8: ([\d.]+)", text).groups()
    assert float(of_all) == pytest.approx(3 * float(hours), abs=0.02), "two at a time"
    assert "what the processes send each other left out" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpus", "2xH100-80GB", "--processes", "4"], "expected at least 4, one for each of --processes"),
        (["--processes", "0"], "expected runs, students, processes and answer of at least 1"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert said in refusal(capsys, "plan", "ATESD-Qwen3-1.7B-v0", *arguments)


def test_a_closed_form_needs_no_plan(capsys: pytest.CaptureFixture[str]):
    said = refusal(capsys, "plan", "ATESD-Toy-v0")
    assert "expected an environment with a language model, got ATESD-Toy-v0" in said
