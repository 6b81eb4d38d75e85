"""Run files: what a user finds in the folder, and what stays of it when something goes wrong."""

import contextlib
import io
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from atesd_env.config import EnvConfig
from atesd_env.envs.recording import RecordTrajectory
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.run_folder import RUN_FILES, RunWriter, check_same_run, package_versions, read_rows
from tests.programs import ran

DESCRIPTION = {"env_id": "ATESD-Tiny-v0", "agent": "fixed:1", "seed": 3, "config": EnvConfig()}


def strict_json(text: str | bytes) -> Any:
    """Parses JSON as the standard has it: NaN and Infinity are refused."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Makes the operating system cut every file of this process at ``size`` bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_config_file_describes_the_run(tmp_path: Path) -> None:
    RunWriter(tmp_path / "runs" / "first", {**DESCRIPTION, "commit": "abc"}).close()
    config = strict_json((tmp_path / "runs" / "first" / "config.json").read_text())
    assert config["format_version"] == 1
    assert config["run"] == "first"
    told = [config[name] for name in ("env_id", "agent", "seed", "commit")]
    assert told == ["ATESD-Tiny-v0", "fixed:1", 3, "abc"]
    restored = {name: tuple(value) if isinstance(value, list) else value for name, value in config["config"].items()}
    assert EnvConfig(**restored) == EnvConfig()
    assert config["versions"]["python"] == sys.version.split()[0]
    assert config["versions"]["numpy"] == np.__version__
    assert {path.name for path in (tmp_path / "runs" / "first").iterdir()} == set(RUN_FILES)


@pytest.mark.parametrize("key", ["env_id", "agent", "seed", "config"])
def test_description_without_a_key_is_refused_before_anything_is_written(tmp_path: Path, key: str) -> None:
    description = {name: value for name, value in DESCRIPTION.items() if name != key}
    with pytest.raises(ConfigError, match=f"got none of {key}"):
        RunWriter(tmp_path / "run", description)
    assert not (tmp_path / "run").exists()


def test_versions_are_read_without_importing_the_packages() -> None:
    code = (
        "import sys, atesd_env.files.run_folder as t; v = t.package_versions(); "
        "print(v['torch'] is not None, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    result = ran(sys.executable, "-c", code)
    assert result.stdout.split() == ["True", "False", "False"]


def test_an_absent_package_has_version_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atesd_env.files.run_folder.VERSIONED_PACKAGES", ("surely-not-a-package-of-ours",))
    assert package_versions()["surely-not-a-package-of-ours"] is None


def test_rows_are_on_disk_as_soon_as_they_are_written_and_in_order(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, DESCRIPTION)
    for window in (1, 2, 3):
        writer.write_row({"window": window, "probe/nll": 1.5, "probe/accuracy": None, "status": "running"})
        rows = read_rows(tmp_path / "trajectory.jsonl")  # the writer is still open
        assert [row["window"] for row in rows] == list(range(1, window + 1))
    assert writer.num_rows == 3
    assert rows[0] == {"window": 1, "probe/nll": 1.5, "probe/accuracy": None, "status": "running"}
    writer.close()


def test_numbers_come_back_exactly_and_numpy_scalars_are_numbers(tmp_path: Path) -> None:
    ratio = np.float32(0.1)
    with RunWriter(tmp_path, DESCRIPTION) as writer:
        writer.write_row(
            {"window": np.int64(1), "exposure/reveal_ratio_0": ratio, "x": 0.1 + 0.2, "y": np.float64(1e-300)}
        )
    (row,) = read_rows(tmp_path / "trajectory.jsonl")
    assert row == {"window": 1, "exposure/reveal_ratio_0": float(ratio), "x": 0.1 + 0.2, "y": 1e-300}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_numbers_that_json_lacks_become_null_and_are_named(tmp_path: Path, bad: float) -> None:
    with RunWriter(tmp_path, DESCRIPTION) as writer:
        writer.write_row({"window": 1, "student/loss": bad, "probe/nll": bad, "reward/total": 0.5})
        writer.write_row({"window": 2, "student/loss": 1.0})
        writer.write_sample({"window": 1, "log_probs": [0.5, bad]})
    first, second = (strict_json(line) for line in (tmp_path / "trajectory.jsonl").read_text().splitlines())
    assert first == {
        "window": 1,
        "student/loss": None,
        "probe/nll": None,
        "reward/total": 0.5,
        "non_finite": "student/loss, probe/nll",
    }
    assert second == {"window": 2, "student/loss": 1.0}
    assert strict_json((tmp_path / "samples.jsonl").read_text()) == {"window": 1, "log_probs": [0.5, None]}


@pytest.mark.parametrize("value", [[1.0], {"a": 1}, np.zeros(2), object()])
def test_a_row_takes_one_number_in_a_column(tmp_path: Path, value: Any) -> None:
    with RunWriter(tmp_path, DESCRIPTION) as writer:
        with pytest.raises(ConfigError, match=r"row column 'student/loss': expected a number"):
            writer.write_row({"window": 1, "student/loss": value})
        writer.write_row({"window": 1})
    assert read_rows(tmp_path / "trajectory.jsonl") == [{"window": 1}]


def test_samples_hold_any_text_on_one_line(tmp_path: Path) -> None:
    texts = ["two\nlines", "π ≈ 3", "line\u2028separator", "lone surrogate \ud800", '"quoted"']
    with RunWriter(tmp_path, DESCRIPTION) as writer:
        for text in texts:
            writer.write_sample({"rollout": text, "tokens": (1, np.int64(2))})
    samples = read_rows(tmp_path / "samples.jsonl")
    assert [sample["rollout"] for sample in samples] == texts
    assert samples[0]["tokens"] == [1, 2]
    assert (tmp_path / "samples.jsonl").read_bytes().count(b"\n") == len(texts)


@pytest.mark.parametrize("name", RUN_FILES)
def test_an_existing_run_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises(RunFilesError, match=rf"got one with {name}; choose another folder \(--out\), or .*overwrite"):
        RunWriter(tmp_path, DESCRIPTION)
    assert (tmp_path / name).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_overwrite_replaces_the_run_and_keeps_other_files(tmp_path: Path) -> None:
    with RunWriter(tmp_path, DESCRIPTION) as writer:
        writer.write_row({"window": 1, "probe/nll": 1.0})
        writer.write_sample({"rollout": "old"})
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with RunWriter(tmp_path, {**DESCRIPTION, "seed": 4}, overwrite=True) as writer:
        writer.write_row({"window": 1, "probe/nll": 2.0})
    assert read_rows(tmp_path / "trajectory.jsonl") == [{"window": 1, "probe/nll": 2.0}]
    assert read_rows(tmp_path / "samples.jsonl") == []
    assert strict_json((tmp_path / "config.json").read_text())["seed"] == 4
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "adapter" / "adapter_config.json").exists()


def test_a_folder_that_holds_only_other_files_is_taken(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    RunWriter(tmp_path, DESCRIPTION).close()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_path_below_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        RunFilesError, match=r"file/run: expected a folder to write to, got .*; check the path"
    ) as caught:
        RunWriter(tmp_path / "file" / "run", DESCRIPTION)
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value.__cause__, NotADirectoryError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_a_read_only_folder_is_a_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunFilesError, match="check the path and its permissions"):
        RunWriter(tmp_path, DESCRIPTION)


def test_a_disk_full_at_the_start_leaves_no_half_run(tmp_path: Path) -> None:
    with file_size_limit(100), pytest.raises(RunFilesError, match=r"config\.json.*free some space"):
        RunWriter(tmp_path, DESCRIPTION)
    assert list(tmp_path.iterdir()) == []
    RunWriter(tmp_path, DESCRIPTION).close()


def test_a_write_that_fails_half_way_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "trajectory.jsonl"
    writer = RunWriter(tmp_path, DESCRIPTION)
    writer.write_row({"window": 1, "probe/nll": 1.0})
    whole = path.read_bytes()
    with (
        file_size_limit(len(whole) + 10),
        pytest.raises(RunFilesError, match=r"trajectory\.jsonl: .*free some space.*Earlier lines are intact\."),
    ):
        writer.write_row({"window": 2, "probe/nll": 2.0})
    assert path.read_bytes() == whole
    assert writer.num_rows == 1
    # Space has been freed: the run goes on.
    writer.write_row({"window": 3, "probe/nll": 3.0})
    writer.close()
    assert read_rows(path) == [{"window": 1, "probe/nll": 1.0}, {"window": 3, "probe/nll": 3.0}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_disk_that_cannot_even_drop_the_half_line_is_said(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, DESCRIPTION)
    writer._samples._file.close()
    writer._samples._file = io.FileIO("/dev/full", "w")
    with pytest.raises(RunFilesError, match=r"No space left on device.*the last one may be cut"):
        writer.write_sample({"rollout": "text"})
    writer.close()


def test_writing_after_close_is_a_clear_error(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, DESCRIPTION)
    writer.write_row({"window": 1})
    writer.close()
    writer.close()
    with pytest.raises(RunFilesError, match="expected an open file, got a closed one"):
        writer.write_row({"window": 2})
    assert read_rows(tmp_path / "trajectory.jsonl") == [{"window": 1}]


@pytest.mark.parametrize(
    "tail", [b"", b'\n{"window": 3, "pro', b'\n{"window": 3, "pro\n', b"\n\x00\x00\x00", b'\n{"a": "\xff', b"\n3"]
)
def test_an_unfinished_last_line_is_dropped_and_one_that_lacks_its_end_kept(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "trajectory.jsonl"
    path.write_bytes(b'{"window": 1}\n{"window": 2}' + tail)
    assert read_rows(path) == [{"window": 1}, {"window": 2}]


@pytest.mark.parametrize("damage", [b'{"window": ', b"[1]", b"", b"\xff"])
def test_a_damaged_line_in_the_middle_names_file_and_line(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "trajectory.jsonl"
    path.write_bytes(b'{"window": 1}\n' + damage + b'\n{"window": 3}\n')
    with pytest.raises(RunFilesError, match=r"trajectory\.jsonl, line 2: expected a JSON object"):
        read_rows(path)


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunFilesError, match="expected a readable file, got 'No such file or directory'"):
        read_rows(tmp_path / "trajectory.jsonl")


class StubEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """Three windows; the row carries the action, so that a mix-up of episodes shows."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,), dtype=np.float32)
    action_space = gymnasium.spaces.Box(0, 1, (1,), dtype=np.float32)

    def __init__(self, breaks_at: int | None = None) -> None:
        self.breaks_at = breaks_at
        self.window = 0
        self.is_closed = False

    def reset(self, **_: Any) -> tuple[np.ndarray, dict[str, Any]]:
        self.window = 0
        return np.zeros(1, dtype=np.float32), {"probe/nll": 9.0}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.window += 1
        terminated = self.window == self.breaks_at
        info: dict[str, Any] = {
            "window": self.window,
            "exposure/reveal_ratio": float(action[0]),
            "exposure/reveal_ratio_0": 0.25,
            "exposure/reveal_ratio_10": 0.75,
            "probe/accuracy": None,
            "not/a/column": "kept out",
        }
        if terminated:
            info["termination_reason"] = "collapse"
        return np.zeros(1, dtype=np.float32), 0.0, terminated, not terminated and self.window == 3, info

    def close(self) -> None:
        self.is_closed = True


