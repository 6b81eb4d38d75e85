"""Which runs are made: agents x seeds, each run with an identity and a folder of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atesd_env  # noqa: F401  (registers the ids)
from agents.specs.registry import Spec, is_agent, label
from atesd.experiments.baselines.registry import is_baseline, resolve
from atesd.experiments.resuming import BESIDE_ROWS
from atesd_env.bench.environments import played
from atesd_env.config import BenchConfig, EnvConfig, RunConfig
from atesd_env.config.checks import checked_seed
from atesd_env.errors import AtesdError, ConfigError, RunFilesError
from atesd_env.files.atomic import check_writable
from atesd_env.files.run_folder import CONFIG_FILE, RUN, check_same_run


@dataclass(frozen=True)
class RunSpec:
    """One run: a student trained once under one agent.

    Attributes:
        env_id: Environment id.
        config: Its whole configuration.
        agent: Agent spec, class or object, as in ``agents.make``; or a baseline's name.
        seed: Seed of the run (problems, rollouts, adapter) and of the agent: runs with one seed are paired.
        folder: Where its files go.
    """

    env_id: str
    config: RunConfig
    agent: Spec
    seed: int
    folder: Path

    @property
    def agent_name(self) -> str:
        """What messages, tables and files call the agent."""
        return label(self.agent)

    def identity(self) -> dict[str, Any]:
        """Returns what makes a run this run, for ``config.json``."""
        return {
            "run": self.folder.name,
            "env_id": self.env_id,
            "agent": self.agent_name,
            "seed": self.seed,
            "config": self.config.keywords(),
        }


def plan_runs(env_id: str, config: RunConfig, agents: Sequence[Spec], seeds: Sequence[int], out: Path) -> list[RunSpec]:
    """Returns a run for each seed and agent, seed by seed, each with a folder of its own below ``out``.

    Args:
        env_id: Environment id.
        config: Its whole configuration.
        agents: Specs, classes or objects, as in ``agents.make``, and baselines; what is not a spec is named after its class.
        seeds: Seeds of the runs.
        out: Folder of the runs' folders.

    Raises:
        ConfigError: If a seed is below 0 or beyond 2^63 - 1 or of another split than the benchmark's, a spec names no agent, or
            an object that learns is to be used for several runs.
        AtesdError: If an agent or a seed is named twice, which would write one folder twice.
    """
    seeds = [checked_seed(seed, "seeds") for seed in seeds]
    for agent in agents:  # all first: a misspelt second agent must not be found out after the first one's run
        _check_agent(agent, env_id, config, seeds)
    configs = {(label(agent), seed): _of_seed(_for_agent(config, agent), seed) for agent in agents for seed in seeds}
    specs = [
        RunSpec(env_id, configs[label(agent), seed], agent, seed, out / f"{_folder_name(label(agent))}-seed{seed}")
        for seed in seeds
        for agent in agents
    ]
    folders = [spec.folder for spec in specs]
    if len(set(folders)) != len(folders):
        raise AtesdError(
            "agents and seeds: expected each agent and each seed once, got agents "
            f"{[label(agent) for agent in agents]} and seeds {list(seeds)}; leave out the repeated ones."
        )
    return specs


def check_folders(specs: Sequence[RunSpec], *, resume: bool = False, overwrite: bool = False) -> None:
    """Looks at the runs' folders before the first run starts.

    Raises:
        RunFilesError: If one holds a run, which is neither to go on nor to be replaced; or what no run of ours wrote; or
            cannot be written.
        ConfigError: If one that is to go on was begun with other arguments.
    """
    for spec in specs:
        check_writable(spec.folder)
        if not (
            resume and (spec.folder / CONFIG_FILE).exists()
        ):  # a run that goes on is compared with what was asked for
            RUN.check(spec.folder)
            BESIDE_ROWS.check(spec.folder)
    existing = [spec for spec in specs if (spec.folder / CONFIG_FILE).exists()]
    if resume:
        for spec in existing:
            check_same_run(spec.folder, spec.identity())
    elif existing and not overwrite:
        raise RunFilesError(
            f"{existing[0].folder}: expected a folder without a run, found {len(existing)} of the {len(specs)} runs there already; "
            "choose another --out, pass --resume to go on with them, or --overwrite to replace them."
        )


def _for_agent(config: RunConfig, agent: Spec) -> RunConfig:
    """Returns the configuration that an agent plays in: its class may say which fields its options need."""
    factory, options = resolve(agent)
    needed = factory.environment_fields(**options) if hasattr(factory, "environment_fields") else {}
    return config.replace(**needed)


def _of_seed(config: RunConfig, seed: int) -> RunConfig:
    """Returns the configuration of a run: a benchmark's seed draws the instance, and that says how many windows there are."""
    return played(config, seed) if isinstance(config, BenchConfig) else config


def _check_agent(agent: Spec, env_id: str, config: RunConfig, seeds: Sequence[int]) -> None:
    resolve(agent)
    if is_baseline(agent):
        _check_baseline(label(agent), env_id, config)
    if is_agent(agent) and hasattr(agent, "learn") and len(seeds) > 1:
        raise ConfigError(
            f"agent {label(agent)}: expected one seed with an object that learns, got {list(seeds)}: its second run would "
            "begin with what it learned in the first; pass its class, or a function of (env, seed) that makes one."
        )


def _check_baseline(name: str, env_id: str, config: RunConfig) -> None:
    if not isinstance(config, EnvConfig):
        raise ConfigError(
            f"agent {name}: expected an environment whose student is a language model, got {env_id}, which has none to train; "
            "choose another --env, such as ATESD-Tiny-v0."
        )
    from atesd_env.population.distributed import is_launched  # torch, which other agents may do without

    if is_launched():
        # Its trainer makes passes that the other processes are not told of: they would wait for ever.
        raise ConfigError(
            f"agent {name}: expected one process for a baseline, got a launcher's several (WORLD_SIZE="
            f"{os.environ['WORLD_SIZE']}); start it without torchrun or accelerate."
        )


def _folder_name(agent: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", agent).strip("-")
