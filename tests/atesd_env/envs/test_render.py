"""Text and picture of a run so far."""

import math
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from atesd_env.envs.columns import Row
from atesd_env.envs.render import HEIGHT, WIDTH, render_ansi, render_rgb
from tests.programs import ran

COLOURS = {"reveal ratio": (0x00, 0x72, 0xB2), "probe NLL": (0xD5, 0x5E, 0x00), "success": (0x00, 0x9E, 0x73)}


def make_rows(num_windows: int) -> list[Row]:
    """A run that learns; accuracy is measured in every third window."""
    return [
        {
            "window": window,
            "exposure/reveal_ratio": 0.5,
            "rollout/success_rate": 0.4,
            "probe/nll": 2.0 / window,
            "probe/accuracy": 0.1 * window if window % 3 == 0 else None,
            "reward/total": 0.01 * window,
        }
        for window in range(1, num_windows + 1)
    ]


def count(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    """Pixels of exactly this colour."""
    return int((picture == np.asarray(colour, dtype=np.uint8)).all(axis=-1).sum())


def test_text_shows_the_last_ten_windows() -> None:
    lines = render_ansi(make_rows(13), 20).splitlines()
    assert lines[0] == "window 13 of 20"
    assert lines[1].split() == ["window", "reveal", "ratio", "probe", "NLL", "accuracy", "reward"]
    assert [int(line.split()[0]) for line in lines[2:]] == list(range(4, 14))
    assert lines[-2].split() == ["12", "█" * 10 + "·" * 10, "0.50", "0.1667", "1.200", "0.1200"]
    assert lines[-1].split() == ["13", "█" * 10 + "·" * 10, "0.50", "0.1538", "-", "0.1300"]
    assert len({len(line) for line in lines[1:]}) == 1  # columns stay under their headings


@pytest.mark.parametrize(("ratio", "filled"), [(0.0, 0), (0.05, 1), (1.0, 20)])
def test_the_bar_is_as_long_as_the_ratio(ratio: float, filled: int) -> None:
    text = render_ansi([{"window": 1, "exposure/reveal_ratio": ratio}], 5)
    assert text.count("█") == filled
    assert text.count("·") == 20 - filled


def test_text_of_a_run_that_has_not_begun() -> None:
    assert render_ansi([], 20) == "window 0 of 20"


def test_text_of_numbers_that_are_absent_or_not_finite() -> None:
    row: Row = {"window": 1, "exposure/reveal_ratio": math.nan, "probe/nll": math.inf, "probe/accuracy": None}
    assert render_ansi([row], 5).splitlines()[-1].split() == ["1", "·" * 20, "-", "-", "-", "-"]


def test_text_lists_groups_in_the_order_of_their_numbers() -> None:
    row: Row = {"window": 1, "exposure/reveal_ratio": 0.5}
    for group in reversed(range(11)):
        row[f"exposure/reveal_ratio_{group}"] = group / 10
    lines = render_ansi([row], 5).splitlines()
    assert lines[1].endswith("ratio by group")
    assert lines[2].split()[-11:] == [f"{group / 10:.2f}" for group in range(11)]


@pytest.mark.parametrize("num_windows", [0, 1, 2, 20, 25])
def test_pictures_have_one_size(num_windows: int) -> None:
    picture = render_rgb(make_rows(num_windows), 20)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert picture.dtype == np.uint8
    assert picture.flags["C_CONTIGUOUS"]


def test_the_size_does_not_follow_the_users_matplotlib_settings() -> None:
    import matplotlib as mpl

    with mpl.rc_context({"figure.dpi": 300, "savefig.dpi": 300, "figure.figsize": (3, 3)}):
        assert render_rgb(make_rows(2), 20).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", COLOURS)
def test_every_curve_is_drawn_and_grows(name: str) -> None:
    short, long = (count(render_rgb(make_rows(windows), 20), COLOURS[name]) for windows in (2, 18))
    in_legend = count(render_rgb([], 20), COLOURS[name])
    assert in_legend < short < long


def test_a_higher_ratio_is_drawn_higher() -> None:
    heights = []
    for ratio in (0.1, 0.9):
        picture = render_rgb([{"window": window, "exposure/reveal_ratio": ratio} for window in (1, 2, 3)], 5)
        heights.append(np.argwhere((picture == COLOURS["reveal ratio"]).all(axis=-1))[:, 0].mean())
    assert heights[1] < heights[0]


def test_the_frame_stays_in_place_while_the_run_grows() -> None:
    # The outermost column of the axes' frames is dark from top to bottom of each panel.
    wide: Row = {"window": 4, "probe/nll": 123456.0}  # its tick labels are wider than any before
    pictures = [render_rgb(rows, 20) for rows in ([], make_rows(3), [*make_rows(3), wide])]
    frames = [np.flatnonzero((picture < 60).all(axis=-1).sum(axis=0) > HEIGHT / 2).tolist() for picture in pictures]
    assert frames[0]
    assert frames[0] == frames[1] == frames[2]


def test_groups_change_the_picture() -> None:
    rows = make_rows(5)
    grouped: list[Row] = [{**row, "exposure/reveal_ratio_0": 0.1, "exposure/reveal_ratio_1": 0.9} for row in rows]
    assert (render_rgb(rows, 20) != render_rgb(grouped, 20)).any()


def test_a_picture_of_nothing_but_gaps() -> None:
    gaps: Row = {"window": 1, "exposure/reveal_ratio": None, "probe/nll": math.nan, "probe/accuracy": math.inf}
    assert count(render_rgb([gaps], 20), COLOURS["probe NLL"]) == 0


def test_the_same_rows_give_the_same_picture_and_stay_unchanged() -> None:
    rows = make_rows(7)
    before = [dict(row) for row in rows]
    assert (render_rgb(rows, 20) == render_rgb(rows, 20)).all()
    render_ansi(rows, 20)
    assert rows == before


def test_matplotlib_is_imported_only_for_pictures_and_pyplot_never() -> None:
    code = (
        "import sys, atesd_env.envs.render as render; render.render_ansi([], 5); print('matplotlib' in sys.modules); "
        "render.render_rgb([], 5); print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    assert ran(sys.executable, "-c", code).stdout.split() == ["False", "True", "False"]