class TimedEnv(StubEnv):
    """Also has what the trained environments have beside the row."""

    @property
    def timings(self) -> dict[str, float]:
        return {"time/probe_sec": 0.5 * self.window}

    def samples(self, num_samples: int) -> list[dict[str, Any]]:
        return [{"rollout": f"window {self.window} sample {index}"} for index in range(num_samples)]


def play(env: gymnasium.Env[Any, Any], ratio: float) -> None:
    """Plays one episode."""
    env.reset()
    done = False
    while not done:
        _, _, terminated, truncated, _ = env.step(np.asarray([ratio], dtype=np.float32))
        done = terminated or truncated


def recorder(folder: Path, env: gymnasium.Env[Any, Any] | None = None, **arguments: Any) -> RecordTrajectory:
    """Records a stub, wrapped once more to see that wrappers in between do no harm."""
    return RecordTrajectory(
        gymnasium.wrappers.TransformReward(env or StubEnv(), lambda reward: reward),
        RunWriter(folder, DESCRIPTION),
        **arguments,
    )


def recorded(folder: Path, env: gymnasium.Env[Any, Any] | None = None, **arguments: Any) -> list[dict[str, Any]]:
    """Records one episode; returns its rows."""
    with contextlib.closing(recorder(folder, env, **arguments)) as recording:
        play(recording, 0.5)
    return read_rows(folder / "trajectory.jsonl")


