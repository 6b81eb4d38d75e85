"""Infos in Gymnasium's vector form: an array [S] for each name, and beside it a bool mask ``_name``, where it was measured.

Gymnasium's own collector takes an array's type from the first value that it meets, which may be None here. So types are
fixed: integers stay integers (0 where masked), texts are objects (None), everything else is float64 (NaN).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atesd_env.envs.columns import COLUMNS, MAY_BE_NULL

Infos = dict[str, NDArray[Any]]
"""Name -> what S students have there, and ``_name`` -> whether they have it."""


class Lazy(dict[str, Any]):
    """A dictionary in which values that are a ``functools.partial`` are made when they are first read, by calling them with their name.

    >>> infos = Lazy({"seed": 7, "length": partial(len), "unread": partial(int)})
    >>> infos["seed"], infos["length"], "unread" in infos
    (7, 6, True)
    """

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if isinstance(value, partial):
            value = self[name] = value(name)
        return value

    def __iter__(self) -> Iterator[str]:
        # Overridden so that dict(lazy) and {**lazy} read each value, and do not copy what is inside.
        return super().__iter__()

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a value, made if need be, or the default."""
        return self[name] if name in self else default  # noqa: SIM401 (it would ask itself)

    def pop(self, name: str, *default: Any) -> Any:
        """Takes a value out, made if need be, and returns it."""
        if name in self:
            self[name]
        return super().pop(name, *default)

    def items(self) -> Any:
        """Returns names and values, all of them made."""
        self._make_all()
        return super().items()

    def values(self) -> Any:
        """Returns all values, made."""
        self._make_all()
        return super().values()

    def copy(self) -> dict[str, Any]:
        """Returns a plain dictionary of all values, made."""
        return dict(self)

    def __or__(self, other: Any) -> Any:
        return dict(self) | other

    def __ror__(self, other: Any) -> Any:
        return other | dict(self)

    def __eq__(self, other: object) -> bool:
        return dict(self) == other

    __hash__ = None

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    def _make_all(self) -> None:
        for name in self:
            self[name]


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


def column_infos(columns: Mapping[str, Any], num_students: int) -> Infos:
    """Returns columns of S students, [S] each and NaN where nothing was measured, in the vector form.

    They are read, and copied, when somebody reads them; until then they must stay as they are.
    """
    names = [name for column in columns for name in (column, f"_{column}")]
    return Lazy(dict.fromkeys(names, partial(_info, columns, num_students)))


def _info(columns: Mapping[str, Any], num_students: int, name: str) -> NDArray[Any]:
    if not name.startswith("_"):
        return np.array(columns[name], ndmin=1)
    if name[1:] in MAY_BE_NULL:
        return np.asarray(~np.isnan(np.array(columns[name[1:]], ndmin=1)))
    return np.ones(num_students, np.bool_)


def student_infos(infos: Infos, num_students: int) -> list[dict[str, Any]]:
    """Returns an info for each of K students, of plain Python values and None for what it lacks, made of ``infos`` when it is read."""
    names = [name for name in infos if f"_{name}" in infos]
    return [Lazy(dict.fromkeys(names, partial(_one, infos, index))) for index in range(num_students)]


def _one(infos: Infos, index: int, name: str) -> Any:
    value = infos[name][index]
    return None if not infos[f"_{name}"][index] else value.item() if isinstance(value, np.generic) else value


def spread(infos: Sequence[tuple[Sequence[int], Infos]], num_students: int) -> Infos:
    """Returns the infos of all K students, put together from the vector form of some and of others when they are read.

    Args:
        infos: (students, their infos: arrays [S], with masks).
        num_students: K.
    """
    if len(infos) == 1 and len(infos[0][0]) == num_students:
        return infos[0][1]
    names = dict.fromkeys(name for _, part in infos for name in part)
    return Lazy(dict.fromkeys(names, partial(_spread, infos, num_students)))


def _spread(infos: Sequence[tuple[Sequence[int], Infos]], num_students: int, name: str) -> NDArray[Any]:
    parts = [(students, part[name]) for students, part in infos if name in part]
    kind = parts[0][1].dtype
    whole = np.full(num_students, {"f": np.nan, "O": None}.get(kind.kind, 0), dtype=kind)
    for students, values in parts:
        whole[np.asarray(students)] = values
    return whole
