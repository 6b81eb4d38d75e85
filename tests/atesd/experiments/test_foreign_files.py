"""What is not ours in a folder stays as it is: it is named, and nothing is written, cut or deleted, through links either."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from atesd.commands.cli import main
from atesd.experiments.ray_runs import _write
from atesd.experiments.resuming import CHECKPOINT_FOLDER
from atesd.experiments.run import execute
from atesd.experiments.specs import RunSpec, check_folders, plan_runs
from atesd.experiments.tracking import TensorBoard
from atesd.experiments.training.training import TrainSpec, train
from atesd_env.config import preset
from atesd_env.errors import AtesdError, RunFilesError
from atesd_env.evaluation.samples import SampleFile
from atesd_env.files.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from atesd_env.files.ownership import MARKER
from tests.programs import refusal

BEFORE = Path(__file__).parents[2] / "data" / "before_leaves" / "toy_run"
TOY = preset("ATESD-Toy-v0", windows=5, toy_noise=0.02)
RUN = ("run", "--env", "ATESD-Toy-v0", "--windows", 2, "--agent", "fixed:0.5", "--quiet", "--out")
COMPARE = (
    "compare",
    "--env",
    "ATESD-Toy-v0",
    "--windows",
    2,
    "--agent",
    "fixed:0.5",
    "--seeds",
    0,
    "--quiet",
    "--out",
)
SETTINGS = {"adapters": {}, "num_samples": 1, "seed": 0}


def plan(out: Path, agent: str = "beta") -> RunSpec:
    (spec,) = plan_runs("ATESD-Toy-v0", TOY, [agent], [0], out)
    return spec


def stopped(out: Path) -> RunSpec:
    """Returns a run that was stopped after its fourth window, with checkpoints behind the second and the third."""
    spec = plan(out)

    def stop(row: dict[str, Any]) -> None:
        if row["window"] == 4:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        execute(spec, checkpoint_every=1, report=stop)
    return spec


def content(folder: Path) -> dict[str, bytes]:
    """Returns every file below a folder but the lock; of a link, where it leads to."""
    return {
        str(path.relative_to(folder)): os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if (path.is_file() or path.is_symlink()) and path.name != ".lock"
    }


def write(path: Path, text: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


MODEL = json.dumps({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 96})


@pytest.mark.parametrize("more", [[], ["--overwrite"], ["--resume"]])
@pytest.mark.parametrize(
    "name",
    [
        "trajectory.jsonl",
        "samples.jsonl",
        "agent.zip",
        "agent.safetensors",
        "adapter/adapter_model.safetensors",
        "checkpoints/window-000001.safetensors",
        "checkpoints/model.bin",
        ".checkpoints.old/window-000001.safetensors",
        ".checkpoints.old/notes.txt",
        "tensorboard/events.out.tfevents.1",
    ],
)
def test_run_takes_no_file_of_another_makers(name: str, more: list[str], tmp_path: Path, capsys: Any):
    write(tmp_path / "fixed-0.5-seed0" / name)
    before = content(tmp_path)
    assert name in refusal(capsys, *RUN, tmp_path, *more, status=1)
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["trajectory.jsonl", "agent.zip", "checkpoints/notes.txt"])
def test_foreign_files_of_the_last_run_are_found_before_the_first_one(name: str, tmp_path: Path):
    first, last = plan(tmp_path, "fixed:1"), plan(tmp_path)
    write(last.folder / name)
    for how in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(RunFilesError, match=name):
            check_folders([first, last], **how)
    assert not first.folder.exists()


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_a_saved_models_configuration_is_no_runs(more: list[str], tmp_path: Path, capsys: Any):
    write(tmp_path / "fixed-0.5-seed0" / "config.json", MODEL)
    write(tmp_path / "fixed-0.5-seed0" / "adapter" / "adapter_model.safetensors")
    before = content(tmp_path)
    said = refusal(capsys, *RUN, tmp_path, *more, status=1)
    assert "config.json" in said
    assert "move them away" in said
    assert content(tmp_path) == before


def test_a_marker_of_another_kind_is_no_runs_and_no_list_is(tmp_path: Path):
    spec = plan(tmp_path)
    for text in (
        json.dumps({MARKER: "atesd-env training"}),
        json.dumps({MARKER: ["atesd-env run"]}),
        "[]",
        "{",
        "null",
    ):
        write(spec.folder / "config.json", text)
        with pytest.raises(RunFilesError, match=r"config\.json, made by something else"):
            check_folders([spec], overwrite=True)


def test_a_run_of_before_is_replaced_but_not_what_only_resembles_one(tmp_path: Path):
    spec = plan(tmp_path)
    shutil.copytree(BEFORE, spec.folder)
    described = json.loads((spec.folder / "config.json").read_text())
    assert MARKER not in described
    for field in ("format_version", "versions", "config"):
        write(spec.folder / "config.json", json.dumps({key: value for key, value in described.items() if key != field}))
        with pytest.raises(RunFilesError, match=r"config\.json"):
            check_folders([spec], overwrite=True)
    del described["config"]["windows"]
    write(spec.folder / "config.json", json.dumps(described))
    with pytest.raises(RunFilesError, match=r"config\.json"):
        check_folders([spec], overwrite=True)
    shutil.copy(BEFORE / "config.json", spec.folder)
    execute(spec, overwrite=True)
    assert json.loads((spec.folder / "config.json").read_text())[MARKER] == "atesd-env run"


def test_what_a_kill_left_empty_is_in_nobodys_way(tmp_path: Path):
    spec = plan(tmp_path)
    write(spec.folder / "trajectory.jsonl", "")
    (spec.folder / CHECKPOINT_FOLDER).mkdir()
    execute(spec, resume=True)
    assert (spec.folder / "config.json").exists()


def test_overwriting_deletes_a_runs_own_files_and_no_other(tmp_path: Path):
    spec = stopped(tmp_path)
    write(spec.folder / "adapter" / "adapter_model.safetensors", "old")
    write(spec.folder / "adapter" / "README.md")
    write(spec.folder / "notes.txt")
    execute(plan(tmp_path), overwrite=True)
    assert not (spec.folder / "adapter" / "adapter_model.safetensors").exists()
    assert (spec.folder / "adapter" / "README.md").read_text() == "mine"
    assert (spec.folder / "notes.txt").read_text() == "mine"


def test_a_file_that_came_between_the_checkpoints_outlives_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    spec = plan(tmp_path)
    execute(spec, report=lambda _: write(spec.folder / CHECKPOINT_FOLDER / "notes.txt"))  # type: ignore[arg-type,return-value]
    assert (spec.folder / ".checkpoints.old" / "notes.txt").read_text() == "mine"
    assert "kept, because not all that is in it is ours" in caplog.text


@pytest.mark.parametrize("how", ["resume", "overwrite"])
@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "trajectory.jsonl",
        "samples.jsonl",
        ".lock",
        "agent.safetensors",
        "checkpoints/window-000002.safetensors",
        "checkpoints",
        "adapter",
    ],
)
def test_nothing_is_written_through_a_link_in_a_run(name: str, how: str, tmp_path: Path):
    spec = stopped(tmp_path / "runs")
    path, elsewhere = spec.folder / name, tmp_path / "elsewhere"
    if path.is_dir() or name == "adapter":
        write(elsewhere / "window-000002.safetensors")
        if path.is_dir():
            shutil.copytree(path, elsewhere, dirs_exist_ok=True)
            shutil.rmtree(path)
    else:
        write(elsewhere, path.read_text(errors="ignore") if path.exists() else "mine")
        path.unlink(missing_ok=True)
    path.symlink_to(elsewhere)
    before = content(tmp_path)
    with pytest.raises(RunFilesError, match=rf"{name}: expected .* got a link to"):
        execute(spec, **{how: True})  # type: ignore[arg-type]
    assert content(tmp_path) == before


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_a_pipe_is_waited_for_by_nobody(how: str, tmp_path: Path):
    spec = stopped(tmp_path)
    (spec.folder / "samples.jsonl").unlink()
    os.mkfifo(spec.folder / "samples.jsonl")
    with pytest.raises(
        RunFilesError, match=r"samples\.jsonl: expected a file of its own, or nothing, got a named pipe"
    ):
        execute(spec, **{how: True})  # type: ignore[arg-type]


def test_the_folder_itself_may_be_a_link_that_its_user_made(tmp_path: Path):
    (tmp_path / "large disk").mkdir()
    (tmp_path / "runs").symlink_to("large disk")
    spec = stopped(tmp_path / "runs")
    execute(spec, resume=True)
    execute(spec, overwrite=True)
    assert (tmp_path / "large disk" / "beta-seed0" / "trajectory.jsonl").exists()


def test_a_backup_by_hard_links_is_not_cut_when_its_run_goes_on(tmp_path: Path):
    spec = stopped(tmp_path / "runs")
    backup = tmp_path / "backup"
    backup.mkdir()
    for name in ("trajectory.jsonl", "samples.jsonl"):
        os.link(spec.folder / name, backup / name)
    before = content(backup)
    execute(spec, resume=True)
    assert content(backup) == before
    assert (spec.folder / "trajectory.jsonl").read_bytes().count(b"\n") == 5


def changed(edit: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        path.write_bytes(b"".join(edit(path.read_bytes().splitlines(keepends=True))))

    return apply


DAMAGES = {
    "a digit": (
        changed(lambda lines: [lines[0], lines[1].replace(b'"window": 2', b'"window": 2, "x": 1'), *lines[2:]]),
        2,
    ),
    "swapped": (changed(lambda lines: [lines[1], lines[0], *lines[2:]]), 1),
    "doubled": (changed(lambda lines: [lines[0], lines[0], *lines[1:]]), 2),
    "cut": (changed(lambda lines: lines[:2]), 3),
    "emptied": (changed(lambda lines: []), 1),
    "garbage": (changed(lambda lines: [*lines[:2], b"\x00\xff\n", *lines[3:]]), 3),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_goes_on_only_behind_the_rows_that_it_wrote(damage: str, tmp_path: Path):
    spec = stopped(tmp_path)
    edit, line = DAMAGES[damage]
    edit(spec.folder / "trajectory.jsonl")
    broken = write(spec.folder / CHECKPOINT_FOLDER / "window-000004.safetensors", "broken")
    before = content(spec.folder)
    with pytest.raises(RunFilesError, match=rf"trajectory\.jsonl, line {line}: expected .*begin anew \(--overwrite\)"):
        execute(spec, resume=True)
    assert content(spec.folder) == before
    assert broken.exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """A language model's run that was stopped after its second window, with a checkpoint behind it."""
    fields = {"windows": 3, "hold_window": 1, "num_rollouts": 2, "probe_size": 2, "max_new_tokens": 8}
    (spec,) = plan_runs(
        "ATESD-Tiny-v0", preset("ATESD-Tiny-v0", **fields), ["fixed:0.5"], [0], tmp_path_factory.mktemp("runs")
    )

    def stop(row: dict[str, Any]) -> None:
        if row["window"] == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        execute(spec, checkpoint_every=1, report=stop)
    return spec


