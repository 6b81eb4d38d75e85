"""Distillation: divergences between teacher and student in closed form, and an update of a student."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "chunked": ("token_divergence",),
        "divergence": ("DivergenceSpec", "forward_kl", "jsd", "reverse_kl", "rollout_weights"),
        "importance": ("Agreement", "importance_weights"),
        "statistics": ("UpdateStatistics", "mean_columns", "measured_update"),
        "update": ("Learner",),
    },
)
