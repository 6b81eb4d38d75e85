"""Tables that were measured on an instance set: Parquet files whose metadata is their card.

A card says what the table holds, the command and the commit that made it, its licence, and the fingerprint of the set that it was
measured on. Numbers of another version of a set are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from atesd_env.bench.instances import InstanceSet
from atesd_env.errors import ConfigError, DataError
from atesd_env.files.atomic import write_atomically
from atesd_env.files.reading import json_value, open_regular, reading

CARD_ENTRIES = ("what", "command", "commit", "licence")
"""What a table's maker says of it."""


def write_measured(
    path: Path, key: bytes, instances: InstanceSet, frame: pd.DataFrame, card: Mapping[str, str]
) -> None:
    """Writes a table with its card.

    Args:
        path: The file.
        key: Of the card in the file's metadata.
        instances: The set that the table was measured on.
        frame: The table; its column instance names instances of the set.
        card: ``CARD_ENTRIES``.

    Raises:
        ConfigError: If an entry of the card or an instance is missing or unknown.
        RunFilesError: If the file cannot be written.
    """
    if sorted(card) != sorted(CARD_ENTRIES):
        raise ConfigError(
            f"card: expected the card {', '.join(CARD_ENTRIES)}, got {', '.join(card) or 'nothing'}; pass exactly these."
        )
    for instance_id in frame["instance"].unique():
        instances[instance_id]  # raises, and suggests the nearest
    table = pa.Table.from_pandas(frame, preserve_index=False)
    told = json.dumps(
        {**card, "set": instances.name, "version": instances.version, "fingerprint": instances.fingerprint}
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), key: told.encode()}), sink)
    write_atomically(path, sink.getvalue().to_pybytes())
    read_measured.cache_clear()


@lru_cache(maxsize=8)
def read_measured(path: Path, key: bytes, what: str, fingerprint: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Returns a table and its card, which are the cache's: copy what is changed.

    Args:
        path: The file.
        key: Of the card in the file's metadata.
        what: What messages call the table.
        fingerprint: Of the set that it must have been measured on.

    Raises:
        DataError: If there is no such file, it cannot be read, or its numbers are of another version of the set.
    """
    if not path.exists():
        raise DataError(
            f"{what}: expected those of this set in {path.name}, found no such file; make runs of your own (atesd bench run) and read "
            "them with analysis.load_runs."
        )
    with reading(path, what, DataError):
        with open_regular(path) as file:
            table = pq.read_table(pa.BufferReader(file.read()))
        frame, card = table.to_pandas(), json_value((table.schema.metadata or {})[key])
        if card["fingerprint"] != fingerprint:
            raise DataError(
                f"{path}: expected {what} of this set (fingerprint {fingerprint}), got those of {card['fingerprint']}; take the "
                "version that they were measured on, or measure them again."
            )
    return frame, card
