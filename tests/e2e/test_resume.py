"""`--resume`: an interrupted run ends with the same files, byte for byte, as one that was left alone."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from analysis import load_runs
from atesd.experiments.resuming import CHECKPOINT_FOLDER
from atesd.experiments.run import execute
from atesd.experiments.specs import RunSpec, plan_runs
from atesd_env.config import preset
from atesd_env.distillation.update import Learner
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.atomic import LOCK_FILE, locked_folder
from atesd_env.files.checkpoint import write_checkpoint
from tests.programs import ATESD, ran, started, typed, wait_until

TINY = {"windows": 4, "hold_window": 2, "num_rollouts": 2, "probe_size": 3, "probe_accuracy_every": 2, "lookahead": 2}
TOY = {"windows": 120, "toy_noise": 0.1}


def plan(out: Path, env_id: str, fields: dict[str, Any], agents: tuple[str, ...] = ("beta",)) -> list[RunSpec]:
    return plan_runs(env_id, preset(env_id, **fields), agents, [0], out)


def final_files(out: Path) -> dict[str, bytes]:
    """Returns the content of every file below a folder of runs, without times and locks."""
    files = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file() and path.name != LOCK_FILE):
        content = path.read_bytes()
        if path.name == "trajectory.jsonl":
            rows = [json.loads(line) for line in content.splitlines()]
            kept = [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]
            content = json.dumps(kept).encode()
        files[str(path.relative_to(out))] = content
    return files


def assert_same_runs(first: Path, second: Path) -> None:
    left, right = final_files(first), final_files(second)
    assert left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []


def killed_runs(out: Path, env_id: str, fields: dict[str, Any], *, kills: int, lives: int) -> list[int]:
    """Makes the runs of beta and random undisturbed and killed (killed_runs.py); returns how many windows there were at each kill."""
    program = (
        Path(__file__).with_name("killed_runs.py"),
        "--out",
        out,
        "--env",
        env_id,
        "--fields",
        json.dumps(fields),
    )
    finished = ran(sys.executable, *program, "--kills", kills, "--lives", lives)
    assert finished.returncode == 0, finished.stderr
    result: list[int] = json.loads(finished.stdout)
    return result


def test_killed_toy_runs_end_with_the_same_files(tmp_path: Path):
    """Both agents, checkpoints after every window, up to 40 kills at random moments."""
    windows_at_kill = killed_runs(tmp_path, "ATESD-Toy-v0", TOY, kills=40, lives=6)
    assert len(windows_at_kill) >= 3
    assert any(0 < windows < 2 * TOY["windows"] for windows in windows_at_kill), "killed in the middle"
    assert_same_runs(tmp_path / "alone", tmp_path / "killed")
    assert len(final_files(tmp_path / "alone")) == 8, "two runs of config, trajectory, samples, agent"
    assert load_runs(tmp_path / "killed")["window"].tolist() == [*range(1, 121), *range(1, 121)]


def test_killed_tiny_runs_end_with_the_same_files(tmp_path: Path):
    """Both agents on the packaged student, up to 6 kills at random moments."""
    assert len(killed_runs(tmp_path, "ATESD-Tiny-v0", TINY, kills=6, lives=2)) >= 1
    assert_same_runs(tmp_path / "alone", tmp_path / "killed")
    assert "beta-seed0/adapter/adapter_model.safetensors" in final_files(tmp_path / "alone")


def test_sigterm_says_how_to_go_on_and_the_command_does(tmp_path: Path):
    arguments = ["run", "--env", "ATESD-Toy-v0", "--agent", "beta", "--windows", "800"]
    arguments += ["--checkpoint-every", "20", "--out"]
    assert typed(*arguments, tmp_path / "alone").returncode == 0
    process = started(ATESD, *arguments, tmp_path / "ended")
    folder = tmp_path / "ended" / "beta-seed0" / CHECKPOINT_FOLDER
    wait_until(lambda: any(folder.glob("window-*")))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "interrupted; the windows written so far can be read. The same arguments and --resume" in errors
    assert folder.exists(), "it was stopped in the middle"
    assert typed(*arguments, tmp_path / "ended", "--resume").returncode == 0
    for picture in tmp_path.glob("*/exposure.png"):
        picture.unlink()
    assert_same_runs(tmp_path / "alone", tmp_path / "ended")


@pytest.mark.parametrize("at_update", [1, 4, 7])
def test_an_exception_inside_an_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_update: int):
    """Half a window is lost with the process and made again; the windows before it are not."""
    (alone,) = plan(tmp_path / "alone", "ATESD-Tiny-v0", TINY)
    (broken,) = plan(tmp_path / "broken", "ATESD-Tiny-v0", TINY)
    execute(alone)
    update, num_calls = Learner.update, 0

    def failing_update(self: Learner, *arguments: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        if num_calls == at_update:
            raise MemoryError("no memory left")
        return update(self, *arguments)

    monkeypatch.setattr(Learner, "update", failing_update)
    with pytest.raises(MemoryError):
        execute(broken, checkpoint_every=1)
    made_before = num_calls
    execute(broken, resume=True, checkpoint_every=1)
    num_updates = TINY["windows"] * TINY["hold_window"]
    assert num_calls - made_before == num_updates - (at_update - 1) // TINY["hold_window"] * TINY["hold_window"]
    assert_same_runs(tmp_path / "alone", tmp_path / "broken")


def stop_after(spec: RunSpec, window: int, **arguments: Any) -> None:
    """Executes a run up to a window, and is interrupted there, before the window's checkpoint."""

    def report(info: dict[str, Any]) -> None:
        if info["window"] == window:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(spec, report=report, **arguments)