@pytest.mark.parametrize(
    ("edit", "line"), [(lambda path: path.unlink(), None), (DAMAGES["swapped"][0], 1), (DAMAGES["emptied"][0], 1)]
)
def test_a_run_goes_on_only_behind_the_samples_that_it_wrote(
    edit: Callable[[Path], None], line: int | None, trained: RunSpec, tmp_path: Path
):
    spec = dataclasses.replace(trained, folder=tmp_path / trained.folder.name)
    shutil.copytree(trained.folder, spec.folder)
    edit(spec.folder / "samples.jsonl")
    before = content(spec.folder)
    where = "samples.jsonl" if line is None else f"samples.jsonl, line {line}"
    with pytest.raises(RunFilesError, match=f"{where}: expected"):
        execute(spec, resume=True)
    assert content(spec.folder) == before


@pytest.mark.parametrize(
    ("what", "odd"),
    [
        ("an agent of nobody", {"agent": {}}),
        ("no student", {"toy": None}),
        ("another configuration", {"config": {}}),
        ("nothing that an agent was shown", {"agent": {"is_replayed": True}}),
    ],
)
def test_a_checkpoint_of_odd_content_is_named(what: str, odd: dict[str, Any], tmp_path: Path):
    spec = stopped(tmp_path)
    path = max((spec.folder / CHECKPOINT_FOLDER).iterdir())
    checkpoint = read_checkpoint(path)
    write_checkpoint(path, Checkpoint(checkpoint.arrays, checkpoint.description | odd))
    with pytest.raises(AtesdError, match=rf"^{re.escape(str(path.parent))}: .*expected"):
        execute(spec, resume=True)