def test_a_row_holds_columns_times_agent_numbers_and_status(tmp_path: Path) -> None:
    values = iter([0.1, 0.2, math.nan])
    rows = recorded(tmp_path, TimedEnv(), extra=lambda: {"entropy": next(values)})
    seconds = {name: rows[0].pop(name) for name in ("time/window_sec", "time/controller_sec")}
    assert all(value >= 0.0 for value in seconds.values())
    assert rows[0] == {
        "window": 1,
        "probe/nll_before": 9.0,
        "exposure/reveal_ratio": 0.5,
        "probe/accuracy": None,
        "exposure/reveal_ratio_0": 0.25,
        "exposure/reveal_ratio_10": 0.75,
        "update/num_tokens": None,
        "time/probe_sec": 0.5,
        "agent/entropy": 0.1,
        "status": "running",
        "reason": None,
    }
    assert [row["status"] for row in rows] == ["running", "running", "truncated"]
    assert [row["time/probe_sec"] for row in rows] == [0.5, 1.0, 1.5]
    assert [row["agent/entropy"] for row in rows] == [0.1, 0.2, None]
    assert rows[2]["non_finite"] == "agent/entropy"


def test_only_the_first_row_tells_the_base_models_nll(tmp_path: Path) -> None:
    assert ["probe/nll_before" in row for row in recorded(tmp_path)] == [True, False, False]


