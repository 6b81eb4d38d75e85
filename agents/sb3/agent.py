"""Agents of Stable-Baselines3 and sb3-contrib on the contract of agents/base.py.

An algorithm acts in [-1, 1] or on a grid; its agent here takes our observations and gives reveal ratios. What an algorithm
calls a rollout is a stretch of windows, and its time steps are windows.

Importing this module loads torch and Stable-Baselines3; agents/specs/registry.py does so when such an agent is made.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.noise import VectorizedActionNoise

from agents.beta import policy_numbers
from agents.checking import num_groups
from agents.files import with_suffix
from agents.options import checked_choice, checked_count
from agents.sb3.algorithms import ALGORITHMS, Scale, action_map, arguments, check_options
from agents.sb3.callbacks import StartEndedAfter, as_callback
from agents.sb3.files import (
    TRUST,
    Description,
    check_same_spaces,
    check_trusted,
    described,
    moved_classes,
    packed,
    pickled_parts,
    read_agent_file,
)
from agents.sb3.randomness import PrivateGenerators
from agents.sb3.vec_env import PopulationVecEnv, feature_names
from agents.specs.saved import Frozen
from atesd_env.config.checks import checked_seed
from atesd_env.errors import AtesdError, ConfigError, RunFilesError
from atesd_env.files.atomic import write_atomically

AnyEnv = gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]
"""A scalar environment, or a vector of students."""


@dataclass(eq=False, repr=False)
class SB3Agent:
    """An algorithm of Stable-Baselines3 as one of our agents; made by ``make`` and ``load_agent``.

    Attributes:
        name: Name of the algorithm, as in a spec.
        env: The environment, scalar or vector.
        algorithm: The algorithm itself, on ``vec_env``, for everything that Stable-Baselines3 can do with it.
        vec_env: The adapter around ``env``, with deferred resets.
        generators: The random generators that the algorithm draws from.
        seed: Its seed.
    """

    name: str
    env: AnyEnv
    algorithm: Any
    vec_env: PopulationVecEnv
    generators: PrivateGenerators
    seed: int

    @property
    def num_timesteps(self) -> int:
        """Windows that it has learned from, over all students."""
        return int(self.algorithm.num_timesteps)

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        """Returns reveal ratios, float32 [groups] or [n, groups], and an LSTM's next state; as ``base.Agent.predict``."""
        observations = np.atleast_2d(np.asarray(observation, dtype=np.float32))
        with self.generators.lent():
            actions, state = self.algorithm.predict(observations, state, episode_start, deterministic)
        ratios = self.vec_env.actions.ratios(actions)
        return (ratios if np.ndim(observation) > 1 else ratios[0]), state

    def learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        progress_bar: bool = False,
        *,
        reset_num_timesteps: bool = True,
    ) -> Self:
        """Decides and learns for some windows, counted over all students; rounded up to whole stretches between updates.

        Args:
            total_timesteps: Windows to make.
            callback: Called after each step of all students, before those whose run has ended get a new one: a function of
                two dicts (the algorithm's local and global names), a ``BaseCallback``, or a list of these. Where it returns
                False, learning stops: at once, without an update from the windows since the last one.
            progress_bar: Show one.
            reset_num_timesteps: Start counting, and new runs, as the agent's seed gives them for the first call. False goes
                on with the runs that the last call was in.

        Returns:
            The agent itself.
        """
        callbacks = [as_callback(one) for one in (callback if isinstance(callback, list) else [callback])]
        with self.generators.lent():
            self.algorithm.learn(
                total_timesteps,
                callback=StartEndedAfter(callbacks, self.vec_env),
                progress_bar=progress_bar,
                reset_num_timesteps=reset_num_timesteps,
            )
        return self

    def diagnostics(self) -> dict[str, float]:
        """Returns numbers for the columns ``agent/<name>``: the updates so far, and what a Beta policy last decided.

        The latter are those of ``agents.beta.policy_numbers``, of the first student.
        """
        numbers = {"num_updates": float(self.algorithm._n_updates)}
        policy: Any = getattr(getattr(self.algorithm.policy, "action_dist", None), "distribution", None)
        if hasattr(policy, "concentration1"):
            numbers |= policy_numbers(policy.concentration1[0], policy.concentration0[0])
        return numbers

    def packed(self) -> bytes:
        """Returns what ``save`` writes."""
        description = Description(
            self.name, self.vec_env.groups, self.vec_env.actions.points, feature_names(self.env), self.seed
        )
        with self.generators.lent():
            return packed(self.algorithm, description)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the agent to a zip file, whole or not at all: Stable-Baselines3's own, with ``atesd.json`` beside.

        Replay buffers and random generators are not in it (agents/sb3/state.py keeps those of an interrupted training).

        Args:
            path: The file; without a suffix, ``.zip`` is added.

        Raises:
            RunFilesError: If it cannot be written.
        """
        write_atomically(with_suffix(path, ".zip"), self.packed())

    @classmethod
    def load(cls, path: str | os.PathLike[str], env: AnyEnv, *, trust: bool = False) -> SB3Agent:
        """Returns the agent of a file, able to learn; ``load_agent(path, env, learn=True, trust=trust)``."""
        agent = load_agent(path, env, learn=True, trust=trust)
        assert isinstance(agent, SB3Agent)
        return agent


def make(
    name: str,
    env: AnyEnv,
    seed: int = 0,
    *,
    policy: str | None = None,
    grid: int | None = None,
    hidden_size: int = 64,
    **options: Any,
) -> SB3Agent:
    """Returns a new agent.

    Args:
        name: "ppo", "a2c", "sac", "td3", "dqn", "recurrent_ppo" or "tqc".
        env: One of our environments, scalar or vector, wrapped or not. Defaults follow from its configuration
            (agents/sb3/algorithms.py): the discount is its ``gamma``.
        seed: Seed of the agent, and of the first runs: student k begins with the seed ``seed + k``.
        policy: For ppo, a2c and recurrent_ppo "beta" (default) or "gaussian"; for the others "mlp".
        grid: Choose from this many evenly spaced ratios, at least 2; dqn always does (``agents.sb3.actions.default_points``).
        hidden_size: Units of each of the two hidden layers, at least 1.
        **options: Further arguments of the algorithm's constructor. ``action_noise`` may be a standard deviation.

    Raises:
        ConfigError: If an argument or the environment cannot be used.
    """
    checked_choice("agent", name, tuple(ALGORITHMS))
    seed = checked_seed(seed)
    if seed >= 2**32:
        raise ConfigError(
            f"seed: expected one below 2^32 for the agent {name!r}, as Stable-Baselines3 takes them, got {seed}; pass a smaller one."
        )
    hidden_size = checked_count("hidden_size", hidden_size, least=1)
    actions = action_map(name, num_groups(env), grid)
    vec_env = PopulationVecEnv(env, actions, defer_reset=True, agent_name=name)
    generators = PrivateGenerators()
    with generators.lent():
        try:
            keywords = arguments(name, Scale.of(env), actions.space, policy, hidden_size, options)
            algorithm = ALGORITHMS[name].cls(env=vec_env, seed=seed, **keywords)
        except AtesdError:
            raise
        except Exception as error:  # whatever an option of another kind may come to
            raise ConfigError(
                f"agent {name!r}: expected options that {ALGORITHMS[name].cls.__name__} takes, got {options} ('{error}'); "
                "change them."
            ) from error
    return SB3Agent(name, env, algorithm, vec_env, generators, seed)


def load_agent(
    path: str | os.PathLike[str],
    env: AnyEnv,
    learn: bool = False,
    *,
    trust: bool = False,
    seed: int = 0,
    deterministic: bool = True,
    **options: Any,
) -> SB3Agent | Frozen:
    """Returns the agent of a zip file that ``SB3Agent.save`` (or ``atesd train``) wrote.

    A part of the file is unpickled, which can run any code: say ``trust=True`` only of files you trust.

    Args:
        path: The file; without a suffix, ``.zip`` is added.
        env: The environment to decide in, scalar or vector, with as many groups and the same features as in training.
        learn: Whether it goes on learning. If not, it only decides. If so, stretches between updates are cut to the
            environment (as for a new agent), and a random warm-up is left out.
        trust: That the file may run code. Without it, it is only looked at, and refused.
        seed: Seed of its random decisions, and of the first runs.
        deterministic: Without ``learn``: leave the randomness out of the decisions, as ``atesd train`` does in evaluations.
        **options: With ``learn``: arguments of the algorithm's constructor that replace the saved ones.

    Raises:
        RunFilesError: If the file cannot be read, is not whole or holds something else.
        ConfigError: If the agent was made for other observations or actions, or nobody says that the file is trusted.
    """
    content = read_agent_file(with_suffix(path, ".zip"))
    described(content, str(path))  # what is no agent of ours at all needs no trust to be refused
    check_trusted(path, trust=trust)
    return loaded(content, env, str(path), learn, seed=seed, deterministic=deterministic, options=options)


def loaded(
    content: bytes,
    env: AnyEnv,
    source: str,
    learn: bool,
    *,
    seed: int = 0,
    deterministic: bool = True,
    options: Mapping[str, Any] | None = None,
    beginning: SB3Agent | None = None,
) -> SB3Agent | Frozen:
    """Returns the agent of a file's bytes, as ``load_agent`` does; messages call the file ``source``.

    With ``beginning``, the agent that the training began with, the training goes on: stretches between updates and the warm-up are
    kept as they were. Nothing is unpickled then: what is pickled in the file (spaces, classes, schedules) is the beginning's.
    """
    description = described(content, source)
    options = dict(options or {})
    _check_usable(description, env, source, learn, options)
    algorithm_class = ALGORITHMS[description.agent].cls
    fitted = {} if beginning is not None or not learn else _fitted(description.agent, Scale.of(env), options)
    vec_env = PopulationVecEnv(
        env,
        action_map(description.agent, description.groups, description.grid),
        defer_reset=True,
        agent_name=description.agent,
    )
    generators = PrivateGenerators()
    with generators.lent():
        try:
            known = (
                moved_classes(content)
                if beginning is None
                else {name: getattr(beginning.algorithm, name) for name in pickled_parts(content)}
            )
            algorithm = algorithm_class.load(
                io.BytesIO(content), env=vec_env, device="cpu", custom_objects=known, **fitted
            )
        except Exception as error:  # whatever unpickling may raise
            raise RunFilesError(
                f"{source}: expected an agent that this version of Stable-Baselines3 can load, got '{error}'; use the version "
                f"that saved it. {TRUST}"
            ) from error
        noise = getattr(algorithm, "action_noise", None)
        if isinstance(noise, VectorizedActionNoise):
            # Made for the saved number of students; learn makes it for this one's.
            algorithm.action_noise = noise.base_noise
        if beginning is None:
            algorithm.set_random_seed(seed)
    agent = SB3Agent(description.agent, env, algorithm, vec_env, generators, seed)
    return agent if learn else Frozen(agent, deterministic=deterministic)


def _check_usable(description: Description, env: AnyEnv, source: str, learn: bool, options: Mapping[str, Any]) -> None:
    """Raises ConfigError if an agent is of no known kind, was made for other spaces, or cannot take the options."""
    if description.agent not in ALGORITHMS:
        raise ConfigError(
            f"{source}: expected an agent of {', '.join(ALGORITHMS)}, got {description.agent!r}; "
            "it was saved by another version; train it anew."
        )
    check_same_spaces(description, num_groups(env), feature_names(env), source)
    check_options(description.agent, options)
    if options and not learn:
        raise ConfigError(
            f"{source}: expected no options for an agent that only decides, got {options}; add learn=true."
        )


def _fitted(name: str, scale: Scale, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a saved algorithm gets anew, to go on learning in another environment."""
    defaults = ALGORITHMS[name].defaults(scale)
    # The warm-up has been made; n_steps and batch_size follow the number of students.
    kept = {key: value for key, value in defaults.items() if key in ("n_steps", "batch_size")}
    if "learning_starts" in defaults:
        kept = {"learning_starts": 0}
    return {**kept, **options}


ppo, a2c, sac, td3, dqn, recurrent_ppo, tqc = (
    functools.partial(make, name) for name in ("ppo", "a2c", "sac", "td3", "dqn", "recurrent_ppo", "tqc")
)
"""What the table of specs names: ``make`` for one algorithm."""
