"""Run folders in, one HTML file out: verdict, pictures, a page for each run, configuration and versions.

The file stands alone. Pictures are inside of it, it holds no script, and a content security policy forbids it to load
anything, so that it reads the same from a mail attachment in ten years. Every text is escaped by the template engine.

A new picture is a new entry of ``PICTURES`` (``pictures.py``).
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.credit import SETTINGS
from analysis.errors import AnalysisError
from analysis.load import load_runs
from analysis.plots.style import data_address
from analysis.report.pictures import PICTURES, Picture
from analysis.report.writing import write_page
from analysis.run_files import read_description
from analysis.samples import LONGEST_TEXT, Revealed, printable, read_samples, revealed_part
from analysis.verdict import Verdict, judge

REPORT_FILE = "report.html"
"""The report's name in the folder of runs."""


@dataclass(frozen=True)
class DrawnPicture:
    """A picture as it stands in the file: ``source`` is a data address, or empty with the reason in ``description``."""

    title: str
    source: str
    description: str
    caption: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class SampleText:
    """A sample rollout with both prompts, every text made printable."""

    title: str
    shown: str
    outcome: str
    student_prompt: str
    teacher_prompt: Revealed
    rollout: str


@dataclass(frozen=True)
class RunPage:
    """One run of the report."""

    anchor: str
    name: str
    agent: str
    seed: str
    state: str
    numbers: tuple[tuple[str, str], ...]
    picture: DrawnPicture
    samples: tuple[SampleText, ...]
    num_damaged: int


@dataclass(frozen=True)
class Comparison:
    """Runs of one environment with one configuration, which alone can be compared."""

    anchor: str
    title: str
    verdict: Verdict
    pictures: tuple[DrawnPicture, ...]
    runs: tuple[RunPage, ...]


@dataclass(frozen=True)
class Setting:
    """A field of the configurations, or a version: its value, or each value with the runs that have it."""

    name: str
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Report:
    """Everything that the template shows."""

    title: str
    num_runs: int
    comparisons: tuple[Comparison, ...]
    settings: tuple[Setting, ...]
    versions: tuple[Setting, ...]
    longest_text: int = field(default=LONGEST_TEXT)


def write_report(
    path: str | os.PathLike[str], out: str | os.PathLike[str] | None = None, *, num_samples: int = 3
) -> Path:
    """Writes the report of one or many runs.

    Args:
        path: A run folder, or a folder that holds run folders at any depth.
        out: The file; None is ``report.html`` in ``path``. An existing report is replaced.
        num_samples: Sample rollouts of each run, from its first window to its last.

    Returns:
        The file.

    Raises:
        NoRunsError: If there is no run with a row.
        DamagedRunError: If a file is damaged; the message names file and line.
        AnalysisError: If the file cannot be written, or another one than a report is there.
    """
    target = (Path(path) / REPORT_FILE if out is None else Path(out)).expanduser()
    text = render_report(path, num_samples=num_samples)
    # A name of a folder or an agent may hold what UTF-8 cannot say (lone surrogates).
    write_page(target, text.encode("utf-8", errors="replace"))
    return target


