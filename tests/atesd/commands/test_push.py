"""What is sent to a hub: nothing unasked, and what was shown; the hub is a stand-in of its HTTP interface."""

from __future__ import annotations

import base64
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from atesd.commands.push import Command
from atesd.experiments.card import files_of
from atesd.experiments.play import run
from tests.programs import refusal, typed

REPO = "you/first"


class StandIn(BaseHTTPRequestHandler):
    """Makes repositories and takes commits, as much of the hub as is asked for."""

    requests: list[tuple[str, Any]]
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.requests.append((self.path, body.decode()))
        if self.path.endswith("/preupload/main"):
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            answer: dict[str, Any] = {"files": files}
        else:
            url = f"http://{self.headers['Host']}/{REPO}"
            answer = {"url": url, "commitUrl": f"{url}/commit/1", "commitOid": "1"}
        content = json.dumps(answer).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[StandIn]]:
    handler = type("Handler", (StandIn,), {"requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "stand-in")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs; an adapter is put beside one's rows, as a student of a language model leaves it."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    run("ATESD-Toy-v0", ["beta", "fixed:1"], windows=3, out=folder, quiet=True)
    (folder / "beta-seed0" / "adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / "beta-seed0" / "adapter" / name).write_text(name)
    return folder


def sent(hub: type[StandIn]) -> dict[str, str]:
    """Returns the files of the commit by place."""
    (lines,) = (body for path, body in hub.requests if path.endswith("/commit/main"))
    entries = [json.loads(line) for line in lines.splitlines()]
    return {
        one["value"]["path"]: base64.b64decode(one["value"]["content"]).decode(errors="replace")
        for one in entries
        if one["key"] == "file"
    }


def test_a_run_goes_to_the_hub_as_it_was_shown(hub: type[StandIn], runs: Path):
    result = typed("push", runs / "beta-seed0", "--repo", REPO, "--yes")
    assert result.returncode == 0, result.stderr
    assert re.search(rf"sent: http://127.0.0.1:\d+/{REPO}/commit/1$", result.stdout, re.MULTILINE)
    path, body = hub.requests[0]
    assert path == "/api/repos/create"
    assert json.loads(body)["visibility"] == "private"
    files = sent(hub)
    places = {
        "adapter_config.json",
        "adapter_model.safetensors",
        "agent.safetensors",
        "run/config.json",
        "run/trajectory.jsonl",
    }
    assert set(files) == places | {"README.md"}
    assert files["run/trajectory.jsonl"] == (runs / "beta-seed0" / "trajectory.jsonl").read_text()
    assert all(place in result.stdout for place in files)
    card = files["README.md"]
    assert card in result.stdout
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "peft"
    last = json.loads(files["run/trajectory.jsonl"].splitlines()[-1])
    (line,) = (line for line in card.splitlines() if line.startswith("| ATESD-Toy-v0"))
    assert f"| `beta` | 0 | {last['update']} |" in line
    assert f"| {last['probe/nll']:.3f} |" in line


def test_several_runs_have_a_folder_each(hub: type[StandIn], runs: Path):
    assert typed("push", runs, "--repo", REPO, "--yes", "--public").returncode == 0
    files = sent(hub)
    assert {"beta-seed0/run/config.json", "fixed-1-seed0/run/config.json", "README.md"} <= set(files)
    assert files["README.md"].count("| ATESD-Toy-v0") == 2
    assert json.loads(hub.requests[0][1])["visibility"] == "public"


def test_runs_of_one_name_do_not_take_each_others_place(runs: Path, tmp_path: Path):
    """As in a folder of the bench, which has the same runs on each instance."""
    for instance in ("low", "high"):
        shutil.copytree(runs / "fixed-1-seed0", tmp_path / instance / "fixed-1-seed0")
    found = files_of([tmp_path / "high" / "fixed-1-seed0", tmp_path / "low" / "fixed-1-seed0"])
    assert {place.removesuffix("/run/config.json") for place in found if place.endswith("config.json")} == {
        "high/fixed-1-seed0",
        "low/fixed-1-seed0",
    }
    assert all(path.is_file() for path in found.values())


@pytest.mark.parametrize("answer", ["n", "", "y"])
def test_nothing_is_sent_without_a_yes(answer: str, hub: type[StandIn], runs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("atesd.commands.push.sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    result = typed("push", runs / "beta-seed0", "--repo", REPO)
    assert bool(hub.requests) is (answer == "y")
    assert ("nothing was sent." in result.stdout) is (answer != "y")


def test_what_cannot_be_sent_is_refused(
    hub: type[StandIn], runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert "--yes: expected a terminal to ask at, got none" in refusal(capsys, "push", runs, "--repo", REPO)
    assert "--repo: expected owner/name, got 'first'" in refusal(capsys, "push", runs, "--repo", "first")
    assert "expected a folder of runs" in refusal(capsys, "push", tmp_path / "none", "--repo", REPO, status=1)
    unfinished = tmp_path / "beta-seed0"
    unfinished.mkdir()
    for name in ("config.json", "trajectory.jsonl"):
        lines = (runs / "beta-seed0" / name).read_text().splitlines(keepends=True)
        (unfinished / name).write_text("".join(lines[:-1] if name == "trajectory.jsonl" else lines))
    assert "expected a finished run" in refusal(capsys, "push", unfinished, "--repo", REPO, "--yes", status=1)
    assert not hub.requests
    hub.status = 403
    said = refusal(capsys, "push", runs, "--repo", REPO, "--yes", status=1)
    assert "you/first: expected the hub to take it, got HfHubHTTPError" in said
    assert "stand-in" not in said, "the token"


@pytest.mark.parametrize("linked", ["agent.safetensors", "adapter"])
def test_nothing_behind_a_link_is_sent(
    linked: str, hub: type[StandIn], runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run_of_others = tmp_path / "beta-seed0"
    shutil.copytree(runs / "beta-seed0", run_of_others)
    (run_of_others / linked).rename(tmp_path / "mine")
    (run_of_others / linked).symlink_to(tmp_path / "mine")
    said = refusal(capsys, "push", run_of_others, "--repo", REPO, "--yes", status=1)
    assert "expected a file of this folder, got a link to another" in said
    assert not hub.requests


def test_it_does_not_send_by_default():
    assert not Command(Path("runs"), REPO).yes
