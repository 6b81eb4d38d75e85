"""Damages: a file of a run, a training, an evaluation, an agent, an adapter, a state, a model or a data set is spoilt and then read.

A damage that leaves a file such as its program might have written (another digit in a row, another weight) is found out only where
there is something to compare it with; elsewhere the file is believed, and any result is right. Whatever is no such file any more must
be refused, or do no harm.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults.oracle import FOREIGN, Attempt, Case, run_case
from benchmarks.faults.subjects import SUBJECTS, Sound, Subject, named_files, names_of

LIMIT_SEC = 60.0

Damage = Callable[[Path, random.Random], None]


def cases(root: Path) -> Callable[[int], Case]:
    """Returns what makes the case of a number: all readers take turns.

    Raises:
        RuntimeError: If a sound subject is not read twice with the same result.
    """
    sound = Sound(root / "sound")

    @functools.cache
    def undisturbed(subject: Subject, name: str) -> Any:
        undamaged = functools.partial(_damaged, subject, name, sound.folder(subject.name), None, is_sound=True)
        first, second = (run_case("damages:sound", undamaged, root, LIMIT_SEC) for _ in range(2))
        if first.verdict != "accepted" or first.result != second.result:
            raise RuntimeError(f"{subject.name}, {name}: {first.verdict} {first.detail}, then {second.verdict}")
        return first.result

    turns = [(subject, name) for subject in SUBJECTS for name in subject.uses]

    def case(number: int) -> Case:
        subject, name = turns[number % len(turns)]
        return functools.partial(_damaged, subject, name, sound.folder(subject.name), undisturbed(subject, name))

    return case


def _damaged(
    subject: Subject, name: str, template: Path, right: Any, rng: random.Random, folder: Path, *, is_sound: bool = False
) -> Attempt:
    use = subject.uses[name]
    shutil.copytree(template, folder / "it", symlinks=True)
    act = functools.partial(use.act, folder / "it")
    if is_sound:
        return Attempt(name, f"{subject.name}: sound", act, may_accept=True)
    path = rng.choice(named_files(subject, name, folder / "it"))
    fitting = [kind for kind, suffixes in DAMAGES.items() if not suffixes or path.suffix in suffixes]
    kind = rng.choice(fitting)
    before = path.read_bytes()
    kind(path, rng)
    shown = path.relative_to(folder / "it").as_posix()
    is_believed = not use.is_compared and _is_such_a_file(path, before)
    return Attempt(
        name,
        f"{subject.name}: {shown}: {(kind.__doc__ or '').rstrip('.')}{_where(before, path)}",
        act,
        same_as=right,
        may_accept=is_believed,
        names=names_of(path, folder / "it"),
        # A template that is a text is one: what it makes of a problem is told, and not where it stands.
        is_named=name != "analysis.compare_agents" and path.suffix != ".jinja",
    )


def _where(before: bytes, path: Path) -> str:
    """Returns where a file of the same length begins to differ."""
    after = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
    place = next((place for place, (old, new) in enumerate(zip(before, after)) if old != new), None)  # noqa: B905
    if place is None or len(before) != len(after):
        return ""
    return f" ({ascii(after[max(0, place - 24) : place + 8])[2:-1]})"


def _is_such_a_file(path: Path, before: bytes) -> bool:
    """Returns whether a damaged file is one that its program might have written."""
    if not path.is_file():  # a link to a file counts as what is there
        return False
    after = path.read_bytes()
    try:
        if path.suffix == ".json":
            return isinstance(_strict(after), dict)
        if path.suffix == ".jsonl":
            lines = [line for line in after.splitlines() if line.strip()]
            if path.name in ("trajectory.jsonl", "samples.jsonl") and lines and not _is_json(lines[-1]):
                del lines[-1]  # a kill, or a power cut, may leave the last line of what a run writes as it likes
            rows = [_strict(line) for line in lines]
            is_counted = [row.get("window") for row in rows] == list(range(1, len(rows) + 1))
            return is_counted or path.name != "trajectory.jsonl"
    except (ValueError, AttributeError, RecursionError):
        return False
    if path.suffix == ".safetensors":
        size = 8 + int.from_bytes(before[:8], "little")
        return len(after) == len(before) and after[:size] == before[:size]
    return path.suffix in (".jinja", ".parquet") and bool(after)


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(_strict(line), dict)
    except (ValueError, RecursionError):
        return False


def _strict(text: bytes) -> Any:
    """Returns a JSON value; NaN, which JSON lacks, is refused."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def _flip_a_bit(path: Path, rng: random.Random) -> None:
    """One bit flipped."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _cut(path: Path, rng: random.Random) -> None:
    """Cut short."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(1, len(content))])


def _zero(path: Path, rng: random.Random) -> None:
    """A block of zeros."""
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.choice([1, 16, 512]))
    content[start:end] = bytes(end - start)
    path.write_bytes(content)


def _noise(path: Path, rng: random.Random) -> None:
    """Replaced by noise."""
    path.write_bytes(rng.randbytes(rng.choice([1, 9, 200])))


