"""States of odd content: refused by name, and the run that is going on stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atesd_env.errors import AtesdError, ConfigError, RunFilesError
from atesd_env.files.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from tests.atesd_env.envs.kinds import Surrogate, Tiny, Toy, plain

Edit = Callable[[Checkpoint], Any]
KINDS = {"tiny": Tiny(), "toy": Toy(), "surrogate": Surrogate()}
OWN = {"tiny": "run", "toy": "toy", "surrogate": "surrogate"}


def within(name: str, **changes: Any) -> Edit:
    return lambda state: state.description[name].update(changes)


def array(name: str, change: Callable[[Any], Any]) -> Edit:
    return lambda state: state.arrays.update({name: change(state.arrays[name])})


def everywhere(kind: str) -> dict[str, Edit]:
    """Returns what is odd of any student's state."""
    own = OWN[kind]
    edits: dict[str, Edit] = {
        "no content": lambda state: state.description.clear(),
        "no configuration": lambda state: state.description.pop("config"),
        "a configuration in words": lambda state: state.description.update(config="all"),
        "a configuration of odd values": within("config", windows="three", gamma=[1]),
        "another number of windows": within("config", windows=10**300),
        "no student": lambda state: state.description.pop(own),
        "a list as student": lambda state: state.description.update({own: [1]}),
        "a seed in words": within(own, seed="zero"),
        "an NLL in words": within(own, probe_nll="low"),
    }
    if kind != "surrogate":
        edits |= {
            "one field more": within(own, other=1),
            "statistics in words": within(own, statistics="many"),
            "one statistic more": lambda state: state.description[own]["statistics"].update(other=1.0),
            "a statistic in words": lambda state: state.description[own]["statistics"].update(loss_ema="x"),
            "rows in words": within(own, rows="none"),
            "rows that are numbers": within(own, rows=[1, 2]),
            "rows of other windows": within(own, rows=[{"window": 2}]),
            "rows of lists": within(own, rows=[{"window": 1, "probe/nll": [1]}]),
        }
    return edits


ONLY: dict[str, dict[str, Edit]] = {
    "toy": {"levels of other groups": within("toy", nll=[1.0, 2.0]), "a level in words": within("toy", skill=["x"])},
    "tiny": {
        "no adapter": lambda state: state.arrays.pop("student/adapter"),
        "another adapter": array("student/adapter", lambda one: one[:-1]),
        "an adapter of other numbers": array("student/adapter", lambda one: one.astype(np.int64)),
        "a moment of another size": array("student/optimizer/0/exp_avg", lambda one: one[:3]),
        "a moment lost": lambda state: state.arrays.pop("student/optimizer/0/step"),
        "a moment too many": lambda state: state.arrays.update({"student/optimizer/1/step": np.zeros((), np.float32)}),
        "a moment of nobody": lambda state: state.arrays.update(
            {"student/optimizer/x/exp_avg": np.zeros(3, np.float32)}
        ),
        "no settings": lambda state: state.description.pop("optimizer"),
        "settings in words": lambda state: state.description.update(optimizer="fast"),
        "another rate": lambda state: state.description["optimizer"][0].update(lr=9.0),
        "a number of updates in words": within("run", num_updates="1"),
    },
    "surrogate": {
        "no noise": lambda state: state.arrays.pop("noise"),
        "noise that there is not": array("noise", lambda one: one + 1000),
        "noise of shares": array("noise", lambda one: one * 0.5),
        "statistics of another size": array("raw_statistics", lambda one: one[:-1]),
        "rows of another size": array("values", lambda one: one[:, :-1]),
        "rows in one line": array("values", lambda one: one.ravel()),
    },
}
CASES = [(kind, what) for kind in KINDS for what in (*everywhere(kind), *ONLY[kind])]


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """Each kind's environment after one window."""
    envs = {name: kind.make() for name, kind in KINDS.items()}
    for name, env in envs.items():
        env.reset(seed=1)
        env.step(KINDS[name].action(0.5))
    return envs


@pytest.mark.parametrize(("kind", "what"), CASES)
def test_an_odd_state_is_refused_by_name(kind: str, what: str, made: dict[str, Any], tmp_path: Path):
    env, path = made[kind], tmp_path / "odd.safetensors"
    state = env.checkpoint()
    state = Checkpoint({name: array.copy() for name, array in state.arrays.items()}, plain_copy(state.description))
    (everywhere(kind) | ONLY[kind])[what](state)
    write_checkpoint(path, state)
    before = plain(env.snapshot())
    with pytest.raises(AtesdError, match=r"odd\.safetensors: .*expected") as caught:
        env.reset(options={"state": path})
    assert isinstance(caught.value, RunFilesError | ConfigError)
    assert plain(env.snapshot()) == before


