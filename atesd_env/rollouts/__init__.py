"""Rollouts: what a student writes, and the scores that a model gives to it."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "sampling": ("Rollouts", "SamplingSpec", "decode_texts", "generate"),
        "scoring": ("scored_hidden", "token_log_probs"),
    },
)
