"""The contract test of a set: what passes, and each thing that it finds."""

from __future__ import annotations

import dataclasses

import pytest

from atesd_env.bench import Instance, InstanceSet, check_instance_set
from atesd_env.errors import ConfigError, DataError
from tests.atesd_env.bench.sets import toy_set


def with_instance(*more: Instance, **fields: object) -> InstanceSet:
    found = toy_set(**fields)
    return dataclasses.replace(found, instances=(*found.instances, *more))


def test_a_sound_set_passes_and_every_instance_was_played():
    played: list[str] = []
    check_instance_set(toy_set(), played.append)
    assert sorted(played) == ["both", "high", "low", "middle", "other"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_without_an_instance_is_found(split: str):
    found = toy_set()
    rest = dataclasses.replace(found, instances=tuple(one for one in found.instances if one.split != split))
    with pytest.raises(ConfigError, match=f"got none of {split}; add one"):
        check_instance_set(rest)


def test_instances_that_are_the_same_are_found():
    twin = Instance("again", "test", "Low under another name.", {"toy_best_ratio": 0.1})
    with pytest.raises(ConfigError, match="got 'low' and 'again' with the same fields"):
        check_instance_set(with_instance(twin))


def test_an_instance_that_cannot_be_played_is_named():
    absent = InstanceSet(
        name="absent",
        version="1",
        description="",
        env="ATESD-Tiny-v0",
        fields={"task": "math"},
        instances=(
            Instance("there", "train", "Not there either.", {"data_path": "absent-too.jsonl"}),
            Instance("gone", "test", "A file that is not there.", {"data_path": "absent.jsonl"}),
        ),
    )
    with pytest.raises(DataError, match=r"absent\.jsonl") as caught:
        check_instance_set(absent)
    assert caught.value.__notes__ == ["instance set, instance 'gone'"]


def test_a_window_that_does_not_repeat_is_found(monkeypatch: pytest.MonkeyPatch):
    from atesd_env.bench.students import BenchStudents

    monkeypatch.setattr(BenchStudents, "restore", lambda *_: None)
    with pytest.raises(ConfigError, match="instance 'other': expected a window that repeats bit for bit, got none"):
        check_instance_set(toy_set())
