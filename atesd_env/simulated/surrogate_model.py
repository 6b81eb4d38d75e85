"""What a surrogate predicts with: a fitted model of a window, evaluated with numpy alone, and its file.

A model maps what a controller may know of a run (the raw statistics and the probe NLL) and the reveal ratios to the
quantities of the window's row. What follows from them by definition (moving averages, slopes, reward) is computed, not
fitted. The first window has a model of its own: before it nothing but the base model's probe NLL has been measured.

Everything is vectorized over S students; ``atesd.experiments.surrogate.fitting`` does the fitting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import RunConfig, read_config
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.envs.reward import reward_parts
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from atesd_env.files.reading import reading
from atesd_env.hints import did_you_mean

Array = NDArray[np.float64]
"""Numbers of double precision."""

FORMAT_VERSION = 1
"""Version of the layout of a surrogate's description."""

PACKAGED = Path(__file__).parents[1] / "assets" / "surrogates"
"""The packaged surrogates, SET/INSTANCE.safetensors each."""

PHASES = ("first", "later")
"""The windows that have a model of their own: an episode's first, and all later ones."""

Kind = Literal["change", "log", "share", "number"]
"""How a quantity is transformed before it is fitted."""

QUANTITIES: dict[str, Kind] = {
    "probe/nll": "change",
    "student/loss": "log",
    "student/mismatch": "log",
    "student/entropy": "log",
    "teacher/entropy": "log",
    "student/grad_norm": "log",
    "student/self_confidence": "share",
    "student/top1_disagreement": "share",
    "rollout/success_rate": "share",
    "rollout/length": "share",
    "rollout/truncation_rate": "share",
    "exposure/reveal_ratio": "share",
    "exposure/shown_ratio": "share",
    "exposure/cut_rate": "share",
    "probe/grounded": "number",
}
"""What is predicted of a window, and in which form: the change since the last window, the logarithm (positive quantities),
a share in [0, 1] (a length as share of max_new_tokens), or the number itself."""

_SMALLEST = 1e-8


def encode(quantities: Mapping[str, Array], nll_before: Array, config: RunConfig) -> Array:
    """Returns quantities of S windows in the form that is fitted, [S, Q]."""
    columns = []
    for name, kind in QUANTITIES.items():
        value = np.asarray(quantities[name], dtype=np.float64)
        if name == "rollout/length":
            value = value / config.max_new_tokens
        if kind == "change":
            value = value - nll_before
        columns.append(np.log(np.maximum(value, _SMALLEST)) if kind == "log" else value)
    return np.stack(columns, axis=1)


def decode(encoded: Array, nll_before: Array, config: RunConfig) -> dict[str, Array]:
    """Returns the quantities of S windows from their fitted form, each inside its range; the reverse of ``encode``."""
    quantities = {}
    for position, (name, kind) in enumerate(QUANTITIES.items()):
        value = encoded[:, position]
        if kind == "change":
            value = np.maximum(nll_before + value, 0.0)
        elif kind == "log":
            value = np.exp(value)
        elif kind == "share":
            value = np.minimum(np.maximum(value, 0.0), 1.0)  # five times as fast as np.clip on few numbers
        quantities[name] = value * config.max_new_tokens if name == "rollout/length" else value
    return quantities


def window_columns(encoded: Array, nll_before: Array, ratios: Array, config: RunConfig) -> dict[str, Array]:
    """Returns what is known of S windows, [S] in each name: their decoded quantities and the reward's parts.

    Args:
        encoded: Quantities in fitted form [S, Q].
        nll_before: Probe NLL before the windows [S].
        ratios: Reveal ratios [S, groups]; with one group the row says what was asked for, not what is predicted of it.
        config: The environment's configuration.
    """
    columns = decode(encoded, nll_before, config)
    if config.groups == 1:
        columns["exposure/reveal_ratio"] = ratios[:, 0]
    return columns | reward_parts(nll_before, columns["probe/nll"], columns["probe/grounded"], config)


def model_inputs(phase: str, statistics: Array, probe_nll: Array, ratios: Array) -> Array:
    """Returns what a phase's model sees, [S, D]; ``input_names`` names the columns.

    Args:
        phase: One of ``PHASES``.
        statistics: Raw statistics before the window [S, num_features].
        probe_nll: Probe NLL before the window [S].
        ratios: Reveal ratios [S, groups].
    """
    known = [probe_nll[:, None]] if phase == "first" else [probe_nll[:, None], statistics]
    return np.concatenate([*known, ratios], axis=1)


def input_names(phase: str, groups: int) -> list[str]:
    """Returns the names of a phase's inputs, for messages."""
    ratios = ["reveal_ratio"] if groups == 1 else [f"reveal_ratio_{group}" for group in range(groups)]
    return ["probe_nll", *([] if phase == "first" else FEATURE_NAMES), *ratios]


