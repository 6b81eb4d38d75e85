"""What a hub is sent of runs: their files by where they go, and a model card that is written from them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from atesd.experiments.resuming import is_finished
from atesd_env.errors import RunFilesError
from atesd_env.files.reading import read_json, reading
from atesd_env.files.run_folder import BRANCHES_FILE, CONFIG_FILE, TRAJECTORY_FILE, read_rows

_PLACES = {
    "adapter/adapter_config.json": "adapter_config.json",  # where peft looks
    "adapter/adapter_model.safetensors": "adapter_model.safetensors",
    "agent.safetensors": "agent.safetensors",
    "agent.zip": "agent.zip",
    CONFIG_FILE: f"run/{CONFIG_FILE}",
    TRAJECTORY_FILE: f"run/{TRAJECTORY_FILE}",
    BRANCHES_FILE: f"run/{BRANCHES_FILE}",
}
_SAMPLES = {"samples.jsonl": "run/samples.jsonl"}


def files_of(runs: Sequence[Path], *, with_samples: bool = False) -> dict[str, Path]:
    """Returns the files of finished runs by their place in a repository; several runs have a folder each.

    Args:
        runs: Their folders.
        with_samples: The rollouts too, in which the data can be read.

    Raises:
        RunFilesError: If a run is not finished, or a file is behind a link.
    """
    found: dict[str, Path] = {}
    for run in runs:
        if not is_finished(run):
            raise RunFilesError(f"{run}: expected a finished run, got one that is not; go on with it first (--resume).")
        folder = _place(run, runs)
        places = _PLACES | (_SAMPLES if with_samples else {})
        there = [name for name in places if (run / name).is_file()]
        for name in there:
            if (run / name).resolve() != run.resolve() / name:
                raise RunFilesError(
                    f"{run / name}: expected a file of this folder, got a link to another, which may be none to send; put the file "
                    "itself there."
                )
        found |= {f"{folder}{places[name]}": run / name for name in there}
    return found


def _place(run: Path, runs: Sequence[Path]) -> str:
    """Returns a run's folder in a repository: its path below the folder of all runs, where names may repeat; "" of one alone."""
    return "" if len(runs) == 1 else f"{run.relative_to(os.path.commonpath(runs)).as_posix()}/"


def card_of(runs: Sequence[Path], repo: str) -> str:
    """Returns the text of a repository's ``README.md``: what the runs were, what came of them, how to load and repeat them.

    Raises:
        RunFilesError: If a run cannot be read.
    """
    described = []
    for run in runs:
        with reading(run / CONFIG_FILE, "a run's description"):
            described.append(read_json(run / CONFIG_FILE))
    students = dict.fromkeys(str(one["config"].get("student", one["env_id"])) for one in described)
    about: dict[str, Any] = {"library_name": "peft", "tags": ["atesd-env", "on-policy-self-distillation", "lora"]}
    if bases := [name for name in students if name.count("/") == 1 and not os.path.exists(name)]:
        about["base_model"] = bases[0] if len(bases) == 1 else bases
    rows = [_line(one, read_rows(run / TRAJECTORY_FILE)) for one, run in zip(described, runs, strict=True)]
    folder = _place(runs[0], runs)
    return f"""---
{yaml.safe_dump(about, sort_keys=False)}---

# {repo.rpartition("/")[2]}

Made by {", ".join(f"`{os.path.basename(name)}`" for name in students)} learning by on-policy self-distillation in atesd-env
{version("atesd-env")}: a controller chose in each window how much of the reference solution the teacher saw.

| environment | controller | seed | updates | mean reveal ratio | probe NLL before | after | probe accuracy |
| --- | --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

The probe is the run's own set of held-out problems: it says whether the student learned, and is no benchmark. Every field of the
configuration stands in `{folder}run/config.json`, a row for each window in `{folder}run/trajectory.jsonl`. To repeat it:

```sh
atesd run --config {folder}run/config.json --out again
```

This card was written from the run's files. It names no licence: the base model's and the data's hold.
"""


def _line(description: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a run's line of the table."""
    ratios = [row["exposure/reveal_ratio"] for row in rows if row.get("exposure/reveal_ratio") is not None]
    accuracies = [row["probe/accuracy"] for row in rows if row.get("probe/accuracy") is not None]
    cells = [
        description["env_id"],
        f"`{description['agent']}`",
        description["seed"],
        rows[-1]["update"],
        f"{sum(ratios) / len(ratios):.2f}" if ratios else "-",
        _nats(rows[0].get("probe/nll_before")),
        _nats(rows[-1].get("probe/nll")),
        f"{accuracies[-1]:.1%}" if accuracies else "-",
    ]
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _nats(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
