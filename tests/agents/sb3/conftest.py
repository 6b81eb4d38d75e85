"""A student that breaks in the middle of its run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from atesd_env.envs.contract import Students
from atesd_env.simulated.toy_population import ToyPopulation, ToyState


@pytest.fixture
def breaks_in_window_two(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the run of a given seed break in its second window: it is terminated there."""

    def let(seed: int) -> None:
        broken = lambda run: "broke in a test" if run.seed == seed and len(run.rows) == 2 else None  # noqa: E731
        monkeypatch.setattr(ToyState, "broken", property(broken))
        # A closed form never breaks, and has faster ways that do not ask: they are taken from it.
        monkeypatch.setattr(ToyPopulation, "window_results", Students.window_results)
        monkeypatch.setattr(ToyPopulation, "window_result", Students.window_result)

    return let
