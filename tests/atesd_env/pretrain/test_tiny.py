"""The packaged student can be rebuilt: same tokenizer, same recipe, same seed."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import AutoTokenizer

from atesd_env.pretrain.measured import conduct, largest_difference, shares_right
from atesd_env.pretrain.tiny import RECIPES, PretrainSettings, build_model, build_tokenizer, pretrain
from atesd_env.student.loading import load_student
from atesd_env.student.packaged import TINY_DIRECTORY
from atesd_env.tasks.lists import ListsTask


def test_tokenizer_is_the_packaged_one():
    ours, packaged = build_tokenizer(), AutoTokenizer.from_pretrained(TINY_DIRECTORY)
    text = "<|user|>12+34 ~\n{}<|end|><|assistant|>46"
    assert ours.encode(text) == packaged.encode(text)
    assert ours.decode(ours.encode(text)) == text
    assert ours.get_vocab() == packaged.get_vocab()
    assert ours.chat_template == packaged.chat_template


def test_weights_come_from_the_seed_and_leave_the_global_generator_alone():
    tokenizer = build_tokenizer()
    state = torch.get_rng_state()
    first, again, other = (build_model(tokenizer, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("name", RECIPES)
def test_pretraining_repeats_and_learns(name: str):
    settings = dataclasses.replace(RECIPES[name], num_updates=6, batch_size=8)
    first, again = (pretrain(settings, quiet=True)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert {weight.dtype for weight in first.values()} == {settings.dtype}
    untrained = build_model(build_tokenizer(), 0).state_dict()
    assert max(float((first[name] - untrained[name]).abs().max()) for name in first) > 5e-4, "more than is rounded off"


def test_comparison_tells_a_rebuild_from_another_model():
    model, _ = pretrain(PretrainSettings(num_updates=1, batch_size=2), quiet=True)
    assert largest_difference(model.state_dict(), TINY_DIRECTORY / "model.safetensors") > 0.1


def test_packaged_student_knows_short_sums_and_is_a_good_teacher_of_long_ones(tiny_student):
    """What the packaged student is made for: short sums known, long ones not, and any hint makes them right."""
    assert conduct(tiny_student, 3, None, 60).accuracy > 0.9
    assert conduct(tiny_student, 5, None, 60).accuracy < 0.2
    assert min(conduct(tiny_student, 5, ratio, 60).accuracy for ratio in (0.0, 0.5, 1.0)) > 0.85


def test_the_student_of_lists_knows_short_programs_and_is_a_good_teacher_of_longer_ones(tiny_config):
    student = load_student(tiny_config.replace(student="tiny-lists"))
    right = {
        (length, ratio): shares_right(student, ListsTask(length, length), ratio, 60)[0]
        for length, ratio in ((2, None), (3, None), (3, 0.0), (3, 0.5), (3, 1.0))
    }
    assert right[2, None] > 0.8
    assert right[3, None] < 0.1
    assert min(right[3, ratio] for ratio in (0.0, 0.5, 1.0)) > 0.7
