"""Rows that begin alike, laid into a tree: the numbers of rows apart, each token computed once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from atesd_env.rollouts.scoring import forced_rollouts, scored_hidden
from atesd_env.rollouts.sharing import SharedRows, answers_hidden
from atesd_env.student.model import Student


def test_each_beginning_is_there_once():
    shared = SharedRows.of([[5, 6, 7], [5, 6, 8, 9], [5, 6, 7], [6]], torch.device("cpu"))
    assert shared.token_ids.tolist() == [5, 6, 7, 8, 9, 6]
    assert shared.positions.tolist() == [0, 1, 2, 2, 3, 0]
    assert [path.tolist() for path in shared.paths] == [[0, 1, 2], [0, 1, 3, 4], [0, 1, 2], [5]]
    assert sum(map(len, shared.sources)) == 3  # equal rows are one


def test_shared_rows_give_the_hidden_states_of_rows_apart(
    random_model: PreTrainedModel, as_student: Callable[[PreTrainedModel], Student]
):
    student = as_student(random_model)
    problem = list(range(1, 21))
    prompts = [problem + shown for shown in ([], [30, 31], [30, 31, 32, 33], [30, 31], [40])] + [[9, 8, 7]]
    answers = [[50, 51, 52], [50, 51, 52], [53], [50, 51, 52], [50, 54] * 9, [60, 61]]
    batch = forced_rollouts(student, prompts, answers)
    with torch.no_grad():
        apart = scored_hidden(student, batch.prompt_ids, batch.prompt_mask, batch)
    together = torch.cat(answers_hidden(student, prompts, answers))
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)