@dataclass(frozen=True)
class Support:
    """Where a model was fitted: a range of each input, and a distance from the middle of all.

    Attributes:
        low: Lower end of each input [D]: the training runs' and a margin.
        high: Upper end [D].
        mean: Middle of the training inputs [D].
        whitening: Matrix [D, D] after which the training inputs have unit covariance.
        largest_distance: Mahalanobis distance from the middle that counts as known; calibrated on held-out runs.
    """

    low: Array
    high: Array
    mean: Array
    whitening: Array
    largest_distance: float

    def distances(self, inputs: Array) -> Array:
        """Returns the Mahalanobis distances of inputs [S, D] from the middle, [S]."""
        return np.asarray(np.linalg.norm((inputs - self.mean) @ self.whitening, axis=1))

    def is_outside(self, inputs: Array) -> NDArray[np.bool_]:
        """Returns which inputs [S, D] lie outside, [S]."""
        # Written so that what is not a number, which compares False with everything, is outside.
        in_range = ((inputs >= self.low) & (inputs <= self.high)).all(axis=1)
        return ~(in_range & (self.distances(inputs) <= self.largest_distance))

    def clipped(self, inputs: Array) -> Array:
        """Returns the nearest inputs inside all ranges, [S, D]."""
        return np.clip(inputs, self.low, self.high)

    def reason(self, inputs: Array, names: list[str]) -> str:
        """Returns why one student's inputs [D] lie outside, for people."""
        for name, value, low, high in zip(names, inputs, self.low, self.high, strict=True):
            if not low <= value <= high:
                return f"{name} {value:.4g} outside [{low:.4g}, {high:.4g}]"
        return f"distance {self.distances(inputs[None])[0]:.4g} from the training windows above {self.largest_distance:.4g}"


@dataclass(frozen=True)
class WindowModel:
    """The model of one phase's windows.

    Attributes:
        name: Which family it is: "linear", "quadratic", "varying" (linear in the statistics, with coefficients that are
            piecewise linear in each reveal ratio), or "network" (an average of small tanh networks).
        arrays: Its coefficients; which, depends on the family. All have ``center`` and ``scale`` of the inputs [D], and
            ``lowest`` and ``highest`` of the predictions [Q]: the training windows' range and a margin, which a prediction
            is kept in, so that a run cannot take off.
        residuals: What it was off by on runs that it had not seen, in encoded form [R, Q]; the noise is drawn from these.
        support: Where it may be asked.
        groups: Reveal ratios of an action.
    """

    name: str
    arrays: dict[str, Array]
    residuals: Array
    support: Support
    groups: int

    def predict(self, inputs: Array) -> Array:
        """Returns the expected quantities in encoded form [S, Q] for inputs [S, D]."""
        return np.clip(self._unbounded(inputs), self.arrays["lowest"], self.arrays["highest"])

    def _unbounded(self, inputs: Array) -> Array:
        scaled = (inputs - self.arrays["center"]) / self.arrays["scale"]
        if self.name == "network":
            hidden = np.tanh(np.einsum("sd,mdh->msh", scaled, self.arrays["weight_1"]) + self.arrays["bias_1"][:, None])
            outputs = np.einsum("msh,mhq->msq", hidden, self.arrays["weight_2"]) + self.arrays["bias_2"][:, None]
            return np.asarray(outputs.mean(axis=0) * self.arrays["target_scale"] + self.arrays["target_center"])
        basis = expand(self.name, scaled, inputs[:, -self.groups :])
        return np.asarray(basis @ self.arrays["coefficients"] + self.arrays["intercept"])


KNOTS = np.linspace(0.0, 1.0, 9)
"""Reveal ratios between which the coefficients of the family "varying" are straight lines."""


def expand(name: str, scaled: Array, ratios: Array) -> Array:
    """Returns the terms [S, P] of a family that is linear in its coefficients.

    Args:
        name: "linear", "quadratic" or "varying".
        scaled: Standardized inputs [S, D]; the last ``groups`` are the reveal ratios.
        ratios: Reveal ratios as they are [S, groups].
    """
    if name == "linear":
        return scaled
    if name == "quadratic":
        first, second = np.triu_indices(scaled.shape[1])
        return np.concatenate([scaled, scaled[:, first] * scaled[:, second]], axis=1)
    known = np.concatenate([np.ones((len(scaled), 1)), scaled[:, : -ratios.shape[1]]], axis=1)
    width = KNOTS[1] - KNOTS[0]
    hats = np.maximum(0.0, 1.0 - np.abs(ratios[:, :, None] - KNOTS) / width)  # [S, groups, knots], 1 at its own knot
    return np.asarray(np.einsum("sgk,sd->sgkd", hats, known).reshape(len(scaled), -1))


