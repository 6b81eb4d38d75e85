"""Infos that are made when they are read: whatever reads them sees what a plain dictionary would hold."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import gymnasium
import numpy as np

import atesd_env  # noqa: F401  (registers the ids)
from atesd_env.envs.infos import Lazy, student_infos
from atesd_env.simulated import toy_row


def lazy() -> Lazy:
    return Lazy({"seed": 7, "length": partial(len)})


def test_every_way_of_reading_makes_the_values():
    whole = {"seed": 7, "length": 6}
    assert lazy() == whole
    assert whole == lazy()
    assert [dict(lazy()), {**lazy()}, lazy().copy(), lazy() | {}, {} | lazy()] == [whole] * 5
    assert [list(lazy().items()), list(lazy().values())] == [[("seed", 7), ("length", 6)], [7, 6]]
    assert [lazy().get("length"), lazy().pop("length"), lazy()["length"]] == [6] * 3
    assert (lazy().get("more", 1), lazy().pop("more", 2)) == (1, 2)
    assert repr(lazy()) == repr(whole)
    for other in (pickle.loads(pickle.dumps(lazy())), copy.deepcopy(lazy()), copy.copy(lazy())):
        assert type(other) is dict
        assert other == whole
    updated: dict[str, Any] = {}
    updated.update(lazy())
    assert updated == whole


def test_a_value_is_made_once_and_only_if_it_is_read():
    read: list[str] = []
    infos = Lazy({"one": partial(read.append), "other": partial(read.append)})
    assert ("one" in infos, len(infos), list(infos)) == (True, 2, ["one", "other"])
    assert infos["one"] is infos["one"] is None
    assert read == ["one"]


def test_columns_that_nobody_reads_are_not_made_and_later_windows_leave_them_as_they_were(monkeypatch: Any):
    asked: list[int] = []
    make = toy_row._optimum_columns
    monkeypatch.setattr(toy_row, "_optimum_columns", lambda *arguments: asked.append(1) or make(*arguments))

    def played(read: Any) -> list[Any]:
        env = gymnasium.make_vec("ATESD-Toy-v0", 40, toy_kind="delayed", groups=2, probe_pass_k=3, windows=3)
        infos = [read(env.reset(seed=0)[1])]
        for step, actions in enumerate(np.random.default_rng(0).random((8, 40, 2)).astype(np.float32)):
            if step == 1:  # some start anew while the others' infos are still to be read
                infos.append(read(env.reset(options={"reset_mask": np.arange(40) % 3 == 0})[1]))
            infos.append(read(env.step(actions)[-1]))
        return infos

    unread = played(lambda infos: infos)
    assert not asked
    for late, early in zip(unread, played(dict), strict=True):
        assert late.keys() == early.keys()
        for name, values in early.items():
            np.testing.assert_array_equal(late[name], values)
    assert asked


def test_an_info_of_a_student_holds_plain_values_and_none_for_what_it_lacks():
    nll, reasons = np.array([1.5, np.nan]), np.array(["far", None], dtype=object)
    infos = {"nll": nll, "_nll": ~np.isnan(nll), "reason": reasons, "_reason": reasons != None, "extra": nll}  # noqa: E711
    one, other = student_infos(infos, 2)
    assert (one, other) == ({"nll": 1.5, "reason": "far"}, {"nll": None, "reason": None})
    assert type(one["nll"]) is float
