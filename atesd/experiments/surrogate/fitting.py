"""Fitting a surrogate: logged runs in, a model of their windows and its errors on held-out runs out.

Runs (or all runs of a seed, ``LoggedWindows.group``) are held out whole, never single windows: windows of one run are alike, and a model
that has seen some of them knows the others. A fifth of the runs is set apart for the report; among the others, cross-validation by run
chooses the family of models and gives the residuals that the noise is drawn from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atesd.experiments.logged_runs import after_window
from atesd.experiments.surrogate.data import REWARD_PARTS, LoggedWindows
from atesd_env.config import RunConfig
from atesd_env.envs.observation import FEATURE_NAMES, RunningStatistics, observation, stacked
from atesd_env.errors import ConfigError
from atesd_env.simulated.surrogate_model import (
    PHASES,
    Array,
    Support,
    SurrogateModel,
    WindowModel,
    encode,
    expand,
    model_inputs,
    window_columns,
)

FAMILIES = ("linear", "quadratic", "varying", "network")
"""Families of models that are tried (``surrogate_model.WindowModel``)."""

_NUM_FOLDS = 4
_NUM_DRAWS = 100
# Noise reaches beyond the extremes of few windows, and a run in the surrogate must not end because of it; ratios are chosen.
_STATE_MARGIN = 0.25
_RATIO_MARGIN = 0.05
_DISTANCE_MARGIN = 1.5
_RIDGE_STRENGTHS = np.logspace(-4, 4, 17)
_HIDDEN_UNITS = 32
_NUM_NETWORKS = 3


def fit(
    windows: LoggedWindows,
    config: RunConfig,
    env_id: str,
    *,
    families: Sequence[str] = FAMILIES,
    heldout_share: float = 0.2,
    seed: int = 0,
) -> SurrogateModel:
    """Returns a surrogate fitted to logged windows; its ``report`` has the errors on held-out runs.

    Args:
        windows: Windows of several runs.
        config: Their configuration.
        env_id: Their environment.
        families: Families to choose from, some of ``FAMILIES``.
        heldout_share: Share of the runs (of the groups) set apart for the report; the surrogate is fitted to the others.
        seed: Of the choice of held-out runs, the folds and the networks.

    Raises:
        ConfigError: If a family is unknown, or ``heldout_share`` leaves too few runs on one side.
    """
    unknown = [family for family in families if family not in FAMILIES]
    if unknown or not families:
        raise ConfigError(
            f"families: expected some of {', '.join(FAMILIES)}, got {', '.join(unknown) or 'none'}; correct --families."
        )
    groups = np.unique(windows.group)
    num_heldout = round(heldout_share * len(groups)) if 0 < heldout_share < 1 else 0
    if num_heldout < 1 or len(groups) - num_heldout < _NUM_FOLDS:
        raise ConfigError(
            f"heldout_share: expected a share of the {len(groups)} runs that leaves at least 1 to hold out and {_NUM_FOLDS} "
            f"to fit to, got {heldout_share}; change it, or fit to more runs."
        )
    rng = np.random.default_rng(seed)
    is_heldout = np.isin(windows.group, rng.permutation(groups)[:num_heldout])
    training, heldout = windows.select(~is_heldout), windows.select(is_heldout)
    models = {}
    choices: dict[str, dict[str, float]] = {}
    for phase in PHASES:
        models[phase], choices[phase] = _fit_phase(phase, training, heldout, config, families, seed)
    initial_nll = training.nll[training.window == 1]
    report = {
        "env_id": env_id,
        "num_runs": len(np.unique(windows.run)),
        "num_heldout_runs": len(np.unique(heldout.run)),
        "num_training_windows": len(training.run),
        "num_heldout_windows": len(heldout.run),
        "cross_validated_error": choices,
        "chosen": {phase: models[phase].name for phase in PHASES},
        "reveal_ratio_range": [float(windows.ratios.min()), float(windows.ratios.max())],
    }
    surrogate = SurrogateModel(config, models["first"], models["later"], initial_nll, report)
    report["heldout_flagged_rate"] = _flagged_rate(surrogate, heldout)
    report["errors"] = heldout_errors(surrogate, training, heldout, seed=seed)
    report["whole_run"] = whole_run_error(surrogate, training, heldout)
    return surrogate


def _fit_phase(
    phase: str,
    training: LoggedWindows,
    heldout: LoggedWindows,
    config: RunConfig,
    families: Sequence[str],
    seed: int,
) -> tuple[WindowModel, dict[str, float]]:
    """Returns the model of a phase, and each family's cross-validated error (1 is that of predicting the mean)."""
    from sklearn.model_selection import GroupKFold

    windows = training.phase(phase)
    inputs, targets = windows.inputs(phase), encode(windows.quantities, windows.nll, config)
    spread = np.maximum(targets.std(axis=0), 1e-6)
    folds = list(GroupKFold(_NUM_FOLDS, shuffle=True, random_state=seed).split(inputs, groups=windows.group))
    errors, residuals = {}, {}
    for family in families:
        missed = np.zeros_like(targets)
        for fitted, left_out in folds:
            arrays = _coefficients(family, inputs[fitted], targets[fitted], config.groups, seed)
            model = WindowModel(family, arrays, targets, _everywhere(inputs), config.groups)
            missed[left_out] = targets[left_out] - model.predict(inputs[left_out])
        residuals[family] = missed
        errors[family] = float(np.mean((missed / spread) ** 2))
    chosen = min(errors, key=lambda family: errors[family])
    arrays = _coefficients(chosen, inputs, targets, config.groups, seed)
    support = _fit_support(inputs, heldout.phase(phase).inputs(phase), config.groups)
    return WindowModel(chosen, arrays, residuals[chosen], support, config.groups), errors


