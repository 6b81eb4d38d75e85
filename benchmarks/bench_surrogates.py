"""Fits the packaged surrogates, one for each instance that a set's landscapes have runs of, and measures their errors.

A quarter of the seeds is held out whole: the errors that are stated are of windows whose seed no model has seen. Instances with fewer
than five seeds are left out.

Example: python -m benchmarks.bench_surrogates
"""

from __future__ import annotations

import argparse
from typing import Any

from atesd.experiments.surrogate.data import windows_of
from atesd.experiments.surrogate.fitting import fit
from atesd_env.bench.instances import ENV_ID, InstanceSet
from atesd_env.bench.landscapes import by_group, landscape
from atesd_env.files.atomic import make_parent
from atesd_env.simulated.surrogate_model import PACKAGED
from benchmarks.common import save

HELDOUT_SHARE = 0.25
"""Of the seeds."""
LEAST_SEEDS = 5
"""Four to fit to and one to hold out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", default="atesd-bench", help="a packaged set")
    instances = InstanceSet.load(parser.parse_args().instances)
    found: dict[str, Any] = {}
    for instance_id, frame in by_group(landscape(instances)).groupby("instance"):
        if frame["seed"].nunique() < LEAST_SEEDS:
            continue
        config = instances.config(str(instance_id))
        surrogate = fit(windows_of(frame, config), config, ENV_ID, heldout_share=HELDOUT_SHARE)
        path = PACKAGED / instances.name / f"{instance_id}.safetensors"
        make_parent(path)
        surrogate.save(path)
        found[str(instance_id)] = {**surrogate.report, "bytes": path.stat().st_size}
        print(instance_id, surrogate.report["chosen"], path.stat().st_size, flush=True)
    save("bench_surrogates", {"heldout_share_of_seeds": HELDOUT_SHARE, "instances": found})


if __name__ == "__main__":
    main()
