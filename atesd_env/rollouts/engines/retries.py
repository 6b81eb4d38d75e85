"""Asking a dead or silent engine again: after which pauses, and for what."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from atesd_env.errors import EngineUnavailableError
from atesd_env.rollouts.engines.completions import Completion

_logger = logging.getLogger(__name__)

FIRST_PAUSE_SEC = 1.0
"""Pause before an engine that failed is asked again the first time; each further one is twice as long."""


def complete(
    ask: Callable[[Sequence[int]], Sequence[Completion | EngineUnavailableError]],
    num_rows: int,
    retries: int,
    reset: Callable[[], None],
) -> list[Completion]:
    """Asks until every answer has arrived, or too often; what has arrived is not asked for again.

    Args:
        ask: Given the rows that are left, returns the answer to each, or why it has none.
        num_rows: Answers that are wanted.
        retries: How often an engine that failed is asked again.
        reset: Called after each failure.

    Raises:
        EngineUnavailableError: If answers are still missing after all retries.
    """
    done: dict[int, Completion] = {}
    for attempt in range(retries + 1):
        failure: EngineUnavailableError | None = None
        left = [row for row in range(num_rows) if row not in done]
        try:
            for row, answer in zip(left, ask(left), strict=True):
                if isinstance(answer, EngineUnavailableError):
                    failure = answer
                else:
                    done[row] = answer
        except EngineUnavailableError as error:
            failure = error
        if failure is None:
            return [done[row] for row in range(num_rows)]
        reset()
        if attempt < retries:
            _logger.warning(
                "%s; %d of %d rollouts have arrived, asking again (%d of %d)",
                *(failure, len(done), num_rows, attempt + 1, retries),
            )
            time.sleep(FIRST_PAUSE_SEC * 2**attempt)
        else:
            raise EngineUnavailableError(
                f"{failure} Asked {retries + 1} times (engine_retries={retries}) it was expected to give {num_rows} rollouts, but "
                f"{len(done)} arrived. None of them was used: everything is as before them, and --resume goes on from there."
            ) from failure
    raise AssertionError("unreachable")