def _coefficients(family: str, inputs: Array, targets: Array, groups: int, seed: int) -> dict[str, Array]:
    """Fits one family; returns the arrays that ``WindowModel.predict`` evaluates."""
    center, scale = inputs.mean(axis=0), inputs.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    scaled = (inputs - center) / scale
    target_center, target_scale = targets.mean(axis=0), np.maximum(targets.std(axis=0), 1e-9)
    scaled_targets = (targets - target_center) / target_scale
    margin = _STATE_MARGIN * np.ptp(targets, axis=0)
    lowest, highest = targets.min(axis=0) - margin, targets.max(axis=0) + margin
    arrays = {"center": center, "scale": scale, "lowest": lowest, "highest": highest}
    if family == "network":
        weights = _network_weights(scaled, scaled_targets, seed)
        return {**arrays, "target_center": target_center, "target_scale": target_scale, **weights}
    from sklearn.linear_model import RidgeCV

    ridge = RidgeCV(_RIDGE_STRENGTHS, alpha_per_target=True)
    ridge.fit(expand(family, scaled, inputs[:, -groups:]), scaled_targets)
    arrays["coefficients"] = np.ascontiguousarray(ridge.coef_.T * target_scale)
    arrays["intercept"] = ridge.intercept_ * target_scale + target_center
    return arrays