def test_a_checkpoint_of_before_compares_the_number_of_rows_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    spec = plan(tmp_path)
    shutil.copytree(BEFORE, spec.folder)
    execute(spec, resume=True)
    assert "did not vouch for rows and samples; only the number of rows is compared" in caplog.text
    caplog.clear()
    execute(stopped(tmp_path / "new"), resume=True)
    assert "vouch" not in caplog.text


def train_spec(folder: Path, **changes: Any) -> TrainSpec:
    return dataclasses.replace(TrainSpec("ATESD-Toy-v0", TOY, "beta", None, 10, 0, None, (0,), folder), **changes)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "name", ["checkpoint.safetensors", "evaluations.jsonl", "best_agent.zip", "last_agent.safetensors", "training.json"]
)
def test_train_takes_no_file_of_another_makers(name: str, overwrite: bool, tmp_path: Path):
    write(tmp_path / name, MODEL)
    before = content(tmp_path)
    with pytest.raises(RunFilesError, match=rf"{name}, made by something else; move them away"):
        train(train_spec(tmp_path), overwrite=overwrite)
    assert content(tmp_path) == before


@pytest.mark.parametrize("how", ["resume", "overwrite"])
@pytest.mark.parametrize(
    "name", ["training.json", "evaluations.jsonl", "last_agent.safetensors", "checkpoint.safetensors", ".lock"]
)
def test_train_writes_through_no_link(name: str, how: str, tmp_path: Path):
    folder = tmp_path / "training"
    train(train_spec(folder))
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    before = content(tmp_path)
    with pytest.raises(RunFilesError, match=rf"{name}: expected .* got a link to"):
        train(train_spec(folder, total_windows=20), **{how: True})  # type: ignore[arg-type]
    assert content(tmp_path) == before


