"""Stacked adapters against peft: same initial law, same logits, same files, no leaks between students."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from atesd_env.errors import ConfigError, StudentError
from atesd_env.student.adapters import AdapterStack

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def randomise(stack: AdapterStack, seed: int = 0) -> None:
    stack.flat.copy_(0.3 * torch.randn(stack.flat.shape, generator=torch.Generator().manual_seed(seed)))


def token_batch(num_rows: int) -> torch.Tensor:
    return torch.randint(4, 100, (num_rows, 9), generator=torch.Generator().manual_seed(1))


def test_saved_adapter_gives_the_same_logits_in_plain_peft(random_model, tmp_path: Path):
    base = copy.deepcopy(random_model)
    stack = AdapterStack(random_model, num_students=2, r=4, alpha=12.0, targets=TARGETS)
    randomise(stack)
    stack.save(1, tmp_path / "adapter", base_model="random")
    with torch.no_grad(), stack.use("student", [1]):
        ours = random_model(input_ids=token_batch(3)).logits
    with torch.no_grad():
        without = base(input_ids=token_batch(3)).logits
        theirs = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))(input_ids=token_batch(3)).logits
    assert (ours - without).abs().max() > 0.1, "the adapter must matter for this test to mean anything"
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_plain_peft_adapter_can_be_the_start(random_model, tmp_path: Path):
    base = copy.deepcopy(random_model)
    theirs = get_peft_model(base, LoraConfig(r=4, lora_alpha=12, target_modules=list(TARGETS), task_type="CAUSAL_LM"))
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(3))
    theirs.save_pretrained(str(tmp_path))
    stack = AdapterStack(random_model, num_students=1, r=4, alpha=12.0, targets=TARGETS)
    stack.load(0, tmp_path)
    with torch.no_grad(), stack.use("student", [0]):
        ours = random_model(input_ids=token_batch(2)).logits
    with torch.no_grad():
        torch.testing.assert_close(ours, theirs(input_ids=token_batch(2)).logits, rtol=1e-5, atol=1e-5)


def test_adapters_off_is_the_base(random_model):
    base = copy.deepcopy(random_model)
    stack = AdapterStack(random_model, num_students=1, r=4, alpha=8.0, targets=TARGETS)
    randomise(stack)
    with torch.no_grad(), stack.use(None):
        assert torch.equal(random_model(input_ids=token_batch(2)).logits, base(input_ids=token_batch(2)).logits)


def test_fresh_adapter_is_the_base_and_follows_pefts_initial_law(random_model):
    base = copy.deepcopy(random_model)
    stack = AdapterStack(random_model, num_students=2, r=8, alpha=16.0, targets=TARGETS)
    stack.initialise(0, torch.Generator().manual_seed(1))
    stack.initialise(1, torch.Generator().manual_seed(2))
    assert not torch.equal(stack.flat[0], stack.flat[1])
    with torch.no_grad(), stack.use("student", [0]):
        torch.testing.assert_close(random_model(input_ids=token_batch(2)).logits, base(input_ids=token_batch(2)).logits)
    state = stack.state_dict(0)
    reference = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=list(TARGETS))).state_dict()
    for name, matrix in state.items():
        theirs = reference[name.replace(".weight", ".default.weight")]
        assert matrix.shape == theirs.shape
        if "lora_A" in name:
            # Uniform on +-1/sqrt(in): both stay inside the bound, and both come within 5% of it (256 draws or more miss
            # the outer 5% with probability 0.95^256 < 1e-5; seeds are fixed for ours).
            bound = matrix.shape[1] ** -0.5
            assert 0.95 * bound < matrix.abs().max() <= bound
            assert theirs.abs().max() <= bound
        else:
            assert not matrix.any()
            assert not theirs.any()


def test_rows_of_several_students_equal_each_student_alone(random_model):
    stack = AdapterStack(random_model, num_students=4, r=4, alpha=8.0, targets=TARGETS)
    randomise(stack)
    tokens = token_batch(6)
    alone = []
    for position, student in enumerate([3, 0, 2]):
        with torch.no_grad(), stack.use("student", [student]):
            alone.append(random_model(input_ids=tokens[2 * position : 2 * position + 2]).logits)
    assert (alone[0][0] - alone[1][0]).abs().max() > 0.1
    with torch.no_grad(), stack.use("student", [3, 0, 2]):
        together = random_model(input_ids=tokens).logits
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_gradients_land_in_the_flat_vector_of_their_student_only(random_model):
    base = copy.deepcopy(random_model).requires_grad_(False)
    random_model.requires_grad_(False)
    stack = AdapterStack(random_model, num_students=3, r=4, alpha=8.0, targets=TARGETS)
    randomise(stack)
    with stack.use("student", [1]):
        random_model(input_ids=token_batch(2)).logits.pow(2).mean().backward()
    assert stack.flat_grad[1].abs().max() > 0
    assert not stack.flat_grad[[0, 2]].any()

    reference = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=list(TARGETS)))
    reference.load_state_dict(
        {name.replace(".weight", ".default.weight"): matrix for name, matrix in stack.state_dict(1).items()},
        strict=False,
    )
    reference(input_ids=token_batch(2)).logits.pow(2).mean().backward()
    gradients = {name: parameter.grad for name, parameter in reference.named_parameters() if parameter.requires_grad}
    for slot in stack.slots:
        for ours, kind in zip(stack._matrices(stack.flat_grad[1:2], slot), ("lora_A", "lora_B"), strict=True):
            theirs = gradients[f"base_model.model.{slot.name}.{kind}.default.weight"]
            torch.testing.assert_close(ours[0], theirs, rtol=1e-4, atol=1e-7)


def test_changing_the_flat_vector_changes_the_forward_pass(random_model):
    stack = AdapterStack(random_model, num_students=1, r=4, alpha=8.0, targets=TARGETS)
    randomise(stack)
    with torch.no_grad(), stack.use("student", [0]):
        before = random_model(input_ids=token_batch(1)).logits
        stack.flat[0].mul_(2.0)
        after = random_model(input_ids=token_batch(1)).logits
    assert (before - after).abs().max() > 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 8}, "got r=4"),
        ({"alpha": 4.0}, "set lora_r and lora_alpha"),
        ({"targets": ("q_proj",)}, "set lora_targets"),
    ],
)
def test_adapter_of_another_shape_is_refused(random_model, tmp_path: Path, changes, message):
    saved = AdapterStack(copy.deepcopy(random_model), num_students=1, r=4, alpha=8.0, targets=TARGETS)
    saved.save(0, tmp_path, base_model="random")
    settings = {"num_students": 1, "r": 4, "alpha": 8.0, "targets": TARGETS} | changes
    stack = AdapterStack(random_model, **settings)
    with pytest.raises(StudentError, match=message):
        stack.load(0, tmp_path)


def test_directory_without_adapter_is_refused(random_model, tmp_path: Path):
    stack = AdapterStack(random_model, num_students=1, r=4, alpha=8.0, targets=TARGETS)
    with pytest.raises(StudentError, match=r"adapter_model\.safetensors"):
        stack.load(0, tmp_path)


def test_adapter_with_rank_patterns_is_refused(random_model, tmp_path: Path):
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(TARGETS), rank_pattern={"q_proj": 2})
    get_peft_model(copy.deepcopy(random_model), config).save_pretrained(str(tmp_path))
    stack = AdapterStack(random_model, num_students=1, r=4, alpha=8.0, targets=TARGETS)
    with pytest.raises(StudentError, match="rank_pattern"):
        stack.load(0, tmp_path)


def test_unknown_and_non_linear_targets_are_refused(random_model):
    with pytest.raises(ConfigError, match=r"lora_targets.*q_proj.*got \['query'\]"):
        AdapterStack(random_model, num_students=1, r=4, alpha=8.0, targets=("query",))
    with pytest.raises(ConfigError, match="Embedding"):
        AdapterStack(random_model, num_students=1, r=4, alpha=8.0, targets=("embed_tokens",))
