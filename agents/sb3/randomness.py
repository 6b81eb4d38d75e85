"""The global random generators, lent to one agent at a time.

Stable-Baselines3 draws from the global generators of Python, numpy and torch, and its seed sets them. Here each agent has
their states for itself: it puts them in place while it works and takes them away afterwards. So two agents in one process do
not disturb each other, a seed gives the same agent whatever ran before, and the caller's generators stay as they were.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray


class _States(NamedTuple):
    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    torch: torch.Tensor


class PrivateGenerators:
    """The states of the global generators that belong to one agent; at first those of the caller.

    Generators of a GPU are left alone.
    """

    def __init__(self) -> None:
        self._states = _read()
        self._is_lent = False

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Makes the global generators this agent's, for the time of a ``with`` block; blocks may be nested."""
        if self._is_lent:
            yield
            return
        outside = _read()
        _write(self._states)
        self._is_lent = True
        try:
            yield
        finally:
            self._is_lent = False
            self._states = _read()
            _write(outside)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Returns the states as arrays, for ``set_arrays``."""
        states = _read() if self._is_lent else self._states
        version, words, gauss = states.python
        _, keys, position, has_gauss, cached_gauss = states.numpy
        return {
            "python": np.asarray(words, dtype=np.uint64),
            "python_gauss": np.asarray([version, np.nan if gauss is None else gauss], dtype=np.float64),
            "numpy": np.asarray(keys, dtype=np.uint32),
            "numpy_gauss": np.asarray([position, has_gauss, cached_gauss], dtype=np.float64),
            "torch": states.torch.numpy().copy(),
        }

    def set_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Takes over what ``arrays`` returned.

        Raises:
            ValueError, TypeError, OverflowError, LookupError, RuntimeError: If it is something else.
        """
        version, gauss = arrays["python_gauss"].tolist()
        position, has_gauss, cached_gauss = arrays["numpy_gauss"].tolist()
        states = _States(
            (int(version), tuple(arrays["python"].tolist()), None if np.isnan(gauss) else gauss),
            ("MT19937", arrays["numpy"].astype(np.uint32), int(position), int(has_gauss), cached_gauss),
            torch.from_numpy(arrays["torch"].copy()),
        )
        outside = _read()
        try:
            _write(states)  # which finds out what is odd
        finally:
            _write(outside)
        self._states = states


def _read() -> _States:
    return _States(random.getstate(), np.random.get_state(), torch.get_rng_state())  # type: ignore[arg-type]  # noqa: NPY002


def _write(states: _States) -> None:
    random.setstate(states.python)
    np.random.set_state(states.numpy)  # noqa: NPY002
    torch.set_rng_state(states.torch)
