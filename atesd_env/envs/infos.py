"""Infos in Gymnasium's vector form: an array [S] for each name, and beside it a bool mask ``_name``, where it was measured.

Gymnasium's own collector takes an array's type from the first value that it meets, which may be None here. So types are
fixed: integers stay integers (0 where masked), texts are objects (None), everything else is float64 (NaN).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atesd_env.envs.columns import COLUMNS, MAY_BE_NULL

Infos = dict[str, NDArray[Any]]
"""Name -> what S students have there, and ``_name`` -> whether they have it."""

INTEGERS = frozenset({column.name for column in COLUMNS if column.type == "int"} | {"seed"})
"""Names of whole numbers."""

_TEXTS = {"termination_reason", "instance"}


def vector_infos(infos: Sequence[Mapping[str, Any]]) -> Infos:
    """Returns the infos of S students in the vector form.

    >>> vector_infos([{"probe/accuracy": None}, {"probe/accuracy": 0.5}])
    {'probe/accuracy': array([nan, 0.5]), '_probe/accuracy': array([False,  True])}
    """
    collected: Infos = {}
    for name in dict.fromkeys(name for info in infos for name in info):
        values = [info.get(name) for info in infos]
        if name in _TEXTS:
            array: NDArray[Any] = np.array(values, dtype=object)
        elif name in INTEGERS:
            array = np.array([0 if value is None else value for value in values], dtype=np.int64)
        else:
            array = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        collected[name] = array
        collected[f"_{name}"] = np.array([value is not None for value in values])
    return collected


def column_infos(columns: Mapping[str, NDArray[Any]]) -> Infos:
    """Returns columns of S students, [S] each and NaN where nothing was measured, in the vector form; they are not copied."""
    infos: Infos = {}
    masks = np.ones((len(columns), len(columns["probe/nll"])), dtype=np.bool_)
    for (name, values), mask in zip(columns.items(), masks, strict=True):
        infos[name] = values
        infos[f"_{name}"] = ~np.isnan(values) if name in MAY_BE_NULL else mask
    return infos


def spread(infos: Sequence[tuple[Sequence[int], Mapping[str, NDArray[Any]]]], num_students: int) -> Infos:
    """Returns the infos of all K students, put together from the vector form of some and of others.

    Args:
        infos: (students, their infos: arrays [S], with masks).
        num_students: K.
    """
    if len(infos) == 1 and len(infos[0][0]) == num_students:
        return dict(infos[0][1])
    whole: Infos = {}
    for students, part in infos:
        places = np.asarray(students)
        for name, values in part.items():
            if name not in whole:
                blank = {"f": np.nan, "O": None}.get(values.dtype.kind, 0)
                whole[name] = np.full(num_students, blank, dtype=values.dtype)
            whole[name][places] = values
    return whole
