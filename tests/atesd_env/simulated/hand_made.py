"""A surrogate made by hand, whose windows can be computed in the head."""

from __future__ import annotations

from typing import Any

import numpy as np

from atesd_env.config import preset
from atesd_env.simulated.surrogate_model import QUANTITIES, Support, SurrogateModel, WindowModel, input_names

WINDOWS = 4
QUANTITY = {name: position for position, name in enumerate(QUANTITIES)}


def window_model(phase: str, groups: int, **support: Any) -> WindowModel:
    """The probe NLL falls by 0.1 + the mean ratio, plus or minus 0.01 of noise; log loss is the first ratio; all else is constant.

    Known are ratios up to 0.5 and probe NLLs of 0 to 9.
    """
    names = input_names(phase, groups)
    coefficients = np.zeros((len(names), len(QUANTITIES)))
    coefficients[-groups:, QUANTITY["probe/nll"]] = -1.0 / groups
    coefficients[-groups, QUANTITY["student/loss"]] = 1.0
    intercept = np.full(len(QUANTITIES), 0.25)
    intercept[QUANTITY["probe/nll"]] = -0.1
    intercept[QUANTITY["student/loss"]] = 0.0
    residuals = np.zeros((2, len(QUANTITIES)))
    residuals[:, QUANTITY["probe/nll"]] = [-0.01, 0.01]
    low, high = np.full(len(names), -9.0), np.full(len(names), 9.0)
    low[-groups:], high[-groups:] = 0.0, 0.5
    arrays = {
        "center": np.zeros(len(names)),
        "scale": np.ones(len(names)),
        "coefficients": coefficients,
        "intercept": intercept,
        "lowest": np.full(len(QUANTITIES), -3.0),
        "highest": np.full(len(QUANTITIES), 3.0),
    }
    known = Support(low, high, np.zeros(len(names)), np.eye(len(names)), 1000.0)
    if support:
        known = Support(**{**known.__dict__, **support})
    return WindowModel("linear", arrays, residuals, known, groups)


def surrogate_model(groups: int = 1, **fields: Any) -> SurrogateModel:
    config = preset("ATESD-Tiny-v0", windows=WINDOWS, groups=groups, **fields)
    first, later = (window_model(phase, groups) for phase in ("first", "later"))
    return SurrogateModel(config, first, later, np.array([4.0, 5.0, 6.0]), {"env_id": "ATESD-Tiny-v0"})
