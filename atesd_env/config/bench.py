"""The configuration of ``ATESD-Bench-v0``: which instances are drawn; what a run of one has stands in its instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from atesd_env.config.checks import choice
from atesd_env.config.run import RunConfig
from atesd_env.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BenchConfig(RunConfig):
    """Which instances a run is drawn from, and how it is paid; everything else is the instance's.

    Of the fields of every run only the reward's and ``action_ratios`` are keywords here, and they hold for all instances alike.

    Raises:
        ConfigError: If a value is outside its range; the message names the field, what was expected and what came.
    """

    student_kind = "benchmark"
    has_problems = True  # its instances may

    instances: str = "atesd-bench"
    """Benchmark: the instance set, the name of a packaged one or a JSON file. [ours]"""
    split: Literal["train", "validation", "test"] = choice("train", "train", "validation", "test")
    """Benchmark: which of its instances are drawn. [ours]"""
    instance: str | None = None
    """Benchmark: always this instance of the split; None draws one with each reset. [ours]"""
    order: Literal["uniform", "round-robin"] = choice("uniform", "uniform", "round-robin")
    """Benchmark: draw instances from the run's seed, or take one after the other. [ours]"""
    context: bool = False
    """Benchmark: show what the instance is (learning rate, hold window, difficulty) behind the observation. [ours]"""

    def keywords(self) -> dict[str, Any]:
        """Returns every field that is the benchmark's own or holds for all instances, by its name: keywords of ``gym.make``."""
        decided = set(RunConfig.names()) - {*RunConfig.names("is_reward"), "action_ratios"}
        return {name: value for name, value in super().keywords().items() if name not in decided}

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed.

        Raises:
            ConfigError: Also if a field is one that the instance decides.
        """
        for name in changes:
            if name in RunConfig.names() and name not in self.keywords():
                raise ConfigError(
                    f"{name}: expected a field that a benchmark leaves open ({', '.join(self.keywords())}), got {name!r}, which the "
                    "instance decides; leave it out, or write an instance set of your own (docs/bench.md)."
                )
        return super().replace(**changes)
