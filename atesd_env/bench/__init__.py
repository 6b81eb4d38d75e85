"""The bench: instances on which a controller is judged, the environment that draws them, and what is known on each.

Instance sets need no torch; their environment loads it with the first language model.
"""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "checking": ("check_instance_set",),
        "environments": ("BenchEnv", "BenchVectorEnv"),
        "instances": ("Instance", "InstanceSet"),
        "known": ("reference", "reference_card", "references"),
        "landscapes": ("landscape", "landscapes_card"),
        "oracle": ("best_schedule",),
        "schedules": ("oracle_schedule", "oracle_schedules"),
        "seeds": ("SEEDS", "split_of_seed"),
    },
)
