"""The notebooks: their code runs (in small), and the outputs that they carry are those of their code."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

FOLDER = Path(__file__).parents[2] / "notebooks"
_TINY = "num_rollouts=2, max_new_tokens=8, probe_size=2, hold_window=1"
SMALLER = {
    "benchmark": {
        "%matplotlib inline\n": "",
        '["slip_teleport-5", "slip-terse-5", "slip-terse-groups"]': '["slip-terse-5"]',
    },
    "first_run": {
        "%matplotlib inline\n": "",
        'gym.make("ATESD-Tiny-v0", windows=5)': f'gym.make("ATESD-Tiny-v0", windows=5, {_TINY})',
        "windows=12,\n    probe_accuracy_every=3": f"windows=2, probe_accuracy_every=1, {_TINY}",
        'gym.make("ATESD-Tiny-v0", windows=12)': f'gym.make("ATESD-Tiny-v0", windows=12, {_TINY})',
        "ratios=[0.0, 0.25, 0.5, 0.75, 1.0], windows=2": "ratios=[0.0, 1.0], windows=1",
    },
    "own_controller": {
        "%matplotlib inline\n": "",
        "windows, seeds = 200, range(3)": "windows, seeds = 8, range(2)",
        "iloc[[0, 49, 99, 149, 199]]": "iloc[[0, 7]]",
        "windows=10,\n    probe_accuracy_every=5": f"windows=2, probe_accuracy_every=1, {_TINY}",
    },
    "reading_runs": {
        "%matplotlib inline\n": "",
        "seeds, ratios = range(8), (0, 0.2, 0.4, 0.6, 0.8, 1)": "seeds, ratios = range(2), (0, 0.4, 1)",
        "windows=60": "windows=10",
    },
}
"""What a notebook says -> what is run here, for each notebook."""


def notebook(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.ipynb").read_text())


def code_cells(name: str) -> list[dict[str, Any]]:
    return [cell for cell in notebook(name)["cells"] if cell["cell_type"] == "code"]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def draws(cell: dict[str, Any]) -> bool:
    return "analysis.plot_" in source(cell)


def test_every_notebook_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SMALLER)


@pytest.mark.parametrize("name", SMALLER)
def test_the_outputs_are_those_of_the_code(name: str):
    cells = code_cells(name)
    sources = "\n".join(source(cell) for cell in cells)
    executed = notebook(name)["metadata"]["executed_source"]
    assert executed == hashlib.sha256(sources.encode()).hexdigest(), "run: make notebooks"
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 400_000
    for cell in cells:
        outputs = cell["outputs"]
        assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
        pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
        assert len(pictures) == draws(cell), source(cell)
        assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.parametrize("name", SMALLER)
def test_the_code_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("notebook")
    monkeypatch.setitem(sys.modules, "notebook", module)  # where a saved agent's class is looked for
    names: dict[str, Any] = vars(module)
    replaced = set()
    with contextlib.redirect_stdout(io.StringIO()):
        for number, cell in enumerate(code_cells(name), start=1):
            text = source(cell)
            for old, new in SMALLER[name].items():
                if old in text:
                    replaced.add(old)
                    text = text.replace(old, new)
            # The last line of a cell is what a notebook shows.
            *_, last = text.splitlines()
            if draws(cell):
                text = text.removesuffix(last) + f"shown = {last}"
            exec(compile(text, f"{name}, cell {number}", "exec"), names)
            assert not draws(cell) or isinstance(names.pop("shown"), Figure)
    assert replaced == set(SMALLER[name])
