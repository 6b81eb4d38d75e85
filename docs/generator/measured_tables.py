"""Tables of times and memory, made from the results of benchmarks (``benchmarks/results``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from docs.generator.markdown import markdown_table
from docs.generator.public_names import ROOT
from docs.generator.result_tables import measured, source

GPU_COMMAND = "python -m benchmarks.gpu_all --minutes 8 --out benchmarks/results/gpu.json"


def scaling_table() -> str:
    """Returns time and memory of K students, as measured."""
    result = measured("population_scaling")
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
    return f"{markdown_table(headers, rows)}\n\n{source(result)}"


TRL_RUNS = ("tiny_1_students", "tiny_16_students", "tiny_16_students_one_process", "smollm2-135m_1_students")
"""Comparisons with TRL; those that were made stand in the table."""


def trl_table() -> str:
    """Returns the updates against TRL's, as measured."""
    results = [
        measured(f"update_against_trl_{name}") for name in TRL_RUNS if _is_measured(f"update_against_trl_{name}")
    ]
    rows = []
    for result in results:
        setting = f", `workers={result['workers']}`" if result["students"] > 1 else ""
        ways = [("ours_sec", "ratio_of_medians", "")]
        if "fast_sec" in result:
            ways.append(("fast_sec", "fast_ratio_of_medians", _fields(result["fast"])))
        rows += [
            (
                f"{result['students']} of {result['env']}{setting}{fields}",
                f"{result['students'] * result['trl_sec']['median']:.3g} s",
                f"{result[seconds]['median']:.3g} s",
                f"{result[ratio]:.1f}",
            )
            for seconds, ratio, fields in ways
        ]
    alone = "update_against_trl_smollm2-135m_1_students"
    trl, *ours = [
        measured(f"{alone}_{side}") for side in ("trl", "ours", "ours_fast") if _is_measured(f"{alone}_{side}")
    ]
    shares = [f"{one['peak_mebibytes'] / trl['peak_mebibytes']:.0%}" for one in ours]
    peak = f"SmolLM2's peak memory, each alone in a process, is {shares[0]} of TRL's {trl['peak_mebibytes']:,.0f} MiB"
    peak += f", {shares[1]} with {_fields(results[0]['fast'])[2:]}." if len(shares) > 1 else "."
    table = markdown_table(("students", "TRL, one after the other", "here", "ratio"), rows)
    return f"{table}\n\n{peak}\n\n{source(results[0])}"


def update_speed_table() -> str:
    """Returns updates now and at an earlier commit, as measured in turn."""
    names = ("tiny_1_students", "tiny_16_students", "smollm2-135m_1_students")
    results = [measured(f"update_speed_{name}") for name in names if _is_measured(f"update_speed_{name}")]
    rows = []
    for result in results:
        seconds, times = result["sec_per_student"], result["times_as_fast"]
        now = [f"{1e3 * seconds[name]:,.0f} ms ({times[name]:.2f})" for name in ("after", "fast")]
        threads = f"{result['threads']} thread{'s' * (result['threads'] > 1)}"
        rows.append((f"{result['students']} of {result['env']}, {threads}", f"{1e3 * seconds['before']:,.0f} ms", *now))
    headers = (
        "students",
        f"commit `{results[0]['commit_before'][:7]}`",
        "now (times as fast)",
        f"with {_fields(results[0]['fast'])[2:]}",
    )
    return f"{markdown_table(headers, rows)}\n\n{source(results[0])}"


def _fields(fields: Mapping[str, Any]) -> str:
    """Returns fields of a configuration as the end of a table's cell."""
    return "".join(
        f", `{name}={json.dumps(value) if isinstance(value, str) else value}`" for name, value in fields.items()
    )


def _is_measured(name: str) -> bool:
    return (ROOT / "benchmarks" / "results" / f"{name}.json").exists()


def floor_table() -> str:
    """Returns where an update's time goes, and how far it is from what the processor could do."""
    names = [
        f"{student}{ways}"
        for student in ("tiny", "smollm2-135m")
        for ways in ("", "_fast", "_16_students", "_fast_16_students")
    ]
    results = [(name, measured(f"profile_window_{name}")) for name in names if _is_measured(f"profile_window_{name}")]
    stages = ("rollout", "teacher", "student", "backward", "total")
    rows = []
    for name, result in results:
        seconds, floors, number = result["seconds"], result["floor_sec"], result.get("students", 1)
        cells = [f"{1e3 * seconds[stage] / number:,.0f} ({floors[stage] / seconds[stage]:.0%})" for stage in stages]
        fields = _fields(result["fields"])
        rows.append(
            (
                f"{number} of {name.split('_')[0]}{fields}, {result['threads']} thread{'s' * (result['threads'] > 1)}",
                *cells,
            )
        )
    return f"{markdown_table(('students', *stages), rows)}\n\n{source(results[0][1])}"


def surrogate_table() -> str:
    """Returns windows a CPU second of the fast environments, as measured, and against another commit where it was measured too."""
    result = measured("surrogate_speed")
    after, times = result["windows_a_cpu_second_after"], result.get("times_as_fast", {})
    rows = [(name, f"{speed:,}", *([f"{times[name]:.1f}"] if times else [])) for name, speed in after.items()]
    headers = (
        "environment",
        "windows a CPU second",
        *([f"times commit `{result['commit_before'][:7]}`"] if times else []),
    )
    return f"{markdown_table(headers, rows)}\n\n{source(result)}"


def gpu_table(result: Mapping[str, Any] | None = None) -> str:
    """Returns what was measured on a GPU, step by step, or that nothing was; None takes the committed output, if there is one."""
    if result is None:
        if not (ROOT / "benchmarks" / "results" / "gpu.json").exists():
            return f"Empty: `{GPU_COMMAND}` has not been run on a GPU yet."
        result = measured("gpu")
    steps = result["steps"]
    ours = min((step["sec"] for step in steps.values() if step.get("students") == 1), default=None)
    rows = [(f"`{name}`", *_gpu_cells(step, ours if name == "peft" else None)) for name, step in steps.items()]
    headers = (
        "step",
        "seconds",
        "tokens a second, sampled",
        "share of the matrix rate",
        "peak, planned, GB",
        "what came of it",
    )
    card = result["steps"].get("card", {})
    return f"{markdown_table(headers, rows)}\n\n{card.get('device', 'Device unknown')}, driver {card.get('driver')}. {source(result)}"


def _gpu_cells(step: Mapping[str, Any], ours: float | None) -> tuple[str, str, str, str, str]:
    """Returns a step's cells; with our fastest update's seconds, what is measured here is named as so many times as long."""
    rate = step.get("sampled_tokens", 0) / step["sec"] if "sec" in step else None
    share, peak, planned = (step.get(name) for name in ("share_of_matrix_rate", "peak_bytes", "planned_bytes"))
    told = [f"{step['sec'] / ours:.1f} times our fastest update"] if ours and "sec" in step else []
    told += [f"{stage} {one['sec']:.2f} s" for stage, one in step.get("stages", {}).items() if one["sec"] >= 0.01]
    for way, one in step.get("ways", {}).items():
        told.append(
            f"{way} {one['sec']:.3f} s" + (f" {one['peak_bytes'] / 2**30:.2f} GiB" if one["peak_bytes"] else "")
        )
    others = (
        "summary",
        "distance_of_changes",
        "matrix_rate_per_sec",
        "memory_rate_bytes_per_sec",
        "rollout_sec",
        "update_sec",
    )
    told += [f"{name} {step[name]}" for name in others if name in step]
    came = step.get("skipped") or step.get("error") or ", ".join(told)
    return (
        f"{step['sec']:.2f}" if "sec" in step else "",
        f"{rate:,.0f}" if rate else "",
        f"{share:.0%}" if share else "",
        ", ".join(f"{size / 1e9:.1f}" for size in (peak, planned) if size),
        " ".join(str(came).replace("|", "/").split())[:400],
    )


def gpu_paths_table() -> str:
    """Returns what was built for a GPU against what was there before, on a CPU, as measured."""
    result = measured("paths_for_a_gpu")
    rows = [
        (
            one["name"],
            *(f"{one[when]:.4f}" if one["before"] < 0.1 else f"{one[when]:,.1f}" for when in ("before", "after")),
            one["unit"],
            f"{one['after'] / one['before']:.2f}",
            one["agreement"],
        )
        for one in result["lines"]
    ]
    headers = ("what", "before", "after", "unit", "after / before", "agreement")
    return f"{markdown_table(headers, rows)}\n\n{source(result)}"


def hostile_table() -> str:
    """Returns what the judge of programs says of hostile ones, as measured."""
    result = measured("grading_programs")
    alone = result["hostile_in_bubblewrap"]
    rows = [
        (
            name,
            _shortened(verdict["reason"]),
            _shortened(alone[name]["reason"]),
            f"{max(verdict['sec'], alone[name]['sec']):.2f}",
        )
        for name, verdict in result["hostile_in_monty"].items()
    ]
    return f"{markdown_table(('the program', 'Monty first', 'CPython in bubblewrap', 'seconds at most'), rows)}\n\n{source(result)}"


def programs_table() -> str:
    """Returns what comes of reference programs, and how many a second, as measured."""
    result = measured("grading_programs")
    names = {"humaneval_164": "HumanEval", "mbppplus": "MBPP+"}
    rows = [
        (
            names[name],
            str(found["rows"]),
            ", ".join(f"{count} {what}" for what, count in found["outcomes"].items()),
            str(found["checks_a_second"]),
        )
        for name, found in result["references"].items()
    ]
    return f"{markdown_table(('references of', 'programs', 'what comes of them', 'checks a second'), rows)}\n\n{source(result)}"


def _shortened(reason: str, longest: int = 70) -> str:
    told = (
        reason.removeprefix("assert f(2) == 4: ")
        .removeprefix("the program itself: ")
        .replace("|", "or")
        .replace("`", "'")
    )
    told = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in told)
    return f"{told[:longest]}..." if len(told) > longest else told
