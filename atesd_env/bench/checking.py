"""The contract test of an instance set, one's own or a packaged one: every instance is made, played and gone back on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from atesd_env.bench.environments import BenchEnv
from atesd_env.bench.instances import InstanceSet
from atesd_env.bench.seeds import SEEDS
from atesd_env.errors import AtesdError, ConfigError

_LEAST_SPLITS = ("train", "test")


def check_instance_set(instances: InstanceSet, report: Callable[[str], None] = lambda _text: None) -> None:
    """Checks that a set can be trained and tested on: the counterpart of Gymnasium's ``check_env``.

    Ids, splits and fields are checked when a set is made. Here: train and test have instances, which differ; and each instance, at
    the first seed of its split, starts with an observation inside of the space, makes a window at the ratio 0.5, and repeats it
    bit for bit from a snapshot.

    Args:
        instances: The set.
        report: Called with each instance's id when its turn comes.

    Raises:
        ConfigError: If it is not so; the message names the instance.
        AtesdError: Whatever a student raises; a note names the instance.
    """
    splits = {instance.split for instance in instances}
    missing = [split for split in _LEAST_SPLITS if split not in splits]
    if missing:
        raise ConfigError(
            f"{instances.source}: expected instances of the splits train and test, got none of {', '.join(missing)}; add one."
        )
    _check_different(instances)
    for split in sorted(splits):
        env = BenchEnv(instances, split=split)
        try:
            for instance in env.instances:
                report(instance.id)
                try:
                    _check_instance(env, instance.id, SEEDS[instance.split].start)
                except AtesdError as error:
                    error.add_note(f"{instances.source}, instance {instance.id!r}")
                    raise
        finally:
            env.close()


def _check_different(instances: InstanceSet) -> None:
    """Refuses two instances with one configuration: what is trained on must not be tested on under another name."""
    seen: dict[Any, str] = {}
    for instance in instances:
        config = instances.config(instance.id)
        if config in seen:
            raise ConfigError(
                f"{instances.source}: expected instances that differ, got {seen[config]!r} and {instance.id!r} with the same fields; "
                "leave one out."
            )
        seen[config] = instance.id


def _check_instance(env: BenchEnv, instance_id: str, seed: int) -> None:
    observation, info = env.reset(seed=seed, options={"instance": instance_id})
    start, action = env.snapshot(), np.full(env.num_ratios, 0.5, dtype=np.float32)
    first, reward, terminated, _, _ = env.step(action)
    env.restore(start)
    again, again_reward, *_ = env.step(action)
    faults = {
        "a reset to the instance": info["instance"] == instance_id,
        "observations inside of the space": all(map(env.observation_space.contains, (observation, first))),
        "a finite reward": bool(np.isfinite(reward)),
        "a student that is whole after a window": not terminated,
        "a window that repeats bit for bit": first.tobytes() == again.tobytes() and reward == again_reward,
    }
    for expected, holds in faults.items():
        if not holds:
            raise ConfigError(
                f"{env.instance_set.source}, instance {instance_id!r}: expected {expected}, got none at the ratio 0.5 and seed {seed}; "
                "change its fields."
            )
