"""Evaluation: benchmarks answered by a student with its adapters, and what the answers say."""

from atesd_env.lazy import on_first_use

__getattr__, __all__ = on_first_use(
    __name__,
    {
        "benchmarks": ("Benchmark", "make_benchmark", "read_benchmark"),
        "contamination": ("find_overlaps",),
        "estimators": ("compare", "estimate", "majority_vote", "pass_at_k"),
        "evaluator": ("Evaluator",),
        "samples": ("SampleFile", "SampleRow"),
        "sampling_presets": ("SAMPLING_PRESETS", "SamplingPreset", "sampling_preset"),
        "summary": ("Summary", "summarise"),
    },
)