def packaged_surrogates() -> list[str]:
    """Returns the names of the packaged surrogates, such as ``atesd-bench/slip-terse-4``: a set's and one of its instances'."""
    return sorted(file.relative_to(PACKAGED).with_suffix("").as_posix() for file in PACKAGED.glob("*/*.safetensors"))


@dataclass(frozen=True)
class SurrogateModel:
    """A fitted surrogate: everything that ``ATESD-Surrogate-v0`` needs.

    Attributes:
        config: Configuration of the environment that it was fitted on.
        first: Model of an episode's first window.
        later: Model of the later ones.
        initial_nll: Probe NLL of the base model in the training runs [N]; a new run draws one.
        report: What the fit found: env_id, runs, held-out errors; for reading.
    """

    config: RunConfig
    first: WindowModel
    later: WindowModel
    initial_nll: Array
    report: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Writes the surrogate to one safetensors file; nothing is pickled.

        Raises:
            RunFilesError: If it cannot be written.
        """
        arrays: dict[str, NDArray[Any]] = {"initial_nll": self.initial_nll}
        names = {}
        for phase in PHASES:
            model: WindowModel = getattr(self, phase)
            names[phase] = model.name
            support = {
                name: np.asarray(value, dtype=np.float64) for name, value in dataclasses.asdict(model.support).items()
            }
            for group, content in (("model", model.arrays), ("support", support)):
                arrays |= {f"{phase}/{group}/{name}": array for name, array in content.items()}
            arrays[f"{phase}/residuals"] = model.residuals
        description = {
            "surrogate_version": FORMAT_VERSION,
            "config": self.config.keywords(),
            "models": names,
            "report": self.report,
        }
        write_checkpoint(Path(path), Checkpoint(arrays, description))

    @classmethod
    def load(cls, path: str | Path) -> SurrogateModel:
        """Returns the surrogate of a file that ``save`` wrote, or a packaged one.

        Args:
            path: The file, or a name of ``packaged_surrogates``.

        Raises:
            RunFilesError: If the file cannot be read, or is not whole.
            ConfigError: If it holds something else.
        """
        names = packaged_surrogates()
        file = PACKAGED / f"{path}.safetensors" if str(path) in names else Path(path)
        if not file.exists():
            hint = did_you_mean(str(path), names, f"packaged are {', '.join(names)}.")
            raise RunFilesError(f"{path}: expected a surrogate's file or a packaged one's name, found none; {hint}")
        with reading(path, "the file of a surrogate", remedy="fit it anew"):
            model = cls._read(file)
            model.check()
        return model

    @classmethod
    def _read(cls, path: str | Path) -> SurrogateModel:
        checkpoint = read_checkpoint(Path(path))
        description, arrays = checkpoint.description, checkpoint.arrays
        if description.get("surrogate_version") != FORMAT_VERSION:
            raise ConfigError(
                f"{path}: expected a surrogate's file of version {FORMAT_VERSION}, which `atesd fit-surrogate` writes, got "
                f"{description.get('surrogate_version', 'something else')!r}; fit it anew."
            )
        config = read_config(description["config"])

        def part(prefix: str) -> dict[str, Array]:
            return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

        models = {}
        for phase in PHASES:
            support = part(f"{phase}/support/")
            models[phase] = WindowModel(
                description["models"][phase],
                part(f"{phase}/model/"),
                arrays[f"{phase}/residuals"],
                Support(**{**support, "largest_distance": float(support["largest_distance"])}),  # type: ignore[arg-type]
                config.groups,
            )
        return cls(config, models["first"], models["later"], arrays["initial_nll"], dict(description["report"]))

    def check(self) -> None:
        """Asks both models once, in the middle of what they know.

        Raises:
            ValueError: If what comes out are not all finite numbers, or too few residuals and NLLs are there to draw from.
        """
        for phase in PHASES:
            model: WindowModel = getattr(self, phase)
            if model.name not in ("linear", "quadratic", "varying", "network"):
                raise ValueError(f"a model {model.name!r:.40}")
            size = len(input_names(phase, self.config.groups))
            inputs = model.support.clipped(np.zeros((1, size)))
            model.support.is_outside(inputs)
            quantities = model.predict(inputs) + model.residuals
            if quantities.shape[1:] != (len(QUANTITIES),) or not len(quantities) or not np.isfinite(quantities).all():
                raise ValueError(
                    f"a model of {phase} windows that predicts {quantities.shape[1:]} quantities, or no numbers"
                )
        if self.initial_nll.ndim != 1 or not self.initial_nll.size or not np.isfinite(self.initial_nll).all():
            raise ValueError("no probe NLL of the base model")
