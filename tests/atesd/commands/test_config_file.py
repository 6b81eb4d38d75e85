"""A command given as a file: written by a command, by hand, or by a run itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atesd.commands import cli
from atesd.commands.config_file import with_file
from atesd_env.errors import ConfigError, RunFilesError
from tests.runs import rows_of


def test_flags_go_before_the_file(tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text("env: ATESD-Toy-v0\nseeds: [1, 2]\ntoy_noise: 0.5\nquiet: true\nresume: false\nwindows: 3\n")
    typed = ["--config", str(file), "--seeds", "7", "--toy-noise=0", "--no-quiet"]
    assert with_file(typed) == ["--env", "ATESD-Toy-v0", "--no-resume", "--windows", "3", *typed]
    assert with_file(["--seeds", "7"]) == ["--seeds", "7"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1", "expected names and values, got"),
        ("1: 2", "expected names and values, got"),
        ("agent: {beta: 1}", "expected a plain value or a list of them for 'agent'"),
        ("a: [", "expected YAML or JSON"),
        ("a: !!python/object/apply:os.system [exit]", "expected YAML or JSON"),
    ],
)
def test_what_is_no_command_is_refused(content: str, message: str, tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        with_file(["--config", str(file)])
    with pytest.raises(RunFilesError, match=r"none\.yaml: expected a command's file"):
        with_file([f"--config={tmp_path / 'none.yaml'}"])
    with pytest.raises(ConfigError, match="config: expected a file behind --config, got none"):
        with_file(["--config", "--seeds"])


def test_a_saved_command_and_a_runs_own_file_make_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    toy = [
        "--env",
        "ATESD-Toy-v0",
        "--agent",
        "random",
        "--windows",
        "3",
        "--seeds",
        "4",
        "--toy-noise",
        "0.2",
        "--quiet",
    ]
    cli.main(["run", *toy, "--out", "first", "--save-config", "run.yaml"])
    assert not Path("first").exists(), "it is written, and nothing is run"
    cli.main(["run", "--config", "run.yaml", "--quiet"])
    cli.main(["run", "--config", "first/random-seed4/config.json", "--out", "second", "--quiet"])
    cli.main(["run", "--config", "run.yaml", "--out", "third", "--seeds", "5", "--quiet"])
    first, second = (json.loads(Path(f"{name}/random-seed4/config.json").read_text()) for name in ("first", "second"))
    assert first == second
    assert first["config"]["toy_noise"] == 0.2
    columns = ("exposure/reveal_ratio", "probe/nll")
    rows = [
        [row[name] for name in columns for row in rows_of(Path(f"{out}/random-seed4"))] for out in ("first", "second")
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 6
    assert [path.name for path in Path("third").iterdir() if path.is_dir()] == ["random-seed5"]


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]):
    cli.main(["--version"])
    assert capsys.readouterr().out == "atesd-env 0.1.0\n"


def test_a_mistyped_verb_is_answered_in_a_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["compar"])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.count("\n") == 1
    assert error.endswith("got 'compar'; did you mean 'compare'?\n")
