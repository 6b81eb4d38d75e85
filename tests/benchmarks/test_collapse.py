"""Which columns see a student break: the first window out of the healthy range, against the window in which it broke."""

from __future__ import annotations

import pandas as pd

from benchmarks.collapse import CONTROLLERS, SIGNS, alarms, ends


def test_a_lead_is_counted_from_the_alarm_to_the_break():
    quiet = dict.fromkeys(SIGNS, 0.5)
    healthy = pd.DataFrame([{"run": 0, "window": window, **quiet} for window in (1, 2, 3)])
    loud = "student/mismatch"
    told = {0: (0.5, 0.6, 0.6), 1: (0.6, 0.5, 0.5), 2: (0.5, 0.5, 0.5)}  # alarms in window 2, in window 1, and never
    nll = {0: (1.0, 1.2, 2.1), 1: (1.0, 2.1, 3.0), 2: (1.0, 1.0, 2.1)}  # breaks in windows 3, 2 and 3
    rows = [
        {
            "run": run,
            "window": window + 1,
            "before": 1.0,
            "probe/nll": nll[run][window],
            **quiet,
            loud: told[run][window],
        }
        for run in told
        for window in range(3)
    ]
    found = alarms(pd.DataFrame(rows), healthy)
    assert found["broke_in_window"] == [3, 2, 3]
    assert found["columns"][loud]["silent"] == 1
    assert found["columns"][loud]["lead"]["mean"] == 1.0
    assert found["columns"]["student/entropy"] == {"lead": None, "silent": 3}
    whole = alarms(pd.DataFrame(rows).assign(**{"probe/nll": 2.0}), healthy)
    assert whole["broke_in_window"] == [], "one nat is not above one nat"


def test_a_controllers_runs_break_or_end_above_the_base():
    """The second seed of the first controller breaks in its second window, and recovers; another's never do."""
    rises = {
        name: [(0.0, 0.5, 0.25), (0.5, 1.5, 0.75)] if name == CONTROLLERS[0] else [(0.0, 0.0, 0.0)] * 2
        for name in CONTROLLERS
    }
    rows = [
        {
            "agent": name,
            "seed": seed,
            "window": window + 1,
            "probe/nll": 2.0 + rise,
            "probe/nll_before": None if window else 2.0,
        }
        for name, runs in rises.items()
        for seed, run in enumerate(runs)
        for window, rise in enumerate(run)
    ]
    found = ends(pd.DataFrame(rows))
    assert found[CONTROLLERS[0]]["broke_in_window"] == [None, 2]
    assert found[CONTROLLERS[0]]["rise"]["mean"] == 0.5
    assert found[CONTROLLERS[0]]["difference"] is None
    assert found[CONTROLLERS[1]]["broke_in_window"] == [None, None]
    assert found[CONTROLLERS[1]]["difference"]["mean"] == -0.5