def _network_weights(scaled: Array, scaled_targets: Array, seed: int) -> dict[str, Array]:
    """Fits an average of small networks; returns their weights, stacked."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    networks = []
    for index in range(_NUM_NETWORKS):
        network = MLPRegressor(
            hidden_layer_sizes=(_HIDDEN_UNITS,),
            activation="tanh",
            alpha=1e-3,
            learning_rate_init=3e-3,
            max_iter=150,
            random_state=seed + index,
        )
        with warnings.catch_warnings():
            # How good it is, the held-out runs tell.
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(scaled, scaled_targets)
        networks.append(network)
    return {
        "weight_1": np.stack([network.coefs_[0] for network in networks]),
        "bias_1": np.stack([network.intercepts_[0] for network in networks]),
        "weight_2": np.stack([network.coefs_[1] for network in networks]),
        "bias_2": np.stack([network.intercepts_[1] for network in networks]),
    }


def _everywhere(inputs: Array) -> Support:
    size = inputs.shape[1]
    return Support(np.full(size, -np.inf), np.full(size, np.inf), np.zeros(size), np.zeros((size, size)), np.inf)


def _fit_support(inputs: Array, heldout: Array, groups: int) -> Support:
    """Returns where the model may be asked: the training inputs' ranges and a margin, and the distance of held-out ones."""
    share = np.where(np.arange(inputs.shape[1]) < inputs.shape[1] - groups, _STATE_MARGIN, _RATIO_MARGIN)
    # An input that never varied, as the base model's NLL, may still differ by rounding.
    margin = np.maximum(share * np.ptp(inputs, axis=0), 1e-6)
    low, high = inputs.min(axis=0) - margin, inputs.max(axis=0) + margin
    center, scale = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), 1e-6)
    values, vectors = np.linalg.eigh(np.cov((inputs - center) / scale, rowvar=False))
    # Directions in which the inputs hardly vary would make every rounding a long distance.
    whitening = (vectors / np.sqrt(np.maximum(values, 1e-2))) / scale[:, None]
    support = Support(low, high, center, whitening, math.inf)
    largest = np.concatenate([support.distances(heldout), support.distances(inputs)]).max()
    return Support(low, high, center, whitening, float(_DISTANCE_MARGIN * largest))


def _flagged_rate(surrogate: SurrogateModel, windows: LoggedWindows) -> float:
    """Returns the share of windows that the surrogate takes for extrapolation."""
    flags = [getattr(surrogate, phase).support.is_outside(windows.phase(phase).inputs(phase)) for phase in PHASES]
    return float(np.concatenate(flags).mean())


def heldout_errors(
    surrogate: SurrogateModel, training: LoggedWindows, heldout: LoggedWindows, *, seed: int = 0
) -> list[dict[str, Any]]:
    """Returns the surrogate's errors of the next window, against two baselines that need no model.

    Args:
        surrogate: The surrogate.
        training: Windows of the runs that it was fitted to.
        heldout: Windows of other runs; first windows are left out, because before them most features say nothing.
        seed: Of the residuals that expected values are averaged over.

    Returns:
        One line for each feature of the observation, the probe NLL, the teacher-grounded score and the reward's parts:
        ``quantity``; ``rmse``, the root mean square error of the expected value, in the feature's scale; ``persistence_rmse``
        of "next = present"; ``window_mean_rmse`` of "next = mean of the training runs at that window"; ``skill``: 1 -
        (rmse / the better baseline's)^2, 1 is perfect and 0 no better; null where a baseline is exact.
    """
    config = surrogate.config
    later = heldout.phase("later")
    predicted = _expected(surrogate, later, seed)
    actual = _outcomes(later, later.quantities, config)
    known = _outcomes(training, training.quantities, config)
    persistent = _persistent(later, heldout)
    lines = []
    for name, values in actual.items():
        means = np.bincount(training.window, known[name]) / np.maximum(np.bincount(training.window), 1)
        longest = len(means) - 1
        errors = {
            "rmse": predicted[name] - values,
            "persistence_rmse": persistent[name] - values,
            "window_mean_rmse": means[np.minimum(later.window, longest)] - values,
        }
        rmse = {label: float(np.sqrt(np.mean(error**2))) for label, error in errors.items()}
        best = min(rmse["persistence_rmse"], rmse["window_mean_rmse"])
        skill = None if best < 1e-9 else 1.0 - (rmse["rmse"] / best) ** 2
        lines.append({"quantity": name, **rmse, "skill": skill})
    return lines