def _recode(path: Path, rng: random.Random) -> None:
    """Written in another way: UTF-16, or packed."""
    content = path.read_bytes()
    path.write_bytes(rng.choice([gzip.compress(content), content.decode(errors="replace").encode("utf-16")]))


def _empty(path: Path, _rng: random.Random) -> None:
    """Emptied."""
    path.write_bytes(b"")


def _lose(path: Path, _rng: random.Random) -> None:
    """Gone."""
    path.unlink()


def _append(path: Path, rng: random.Random) -> None:
    """Something more at its end."""
    with path.open("ab") as file:
        file.write(rng.choice([b"\0", b"{}\n", b"x\n", b'{"window": 1}\n']))


def _nest(path: Path, _rng: random.Random) -> None:
    """Replaced by JSON that is nested 100,000 deep."""
    path.write_bytes(b"[" * 100_000 + b"]" * 100_000 + b"\n")


def _nest_inside(path: Path, rng: random.Random) -> None:
    """A value replaced by one that is nested 100,000 deep."""
    content = path.read_bytes()
    colons = [place for place, byte in enumerate(content) if byte == ord(":")]
    place = rng.choice(colons) + 1 if colons else 0
    path.write_bytes(content[:place] + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"," + content[place:])


def _make_a_folder(path: Path, _rng: random.Random) -> None:
    """Replaced by a folder."""
    path.unlink()
    path.mkdir()
    (path / "notes.txt").write_bytes(FOREIGN)


def _make_a_pipe(path: Path, _rng: random.Random) -> None:
    """Replaced by a FIFO."""
    path.unlink()
    os.mkfifo(path)


def _link_away(path: Path, _rng: random.Random) -> None:
    """Replaced by a link to a file that is not ours."""
    path.unlink()
    path.symlink_to(
        next(iter(sorted(Path("../outside").resolve().glob(f"*{path.suffix}"))), Path("../outside/notes.txt").resolve())
    )


def _link_to_zeros(path: Path, _rng: random.Random) -> None:
    """Replaced by a link to /dev/zero."""
    path.unlink()
    path.symlink_to("/dev/zero")


def _link_to_nothing(path: Path, _rng: random.Random) -> None:
    """Replaced by a link to nothing."""
    path.unlink()
    path.symlink_to("nowhere")


def _lose_a_line(path: Path, rng: random.Random) -> None:
    """A line lost."""
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    path.write_bytes(b"".join(lines))


def _double_a_line(path: Path, rng: random.Random) -> None:
    """A line doubled."""
    lines = path.read_bytes().splitlines(keepends=True)
    place = rng.randrange(len(lines))
    path.write_bytes(b"".join([*lines[:place], lines[place], *lines[place:]]))


def _swap_lines(path: Path, rng: random.Random) -> None:
    """Two lines swapped."""
    lines = path.read_bytes().splitlines(keepends=True)
    first = rng.randrange(max(1, len(lines) - 1))
    lines[first : first + 2] = reversed(lines[first : first + 2])
    path.write_bytes(b"".join(lines))


def _change_a_digit(path: Path, rng: random.Random) -> None:
    """A digit changed."""
    content = bytearray(path.read_bytes())
    places = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    if places:
        place = rng.choice(places)
        content[place] = ord(rng.choice([digit for digit in "123456789" if ord(digit) != content[place]]))
    path.write_bytes(content)


def _change_a_letter(path: Path, rng: random.Random) -> None:
    """A letter changed."""
    content = bytearray(path.read_bytes())
    places = [place for place, byte in enumerate(content) if chr(byte).isalpha() and byte < 128]
    if places:
        content[rng.choice(places)] = ord(rng.choice("QZ"))
    path.write_bytes(content)


def _say_nan(path: Path, rng: random.Random) -> None:
    """A number replaced by what is none, or far too long."""
    content = path.read_text(errors="replace")
    for number in rng.sample(range(10), 10):
        if f": {number}" in content:
            other = rng.choice(["NaN", "Infinity", "1e999", "null", '"x"', "[]", "true", "1" + "0" * 400, "-1"])
            path.write_text(re.sub(rf": {number}[\d.e+-]*", f": {other}", content, count=1))
            return


_TEXT = (".json", ".jsonl", ".jinja")
_LINES = (".jsonl",)
DAMAGES: dict[Damage, tuple[str, ...]] = {
    **dict.fromkeys(
        (_flip_a_bit, _cut, _zero, _noise, _recode, _empty, _lose, _append, _nest, _make_a_folder, _make_a_pipe), ()
    ),
    **dict.fromkeys((_link_away, _link_to_zeros, _link_to_nothing), ()),
    **dict.fromkeys((_nest_inside, _change_a_digit, _change_a_letter, _say_nan), _TEXT),
    **dict.fromkeys((_lose_a_line, _double_a_line, _swap_lines), _LINES),
}
"""What can be done to a file, and the endings of files that it fits; () for all."""
