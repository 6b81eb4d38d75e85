"""``atesd agents``: who can choose the reveal ratio, and with which options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from atesd.commands import shared
from atesd.console import say


@dataclass(frozen=True)
class Command:
    """List the agents, or the options of one.

    An option is written behind the agent's name: beta:credit=one-step, fixed:0.5, staged:0.3:1.
    """

    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[SPEC]")] = ""
    """Spec of an agent whose options are to be listed."""


def main(arguments: Sequence[str]) -> None:
    """``atesd agents``."""
    command = tyro.cli(Command, args=list(arguments), prog="atesd agents")
    shared.find_own_classes()
    from rich.text import Text

    from agents.specs.described import described_options
    from agents.specs.registry import available
    from atesd.experiments.baselines.registry import NAMES

    headings: tuple[str, ...] = ("spec", "who decides")
    lines: list[tuple[str, ...]] = [*available(NAMES).items()]
    if command.agent:
        headings = ("option", "type", "default", "meaning")
        options = described_options(command.agent, NAMES)
        lines = [(name, one.type, one.default, one.meaning) for name, one in options.items()]
    table = shared.table_of(None, headings, num_left=len(headings))
    for first, *others in lines:
        table.add_row(Text(first, no_wrap=True), *map(Text, others))  # Text: brackets in a form are no markup
    shared.show(table)
    if not command.agent:
        say("options: name:key=value, such as beta:credit=one-step; `atesd agents NAME` lists an agent's.")
