"""`import atesd_env` is light: it registers the ids and loads no heavy package; the check can fail."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.registration import load_env_creator

import atesd_env
from atesd_env import errors
from tests.programs import ROOT, ran

HEAVY = ("torch", "matplotlib", "sklearn", "transformers", "stable_baselines3", "peft", "tokenizers", "datasets", "trl")


def loaded_heavy_packages(statement: str, *extra_paths: Path) -> list[str]:
    """Returns which heavy packages a fresh interpreter has loaded after a statement, warnings being errors."""
    program = f"import sys\n{statement}\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    paths = os.pathsep.join(str(path) for path in (*extra_paths, ROOT))
    finished = ran(sys.executable, "-P", "-W", "error", "-c", program, PYTHONPATH=paths)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.split()


LIGHT_ROOMS = ("config", "envs", "errors", "exposure", "files", "simulated", "streams", "tasks")


@pytest.mark.parametrize("room", LIGHT_ROOMS)
def test_every_module_of_a_light_room_loads_nothing_heavy(room: str):
    """Not only the room's face, which imports what is listed in it when it is first asked for."""
    folder = ROOT / "atesd_env" / room
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    assert f"atesd_env.{room}" in modules
    assert loaded_heavy_packages(f"import {', '.join(modules)}") == []


def test_the_check_sees_a_package_that_was_loaded(tmp_path: Path):
    """Stand-ins by the real names keep this fast; the check looks at names only."""
    for name in HEAVY:
        (tmp_path / f"{name}.py").write_text("")
    assert loaded_heavy_packages(f"import atesd_env, {', '.join(HEAVY)}", tmp_path) == list(HEAVY)
    assert loaded_heavy_packages("import atesd_env, torch", tmp_path) == ["torch"]


def test_the_check_sees_a_package_that_ours_loads(tmp_path: Path):
    """A copy of the package's surface whose import does load torch is caught."""
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "atesd_env.py").write_text("import torch")
    assert loaded_heavy_packages("import atesd_env", tmp_path) == ["torch"]


def test_importing_registers_every_id_without_loading_anything_heavy():
    statement = (
        "import atesd_env, gymnasium\nfor env_id in atesd_env.PRESETS: assert gymnasium.spec(env_id).id == env_id"
    )
    assert loaded_heavy_packages(statement) == []


def test_importing_again_registers_nothing_twice():
    """Gymnasium warns when an id is registered over; warnings are errors here."""
    assert loaded_heavy_packages("import atesd_env, importlib\nimportlib.reload(atesd_env)") == []


@pytest.mark.parametrize("env_id", atesd_env.PRESETS)
def test_every_id_has_a_spec_that_can_be_loaded_and_leaves_the_end_to_the_environment(env_id: str):
    spec = gymnasium.spec(env_id)
    assert spec.max_episode_steps is None
    assert spec.kwargs == ({} if env_id == "ATESD-Toy-v0" else {"env_id": env_id})
    assert isinstance(spec.entry_point, str)
    assert callable(load_env_creator(spec.entry_point))


def test_every_public_name_exists():
    assert all(hasattr(atesd_env, name) for name in atesd_env.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'TeacherEnv'"):
        atesd_env.TeacherEnv  # noqa: B018 (asking is the test)


def test_every_error_is_a_public_name():
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    ours = {kind.__name__ for kind in kinds if issubclass(kind, errors.AtesdError)}
    assert len(ours) > 10
    assert ours <= set(atesd_env.__all__)
