"""Importance weights and agreement, by hand and against what they are for."""

from __future__ import annotations

import math

import pytest
import torch

from atesd_env.distillation.importance import Agreement, agreement, importance_weights


def test_weights_are_ratios_of_probabilities_up_to_the_cap():
    trainer, engine = torch.tensor([0.5, 0.2, 0.9]).log(), torch.tensor([0.25, 0.4, 0.1]).log()
    torch.testing.assert_close(importance_weights(trainer, engine, 4.0), torch.tensor([2.0, 0.5, 4.0]))
    torch.testing.assert_close(importance_weights(trainer, engine, None), torch.ones(3))
    assert not importance_weights(trainer.requires_grad_(), engine, 4.0).requires_grad


def test_ratios_beyond_all_numbers_stay_at_the_cap():
    assert importance_weights(torch.tensor([0.0]), torch.tensor([-1e4]), 2.0).tolist() == [2.0]
    assert importance_weights(torch.tensor([-1e4]), torch.tensor([0.0]), 2.0).tolist() == [0.0]


def test_weighted_means_of_an_engines_samples_are_the_trainers():
    """Expectation under p from samples of q: exact over all outcomes, as the sum of q (p / q) f; cut, it falls short."""
    p, q, f = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5]), torch.tensor([1.0, 2.0, 4.0])
    weights = importance_weights(p.log(), q.log(), 10.0)
    assert float((q * weights * f).sum()) == pytest.approx(float((p * f).sum()))
    cut = importance_weights(p.log(), q.log(), 2.0)
    assert float((q * cut * f).sum()) == pytest.approx(float((p * f).sum()) - 0.1)


def test_agreement_of_two_parts_is_that_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    trainer, engine = -torch.rand(40, generator=generator), -torch.rand(40, generator=generator)
    whole = agreement(trainer, engine, 1.2)
    parts = agreement(trainer[:13], engine[:13], 1.2) + agreement(trainer[13:], engine[13:], 1.2)
    assert parts.means() == pytest.approx(whole.means())
    assert whole.num_tokens == parts.num_tokens == 40
    difference = (trainer - engine).double()
    assert whole.sum_difference == pytest.approx(float(difference.abs().sum()))
    assert whole.max_difference == pytest.approx(float(difference.abs().max()))
    assert whole.num_capped == int((difference > math.log(1.2)).sum()) > 0
    assert whole.sum_weight == pytest.approx(float(difference.exp().clamp(max=1.2).sum()))


def test_no_tokens_agree():
    assert agreement(torch.zeros(0), torch.zeros(0), 2.0) == Agreement()
    assert set(Agreement().means().values()) == {0.0}
