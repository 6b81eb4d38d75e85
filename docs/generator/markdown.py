"""Tables as GitHub and the site show them."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a GitHub-style table."""
    # A bar ends a cell, even inside code, unless a backslash stands before it.
    cells = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [" | ".join(headers), " | ".join("---" for _ in headers), *(" | ".join(row) for row in cells)]
    return "\n".join(f"| {line} |" for line in lines)
