"""The kinds of students that the environments are tested with: how each is made, and how what comes out is compared."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np

import atesd_env  # noqa: F401  (registers the ids)
from atesd_env.config import EnvConfig, preset
from atesd_env.envs.observation import FEATURE_NAMES
from tests.atesd_env.simulated.hand_made import WINDOWS, surrogate_model


class Kind:
    """A kind of students, in episodes of ``windows`` windows.

    Attributes:
        env_id: Its id.
        windows: Windows of an episode.
        high: Ratios up to this one may be asked for.
        fields: Keywords of ``gymnasium.make``.
        tolerance: Between a student alone and in a population, relative.
        refused: A field whose other value a saved state is refused for.
    """

    env_id: ClassVar[str]
    windows: ClassVar[int] = 3
    high: ClassVar[float] = 1.0
    fields: ClassVar[dict[str, Any]] = {}
    tolerance: ClassVar[float] = 0.0
    refused: ClassVar[dict[str, Any]] = {"gamma": 0.123}

    def keywords(self, groups: int = 1) -> dict[str, Any]:
        return {"windows": self.windows, "groups": groups, **self.fields}

    def make(self, groups: int = 1, **changes: Any) -> Any:
        made = gymnasium.make(self.env_id, disable_env_checker=True, **{**self.keywords(groups), **changes})
        return made.unwrapped

    def make_vector(self, num_envs: int = 3, groups: int = 1, **changes: Any) -> Any:
        return gymnasium.make_vec(
            self.env_id,
            num_envs=num_envs,
            vectorization_mode="vector_entry_point",
            **{**self.keywords(groups), **changes},
        )

    def config(self, groups: int = 1, **changes: Any) -> EnvConfig:
        """The configuration that ``make`` is to have with these keywords."""
        return preset(self.env_id, **{**self.keywords(groups), **changes})

    def feature_names(self, groups: int = 1) -> tuple[str, ...]:
        """Names of the observation's entries."""
        return FEATURE_NAMES

    def bits(self, env: Any, index: int = 0) -> Any:
        """Everything that a student's future depends on, comparable with ``==``."""
        return plain(env.population.snapshot(index))

    def action(self, *shares: float) -> np.ndarray:
        """An action of one group for each share of ``high``; [K, 1] if there are several."""
        ratios = self.high * np.array(shares, dtype=np.float32)
        return ratios if len(ratios) == 1 else ratios[:, None]


def plain(value: Any) -> Any:
    """Returns nested dataclasses, arrays and tensors as what compares bit for bit (by ``repr``, NaN equals itself)."""
    if hasattr(value, "__dict__") and hasattr(value, "__dataclass_fields__"):
        return [(name, plain(part)) for name, part in vars(value).items()]
    if isinstance(value, dict):
        return [(name, plain(part)) for name, part in sorted(value.items())]
    if hasattr(value, "tolist"):
        return repr(value.tolist())
    return repr(value)


class Tiny(Kind):
    """The packaged language model; windows of a fraction of a second."""

    env_id = "ATESD-Tiny-v0"
    fields: ClassVar[dict[str, Any]] = {
        "hold_window": 1,
        "num_rollouts": 4,
        "probe_size": 6,
        "max_new_tokens": 40,
        "min_addends": 2,
        "max_addends": 4,
        "probe_accuracy_every": 2,
    }
    tolerance = 1e-3  # batches of other sizes round differently


class Toy(Kind):
    """The closed form, with noise."""

    env_id = "ATESD-Toy-v0"
    fields: ClassVar[dict[str, Any]] = {"toy_noise": 0.1, "probe_accuracy_every": 2}


class Surrogate(Kind):
    """A surrogate made by hand that knows ratios up to 0.5."""

    env_id = "ATESD-Surrogate-v0"
    windows = WINDOWS
    high = 0.5
    tolerance = 1e-6

    def keywords(self, groups: int = 1) -> dict[str, Any]:
        return {"file": surrogate_model(groups)}

    def config(self, groups: int = 1, **changes: Any) -> EnvConfig:
        return surrogate_model(groups).config.replace(**changes)


def by_student(infos: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Undoes the vector form: what each student's info holds, without what was not measured.

    Gymnasium's collector makes of a scalar environment's None a NaN, where numbers came before it, or leaves it.
    """
    names = [name for name in infos if not name.startswith("_")]
    students: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for name in names:
        for index in np.flatnonzero(infos[f"_{name}"]).tolist():
            value = infos[name][index]
            if value is not None and value == value:  # noqa: PLR0124 (NaN is not itself)
                students[index][name] = value
    return students


def assert_same_step(left: tuple[Any, ...], right: tuple[Any, ...], tolerance: float = 0.0) -> None:
    """Observations, rewards, flags and infos; to the bit without a tolerance."""
    for one, other in zip(left[:-1], right[:-1], strict=True):
        if tolerance and one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=1e-5)
        else:
            np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    for one, other in zip(by_student(left[-1], len(left[0])), by_student(right[-1], len(right[0])), strict=True):
        assert set(one) == set(other)
        for name in one:
            if tolerance:
                np.testing.assert_allclose(one[name], other[name], rtol=tolerance, atol=1e-5, err_msg=name)
            else:
                assert one[name] == other[name], name
