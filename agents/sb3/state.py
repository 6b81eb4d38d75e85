"""Everything that a Stable-Baselines3 agent needs to go on with an interrupted training, as arrays.

That is its zip file (of which only what is not pickled is read), the states of its random generators (its action space has one of
its own, for random warm-ups, which the zip loses), and the replay buffer of an algorithm that has one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.sb3.agent import SB3Agent, loaded
from atesd_env.files.reading import json_value, reading

_ZIP, _ACTION_SPACE, _GENERATORS, _REPLAY = "zip", "action_space", "generators/", "replay/"
_REPLAY_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def state_arrays(agent: SB3Agent) -> dict[str, NDArray[Any]]:
    """Returns the agent's state; students in the middle of a run are not in it."""
    arrays: dict[str, NDArray[Any]] = {_ZIP: np.frombuffer(agent.packed(), dtype=np.uint8)}
    generator = json.dumps(agent.algorithm.action_space.np_random.bit_generator.state)
    arrays[_ACTION_SPACE] = np.frombuffer(generator.encode(), dtype=np.uint8)
    arrays |= {f"{_GENERATORS}{name}": array for name, array in agent.generators.arrays().items()}
    buffer = getattr(agent.algorithm, "replay_buffer", None)
    if buffer is not None:
        length = buffer.buffer_size if buffer.full else buffer.pos
        arrays[f"{_REPLAY}position"] = np.asarray([buffer.pos, buffer.full], dtype=np.int64)
        for name in _REPLAY_ARRAYS:
            if hasattr(buffer, name):  # next_observations are left out by optimize_memory_usage
                arrays[f"{_REPLAY}{name}"] = getattr(buffer, name)[:length]
    return arrays


def restored_agent(arrays: Mapping[str, NDArray[Any]], beginning: SB3Agent, source: str) -> SB3Agent:
    """Returns the agent whose ``state_arrays`` these are, for as many students as before; nothing is unpickled.

    Args:
        arrays: The state.
        beginning: The agent that the training began with, made anew; the restored one goes on in its place.
        source: What messages call the state.

    Raises:
        RunFilesError: If it is no state of such an agent.
    """
    with reading(source, "the state of an agent's training", remedy="begin anew (--overwrite)"):
        return _restored(arrays, beginning, source)


def _restored(arrays: Mapping[str, NDArray[Any]], beginning: SB3Agent, source: str) -> SB3Agent:
    content = arrays[_ZIP].tobytes()
    agent = loaded(content, beginning.env, source, learn=True, seed=beginning.seed, beginning=beginning)
    assert isinstance(agent, SB3Agent)
    agent.generators.set_arrays(_below(_GENERATORS, arrays))
    agent.algorithm.action_space.np_random.bit_generator.state = json_value(arrays[_ACTION_SPACE].tobytes())
    replay = _below(_REPLAY, arrays)
    if replay:
        buffer = agent.algorithm.replay_buffer
        position, is_full = replay.pop("position").tolist()
        buffer.pos, buffer.full = position, bool(is_full)
        for name, array in replay.items():
            getattr(buffer, name)[: len(array)] = array
    return agent


def _below(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
