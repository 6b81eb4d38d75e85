"""What stands around a command: folders and files that are not ours, and a rollout server that answers as none should."""

from __future__ import annotations

import contextlib
import functools
import random
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.faults.kills import TOY
from benchmarks.faults.oracle import FOREIGN, Attempt, command
from benchmarks.faults.readers import TINY_FIELDS, stepped
from benchmarks.faults.strangers import dumped, spoilt

_OURS = (
    *(
        "checkpoints/window-000001.safetensors",
        "config.json",
        "trajectory.jsonl",
        "samples.jsonl",
        "adapter/adapter_model.safetensors",
    ),
    *(
        "agent.safetensors",
        "training.json",
        "checkpoint.safetensors",
        "evaluations.jsonl",
        "best_agent.safetensors",
        "last_agent.zip",
    ),
    *(
        "evaluation.json",
        "summary.json",
        ".lock",
        ".config.json.tmp",
        ".checkpoints.old/precious.txt",
        "notes.txt",
        "checkpoints",
    ),
)
"""Names that we use, or might."""


def folder_of_others(rng: random.Random, folder: Path) -> Attempt:
    """Lets a command write into a folder that it has not made, where names that we use are files of others or links to such."""
    verb = rng.choice(["run", "train", "evaluate"])
    at = folder / "out" / "fixed-0.5-seed0" if verb == "run" else folder / "out"
    names = rng.sample(_OURS, rng.randint(1, 3))
    as_link = rng.random() < 0.5
    for name in names:
        with contextlib.suppress(OSError):  # two of them may need one name
            (at / name).parent.mkdir(parents=True, exist_ok=True)
            if as_link:
                target = folder.parent / "outside" / re.sub(r"\W", "-", name)
                target.write_bytes(FOREIGN)
                (at / name).symlink_to(rng.choice([target, target, folder.parent / "outside"]))
            else:
                (at / name).write_bytes(b'{"model_type": "qwen3", "by": "' + FOREIGN + b'"}')
    flags = rng.choice([[], ["--overwrite"], ["--resume"]])
    arguments = {
        "run": [*TOY, "--windows", "3", "--checkpoint-every", "1", "--agent", "fixed:0.5"],
        "train": [*TOY, "--windows", "3", "--total-windows", "6", "--agent", "beta"],
        "evaluate": [
            *["--benchmark", "heldout", "--k", "1", "--max-problems", "2", "--sampling", "env", "--max-new-tokens", "4"]
        ],
    }[verb]
    what = f"{'links' if as_link else 'files'} {', '.join(names)} before {' '.join(flags)}"
    act = functools.partial(command, verb, "--quiet", *arguments, *flags, "--out", folder / "out")
    return Attempt(f"folders of others, {verb}", what, act, may_accept=True)


def output_of_others(sound: Path, rng: random.Random, folder: Path) -> Attempt:
    """Lets a command write a file whose name is taken, is a link, or stands below a file."""
    runs, fitted = sound / "runs", sound / "surrogate" / "runs"
    verb, name, *arguments = rng.choice(
        [
            ("export", "t.csv", runs, "--to", "csv"),
            ("export", "t.parquet", runs, "--to", "parquet"),
            ("data", "rows.jsonl", sound / "data" / "problems.jsonl"),
            ("fit-surrogate", "s.safetensors", fitted, "--families", "linear"),
            ("report", "page.html", runs),
        ]
    )
    out = folder / name
    kind = rng.choice(["file", "link", "folder", "dangling link", "below a file", "temporary name"])
    target = folder.parent / "outside" / "precious.txt"
    target.write_bytes(FOREIGN)
    match kind:
        case "file" if verb != "report":  # a report is replaced, as its help says
            out.write_bytes(FOREIGN)
        case "link":
            out.symlink_to(target)
        case "folder":
            out.mkdir()
            (out / "notes.txt").write_bytes(FOREIGN)
        case "dangling link":
            out.symlink_to(folder / "elsewhere" / "x")
        case "below a file":
            out.write_bytes(FOREIGN)
            out = out / "x" / name
        case "temporary name":
            (folder / f".{name}.tmp").symlink_to(target)

    def act() -> None:
        try:
            command(verb, *arguments, "--out", out)
        finally:
            left = [
                path.name for path in folder.rglob("*") if path.suffix in (".tmp", ".partial") and not path.is_symlink()
            ]
            assert not left, f"left behind: {left}"

    return Attempt(f"outputs, {verb}", f"{name} is a {kind}", act, may_accept=True)


def server(rng: random.Random, _folder: Path) -> Attempt:
    """Lets a language model sample from a server that has sampled nothing, and is found out even where its answers look well."""
    choice = {"token_ids": [5, 6, 3], "logprobs": {"token_logprobs": [-1.0, -1.0, -1.0]}}
    sound = {
        "/v1/models": {"data": [{"id": "base", "parent": None, "max_model_len": 4096}]},
        "/v1/completions": {"choices": [choice]},
    }
    path = rng.choice(list(sound))
    answers = {name: dumped(content).encode() for name, content in sound.items()}
    kind = what = rng.choice(["spoilt"] * 6 + ["status", "endless", "slow", "closed", "noise", "length"])
    if kind == "spoilt":
        content, what = spoilt(rng, sound[path])
        answers[path] = dumped(content).encode()
    elif kind == "noise":
        answers[path] = rng.choice([b"", b"\xff\xfe", b"[" * 100_000, b"null", b"<html>", rng.randbytes(99)])
    status = rng.choice([204, 301, 400, 404, 429, 500, 999]) if kind == "status" else 200
    fields = {"engine_timeout_sec": 1.0, "engine_retries": 0, **TINY_FIELDS}

    def act() -> str:
        with contextlib.closing(_Stranger(path, kind, answers, status)) as stranger:
            return stepped("ATESD-Tiny-v0", {"rollout_engine": stranger.address, **fields})

    return Attempt("rollout servers", f"{path}: {what}", act)


class _Stranger:
    """A server that answers one of its paths as it should not."""

    def __init__(self, path: str, kind: str, answers: dict[str, bytes], status: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                """Says nothing."""

            def handle_any(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                is_it = self.path == path
                content = answers.get(self.path, b'"done"')
                if is_it and kind == "closed":
                    return
                self.send_response(status if is_it else 200)
                if is_it and status == 301:
                    self.send_header("Location", "file:///etc/hostname")
                if not (is_it and kind in ("endless", "slow")):
                    self.send_header("Content-Length", str(10**12 if is_it and kind == "length" else len(content)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    while is_it and kind in ("endless", "slow"):
                        self.wfile.write(b" " * (1 if kind == "slow" else 1 << 20))
                        time.sleep(0.1 if kind == "slow" else 0)
                    self.wfile.write(content)

        for method in ("do_GET", "do_POST"):
            setattr(Handler, method, Handler.handle_any)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        threading.Thread(target=self._server.shutdown, daemon=True).start()