@pytest.mark.parametrize("num_envs", [None, 2])
def test_a_training_goes_on_only_behind_the_evaluations_that_it_made(num_envs: int | None, tmp_path: Path):
    agent = "beta" if num_envs is None else "a2c"
    train(train_spec(tmp_path, agent=agent, num_envs=num_envs, total_windows=30))
    longer = train_spec(tmp_path, agent=agent, num_envs=num_envs, total_windows=40)
    path = tmp_path / "evaluations.jsonl"
    whole = path.read_bytes()
    for damage, line in (("swapped", 1), ("doubled", 2), ("emptied", 1), ("garbage", 3)):
        DAMAGES[damage][0](path)
        before = content(tmp_path)
        with pytest.raises(RunFilesError, match=rf"evaluations\.jsonl, line {line}: expected the evaluation after"):
            train(longer, resume=True)
        assert content(tmp_path) == before
        path.write_bytes(whole)
    path.write_bytes(whole + whole.splitlines(keepends=True)[-1])  # a kill may have left one more
    assert len(train(longer, resume=True).rows) > whole.count(b"\n")


@pytest.mark.parametrize("name", ["samples.jsonl", "summary.json", "evaluation.json"])
@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_evaluate_takes_no_file_of_another_makers(name: str, how: dict[str, bool], tmp_path: Path):
    write(tmp_path / name, MODEL)
    before = content(tmp_path)
    with pytest.raises(RunFilesError, match=rf"{name}, made by something else"):
        SampleFile(tmp_path, SETTINGS, **how)
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["samples.jsonl", "summary.json", "evaluation.json"])
@pytest.mark.parametrize("how", [{"overwrite": True}, {"resume": True}])
def test_evaluate_writes_through_no_link(name: str, how: dict[str, bool], tmp_path: Path):
    folder = tmp_path / "evaluation"
    folder.mkdir()
    with SampleFile(folder, SETTINGS):
        pass
    write(tmp_path / "elsewhere", (folder / name).read_text() if (folder / name).exists() else "mine")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "elsewhere")
    before = content(tmp_path)
    with pytest.raises(RunFilesError, match=rf"{name}: expected .* got a link to"):
        SampleFile(folder, SETTINGS, **how)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("command", "names"), [(RUN, ["exposure.png"]), (COMPARE, ["comparison.json", "comparison.csv", "comparison.png"])]
)
def test_pictures_and_tables_replace_only_older_ones_of_ours(
    command: tuple[Any, ...], names: list[str], tmp_path: Path, capsys: Any
):
    for name in names:
        path = write(tmp_path / "out" / name)
        assert name in refusal(capsys, *command, tmp_path / "out", status=1)
        assert content(tmp_path / "out") == {name: b"mine"}, "nothing was run"
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        assert "got a link to" in refusal(capsys, *command, tmp_path / "out", status=1)
        path.unlink()
    main([*map(str, command), str(tmp_path / "out")])
    main([*map(str, command), str(tmp_path / "out"), "--overwrite"])
    main([*map(str, command), str(tmp_path / "out"), "--resume"])
    assert set(names) <= set(content(tmp_path / "out"))
    assert not list((tmp_path / "out").rglob("*.tmp"))


