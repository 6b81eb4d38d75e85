"""The definitions of the divergences by hand on two words, their specs, and the weights of the paper's mean."""

import math
from typing import Any

import pytest
import torch

from atesd_env.distillation.divergence import DivergenceSpec, forward_kl, jsd, reverse_kl, rollout_weights
from atesd_env.errors import ConfigError


def test_definitions_on_two_words_by_hand() -> None:
    student = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.75, 0.25]], dtype=torch.float64).log()
    forward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # sum of p_T log(p_T / p_S)
    reverse = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)  # sum of p_S log(p_S / p_T)
    assert forward_kl(student, teacher).item() == pytest.approx(forward, rel=1e-12)
    assert reverse_kl(student, teacher).item() == pytest.approx(reverse, rel=1e-12)
    assert abs(forward - reverse) > 1e-2  # so that a swapped direction fails above
    m = (0.8 * 0.5 + 0.2 * 0.75, 0.8 * 0.5 + 0.2 * 0.25)  # beta = 0.2 is the teacher's share
    of_teacher = 0.75 * math.log(0.75 / m[0]) + 0.25 * math.log(0.25 / m[1])
    of_student = 0.5 * math.log(0.5 / m[0]) + 0.5 * math.log(0.5 / m[1])
    assert jsd(student, teacher, 0.2).item() == pytest.approx(0.2 * of_teacher + 0.8 * of_student, rel=1e-12)


def test_definitions_where_a_word_is_impossible() -> None:
    both, one = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]]).log()
    assert forward_kl(both, one).item() == pytest.approx(math.log(2))
    assert forward_kl(one, both).item() == math.inf  # the teacher says what the student cannot
    assert reverse_kl(one, both).item() == pytest.approx(math.log(2))
    other = torch.tensor([[0.0, 1.0]]).log()
    assert jsd(one, other, 0.5).item() == pytest.approx(math.log(2))  # the largest JSD: nothing in common


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "kl"}, "kind: expected one of forward_kl, reverse_kl, jsd; got 'kl'"),
        ({"jsd_beta": 0.0}, "jsd_beta: expected a number strictly between 0 and 1; got 0.0"),
        ({"jsd_beta": 1.0}, "jsd_beta"),
        ({"jsd_beta": math.nan}, "jsd_beta"),
        ({"token_clip": 0.0}, "token_clip: expected None or a finite number above 0"),
        ({"token_clip": math.inf}, "token_clip"),
        ({"top_k": 0}, "top_k: expected None .* or at least 1"),
        ({"chunk_size": 0}, "chunk_size: expected at least 1"),
    ],
)
def test_specs_that_cannot_be_used(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DivergenceSpec(**fields)


def test_a_share_of_the_mixture_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ConfigError, match="beta"):
        jsd(torch.zeros(1, 2), torch.zeros(1, 2), 1.5)


# The paper's mean over rollouts of the mean over tokens.


def test_rollout_weights_give_the_mean_of_means() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    loss = torch.tensor([[1.0, 2, 3, 4], [10, 20, 0, 0], [0, 300, 0, 0]])
    weights = rollout_weights(mask)
    assert (weights * loss).sum().item() == pytest.approx((2.5 + 15 + 300) / 3)
    assert weights.sum().item() == pytest.approx(1.0)
    assert not weights[~mask].any()


def test_rollout_weights_count_an_empty_rollout() -> None:
    mask = torch.tensor([[True, True], [False, False]])
    assert rollout_weights(mask).tolist() == [[0.25, 0.25], [0.0, 0.0]]
    assert rollout_weights(torch.zeros(2, 3, dtype=torch.bool)).tolist() == [[0.0] * 3] * 2
    assert list(rollout_weights(torch.zeros(0, 3, dtype=torch.bool)).shape) == [0, 3]


def test_rollout_weights_refuse_what_is_no_mask() -> None:
    with pytest.raises(ConfigError, match=r"completion_mask: expected torch.bool \[B, T\]; got torch.float32 \[2, 3\]"):
        rollout_weights(torch.ones(2, 3))
    with pytest.raises(ConfigError, match="completion_mask"):
        rollout_weights(torch.ones(3, dtype=torch.bool))
