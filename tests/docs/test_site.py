"""The documentation site: what its strict build lets through and what it does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the documentation's generator is missing: pip install 'atesd-env[docs]'")

import griffe

import agents
import analysis
import atesd_env
from docs.generator.docstrings import as_markdown
from docs.generator.environment_pages import environment_ids, environment_page
from docs.generator.public_names import PACKAGES, loaded, undocumented, unresolved_exports
from tests.programs import ROOT, ran


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", config, "--site-dir", site]
    return ran(*command, cwd=ROOT, NO_MKDOCS_2_WARNING="1")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once as ``make docs`` builds it."""
    folder = tmp_path_factory.mktemp("site")
    result = build(ROOT / "mkdocs.yml", folder)
    assert result.returncode == 0, result.stderr[-4000:]
    return folder


def test_every_environment_has_its_page(site: Path):
    for env_id in environment_ids():
        page = (site / "environments" / f"{env_id}.html").read_text()
        for heading in ("action", "observation", "reward", "episode-end", "arguments", "version-history"):
            assert f'id="{heading}"' in page, (env_id, heading)


def test_the_reference_has_every_exported_name(site: Path):
    for package in (atesd_env, agents, analysis):
        page = (site / "reference" / f"{package.__name__}.html").read_text()
        for name in package.__all__:
            if not name.startswith("_"):
                assert f'id="{package.__name__}.{name}"' in page, (package.__name__, name)


def test_nothing_is_loaded_from_the_network(site: Path):
    loading = re.compile(
        r'<(?:script|img|iframe)[^>]+src="https?:|<link[^>]+rel="(?:stylesheet|preconnect)"[^>]+href="https?:'
    )
    pages = list(site.rglob("*.html"))
    assert len(pages) > 100
    assert [str(page) for page in pages if loading.search(page.read_text())] == []


def test_links_to_files_outside_of_the_documentation_lead_to_copies(site: Path):
    page = (site / "results" / "agents_on_toy.html").read_text()
    (link,) = re.findall(r'href="([^"]*agents_on_toy\.json)"', page)
    assert (site / "results" / link).resolve().is_file()


def test_broken_links_and_anchors_fail_the_build(tmp_path: Path):
    """The site's own validation settings, on pages of which one is wrong in two ways."""
    pages = tmp_path / "docs"
    pages.mkdir()
    (pages / "index.md").write_text("# Start\n\n[gone](missing.md) [wrong](other.md#nowhere) [right](other.md#here)\n")
    (pages / "other.md").write_text("# Other\n\n## Here\n")
    own = (ROOT / "mkdocs.yml").read_text()
    (validation,) = re.findall(r"^validation:\n(?: .*\n)+", own, flags=re.MULTILINE)
    (strict,) = re.findall(r"^strict: true\n", own, flags=re.MULTILINE)
    (tmp_path / "mkdocs.yml").write_text(f"site_name: test\n{strict}{validation}")
    result = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert result.returncode != 0
    assert "'missing.md', but the target is not found" in result.stderr
    assert "does not contain an anchor '#nowhere'" in result.stderr
    assert "#here" not in result.stderr


def test_public_names_say_what_they_are():
    assert undocumented([loaded(name) for name in PACKAGES]) == []
    assert [name for package in PACKAGES for name in unresolved_exports(loaded(package))] == []


def test_an_undocumented_name_is_found(tmp_path: Path):
    package = tmp_path / "sample"
    package.mkdir()
    (package / "__init__.py").write_text(
        '"""A package."""\nfrom sample.one import Known\n__all__ = ["Known", "gone"]\n'
    )
    (package / "one.py").write_text(
        '"""A module."""\n'
        'class Known:\n    """A class."""\n    def said(self):\n        """Says."""\n    def silent(self): ...\n'
        "class Other(Known):\n    def said(self): ...\n"
        "def function(): ...\ndef _private(): ...\nNUMBER = 1\nTOLD = 2\n" + '"""Told."""\n'
    )
    (package / "two.py").write_text("X = 1\n'''Told.'''\n".replace("X", "VALUE"))
    module = griffe.load("sample", search_paths=[str(tmp_path)])
    assert undocumented([module]) == [
        "sample.one.Known.silent",
        "sample.one.NUMBER",
        "sample.one.Other",
        "sample.one.function",
        "sample.two",
    ]
    assert unresolved_exports(module) == ["sample.gone"]


def test_a_page_shows_the_defaults_of_its_own_id():
    tiny, qwen = environment_page("ATESD-Tiny-v0"), environment_page("ATESD-Qwen3-1.7B-v0")
    assert "| `lora_r` | 8 |" in tiny
    assert "| `lora_r` | 64 |" in qwen
    assert "toy_kind" not in tiny
    assert "| `toy_kind` | constant |" in environment_page("ATESD-Toy-v0")
    assert "| `file` | required |" in environment_page("ATESD-Surrogate-v0")


def test_examples_in_docstrings_are_fenced():
    text = "Says.\n\n>>> [1, 2]\n[1, 2]\n\nThe samples [problem][sample] of it."
    assert as_markdown(text) == "Says.\n\n```pycon\n>>> [1, 2]\n[1, 2]\n```\n\nThe samples `[problem][sample]` of it."
