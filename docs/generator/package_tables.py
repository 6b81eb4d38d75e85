"""The documentation's tables, made from the code's own: observation, row, configuration.

``python -m docs.generator.package_tables`` rewrites the marked blocks of README.md, docs/environment.md and docs/analysis.md, and the
table of columns that the package ``analysis`` carries (it imports nothing of ours); tests compare them.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from atesd_env.config import EnvConfig, RunConfig, SurrogateConfig, ToyConfig
from atesd_env.envs.columns import (
    COLUMNS,
    ENGINE_COLUMNS,
    LOG_COLUMNS,
    TIME_COLUMNS,
    TOY_COLUMNS,
    Column,
    group_columns,
    toy_columns,
)
from atesd_env.envs.observation import FEATURES

DOCUMENTS = ("README.md", "docs/environment.md", "docs/analysis.md")
"""Documents with marked blocks."""
COLUMNS_FILE = "analysis/columns.json"
"""The columns, as the package ``analysis`` carries them."""


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a GitHub-style table."""
    # A bar ends a cell, even inside code, unless a backslash stands before it.
    cells = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [" | ".join(headers), " | ".join("---" for _ in headers), *(" | ".join(row) for row in cells)]
    return "\n".join(f"| {line} |" for line in lines)


def features_table() -> str:
    """Returns the table of observation features."""
    rows = [
        (
            str(index),
            f"`{feature.name}`",
            f"[{feature.low:g}, {feature.high:g}]",
            f"`{feature.formula}`",
            feature.meaning,
        )
        for index, feature in enumerate(FEATURES)
    ]
    return markdown_table(("index", "feature", "range", "scaling of x", "meaning"), rows)


def columns_table() -> str:
    """Returns the table of row columns, with the logged ones that are not part of ``info``."""

    def line(column: Column, where: str) -> tuple[str, ...]:
        return f"`{column.name}`", column.type, column.unit, where, column.meaning

    rows = [line(column, "info, log") for column in COLUMNS]
    rows += [line(column, "engine: info, log") for column in ENGINE_COLUMNS]
    rows += [line(column, "toy: info, log") for column in TOY_COLUMNS]
    rows += [line(column, "log") for column in (*TIME_COLUMNS, *LOG_COLUMNS)]
    return markdown_table(("column", "type", "unit", "where", "meaning"), rows)


def columns_json() -> str:
    """Returns the columns of a trajectory as JSON, a line each: name, type, unit, meaning; ``<g>`` stands for a group."""
    groups = [
        dataclasses.replace(
            column, name=re.sub(r"_1$", "_<g>", column.name), meaning=re.sub(r"group 1\b", "group <g>", text)
        )
        for column, text in ((column, column.meaning) for column in (group_columns(2)[1], toy_columns(2)[-1]))
    ]
    lines = [
        json.dumps([column.name, column.type, column.unit, column.meaning], ensure_ascii=False)
        for column in (*COLUMNS, *groups, *ENGINE_COLUMNS, *TOY_COLUMNS, *TIME_COLUMNS, *LOG_COLUMNS)
    ]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def field_texts() -> dict[str, str]:
    """Returns the text below each configuration field of every leaf, by the field's name."""
    texts = {}
    for leaf in (RunConfig, EnvConfig, ToyConfig, SurrogateConfig):
        (definition,) = ast.parse(inspect.getsource(leaf)).body
        assert isinstance(definition, ast.ClassDef)
        for statement, following in zip(definition.body, definition.body[1:], strict=False):
            target = statement.target if isinstance(statement, ast.AnnAssign) else None
            if isinstance(target, ast.Name) and target.id in leaf.names():
                assert isinstance(following, ast.Expr)
                assert isinstance(following.value, ast.Constant)
                texts[target.id] = " ".join(str(following.value.value).split())
    return texts


def own_fields(leaf: type[RunConfig]) -> list[dataclasses.Field[Any]]:
    """Returns the fields that a leaf adds to those of every run, or these."""
    return [field for field in dataclasses.fields(leaf) if leaf is RunConfig or field.name not in RunConfig.names()]


def fields_table(leaf: type[RunConfig]) -> str:
    """Returns the table of a leaf's own fields; the defaults are those of ``ATESD-Tiny-v0`` where it has them."""
    texts = field_texts()
    rows = []
    for field in own_fields(leaf):
        default = ", ".join(field.default) if isinstance(field.default, tuple) else str(field.default)
        allowed = field.metadata.get("bounds") or ", ".join(field.metadata.get("choices", ()))
        rows.append((f"`{field.name}`", default, str(allowed), texts[field.name]))
    return markdown_table(("field", "default", "allowed", "meaning [source]"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "features": features_table,
    "columns": columns_table,
    "run_fields": lambda: fields_table(RunConfig),
    "language_model_fields": lambda: fields_table(EnvConfig),
    "toy_fields": lambda: fields_table(ToyConfig),
    "surrogate_fields": lambda: fields_table(SurrogateConfig),
}
"""What makes each marked block, by its name."""


def with_tables(text: str) -> str:
    """Returns a document with every block between ``<!-- table: NAME -->`` and ``<!-- end -->`` made anew."""

    def block(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n\n{TABLES[match[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", block, text, flags=re.DOTALL)


def main() -> None:
    """Rewrites the documents below the current directory."""
    for name in DOCUMENTS:
        path = Path(name)
        path.write_text(with_tables(path.read_text()))
    Path(COLUMNS_FILE).write_text(columns_json())


if __name__ == "__main__":
    main()
