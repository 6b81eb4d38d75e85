"""The packaged surrogates: opened by name, of the instances that they say, with the errors that are committed."""

from __future__ import annotations

import json

import gymnasium
import pytest

from atesd_env.bench import InstanceSet, landscape
from atesd_env.errors import RunFilesError
from atesd_env.simulated.surrogate import surrogate_config
from atesd_env.simulated.surrogate_model import PACKAGED, SurrogateModel, packaged_surrogates
from benchmarks.bench_surrogates import LEAST_SEEDS
from benchmarks.common import RESULTS


def test_each_instance_with_enough_seeds_has_one_and_its_errors_are_those_that_are_committed():
    packaged = InstanceSet.load("atesd-bench")
    committed = json.loads((RESULTS / "bench_surrogates.json").read_text())["instances"]
    seeds = landscape(packaged).groupby("instance")["seed"].nunique()
    assert packaged_surrogates() == sorted(f"atesd-bench/{name}" for name in seeds.index[seeds >= LEAST_SEEDS])
    for name in packaged_surrogates():
        surrogate, instance = SurrogateModel.load(name), name.removeprefix("atesd-bench/")
        assert surrogate.config == packaged.config(instance)
        assert {**surrogate.report, "bytes": (PACKAGED / f"{name}.safetensors").stat().st_size} == committed[instance]
        assert committed[instance]["bytes"] < 200_000


def test_it_is_made_by_name_and_records_it():
    env = gymnasium.make("ATESD-Surrogate-v0", file="atesd-bench/slip-terse-groups", on_extrapolation="warn")
    env.reset(seed=0)
    *_, truncated, info = [env.step(env.action_space.sample() * 0) for _ in range(9)][-1]
    assert (truncated, info["window"], env.action_space.shape) == (True, 9, (2,))
    assert surrogate_config("atesd-bench/slip-terse-groups").file == "atesd-bench/slip-terse-groups"
    with pytest.raises(
        RunFilesError, match=r"or a packaged one's name, found none; did you mean 'atesd-bench/slip-terse-"
    ):
        gymnasium.make("ATESD-Surrogate-v0", file="atesd-bench/slip-terse-9")
