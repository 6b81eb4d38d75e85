"""The console command ``atesd``: finds the verb, and turns errors and signals into messages and exit codes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version

import tyro

from atesd.commands.spelled import check_flags, flag_names, in_flags, with_columns_joined
from atesd.commands.verbs import VERBS, Verb, overview
from atesd.console import log_harmlessly, say
from atesd_env.errors import AgentError, AtesdError, ConfigError
from atesd_env.hints import did_you_mean


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: exits with 0, 1 (a run failed), 2 (wrong arguments), 130 (Ctrl-C) or 143 (terminated)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        say(overview())
        return
    if arguments[0] == "--version":
        say(f"atesd-env {version('atesd-env')}")
        return
    if arguments[0].startswith("--tyro-"):
        _complete(arguments)
        return
    name, *rest = with_columns_joined(arguments)
    if name not in VERBS:
        hint = did_you_mean(name, VERBS, "`atesd` lists what each does.")
        say(f"atesd: expected one of the verbs {', '.join(VERBS)}, got {name!r}; {hint}", error=True)
        sys.exit(2)
    verb = VERBS[name]
    if {"-h", "--help"} & set(rest):
        say(f"example: {verb.example}\n")
    log_harmlessly()
    try:
        check_flags(rest, flag_names(verb.module().Command))
        with _terminable(), _several_processes(verb):
            verb.module().main(rest)
    except AtesdError as error:
        if isinstance(error, AgentError) and isinstance(error.__cause__, Exception):
            # The user's own code: they want to see the way through it.
            say("".join(traceback.format_exception(error.__cause__)), error=True)
        say(f"atesd {name}: {in_flags(str(error), flag_names(verb.module().Command))}", error=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stderr.close()
    except KeyboardInterrupt as interrupt:
        say(f"atesd {name}: {interrupt.args[0] if interrupt.args else _INTERRUPTED}", error=True)
        sys.exit(143 if isinstance(interrupt, _Terminated) else 130)


_INTERRUPTED = (
    "interrupted; the windows written so far can be read. The same arguments and --resume (instead of --overwrite) go on from "
    "there."
)


def _complete(arguments: Sequence[str]) -> None:
    """Lets tyro print its script with which a shell completes the whole command (``--tyro-print-completion bash``)."""
    commands = {name: verb.module().Command for name, verb in VERBS.items()}
    tyro.extras.subcommand_cli_from_dict(commands, prog="atesd", args=list(arguments))


def _several_processes(verb: Verb) -> AbstractContextManager[None]:
    """Lets the other processes of a launcher (``torchrun``) help the first one, for the verbs that train in its process."""
    # Asked of the environment first: torch takes a second to import, and most commands need none.
    if int(os.environ.get("WORLD_SIZE") or 1) == 1:
        return nullcontext()
    from atesd_env.population.distributed import is_launched, several_processes

    if is_launched() and not verb.shares_processes:
        sharing = " and ".join(name for name, one in VERBS.items() if one.shares_processes)
        raise ConfigError(
            f"{verb.name}: expected one process, got {os.environ['WORLD_SIZE']} of a launcher, which are for the verbs {sharing}; "
            f"start `atesd {verb.name}` by itself (many runs on many machines: `atesd compare --ray`)."
        )
    return several_processes()


class _Terminated(KeyboardInterrupt):
    """SIGTERM came, as from a batch system at the end of its time."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM end the command as Ctrl-C does: files are closed, and a message says how to go on."""

    def stop(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
