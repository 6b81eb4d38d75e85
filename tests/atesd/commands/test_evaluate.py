"""`atesd evaluate` and `atesd data` on the packaged student: resuming, refusing, comparing, listing time-outs."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from atesd.commands.cli import main
from atesd.commands.data import histogram
from atesd.commands.evaluate import named_adapters
from atesd_env.config import preset
from atesd_env.errors import ConfigError
from atesd_env.evaluation import evaluator as evaluation
from atesd_env.rollouts.engines import engine
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.loading import load_student
from atesd_env.tasks.grading import answers, verification
from tests.programs import refusal

DATA = Path(__file__).parents[2] / "data"
ARGUMENTS = shlex.split("--benchmark heldout --max-problems 3 --k 3 --sampling env --quiet --sampling-temperature 1.6")


def evaluate(out: Path, *more: str) -> dict[str, Any]:
    main(["evaluate", *ARGUMENTS, "--out", str(out), *more])
    return json.loads((out / "summary.json").read_text())


def samples(out: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    found = {(row["adapter"], row["problem"], row["sample"]): row for row in rows}
    assert len(found) == len(rows), "a sample stands twice"
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "evaluation"
    evaluate(out)
    return out


def copy_files(source: Path, target: Path) -> None:
    for name in ("evaluation.json", "samples.jsonl", "summary.json"):
        shutil.copy(source / name, target / name)


def save_adapter(folder: Path, seed: int) -> Path:
    config = preset("ATESD-Tiny-v0")
    stack = AdapterStack(load_student(config).model, 1, 4, 8.0, ("q_proj", "v_proj"))
    with torch.no_grad():
        stack.flat.copy_(0.3 * torch.randn(stack.flat.shape, generator=torch.Generator().manual_seed(seed)))
    stack.save(0, folder, "tiny")
    return folder


def test_every_sample_is_a_line(whole: Path):
    rows = samples(whole)
    assert len(rows) == 9
    assert len({row["text"] for row in rows.values()}) > 3, "samples of a problem differ"
    summary = json.loads((whole / "summary.json").read_text())["summaries"]["base"]
    assert summary["average"]["mean"] == pytest.approx(sum(row["is_correct"] for row in rows.values()) / 9)


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_an_interrupted_evaluation_has_the_samples_of_an_uninterrupted_one(whole: Path, tmp_path: Path, cut: int):
    lines = (whole / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "evaluation.json").write_bytes((whole / "evaluation.json").read_bytes())
    (tmp_path / "samples.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:cut])  # killed within the fifth line
    evaluate(tmp_path, "--resume", "--batch", "2")
    assert samples(tmp_path) == samples(whole)
    assert (tmp_path / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()


def test_a_killed_evaluation_goes_on_without_losing_or_repeating_a_sample(whole: Path, tmp_path: Path):
    out = tmp_path / "killed"
    script = f"""
        import os, signal
        from atesd.commands.cli import main
        from atesd_env.evaluation import samples as evaluation_files

        append = evaluation_files.SampleFile.append

        def killed(self, row):
            if len(self.rows) == 4:
                with self._path.open("ab") as half:
                    half.write(b'{{"adapter": "ba')
                os.kill(os.getpid(), signal.SIGKILL)
            append(self, row)

        evaluation_files.SampleFile.append = killed
        main({["evaluate", *ARGUMENTS, "--out", str(out), "--batch", "2"]!r})
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=False, timeout=600)
    assert ran.returncode == -signal.SIGKILL
    lines = (out / "samples.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 5
    assert not lines[-1].endswith(b"\n"), "the kill came within a line"
    evaluate(out, "--resume")
    assert (out / "samples.jsonl").read_bytes().startswith(b"".join(lines[:4])), "no sample is drawn again"
    assert samples(out) == samples(whole)


def test_ctrl_c_keeps_what_was_judged(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    original, calls = engine.generate, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(engine, "generate", interrupted)
    assert "4 samples are kept" in refusal(capsys, "evaluate", *ARGUMENTS, "--out", tmp_path, "--batch", 2, status=130)
    monkeypatch.undo()
    evaluate(tmp_path, "--resume")
    assert samples(tmp_path) == samples(whole)


def test_a_folder_with_an_evaluation_or_other_settings_are_refused(whole: Path, capsys: Any):
    for more, message in (
        ((), "pass --resume"),
        (("--resume", "--seed", "1"), "seed (0 there, 1 here)"),
        (("--resume", "--sampling-top-p", "0.5"), "sampling"),
    ):
        assert message in refusal(capsys, "evaluate", *ARGUMENTS, "--out", whole, *more)


def test_overwrite_replaces_the_evaluation_and_nothing_else(whole: Path, tmp_path: Path, capsys: Any):
    copy_files(whole, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    said = refusal(capsys, "evaluate", *ARGUMENTS, "--out", tmp_path, "--resume", "--overwrite")
    assert "expected either --resume or --overwrite" in said
    evaluate(tmp_path, "--overwrite", "--seed", "1")
    assert json.loads((tmp_path / "evaluation.json").read_text())["seed"] == 1
    assert samples(tmp_path).keys() == samples(whole).keys()
    assert samples(tmp_path) != samples(whole), "another seed"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_overwritten_evaluation_that_dies_keeps_nothing_of_the_old_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copy_files(whole, tmp_path)

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "generate", interrupted)
    with pytest.raises(SystemExit):
        evaluate(tmp_path, "--overwrite")
    assert (tmp_path / "samples.jsonl").read_bytes() == b""
    assert not (tmp_path / "summary.json").exists(), "it must not pass for that of the new samples"


def test_adapters_of_several_seeds_are_compared_with_the_base(tmp_path: Path, capsys: Any):
    first, second = (save_adapter(tmp_path / f"run{seed}" / "adapter", seed) for seed in (0, 1))
    summary = evaluate(tmp_path / "out", "--adapter", f"mine={first.parent}", f"mine={second}")
    assert set(summary["summaries"]) == {"base", f"mine={first.parent}", f"mine={second}"}
    (comparison,) = summary["comparisons"]
    assert (comparison["first"], comparison["second"]) == ("mine", "base")
    means = [summary["summaries"][label]["average"]["mean"] for label in summary["summaries"]]
    assert comparison["difference"]["mean"] == pytest.approx((means[1] + means[2]) / 2 - means[0])
    assert "about 2 points" in " ".join(capsys.readouterr().out.split())
    texts = [
        [row["text"] for key, row in samples(tmp_path / "out").items() if key[0] == label]
        for label in summary["summaries"]
    ]
    assert texts[0] != texts[1] != texts[2], "an adapter that is on changes the answers"
    save_adapter(first, 7)
    changed = ("--out", tmp_path / "out", "--adapter", f"mine={first.parent}", "--resume")
    assert f"adapter mine={first.parent}" in refusal(capsys, "evaluate", *ARGUMENTS, *changed)


def test_a_time_out_costs_its_answer_only_and_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    from atesd_env.tasks.math import MathTask

    monkeypatch.setattr(answers, "verified", lambda given, expected: None if "sqrt" in given else given == expected)
    problem = MathTask(DATA / "gsm8k_sample.jsonl", probe_size=1).probe_problems(1)[0]
    assert answers.judged(r"\sqrt{5}", "72") is None
    assert MathTask.judge(MathTask.__new__(MathTask), r"\boxed{\sqrt{5}}", problem) is None
    assert not answers.answers_match(r"\sqrt{5}", "72")
    from atesd_env.tasks.arithmetic import ArithmeticTask

    monkeypatch.setattr(ArithmeticTask, "judge", lambda self, text, problem: None if len(text) % 2 else False)
    summary = evaluate(tmp_path)["summaries"]["base"]
    odd = [key[1:] for key, row in samples(tmp_path).items() if len(row["text"]) % 2]
    assert sorted(map(tuple, summary["timeouts"])) == sorted(odd)
    if odd:
        assert f"{len(odd)} answers could not be checked" in capsys.readouterr().out


FAKE_MATH_VERIFY = """
import os


def parse(text, parsing_timeout=None):
    return text


def verify(expected, given, timeout_seconds=None):
    while "endless" in given:
        pass
    if "crash" in given:
        os.abort()
    return len(bytearray(2**34)) if "memory" in given else True
"""


def test_answers_that_blow_up_cost_themselves_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    """Endless, out of memory, and a crash of the process: real ones, in a checker that does them at a word."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "math_verify.py").write_text(FAKE_MATH_VERIFY)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    pool = verification._Pool(3)
    monkeypatch.setattr(verification, "_pool", pool)
    monkeypatch.setattr(verification, "TIME_LIMIT_SEC", 2.0)
    texts = [rf"\boxed{{{word}+{word}}}" for word in ("endless", "x", "crash", "y", "memory", "z", "endless")]
    texts += [r"\boxed{no}", "no box"]
    monkeypatch.setattr(evaluation, "decode_texts", lambda student, rollouts: texts)
    from atesd_env.tasks.arithmetic import ArithmeticTask
    from atesd_env.tasks.math import MathTask

    monkeypatch.setattr(ArithmeticTask, "extract_answer", MathTask.extract_answer)
    monkeypatch.setattr(ArithmeticTask, "judge", lambda self, text, problem: MathTask.judge(self, text, problem))
    monkeypatch.setattr(ArithmeticTask, "same_answer", MathTask.same_answer)
    try:
        summary = evaluate(tmp_path / "out")["summaries"]["base"]
    finally:
        pool.close()
    rows = list(samples(tmp_path / "out").values())
    assert [row["has_timed_out"] for row in rows] == [True, False, True, False, True, False, True, False, False]
    assert [row["is_correct"] for row in rows] == [False, True, False, True, False, True, False, True, False]
    listed = [(row["problem"], row["sample"]) for row in rows if row["has_timed_out"]]
    assert list(map(tuple, summary["timeouts"])) == listed
    shown = " ".join(capsys.readouterr().out.split())
    assert "4 answers could not be checked" in shown
    assert all(f"{problem} sample {sample}" in shown for problem, sample in listed)
    assert pool.num_timeouts == 4, "votes ask about none of them again"


def test_an_adapter_of_other_layers_is_named(tmp_path: Path, capsys: Any):
    folder = save_adapter(tmp_path / "adapter", 0)
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace("q_proj", "nothing"))
    said = refusal(capsys, "evaluate", *ARGUMENTS, "--out", tmp_path / "out", "--adapter", folder)
    assert f"{folder}: --lora-targets: expected" in said


def test_names_of_adapters():
    methods, adapters = named_adapters(["a=x", "a=y", "z"], with_base=True)
    assert methods == {"base": ["base"], "a": ["a=x", "a=y"], "z": ["z"]}
    assert adapters["a=y"] == Path("y")
    for specs, message in ((["base=x"], "another name"), (["a=x", "b=x"], "once"), ([], "something to evaluate")):
        with pytest.raises(ConfigError, match=message):
            named_adapters(specs, with_base=False)


def test_data_shows_and_writes_what_is_kept(tmp_path: Path, capsys: Any):
    copy = tmp_path / "benchmark.jsonl"
    copy.write_bytes((DATA / "gsm8k_sample.jsonl").read_bytes().splitlines(keepends=True)[0])
    out = tmp_path / "kept.jsonl"
    main(["data", str(DATA / "gsm8k_sample.jsonl"), "--benchmark", str(copy), "--max-steps", "4", "--out", str(out)])
    shown = capsys.readouterr().out
    assert "gsm8k-train-00000 ~ gsm8k-train-00000 (100%)" in shown
    assert "reveal ratio 0.50: " in shown
    ids = [json.loads(line)["id"] for line in out.read_text().splitlines()]
    assert f"kept: {len(ids)} of 40" in shown
    assert "gsm8k-train-00000" not in ids
    assert 0 < len(ids) < 39
    with pytest.raises(SystemExit):
        main(["data", str(DATA / "gsm8k_sample.jsonl"), "--out", str(out)])


def test_a_histogram_counts_every_value():
    text = histogram([1, 1, 2, 30], num_bins=3)
    assert "most 30" in text
    assert [int(line.split()[1]) for line in text.splitlines()[1:]] == [3, 0, 1]
