"""Tables of what was measured, made from the results of benchmarks (``benchmarks/results``)."""

from __future__ import annotations

import json
from typing import Any

from docs.generator.markdown import markdown_table
from docs.generator.public_names import ROOT


def scaling_table() -> str:
    """Returns time and memory of K students, as measured."""
    result = _result("population_scaling")
    rows = [
        (
            str(line["students"]),
            str(line["workers"]),
            f"{line['sec_per_student']:.3f}",
            f"{result['lines'][0]['sec_per_student'] / line['sec_per_student']:.1f}",
            f"{line['peak_mebibytes']:.0f}",
        )
        for line in result["lines"]
    ]
    headers = ("students", "processes", "seconds a student and update", "times one student alone", "peak MiB")
    return f"{markdown_table(headers, rows)}\n\n{_source(result)}"


def trl_table() -> str:
    """Returns the updates against TRL's, as measured."""
    results = [_result(f"update_against_trl_{name}_students") for name in ("tiny_1", "tiny_16", "smollm2-135m_1")]
    rows = [
        (
            f"{result['students']} of {result['env']}" + (", `workers=2`" if result["workers"] == 2 else ""),
            f"{result['students'] * result['trl_sec']['median']:.3g} s",
            f"{result['ours_sec']['median']:.3g} s",
            f"{result['ratio_of_medians']:.1f}",
        )
        for result in results
    ]
    return f"{markdown_table(('students', 'TRL, one after the other', 'here', 'ratio'), rows)}\n\n{_source(results[0])}"


def surrogate_table() -> str:
    """Returns windows a second of the fast environments, as measured."""
    result = _result("surrogate_speed")
    rows = [
        (name, f"{speed['median']:,}", f"{speed['lowest']:,} to {speed['highest']:,}")
        for name, speed in result["windows_a_second"].items()
    ]
    return f"{markdown_table(('environment', 'windows a second', 'range'), rows)}\n\n{_source(result)}"


def sweep_table() -> str:
    """Returns accuracy by fixed ratio, as measured."""
    result = _result("fixed_ratio_sweep")
    differences = result["paired_difference_to_full_exposure"]
    rows = [
        (
            f"{float(ratio):g}",
            _percent_interval(accuracy),
            _percent_interval(differences[ratio]) if ratio in differences else "-",
        )
        for ratio, accuracy in result["accuracy"].items()
    ]
    headers = ("reveal ratio", "accuracy, %", "minus full exposure, points")
    return f"{markdown_table(headers, rows)}\n\n{len(result['seeds'])} seeds. {_source(result)}"


def mismatch_table() -> str:
    """Returns the first window's mismatch by ratio, as measured."""
    result = _result("mismatch_by_ratio")
    rows = [
        (f"{float(ratio):g}", f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]")
        for ratio, value in result["mismatch"].items()
    ]
    table = markdown_table(("reveal ratio", "mismatch, nats a token"), rows)
    return f"{table}\n\n{len(result['seeds'])} seeds. {_source(result)}"


def _percent_interval(value: dict[str, float]) -> str:
    return f"{100 * value['mean']:.1f} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"


def _result(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text()))


def _source(result: dict[str, Any]) -> str:
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    return f"`{result['command']}`, commit `{result['commit'][:7]}`, {result['cores']} cores, {threads}, torch {result['torch']}."
