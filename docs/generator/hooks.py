"""What the site's generator (MkDocs) calls: pages made from code, links to files outside of ``docs``, and checks.

A warning fails the build, which is strict.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # MkDocs imports this file by its path

from mkdocs.structure.files import File, Files, InclusionLevel  # noqa: E402

from docs.generator.command_pages import command_page  # noqa: E402
from docs.generator.environment_pages import environment_ids, environment_page, index_page  # noqa: E402
from docs.generator.public_names import PACKAGES, loaded, undocumented, unresolved_exports  # noqa: E402
from docs.generator.reference_pages import reference_pages  # noqa: E402
from docs.generator.tables import made_anew  # noqa: E402

_log = logging.getLogger("mkdocs.hooks.atesd")
_LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)")
_ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def on_pre_build(config: Any) -> None:
    """Names what is public and says nothing of itself."""
    packages = [loaded(name) for name in PACKAGES]
    for path in undocumented(packages):
        _log.warning(
            "%s: expected a docstring, as for every public name, found none; write one, or begin the name with _", path
        )
    for path in (path for package in packages for path in unresolved_exports(package)):
        _log.warning("%s: expected in its package, as __all__ says, found nothing; correct __all__", path)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made from code, and the files outside of ``docs`` that pages link to."""
    pages = {"environments/index.md": index_page(), "command_line.md": command_page(), **reference_pages()}
    pages |= {f"environments/{env_id}.md": environment_page(env_id) for env_id in environment_ids()}
    for name, target in _ROOT_PAGES.items():
        pages[target] = (ROOT / name).read_text().replace("](docs/", "](")
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for source in [file for file in files if file.is_documentation_page() and file.generated_by is None]:
        for outside in _outside(source.src_uri, Path(source.abs_src_path).read_text()):
            _add_outside(files, config, outside)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Points links to files outside of ``docs`` at their copies in the site, and refuses stale tables."""
    if made_anew(markdown) != markdown:
        _log.warning(
            "%s: expected its tables to be the code's, found others; run python -m docs.generator.tables",
            page.file.src_uri,
        )

    def pointed(match: re.Match[str]) -> str:
        outside = _resolved(page.file.src_uri, match[2])
        return match[1] + (
            match[2]
            if outside is None
            else posixpath.relpath(_site_path(outside), posixpath.dirname(page.file.src_uri) or ".")
        )

    return _LINK.sub(pointed, markdown)


def _outside(page: str, text: str) -> set[str]:
    return {path for _, link in _LINK.findall(text) if (path := _resolved(page, link)) is not None}


def _resolved(page: str, link: str) -> str | None:
    """Returns the path below the repository of a link that leaves ``docs``, or None."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return None if path.startswith("docs/") or not (ROOT / path).exists() else path


def _site_path(outside: str) -> str:
    if outside in _ROOT_PAGES:
        return _ROOT_PAGES[outside]
    return f"repository/{outside}/index.md" if (ROOT / outside).is_dir() else f"repository/{outside}"


def _add_outside(files: Files, config: Any, outside: str) -> None:
    target = _site_path(outside)
    if files.get_file_from_path(target) is not None:
        return
    if not (ROOT / outside).is_dir():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / outside)))
        return
    names = sorted(name for name in os.listdir(ROOT / outside) if (ROOT / outside / name).is_file())
    for name in names:
        _add_outside(files, config, f"{outside}/{name}")
    text = f"# {outside}\n\n" + "\n".join(f"- [{name}]({name})" for name in names) + "\n"
    files.append(File.generated(config, target, content=text, inclusion=InclusionLevel.NOT_IN_NAV))
