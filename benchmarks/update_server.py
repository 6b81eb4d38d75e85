"""Makes updates of K students, one for each line that comes in, and tells how long each took: what ``update_speed`` asks each checkout.

It imports nothing but the packages of the checkout that ``PYTHONPATH`` names, an older one perhaps.

Example: echo | python benchmarks/update_server.py ATESD-Tiny-v0 1 {}
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

import atesd_env
from atesd_env.config import preset
from atesd_env.population.population import Population


def main() -> None:
    env_id, num_students, fields = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    tree = os.environ.get("PYTHONPATH", "")
    assert not tree or Path(atesd_env.__file__).is_relative_to(tree), "expected the checkout's own packages"
    config = preset(env_id, hold_window=1, windows=10_000, probe_size=1, probe_accuracy_every=0, **fields)
    students = Population(config, num_students)
    for index in range(num_students):
        students.reset(index, index)
    now = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in sys.stdin:
        started = now()
        students.window(np.ones((num_students, 1)))
        seconds = now() - started
        adapters = hashlib.sha256(students.adapters.flat.detach().cpu().numpy().tobytes()).hexdigest()
        print(json.dumps({"seconds": seconds, "adapters": adapters}), flush=True)


if __name__ == "__main__":
    main()
