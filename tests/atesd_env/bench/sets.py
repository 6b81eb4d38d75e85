"""Instance sets to test with: closed forms, whose windows cost nothing, and the packaged student in windows of a moment."""

from __future__ import annotations

from typing import Any, ClassVar

from atesd_env.bench import Instance, InstanceSet
from atesd_env.bench.observation import BenchObservation
from atesd_env.config import RunConfig
from tests.atesd_env.envs.kinds import Kind, Tiny

REWARDS = RunConfig.names("is_reward")


def toy_set(**fields: Any) -> InstanceSet:
    """Closed forms with other best ratios: two in one group, one in two, one of each other split."""
    return InstanceSet(
        name="mine",
        version="1",
        description="closed forms",
        env="ATESD-Toy-v0",
        fields={"windows": 3, "toy_noise": 0.1, **fields},
        instances=(
            Instance("low", "train", "Shows little.", {"toy_best_ratio": 0.1}),
            Instance("high", "train", "Shows much.", {"toy_best_ratio": 0.9, "windows": 4}),
            Instance("both", "train", "A ratio each.", {"groups": 2, "toy_group_spread": 0.4}),
            Instance("middle", "validation", "In between.", {}),
            Instance("other", "test", "Unlike those.", {"toy_kind": "delayed"}),
        ),
    )


def tiny_set() -> InstanceSet:
    """The packaged student: two instances of one population, one of another."""
    small = {**Tiny.fields, "windows": 2, "probe_accuracy_every": 0}
    return InstanceSet(
        name="small",
        version="1",
        description="the packaged student",
        env="ATESD-Tiny-v0",
        fields=small,
        instances=(
            Instance("short", "train", "Sums of two.", {"max_addends": 2}),
            Instance("long", "train", "Sums of four.", {"min_addends": 4, "learning_rate": 1e-3}),
            Instance("both", "train", "In two groups.", {"groups": 2, "num_rollouts": 6}),
        ),
    )


class Bench(Kind):
    """Two closed forms of one set, of one length; whatever is changed beside the reward is changed in the set."""

    env_id = "ATESD-Bench-v0"
    fields: ClassVar[dict[str, Any]] = {"toy_noise": 0.1, "probe_accuracy_every": 2}

    def instances(self, groups: int = 1, **changes: Any) -> InstanceSet:
        pair = (Instance("one", "train", "One.", {}), Instance("two", "train", "Two.", {"toy_best_ratio": 0.8}))
        fields = {"windows": self.windows, "groups": groups, **self.fields, **changes}
        return InstanceSet("pair", "1", "two closed forms", "ATESD-Toy-v0", fields, pair)

    def keywords(self, groups: int = 1) -> dict[str, Any]:
        return {"instances": self.instances(groups), "progress": "positive"}

    def config(self, groups: int = 1, **changes: Any) -> RunConfig:
        return self.instances(groups).config("one", progress="positive", **changes)

    def feature_names(self, groups: int = 1) -> tuple[str, ...]:
        return BenchObservation(groups, context=False).names
