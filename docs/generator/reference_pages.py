"""The API reference: a page for each public module, and a list of them for each package."""

from __future__ import annotations

import griffe

from docs.generator.public_names import PACKAGES, loaded, public_modules

_OPENINGS = {
    "atesd_env": "What happens: the environment. Most programs need `gymnasium.make` after `import atesd_env`, and nothing else.",
    "atesd": "Who types, and what is played: the console command `atesd` and the experiments behind it.",
    "agents": "Who decides: controllers. `agents.make(spec, env, seed=...)` makes one.",
    "analysis": "What it meant: reads run folders, imports none of the others. `analysis.load_runs(path)` is the way in.",
}


def reference_pages() -> dict[str, str]:
    """Returns the text of each page, by its path in the site."""
    pages = {}
    for name in PACKAGES:
        package = loaded(name)
        modules = list(public_modules(package))
        pages[f"reference/{name}.md"] = _package_page(package, modules)
        for module in modules[1:]:
            pages[_path(module)] = f"# {module.path}\n\n::: {module.path}\n"
    return pages


def _path(module: griffe.Module) -> str:
    return f"reference/modules/{module.path}.md"


def _package_page(package: griffe.Module, modules: list[griffe.Module]) -> str:
    exported = [str(name) for name in package.exports or () if not str(name).startswith("_")]
    lines = [f"# {package.path}", _OPENINGS[package.path], "## Names of the package"]
    lines += [f"::: {package.path}.{name}" for name in exported]
    lines += ["## Modules"]
    rows = []
    for module in modules[1:]:
        text = (
            (module.docstring.value if module.docstring else "")
            .partition("\n")[0]
            .replace("``", "`")
            .replace("|", r"\|")
        )
        rows.append(f"| [`{module.path}`](modules/{module.path}.md) | {text} |")
    lines.append("\n".join(["| module | |", "| --- | --- |", *rows]))
    return "\n\n".join(lines) + "\n"
