"""How often answers are judged rightly: ours and plain Math-Verify, on pairs of answers whose verdicts were set down by hand.

The pairs are `tests/data/answer_pairs.jsonl`. Each is judged in both orders, and counts as right if both verdicts are. Math-Verify
is taken as it comes: both answers in a box, its default settings. Where it differs by its own rules (it rounds to six decimals),
it differs. Ours was mended until it had all of them, so its rate says what is covered, not what to expect of answers never seen.

    python -m benchmarks.grading --help
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from atesd_env.tasks.grading.answers import answers_match
from benchmarks.common import save

PAIRS = Path(__file__).parent.parent / "tests" / "data" / "answer_pairs.jsonl"
Judge = Callable[[str, str], bool]


def plain_math_verify(given: str, expected: str) -> bool:
    """Returns Math-Verify's verdict with its default settings, both answers in a box."""
    import math_verify

    gold, target = (math_verify.parse(f"\\boxed{{{text}}}") for text in (expected, given))
    return bool(math_verify.verify(gold, target))


def rates(pairs: list[dict[str, Any]], judge: Judge) -> dict[str, Any]:
    """Returns a judge's shares of right verdicts, by kind, with what it takes for the same and for different wrongly."""
    right: dict[str, list[bool]] = defaultdict(list)
    wrong: dict[bool, list[str]] = {True: [], False: []}
    num_asymmetric = num_right_as_written = 0
    started = time.perf_counter()
    for pair in pairs:
        verdicts = [judge(pair["given"], pair["expected"]), judge(pair["expected"], pair["given"])]
        num_asymmetric += verdicts[0] is not verdicts[1]
        num_right_as_written += verdicts[0] is pair["same"]
        is_right = all(verdict is pair["same"] for verdict in verdicts)
        right[pair["kind"]].append(is_right)
        if not is_right:
            wrong[pair["same"]].append(f"{pair['given']} | {pair['expected']}")
    return {
        "right": sum(map(sum, right.values())) / len(pairs),
        "right_in_the_order_given_expected": num_right_as_written / len(pairs),
        "called_the_same_wrongly": len(wrong[False]),
        "called_different_wrongly": len(wrong[True]),
        "other_verdict_in_other_order": num_asymmetric,
        "sec_per_verdict": (time.perf_counter() - started) / (2 * len(pairs)),
        "right_by_kind": {kind: sum(values) / len(values) for kind, values in right.items()},
        "wrong_pairs": wrong[False] + wrong[True],
    }


def main() -> None:
    """Judges all pairs with both and saves the rates."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    logging.disable(logging.WARNING)
    pairs = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    result = {
        "num_pairs": len(pairs),
        "num_same": sum(pair["same"] for pair in pairs),
        "math_verify_version": version("math-verify"),
        "ours": rates(pairs, answers_match),
        "math_verify": rates(pairs, plain_math_verify),
    }
    save("grading", result)


if __name__ == "__main__":
    main()
