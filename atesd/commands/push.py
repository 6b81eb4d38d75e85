"""``atesd push``: adapters, controllers and trajectories to a hub, with a card that is written from the run; nothing unasked."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from atesd.commands import shared
from atesd.console import say
from atesd_env.errors import ConfigError, RunFilesError


@dataclass(frozen=True)
class Command:
    """Send finished runs to a repository of the Hugging Face hub: adapter, agent, configuration, rows, and a card.

    What would be sent is shown first, and is sent after a yes at the terminal, or with --yes. The hub is the one that you are logged in to
    (`hf auth login`, HF_TOKEN, HF_ENDPOINT). config.json tells models, data and folders as they were typed.
    """

    runs: tyro.conf.Positional[Path]
    """Folder of a run, or of runs, each of which gets a folder in the repository."""
    repo: str
    """The repository, owner/name; it is made where there is none."""
    public: bool = False
    """Make a new repository one that everybody can read; one that exists stays as it is."""
    samples: bool = False
    """Send samples.jsonl too: rollouts and prompts, in which the data can be read."""
    yes: bool = False
    """Send without asking."""


def main(arguments: Sequence[str]) -> None:
    """``atesd push``."""
    command = tyro.cli(Command, args=list(arguments), prog="atesd push")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", command.repo) is None:
        raise ConfigError(f"repo: expected owner/name, got {command.repo!r}; pass the repository's id.")
    from analysis.load import list_runs, run_folders
    from atesd.experiments.card import card_of, files_of

    with shared.analysis_errors():
        list_runs(command.runs)
    runs = run_folders(command.runs)
    files = files_of(runs, with_samples=command.samples)
    card = card_of(runs, command.repo)
    for place, path in files.items():
        say(f"{path.stat().st_size:>12,} bytes  {place}")
    say(f"{len(card.encode()):>12,} bytes  README.md:\n\n{card}")
    if not command.yes and not _is_confirmed(command.repo):
        say("nothing was sent.")
        return
    say(f"sent: {_sent(command, files, card)}")


def _is_confirmed(repo: str) -> bool:
    """Asks at the terminal.

    Raises:
        ConfigError: If there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise ConfigError("yes: expected a terminal to ask at, got none; pass --yes to send without asking.")
    return input(f"Send this to {repo}? [y/N] ").strip().lower() in ("y", "yes")


def _sent(command: Command, files: Mapping[str, Path], card: str) -> str:
    """Sends everything in one commit; returns its address.

    Raises:
        RunFilesError: If the hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    hub = HfApi()
    try:
        hub.create_repo(command.repo, private=not command.public, exist_ok=True)
        operations = [CommitOperationAdd(place, path) for place, path in files.items()]
        operations.append(CommitOperationAdd("README.md", card.encode()))
        return str(hub.create_commit(command.repo, operations, commit_message="Runs of atesd-env").commit_url)
    except Exception as error:  # the library raises many kinds, and those of its HTTP client
        raise RunFilesError(
            f"{command.repo}: expected the hub to take it, got {type(error).__name__}: {str(error)[:200]}; check the connection, and "
            "that you are logged in (`hf auth login`) with the right to write there."
        ) from error
