"""The configuration behind each environment id."""

from __future__ import annotations

from typing import Any

from atesd_env.config.bench import BenchConfig
from atesd_env.config.language_model import EnvConfig
from atesd_env.config.run import Leaf, RunConfig
from atesd_env.config.simulated import SurrogateConfig, ToyConfig
from atesd_env.errors import ConfigError
from atesd_env.hints import did_you_mean

_TINY = EnvConfig()
_SMOLLM2 = EnvConfig(
    student="HuggingFaceTB/SmolLM2-135M-Instruct",
    task="math",
    data_path="gsm8k",
    lora_r=16,
    lora_alpha=32.0,
    learning_rate=2e-4,
    num_rollouts=8,
    max_prompt_tokens=512,
    max_new_tokens=96,
    temperature=0.7,
    top_p=0.95,
    windows=8,
    hold_window=2,
    probe_size=16,
    probe_batch_size=8,
    probe_max_tokens=96,
    probe_accuracy_every=0,
)
_QWEN3 = EnvConfig(
    student="Qwen/Qwen3-1.7B",
    task="math",
    data_path="gsm8k",
    dtype="bfloat16",
    teacher_thinking=True,
    evaluation_thinking=True,
    gradient_checkpointing=True,
    lora_r=64,
    lora_alpha=128.0,
    learning_rate=5e-6,
    num_rollouts=32,
    micro_batch_size=4,
    max_prompt_tokens=4096,
    max_new_tokens=1024,
    temperature=1.1,
    top_p=0.95,
    top_k=20,
    windows=25,
    hold_window=4,
    probe_size=64,
    probe_batch_size=16,
    probe_max_tokens=1024,
    probe_accuracy_every=5,
)

PRESETS: dict[str, RunConfig] = {
    "ATESD-Tiny-v0": _TINY,
    "ATESD-SmolLM2-135M-v0": _SMOLLM2,
    "ATESD-Qwen3-1.7B-v0": _QWEN3,
    "ATESD-Qwen3-4B-v0": _QWEN3.replace(student="Qwen/Qwen3-4B"),
    "ATESD-Qwen3-8B-v0": _QWEN3.replace(student="Qwen/Qwen3-8B"),
    "ATESD-Toy-v0": ToyConfig(windows=100, hold_window=1),
}
"""The configuration behind each environment id that is made without a file."""

_BY_ID = {
    **PRESETS,
    "ATESD-Surrogate-v0": SurrogateConfig(),
    # Not the paper's positive part, which pays for a student that collapses and recovers. No instance has more windows.
    "ATESD-Bench-v0": BenchConfig(progress="signed", windows=100),
}


def preset(env_id: str, **changes: Any) -> RunConfig:
    """Returns the configuration of an environment id, with some fields changed.

    Args:
        env_id: One of ``PRESETS``, "ATESD-Surrogate-v0" or "ATESD-Bench-v0", with or without the prefix ``atesd_env:``.
        **changes: Fields to change.

    Raises:
        ConfigError: If the id or a field is unknown (the nearest is suggested) or another leaf's, or a value is refused.

    >>> preset("ATESD-Tiny-v0", windows=5).windows
    5
    """
    name = str(env_id).removeprefix("atesd_env:")
    if name not in _BY_ID:
        hint = did_you_mean(name, _BY_ID, f"the ids are {', '.join(_BY_ID)}.")
        raise ConfigError(f"env id: expected one of ours, got {env_id!r}; {hint}")
    return _BY_ID[name].replace(**changes)


def preset_of(leaf: type[Leaf], env_id: str, **changes: Any) -> Leaf:
    """Returns ``preset(env_id, **changes)`` of an environment that must have one kind of student.

    Args:
        leaf: The configuration of that kind.
        env_id: As in ``preset``.
        **changes: Fields to change.

    Raises:
        ConfigError: If the environment has another kind; and as ``preset`` does.
    """
    config = preset(env_id, **changes)
    if not isinstance(config, leaf):
        raise ConfigError(
            f"env: expected an environment with a {leaf.student_kind}, got {env_id}, which has a {config.student_kind}; pass another id."
        )
    return config
