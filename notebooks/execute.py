"""Runs the notebooks beside this file from top to bottom and writes their outputs into them: ``python notebooks/execute.py [NAME ...]``.

No times are written, so that what changed in a notebook is what changed in its results. Pictures are made small (width, colours):
the files are kept in git.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import logging
import os
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent
WIDTH = 700
"""Largest width of a picture in pixels."""


def small(png: str) -> str:
    """Returns a picture, base64-encoded as it came, no wider than ``WIDTH`` and with a palette."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    image.thumbnail((WIDTH, 10 * WIDTH), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.quantize(128, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def execute(path: Path) -> None:
    """Runs a notebook in its own folder and saves it; an error ends it, with its traceback."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, record_timing=False, resources={"metadata": {"path": str(path.parent)}}).execute()
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        data = output.get("data", {})
        if "image/png" in data:
            data["image/png"] = small(data["image/png"])
    sources = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    # A test compares: outputs must be those of the code above them.
    notebook.metadata["executed_source"] = hashlib.sha256(sources.encode()).hexdigest()
    nbformat.write(notebook, path)


def main() -> None:
    """Runs all notebooks, or those that are named."""
    names = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {', '.join(names)}")
    # A library's progress bars miss a package that nothing here needs, and the warning names a path of this machine.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in parser.parse_args().names or names:
        start = time.perf_counter()
        execute(FOLDER / f"{name}.ipynb")
        logging.getLogger(__name__).info("%s: %.0f s", name, time.perf_counter() - start)


if __name__ == "__main__":
    main()