def render_report(path: str | os.PathLike[str], *, num_samples: int = 3) -> str:
    """Returns the report as HTML; the same runs give the same text. Arguments and errors: as in ``write_report``."""
    if num_samples < 0:
        raise AnalysisError(f"samples: expected a number from 0, got {num_samples}; pass 0 or more.")
    frame = load_runs(path)
    root = Path(path).expanduser()
    folders = {str(name): _folder(root, str(name)) for name in frame["run"].unique()}
    configs = {name: read_description(folder) for name, folder in folders.items()}
    comparisons: list[Comparison] = []
    for title, names in _comparable(configs):
        rows = frame[frame["run"].isin(names)].copy()
        for column in ("env_id", "agent"):
            rows[column] = rows[column].cat.remove_unused_categories()
        shared = _mapping(configs[names[0]], "config")
        for name in (*SETTINGS, "windows"):
            rows[f"config/{name}"] = _float(shared.get(name))
        anchor = f"comparison-{len(comparisons) + 1}"
        runs = tuple(
            _run_page(f"{anchor}-run-{number}", str(name), run, folders[str(name)], num_samples)
            for number, (name, run) in enumerate(rows.groupby("run", observed=True, sort=False), start=1)
        )
        comparisons.append(
            Comparison(anchor, title, judge(rows), tuple(_drawn(picture, rows) for picture in PICTURES), runs)
        )
    report = Report(
        title=root.resolve().name,
        num_runs=len(configs),
        comparisons=tuple(comparisons),
        settings=_settings({name: _mapping(config, "config") for name, config in configs.items()}),
        versions=_settings({name: _mapping(config, "versions") for name, config in configs.items()}),
    )
    engine = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters["printable"] = printable
    return engine.get_template("report.html").render(report=report)


