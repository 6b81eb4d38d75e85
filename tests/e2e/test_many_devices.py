"""docs/many-devices.md: its launchers start the processes that it says, as this package recognises them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from atesd_env.population.distributed import is_launched

PAGE = (Path(__file__).parents[2] / "docs" / "many-devices.md").read_text()
PROGRAM = """
import json, os
from pathlib import Path
Path(__file__).with_name(f"rank-{os.environ.get('RANK')}.json").write_text(json.dumps(dict(os.environ)))
"""


def commands() -> list[list[str]]:
    """Returns the words of each command that starts a run in several processes."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if " -m atesd " in line]


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_the_launchers_start_two_processes(launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (words,) = (words for words in commands() if words[0] == launcher)
    executable = Path(sys.executable).with_name(launcher)
    if not executable.exists():
        pytest.skip(f"the command {launcher} is not installed beside {Path(sys.executable).name}")
    (tmp_path / "program.py").write_text(PROGRAM)
    options = words[1 : words.index("-m")]
    done = subprocess.run(
        [str(executable), *options, str(tmp_path / "program.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    environments = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("rank-*.json"))]
    assert [environment["RANK"] for environment in environments] == ["0", "1"]
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, environments[0][name])
    assert is_launched()
