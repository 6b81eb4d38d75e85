"""Tables of times and memory, made from the results of benchmarks (``benchmarks/results``)."""

from __future__ import annotations

from docs.generator.markdown import markdown_table
from docs.generator.result_tables import measured, source


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


def trl_table() -> str:
    """Returns the updates against TRL's, as measured."""
    results = [measured(f"update_against_trl_{name}_students") for name in ("tiny_1", "tiny_16", "smollm2-135m_1")]
    rows = [
        (
            f"{result['students']} of {result['env']}" + (", `workers=2`" if result["workers"] == 2 else ""),
            f"{result['students'] * result['trl_sec']['median']:.3g} s",
            f"{result['ours_sec']['median']:.3g} s",
            f"{result['ratio_of_medians']:.1f}",
        )
        for result in results
    ]
    return f"{markdown_table(('students', 'TRL, one after the other', 'here', 'ratio'), rows)}\n\n{source(results[0])}"


def surrogate_table() -> str:
    """Returns windows a second of the fast environments, as measured."""
    result = measured("surrogate_speed")
    rows = [
        (name, f"{speed['median']:,}", f"{speed['lowest']:,} to {speed['highest']:,}")
        for name, speed in result["windows_a_second"].items()
    ]
    return f"{markdown_table(('environment', 'windows a second', 'range'), rows)}\n\n{source(result)}"


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
