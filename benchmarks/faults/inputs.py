"""Hostile inputs: what a caller, a command line or a stranger may hand to each reader. All take turns; what is handed is drawn."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd

import agents
import analysis
import atesd
from agents.specs.registry import options_of
from agents.specs.table import AGENTS
from atesd.commands.verbs import VERBS
from atesd_env.config import EnvConfig, SurrogateConfig, ToyConfig
from atesd_env.config.saved import read_config
from atesd_env.tasks.grading.answers import answers_match, last_boxed
from atesd_env.tasks.segmentation import split_steps
from benchmarks.faults import strangers
from benchmarks.faults.kills import TOY
from benchmarks.faults.oracle import Attempt, Case, command
from benchmarks.faults.readers import TINY_FIELDS, stepped
from benchmarks.faults.subjects import Sound
from benchmarks.faults.surroundings import folder_of_others, output_of_others, server
from benchmarks.faults.values import (
    ANSWER_PIECES,
    NUMBERS,
    NUMBERS_AS_TEXT,
    PLAIN_TEXTS,
    STEP_BREAKS,
    TEXTS,
    told,
    value,
)

LIMIT_SEC = 60.0

_ARGUMENTS = {"metrics": ["probe/nll"], "threshold": 3.5, "thresholds": [3.5]}
"""Sound arguments of ``analysis``; what else must be given is a column."""


def _configuration(rng: random.Random, _folder: Path) -> Attempt:
    """A field of a configuration: what is taken must be of the field's kind, and come back from a file as it was."""
    leaf = rng.choice((EnvConfig, ToyConfig, SurrogateConfig))
    field, handed = rng.choice(dataclasses.fields(leaf)), value(rng)

    def act() -> str:
        fields = leaf(**{field.name: handed}).keywords()
        written = json.loads(json.dumps(fields, allow_nan=False))
        read = read_config(
            written | ({"student": "tiny"} if leaf is EnvConfig and field.name != "student" else {})
        ).keywords()
        return "kept" if {**read, field.name: fields[field.name]} == read else "another after writing"

    kind = str(field.type).removesuffix(" | None")
    fits = {"int": int, "float": int | float | Fraction, "bool": bool, "str": str | Path}.get(kind, str | list)
    is_fit = isinstance(handed, fits | np.generic) or (handed is None and "None" in str(field.type))
    return Attempt(
        "configuration", f"{leaf.__name__}({field.name}={told(handed)})", act, same_as="kept" if is_fit else None
    )


def _environment(env_id: str, fields: dict[str, Any], leaf: type[Any], rng: random.Random, _folder: Path) -> Attempt:
    name = rng.choice([*leaf.names(), "nothing", "render_mode", "num_envs"])
    handed = rng.choice(TEXTS) if name == "render_mode" else value(rng)
    act = functools.partial(stepped, env_id, {**fields, name: handed})
    return Attempt(f"gymnasium.make, {env_id}", f"{name}={told(handed)}, then reset and step", act, may_accept=True)


def _is_ratio(handed: Any) -> bool:
    with contextlib.suppress(Exception):
        number = np.asarray(handed, dtype=np.float64)
        return number.size == 1 and number.ndim <= 1 and bool(-1e-6 <= number.ravel()[0] <= 1 + 1e-6)
    return False


def _action(rng: random.Random, _folder: Path) -> Attempt:
    odd = ([[0.5]], [0.5, 0.5], [1.5], [-0.1], 0.5, [Decimal("0.5")], np.array(["0.5"]), np.zeros((0,)))
    handed = rng.choice([value(rng), [value(rng)], rng.choice(odd)])
    env_id, fields = rng.choice([("ATESD-Tiny-v0", TINY_FIELDS), *[("ATESD-Toy-v0", {})] * 4])
    right = "sound" if _is_ratio(handed) else None
    return Attempt("actions", f"{env_id}: step({told(handed)})", lambda: stepped(env_id, fields, handed), same_as=right)


