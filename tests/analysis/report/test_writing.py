"""A report takes the place of no file but an older report, and is whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from analysis.errors import AnalysisError
from analysis.report.writing import MARK, write_page


@pytest.mark.parametrize("make", ["another", "link", "link to a report", "folder", "pipe"])
def test_only_a_report_is_replaced(make: str, tmp_path: Path):
    path, elsewhere = tmp_path / "report.html", tmp_path / "elsewhere"
    elsewhere.write_bytes(MARK if "report" in make else b"mine")
    if make == "another":
        path.write_text("<html>mine")
    elif make == "folder":
        path.mkdir()
    elif make == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    with pytest.raises(
        AnalysisError, match=r"report\.html: expected nothing there, or an older report, got something else"
    ):
        write_page(path, MARK + b"new")
    assert elsewhere.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "report.html"]


def test_an_older_report_is_replaced_and_readable_as_other_files_are(tmp_path: Path):
    path = tmp_path / "new" / "report.html"
    (tmp_path / "other").write_text("")
    for text in (b"old", b"new"):
        write_page(path, MARK + text)
    assert path.read_bytes() == MARK + b"new"
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
