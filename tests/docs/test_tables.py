"""The documents say what the code says."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from atesd_env.config import BenchConfig, EnvConfig, RunConfig, SurrogateConfig, ToyConfig
from atesd_env.config.task import TASKS
from atesd_env.envs.columns import (
    CHOICE_COLUMNS,
    COLUMNS,
    ENGINE_COLUMNS,
    HEALTH_COLUMNS,
    LOG_COLUMNS,
    TIME_COLUMNS,
    TOY_COLUMNS,
)
from atesd_env.envs.observation import FEATURE_NAMES, FEATURES
from docs.generator.code_tables import columns_json, columns_table, features_table, field_texts, fields_table
from docs.generator.markdown import markdown_table
from docs.generator.public_names import ROOT
from docs.generator.tables import COLUMNS_FILE, MADE, documents, made_anew
from docs.generator.task_tables import task_example


def cells(table: str) -> list[list[str]]:
    """Returns a Markdown table's rows as a reader sees them: cut at bars that no backslash escapes."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]
    return [[cell.strip().replace(r"\|", "|") for cell in line] for line in lines]


def test_the_columns_table_has_every_column_once():
    header, rule, *rows = cells(columns_table())
    assert header == ["column", "type", "unit", "where", "meaning"]
    assert rule == ["---"] * 5
    in_info = [[f"`{c.name}`", c.type, c.unit, "info, log", c.meaning] for c in COLUMNS]
    logged = [[f"`{c.name}`", c.type, c.unit, "log", c.meaning] for c in (*TIME_COLUMNS, *LOG_COLUMNS)]
    toys = [[f"`{c.name}`", c.type, c.unit, "toy: info, log", c.meaning] for c in TOY_COLUMNS]
    engines = [[f"`{c.name}`", c.type, c.unit, "engine: info, log", c.meaning] for c in ENGINE_COLUMNS]
    where, of_models = "language models: info, log", (*HEALTH_COLUMNS, *CHOICE_COLUMNS)
    models = [[f"`{c.name}`", c.type, c.unit, where, c.meaning] for c in of_models]
    assert rows == in_info + models + engines + toys + logged
    assert len({row[0] for row in rows}) == len(rows)


def test_the_features_table_has_every_feature_once_in_order():
    header, rule, *rows = cells(features_table())
    assert header == ["index", "feature", "range", "scaling of x", "meaning"]
    assert rule == ["---"] * 5
    assert [row[0] for row in rows] == [str(index) for index in range(len(FEATURES))]
    assert [row[1] for row in rows] == [f"`{name}`" for name in FEATURE_NAMES]
    assert [row[2] for row in rows] == [f"[{feature.low:g}, {feature.high:g}]" for feature in FEATURES]


def test_a_bar_in_a_cell_does_not_end_it():
    assert cells(markdown_table(("a", "b"), [("KL(p||q)", "x")])) == [["a", "b"], ["---", "---"], ["KL(p||q)", "x"]]


def test_the_fields_tables_have_every_field_once_with_its_text():
    leaves = (EnvConfig, ToyConfig, SurrogateConfig, BenchConfig)
    rows = [row for leaf in (RunConfig, *leaves) for row in cells(fields_table(leaf))[2:]]
    names = [row[0].strip("`") for row in rows]
    assert len(names) == len(set(names))
    assert set(names) == {field.name for leaf in leaves for field in dataclasses.fields(leaf)}
    assert [row[3] for row in rows] == list(field_texts().values())


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_tables_in_the_documents_are_the_codes(path: Path):
    text = path.read_text()
    assert made_anew(text) == text, "run: python -m docs.generator.tables"


def test_every_table_stands_in_a_document():
    named = [name for path in documents() for name in re.findall(r"<!-- made: (\w+) -->", path.read_text())]
    assert set(named) == set(MADE)


def test_each_task_has_a_page_that_begins_with_its_example():
    index = (ROOT / "docs" / "tasks.md").read_text()
    assert re.findall(r"\(tasks/(\w+)\.md\)", index) == list(TASKS)
    for name in TASKS:
        assert (
            (ROOT / "docs" / "tasks" / f"{name}.md").read_text().startswith(f"# {name}\n\n<!-- made: task_{name} -->")
        )


@pytest.mark.parametrize("name", TASKS)
def test_examples_of_tasks_show_more_and_tell_right_from_wrong(name: str):
    lines = re.split(r"\n(?=\S)", task_example(name).strip("`\n"))
    by_label = {line[:12].strip(): line[12:] for line in lines}
    shown = [by_label[f"ratio {ratio}"] for ratio in ("0", "0.5", "1")]
    assert len(shown[0]) < len(shown[1]) < len(shown[2])
    assert {"right", "wrong"} < set(by_label)
    assert "not judged" not in by_label


def test_the_columns_that_analysis_explains_are_the_codes():
    assert COLUMNS_FILE.read_text() == columns_json(), "run: python -m docs.generator.tables"
