"""Named settings of sampling for evaluations."""

from __future__ import annotations

from dataclasses import dataclass

from atesd_env.config import EnvConfig
from atesd_env.errors import ConfigError
from atesd_env.rollouts.sampling import SamplingSpec

CONTEST_TOKENS = 38_912
"""Qwen3's token budget for contest problems: with prompts of 2,048 tokens it fills the context of 40,960."""


@dataclass(frozen=True)
class SamplingPreset:
    """How an evaluation samples.

    Attributes:
        spec: Temperature, top-p, top-k and the token budget.
        thinking: Thinking switch of the chat template.
    """

    spec: SamplingSpec
    thinking: bool


SAMPLING_PRESETS = {
    # The defaults of OPSD's published evaluation script (thinking on, no top-k); ATESD's own
    # settings are not published and are taken to be these.
    "paper": SamplingPreset(SamplingSpec(CONTEST_TOKENS, temperature=1.0, top_p=0.95), thinking=True),
    # Qwen3's model card, "best practices".
    "qwen3-thinking": SamplingPreset(
        SamplingSpec(CONTEST_TOKENS, temperature=0.6, top_p=0.95, top_k=20), thinking=True
    ),
    "qwen3-instruct": SamplingPreset(
        SamplingSpec(CONTEST_TOKENS, temperature=0.7, top_p=0.8, top_k=20), thinking=False
    ),
}
"""By name; "env" (an environment's rollout settings) and "greedy" come from the configuration, see ``sampling_preset``."""

PRESET_NAMES = ("env", "greedy", *SAMPLING_PRESETS)
"""What ``atesd evaluate --sampling`` takes."""


def sampling_preset(name: str, config: EnvConfig) -> SamplingPreset:
    """Returns a preset by name.

    Args:
        name: One of ``PRESET_NAMES``: "env" samples as the environment's rollouts do, "greedy" takes the most likely token.
        config: The environment's configuration.

    Raises:
        ConfigError: If there is no such preset.
    """
    if name == "env":
        spec = SamplingSpec.of(config)
        return SamplingPreset(spec, config.evaluation_thinking)
    if name == "greedy":
        return SamplingPreset(SamplingSpec(config.max_new_tokens, temperature=0.0), config.evaluation_thinking)
    if name not in SAMPLING_PRESETS:
        raise ConfigError(f"sampling: expected one of {', '.join(PRESET_NAMES)}, got {name!r}; pass one of these.")
    return SAMPLING_PRESETS[name]
