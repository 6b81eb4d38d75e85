"""Whole files with odd content: right checksums, right sizes, valid JSON, and something in them that no program of ours writes.

Every file of every subject (``benchmarks.faults.subjects``) is spoilt so, and read by everything that reads it. What can be used may
be used.
"""

from __future__ import annotations

import copy
import functools
import json
import math
import random
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import safetensors
import safetensors.numpy

from agents.files import agent_file
from atesd_env.bench.known import _CARD
from atesd_env.files.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from benchmarks.faults.oracle import Attempt, Case
from benchmarks.faults.subjects import SUBJECTS, Sound, Subject, named_files, names_of
from benchmarks.faults.values import DEEP, JSON_VALUES, LONG

_TURN = "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}<|assistant|>"
TEMPLATES = (
    *(
        "",
        "{{ messages",
        "{{ nothing.at.all }}",
        "{{ raise_exception('no') }}",
        "{{ 1/0 }}",
        "a constant",
        "{{ messages }}",
    ),
    *("{{ ''.__class__.__mro__ }}", "{{ cycler.__init__.__globals__.os.system('touch ran') }}", "{{ 'x' * 10**6 }}"),
    *("{% include 'x' %}", "{% for i in range(10**9) %}x{% endfor %}", "{% if" + " (" * 5000, "\ud800", "\0" + _TURN),
    *("\x1b[31m" + _TURN, _TURN + "{{ strftime_now('%d') }}", _TURN.replace("['content']", "['content'] | upper")),
    *(_TURN.replace("<|end|>", "."), "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", _TURN * 50),
    _TURN.replace("m['content']", "m.content[:3]"),
)
_COLUMNS: tuple[tuple[pa.DataType, Any], ...] = (
    *((pa.binary(), b"\xff\x00"), (pa.int64(), 2**62), (pa.float64(), math.nan), (pa.bool_(), True), (pa.null(), None)),
    *((pa.list_(pa.int64()), [1]), (pa.struct([("a", pa.string())]), {"a": "x"}), (pa.timestamp("ns"), 1)),
    *((pa.large_string(), "x" * 1_000_000), (pa.string(), "\x1b[31m"), (pa.decimal128(38, 10), None), (pa.date32(), 1)),
    *((pa.dictionary(pa.int8(), pa.string()), "x"), (pa.timestamp("us", tz="Europe/Berlin"), 2**62)),
    *((pa.time64("ns"), 1), (pa.duration("s"), 1)),
)


def case(number: int, sound: Sound) -> Case:
    """Returns the case of a number: all readers take turns; which file is spoilt and how is drawn."""
    turns = [(subject, name) for subject in SUBJECTS for name in subject.uses]
    subject, name = turns[number % len(turns)]
    return functools.partial(_spoilt_subject, subject, name, sound.folder(subject.name))


def _spoilt_subject(subject: Subject, name: str, template: Path, rng: random.Random, folder: Path) -> Attempt:
    shutil.copytree(template, folder / "it", symlinks=True)
    path = rng.choice([path for path in named_files(subject, name, folder / "it") if path.suffix in _SPOILERS])
    what = f"{path.relative_to(folder / 'it').as_posix()}: {_SPOILERS[path.suffix](path, rng)}"
    act = functools.partial(subject.uses[name].act, folder / "it")
    names = names_of(path, folder / "it")
    return Attempt(name, what, act, may_accept=True, names=names, is_named=name != "analysis.compare_agents")


def spoilt(rng: random.Random, sound: Any) -> tuple[Any, str]:
    """Returns a JSON value with one of its parts replaced, lost, renamed or added, and what was done."""
    value = copy.deepcopy(sound)
    places: list[tuple[Any, Any, str]] = []

    def walk(part: Any, path: str) -> None:
        for key in part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
            places.append((part, key, f"{path}[{key!a}]"))
            walk(part[key], places[-1][2])

    walk(value, "")
    # What stands at the top is asked for most.
    part, key, path = rng.choice(
        places if rng.random() < 0.5 else [place for place in places if place[2].count("[") == 1]
    )
    other = rng.choice(rng.choice(JSON_VALUES))
    match rng.choice(["replace"] * 6 + ["lose", "rename", "add"]):
        case "lose":
            del part[key]
            return value, f"without {path}"
        case "rename" if isinstance(part, dict):
            part[rng.choice([f"{key}x", "", "\x1b[31m", "window", "run"])] = part.pop(key)
            return value, f"{path} under another name"
        case "add" if isinstance(part, dict):
            part[rng.choice(["more", "auto_map", "non_finite", "\x1b[31m", "class"])] = other
            return value, f"{path} and something more: {ascii(other)[:60]}"
    part[key] = other
    return value, f"{path} = {ascii(other)[:60]}"


