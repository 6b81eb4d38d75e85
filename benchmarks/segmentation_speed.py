"""How long cutting a solution into steps takes, by length: real solutions and shapes that are hard on regular expressions.

Claim: time grows in proportion to the length, whatever is in the text, up to a million characters. Each shape is repeated to lengths
16,000, 64,000, 256,000 and 1,024,000; the smallest of three times counts. Growth is the exponent of time in length between the longest
and the third longest: 1 is linear, 2 quadratic. Shapes are those that once were quadratic, and all pairs of the tokens that the rule
knows, at 16,000 and 256,000 characters, of which the slowest and the fastest growing are told.

    python -m benchmarks.segmentation_speed --help
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

from atesd_env.tasks.segmentation import split_steps
from benchmarks.common import save

LENGTHS = (16_000, 64_000, 256_000, 1_024_000)
SAMPLES = Path(__file__).parent.parent / "tests" / "data"
SHAPES = {
    "annotation never closed": "<<" + "=" * 1_024_000,
    "braces never closed": "\\,{",
    "braces never closed in math": "$\\,{",
    "line ends before no item": "\\," + "\n" * 1_024_000,
    "vertical tabs between lines": "\x0b\n",
    "environments": "\\begin{align}x\\end{align}. ",
    "environments of many names": "\\begin{%d}x\\end{%d}. ",
    "dollars": "\\,$ ",
    "sentences": "So \\(x\\). Then ",
    "dashes": "\\,\n---",
    "full stops": "\\, . . . ",
    "figures": "\\,[asy]draw(a);[/asy] ",
}
TOKENS = (
    *(
        "\\begin{a}",
        "\\end{a}",
        "[asy]",
        "[/asy]",
        "\\[",
        "\\]",
        "\\(",
        "\\)",
        "$",
        "$$",
        "{",
        "}",
        "\\{",
        "\\\\",
        "\\",
    ),
    *(
        "\n",
        " ",
        "\t",
        ".",
        "A",
        "a",
        "- ",
        "1. ",
        "-",
        "1",
        "<<",
        "=",
        ">>",
        "\x0b",
        "\\end{",
        "\\begin{",
        "e.g.",
        ")",
    ),
)


def seconds(text: str, repeats: int = 3) -> float:
    """Returns the least processor time of some calls."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        split_steps(text)
        times.append(time.process_time() - started)
    return min(times)


def repeated(shape: str, length: int) -> str:
    """Returns a shape as often as makes a text of about that length; ``%d`` in it counts."""
    if "%d" in shape:
        return "".join(shape.replace("%d", str(number)) for number in range(length // (len(shape) + 6)))
    return (shape * (length // len(shape) + 1))[:length]


def growth(shorter: float, longer: float, factor: float) -> float:
    """Returns the exponent of time in length; times below a millisecond are no measure, and count as one."""
    return math.log(max(longer, 1e-3) / max(shorter, 1e-3)) / math.log(factor)


def by_length(shape: str) -> dict[str, Any]:
    """Returns the seconds at each length and the growth of one shape."""
    times = {length: seconds(repeated(shape, length)) for length in LENGTHS}
    return {"sec": times, "growth": growth(times[LENGTHS[1]], times[LENGTHS[3]], LENGTHS[3] / LENGTHS[1])}


def pairs_of_tokens() -> dict[str, Any]:
    """Returns the slowest and the fastest growing of all pairs of tokens, behind a backslash that makes them LaTeX."""
    found = []
    for pair in itertools.product(TOKENS, repeat=2):
        times = [seconds("\\," + repeated("".join(pair), length), repeats=2) for length in (LENGTHS[0], LENGTHS[2])]
        found.append((growth(*times, LENGTHS[2] / LENGTHS[0]), times[1], pair))
    fastest_growing, slowest = max(found), max(found, key=lambda one: one[1])
    return {
        "num_pairs": len(found),
        "fastest_growing": {"tokens": fastest_growing[2], "growth": fastest_growing[0], "sec": fastest_growing[1]},
        "slowest": {"tokens": slowest[2], "growth": slowest[0], "sec": slowest[1]},
    }


def main() -> None:
    """Measures all shapes and saves the result."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    shapes = dict(SHAPES)
    for name in ("gsm8k", "math"):
        lines = (SAMPLES / f"{name}_sample.jsonl").read_text(encoding="utf-8").splitlines()
        shapes[f"{name} solutions"] = "\n".join(json.loads(line)["solution"] for line in lines)
    save(
        "segmentation_speed",
        {"shapes": {name: by_length(shape) for name, shape in shapes.items()}, "pairs": pairs_of_tokens()},
    )


if __name__ == "__main__":
    main()