def test_seconds_are_split_between_window_and_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only moves when it is told to: 5 s a window, 2 s of deciding, 100 s that are nobody's."""
    clock = 1000.0
    monkeypatch.setattr("atesd_env.envs.recording.time.perf_counter", lambda: clock)

    class SlowEnv(StubEnv):
        def step(self, action: Any) -> Any:
            nonlocal clock
            clock += 5.0
            return super().step(action)

    env = recorder(tmp_path, SlowEnv())
    env.reset()
    for _ in range(3):
        clock += 2.0
        with env.outside_controller():
            clock += 100.0
        env.step(np.asarray([0.5], dtype=np.float32))
    env.close()
    rows = read_rows(tmp_path / "trajectory.jsonl")
    assert [row["time/window_sec"] for row in rows] == [5.0, 5.0, 5.0]
    assert [row["time/controller_sec"] for row in rows] == [2.0, 2.0, 2.0]


def test_a_run_that_goes_on_does_not_know_the_first_decisions_seconds(tmp_path: Path) -> None:
    env = recorder(tmp_path)
    env.unwrapped.reset()  # not through the recorder, as when a checkpoint is restored
    with env.outside_controller():
        pass
    for _ in range(2):
        env.step(np.asarray([0.5], dtype=np.float32))
    env.close()
    first, second = read_rows(tmp_path / "trajectory.jsonl")
    assert first["time/controller_sec"] is None
    assert "probe/nll_before" not in first
    assert second["time/controller_sec"] >= 0.0


def test_a_broken_student_is_recorded_with_its_reason(tmp_path: Path) -> None:
    rows = recorded(tmp_path, StubEnv(breaks_at=2))
    assert [(row["status"], row["reason"]) for row in rows] == [("running", None), ("terminated", "collapse")]


@pytest.mark.parametrize("num_samples", [0, 1, 2])
def test_samples_carry_their_window(tmp_path: Path, num_samples: int) -> None:
    recorded(tmp_path, TimedEnv(), num_samples=num_samples)
    assert read_rows(tmp_path / "samples.jsonl") == [
        {"window": window, "rollout": f"window {window} sample {index}"}
        for window in (1, 2, 3)
        for index in range(num_samples)
    ]


def test_an_environment_without_samples_and_times_is_recorded(tmp_path: Path) -> None:
    assert len(recorded(tmp_path)) == 3
    assert read_rows(tmp_path / "samples.jsonl") == []


