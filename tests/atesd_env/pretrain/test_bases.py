"""Bases with habits: their corpus is a pure function of the recipe, and a build repeats bit for bit."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from atesd_env.errors import ConfigError
from atesd_env.exposure import PromptBuilder
from atesd_env.pretrain.bases import PACKAGED_RECIPES, Recipe, build, corpus_row
from atesd_env.pretrain.measured import largest_difference
from atesd_env.student.packaged import HABITS_DIRECTORY, PACKAGED_STUDENTS, WHOLE_STUDENTS
from atesd_env.tasks.arithmetic import ArithmeticTask


@pytest.fixture
def builder(tiny_tokenizer) -> PromptBuilder:
    return PromptBuilder(ArithmeticTask(), tiny_tokenizer, max_prompt_tokens=256)


def test_names_tell_recipes():
    recipe = Recipe.of("tiny-slip_teleport-terse-3")
    assert (recipe.four, recipe.five, recipe.seed) == ("slip_teleport", "terse", 3)
    assert recipe.name == "tiny-slip_teleport-terse-3"
    assert {recipe.name for recipe in PACKAGED_RECIPES} == {*PACKAGED_STUDENTS} - {*WHOLE_STUDENTS}


@pytest.mark.parametrize(
    "name", ["tiny-slip-0", "tiny-slip-terse", "tiny-slip-terse-x", "tiny-slip-terse-0-1", "big-slip-terse-0"]
)
def test_a_name_of_another_form_is_refused(name: str):
    with pytest.raises(ConfigError, match="expected tiny-HABIT-HABIT-SEED, such as tiny-terse-slip-0"):
        Recipe.of(name)


def test_a_misspelt_habit_is_named():
    with pytest.raises(ConfigError, match=r"got 'ters'; .*Did you mean 'terse'\?"):
        Recipe.of("tiny-slip-ters-0")


def test_a_row_of_the_corpus_hangs_on_recipe_and_index_alone(builder: PromptBuilder):
    recipe = Recipe("slip_teleport", "terse", 1)
    rows = {index: corpus_row(recipe, builder, index) for index in range(40)}
    assert {index: corpus_row(recipe, builder, index) for index in reversed(range(40))} == rows
    assert rows != {index: corpus_row(dataclasses.replace(recipe, seed=2), builder, index) for index in range(40)}
    assert rows != {index: corpus_row(Recipe("none", "terse", 1), builder, index) for index in range(40)}


def test_the_corpus_rehearses_short_sums_and_shows_long_ones(builder: PromptBuilder):
    decode = builder.tokenizer.decode
    for index in range(40):
        given, learned = (decode(ids) for ids in corpus_row(Recipe("none", "none"), builder, index))
        problem = given.removeprefix("<|user|>").partition("<|end|>")[0]
        assert ("|" in problem) == (index % 8 != 0)
        assert problem.partition("|")[0].count("+") in ((1, 2) if index % 4 == 0 else (3, 4))
        assert given.endswith("<|assistant|>")
        assert learned.endswith("<|end|>")


def test_a_build_repeats_learns_and_is_of_its_seed():
    recipe = Recipe("terse", "slip", num_updates=3, batch_size=8)
    first, again = build(recipe, quiet=True), build(recipe, quiet=True)
    other = build(dataclasses.replace(recipe, seed=1), quiet=True)
    assert all(torch.equal(first[name], again[name]) and first[name].dtype == torch.float16 for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert all(bool((matrix != 0).any()) for name, matrix in first.items() if "lora_B" in name)


@pytest.mark.skipif("ATESD_REBUILD" not in os.environ, reason="takes a minute; set ATESD_REBUILD=1 to rebuild one base")
def test_a_rebuild_gives_the_packaged_weights():
    torch.set_num_threads(1)
    name = PACKAGED_RECIPES[0].name
    assert (
        largest_difference(build(PACKAGED_RECIPES[0], quiet=True), Path(HABITS_DIRECTORY / f"{name}.safetensors")) == 0
    )
