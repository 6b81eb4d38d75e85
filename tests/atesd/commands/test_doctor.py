"""What `atesd doctor` tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from atesd.commands import doctor


def test_the_report_has_what_an_issue_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(Path, "home", lambda: Path(doctor.__file__).parents[2])
    monkeypatch.setenv("ATESD_CACHE", str(Path(doctor.__file__).parent / "not" / "there"))
    doctor.main([])
    text = capsys.readouterr().out
    for part in (
        "atesd-env: 0.1.0",
        "torch: 2",
        "cores that this process may use",
        "OMP_NUM_THREADS: 3",
        "GiB free",
        "trl: trl",
    ):
        assert part in text
    assert "agents: ~/agents" in text  # an issue need not tell the user's name
    assert text.index("system") < text.index("needs attention")


def test_another_owner_of_our_names_is_found():
    owners = {"agents": ["atesd_env", "openai-agents"], "analysis": ["atesd-env"], "torch": ["torch"]}
    assert doctor.foreign_owners(owners) == {"agents": ["openai-agents"]}
    assert doctor.foreign_owners({"analysis": ["other"]}) == {"analysis": ["other"]}
    assert doctor.foreign_owners({}) == {}


def test_findings_say_what_to_do():
    side_by_side = [Path("/a/agents"), Path("/a/analysis")]
    assert doctor.findings({}, {"this folder": 10 * 2**30}, side_by_side) == []
    (conflict,) = doctor.findings({"agents": ["openai-agents"]}, {}, side_by_side)
    assert "openai-agents" in conflict
    assert "environment of its own" in conflict
    (apart,) = doctor.findings({}, {}, [Path("/a/agents"), Path("/b/analysis")])
    assert "/a, /b" in apart
    (full,) = doctor.findings({}, {"this folder": 2**30}, side_by_side)
    assert "got 1.0" in full


def test_features_of_a_processor_are_read():
    assert doctor.cpu_features("processor: 0\nflags\t\t: sse avx2 amx_bf16\nmodel name: avx512f\n") == [
        "avx2",
        "amx_bf16",
    ]
    assert doctor.cpu_features("Features : fp asimd bf16") == ["asimd", "bf16"]


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        doctor.importlib.metadata, "requires", lambda _: ["numpy>=1", 'nowhere-at-all; extra == "export"']
    )
    assert doctor.required_versions()["numpy"][0].isdigit()
    assert doctor.optional_parts()["export"] == "nowhere-at-all missing"
