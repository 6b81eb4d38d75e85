"""The GPUs that a plan knows, by name."""

from __future__ import annotations

from dataclasses import dataclass

from atesd_env.errors import ConfigError
from atesd_env.hints import did_you_mean


@dataclass(frozen=True)
class Device:
    """A GPU, as its data sheet has it.

    Attributes:
        memory_bytes: Its memory.
        matrix_rate: bfloat16 matrix products, dense, in floating-point operations a second.
        memory_rate: Bytes a second.
    """

    memory_bytes: float
    matrix_rate: float
    memory_rate: float


_GIGA = 1e9
DEVICES = {
    "RTX3090-24GB": Device(24 * 2**30, 71e12, 936 * _GIGA),
    "RTX4090-24GB": Device(24 * 2**30, 165e12, 1008 * _GIGA),
    "L40S-48GB": Device(48 * _GIGA, 362e12, 864 * _GIGA),
    "A100-40GB": Device(40 * 2**30, 312e12, 1555 * _GIGA),
    "A100-80GB": Device(80 * _GIGA, 312e12, 2039 * _GIGA),
    "H100-80GB": Device(80 * _GIGA, 989e12, 3350 * _GIGA),
    "H200-141GB": Device(141 * _GIGA, 989e12, 4800 * _GIGA),
    "B200-180GB": Device(180 * _GIGA, 2250e12, 7700 * _GIGA),
}
"""By name; figures of the makers' data sheets."""


def parse_gpus(text: str) -> tuple[int, str, Device]:
    """Returns (how many, name, device) of such as "H100-80GB" or "4xA100-40GB".

    Raises:
        ConfigError: If there is no such device.

    >>> parse_gpus("2xh100-80gb")[:2]
    (2, 'H100-80GB')
    """
    number, cross, name = text.partition("x")
    if not (cross and number.isdecimal() and int(number) > 0):
        number, name = "1", text
    by_lower = {known.lower(): known for known in DEVICES}
    if name.lower() not in by_lower:
        hint = did_you_mean(name, DEVICES, f"the devices are {', '.join(DEVICES)}.")
        raise ConfigError(f"gpus: expected [NUMBERx]DEVICE, got {text!r}; {hint}")
    return int(number), by_lower[name.lower()], DEVICES[by_lower[name.lower()]]
