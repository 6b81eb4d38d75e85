"""Tables in pages of the site that are made from the packages above ``atesd_env``.

``python -m docs.generator.tables`` rewrites the blocks between ``<!-- made: NAME -->`` and ``<!-- end -->``; the build of
the site fails where one is not what the code says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from agents.registry import available
from agents.training import EVALUATION_COLUMNS
from atesd_env.config import EnvConfig
from atesd_env.documentation import markdown_table, with_tables
from docs.generator.public_names import ROOT


def agents_table() -> str:
    """Returns the specs, each with a sentence."""
    return markdown_table(("spec", "who decides"), [(f"`{form}`", meaning) for form, meaning in available().items()])


def evaluations_table() -> str:
    """Returns the columns of a training's evaluations."""
    return markdown_table(("column", "meaning"), [(f"`{name}`", text) for name, text in EVALUATION_COLUMNS.items()])


def student_fields_table() -> str:
    """Returns the configuration fields that say which student is loaded, and how."""
    from atesd_env.documentation import field_texts

    names = list(EnvConfig.__dataclass_fields__)
    chosen = names[: names.index("task")]
    texts = field_texts()
    return markdown_table(("field", "meaning [source]"), [(f"`{name}`", texts[name]) for name in chosen])


MADE: dict[str, Callable[[], str]] = {
    "agents": agents_table,
    "evaluations": evaluations_table,
    "student_fields": student_fields_table,
}
"""What makes each block, by its name."""


def made_anew(text: str) -> str:
    """Returns a page with every block as the code has it now."""

    def block(match: re.Match[str]) -> str:
        return f"<!-- made: {match[1]} -->\n\n{MADE[match[1]]()}\n\n<!-- end -->"

    return with_tables(re.sub(r"<!-- made: (\w+) -->.*?<!-- end -->", block, text, flags=re.DOTALL))


def main() -> None:
    """Rewrites the pages."""
    for path in sorted(Path(ROOT, "docs").rglob("*.md")):
        text = path.read_text()
        if made_anew(text) != text:
            path.write_text(made_anew(text))


if __name__ == "__main__":
    main()