def plain_copy(description: Any) -> Any:
    """Returns a description as a file gives it back."""
    return copy.deepcopy({name: [*part] if isinstance(part, tuple) else part for name, part in description.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_itself_is_taken(kind: str, made: dict[str, Any], tmp_path: Path):
    env = made[kind]
    env.save_state(tmp_path / "state.safetensors")
    before = plain(env.snapshot())
    env.reset(seed=2)
    env.load_state(tmp_path / "state.safetensors")
    assert plain(env.snapshot()) == before


def test_a_language_models_state_is_none_of_a_surrogate_fitted_on_its_configuration(tmp_path: Path):
    surrogate = Surrogate().make()
    surrogate.reset(seed=0)
    checkpoint = surrogate.checkpoint()
    write_checkpoint(
        tmp_path / "tiny.safetensors", Checkpoint({}, {"config": checkpoint.description["config"], "run": {}})
    )
    with pytest.raises(
        RunFilesError, match=r"tiny\.safetensors: expected the state of such a student, got no entry 'surrogate'"
    ):
        surrogate.load_state(tmp_path / "tiny.safetensors")


@pytest.mark.parametrize("state", [5, "missing.safetensors", b"x", ["a"], {"a": 1}])
def test_what_is_no_state_at_all_is_refused(state: Any, made: dict[str, Any]):
    with pytest.raises(RunFilesError, match="expected"):
        made["toy"].reset(options={"state": state})


VECTOR: dict[str, Edit] = {
    "a scalar environment's": lambda state: state.description.pop("students"),
    "students in words": lambda state: state.description.update(students="two"),
    "no generators": lambda state: state.description.pop("generators"),
    "one generator": lambda state: state.description["generators"].pop(),
    "a generator in words": lambda state: state.description.update(generators=["x", "y"]),
    "a generator of another kind": lambda state: state.description["generators"][1].update(bit_generator="MT19937"),
    "one odd student": lambda state: state.description["students"][1]["toy"].update(seed="x"),
}


@pytest.mark.parametrize("what", VECTOR)
def test_an_odd_vector_state_is_refused_and_nothing_changes(what: str, tmp_path: Path):
    env = Toy().make_vector(2)
    env.reset(seed=1)
    env.step(np.full((2, 1), 0.5, np.float32))
    env.save_state(tmp_path / "odd.safetensors")
    state = read_checkpoint(tmp_path / "odd.safetensors")
    VECTOR[what](state)
    write_checkpoint(tmp_path / "odd.safetensors", state)
    env.step(np.full((2, 1), 0.5, np.float32))
    before = (
        [plain(env.snapshot(index)) for index in range(2)],
        repr([one.bit_generator.state for one in env.generators]),
    )
    with pytest.raises(AtesdError, match=r"odd\.safetensors: .*expected"):
        env.load_state(tmp_path / "odd.safetensors")
    after = (
        [plain(env.snapshot(index)) for index in range(2)],
        repr([one.bit_generator.state for one in env.generators]),
    )
    assert after == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stat": "x"}, "options: expected state, got 'stat'; did you mean 'state'?"),
        ({"reset_mask": None}, "options: expected state, got 'reset_mask'; the options are state"),
        ({5: 1}, "options: expected state, got 5"),
        ("state", "options: expected a dictionary with state, or None, got 'state'"),
        (["state"], "options: expected a dictionary"),
        (0, "options: expected a dictionary"),
    ],
)
def test_options_that_nobody_knows_are_refused(options: Any, message: str, made: dict[str, Any]):
    env = made["toy"]
    before = plain(env.snapshot())
    with pytest.raises(ConfigError) as caught:
        env.reset(seed=3, options=options)
    assert str(caught.value).startswith(message)
    assert plain(env.snapshot()) == before
    env.reset(seed=3, options={})
    env.reset(seed=3, options=None)


def test_options_of_a_vector_that_nobody_knows_are_refused():
    env = Toy().make_vector(2)
    with pytest.raises(
        ConfigError, match=r"options: expected reset_mask or state, got 'reset_mas'; did you mean 'reset_mask'"
    ):
        env.reset(options={"reset_mas": np.array([True, True])})
    with pytest.raises(ConfigError, match="options: expected a dictionary"):
        env.reset(options=[1])  # type: ignore[arg-type]
