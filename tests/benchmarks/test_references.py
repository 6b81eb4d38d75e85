"""What references are made of: agents that are complete, and the fixed ratio that was best elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis.bench import AREA, MEASURES
from atesd_env.bench import InstanceSet
from benchmarks import references
from benchmarks.references import BEST_FIXED, SEARCH_WITHIN, admitted_outcomes, complete, with_best_fixed, with_grid
from tests.atesd_env.bench.sets import toy_set


def rows(*runs: tuple[str, str, int]) -> pd.DataFrame:
    """One row for each run of an instance, an agent and a seed."""
    frame = pd.DataFrame(runs, columns=["instance", "agent", "seed"])
    return frame.assign(run=frame["instance"] + "/" + frame["agent"] + frame["seed"].astype(str))


def test_who_lacks_a_run_of_its_split_is_left_out_and_named(capsys: pytest.CaptureFixture[str]):
    whole = rows(("low", "a", 0), ("high", "a", 0), ("other", "b", 20_000))
    found = complete(toy_set(), pd.concat([whole, rows(("low", "c", 0))], ignore_index=True))
    assert found["run"].tolist() == whole["run"].tolist()
    assert capsys.readouterr().out == "left out: c, which lacks runs that another agent has\n"


def test_a_search_within_runs_may_have_fewer_seeds_and_instances(capsys: pytest.CaptureFixture[str]):
    runs = rows(("low", "a", 0), ("low", "a", 1), ("high", "a", 0), ("low", SEARCH_WITHIN, 0), ("low", "c", 0))
    assert set(complete(toy_set(), runs)["agent"]) == {"a", SEARCH_WITHIN}
    assert capsys.readouterr().out == "left out: c, which lacks runs that another agent has\n"


def test_of_fixed_ratios_that_show_as_much_one_is_run():
    """Sums of six have five steps, of which 0.9 and 0.8 show four, 0.7 and 0.6 three; sums of four and five three and four."""
    packaged = InstanceSet.load("atesd-bench")
    runs = [
        ("none-6", "fixed:0.9"),
        ("slip_terse-mixed", "fixed:0.9"),
        ("none-6", "fixed:0.7"),
        ("slip_terse-mixed", "fixed:0.5"),
    ]
    frame = rows(*((instance, agent, 20_000) for instance, agent in runs))
    found = with_grid(packaged, complete(packaged, frame, may_lack=("fixed:",)))
    shown = {name: part["run"].tolist() for name, part in found.groupby("agent")}
    assert shown == {
        "fixed:0.6": ["none-6/fixed:0.720000 as fixed:0.6", "slip_terse-mixed/fixed:0.520000 as fixed:0.6"],
        "fixed:0.75": ["none-6/fixed:0.720000 as fixed:0.75", "slip_terse-mixed/fixed:0.920000 as fixed:0.75"],
        "fixed:0.8": [f"{name}/fixed:0.920000 as fixed:0.8" for name in ("none-6", "slip_terse-mixed")],
        "fixed:0.9": ["none-6/fixed:0.920000", "slip_terse-mixed/fixed:0.920000"],
    }


def test_the_ratio_that_was_best_elsewhere_is_told_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of the ratios that were run: the best one elsewhere, 0.25, was not."""
    means = {"0": {"mean": 0.5}, "0.25": {"mean": 0.9}, "1": {"mean": 0.6}}
    (tmp_path / "admission.json").write_text(json.dumps({"instances": {"low": {"accuracy": means}}}))
    monkeypatch.setattr(references, "RESULTS", tmp_path)
    frame = rows(("low", "fixed:0", 7), ("low", "fixed:1", 7), ("low", "random", 7))
    found = with_best_fixed(frame)
    assert found["agent"].tolist() == [*frame["agent"], BEST_FIXED]
    assert found["run"].tolist()[3] == f"low/fixed:17 as {BEST_FIXED}"
    none = frame[frame["agent"] == "random"]
    assert with_best_fixed(none)["agent"].tolist() == ["random"], "nothing was fixed there"


def test_runs_of_the_admission_are_outcomes_of_the_bench():
    """Tokens of a window are the mean length times its rollouts, a whole number; the area is that of the trapezoidal rule."""
    found = admitted_outcomes(InstanceSet.load("atesd-bench")).set_index(["instance", "agent", "seed"])
    one = found.loc[("none-4", "fixed:0", 0)]
    lengths, nll = (
        [31.9844, 38.4219, 33.3906, 34.6875, 35.0469, 35.1094],
        [0.3353, 0.1711, 0.0288, 0.0206, 0.0173, 0.0143],
    )
    assert one["num_tokens"] == sum(round(64 * length) for length in lengths)
    assert one[AREA] == pytest.approx((sum(nll) - (nll[0] + nll[-1]) / 2) / 5)
    assert (one[MEASURES[0]], one["num_updates"]) == (0.838, 24)
