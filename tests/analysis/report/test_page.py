"""The report: stands alone, escapes every text, leads with the verdict, and reads well to a browser and a screen reader."""

from __future__ import annotations

import html
import itertools
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from analysis import AnalysisError, NoRunsError
from analysis.report.page import Picture, render_report, write_report

ATTACK = "<script>alert('x')</script><img src=http://evil.example/x.png onerror=alert(1)>\"'&{{ 7*7 }}\x1b[2J\u202e"
VOID = {"meta", "img", "br", "link", "hr", "input"}


def write_run(
    folder: Path, agent: str, seed: int, *, windows: int = 4, level: float = 3.0, samples: bool = True, **config: Any
) -> None:
    """A run whose probe NLL falls by 0.1 a window from a level."""
    folder.mkdir(parents=True)
    description = {
        "format_version": 1,
        "run": folder.name,
        "env_id": "ATESD-Tiny-v0",
        "agent": agent,
        "seed": seed,
        "config": {"windows": windows, "hold_window": 2, **config},
        "versions": {"python": "3.11.9", "atesd-env": "0.1.0"},
    }
    (folder / "config.json").write_text(json.dumps(description))
    rows = [
        {
            "window": window,
            "update": 2 * window,
            "exposure/reveal_ratio": 0.5,
            "student/mismatch": 0.3,
            "probe/nll": level - 0.1 * window,
            "probe/accuracy": None,
            "rollout/num_tokens": 10,
            "reward/total": 0.1,
            "status": "truncated" if window == windows else "running",
            "reason": None,
        }
        for window in range(1, windows + 1)
    ]
    (folder / "trajectory.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if samples:
        sample = {
            "problem_id": "p",
            "student_prompt": "<|user|>1+2<|end|>",
            "teacher_prompt": "<|user|>1+2|1+2=3;#3<|end|>",
            "reveal_ratio": 0.5,
            "num_shown": 1,
            "num_steps": 2,
            "rollout": "1+2=3#3",
            "answer": "3",
            "is_correct": True,
        }
        lines = [json.dumps({"window": window, **sample}) + "\n" for window in range(1, windows + 1)]
        (folder / "samples.jsonl").write_text("".join(lines))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two agents and two seeds; beta is better by 0.5."""
    folder = tmp_path_factory.mktemp("report") / "runs"
    for seed in (0, 1):
        write_run(folder / f"beta-seed{seed}", "beta", seed, level=2.5)
        write_run(folder / f"fixed-1-seed{seed}", "fixed:1", seed)
    return folder


@pytest.fixture(scope="module")
def text(runs: Path) -> str:
    """The report of the two agents."""
    return render_report(runs)


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the pictures of comparisons, which take most of a report's time."""
    monkeypatch.setattr("analysis.report.page.PICTURES", [])


class Reader(HTMLParser):
    """Notes tags, headings, texts of marks; and that every tag is closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[tuple[int, str]] = []
        self.marked: list[str] = []
        self.stack: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if tag == "mark":
            self.marked.append("")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and re.fullmatch(r"h[1-6]", self.stack[-1]):
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)
        if "mark" in self.stack and self.stack[-1] == "mark":
            self.marked[-1] += data


def test_verdict_pictures_runs_and_configuration_come_in_this_order(text: str):
    reader = Reader(text)
    assert [text for level, text in reader.headings if level == 2] == [
        "Verdict",
        "Pictures",
        "Run by run",
        "Configuration and versions",
    ]
    assert text.index("beta has the best mean: probe NLL 2.100 nats/token, 0.500 better than fixed:1") < text.index(
        "<img"
    )


def test_headings_never_skip_a_level_and_every_picture_has_words(text: str):
    reader = Reader(text)
    levels = [level for level, _ in reader.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert len(images) == 4 + 4  # learning, exposure, mismatch, differences; and one a run
    assert all(len(image["alt"] or "") > 40 for image in images)
    assert ("html", {"lang": "en"}) in reader.tags
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in reader.tags if tag == "th")


def test_nothing_is_loaded_from_anywhere(text: str):
    reader = Reader(text)
    addresses = [
        value or ""
        for _, attributes in reader.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster")
    ]
    assert addresses
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in reader.tags}
    policy = next(
        attributes for _, attributes in reader.tags if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_links_inside_of_the_file_have_a_target(text: str):
    reader = Reader(text)
    targets = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(targets) == len(set(targets))
    links = [attributes["href"] for tag, attributes in reader.tags if tag == "a"]
    assert {(link or "")[1:] for link in links} <= set(targets)


def test_texts_from_models_data_and_files_are_escaped(tmp_path: Path):
    folder = tmp_path / "runs" / "<b>run&name"
    write_run(folder, ATTACK, 0, task=ATTACK)
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[0])
    attacked = {name: ATTACK if isinstance(value, str) else value for name, value in sample.items()}
    attacked |= {"teacher_prompt": f"{ATTACK} and {ATTACK}", "num_shown": ATTACK, "reveal_ratio": ATTACK}
    (folder / "samples.jsonl").write_text(json.dumps(attacked) + "\n")
    text = render_report(tmp_path / "runs")
    reader = Reader(text)
    assert {tag for tag, _ in reader.tags} & {"script", "b"} == set()
    assert all((dict(attributes).get("src") or "data:").startswith("data:") for _, attributes in reader.tags)
    assert all(not name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "{{ 7*7 }}" in text, "a text is no template"


@pytest.mark.usefixtures("without_pictures")
def test_lone_surrogates_do_not_keep_the_report_from_being_written(tmp_path: Path):
    write_run(tmp_path / "runs" / "a", "beta", 0)
    path = tmp_path / "runs" / "a" / "samples.jsonl"
    path.write_text(path.read_text().replace("1+2=3#3", "\\ud800"))
    assert write_report(tmp_path / "runs").read_text(encoding="utf-8")


@pytest.mark.usefixtures("without_pictures")
def test_the_revealed_part_is_marked_in_the_teachers_prompt_alone(runs: Path):
    reader = Reader(render_report(runs, num_samples=1))
    assert reader.marked == ["|1+2=3;#3"] * 4
    assert render_report(runs, num_samples=0).count("<mark>") == 0


@pytest.mark.usefixtures("without_pictures")
def test_what_differs_between_runs_is_not_compared(tmp_path: Path):
    write_run(tmp_path / "runs" / "a", "beta", 0, learning_rate=0.1)
    write_run(tmp_path / "runs" / "b", "fixed:1", 0, learning_rate=0.2)
    text = render_report(tmp_path / "runs")
    titles = [title for level, title in Reader(text).headings if level == 3]
    assert titles[:2] == ["ATESD-Tiny-v0 (learning_rate=0.1)", "ATESD-Tiny-v0 (learning_rate=0.2)"]
    assert text.count("nothing to compare it with") == 2
    assert "0.1 <small>(a)</small>" in text


@pytest.mark.usefixtures("without_pictures")
def test_one_run_folder_is_a_report_too(runs: Path):
    path = write_report(runs / "beta-seed0")
    assert path == runs / "beta-seed0" / "report.html"
    assert "<details" in path.read_text()


@pytest.mark.usefixtures("without_pictures")
def test_the_home_folder_is_meant_by_its_sign(runs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(runs))
    assert write_report("~/beta-seed0", "~/home.html") == runs / "home.html"


def test_the_same_runs_give_the_same_bytes(runs: Path, text: str):
    assert render_report(runs) == text


def test_a_new_picture_is_a_new_entry_and_one_that_fails_says_why(runs: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(frame: Any) -> Any:
        raise AnalysisError("no <ratio> here")

    def draw(frame: Any) -> Any:
        figure = Figure()
        figure.subplots()
        return figure, frame.tail(1)

    mine = Picture(
        "Mine",
        draw,
        lambda data: f"It ends in window {data['window'].iloc[0]}.",
        "Look at the end.",
        lambda data: "Here.",
    )
    monkeypatch.setattr("analysis.report.page.PICTURES", [mine, Picture("Another", refuse, lambda data: "")])
    text = render_report(runs)
    assert [title for level, title in Reader(text).headings if level == 4][:2] == ["Mine", "Not drawn"]
    assert 'alt="It ends in window 4."' in text
    assert "<figcaption>Look at the end. Here.</figcaption>" in text
    assert "<li>Another: no &lt;ratio&gt; here</li>" in text


def test_errors_say_what_to_do(tmp_path: Path, runs: Path):
    with pytest.raises(NoRunsError, match="expected a folder of runs"):
        write_report(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(AnalysisError, match="choose another file"):
        write_report(runs, tmp_path / "file" / "report.html")
    assert not list(runs.glob(".*partial"))


BROWSER = next(
    filter(
        None, map(shutil.which, (os.environ.get("ATESD_BROWSER", ""), "chromium", "chromium-browser", "google-chrome"))
    ),
    None,
)
needs_browser = pytest.mark.skipif(
    BROWSER is None,
    reason="a browser is missing: put chromium (Debian's package) or google-chrome on PATH, or its path into ATESD_BROWSER",
)

FRAME = """<!DOCTYPE html><title>untouched</title><body style="margin: 0">
<iframe style="border: 0; width: 1280px; height: 3000px" srcdoc="PAGE"></iframe>
<iframe style="border: 0; width: 390px; height: 3000px" srcdoc="PAGE"></iframe>
<pre id="found"></pre>
<script>
onload = () => {
  found.textContent = JSON.stringify([frames[0], frames[1]].map(frame => {
    const inside = frame.document;
    for (const closed of inside.querySelectorAll("details")) closed.open = true;
    const whole = inside.documentElement;
    const sideways = [...inside.querySelectorAll("body *")].filter(part => !part.closest(".wide, .skip, .label")
      && part.getBoundingClientRect().right > whole.clientWidth + 1).map(part => part.tagName);
    const pictures = [...inside.images].filter(image => !image.naturalWidth || !image.alt).length;
    return {width: whole.clientWidth, overflow: whole.scrollWidth - whole.clientWidth, sideways, pictures,
      scripts: inside.scripts.length, frames: inside.querySelectorAll("iframe, object, form, link").length,
      title: document.title, isLong: inside.body.innerText.length > 2000};
  }));
};
</script>"""


def browse(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Opens a page in a browser without a window; its console goes to stderr."""
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    command += [f"--user-data-dir={profile}", "--enable-logging=stderr", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)


@pytest.fixture
def attacked(tmp_path: Path) -> Path:
    """Runs whose every text is a script, a wall of letters without a space, or runs from right to left."""
    attack = (
        f"</pre></mark></td><script>top.document.title = 'taken'</script>{ATTACK}"
        + "W" * 3000
        + " \u05d0\u05d1\u202e x"
    )
    folder = tmp_path / "attacked" / ("long" * 50)
    for seed in (0, 1):
        write_run(folder / f"a{seed}", attack[:400], seed, task=attack)
        write_run(folder / f"b{seed}", "fixed:1", seed, level=2.5, task=attack)
    for path in folder.glob("*/samples.jsonl"):
        sample = json.loads(path.read_text().splitlines()[0])
        texts = {name: attack if isinstance(value, str) else value for name, value in sample.items()}
        path.write_text(json.dumps({**texts, "teacher_prompt": attack + " more " + attack}) + "\n")
    return tmp_path / "attacked"


@needs_browser
@pytest.mark.parametrize("which", ["runs", "attacked"])
def test_a_real_browser_shows_it_whole_at_desk_and_on_a_phone(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
):
    """Laid out in frames of these widths with every run opened: nothing reaches over the edge but what scrolls by itself, every
    picture is there, no text has become an element or a script, and the console has nothing to say."""
    page = html.escape(render_report(request.getfixturevalue(which)), quote=True)
    (tmp_path / "frame.html").write_text(FRAME.replace("PAGE", page), encoding="utf-8")
    shown = browse(tmp_path / "frame.html", tmp_path / "profile", "--window-size=1800,3000", "--dump-dom")
    assert "CONSOLE" not in shown.stderr
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', shown.stdout)
    nothing = {"overflow": 0, "sideways": [], "pictures": 0, "scripts": 0, "frames": 0}
    sound = nothing | {"title": "untouched", "isLong": True}
    assert json.loads(html.unescape(found)) == [{"width": width, **sound} for width in (1280, 390)]


@needs_browser
def test_a_real_browser_opens_the_file_itself_and_finds_no_fault(runs: Path, tmp_path: Path):
    """A blocked address or a broken picture would be reported on the console."""
    page = write_report(runs)
    shown = browse(page, tmp_path / "profile", "--dump-dom")
    assert "beta has the best mean" in shown.stdout
    assert "CONSOLE" not in shown.stderr
    picture = tmp_path / "page.png"
    browse(page, tmp_path / "profile", "--window-size=1280,2000", f"--screenshot={picture}")
    assert picture.stat().st_size > 20_000


def test_a_remark_says_which_test_failed_and_is_text(tmp_path: Path, without_pictures: None):
    write_run(tmp_path / "run", "fixed:1", 0, windows=1)
    path = tmp_path / "run" / "samples.jsonl"
    sample = json.loads(path.read_text().splitlines()[0])
    sample |= {"is_correct": False, "remark": "failed: assert f(2) < 4: <b>", "answer": "def f(x)"}
    path.write_text(json.dumps(sample) + "\n")
    text = render_report(tmp_path)
    assert "Rollout: wrong; failed: assert f(2) &lt; 4: &lt;b&gt;; the answer is def f(x)." in text
