"""References: a frame and a card that come back from their file, for the very set that they were measured on."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import gymnasium
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atesd_env.bench import Instance, InstanceSet, reference, reference_card, references
from atesd_env.bench.known import _CARD, COLUMNS, references_file, write_references
from atesd_env.errors import ConfigError, DataError
from tests.atesd_env.bench.sets import toy_set

CARD = {"what": "Two numbers.", "command": "python -m benchmarks.x", "commit": "abc1234", "licence": "Apache-2.0"}


def frame() -> pd.DataFrame:
    lines = [
        ("low", "fixed:1", "probe/accuracy", 0.1, 0.05, 0.15, 8, "20000-20007", 24, 9000),
        ("low", "oracle", "probe/accuracy", 0.6, 0.5, 0.7, 8, "20000-20007", 240, 90000),
        ("high", "fixed:1", "probe/accuracy", 0.5, 0.4, 0.6, 8, "20000-20007", 24, 9000),
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


@pytest.fixture
def mine(tmp_path: Path) -> InstanceSet:
    toy_set().save(tmp_path / "mine.json")
    return InstanceSet.from_file(tmp_path / "mine.json")


def test_references_come_back_with_their_card(mine: InstanceSet, tmp_path: Path):
    write_references(mine, frame(), **CARD)
    assert references_file(mine) == tmp_path / "mine.parquet"
    pd.testing.assert_frame_equal(references(mine), frame())
    card = reference_card(mine)
    assert {name: card[name] for name in CARD} == CARD
    assert (card["set"], card["fingerprint"]) == ("mine", mine.fingerprint)
    env = gymnasium.make("ATESD-Bench-v0", instances=str(tmp_path / "mine.json")).unwrapped
    found = env.reference("low")
    pd.testing.assert_frame_equal(found, frame().iloc[:2])
    found["mean"] = 9.0
    assert reference(mine, "low")["mean"].tolist() == [0.1, 0.6], "what a caller changes is the caller's"
    with pytest.raises(ConfigError, match="did you mean 'low'"):
        env.reference("lwo")


def test_numbers_of_another_version_are_refused(mine: InstanceSet):
    write_references(mine, frame(), **CARD)
    more = dataclasses.replace(
        mine, instances=(*mine.instances, Instance("new", "test", "New.", {"toy_best_ratio": 0.7}))
    )
    with pytest.raises(DataError, match=f"fingerprint {more.fingerprint}.*got those of {mine.fingerprint}"):
        references(more)


def test_a_set_without_references_says_so(mine: InstanceSet):
    with pytest.raises(DataError, match=r"in mine\.parquet, found no such file"):
        reference(mine, "low")
    references_file(mine).write_bytes(b"nothing")
    with pytest.raises(DataError, match="expected references, got"):
        reference(mine, "low")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table.replace_schema_metadata({}), "no entry b'atesd references'"),
        (lambda table: table.replace_schema_metadata({b"atesd references": b"["}), "got something else"),
        (lambda table: table.replace_schema_metadata({b"atesd references": b"[]"}), "got something else"),
        (lambda table: table.drop_columns(["mean"]), "no entry 'mean'"),
        (lambda table: table.set_column(3, "mean", pa.array(["x"] * len(table))), "in the column mean"),
        (
            lambda table: pa.table(
                {**{name: table[name] for name in COLUMNS}, "instance": [1] * len(table)}
            ).replace_schema_metadata({_CARD: table.schema.metadata[_CARD]}),
            "int64 in the column instance",
        ),
    ],
)
def test_a_damaged_file_is_refused_by_name(change: Any, reason: str, mine: InstanceSet):
    write_references(mine, frame(), **CARD)
    pq.write_table(change(pq.read_table(references_file(mine))), references_file(mine))
    with pytest.raises(
        DataError, match=r"mine\.parquet: expected references, got .*" + re.escape(reason.removeprefix("got "))
    ):
        reference(mine, "low")


def test_what_is_written_must_be_whole(mine: InstanceSet):
    with pytest.raises(ConfigError, match=r"expected the columns instance, .*got the columns"):
        write_references(mine, frame().drop(columns="seeds"), **CARD)
    with pytest.raises(ConfigError, match="expected the card what, command"):
        write_references(mine, frame(), what="x")
    with pytest.raises(ConfigError, match="did you mean 'high'"):
        write_references(mine, frame().replace("high", "hihg"), **CARD)
    assert not references_file(mine).exists()
