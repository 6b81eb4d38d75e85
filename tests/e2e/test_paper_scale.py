"""docs/paper-scale.md: every command is run in the page's order, with a narrow Qwen3 of random weights and two local problems.

What is changed of a command stands in ``SMALLER``; what is added, in ``ADDED``. Loops are unrolled by bash itself.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atesd.commands.cli import main
from atesd_env.config import preset
from atesd_env.evaluation.benchmarks import BENCHMARKS
from tests.atesd_env.rollouts.engines.fake_engines import Brain, FakeVllmServer
from tests.models import LONG_CONTEXT, save_narrow_qwen3

pytest.importorskip("trl", reason="needs the package trl (pip install atesd-env[trl])")

PAGE = (Path(__file__).parents[2] / "docs" / "paper-scale.md").read_text()
CONTESTS = ("aime24", "aime25", "hmmt25")
SIZES = {
    "student": "./qwen3",
    "windows": 1,
    "hold_window": 1,
    "num_rollouts": 2,
    "max_new_tokens": 8,
    "probe_size": 2,
    "lora_r": 4,
}

SMALLER = {
    "siyanzhao/Openthoughts_math_30k_opsd --student Qwen/Qwen3-1.7B": "hub.jsonl --student ./qwen3",
    "--agent sft grpo": "--agent sft grpo:num_generations=2",
    "--ray --ray-gpus 1 --ray-cpus 8": "--processes 1",  # tests/atesd/experiments/test_ray_runs.py
    "torchrun --nproc-per-node 2 -m atesd": "atesd",  # tests/atesd_env/population/test_distributed.py
    "--windows 2 --out runs/two`": "--out runs/two-windows`",
    "rollout-engine vllm": "rollout-engine ADDRESS",
}
"""What the page says -> what is run here."""


def added(verb: str) -> list[str]:
    """Returns what is added to a verb's command."""
    if verb in ("run", "compare"):
        sizes = [text for name, value in SIZES.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        return [*sizes, "--quiet"]
    if verb == "evaluate":
        return ["--student", "./qwen3", "--lora-r", "4", "--sampling-tokens", "4", "--quiet"]
    return []


def commands(address: str) -> list[list[str]]:
    """Returns the words of every command of the page, in its order."""
    page = PAGE
    for old, new in SMALLER.items():
        assert old in page, old
        page = page.replace(old, new.replace("ADDRESS", address))
    blocks = re.findall(r"^```sh\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    blocks += re.findall(r"`(atesd run [^`]*)`", page)
    told = r"""atesd() { printf '%s\x1f' "$@"; echo; }; pip() { :; };"""
    shown = subprocess.run(["bash", "-ec", told + "\n".join(blocks)], capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    return [line.split("\x1f")[:-1] for line in shown.stdout.splitlines()]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVllmServer]:
    """The folder that a reader begins with, who has downloaded model and data; and a vLLM server."""
    monkeypatch.chdir(tmp_path)
    save_narrow_qwen3(Path("qwen3"))
    rows = [
        {
            "problem": f"Start with {number} and add three, then tell me what comes out of it all, please, in words and in digits.",
            "solution": f"We have {number}.\nWe add 3.\nThat is \\boxed{{{number + 3}}}.",
            "Answer": str(number + 3),
        }
        for number in range(40)
    ]
    Path("hub.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for place, name in enumerate(CONTESTS):
        contest = [
            {"problem": f"Contest {name} asks for {number} times {place + 2}.", "answer": number * (place + 2)}
            for number in (2, 3)
        ]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in contest))
        monkeypatch.setitem(BENCHMARKS, name, f"{name}.jsonl")
    fake = FakeVllmServer(Brain(preset("ATESD-Qwen3-1.7B-v0", **SIZES)), context=LONG_CONTEXT)
    yield fake
    fake.close()


def test_every_command_of_the_page_runs(server: FakeVllmServer, capsys: pytest.CaptureFixture[str]):
    printed: dict[str, str] = {}
    for words in commands(server.address):
        main([*words, *added(words[0])])
        printed[shlex.join(words)] = capsys.readouterr().out
    verbs = [shlex.split(line)[0] for line in printed]
    assert verbs.count("evaluate") == len(CONTESTS) + 1
    assert {"plan", "data", "run", "compare"} <= set(verbs)
    runs = {path.parent.name for path in Path("runs/1.7b").glob("*/trajectory.jsonl")}
    agents = ("beta", "fixed-1", "fixed-0.5", "random", "sft", "grpo-num_generations-2")
    assert runs == {f"{agent}-seed{seed}" for agent in agents for seed in range(3)} | {"beta-seed3"}
    for contest in CONTESTS:
        summary: dict[str, Any] = json.loads(Path(f"evaluations/1.7b-{contest}/summary.json").read_text())
        assert len(summary["summaries"]) == 1 + 3 + 3
        assert {(pair["first"], pair["second"]) for pair in summary["comparisons"]} == {
            ("beta", "base"),
            ("opsd", "base"),
            ("opsd", "beta"),
        }
        assert len(Path(f"evaluations/1.7b-{contest}/samples.jsonl").read_text().splitlines()) == 7 * 2 * 12
