"""Tables in pages of the site that are made from the packages above ``atesd_env``.

``python -m docs.generator.tables`` rewrites the blocks between ``<!-- made: NAME -->`` and ``<!-- end -->``; the build of
the site fails where one is not what the code says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import griffe

from agents.specs.registry import available
from atesd.experiments.training.training import EVALUATION_COLUMNS
from atesd_env.config import EnvConfig
from docs.generator.package_tables import field_texts, markdown_table, own_fields, with_tables
from docs.generator.plan_tables import measured_table, presets_table, seeds_table
from docs.generator.public_names import ROOT, loaded


def agents_table() -> str:
    """Returns the specs, each with a sentence."""
    return markdown_table(("spec", "who decides"), [(f"`{form}`", meaning) for form, meaning in available().items()])


def evaluations_table() -> str:
    """Returns the columns of a training's evaluations."""
    return markdown_table(("column", "meaning"), [(f"`{name}`", text) for name, text in EVALUATION_COLUMNS.items()])


def student_fields_table() -> str:
    """Returns the configuration fields that say which student is loaded, and how."""
    names = [field.name for field in own_fields(EnvConfig)]
    chosen = names[: names.index("task")]
    texts = field_texts()
    return markdown_table(("field", "meaning [source]"), [(f"`{name}`", texts[name]) for name in chosen])


def sample_columns_table() -> str:
    """Returns the columns of a sample rollout, as the class that is written documents them."""
    sample = loaded("atesd_env")["population.population.Sample"]
    sections = sample.docstring.parse("google")
    texts = {
        item.name: item.description.replace("\n", " ")
        for section in sections
        if section.kind is griffe.DocstringSectionKind.attributes
        for item in section.value
    }
    rows = [("`window`", "The window that it was sampled in.")]
    rows += [(f"`{name}`", texts[name]) for name in sample.attributes]
    return markdown_table(("column", "meaning"), rows)


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


MADE: dict[str, Callable[[], str]] = {
    "agents": agents_table,
    "evaluations": evaluations_table,
    "student_fields": student_fields_table,
    "sample_columns": sample_columns_table,
    "scaling": scaling_table,
    "trl": trl_table,
    "surrogate": surrogate_table,
    "sweep": sweep_table,
    "mismatch": mismatch_table,
    "plan_of_presets": presets_table,
    "plan_against_measured": measured_table,
    "seeds": seeds_table,
}
"""What makes each block, by its name."""


def made_anew(text: str) -> str:
    """Returns a page with every block as the code has it now."""

    def block(match: re.Match[str]) -> str:
        return f"<!-- made: {match[1]} -->\n\n{MADE[match[1]]()}\n\n<!-- end -->"

    return with_tables(re.sub(r"<!-- made: (\w+) -->.*?<!-- end -->", block, text, flags=re.DOTALL))


def main() -> None:
    """Rewrites the pages."""
    for path in sorted(Path(ROOT, "docs").rglob("*.md")):
        text = path.read_text()
        if made_anew(text) != text:
            path.write_text(made_anew(text))


if __name__ == "__main__":
    main()
