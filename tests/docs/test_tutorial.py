"""docs/your_own_controller.md: its blocks are saved and run as a reader would."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from analysis import load_runs
from tests.programs import ENVIRONMENT, STRICT_PYTHON, ran

PAGE = (Path(__file__).parents[2] / "docs" / "your_own_controller.md").read_text()
COMMAND = [*STRICT_PYTHON, "-m", "atesd"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def said(arguments: list[str], folder: Path, **environment: str) -> str:
    result = ran(*arguments, cwd=folder, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader who saved both classes as mine.py, and ran the snippet and then the commands."""
    folder = tmp_path_factory.mktemp("reader")
    first, second, snippet = blocks("python")
    (folder / "mine.py").write_text(f"{first}\n\n{second}")
    (folder / "snippet.py").write_text(snippet)
    (folder / "printed.txt").write_text(said([*STRICT_PYTHON, "snippet.py"], folder))
    for line in (line for block in blocks("sh") for line in block.splitlines()):
        verb, *arguments = shlex.split(line)
        assert verb == "atesd"
        said([*COMMAND, *arguments], folder)
    return folder


def test_the_first_controller_has_ten_lines():
    lines = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(lines) <= 10


def test_the_runs_are_those_of_the_controllers(workplace: Path):
    frame = load_runs(workplace / "runs" / "mine")
    ratios = frame.groupby("agent", observed=True)["exposure/reveal_ratio"]
    assert ratios.first().to_dict() == {"mine:Falling": 1.0, "mine:Falling:start=0.5": 0.5, "fixed:1": 1.0}
    assert ratios.last()["mine:Falling"] < 0.2
    trying = load_runs(workplace / "runs" / "trying")
    trying = trying[trying["agent"] == "mine:Trying:explore=0.1"]
    assert trying["agent/best_ratio"].nunique() > 1
    assert len(trying) == 40


def test_the_saved_agent_goes_on_and_the_frozen_one_stays(workplace: Path):
    printed = (workplace / "printed.txt").read_text()
    learned, after = re.findall(r"\[([^]]+)\]", printed)
    assert learned != after
    best = [0.0, 0.25, 0.5, 0.75, 1.0][int(np.argmax([float(value) for value in learned.split()]))]
    assert best in (0.25, 0.5), "the toy's best ratio is 0.4"
    frozen = load_runs(workplace / "runs" / "frozen")["exposure/reveal_ratio"].unique()
    assert frozen.tolist() == [best]


def test_an_interrupted_run_of_the_learning_controller_goes_on(workplace: Path, tmp_path: Path):
    script = (
        "import sys; from pathlib import Path\n"
        "from atesd.experiments import execute, plan_runs\n"
        "from atesd_env.config import preset\n"
        "alone, stopped = (plan_runs('ATESD-Toy-v0', preset('ATESD-Toy-v0', windows=20), ['mine:Trying'], [0],\n"
        "                  Path(sys.argv[1]) / name)[0] for name in ('alone', 'stopped'))\n"
        "execute(alone)\n"
        "def stop(info):\n"
        "    if info['window'] == 9: raise KeyboardInterrupt\n"
        "try: execute(stopped, report=stop, checkpoint_every=2)\n"
        "except KeyboardInterrupt: pass\n"
        "execute(stopped, resume=True)\n"
        "import json\n"
        "def rows(folder):\n"
        "    lines = (folder / 'trajectory.jsonl').read_text().splitlines()\n"
        "    return [{name: value for name, value in json.loads(line).items() if not name.startswith('time/')}\n"
        "            for line in lines]\n"
        "assert rows(alone.folder) == rows(stopped.folder)\n"
        "agents = [(spec.folder / 'agent.safetensors').read_bytes() for spec in (alone, stopped)]\n"
        "assert agents[0] == agents[1]\n"
    )
    said([sys.executable, "-c", script, str(tmp_path)], workplace)


def test_the_entry_point_names_the_class(workplace: Path):
    (block,) = blocks("toml")
    ((name, target),) = tomllib.loads(block)["project"]["entry-points"]["atesd.agents"].items()
    site = workplace / "site"
    metadata = site / "reader_for_test-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: reader-for-test\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[atesd.agents]\n{name} = {target}\n")
    (site / "mine.py").write_text((workplace / "mine.py").read_text())
    path = {"PYTHONPATH": os.pathsep.join([str(site), ENVIRONMENT["PYTHONPATH"]])}
    assert "mine:Trying, from the installed package reader-for-test" in said([*COMMAND, "agents"], site, **path)
    (inline,) = re.findall(r"`--agent (trying[^`]*)`", PAGE)
    said([*COMMAND, "run", "--env", "ATESD-Toy-v0", "--agent", inline, "--out", "runs"], site, **path)
    assert load_runs(site / "runs")["agent/best_ratio"].notna().all()


def test_linked_files_exist():
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / link.partition("#")[0]).exists(), link
