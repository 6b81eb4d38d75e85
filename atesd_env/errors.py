"""The exceptions this package raises on purpose.

One root, and one class for each kind of thing that can be wrong; each also inherits the built-in that fits, so that
``except ValueError`` keeps working. Every message says what was expected, what came, and what to do; where a name was
mistyped, it says which one was probably meant (`atesd_env.hints`).
"""

from gymnasium.error import ResetNeeded


class AtesdError(Exception):
    """Root of every exception that atesd-env raises on purpose."""


class ConfigError(AtesdError, ValueError):
    """A configuration field, an action or an argument has a value that cannot be used."""


class NoEpisodeError(AtesdError, ResetNeeded):
    """A step was asked for where no episode is running."""


class DataError(AtesdError, ValueError):
    """A data file is missing, malformed, or has nothing in it that can be used."""


class StudentError(AtesdError, RuntimeError):
    """A student model, its tokenizer or its adapter cannot be loaded or is not supported."""


class NonFiniteError(AtesdError, ArithmeticError):
    """A number that must be finite is not; the message names the student."""


class EngineError(AtesdError, RuntimeError):
    """A rollout engine cannot be used, or answers what it was not asked for; rows written before stay intact."""


class EngineUnavailableError(EngineError):
    """A rollout engine is dead, or did not answer in time; asking again may help."""


class AgentError(AtesdError, RuntimeError):
    """An agent raised, or decided something that cannot be used; rows written before stay intact."""


class RunFilesError(AtesdError, OSError):
    """A run folder cannot be read or written; rows written before stay intact."""


class ExtrapolationError(AtesdError, ValueError):
    """A surrogate was asked for a window unlike those that it was fitted on."""


class RankError(AtesdError, RuntimeError):
    """Another process of a run on several devices ended, hangs or disagrees; rows written before stay intact."""


def shown(value: object, longest: int = 500) -> str:
    """Returns a value that somebody gave for a message: not without end, and whatever its own ``repr`` does.

    >>> shown("a" * 300, longest=8)
    "'aaaa..."
    """
    try:
        text = repr(value)
    except Exception as error:  # a number of 5,000 digits, an object of somebody's
        text = f"a {type(value).__name__} that cannot be shown ({type(error).__name__})"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
