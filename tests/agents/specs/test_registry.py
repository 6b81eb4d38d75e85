"""Specs: every form makes what it says, and a wrong one is answered with what was expected."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import agents
from agents.base import AgentProtocol
from agents.beta import BetaController
from agents.feedback import FeedbackController
from agents.schedules import (
    BinomialSchedule,
    CosineSchedule,
    FixedSchedule,
    LinearSchedule,
    RandomSchedule,
    StagedSchedule,
)
from agents.specs.described import Option, described_options
from agents.specs.registry import (
    AGENTS,
    ENTRY_POINT_GROUP,
    OWN_CLASS,
    SAVED_FILE,
    Entry,
    available,
    label,
    make,
    resolve,
    with_option,
)
from atesd_env.bench import BenchEnv
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.errors import ConfigError
from atesd_env.simulated.toy import ToyExposureEnv
from tests.atesd_env.bench.sets import toy_set

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


@pytest.mark.parametrize(
    ("spec", "kind", "expected"),
    [
        ("beta", BetaController, {"seed": 2}),
        ("random", RandomSchedule, {}),
        ("binomial", BinomialSchedule, {}),
        ("feedback", FeedbackController, {}),
        ("fixed:0.25", FixedSchedule, {"ratio": 0.25, "seed": 2}),
        ("linear:1:0.5", LinearSchedule, {"start": 1.0, "end": 0.5}),
        ("cosine:1:0.5", CosineSchedule, {"start": 1.0, "end": 0.5}),
        ("staged:0.3:1:0.5", StagedSchedule, {"ratios": (0.3, 1.0, 0.5)}),
    ],
)
def test_each_form_makes_its_agent(spec: str, kind: type, expected: dict[str, Any]):
    env = ToyExposureEnv()
    agent = make(spec, env, seed=2)
    assert isinstance(agent, kind)
    assert vars(agent) | expected | {"env": env} == vars(agent)


@pytest.mark.parametrize("entry", AGENTS, ids=lambda entry: entry.name)
def test_every_line_of_the_table_can_be_made_from_its_form(entry: Entry):
    spec = re.sub(r":[A-Z]", ":0.5", re.sub(r"\[.*\]", "", entry.form))
    env = BenchEnv(toy_set()) if entry.name == "oracle" else ToyExposureEnv()
    assert isinstance(make(spec, env), AgentProtocol)
    assert spec.count(":") == entry.num_ratios


class Foreign(gymnasium.Env[Any, Any]):
    """Somebody else's environment, with the actions of ours."""

    observation_space = gymnasium.spaces.Box(-1, 1, (len(FEATURE_NAMES),), dtype=np.float32)
    action_space = gymnasium.spaces.Box(0, 1, (1,), dtype=np.float32)


@pytest.mark.parametrize("spec", ["beta", "ucb", "ppo"])
def test_an_environment_of_another_kind_is_refused(spec: str):
    with pytest.raises(ConfigError, match=r"expected an environment with a RunConfig in env\.unwrapped\.config"):
        make(spec, Foreign())


def test_available_lists_every_form_with_a_sentence():
    assert list(available()) == [*(entry.form for entry in AGENTS), OWN_CLASS, SAVED_FILE]
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
        ("betta", "agent: expected one of beta, fixed:A, random, linear:A:B, cosine:A:B"),
        ("betta", "package.module:Class, path/to/agent.safetensors, got 'betta' (did you mean beta?)"),
        ("staged:0.5", "expected staged:A:B[:C...], with at least 2 reveal ratios after the name, got 1"),
        ("staged:0.5:2", "expected staged:A:B[:C...] with numbers in [0, 1], got '2'; write it like staged:0.5:0.5"),
        ("beta:batchsize=4", "agent 'beta:batchsize=4': expected a constructor that takes"),
        ("beta:batchsize=4", "it has no batchsize (did you mean 'batch_size'?)"),
        ("beta:batch_size=4:batch_size=5", "expected each option once, got 'batch_size=5'"),
        ("beta:seed=4", "expected no option of this name (--seeds, seed=), got 'seed=4'"),
        ("fixed:0.5:ratio=0.7", "expected ratio once, got it behind the name and as an option"),
        ("beta:4", "expected beta, with 0 reveal ratio(s) after the name, got 1; options are written key=value"),
        ("Fixd:0.5", "got 'Fixd:0.5' (did you mean fixed:A?)"),
        ("", "got ''; `atesd agents`"),
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


