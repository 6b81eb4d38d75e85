"""All tables in documents: ``python -m docs.generator.tables`` makes them anew.

It rewrites what stands between ``<!-- made: NAME -->`` and ``<!-- end -->`` in README.md and in the pages of the site, and
the table of columns that the package ``analysis`` carries, which imports nothing of ours. Tests compare them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from atesd_env.config import BenchConfig, EnvConfig, RunConfig, SurrogateConfig, ToyConfig
from docs.generator.base_tables import bases_table, habit_parameters_table, habits_table, undertrained_table
from docs.generator.bench_tables import (
    admission_table,
    branches_table,
    by_instance_table,
    credit_table,
    fixed_table,
    gsm8k_branches_table,
    mixing_table,
    paper_picture_table,
    random_search_table,
    search_within_table,
    settings_table,
    signals_table,
    standings_table,
    surrogate_features_table,
    surrogates_table,
    wins_table,
)
from docs.generator.code_tables import (
    agents_table,
    columns_json,
    columns_table,
    evaluations_table,
    features_table,
    fields_table,
    instances_table,
    sample_columns_table,
    student_fields_table,
)
from docs.generator.leaderboard import leaderboard_table
from docs.generator.measured_tables import (
    floor_table,
    gpu_paths_table,
    gpu_table,
    hostile_table,
    programs_table,
    scaling_table,
    surrogate_table,
    trl_table,
    update_speed_table,
)
from docs.generator.plan_tables import measured_table, presets_table, seeds_table
from docs.generator.public_names import ROOT
from docs.generator.result_tables import (
    baselines_mixed_table,
    baselines_table,
    baselines_verdict,
    bench_intervals_table,
    beyond_table,
    collapse_controllers_table,
    collapse_smollm2_table,
    collapse_table,
    comparisons_table,
    controllers_table,
    equal_controllers,
    faults_by_reader_table,
    faults_table,
    few_seeds_table,
    grpo_sweep_table,
    mismatch_table,
    reached_table,
    sweep_table,
    toy_table,
)
from docs.generator.task_tables import EXAMPLES, lists_tables, smollm2_windows, task_example

COLUMNS_FILE = ROOT / "analysis" / "columns.json"
"""The columns, as the package ``analysis`` carries them."""

MADE: dict[str, Callable[[], str]] = {
    "features": features_table,
    **{f"task_{name}": partial(task_example, name) for name in EXAMPLES},
    "lists_student": lists_tables,
    "smollm2": smollm2_windows,
    "hostile": hostile_table,
    "programs": programs_table,
    "columns": columns_table,
    "run_fields": lambda: fields_table(RunConfig),
    "language_model_fields": lambda: fields_table(EnvConfig),
    "toy_fields": lambda: fields_table(ToyConfig),
    "surrogate_fields": lambda: fields_table(SurrogateConfig),
    "bench_fields": lambda: fields_table(BenchConfig),
    "instances": instances_table,
    "leaderboard": leaderboard_table,
    "agents": agents_table,
    "evaluations": evaluations_table,
    "student_fields": student_fields_table,
    "sample_columns": sample_columns_table,
    "bases": bases_table,
    "habits": habits_table,
    "habit_parameters": habit_parameters_table,
    "scaling": scaling_table,
    "trl": trl_table,
    "update_speed": update_speed_table,
    "floor": floor_table,
    "surrogate": surrogate_table,
    "sweep": sweep_table,
    "mismatch": mismatch_table,
    "toy": toy_table,
    "reached": reached_table,
    "controllers": controllers_table,
    "baselines": baselines_table,
    "baselines_verdict": baselines_verdict,
    "baselines_mixed": baselines_mixed_table,
    "grpo_sweep": grpo_sweep_table,
    "admission": admission_table,
    "gsm8k_branches": gsm8k_branches_table,
    "mixing": mixing_table,
    "undertrained": undertrained_table,
    "signals": signals_table,
    "bench_settings": settings_table,
    "bench_standings": standings_table,
    "bench_wins": wins_table,
    "bench_branches": branches_table,
    "bench_by_instance": by_instance_table,
    "bench_fixed": fixed_table,
    "bench_random_search": random_search_table,
    "bench_search_within": search_within_table,
    "bench_surrogates": surrogates_table,
    "bench_surrogate_features": surrogate_features_table,
    "bench_credit": credit_table,
    "bench_paper_picture": paper_picture_table,
    "bench_intervals": bench_intervals_table,
    "collapse": collapse_table,
    "collapse_controllers": collapse_controllers_table,
    "collapse_smollm2": collapse_smollm2_table,
    "comparisons": comparisons_table,
    "comparisons_beyond": beyond_table,
    "intervals_at_few_seeds": few_seeds_table,
    "equal_controllers": equal_controllers,
    "faults": faults_table,
    "faults_by_reader": faults_by_reader_table,
    "plan_of_presets": presets_table,
    "plan_against_measured": measured_table,
    "seeds": seeds_table,
    "gpu": gpu_table,
    "paths_for_a_gpu": gpu_paths_table,
}
"""What makes each block, by its name."""


def documents() -> list[Path]:
    """Returns the documents with blocks."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in paths if "<!-- made: " in path.read_text()]


def made_anew(text: str) -> str:
    """Returns a document with every block as the code has it now."""

    def block(match: re.Match[str]) -> str:
        return f"<!-- made: {match[1]} -->\n\n{MADE[match[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- made: (\w+) -->.*?<!-- end -->", block, text, flags=re.DOTALL)


def main() -> None:
    """Rewrites them all."""
    for path in documents():
        path.write_text(made_anew(path.read_text()))
    COLUMNS_FILE.write_text(columns_json())


if __name__ == "__main__":
    main()
