"""Specs: every form makes what it says, and a wrong one is answered with what was expected."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import agents
from agents.base import AgentProtocol
from agents.beta import BetaController
from agents.registry import AGENTS, OWN_CLASS, available, make, resolve
from agents.schedules import FixedSchedule, LinearSchedule, RandomSchedule
from atesd_env.errors import ConfigError
from atesd_env.toy import ToyExposureEnv

OWN_MODULE = """
class WithSeed:
    def __init__(self, env, seed=0, ratio=0.5):
        self.made = (env, seed, ratio)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return [0.5], state


class WithEnv(WithSeed):
    def __init__(self, env):
        self.made = (env,)


class Bare(WithSeed):
    def __init__(self, ratio=0.5):
        self.made = (ratio,)


class Nothing:
    pass


class Demanding(WithSeed):
    def __init__(self, policy, env, extra):
        pass


class Failing(WithSeed):
    def __init__(self, env, seed=0):
        raise TypeError("a mistake inside")


def build(env, seed):
    return WithSeed(env, seed, 0.9)


not_callable = 3
"""


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of a user, importable during the test; returns its module's name."""
    package = tmp_path / "own_agents_for_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "controllers.py").write_text(OWN_MODULE)
    (package / "broken.py").write_text("import a_module_that_is_not_there")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("own_agents_for_test")]:
        monkeypatch.delitem(sys.modules, name)
    return "own_agents_for_test.controllers"


def test_each_form_makes_its_agent():
    env = ToyExposureEnv()
    assert isinstance(make("beta", env, seed=2), BetaController)
    assert isinstance(make("random", env), RandomSchedule)
    fixed = make("fixed:0.25", env, seed=2)
    assert isinstance(fixed, FixedSchedule)
    assert (fixed.ratio, fixed.seed, fixed.env) == (0.25, 2, env)
    linear = make("linear:1:0.5", env)
    assert isinstance(linear, LinearSchedule)
    assert (linear.start, linear.end) == (1.0, 0.5)


def test_every_line_of_the_table_can_be_made_from_its_form():
    for entry in AGENTS:
        spec = re.sub(r":[A-Z]", ":0.5", entry.form)
        assert isinstance(make(spec, ToyExposureEnv()), AgentProtocol)
        assert entry.form.count(":") == len(entry.ratios)


def test_available_lists_every_form_with_a_sentence():
    bandits = ["ucb", "thompson", "exp3s", "linucb"]
    assert list(available()) == ["beta", "fixed:A", "random", "linear:A:B", *bandits, OWN_CLASS]
    assert all(sentence.endswith(".") for sentence in available().values())
    assert agents.available is available
    assert agents.make is make


def test_options_reach_the_constructor():
    assert make("beta", ToyExposureEnv(), batch_size=7).batch_size == 7
    with pytest.raises(ConfigError, match=r"it has no batchsize \(did you mean 'batch_size'\?\)"):
        make("beta", ToyExposureEnv(), batchsize=7)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "betta",
            "expected one of beta, fixed:A, random, linear:A:B, ucb, thompson, exp3s, linucb, package.module:Class, "
            "got 'betta' (did you mean beta?)",
        ),
        ("Fixd:0.5", "got 'Fixd:0.5' (did you mean fixed:A?)"),
        ("", "got ''."),
        ("linear", "expected linear:A:B, with 2 reveal ratio(s) after the name, got 0"),
        ("fixed:0.5:1", "expected fixed:A, with 1 reveal ratio(s) after the name, got 2"),
        ("random:1", "expected random, with 0 reveal ratio(s) after the name, got 1"),
        ("fixed:1.5", "expected fixed:A with numbers in [0, 1], got '1.5'; write it like fixed:0.5"),
        ("fixed:nan", "expected fixed:A with numbers in [0, 1], got 'nan'"),
        ("linear:0:x", "expected linear:A:B with numbers in [0, 1], got 'x'; write it like linear:0.5:0.5"),
        ("fixed:Mine", "'fixed' is a name of ours; a class of your own is written package.module:Class"),
        ("no_such_module_here:Mine", "expected an importable module 'no_such_module_here', found none"),
        ("lineer:Mine", "found none (did you mean linear:A:B?)"),
        (
            "agents.schedules:FixdSchedule",
            "expected a class 'FixdSchedule' in agents.schedules, found none (did you mean 'Fixed",
        ),
        ("agents.nothing:Mine", "expected an importable module 'agents.nothing', found none"),
    ],
)
def test_wrong_specs_are_answered(spec: str, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        resolve(spec)
    with pytest.raises(ConfigError, match=re.escape(message)):
        make(spec, ToyExposureEnv())


@pytest.mark.parametrize(("name", "expected"), [("WithSeed", 3), ("WithEnv", 1), ("Bare", None), ("build", 3)])
def test_a_class_of_the_users_own_gets_what_it_takes(own_package: str, name: str, expected: int | None):
    env = ToyExposureEnv()
    made = make(f"{own_package}:{name}", env, seed=5).made
    if expected is None:
        assert made == (0.5,)  # its first argument is not the environment
        return
    assert len(made) == expected
    assert made[0] is env
    assert made[1:2] in ((5,), ())


def test_options_of_the_users_own_class(own_package: str):
    assert make(f"{own_package}:WithSeed", ToyExposureEnv(), ratio=0.7).made[2] == 0.7
    assert make(f"{own_package}:Bare", ToyExposureEnv(), ratio=0.7).made == (0.7,)
    with pytest.raises(
        ConfigError, match=r"expected a constructor that takes .* and the options ratio, got WithEnv\(env\)"
    ):
        make(f"{own_package}:WithEnv", ToyExposureEnv(), ratio=0.7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nothing", "expected an object with predict(observation, state, episode_start, deterministic), got a Nothing"),
        (
            "Demanding",
            "expected a constructor that takes (env, seed=...), (env) or nothing, got Demanding(policy, env, extra)",
        ),
        ("not_callable", "expected a class 'not_callable'"),
        ("WithSed", "did you mean 'WithSeed'?"),
    ],
)
def test_a_class_that_cannot_serve_is_refused(own_package: str, name: str, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        make(f"{own_package}:{name}", ToyExposureEnv())


def test_mistakes_inside_the_users_code_show_themselves(own_package: str):
    with pytest.raises(TypeError, match="a mistake inside"):
        make(f"{own_package}:Failing", ToyExposureEnv())
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        make("own_agents_for_test.broken:Mine", ToyExposureEnv())


@pytest.mark.parametrize(("code", "is_light"), [("import agents", True), ("import agents.beta", False)])
def test_importing_the_package_loads_no_torch(code: str, is_light: bool):
    """The second case shows that the check can fail."""
    check = f"import sys; {code}; sys.exit('torch' in sys.modules or 'stable_baselines3' in sys.modules)"
    assert (subprocess.run([sys.executable, "-c", check], check=False).returncode == 0) is is_light


def test_a_schedule_needs_no_torch():
    code = (
        "import sys; from agents import make; from atesd_env.toy import ToyExposureEnv; "
        "make('fixed:1', ToyExposureEnv()).learn(2); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
