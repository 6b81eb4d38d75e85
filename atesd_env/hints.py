"""Hints of messages: which name was probably meant where one was mistyped."""

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Returns which of some names was probably meant, capitals aside, or None where none is near.

    >>> nearest("Windos", ["windows", "groups"]), nearest("windows", ["groups"])
    ('windows', None)
    """
    by_lower = {candidate.lower(): candidate for candidate in names}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, names: Iterable[str], otherwise: str = "") -> str:
    """Returns a message's hint at the nearest of some names, or ``otherwise`` where none is near.

    >>> did_you_mean("windos", ["windows", "groups"]), did_you_mean("x", ["windows"], "the field is windows.")
    ("did you mean 'windows'?", 'the field is windows.')
    """
    found = nearest(name, names)
    return f"did you mean {found!r}?" if found else otherwise


def suggestion(name: str, names: Iterable[str]) -> str:
    """Returns a last sentence for a message, with a blank before it, or nothing where no name is near.

    >>> suggestion("sigend", ["signed", "positive"]), suggestion("x", ["signed"])
    (" Did you mean 'signed'?", '')
    """
    found = nearest(name, names)
    return f" Did you mean {found!r}?" if found else ""
