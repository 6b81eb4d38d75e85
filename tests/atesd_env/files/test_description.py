"""The one answer to "does this folder hold what was asked for"."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from atesd_env.config import preset
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.description import check_same, read_description


def test_what_was_asked_for_goes_on(tmp_path: Path):
    (tmp_path / "run.json").write_text(json.dumps({"seed": 1, "versions": {"numpy": "1"}, "adapters": {}}))
    there = read_description(tmp_path / "run.json", "run", ["adapters"])
    check_same(tmp_path, "run", there, {"seed": 1, "env_file": None})


def test_everything_that_differs_is_named_with_both_values(tmp_path: Path):
    config = json.loads(json.dumps(dataclasses.asdict(preset("ATESD-Tiny-v0"))))  # tuples as lists
    with pytest.raises(ConfigError) as caught:
        check_same(
            tmp_path,
            "training",
            {"seed": 1, "agent": "beta", "config": config},
            {"seed": 2, "agent": "beta", "env_id": "x", "config": {**config, "windows": 7}},
        )
    message = str(caught.value)
    assert f"{tmp_path}: expected the training that was begun there" in message
    windows = preset("ATESD-Tiny-v0").windows
    assert f"seed (1 there, 2 now), env_id (None there, 'x' now), windows ({windows} there, 7 now);" in message
    assert "agent" not in message


@pytest.mark.parametrize("content", ["[]", "{", "7", '{"adapters": []}', '{"adapters": {}'])
def test_something_else_is_refused(tmp_path: Path, content: str):
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(RunFilesError, match="expected an evaluation's description, got something else"):
        read_description(tmp_path / "evaluation.json", "evaluation", ["adapters"])


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(RunFilesError, match=r"config\.json: expected a readable file"):
        read_description(tmp_path / "config.json", "run")