@pytest.mark.parametrize("link", ["adapter", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"])
def test_an_adapter_is_written_through_no_link(link: str, trained: RunSpec, tmp_path: Path):
    env = gymnasium.make("ATESD-Tiny-v0", **trained.config.keywords())
    env.reset(seed=0)
    elsewhere = tmp_path / "elsewhere"
    if link == "adapter":
        elsewhere.mkdir()
    else:
        write(elsewhere)
        (tmp_path / "adapter").mkdir()
    (tmp_path / link).symlink_to(elsewhere)
    with pytest.raises(RunFilesError, match=rf"{link}: expected .* got a link to"):
        env.unwrapped.save_adapter(tmp_path / "adapter")  # type: ignore[attr-defined]
    assert not elsewhere.is_dir() or list(elsewhere.iterdir()) == []
    assert elsewhere.is_dir() or elsewhere.read_text() == "mine"


def test_what_comes_from_another_machine_is_written_through_no_link(tmp_path: Path):
    write(tmp_path / "elsewhere")
    write(tmp_path / "run" / "notes.txt")
    (tmp_path / "run" / "trajectory.jsonl").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "run" / "adapter").symlink_to(tmp_path)
    for name in ("trajectory.jsonl", "adapter/adapter_config.json"):
        with pytest.raises(RunFilesError, match="got a link to"):
            _write(tmp_path / "run", {name: b"new"})
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert not (tmp_path / "adapter_config.json").exists()


def test_events_are_deleted_through_no_link(tmp_path: Path):
    pytest.importorskip("tensorboard", reason="the package tensorboard is missing")
    events = write(tmp_path / "elsewhere" / "events.out.tfevents.1")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFilesError, match="tensorboard: expected a folder of its own"):
        TensorBoard().begin(tmp_path / "run", {})
    assert events.read_text() == "mine"
