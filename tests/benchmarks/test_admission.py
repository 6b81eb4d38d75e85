"""The rule of admission on made-up runs: what is informative, what signals cost, what one ratio misses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.admission import SIGNALS, admitted, single_ratio
from benchmarks.ratios_side_by_side import RATIOS


def runs(accuracy: dict[float, float], noise: float = 0.01, **signals: dict[float, float]) -> list[dict[str, Any]]:
    """Runs at each fixed ratio, and at random ones, on eight seeds; a signal that is not given is the accuracy."""
    rng = np.random.default_rng(0)
    made = []
    for seed in range(8):
        for ratio in RATIOS:
            first = {column: [signals.get(column, accuracy)[ratio]] for column, _ in SIGNALS.values()}
            made.append(
                {
                    "schedule": f"fixed:{ratio:g}",
                    "seed": seed,
                    "accuracy": accuracy[ratio] + rng.normal(0, noise),
                    **first,
                }
            )
        made.append({"schedule": "random", "seed": seed, "accuracy": 0.3})
    return made


def by_ratio(*values: float) -> dict[float, float]:
    return dict(zip(RATIOS, values, strict=True))


def test_an_instance_is_informative_by_its_spread_and_its_interval():
    wide = admitted(runs(by_ratio(0.2, 0.5, 0.6, 0.4, 0.1)))
    assert (wide["best_fixed"], wide["worst_fixed"], wide["is_informative"]) == (0.5, 1.0, True)
    assert wide["best_minus_worst"]["mean"] == pytest.approx(0.5, abs=0.02)
    assert wide["best_minus_worst"]["low"] < 0.5 < wide["best_minus_worst"]["high"]
    assert wide["random"]["mean"] == pytest.approx(0.3)
    assert not admitted(runs(by_ratio(0.20, 0.22, 0.25, 0.23, 0.21)))["is_informative"], "sure, but small"
    assert not admitted(runs(by_ratio(0.2, 0.3, 0.35, 0.3, 0.2), noise=0.3))["is_informative"], "large, but not sure"


def test_a_signal_costs_what_its_choice_misses():
    misleading = {"student/mismatch": by_ratio(0.1, 0.5, 0.6, 0.7, 0.8), "probe/nll": by_ratio(9.0, 9.0, 1.0, 9.0, 9.0)}
    told = admitted(runs(by_ratio(0.2, 0.5, 0.6, 0.4, 0.1), **misleading))["signals"]
    assert told["lowest mismatch"]["ratio"] == 0.0
    assert told["lowest mismatch"]["loss"]["mean"] == pytest.approx(0.4, abs=0.02)
    assert (told["lowest probe NLL"]["ratio"], told["lowest probe NLL"]["loss"]["mean"]) == (0.5, 0.0)


def test_one_ratio_misses_what_instances_ask_for_apart():
    low, high = (admitted(runs(by_ratio(*means), noise=0.0)) for means in ((0.8, 0, 0, 0, 0.1), (0.2, 0, 0, 0, 0.7)))
    assert single_ratio([low, high]) == pytest.approx(
        {"ratio": 0.0, "accuracy": 0.5, "best_of_each": 0.75, "gap": 0.25}
    )