def dumped(value: Any) -> str:
    """Returns JSON, with what stands for deep and long in its place."""
    text = json.dumps(value)
    return text.replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000).replace(f'"{LONG}"', "1" + "0" * 5000)


def _json(path: Path, rng: random.Random) -> str:
    value, what = spoilt(rng, json.loads(path.read_text()))
    path.write_text(dumped(value))
    return what


def _jsonl(path: Path, rng: random.Random) -> str:
    rows = [json.loads(line) for line in path.read_text().splitlines()] or [{"window": 1, "problem": "x"}]
    number = rng.choice([0, len(rows) - 1, rng.randrange(len(rows))])
    rows[number], what = spoilt(rng, rows[number])
    path.write_text("".join(dumped(row) + "\n" for row in rows))
    return f"line {number + 1}: {what}"


def _safetensors(path: Path, rng: random.Random) -> str:
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
    if "checkpoint" not in metadata:
        arrays, _, what = _spoilt_state(rng, safetensors.numpy.load_file(path), None)
        path.write_bytes(safetensors.numpy.save(arrays, metadata=metadata))
        return what
    content = read_checkpoint(path)
    is_agent = list(content.description) == ["agent"]
    description = json.loads(content.description["agent"]) if is_agent else content.description
    arrays, description, what = _spoilt_state(rng, content.arrays, description)
    if is_agent:
        path.write_bytes(agent_file(arrays, dumped(description)))
    else:
        path.unlink()
        write_checkpoint(path, Checkpoint(arrays, description))
    return what


def _spoilt_state(rng: random.Random, arrays: Mapping[str, Any], description: Any) -> tuple[dict[str, Any], Any, str]:
    arrays = dict(arrays)
    if description is not None and (not arrays or rng.random() < 0.5):
        return arrays, *spoilt(rng, description)
    name = rng.choice(list(arrays))
    array = np.asarray(arrays.pop(name))
    highest = {"f": math.inf, "i": 2**31 - 1, "u": 255}.get(array.dtype.kind, 1)
    changes: dict[str, Callable[[], Any]] = {
        "longer": lambda: np.concatenate([np.atleast_1d(array)] * 2),
        "of another shape": lambda: array.reshape(-1)[None, None],
        "without a number": lambda: np.full_like(array, math.nan if array.dtype.kind == "f" else 0),
        "of other kind": lambda: array.astype(rng.choice([np.float16, np.int8, np.bool_, np.float64])),
        "empty": lambda: array.reshape(-1)[:0],
        "huge": lambda: np.full_like(array, highest),
    }
    change = rng.choice([*changes, "lost", "renamed"])
    with np.errstate(all="ignore"):
        if change != "lost":
            arrays[name if change in changes else "another"] = np.ascontiguousarray(
                changes.get(change, lambda: array)()
            )
    return arrays, description, f"array {name} {change}"


def _zip(path: Path, rng: random.Random) -> str:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    value, what = spoilt(rng, json.loads(members["data"]))
    members["data"] = dumped(value).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return f"data{what}"


def _parquet(path: Path, rng: random.Random) -> str:
    kind, value = rng.choice(_COLUMNS)
    table = pyarrow.parquet.read_table(path)
    metadata = table.schema.metadata or {}
    if _CARD in metadata and rng.random() < 0.5:
        card, what = spoilt(rng, json.loads(metadata[_CARD]))
        pyarrow.parquet.write_table(table.replace_schema_metadata({**metadata, _CARD: dumped(card)}), path)
        return f"card{what}"
    name = rng.choice([*table.column_names, "messages"])
    others = table.drop_columns([name]) if name in table.column_names else table
    pyarrow.parquet.write_table(others.append_column(name, pa.array([value] * len(table), type=kind)), path)
    return f"column {name} of {kind}"


def _template(path: Path, rng: random.Random) -> str:
    template = rng.choice(TEMPLATES)
    path.write_text(template, errors="surrogatepass")
    return ascii(template)[:80]


_SPOILERS: dict[str, Callable[[Path, random.Random], str]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".safetensors": _safetensors,
    ".zip": _zip,
    ".parquet": _parquet,
    ".jinja": _template,
}
