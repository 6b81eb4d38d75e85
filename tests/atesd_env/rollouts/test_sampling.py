"""The decode loop against transformers: the same filters, the same logits, the same greedy answers."""

from __future__ import annotations

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from atesd_env.rollouts.sampling import (
    NUCLEUS,
    TIES,
    SamplingSpec,
    _nucleus,
    _nucleus_by_likeliest,
    decode_texts,
    generate,
    kept_probabilities,
    left_pad,
    position_ids,
    sample_next_token,
)
from atesd_env.student.generators import torch_stream


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(1.0, 1.0, 0), (0.7, 1.0, 5), (1.3, 0.8, 0), (1.1, 0.95, 20), (0.5, 0.1, 1), (1.0, 0.9, 500)],
)
def test_filters_equal_transformers_on_the_same_logits(temperature: float, top_p: float, top_k: int):
    logits = 3 * torch.randn(64, 101, generator=torch.Generator().manual_seed(0))
    logits[:, 10] = logits[:, 11]  # ties are where implementations differ
    wanted = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        wanted.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        wanted.append(TopPLogitsWarper(top_p))
    kept, words = kept_probabilities(logits, SamplingSpec(8, temperature, top_p, top_k))
    ours = kept if words is None else torch.zeros_like(logits).scatter(1, words, kept)
    theirs = wanted(None, logits.clone())
    assert torch.equal(ours == 0, theirs.isinf())
    torch.testing.assert_close(ours / ours.sum(dim=1, keepdim=True), theirs.softmax(dim=1))


def test_top_k_sorts_columns_and_draws_what_the_whole_vocabulary_would():
    """2,000 numbers a row, coarse logits with many ties: the cumulative distribution over all words gives the same word."""
    logits = (2 * torch.randn(8, 3000, generator=torch.Generator().manual_seed(0))).bfloat16()
    spec = SamplingSpec(1, temperature=1.1, top_p=0.95, top_k=20)
    kept, words = kept_probabilities(logits, spec)
    assert words is not None
    assert kept.shape[1] == 20 + TIES
    assert (words.diff(dim=1) > 0).all()
    (alone, _), threshold = kept_probabilities(logits, SamplingSpec(1, top_k=20)), logits.topk(20).values[:, -1:]
    assert torch.equal((alone > 0).sum(dim=1), (logits >= threshold).sum(dim=1)), "ties of the last place are kept"
    assert (alone > 0).sum(dim=1).max() > 20
    cumulative = torch.zeros(8, 3000).scatter(1, words, kept).cumsum(dim=1)
    for uniforms in torch.rand(2000, 8, generator=torch.Generator().manual_seed(1)):
        drawn = sample_next_token(logits, uniforms, spec)
        assert torch.equal(
            drawn, torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True)[:, 0]
        )


def test_sampled_frequencies_are_the_distribution():
    """Chi-square over 20,000 draws of 6 words at the 1e-6 level (5 degrees of freedom: 35.9); seed 0, fixed."""
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0, 0.5, -3.0]])
    num_draws = 20_000
    uniforms = torch.rand(num_draws, generator=torch.Generator().manual_seed(0))
    tokens = sample_next_token(logits.expand(num_draws, -1), uniforms, SamplingSpec(1))
    expected = logits[0].softmax(0) * num_draws
    observed = torch.bincount(tokens, minlength=6)
    assert float(((observed - expected) ** 2 / expected).sum()) < 35.9


def test_extreme_uniforms_never_choose_a_removed_token():
    logits = torch.tensor([[5.0, 4.0, -torch.inf, -torch.inf]])
    spec = SamplingSpec(1, top_k=2)
    largest = 1.0 - 2.0**-24
    assert sample_next_token(logits, torch.tensor([largest]), spec).tolist() == [1]
    assert sample_next_token(logits, torch.tensor([0.0]), spec).tolist() == [0]
    leading = torch.tensor([[-torch.inf, 4.0, 4.0]])
    assert sample_next_token(leading, torch.tensor([0.0]), spec).tolist() == [1]


def test_greedy_equals_transformers_generate(random_model, as_student, make_prompts):
    student = as_student(random_model)
    prompts = make_prompts(5)
    ours = generate(student, prompts, SamplingSpec(max_new_tokens=12, temperature=0.0))
    input_ids, mask = left_pad(prompts, student.pad_token_id)
    theirs = random_model.generate(
        input_ids=input_ids,
        attention_mask=mask.long(),
        max_new_tokens=12,
        do_sample=False,
        pad_token_id=student.pad_token_id,
    )[:, input_ids.shape[1] :]
    for row in range(5):
        length = int(ours.lengths[row])
        assert ours.completion_ids[row, :length].tolist() == theirs[row, :length].tolist()