def _reset(rng: random.Random, _folder: Path) -> Attempt:
    """A seed, or options: what is no mapping, or names what nobody knows, is refused. Seeds are checked by Gymnasium."""
    options = rng.choice([value(rng), {"state": value(rng)}, {"nothing": value(rng)}, {"State": None}, {1: 2}])
    handed = rng.choice([{"seed": value(rng)}, {"options": options}])
    is_known = options is None or (isinstance(options, dict) and set(options) <= {"state"})
    act = functools.partial(stepped, "ATESD-Toy-v0", {}, **handed)
    documented = (gymnasium.error.Error,)
    return Attempt("reset", told(handed), act, may_accept="seed" in handed or is_known, documented=documented)


def _vector(rng: random.Random, _folder: Path) -> Attempt:
    line = rng.choice([value(rng), [value(rng)], [0.5]])
    actions = rng.choice([value(rng), [line, [0.5]], [[0.5], line], [line], [[0.5]] * 3])
    options = rng.choice([value(rng), {"reset_mask": value(rng)}, {"nothing": 1}])
    is_step = rng.random() < 0.25
    odd: list[dict[str, Any]] = [{"seed": value(rng)}, {"seed": [value(rng), 0]}, {"options": options}]
    reset = {"seed": 0} if is_step else rng.choice(odd)

    def act() -> str:
        with contextlib.closing(gymnasium.make_vec("ATESD-Toy-v0", num_envs=2)) as env:
            env.reset(**reset)
            env.step(actions if is_step else [[0.5]] * 2)
        return "stepped"

    what = f"step({told(actions)})" if is_step else f"reset({told(reset)})"
    is_unknown = isinstance(options, dict) and "nothing" in options
    return Attempt("vector environments", what, act, may_accept=not ("options" in reset and is_unknown))


def _agent(rng: random.Random, _folder: Path) -> Attempt:
    """A spec: what is made of it decides a ratio."""
    entry = rng.choice(AGENTS)
    name = rng.choice([*options_of(entry.name), "nothing", "env", "seed", "policy_kwargs"])
    option = f"{name}={rng.choice((*NUMBERS_AS_TEXT, *TEXTS))}"
    ratios = ":0.5" * entry.num_ratios
    own = (
        f"{entry.name}{ratios}:{option}",
        f"{entry.name}:{option}",
        f"{entry.name}:{rng.choice(TEXTS)}",
        entry.name + ":nan" * 2,
    )
    odd = (
        rng.choice(TEXTS),
        f"{rng.choice(TEXTS)}:{rng.choice(TEXTS)}",
        f"{rng.choice(TEXTS)}.safetensors",
        f"{rng.choice(TEXTS)}.zip:trust=true",
    )
    other = value(rng)  # what a class or a function raises is its author's to see
    handed: Any = rng.choice([*own, *own, *odd, "" if callable(other) else other])

    def act() -> str:
        with contextlib.closing(gymnasium.make("ATESD-Toy-v0", windows=3, disable_env_checker=True)) as env:
            agent = agents.make(handed, env)
            if hasattr(agent, "learn"):
                agent.learn(4)
            ratio = agent.predict(env.reset(seed=0)[0], deterministic=True)[0]
            return "sound" if _is_ratio(ratio) else str(ratio)

    return Attempt("agents.make", told(handed), act, same_as="sound")


def _run(rng: random.Random, folder: Path) -> Attempt:
    given = {
        "env": "ATESD-Toy-v0",
        "agents": ["fixed:0.5"],
        "out": folder / "out",
        "seeds": [0],
        "quiet": True,
        "windows": 2,
    }
    name = rng.choice([*given, "nothing", "resume", "overwrite"])
    odd = rng.choice(NUMBERS + TEXTS)
    # A path anywhere else would not be the case's own.
    handed = folder / rng.choice(TEXTS).replace("/", "") if name == "out" else rng.choice([odd, [odd]])

    def act() -> str:
        atesd.run(**{**given, name: handed})
        return "ran"

    return Attempt("atesd.run", f"{name}={told(handed)}", act, may_accept=True)