def _outcomes(windows: LoggedWindows, quantities: Mapping[str, Array], config: RunConfig) -> dict[str, Array]:
    """Returns what is judged of windows: the observation after them, the probe NLL and the reward, [N] each."""
    return _judged(_after(windows.statistics, windows.window, quantities, config), quantities)


def _judged(statistics: RunningStatistics, quantities: Mapping[str, Array]) -> dict[str, Array]:
    features = observation(statistics).astype(np.float64)
    measured = {name: quantities[name] for name in ("probe/nll", "probe/grounded", *REWARD_PARTS)}
    return dict(zip(FEATURE_NAMES, features.T, strict=True)) | measured


def _after(
    statistics: Array, window: NDArray[np.int64], quantities: Mapping[str, Array], config: RunConfig
) -> RunningStatistics:
    """Returns the statistics after N windows, each from those before it [N, num_features], as arrays [N]."""
    return after_window(_running(window - 1, statistics), {**quantities, "window": window}, config)


def _running(num_windows: NDArray[np.int64], statistics: Array) -> RunningStatistics:
    return RunningStatistics(num_windows, *statistics.T)  # type: ignore[arg-type]


def _expected(surrogate: SurrogateModel, windows: LoggedWindows, seed: int) -> dict[str, Array]:
    """Returns the expected outcomes of later windows: means over draws of the noise."""
    model, config = surrogate.later, surrogate.config
    encoded = model.predict(windows.inputs("later"))
    draws = model.residuals[np.random.default_rng(seed).integers(len(model.residuals), size=_NUM_DRAWS)]
    totals: dict[str, Array] = {}
    for draw in draws - draws.mean(axis=0):
        quantities = window_columns(encoded + draw, windows.nll, windows.ratios, config)
        for name, values in _outcomes(windows, quantities, config).items():
            totals[name] = totals.get(name, 0.0) + values / _NUM_DRAWS
    return totals


def _persistent(later: LoggedWindows, windows: LoggedWindows) -> dict[str, Array]:
    """Returns what "next = present" says of later windows."""
    before = np.flatnonzero(windows.window > 1) - 1  # windows stand in order, so the one before is a run's last
    present = _running(later.window - 1, later.statistics)
    return _judged(present, {name: values[before] for name, values in windows.quantities.items()})


def whole_run_error(surrogate: SurrogateModel, training: LoggedWindows, heldout: LoggedWindows) -> dict[str, float]:
    """Returns how well a whole run is foretold from its reveal ratios alone: errors add up over its windows.

    Held-out runs are played without noise from the base model's probe NLL on.

    Returns:
        ``final_nll_rmse``, and ``final_nll_mean_rmse`` of foretelling the training runs' mean at the same window.
    """
    config = surrogate.config
    errors, mean_errors = [], []
    for run in np.unique(heldout.run):
        windows = heldout.select(heldout.run == run)
        statistics, nll = windows.statistics[:1], windows.nll[:1]
        for position, window in enumerate(windows.window):
            phase = "first" if window == 1 else "later"
            model: WindowModel = getattr(surrogate, phase)
            ratios = windows.ratios[position : position + 1]
            encoded = model.predict(model_inputs(phase, statistics, nll, ratios))
            quantities = window_columns(encoded, nll, ratios, config)
            statistics = stacked(_after(statistics, np.array([window]), quantities, config))[1:].T
            nll = quantities["probe/nll"]
        final = windows.quantities["probe/nll"][-1]
        errors.append(float(nll[0] - final))
        at_the_same = training.quantities["probe/nll"][training.window == windows.window[-1]]
        mean_errors.append(float(at_the_same.mean() - final) if at_the_same.size else math.nan)
    return {
        "final_nll_rmse": float(np.sqrt(np.mean(np.square(errors)))),
        "final_nll_mean_rmse": float(np.sqrt(np.nanmean(np.square(mean_errors)))),
    }