def _mapping(description: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = description.get(name)
    return value if isinstance(value, dict) else {}


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _folder(root: Path, name: str) -> Path:
    folder = root / name
    return folder if folder.is_dir() else root  # a run folder itself is named after itself


def _comparable(configs: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Returns the runs by environment and configuration, each group with a title that tells it from the others."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, config in configs.items():
        groups.setdefault((config["env_id"], json.dumps(_mapping(config, "config"), sort_keys=True)), []).append(name)
    titled = []
    for (env_id, fields), names in groups.items():
        rivals = [json.loads(other) for other_id, other in groups if other_id == env_id]
        own = json.loads(fields)
        differing = [f"{key}={own[key]}" for key in own if any(rival.get(key, ...) != own[key] for rival in rivals)]
        titled.append((env_id + (f" ({', '.join(differing)})" if differing else ""), names))
    return titled


def _drawn(picture: Picture, frame: pd.DataFrame) -> DrawnPicture:
    try:
        with warnings.catch_warnings():
            # An agent's name may hold letters that the font lacks; the words beside the picture have them.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
            figure, data = picture.draw(frame)
            source = data_address(figure)
    except ValueError as error:  # AnalysisError, or matplotlib's
        return DrawnPicture(picture.title, "", f"It takes {picture.needs}. ({error})" if picture.needs else str(error))
    width, height = (round(float(inches) * figure.dpi) for inches in figure.get_size_inches())
    caption = " ".join(filter(None, (picture.caption, picture.find(data) if picture.find else "")))
    return DrawnPicture(picture.title, source, picture.describe(data), caption, width, height)


def _run_page(anchor: str, name: str, run: pd.DataFrame, folder: Path, num_samples: int) -> RunPage:
    run = run.sort_values("window")
    last = run.iloc[-1]
    samples, num_damaged = read_samples(folder, num_samples)
    reason = last.get("reason")
    state = {"truncated": "finished", "terminated": "student broke"}.get(str(last.get("status")), "not finished")
    return RunPage(
        anchor=anchor,
        name=name,
        agent=str(last["agent"]),
        seed="none" if pd.isna(last["seed"]) else str(last["seed"]),
        state=state if reason is None or pd.isna(reason) else f"{state}: {reason}",
        numbers=tuple(_run_numbers(run)),
        picture=_drawn(Picture("Reveal ratio and probe NLL", _draw_run, _describe_run), run),
        samples=tuple(_sample_text(sample) for sample in samples),
        num_damaged=num_damaged,
    )


def _run_numbers(run: pd.DataFrame) -> Iterable[tuple[str, str]]:
    yield "windows", str(len(run))
    for name, label, pattern in (
        ("exposure/reveal_ratio", "mean reveal ratio", "{:.2f}"),
        ("student/mismatch", "mean mismatch", "{:.3f} nats/token"),
    ):
        if name in run and run[name].notna().any():
            yield label, pattern.format(run[name].mean())
    for name, label, pattern in (
        ("probe/nll", "probe NLL", "{:.3f} nats/token"),
        ("probe/accuracy", "probe accuracy", "{:.1%}"),
    ):
        if name in run and run[name].notna().any():
            measured = run.loc[run[name].notna()].iloc[-1]
            yield f"{label}, window {measured['window']}", pattern.format(measured[name])
    if "reward/total" in run and run["reward/total"].notna().any():  # a baseline has none
        yield "return", f"{run['reward/total'].sum():.3f}"


_RUN_PANELS = (("exposure/reveal_ratio", "Reveal ratio", "#0072B2"), ("probe/nll", "Probe NLL", "#D55E00"))


def _draw_run(run: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draws reveal ratio and probe NLL of one run side by side."""
    figure = Figure(figsize=(7.0, 1.9), dpi=90)
    for axes, (name, label, colour) in zip(figure.subplots(1, 2), _RUN_PANELS, strict=True):
        values = run[name].to_numpy(dtype=float) if name in run else [float("nan")] * len(run)
        axes.plot(run["window"].to_numpy(), values, color=colour, marker="." if len(run) < 40 else "")
        axes.set_ylabel(label, fontsize=8)
        axes.set_xlabel("Hold window", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name == "exposure/reveal_ratio":
            axes.set_ylim(-0.04, 1.04)
    # Fixed margins: to lay out a hundred figures by measuring their labels would take most of the report's time.
    figure.subplots_adjust(left=0.09, right=0.98, top=0.95, bottom=0.24, wspace=0.27)
    return figure, run


def _describe_run(run: pd.DataFrame) -> str:
    sentences = []
    for name, label, _ in _RUN_PANELS:
        values = run[name].dropna() if name in run else pd.Series(dtype=float)
        if values.empty:
            sentences.append(f"{label}: not measured.")
        else:
            ends = f"from {values.iloc[0]:.3f} in the first to {values.iloc[-1]:.3f} in the last window"
            sentences.append(f"{label} {ends}, between {values.min():.3f} and {values.max():.3f}.")
    return " ".join(sentences)


def _sample_text(sample: Mapping[str, Any]) -> SampleText:
    part = revealed_part(sample["student_prompt"], sample["teacher_prompt"])
    ratio = sample.get("reveal_ratio")
    ratio_text = f"{ratio:.2f}" if isinstance(ratio, int | float) else "unknown"
    is_correct = sample.get("is_correct")
    verdict = "right" if is_correct is True else "wrong" if is_correct is False else "not judged"
    return SampleText(
        title=printable(f"Window {sample.get('window', '?')}, problem {sample.get('problem_id', '?')}", 200),
        shown=printable(
            f"reveal ratio {ratio_text}, {sample.get('num_shown', '?')} of {sample.get('num_steps', '?')} steps shown",
            200,
        ),
        outcome=printable(
            "; ".join(filter(None, (verdict, sample.get("remark"), f"the answer is {sample.get('answer', '?')}"))), 900
        ),
        student_prompt=printable(sample["student_prompt"]),
        teacher_prompt=Revealed(printable(part.before), printable(part.revealed), printable(part.after)),
        rollout=printable(sample["rollout"]),
    )


def _settings(mappings: Mapping[str, Mapping[str, Any]]) -> tuple[Setting, ...]:
    """Returns each name once, with its value, or with each of its values and the runs that have it."""
    names = dict.fromkeys(name for mapping in mappings.values() for name in mapping)
    settings = []
    for name in names:
        runs_of: dict[str, list[str]] = {}
        for run, mapping in mappings.items():
            runs_of.setdefault(str(mapping.get(name, "(absent)")), []).append(run)
        is_shared = len(runs_of) == 1
        settings.append(
            Setting(name, tuple((value, "" if is_shared else _few(runs)) for value, runs in runs_of.items()))
        )
    return tuple(sorted(settings, key=lambda setting: len(setting.values) == 1))  # what differs first


def _few(runs: list[str], most: int = 8) -> str:
    return ", ".join(runs[:most]) + (f" and {len(runs) - most} more" if len(runs) > most else "")