def test_only_the_first_episode_is_recorded(tmp_path: Path) -> None:
    env = recorder(tmp_path)
    env.reset()
    env.reset()  # before the first window a reset changes nothing
    assert not env.finished
    play(env, 0.25)
    assert env.finished
    play(env, 0.75)
    env.close()
    assert [row["exposure/reveal_ratio"] for row in read_rows(tmp_path / "trajectory.jsonl")] == [0.25] * 3


def test_a_reset_in_the_middle_ends_the_recording(tmp_path: Path) -> None:
    env = recorder(tmp_path)
    env.reset()
    env.step(np.asarray([0.25], dtype=np.float32))
    assert not env.finished
    play(env, 0.75)
    assert env.finished
    env.close()
    rows = read_rows(tmp_path / "trajectory.jsonl")
    assert [(row["exposure/reveal_ratio"], row["status"]) for row in rows] == [(0.25, "running")]


def test_what_the_agent_sees_is_passed_through(tmp_path: Path) -> None:
    env = recorder(tmp_path)
    observation, info = env.reset(seed=1)
    assert info == {"probe/nll": 9.0}
    observation, reward, terminated, truncated, info = env.step(np.asarray([0.5], dtype=np.float32))
    assert (observation.shape, reward, terminated, truncated) == ((1,), 0.0, False, False)
    assert info["not/a/column"] == "kept out"
    env.close()


def test_closing_the_environment_closes_the_files(tmp_path: Path) -> None:
    stub = StubEnv()
    env = recorder(tmp_path, stub)
    env.close()
    env.close()
    assert stub.is_closed
    with pytest.raises(RunFilesError, match="closed"):
        env.writer.write_row({"window": 1})


def test_a_foreign_environment_is_a_clear_error(tmp_path: Path) -> None:
    class Foreign(StubEnv):
        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            return np.zeros(1, dtype=np.float32), 0.0, False, False, {"score": 1}

    env = recorder(tmp_path, Foreign())
    env.reset()
    with pytest.raises(ConfigError, match=r"expected a window's row .*got the keys \['score'\]"):
        env.step(np.asarray([0.5], dtype=np.float32))
    env.close()


def test_a_disk_that_fills_up_while_logging_keeps_the_earlier_windows(tmp_path: Path) -> None:
    env = recorder(tmp_path)
    env.reset()
    action = np.asarray([0.5], dtype=np.float32)
    env.step(action)
    size = (tmp_path / "trajectory.jsonl").stat().st_size
    with file_size_limit(size + 20), pytest.raises(RunFilesError, match="Earlier lines are intact"):
        env.step(action)
    env.close()
    assert [row["window"] for row in read_rows(tmp_path / "trajectory.jsonl")] == [1]


def test_a_killed_run_leaves_readable_whole_lines(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from atesd_env.files.run_folder import RunWriter\n"
        "writer = RunWriter(sys.argv[1], dict(env_id='a', agent='b', seed=0, config={}))\n"
        "for window in (1, 2, 3):\n"
        "    writer.write_row({'window': window})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert ran(sys.executable, "-c", code, tmp_path).returncode == -signal.SIGKILL
    assert read_rows(tmp_path / "trajectory.jsonl") == [{"window": 1}, {"window": 2}, {"window": 3}]


def begun_run(folder: Path) -> Path:
    """A run of four windows with two samples each, the last line cut as a kill may leave it."""
    with RunWriter(folder, DESCRIPTION) as writer:
        for window in (1, 2, 3, 4):
            writer.write_row({"window": window, "status": "running"})
            writer.write_sample({"window": window, "rollout": "a"})
            writer.write_sample({"window": window, "rollout": "b"})
    for name in ("trajectory.jsonl", "samples.jsonl"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-3])
    return folder


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_a_run_goes_on_after_the_windows_to_keep(tmp_path: Path, keep: int) -> None:
    folder = begun_run(tmp_path / "run")
    config = (folder / "config.json").read_bytes()
    with RunWriter(folder, DESCRIPTION, keep_windows=keep) as writer:
        assert writer.num_rows == keep
        writer.write_row({"window": keep + 1, "status": "new"})
        writer.write_sample({"window": keep + 1, "rollout": "c"})
        writer.sync()
    assert [row["window"] for row in read_rows(folder / "trajectory.jsonl")] == list(range(1, keep + 2))
    assert read_rows(folder / "trajectory.jsonl")[-1]["status"] == "new"
    assert [row["rollout"] for row in read_rows(folder / "samples.jsonl")] == [*"ab" * keep, "c"]
    assert (folder / "config.json").read_bytes() == config


