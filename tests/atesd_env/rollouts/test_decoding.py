"""Decoding with a cache against one pass without: for both ways through a model, for one student and for several."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from atesd_env.errors import StudentError
from atesd_env.rollouts.decoding import FixedDecoding, FusedDecoding, ModuleDecoding, begin_decoding
from atesd_env.rollouts.passes import PASS_BYTES, tokens_at_once
from atesd_env.rollouts.sampling import SamplingSpec, generate, left_pad
from atesd_env.rollouts.scoring import forced_rollouts, scored_hidden
from atesd_env.student.adapters import MOST_ZEROS, AdapterStack

KINDS = {"fused": FusedDecoding, "fixed": FixedDecoding, "modules": ModuleDecoding}


@pytest.fixture(params=list(KINDS))
def forward(request: pytest.FixtureRequest) -> str:
    return request.param


def make_student(random_model, as_student, forward: str, num_students: int):
    student = as_student(
        random_model, forward="modules" if forward == "modules" else "fused", cuda_graph=forward == "fixed"
    )
    stack = AdapterStack(student.model, num_students, r=2, alpha=4.0, targets=("q_proj", "k_proj", "o_proj", "up_proj"))
    stack.flat.copy_(0.3 * torch.randn(stack.flat.shape, generator=torch.Generator().manual_seed(1)))
    return student, stack


def test_the_kind_of_decoding_is_the_configured_one(random_model, as_student, make_prompts, forward):
    student, _ = make_student(random_model, as_student, forward, 1)
    with torch.no_grad():
        decoding = begin_decoding(student, *left_pad(make_prompts(2), 0), max_new_tokens=2)
    assert type(decoding) is KINDS[forward]


def test_steps_of_one_shape_are_refused_where_modules_decode(random_model, as_student):
    with pytest.raises(
        StudentError, match=r"forward='fused'.*, got a \w+ with forward='modules'; leave cuda_graph out"
    ):
        as_student(random_model, forward="modules", cuda_graph=True)


@pytest.mark.parametrize("num_students", [1, 3])
@pytest.mark.parametrize("most_zeros", [0, MOST_ZEROS])
def test_steps_give_the_hidden_states_of_a_full_pass(
    random_model, as_student, make_prompts, forward, num_students, most_zeros, monkeypatch
):
    """Six rows are fed token by token; every hidden state equals that of one student's pass without a cache, to 1e-5.

    After two steps, rows are dropped and change places. Adapters side by side are one product, or one each.
    """
    student, stack = make_student(random_model, as_student, forward, num_students)
    prompts = make_prompts(6)
    answers = make_prompts(6, seed=1, shortest=5, longest=5)
    share = 6 // num_students
    expected = []
    for row in range(6):
        batch = forced_rollouts(student, [prompts[row]], [answers[row]])
        with torch.no_grad(), stack.use("student", [row // share]):
            expected.append(scored_hidden(student, batch.prompt_ids, batch.prompt_mask, batch))
    wanted = torch.stack(expected)
    monkeypatch.setattr("atesd_env.student.adapters.MOST_ZEROS", most_zeros)
    fed = torch.tensor(answers)
    students = list(range(num_students))
    with torch.no_grad(), stack.use("student", students):
        decoding = begin_decoding(student, *left_pad(prompts, 0), max_new_tokens=5, num_students=num_students)
        torch.testing.assert_close(decoding.hidden, wanted[:, 0], rtol=0, atol=1e-5)
        for turn in range(2):
            decoding.step(fed[:, turn])
            torch.testing.assert_close(decoding.hidden, wanted[:, turn + 1], rtol=0, atol=1e-5)
        kept = torch.tensor([1, 4, 5]) if num_students == 1 else torch.tensor([1, 2, 5])
        decoding.keep(kept)
        torch.testing.assert_close(decoding.hidden, wanted[kept, 2], rtol=0, atol=1e-5)
        for turn in range(2, 4):
            decoding.step(fed[kept, turn])
            torch.testing.assert_close(decoding.hidden, wanted[kept, turn + 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_students", [1, 3])
@pytest.mark.parametrize("tokens", [24, 60])
def test_prompts_are_fed_in_parts(random_model, as_student, make_prompts, forward, num_students, tokens, monkeypatch):
    """Six prompts of up to 12 tokens: parts of a student's rows, or of whole students, give what all rows at once give."""
    student, stack = make_student(random_model, as_student, forward, num_students)
    texts = make_prompts(6, shortest=3, longest=12)
    prompts = left_pad(texts, 0)
    one = PASS_BYTES // tokens_at_once(student)
    fed: list[int] = []
    embed = student.body.embed_tokens.forward
    monkeypatch.setattr(
        student.body.embed_tokens, "forward", lambda token_ids: (fed.append(token_ids.numel()), embed(token_ids))[1]
    )
    decodings, sampled = [], []
    uniforms = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))
    for limit in (PASS_BYTES // one, tokens):
        monkeypatch.setattr("atesd_env.rollouts.passes.PASS_BYTES", one * limit)
        fed.clear()
        with torch.no_grad(), stack.use("student", list(range(num_students))):
            decodings.append(begin_decoding(student, *prompts, max_new_tokens=2, num_students=num_students))
            num_parts = len(fed)
            assert max(fed) <= limit
            decodings[-1].step(torch.arange(6))
            sampled.append(generate(student, texts, SamplingSpec(8), uniforms, num_students).completion_ids)
        assert (num_parts > 1) is (limit == tokens)
    torch.testing.assert_close(decodings[1].hidden, decodings[0].hidden, rtol=0, atol=1e-5)
    assert torch.equal(sampled[1], sampled[0])


def test_rows_are_scored_in_parts_where_no_gradient_is_asked_for(
    random_model, as_student, make_prompts, forward, monkeypatch
):
    student, stack = make_student(random_model, as_student, forward, 1)
    batch = forced_rollouts(student, make_prompts(6), make_prompts(6, seed=1, shortest=1))
    seen: list[int] = []
    embed = student.body.embed_tokens.forward
    monkeypatch.setattr(
        student.body.embed_tokens, "forward", lambda token_ids: (seen.append(token_ids.numel()), embed(token_ids))[1]
    )
    scored = []
    one = PASS_BYTES // tokens_at_once(student)
    for limit in (PASS_BYTES // one, 50):
        monkeypatch.setattr("atesd_env.rollouts.passes.PASS_BYTES", one * limit)
        with torch.no_grad(), stack.use("student", [0]):
            scored.append(scored_hidden(student, batch.prompt_ids, batch.prompt_mask, batch))
    assert seen[0] > 50 >= max(seen[1:])
    torch.testing.assert_close(scored[1], scored[0], rtol=0, atol=1e-5)
    seen.clear()
    with stack.use("student", [0]):
        scored_hidden(student, batch.prompt_ids, batch.prompt_mask, batch)
    assert len(seen) == 1, "what is kept for a gradient is kept anyway"


def test_dropping_ended_rows_changes_no_rollout(random_model, as_student, make_prompts, forward, monkeypatch):
    """Twelve rows of three students, half of the vocabulary ends a row, so that rows end early and at different times."""
    random_model.generation_config.eos_token_id = list(range(3, 101, 4))
    student, stack = make_student(random_model, as_student, forward, 3)
    uniforms = torch.rand(12, 16, generator=torch.Generator().manual_seed(0))
    prompts = make_prompts(12)
    drops: list[int] = []
    kind = KINDS[forward]
    keep = kind.keep
    monkeypatch.setattr(kind, "keep", lambda self, rows: (drops.append(len(rows)), keep(self, rows))[1])
    with stack.use("student", [0, 1, 2]):
        dropped = generate(student, prompts, SamplingSpec(16), uniforms, num_students=3)
        num_drops = len(drops)
        monkeypatch.setattr("atesd_env.rollouts.sampling.KEPT_SHARE", 0.0)
        monkeypatch.setattr("atesd_env.rollouts.sampling.CAPTURED_KEPT_SHARE", 0.0)
        whole = generate(student, prompts, SamplingSpec(16), uniforms, num_students=3)
    assert num_drops >= 2
    assert len(drops) == num_drops
    assert drops == sorted(drops, reverse=True)
    assert len(set(dropped.lengths.tolist())) > 3
    assert dropped.token_log_probs is whole.token_log_probs is None, "sampled from the trainer's own numbers"
    for name in vars(whole).keys() - {"token_log_probs"}:
        assert torch.equal(getattr(dropped, name), getattr(whole, name)), name


@pytest.mark.parametrize("check_every", [3, 5, 100])
def test_looking_less_often_whether_rows_go_on_changes_no_bit(
    random_model, as_student, make_prompts, forward, check_every, monkeypatch
):
    """Rows end after 1 to 14 tokens of 14; 100 looks at the end only."""
    random_model.generation_config.eos_token_id = list(range(3, 101, 7))
    student, stack = make_student(random_model, as_student, forward, 2)
    prompts, uniforms = make_prompts(6), torch.rand(6, 14, generator=torch.Generator().manual_seed(0))
    with stack.use("student", [0, 1]):
        wanted = generate(student, prompts, SamplingSpec(14), uniforms, num_students=2)
        monkeypatch.setattr("atesd_env.rollouts.sampling.CHECK_TOKENS", {"cpu": check_every})
        found = generate(student, prompts, SamplingSpec(14), uniforms, num_students=2)
    assert wanted.lengths.min() < 5
    for name in vars(wanted).keys() - {"token_log_probs"}:
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name


def test_fused_and_module_rollouts_are_the_same(random_model, as_student, make_prompts):
    """The same uniforms choose the same tokens: the two ways differ in rounding only."""
    uniforms = torch.rand(6, 10, generator=torch.Generator().manual_seed(0))
    sampled = []
    for forward in KINDS:
        student, stack = make_student(copy.deepcopy(random_model), as_student, forward, 2)
        with stack.use("student", [1, 0]):
            sampled.append(generate(student, make_prompts(6), SamplingSpec(10), uniforms, num_students=2))
    for other in sampled[1:]:
        assert torch.equal(sampled[0].completion_ids, other.completion_ids)
        assert torch.equal(sampled[0].completion_mask, other.completion_mask)


class _Waits(TorchDispatchMode):
    """Counts what makes a host wait for its device: a number that is read, places that are looked for."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indices = args[1] if function is torch.ops.aten.index.Tensor else ()
        by_mask = any(one is not None and one.dtype == torch.bool for one in indices)
        reads = (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.item.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten.equal.default,
        )
        self.number += by_mask or function in reads
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("check_every", "cuda_graph", "more"), [(1, False, 10), (5, False, 2), (5, True, 2)])
def test_the_host_waits_only_where_it_looks(
    random_model, as_student, make_prompts, check_every, cuda_graph, more, monkeypatch
):
    """On a GPU each wait empties its queue; to know whether rows go on, one is needed every so many tokens."""
    student = as_student(random_model, forward="fused", cuda_graph=cuda_graph)
    student = dataclasses.replace(student, eos_token_ids=())
    monkeypatch.setattr("atesd_env.rollouts.sampling.CHECK_TOKENS", {"cpu": check_every})
    waits = []
    for num_tokens in (4, 14):
        with _Waits() as counted:
            spec = SamplingSpec(num_tokens, temperature=1.0, top_p=0.9, top_k=20)
            generate(
                student, make_prompts(4), spec, torch.rand(4, num_tokens, generator=torch.Generator().manual_seed(0))
            )
        waits.append(counted.number)
    assert waits[1] - waits[0] == more
    assert waits[0] < 15
