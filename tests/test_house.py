"""The house keeps its rooms: no circle, no import upstairs, nothing that outgrows a screen; the guides name what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.house import FLOORS, ROOT, circles, figures, imports, modules, upward_imports

LIMITS = {"root_files": 12, "circles": 0, "upward_imports": 0, "longest_file": 400, "longest_function": 60}
TOPS = "atesd_env|agents|atesd|analysis|tests|benchmarks|docs|notebooks|hyperparams"


@pytest.fixture(scope="module")
def today() -> dict[str, Any]:
    return figures(ROOT)


@pytest.mark.parametrize("name", LIMITS)
def test_the_house_is_within_its_limits(name: str, today: dict[str, Any]):
    assert today[name] <= LIMITS[name], today.get(f"{name}_where")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A tree that breaks the rules: circles by a late import, by a face and for types only, and an import upstairs."""
    files = {
        "atesd_env/tasks/__init__.py": "on_first_use(__name__, {'base': ('Task',)})",
        "atesd_env/tasks/base.py": "def f():\n    from atesd_env import tasks\n",
        "atesd_env/config/fields.py": "from atesd_env.tasks.base import Task\n",
        "atesd_env/population/window.py": "from atesd_env.config.fields import Field\n",
        "agents/beta.py": "if TYPE_CHECKING:\n    import agents.base\n",
        "agents/base.py": "from agents.beta import Beta\n",
        "analysis/load.py": "import agents.base\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_late_lazy_and_type_only_imports_count(house: Path):
    graph = imports(modules(house))
    assert circles(graph) == [["agents.base", "agents.beta"], ["atesd_env.tasks", "atesd_env.tasks.base"]]
    assert upward_imports(graph) == [("atesd_env.config.fields", "atesd_env.tasks.base")]


def test_lengths_are_of_files_and_of_functions_with_their_bodies(house: Path):
    (house / "atesd_env" / "errors.py").write_text("\n" * 401)
    (house / "tests").mkdir()
    (house / "tests" / "test_tasks.py").write_text("\n" * 5)
    found = figures(house)
    assert (found["longest_file"], found["longest_file_where"]) == (401, "atesd_env/errors.py")
    assert (found["longest_function"], found["longest_function_where"]) == (2, "atesd_env/tasks/base.py:1 f")
    assert (found["product_lines"], found["test_lines"]) == (401 + 9, 5)
    assert (found["root_files"], found["files"]) == (1, 8)
    assert (found["circles"], found["upward_imports"]) == (2, 1)


ROOMS = {name for names in FLOORS for name in names}
"""Rooms and single files of the contract in pyproject.toml."""


def picture(page: str) -> str:
    """Returns the one block of a page that is in no language: the rooms as text."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    (text,) = (text for language, text in blocks if not language)
    return text


def test_pictures_have_every_room():
    svg = (ROOT / "docs" / "architecture.svg").read_text()
    pictures = {
        "CONTRIBUTING.md": set(re.findall(r"\w+", picture("CONTRIBUTING.md"))),
        "architecture.svg": set(re.findall(r">(\w+)</tspan>", svg)),
        "its description": set(re.findall(r"\w+", re.findall(r"<desc[^>]*>(.*?)</desc>", svg)[0])),
    }
    assert {name: sorted(ROOMS - words) for name, words in pictures.items() if not words >= ROOMS} == {}
    assert pictures["architecture.svg"] == ROOMS
    there = {path.stem for path in (ROOT / "atesd_env").iterdir() if path.suffix in ("", ".py") and path.name[0] != "_"}
    assert there - {"assets"} == ROOMS, "the contract has every room"


def test_folders_in_the_picture_exist():
    folders = set(re.findall(r"(\w+)/(?!\w)", picture("CONTRIBUTING.md")))
    assert len(folders) > 10
    tops = [ROOT / top for top in TOPS.split("|")]
    assert [name for name in folders if not any(top.name == name or any(top.rglob(f"{name}/")) for top in tops)] == []


CHANGES = (
    *("A new controller", "A new task", "A new statistic in the row", "A new divergence", "A new engine"),
    *("A new preset", "A new plot", "A new verb", "A new instance", "A new file of a run"),
)


def test_the_guide_says_where_ten_changes_belong():
    rows = re.findall(r"^\| (A new [^|]+?) \| ([^|]+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    assert tuple(change for change, _ in rows) == CHANGES
    assert [change for change, places in rows if not re.search(rf"`(?:{TOPS})/", places)] == []


def test_paths_in_the_guide_exist():
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(rf"\b((?:{TOPS})/[\w/.]*\w/?)", guide)
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []
