"""Instance sets: what their files say, what is refused by name, and that they need no torch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from atesd_env.bench import SEEDS, InstanceSet, split_of_seed
from atesd_env.config import EnvConfig, preset
from atesd_env.errors import ConfigError, DataError
from tests.atesd_env.bench.sets import toy_set


def content(**changes: Any) -> dict[str, Any]:
    whole = {
        "format_version": 1,
        "name": "mine",
        "version": "2",
        "description": "Mine.",
        "env": "ATESD-Tiny-v0",
        "fields": {"windows": 5, "probe_size": 7},
        "instances": [
            {"id": "easy", "split": "train", "why": "Easy.", "fields": {"max_addends": 4, "windows": 7}},
            {"id": "hard", "split": "test", "why": "Hard.", "fields": {"min_addends": 5, "groups": 1}},
        ],
    }
    return {**whole, **changes}


def instance(**changes: Any) -> dict[str, Any]:
    return {"id": "easy", "split": "train", "why": "Easy.", "fields": {}, **changes}


def test_an_instance_is_the_environments_configuration_with_the_sets_fields_and_its_own():
    found = InstanceSet.from_content(content())
    common: dict[str, Any] = {"windows": 5, "probe_size": 7, "progress": "signed"}
    assert found.config("hard") == preset("ATESD-Tiny-v0", **common, min_addends=5)
    assert found.config("easy", progress="positive") == EnvConfig(
        **common | {"windows": 7, "progress": "positive", "max_addends": 4}
    )
    assert (found.groups, found.windows, len(found)) == (1, 7, 2)
    assert [one.id for one in found.of("test")] == ["hard"]
    with pytest.raises(
        ConfigError, match=r"split: expected one that .* has instances in \(train, test\), got 'validation'"
    ):
        found.of("validation")


def test_a_set_comes_back_from_its_file(tmp_path: Path):
    mine = toy_set()
    mine.save(tmp_path / "mine.json")
    for back in (InstanceSet.from_file(tmp_path / "mine.json"), InstanceSet.load(tmp_path / "mine.json")):
        assert back == mine
        assert back.fingerprint == mine.fingerprint


def test_the_fingerprint_is_that_of_what_a_run_depends_on():
    mine = InstanceSet.from_content(content())
    words = dataclasses.replace(mine, description="Other words.", name="other")
    assert words.fingerprint == mine.fingerprint
    changed = content()
    changed["instances"][0]["fields"]["max_addends"] = 5
    others = [content(fields={"windows": 5}), content(env="ATESD-SmolLM2-135M-v0"), changed]
    assert len({InstanceSet.from_content(one).fingerprint for one in (content(), *others)}) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instances": []}, "expected at least one instance, got none"),
        ({"instances": [instance(), instance()]}, "expected each id once, got 'easy' twice"),
        ({"instances": [instance(id="Über")]}, "expected an id of a-z, 0-9"),
        ({"instances": [instance(split="trian")]}, "expected a split out of .*, got 'trian'"),
        ({"instances": [instance(why=" ")]}, "expected a sentence on why it is there"),
        (
            {"instances": [instance(fields={"lerning_rate": 1.0})]},
            "'easy': lerning_rate: .* did you mean 'learning_rate'",
        ),
        (
            {"instances": [instance(fields={"toy_noise": 1.0})]},
            "'easy': toy_noise: expected a field of a language model",
        ),
        ({"instances": [instance(fields={"windows": 0})]}, r"'easy': windows: expected a number in \[1"),
        ({"instances": [instance(fields={"windows": 101})]}, "'easy': expected windows up to 100, .* got 101"),
        ({"instances": [instance(fields={"gamma": 0.5})]}, "got gamma, of the reward; give it to"),
        (
            {"instances": [instance(fields={"engine_retries": 1})]},
            "got engine_retries: all of them are carried out alike",
        ),
        ({"fields": {"progress": "positive"}}, "got progress, of the reward"),
        ({"env": "ATESD-Bench-v0"}, "expected an environment whose configuration says everything"),
        ({"env": "ATESD-Toi-v0"}, "did you mean 'ATESD-Toy-v0'"),
        ({"fields": {"windoes": 3}}, "windoes: expected the name of a configuration field"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        InstanceSet.from_content(content(**changes), "mine.json")
    assert str(caught.value).startswith("mine.json")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ([], "expected an object with format_version, .*, got list"),
        (content(instnaces=[]), "got 'instnaces'; did you mean 'instances'"),
        ({name: value for name, value in content().items() if name != "env"}, "got none for env; add them"),
        (content(format_version=2), "expected format_version 1, got 2"),
        (content(instances={}), "expected a list of instances"),
        (content(fields=None), "expected fields as an object, got None"),
        (content(instances=[{"id": "easy"}]), "instance 1: .* got none for split, why, fields"),
        (content(instances=["easy"]), "instance 1: expected an object"),
    ],
)
def test_what_is_no_instance_set_is_refused(told: Any, message: str, tmp_path: Path):
    (tmp_path / "mine.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match=message):
        InstanceSet.from_file(tmp_path / "mine.json")


def test_files_that_cannot_be_read_and_names_of_none():
    with pytest.raises(DataError, match=r"absent\.json: expected an instance set, got 'No such file"):
        InstanceSet.load("absent.json")
    with pytest.raises(ConfigError, match="did you mean 'atesd-bench'"):
        InstanceSet.load("atesd-bensh")
    with pytest.raises(DataError, match="expected an instance set, got something else"):
        InstanceSet.from_file(Path(__file__))


def test_splits_of_seeds_have_nothing_in_common():
    assert [split_of_seed(seed) for seed in (0, 9_999, 10_000, 19_999, 20_000, 29_999, 30_000)] == [
        *("train", "train", "validation", "validation", "test", "test"),
        None,
    ]
    assert [len(seeds) for seeds in SEEDS.values()] == [10_000] * 3


def test_instance_sets_need_no_torch():
    program = "import sys; from atesd_env.bench import InstanceSet; InstanceSet.load('atesd-bench'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
