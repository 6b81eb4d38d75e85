"""The campaign of faults finds what is planted, of every kind, and nothing in a handful of its own cases."""

from __future__ import annotations

import json
import sys

from benchmarks.faults.oracle import RIGHT, WRONG
from tests.programs import ROOT, ran

PLANTED = """
import json, os, sys, tempfile, time
from functools import partial
from pathlib import Path
import torch
from atesd_env.errors import ConfigError
from benchmarks.faults.oracle import Attempt, run_case

torch.set_num_threads(1)

def refuses(message):
    raise ConfigError(message)

def overwrites():
    os.replace(Path("../outside/notes.txt"), Path("../outside/config.json"))

acts = {
    "a KeyError": lambda: {}["x"],
    "a traceback on stderr": lambda: print("Traceback (most recent call last):\\n", file=sys.stderr),
    "another result": lambda: 2,
    "the result": lambda: 1,
    "an error that names the file": partial(refuses, "rows.jsonl: expected rows"),
    "an error that names nothing": partial(refuses, "expected rows"),
    "a wait": partial(open, "pipe"),
    "an escape": lambda: [print("\\x1b[31m"), 1][1],
    "a file of others": overwrites,
    "an end": lambda: os._exit(3),
    "memory": lambda: len(bytearray(1 << 40)),
}

def case(name, rng, folder):
    os.mkfifo(folder / "pipe")
    return Attempt("planted", name, acts[name], same_as=1, names=("rows.jsonl",))

with tempfile.TemporaryDirectory() as root:
    print(json.dumps({name: run_case(f"planted:0:{name}", partial(case, name), Path(root), 9).verdict for name in acts}))
"""

CAMPAIGN = """
import sys
from benchmarks.faults import __main__ as campaign

campaign.KINDS = {name: (*kind[:2], 4) for name, kind in campaign.KINDS.items()}
outcomes = campaign.campaign(0, seed=0, kinds=list(campaign.KINDS))
assert all(campaign.tried(kind, found) >= 4 for kind, found in outcomes.items())
sys.exit(bool(campaign.summary(outcomes)["failures"]))
"""

BROKEN_READERS = """
import dataclasses, json
from analysis import AnalysisError
from benchmarks.faults import __main__ as campaign, damages, subjects

(runs,) = (subject for subject in subjects.SUBJECTS if subject.name == "runs")
sound = runs.uses["load_runs"]
campaign.KINDS = {"damages": (*campaign.KINDS["damages"][:2], 8)}

def raises():
    raise KeyError("window")

def found(plant):
    def broken(folder):
        try:
            return sound.act(folder)
        except AnalysisError:
            return plant()

    damages.SUBJECTS = (dataclasses.replace(runs, uses={"load_runs": dataclasses.replace(sound, act=broken)}),)
    outcomes = campaign.campaign(0, seed=0, kinds=["damages"])
    wrong = {one.verdict for one in outcomes["damages"] if not one.is_right}
    return [*wrong, bool(campaign.summary(outcomes)["failures"])]

print(json.dumps([found(dict), found(raises)]))
"""


def test_what_is_planted_is_found():
    done = ran(sys.executable, "-c", PLANTED)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "a KeyError": "raw traceback",
        "a traceback on stderr": "raw traceback",
        "another result": "silently accepted",
        "the result": "same",
        "an error that names the file": "refused",
        "an error that names nothing": "file not named",
        "a wait": "hang",
        "an escape": "control characters",
        "a file of others": "foreign file touched",
        "an end": "died",
        "memory": "raw traceback",
    }


def test_a_campaign_fails_where_a_reader_is_broken():
    done = ran(sys.executable, "-c", BROKEN_READERS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [["silently accepted", True], ["raw traceback", True]]


def test_a_handful_of_each_kind_is_survived():
    done = ran(sys.executable, "-c", CAMPAIGN)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_committed_campaign_was_long_enough_and_found_nothing():
    result = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text())
    least = {"kills": 100, "damages": 500, "inputs": 2000}
    assert all(result["tried"][kind] >= number for kind, number in least.items())
    assert result["survived"] == result["tried"]
    assert result["failures"] == []
    assert result["wrong"] == dict.fromkeys(WRONG, 0)
    assert {verdict for line in result["lines"] for verdict in line["verdicts"]} <= {*RIGHT}