def test_options_in_a_spec_are_json_or_text():
    agent = make("beta:credit=one-step:batch_size=8:learning_rate=1e-3", ToyExposureEnv())
    assert agent.options() | {"credit": "one-step", "batch_size": 8, "learning_rate": 0.001} == agent.options()
    assert make("feedback:set_point=null:gain=2", ToyExposureEnv()).options()["set_point"] is None
    assert make("agents.schedules:StagedSchedule:ratios=[0.25,0.5,1]", ToyExposureEnv()).ratios == (0.25, 0.5, 1.0)
    too_deep = "[" * 100_000
    assert resolve(f"beta:credit={too_deep}")[1] == {"credit": too_deep}


def test_an_argument_of_make_comes_before_the_specs():
    assert make("beta:batch_size=8", ToyExposureEnv(), batch_size=9).batch_size == 9


def test_a_value_may_hold_colons(own_package: str):
    agent = make(own_package + ':WithSeed:ratio={"a":[1,2],"b":"c:d"}', ToyExposureEnv())
    assert agent.made[2] == {"a": [1, 2], "b": "c:d"}


def test_classes_and_functions_are_made_like_specs(own_package: str):
    env = ToyExposureEnv()
    agent = make(FixedSchedule, env, seed=3, ratio=0.25)
    assert (type(agent), agent.env, agent.seed, agent.ratio) == (FixedSchedule, env, 3, 0.25)
    module = sys.modules[resolve(f"{own_package}:build")[0].__module__]
    assert make(module.build, env, seed=5).made == (env, 5, 0.9)
    assert make(lambda env, seed: FixedSchedule(env, seed, ratio=0.75), env, seed=2).ratio == 0.75
    with pytest.raises(ConfigError, match=r"it has no ration \(did you mean 'ratio'\?\)"):
        make(FixedSchedule, env, ration=0.25)


def test_an_object_is_an_agent_already():
    agent = FixedSchedule(ToyExposureEnv())
    assert make(agent, ToyExposureEnv()) is agent
    with pytest.raises(ConfigError, match="expected no options beside an object that is made already, got ratio"):
        make(agent, ToyExposureEnv(), ratio=0.5)
    with pytest.raises(ConfigError, match=r"expected a spec .* a class or an object with predict, got 3"):
        make(3, ToyExposureEnv())


def test_labels():
    assert label("fixed:0.5") == "fixed:0.5"
    assert label(FixedSchedule) == label(FixedSchedule(ToyExposureEnv())) == "agents.schedules:FixedSchedule"


def test_an_option_for_those_that_take_it():
    assert with_option(["fixed:1", "beta:batch_size=8", FixedSchedule], "credit", "delayed") == [
        "fixed:1",
        "beta:batch_size=8:credit=delayed",
        FixedSchedule,
    ]
    with pytest.raises(
        ConfigError, match=r"expected an agent with the option 'credit' \(such as beta\), got only fixed:1"
    ):
        with_option(["fixed:1"], "credit", "delayed")
    with pytest.raises(ConfigError, match="expected it once, got 'delayed' and 'beta:credit=one-step'"):
        with_option(["beta:credit=one-step"], "credit", "delayed")


def defaults(spec: str) -> dict[str, str]:
    return {name: one.default for name, one in described_options(spec).items()}


def test_options_are_described_as_a_spec_writes_them():
    assert defaults("fixed") == defaults("fixed:0.5") == {"ratio": "1.0"}
    assert defaults("beta")["credit"] == "grounded"
    assert defaults("feedback")["set_point"] == "null"


def test_options_are_described_by_docstring_and_annotation():
    beta = described_options("beta")
    assert beta["features"].type == "paper or all"
    assert beta["batch_size"] == Option(
        "whole number", "4", "Completed decisions of an update: the paper's B, at least 2."
    )
    assert described_options("cosine")["start"].meaning == "Reveal ratio at progress 0, in [0, 1].", (
        "of the class above"
    )
    assert described_options("lookahead")["race"].type == "number or null"
    assert described_options("lookahead")["ratios"].type == "[number, ...]"


