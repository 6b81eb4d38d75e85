"""docs/analysis.md: its example runs as a reader would run it, and it names what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

import analysis
from analysis import describe_columns, documented_columns, load_runs
from tests.programs import ROOT, STRICT_PYTHON, ran

PAGE = (ROOT / "docs" / "analysis.md").read_text()


def write_runs(folder: Path) -> None:
    """Writes small finished runs of two agents."""
    for agent in ("beta", "fixed:1"):
        for seed in range(2):
            run = folder / f"{agent.replace(':', '-')}-seed{seed}"
            run.mkdir(parents=True)
            config = {"windows": 5, "gamma": 0.9, "lookahead": 2, "grounded_weight": 0.1}
            description = {
                "format_version": 1,
                "env_id": "ATESD-Toy-v0",
                "agent": agent,
                "seed": seed,
                "config": config,
            }
            (run / "config.json").write_text(json.dumps(description))
            rows = [
                {
                    "window": window,
                    "exposure/reveal_ratio": 0.5,
                    "exposure/reveal_ratio_1": 0.5,
                    "probe/nll": 2.0 / window + seed,
                    "probe/grounded": -1.0,
                    "reward/progress": 0.1,
                    "agent/c1": 2.0,
                    "mine/own": 1.0,
                    "status": "truncated" if window == 5 else "running",
                }
                for window in range(1, 6)
            ]
            (run / "trajectory.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_examples_run(tmp_path: Path) -> None:
    write_runs(tmp_path / "demo")
    reading, calling = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    for name, snippet, said in (("reading.py", reading, "own_progress"), ("calling.py", calling, "minus the best")):
        (tmp_path / name).write_text(snippet)
        result = ran(*STRICT_PYTHON, name, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert said in result.stdout
    assert (tmp_path / "learning.png").exists()


def test_every_public_function_is_on_the_page() -> None:
    names = [name for name in analysis.__all__ if name[0].islower() and name not in ("documented_columns",)]
    missing = [name for name in names if name not in PAGE]
    assert [name for name in missing if name not in ("compare_agents", "final_outcomes", "plot_comparison")] == []


def test_every_column_of_a_frame_is_explained(tmp_path: Path) -> None:
    write_runs(tmp_path)
    frame = load_runs(tmp_path, config=["gamma"])
    table = describe_columns(frame).set_index("column")
    assert table.index.tolist() == list(frame.columns)
    assert table.index[table["meaning"] == ""].tolist() == ["mine/own"]
    assert table.loc["probe/nll", "unit"] == "nats/token"
    assert "group <g>" in table.loc["exposure/reveal_ratio_1", "meaning"]
    assert "field of the run's configuration" in table.loc["config/gamma", "meaning"]
    known = documented_columns()
    assert known["column"].is_unique
    assert not (known["meaning"] == "").any()
    assert np.isin(["run_status", "version", "probe/nll", "toy/regret", "agent/<name>"], known["column"]).all()