@pytest.mark.parametrize(
    "agent",
    [
        "beta",
        "beta:credit=one-step",
        "random",
        "linear:0:1",
        "staged:0.3:1:0.5",
        "binomial",
        "feedback",
        "lookahead:every=4:start=1",
        "balance:every=3:weight=0.2",
        "fixed:0.5",
        "ucb",
        "thompson",
        "exp3s",
        "linucb",
    ],
)
@pytest.mark.parametrize("every", [0, 1, 7])
def test_every_agent_goes_on_whatever_lies_between_checkpoints(tmp_path: Path, agent: str, every: int):
    (alone,) = plan(tmp_path / "alone", "ATESD-Toy-v0", {"windows": 20}, (agent,))
    (stopped,) = plan(tmp_path / "stopped", "ATESD-Toy-v0", {"windows": 20}, (agent,))
    execute(alone)
    stop_after(stopped, 10, checkpoint_every=every)
    stop_after(stopped, 18, checkpoint_every=every, resume=True)
    assert (stopped.folder / CHECKPOINT_FOLDER).exists()
    execute(stopped, resume=True, checkpoint_every=every)
    assert_same_runs(tmp_path / "alone", tmp_path / "stopped")


def test_a_run_killed_after_its_last_window_only_writes_its_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (alone,) = plan(tmp_path / "alone", "ATESD-Toy-v0", {"windows": 5})
    (stopped,) = plan(tmp_path / "stopped", "ATESD-Toy-v0", {"windows": 5})
    execute(alone)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("atesd.experiments.run._save_results", interrupt)
    with pytest.raises(KeyboardInterrupt):
        execute(stopped, checkpoint_every=1)
    monkeypatch.undo()
    execute(stopped, resume=True)
    assert_same_runs(tmp_path / "alone", tmp_path / "stopped")


def test_a_run_killed_while_its_checkpoints_are_deleted_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (alone,) = plan(tmp_path / "alone", "ATESD-Toy-v0", {"windows": 5})
    (stopped,) = plan(tmp_path / "stopped", "ATESD-Toy-v0", {"windows": 5})
    execute(alone)
    monkeypatch.setattr("atesd.experiments.resuming.RunCheckpoints.clean", lambda _: None)
    execute(stopped, checkpoint_every=1)
    monkeypatch.undo()
    execute(stopped, resume=True)
    assert_same_runs(tmp_path / "alone", tmp_path / "stopped")