@pytest.mark.parametrize("entry", AGENTS, ids=lambda entry: entry.name)
def test_every_option_of_ours_has_a_meaning_and_a_type(entry: Entry):
    for name, option in described_options(entry.name).items():
        assert option.meaning.endswith((".", ")", "]")), name
        assert "anything" not in option.type, name


@pytest.mark.parametrize(
    ("spec", "own"),
    [
        ("ucb", {"exploration": "0.5", "discount": "1.0", "window": "null"}),
        ("thompson", {"noise": "1.0", "discount": "1.0", "window": "null"}),
        ("linucb", {"exploration": "0.5", "ridge": "1.0", "discount": "1.0", "window": "null"}),
        ("exp3s", {"exploration": "0.3", "share": "0.001"}),
    ],
)
def test_bandits_list_their_own_options_and_then_those_that_they_pass_on(spec: str, own: dict[str, str]):
    shared = {"grid": "null", "grid_size": "null", "credit": "grounded", "scale_window": "20"}
    assert list(defaults(spec).items()) == list({**own, **shared}.items())


@pytest.fixture
def installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package as an installer leaves it: a module, and the metadata with its entry points."""
    folder = tmp_path / "site"
    metadata = folder / "installed_agents_for_test-1.2.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: installed-agents-for-test\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\n"
        "falling = installed_agents_for_test:Falling\n"
        "nested = installed_agents_for_test:Outer.Inner\n"
        "gone = module_that_is_gone_for_test:Gone\n"
        "beta = installed_agents_for_test:Falling\n"
    )
    (folder / "installed_agents_for_test.py").write_text(
        "from agents.schedules import LinearSchedule\n"
        "class Falling(LinearSchedule):\n"
        "    def __init__(self, env, seed=0, *, start=1.0, end=0.0):\n"
        "        super().__init__(env, seed, start=start, end=end)\n"
        "class Outer:\n"
        "    Inner = Falling\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "installed_agents_for_test", raising=False)


@pytest.mark.usefixtures("installed_package")
def test_an_installed_package_brings_agents_by_entry_points():
    assert available()["falling"] == (
        "installed_agents_for_test:Falling, from the installed package installed-agents-for-test."
    )
    assert "installed_agents_for_test" not in sys.modules, "a list of agents imports none"
    agent = make("falling:end=0.5", ToyExposureEnv(), seed=4)
    assert (type(agent).__name__, agent.end, agent.seed) == ("Falling", 0.5, 4)
    assert type(make("nested", ToyExposureEnv())).__name__ == "Falling"
    assert isinstance(make("beta", ToyExposureEnv()), BetaController), "a name of ours stays ours"
    assert available()["beta"].startswith("The paper's controller")


@pytest.mark.usefixtures("installed_package")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("faling", "(did you mean falling?)"),
        ("falling:0.5", "expected falling, with options as key=value, got '0.5' after the name"),
        ("falling:ends=0.5", "it has no ends (did you mean 'end'?)"),
        ("gone", "expected an importable module 'module_that_is_gone_for_test', found none"),
    ],
)
def test_wrong_specs_of_an_installed_package_are_answered(spec: str, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        make(spec, ToyExposureEnv())


def test_a_refused_option_is_named_with_its_agent():
    with pytest.raises(ConfigError, match=r"^agent 'ucb:discount=2', option discount: expected a number"):
        make("ucb:discount=2", ToyExposureEnv())


def test_mistakes_inside_the_users_code_show_themselves(own_package: str):
    with pytest.raises(TypeError, match="a mistake inside"):
        make(f"{own_package}:Failing", ToyExposureEnv())
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        make("own_agents_for_test.broken:Mine", ToyExposureEnv())


PLAYS_A_SCHEDULE = "from agents import make; from atesd_env.simulated.toy import ToyExposureEnv; make('fixed:1', ToyExposureEnv()).learn(2)"


@pytest.mark.parametrize(
    ("code", "is_light"),
    [
        ("import agents", True),
        ("import agents.bandits", True),
        (PLAYS_A_SCHEDULE, True),
        ("import agents.beta", False),
        ("import mabwiser.mab", False),
    ],
)
def test_what_needs_no_heavy_library_loads_none(code: str, is_light: bool):
    """The last cases show that the check can fail."""
    heavy = ("torch", "stable_baselines3", "mabwiser", "sklearn")
    check = f"import sys; {code}; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert (subprocess.run([sys.executable, "-c", check], check=False).returncode == 0) is is_light
