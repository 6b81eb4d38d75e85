"""Tables made from the code's own: observation, row, configuration, agents, files."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from typing import Any

import griffe

from agents.specs.registry import available
from atesd.experiments.baselines.registry import NAMES
from atesd.experiments.training.training import EVALUATION_COLUMNS
from atesd_env.bench import InstanceSet
from atesd_env.config import BenchConfig, EnvConfig, RunConfig, SurrogateConfig, ToyConfig
from atesd_env.envs.columns import (
    CHOICE_COLUMNS,
    COLUMNS,
    ENGINE_COLUMNS,
    HEALTH_COLUMNS,
    LOG_COLUMNS,
    TIME_COLUMNS,
    TOY_COLUMNS,
    Column,
    group_columns,
    group_statistics,
    problem_columns,
    toy_columns,
)
from atesd_env.envs.observation import FEATURES
from atesd_env.population.population import Sample
from docs.generator.markdown import markdown_table
from docs.generator.public_names import loaded


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
    rows += [line(column, "language models: info, log") for column in (*HEALTH_COLUMNS, *CHOICE_COLUMNS)]
    rows += [line(column, "engine: info, log") for column in ENGINE_COLUMNS]
    rows += [line(column, "toy: info, log") for column in TOY_COLUMNS]
    rows += [line(column, "log") for column in (*TIME_COLUMNS, *LOG_COLUMNS)]
    return markdown_table(("column", "type", "unit", "where", "meaning"), rows)


def columns_json() -> str:
    """Returns the columns of a trajectory as JSON, a line each: name, type, unit, meaning; ``<g>`` stands for a group (or problem)."""
    groups = [
        dataclasses.replace(
            column,
            name=re.sub(r"_1$", "_<g>", column.name),
            meaning=re.sub(r"(group|problem) 1\b", r"\1 <g>", column.meaning),
        )
        for column in (group_columns(2)[1], *group_statistics(2)[3:], toy_columns(2)[-1], problem_columns(2)[1])
    ]
    lines = [
        json.dumps([column.name, column.type, column.unit, column.meaning], ensure_ascii=False)
        for column in (
            *COLUMNS,
            *groups,
            *HEALTH_COLUMNS,
            *CHOICE_COLUMNS,
            *ENGINE_COLUMNS,
            *TOY_COLUMNS,
            *TIME_COLUMNS,
            *LOG_COLUMNS,
        )
    ]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def field_texts() -> dict[str, str]:
    """Returns the text below each configuration field of every leaf, by the field's name."""
    texts = {}
    for leaf in (RunConfig, EnvConfig, ToyConfig, SurrogateConfig, BenchConfig):
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


def instances_table() -> str:
    """Returns the packaged instances: where each differs from the set's other ones, and why it is there."""
    rows = [
        (f"`{one.id}`", one.split, ", ".join(f"{name} {value}" for name, value in one.fields.items()), one.why)
        for one in InstanceSet.load("atesd-bench")
    ]
    return markdown_table(("instance", "split", "differs in", "why"), rows)


def agents_table() -> str:
    """Returns the specs, each with a sentence."""
    forms = available(NAMES).items()
    return markdown_table(("spec", "who decides"), [(f"`{form}`", meaning) for form, meaning in forms])


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
    sample = loaded("atesd_env")[Sample.__module__.removeprefix("atesd_env.")][Sample.__qualname__]
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