def _analysis(sound: Path, rng: random.Random, _folder: Path) -> Attempt:
    """A function of frames with a spoilt frame, no frame, or an odd argument."""
    name = rng.choice([name for name in analysis.__all__ if inspect.isfunction(getattr(analysis, name))])
    function = getattr(analysis, name)
    frame = analysis.load_runs(sound / "runs")
    parameters = inspect.signature(function).parameters
    first = next(iter(parameters), "")
    if first in ("outcomes", "comparison"):
        frame = analysis.final_outcomes(frame, ["probe/nll"])
        frame = analysis.compare_agents(frame, ["probe/nll"]) if first == "comparison" else frame
    column, text = rng.choice(list(frame)), rng.choice(PLAIN_TEXTS)
    changes: dict[str, Callable[[], Any]] = {
        "without": lambda: frame.drop(columns=column),
        "no rows of": lambda: frame.iloc[:0],
        f"{told(text)} as": lambda: frame.assign(**{column: text}),
        "NaN as": lambda: frame.assign(**{column: np.nan}),
        "twice": lambda: pd.concat([frame, frame]),
        "one row of": lambda: frame.iloc[[0]],
    }
    change = rng.choice([*changes, "sound"])
    needed = [one.name for one in parameters.values() if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    given = {one: _ARGUMENTS.get(one, "probe/nll") for one in needed}
    if change == "sound" and len(parameters) > 1:
        name_of_one = rng.choice(list(parameters)[1:])
        usual = parameters[name_of_one].default
        is_number = isinstance(usual, int | float) or name_of_one in ("threshold", "target", "effect")
        numbers = [one for one in NUMBERS if isinstance(one, int | float)]
        given[name_of_one] = rng.choice(numbers if is_number else TEXTS)
    what = f"{name}: {change} {column}; {told(dict(list(given.items())[1:]))}"
    if first:
        given[first] = rng.choice(TEXTS) if first == "path" else changes.get(change, lambda: frame)()
    return Attempt("analysis", what, lambda: [function(**given), "done"][1], may_accept=True)


def _command_line(sound: Path, rng: random.Random, folder: Path) -> Attempt:
    """A flag of a verb with a value that does not fit it."""
    data = sound / "data"
    base: dict[str, list[Any]] = {
        "run": [*TOY, "--agent", "fixed:0.5", "--windows", "2", "--quiet", "--out", "out"],
        "train": [*TOY, "--agent", "beta", "--total-windows", "8", "--quiet", "--out", "out"],
        "report": [sound / "runs", "--out", "page.html"],
        "export": [sound / "runs", "--to", "csv", "--out", "table.csv"],
        "fit-surrogate": [sound / "surrogate" / "runs", "--families", "linear", "--out", "fitted.safetensors"],
        "evaluate": [
            *["--k", "1", "--sampling", "env", "--max-new-tokens", "4", "--quiet", "--out", "out", "--benchmark"],
            data / "benchmark.jsonl",
        ],
        "data": [data / "problems.jsonl", "--out", "rows.jsonl"],
        "plan": [],
        "agents": [],
    }
    verb = rng.choice(list(base))
    fields = [
        field.name for field in dataclasses.fields(VERBS[verb].module().Command) if field.name not in ("config", "out")
    ]
    fields += {"run": ToyConfig.names(), "train": ToyConfig.names(), "evaluate": EnvConfig.names()}.get(verb, ())
    flag = rng.choice([*fields, "nothing"]).replace("_", "-")
    handed = rng.choice((*PLAIN_TEXTS, *NUMBERS_AS_TEXT[:-1]))
    arguments = rng.choice([[*base[verb], f"--{flag}", handed]] * 4 + [[*base[verb], handed]])
    return Attempt(
        f"atesd {verb}", told(arguments[len(base[verb]) :]), lambda: command(verb, *arguments), may_accept=True
    )


def _answers(rng: random.Random, _folder: Path) -> Attempt:
    first, second = ("".join(rng.choice(ANSWER_PIECES) for _ in range(rng.randint(0, 4))) for _ in range(2))
    second = first if rng.random() < 0.2 else second

    def act() -> str:
        verdicts = answers_match(first, second), answers_match(second, first)
        last_boxed(first)
        return "symmetrical" if verdicts[0] == verdicts[1] else "one in one order, the other in the other"

    return Attempt("answers", told((first, second)), act, same_as="symmetrical", may_refuse=False)


def _solution(rng: random.Random, _folder: Path) -> Attempt:
    pieces = [rng.choice(ANSWER_PIECES + STEP_BREAKS) for _ in range(rng.randint(1, 5))]
    counts = [rng.choice([1, 2, 3000 // len(piece) + 1]) for piece in pieces]
    text = "".join(piece * count for piece, count in zip(pieces, counts, strict=True))

    def act() -> str:
        return "steps" if all(step.strip() for step in split_steps(text)) or not text.strip() else "a blank step"

    return Attempt("solutions", told(list(zip(pieces, counts, strict=True))), act, same_as="steps", may_refuse=False)


def _name(sound: Path, rng: random.Random, folder: Path) -> Attempt:
    """A run in a folder of an odd name, or rows in such a file, and a command that shows the name."""
    more = ("a b", "-x", "[bold red]", "a'b\"c", "$(id)", "*", "[ab]", "é", "e\u0301", "x" * 255)
    name = rng.choice(TEXTS + more).replace("\0", "0")
    out = rng.choice([Path(name), folder / name])
    play = ("run", *TOY, "--windows", "2", "--agent", "beta", "--quiet", "--out", out)
    then: tuple[Any, ...] = rng.choice(
        [
            ("watch", out, "--once"),
            ("report", out),
            ("export", out, "--to", "csv"),
            (*play, "--resume"),
            ("data", f"{name}.jsonl"),
        ]
    )

    def act() -> None:
        if then[0] == "data":
            with contextlib.suppress(OSError, ValueError):  # a name that no file can have
                (folder / f"{name}.jsonl").write_bytes(
                    (sound / "data" / "problems.jsonl").read_bytes() + b"x" * rng.randint(0, 1)
                )
        else:
            command(*play)
        command(*then)

    return Attempt("names", f"{told(name)}, then {then[0]}", act, may_accept=True)


def _gguf(rng: random.Random, folder: Path) -> Attempt:
    head = b"GGUF\x03\0\0\0"
    content = rng.choice([b"", b"GGUF", head + rng.randbytes(64), head + b"\xff" * 16, rng.randbytes(300)])
    path = folder / "model.gguf"
    path.write_bytes(content)
    act = functools.partial(stepped, "ATESD-Tiny-v0", {**TINY_FIELDS, "student": str(path)})
    return Attempt("GGUF files", f"{content[:24]!r}", act, names=(path.name,))


def _readers(sound: Sound) -> Iterator[Case]:
    """Yields what lays out a case of each reader, in the order of their turns; of strangers' files comes every second one."""
    for name in ("data", "surrogate", "runs"):
        sound.folder(name)
    toy, tiny = ("ATESD-Toy-v0", {}, ToyConfig), ("ATESD-Tiny-v0", TINY_FIELDS, EnvConfig)
    environments = [functools.partial(_environment, *one) for one in (toy, tiny)]
    of_files = [
        functools.partial(one, sound.root) for one in (_analysis, _command_line, _command_line, _name, output_of_others)
    ]
    number = 0
    while True:
        for one in (
            *(_configuration, _action, _reset, _vector, _agent, _agent, _run, _answers, _solution, _gguf, server),
            *(*environments, *of_files, folder_of_others, folder_of_others),
        ):
            yield one
            yield strangers.case(number, sound)
            number += 1


def cases(root: Path) -> Callable[[int], Case]:
    """Returns what makes the case of a number."""
    made: list[Case] = []
    readers = _readers(Sound(root / "sound"))

    def case(number: int) -> Case:
        while len(made) <= number:
            made.append(next(readers))
        return made[number]

    return case