def test_finished_runs_are_skipped(tmp_path: Path):
    (spec,) = plan(tmp_path, "ATESD-Toy-v0", {"windows": 5})
    execute(spec)
    before = {path: path.stat().st_mtime_ns for path in spec.folder.iterdir()}
    reported: list[int] = []
    execute(spec, resume=True, report=lambda info: reported.append(info["window"]))
    assert {path: path.stat().st_mtime_ns for path in spec.folder.iterdir()} == before
    assert reported == [1, 2, 3, 4, 5], "a progress bar shows them all the same"


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (alone,) = plan(tmp_path / "alone", "ATESD-Toy-v0", {"windows": 20})
    (stopped,) = plan(tmp_path / "stopped", "ATESD-Toy-v0", {"windows": 20})
    execute(alone)
    stop_after(stopped, 10, checkpoint_every=1)
    older, newest = sorted((stopped.folder / CHECKPOINT_FOLDER).iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    reported: list[int] = []
    execute(stopped, resume=True, report=lambda info: reported.append(info["window"]))
    assert f"{newest}: expected a whole checkpoint" in caplog.text
    assert older.name == "window-000008.safetensors"
    assert reported == list(range(1, 21))
    assert_same_runs(tmp_path / "alone", tmp_path / "stopped")


def test_without_a_whole_checkpoint_a_run_begins_anew(tmp_path: Path):
    (alone,) = plan(tmp_path / "alone", "ATESD-Toy-v0", {"windows": 20})
    (stopped,) = plan(tmp_path / "stopped", "ATESD-Toy-v0", {"windows": 20})
    execute(alone)
    stop_after(stopped, 10, checkpoint_every=1)
    for path in (stopped.folder / CHECKPOINT_FOLDER).iterdir():
        path.write_bytes(b"")
    execute(stopped, resume=True)
    assert_same_runs(tmp_path / "alone", tmp_path / "stopped")


def test_an_agent_that_does_not_tell_its_state_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own_agent_for_resume.py").write_text(
        "import numpy as np\n"
        "class Counting:\n"
        "    count = 0\n"
        "    def predict(self, observation, state=None, episode_start=None, deterministic=False):\n"
        "        self.count += 1\n"
        "        return np.array([self.count / 100], dtype=np.float32), state\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    fields, agents = {"windows": 12}, ("own_agent_for_resume:Counting",)
    (alone,) = plan(tmp_path / "alone", "ATESD-Toy-v0", fields, agents)
    (stopped,) = plan(tmp_path / "stopped", "ATESD-Toy-v0", fields, agents)
    execute(alone)
    stop_after(stopped, 10, checkpoint_every=1)
    execute(stopped, resume=True)
    assert_same_runs(tmp_path / "alone", tmp_path / "stopped")


def test_other_arguments_are_refused_and_named(tmp_path: Path):
    (spec,) = plan(tmp_path, "ATESD-Toy-v0", {"windows": 20})
    stop_after(spec, 10, checkpoint_every=1)
    before = final_files(tmp_path)
    (other,) = plan(tmp_path, "ATESD-Toy-v0", {"windows": 30})
    with pytest.raises(ConfigError, match=r"other values of windows \(20 there, 30 now\)"):
        execute(other, resume=True)
    assert final_files(tmp_path) == before


def test_a_lost_row_is_noticed(tmp_path: Path):
    (spec,) = plan(tmp_path, "ATESD-Toy-v0", {"windows": 20})
    stop_after(spec, 10, checkpoint_every=1)
    trajectory = spec.folder / "trajectory.jsonl"
    trajectory.write_bytes(b"".join(trajectory.read_bytes().splitlines(keepends=True)[:5]))
    with pytest.raises(RunFilesError, match=r"expected the rows of windows 1 to 9.*got 5 of them"):
        execute(spec, resume=True)


def test_a_checkpoint_that_cannot_be_written_stops_the_run_and_the_rest_is_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (alone,) = plan(tmp_path / "alone", "ATESD-Toy-v0", {"windows": 20})
    (full,) = plan(tmp_path / "full", "ATESD-Toy-v0", {"windows": 20})
    execute(alone)

    def fail_from_window_5(path: Path, checkpoint: Any) -> None:
        if "000005" in path.name:
            raise RunFilesError(f"{path}: no space")
        write_checkpoint(path, checkpoint)

    monkeypatch.setattr("atesd_env.files.checkpoint.write_checkpoint", fail_from_window_5)
    with pytest.raises(RunFilesError, match="no space"):
        execute(full, checkpoint_every=1)
    monkeypatch.undo()
    assert load_runs(tmp_path / "full")["window"].tolist() == [1, 2, 3, 4, 5]
    execute(full, resume=True)
    assert_same_runs(tmp_path / "alone", tmp_path / "full")


def test_overwriting_forgets_the_old_runs_checkpoints(tmp_path: Path):
    (alone,) = plan(tmp_path / "alone", "ATESD-Toy-v0", {"windows": 20, "toy_noise": 0.5})
    (old,) = plan(tmp_path / "again", "ATESD-Toy-v0", {"windows": 20})
    (new,) = plan(tmp_path / "again", "ATESD-Toy-v0", {"windows": 20, "toy_noise": 0.5})
    execute(alone)
    stop_after(old, 15, checkpoint_every=1)
    stop_after(new, 3, overwrite=True, checkpoint_every=10)
    execute(new, resume=True)
    assert_same_runs(tmp_path / "alone", tmp_path / "again")


def test_a_runs_checkpoint_is_a_state_to_branch_from(tmp_path: Path):
    (spec,) = plan(tmp_path, "ATESD-Toy-v0", {"windows": 20})
    stop_after(spec, 10, checkpoint_every=1)
    import gymnasium

    env = gymnasium.make("ATESD-Toy-v0", windows=20)
    env.reset(options={"state": spec.folder / CHECKPOINT_FOLDER / "window-000009.safetensors"})
    assert env.step([0.5])[4]["window"] == 10


def test_a_second_process_on_a_run_is_refused(tmp_path: Path):
    (spec,) = plan(tmp_path, "ATESD-Toy-v0", {"windows": 20})
    stop_after(spec, 10, checkpoint_every=1)
    before = final_files(tmp_path)
    arguments = ["run", "--env", "ATESD-Toy-v0", "--agent", "beta", "--windows", "20", "--out", str(tmp_path)]
    with locked_folder(spec.folder):
        for how in ("--resume", "--overwrite"):
            refused = typed(*arguments, how)
            assert refused.returncode == 1
            assert "no other process writes to" in refused.stderr
    assert final_files(tmp_path) == before


def test_resume_and_overwrite_exclude_each_other(tmp_path: Path):
    arguments = ["run", "--agent", "random", "--out", str(tmp_path), "--resume", "--overwrite"]
    refused = typed(*arguments)
    assert refused.returncode == 2
    assert "expected either --resume or --overwrite" in refused.stderr