def test_left_padding_is_masked(random_model, as_student, make_prompts):
    """A row's answer is the same alone and beside a much longer prompt."""
    student = as_student(random_model)
    uniforms = torch.rand(2, 8, generator=torch.Generator().manual_seed(0))
    short, long = make_prompts(1)[0], make_prompts(1, seed=5, shortest=60, longest=60)[0]
    alone = generate(student, [short], SamplingSpec(8), uniforms[:1])
    beside = generate(student, [short, long], SamplingSpec(8), uniforms)
    length = int(alone.lengths[0])
    assert beside.lengths[0] == length
    assert torch.equal(alone.completion_ids[0, :length], beside.completion_ids[0, :length])


def test_stops_at_the_end_token_and_fills_with_padding(tiny_student):
    prompts = [
        tiny_student.tokenizer.encode(text)
        for text in ("<|user|>12+34<|end|><|assistant|>", "<|user|>10+20+30<|end|><|assistant|>")
    ]
    rollouts = generate(tiny_student, prompts, SamplingSpec(max_new_tokens=60, temperature=0.0))
    assert decode_texts(tiny_student, rollouts) == ["12+34=46#46", "10+20=30;30+30=60#60"]
    assert rollouts.is_finished.all()
    assert rollouts.completion_ids.shape[1] == rollouts.lengths.max() < 60, (
        "the loop must stop when every row has ended"
    )
    shorter = int(rollouts.lengths[0])
    assert rollouts.completion_ids[0, shorter - 1] == tiny_student.tokenizer.eos_token_id
    assert (rollouts.completion_ids[0, shorter:] == tiny_student.pad_token_id).all()


def test_full_length_rollout_is_reported_as_cut(tiny_student):
    prompts = [tiny_student.tokenizer.encode("<|user|>12+34<|end|><|assistant|>")]
    rollouts = generate(tiny_student, prompts, SamplingSpec(max_new_tokens=3, temperature=0.0))
    assert rollouts.lengths.tolist() == [3]
    assert not rollouts.is_finished.any()


def test_every_configured_end_token_ends_a_rollout(random_model, as_student):
    random_model.generation_config.eos_token_id = [3, 50]
    assert set(as_student(random_model).eos_token_ids) >= {3, 50}


def test_same_stream_same_tokens_and_another_stream_differs(tiny_student):
    prompts = [tiny_student.tokenizer.encode("<|user|>12+34+77+81<|end|><|assistant|>")] * 8
    spec = SamplingSpec(max_new_tokens=30, temperature=1.5)

    def sample(index: int) -> list[list[int]]:
        uniforms = torch.rand(8, 30, generator=torch_stream(3, "rollout", index))
        return generate(tiny_student, prompts, spec, uniforms).completion_ids.tolist()

    state = torch.get_rng_state()
    assert sample(0) == sample(0)
    assert sample(0) != sample(1)
    assert torch.equal(torch.get_rng_state(), state), "the global generator must not be touched"


def test_positions_count_from_the_first_unmasked_token():
    mask = torch.tensor([[False, False, True, True], [True, True, True, True]])
    assert position_ids(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]


def test_rows_drops_unused_columns(tiny_student):
    prompts = [
        tiny_student.tokenizer.encode(text)
        for text in ("<|user|>12+34<|end|><|assistant|>", "<|user|>10+20+30<|end|><|assistant|>")
    ]
    rollouts = generate(tiny_student, prompts, SamplingSpec(max_new_tokens=60, temperature=0.0))
    first = rollouts.rows(slice(0, 1))
    assert first.completion_ids.shape == (1, int(rollouts.lengths[0]))


def test_top_p_among_the_likeliest_keeps_what_a_sort_of_all_keeps():
    """Peaked rows, rows too flat for the likeliest words alone, and equal words at the border: the same bits."""
    generator = torch.Generator().manual_seed(0)
    sharpness = torch.linspace(0.5, 6, 24)[:, None]
    rows = (torch.randn(24, 5 * NUCLEUS, generator=generator) * sharpness).softmax(dim=-1)
    tied = (torch.randn(24, 5 * NUCLEUS, generator=generator) * sharpness).round().softmax(dim=-1)
    for probabilities in (rows, tied):
        for top_p in (0.5, 0.95):
            expected = _nucleus(probabilities, top_p)
            assert torch.equal(_nucleus_by_likeliest(probabilities, top_p), expected)
            assert not torch.equal(expected, probabilities)
