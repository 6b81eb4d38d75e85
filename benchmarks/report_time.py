"""How long a report takes: the HTML file about 100 runs of 40 windows with samples, made by the closed form.

Claim: 100 runs in under 30 seconds, loading and pictures included. The part that grows with runs is what a run costs, so the
script measures a tenth of them too.

    python -m benchmarks.report_time --help
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from analysis.report.page import write_report
from atesd.experiments.run import execute
from atesd.experiments.specs import plan_runs
from atesd_env.config import preset
from benchmarks.common import save

AGENTS = ("beta", "fixed:0.4", "fixed:1", "random", "linear:0:1")
SAMPLE = {
    "problem_id": "p",
    "student_prompt": "<|user|>" + "What is 37+48+25? " * 20 + "<|end|>",
    "teacher_prompt": "<|user|>" + "What is 37+48+25? " * 20 + "37+48=85; " * 40 + "<|end|>",
    "reveal_ratio": 0.5,
    "num_shown": 1,
    "num_steps": 2,
    "rollout": "37+48=85; " * 60,
    "answer": "110",
    "is_correct": False,
}


def measure(num_runs: int, windows: int, folder: Path) -> dict[str, float]:
    """Returns seconds and size of the report about ``num_runs`` runs, five agents each with a fifth of them as seeds."""
    config = preset("ATESD-Toy-v0", windows=windows)
    specs = plan_runs("ATESD-Toy-v0", config, AGENTS, [0], folder)
    lines = [json.dumps({"window": window, **SAMPLE}) + "\n" for window in range(1, windows + 1)]
    for spec in specs:
        execute(spec)
        (spec.folder / "samples.jsonl").write_text("".join(lines))
        description = json.loads((spec.folder / "config.json").read_text())
        for seed in range(1, num_runs // len(AGENTS)):  # a copy under another seed takes as long to report
            copy = spec.folder.with_name(spec.folder.name.replace("seed0", f"seed{seed}"))
            shutil.copytree(spec.folder, copy)
            (copy / "config.json").write_text(json.dumps({**description, "run": copy.name, "seed": seed}))
    started = time.perf_counter()
    path = write_report(folder)
    return {"runs": num_runs, "report_sec": time.perf_counter() - started, "report_bytes": path.stat().st_size}


def main() -> None:
    """Measures and writes ``results/report_time.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--windows", type=int, default=40)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as large:
        few = measure(max(5, arguments.runs // 10), arguments.windows, Path(small))
        many = measure(arguments.runs, arguments.windows, Path(large))
    save("report_time", {"windows": arguments.windows, "few": few, "many": many})


if __name__ == "__main__":
    main()