def test_rows_that_are_to_be_kept_must_be_there(tmp_path: Path) -> None:
    folder = begun_run(tmp_path / "run")
    before = (folder / "trajectory.jsonl").read_bytes()
    with pytest.raises(RunFilesError, match=r"expected the rows of windows 1 to 4.*got 3 of them"):
        RunWriter(folder, DESCRIPTION, keep_windows=4)
    assert (folder / "trajectory.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, r"seed \(3 there, 4 now\)"),
        ({"agent": "beta"}, r"agent \('fixed:1' there, 'beta' now\)"),
        ({"config": EnvConfig(lora_r=2, gamma=0.5)}, r"gamma \(0.9 there, 0.5 now\), lora_r \(8 there, 2 now\)"),
    ],
)
def test_another_run_does_not_go_on_in_its_place(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = begun_run(tmp_path / "run")
    with pytest.raises(ConfigError, match=message):
        RunWriter(folder, {**DESCRIPTION, **change}, keep_windows=1)


def test_other_versions_may_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begun_run(tmp_path / "run")
    monkeypatch.setattr("atesd_env.files.run_folder.VERSIONED_PACKAGES", ("another",))
    RunWriter(folder, DESCRIPTION, keep_windows=1).close()


def test_a_run_without_a_description_cannot_go_on(tmp_path: Path) -> None:
    folder = begun_run(tmp_path / "run")
    (folder / "config.json").write_text("[]")
    with pytest.raises(RunFilesError, match="expected a run's description"):
        RunWriter(folder, DESCRIPTION, keep_windows=1)
    (folder / "config.json").unlink()
    with pytest.raises(RunFilesError, match="expected a readable file"):
        RunWriter(folder, DESCRIPTION, keep_windows=1)


def edited(path: Path, edit: str) -> None:
    """Damages a file of lines as people and other programs do."""
    lines = path.read_bytes().splitlines(keepends=True)
    first, second, *rest = lines
    damaged = {
        "a digit": [first, second.replace(b"2", b"3", 1), *rest],
        "swapped": [second, first, *rest],
        "doubled": [first, first, second, *rest],
        "lost": [first, *rest],
        "cut": [first],
        "garbage": [first, b"\x00\xff\n", *rest],
        "joined": [first, second[:-1], *rest],
    }[edit]
    path.write_bytes(b"".join(damaged))


@pytest.mark.parametrize("name", ["trajectory.jsonl", "samples.jsonl", "branches.jsonl"])
@pytest.mark.parametrize("edit", ["a digit", "swapped", "doubled", "lost", "cut", "garbage", "joined"])
def test_lines_that_a_checkpoint_vouches_for_must_be_as_they_were(edit: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunWriter(folder, DESCRIPTION) as writer:
        for window in (1, 2, 3):
            writer.write_row({"window": window})
            writer.write_sample({"window": window, "rollout": f"of {window}"})
            writer.write_branch({"decision": window, "window": window + 1})
        vouched = writer.vouched()
        writer.write_row({"window": 4})
    edited(folder / name, edit)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    line = 1 if edit == "swapped" else 2
    with pytest.raises(RunFilesError, match=rf"{name}, line {line}: expected .*--overwrite"):
        RunWriter(folder, DESCRIPTION, keep_windows=3, vouched=vouched)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_is_vouched_for_grows_with_a_run_that_goes_on(tmp_path: Path) -> None:
    whole = RunWriter(tmp_path / "whole", DESCRIPTION)
    folder = tmp_path / "run"
    with RunWriter(folder, DESCRIPTION) as writer:
        assert {name: digests.shape for name, digests in writer.vouched().items()} == {
            "config.json": (len((folder / "config.json").read_text().splitlines()), 16),
            "trajectory.jsonl": (0, 16),
            "samples.jsonl": (0, 16),
        }
        for each in (writer, whole):
            each.write_row({"window": 1})
        vouched = writer.vouched()
        writer.write_row({"window": 2, "is": "made again"})
    with RunWriter(folder, DESCRIPTION, keep_windows=1, vouched=vouched) as writer:
        for each in (writer, whole):
            each.write_row({"window": 2})
            each.write_sample({"window": 2})
        assert np.array_equal(writer.vouched().pop("config.json"), vouched["config.json"])
        for name in ("trajectory.jsonl", "samples.jsonl"):
            np.testing.assert_array_equal(writer.vouched()[name], whole.vouched()[name])
    whole.close()


@pytest.mark.parametrize("num_vouched", [0, 1])
def test_branches_that_no_checkpoint_vouches_for_are_tried_again(num_vouched: int, tmp_path: Path) -> None:
    """A run's first branches make the file; a kill may come before the checkpoint that knows of it."""
    folder, tried = tmp_path / "run", [{"decision": 1, "branch": branch} for branch in range(3)]
    with RunWriter(folder, DESCRIPTION) as writer:
        assert not (folder / "branches.jsonl").exists()
        for row in tried[:num_vouched]:
            writer.write_branch(row)
        vouched = writer.vouched()
        writer.write_branch(tried[2])
    with RunWriter(folder, DESCRIPTION, keep_windows=0, vouched=vouched) as writer:
        for row in tried[num_vouched:]:
            writer.write_branch(row)
        writer.sync()
    assert read_rows(folder / "branches.jsonl") == tried
    RunWriter(folder, DESCRIPTION, overwrite=True).close()
    assert not (folder / "branches.jsonl").exists()


@pytest.mark.parametrize("edit", ["a digit", "another name", "more"])
def test_a_description_that_a_checkpoint_vouches_for_must_be_as_it_was(edit: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunWriter(folder, DESCRIPTION) as writer:
        writer.write_row({"window": 1})
        vouched = writer.vouched()
    path = folder / "config.json"
    sound = path.read_text()
    changed = {
        "a digit": sound.replace('"python": "3', '"python": "4'),
        "another name": sound.replace('"numpy"', '"nvmpy"'),
        "more": sound + "\n",
    }[edit]
    assert changed != sound
    path.write_text(changed)
    with pytest.raises(RunFilesError, match=r"config\.json.*: expected what the checkpoint vouches for"):
        RunWriter(folder, DESCRIPTION, keep_windows=1, vouched=vouched)
    assert path.read_text() == changed
    path.write_text(sound)
    of_before = {name: digests for name, digests in vouched.items() if name != "config.json"}
    for known in (vouched, of_before):
        RunWriter(folder, DESCRIPTION, keep_windows=1, vouched=known).close()


def test_a_description_of_this_version_has_its_fields_and_no_others(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    RunWriter(folder, DESCRIPTION).close()
    path = folder / "config.json"
    description = json.loads(path.read_text())
    description["config"]["grounded_wexght"] = description["config"].pop("grounded_weight", 0.1)
    path.write_text(json.dumps(description))
    with pytest.raises(ConfigError, match=r"config\.json: expected the fields of this version.*grounded_wexght"):
        check_same_run(folder, DESCRIPTION)
    description["versions"]["atesd-env"] = "0.0.1"  # which may have had such a field
    path.write_text(json.dumps(description))
    check_same_run(folder, DESCRIPTION)


def test_a_number_that_no_table_can_hold_is_refused_and_its_column_named(tmp_path: Path) -> None:
    with RunWriter(tmp_path, DESCRIPTION) as writer:
        writer.write_row({"window": 1, "agent/x": 2**63 - 1})
        with pytest.raises(ConfigError, match="row column 'agent/x': expected a number of at most 64 bits"):
            writer.write_row({"window": 2, "agent/x": 2**63})
        with pytest.raises(ConfigError, match=r"expected numbers.*got a whole number beyond 64 bits"):
            writer.write_sample({"window": 2, "x": 10**5000})
    assert len(read_rows(tmp_path / "trajectory.jsonl")) == 1
