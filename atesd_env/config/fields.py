"""The configuration of an environment: one flat frozen dataclass, and a preset for each id.

Every field is a keyword of ``gym.make`` and a flag of ``atesd run``. The text below a field is its documentation on the
command line and in the docs; "paper" is ATESD (arXiv 2605.11458), "OPSD" is arXiv 2601.18734, "ours" is our choice.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np

from atesd_env.errors import ConfigError


@dataclass(frozen=True)
class Bounds:
    """Range of a numeric field; ``None`` means unbounded, ``open_low`` that the lower end itself is refused."""

    low: float | None = None
    high: float | None = None
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        # A whole number is finite; asking a very long one would overflow.
        if not (isinstance(value, int) or math.isfinite(value)):
            return False
        above = self.low is None or (value > self.low if self.open_low else value >= self.low)
        return above and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        low = "(-inf" if self.low is None else f"{'(' if self.open_low else '['}{self.low:g}"
        high = "inf)" if self.high is None else f"{self.high:g}]"
        return f"{low}, {high}"


def _number(default: Any, low: float | None = None, high: float | None = None, *, open_low: bool = False) -> Any:
    return dataclasses.field(default=default, metadata={"bounds": Bounds(low, high, open_low)})


def _choice(default: str, *choices: str) -> Any:
    return dataclasses.field(default=default, metadata={"choices": choices})


@dataclass(frozen=True)
class EnvConfig:
    """Everything that defines an environment, except the seed (an argument of ``reset``).

    Values are stored as plain Python: numpy scalars become numbers, a whole number in a float field a float, a path a
    string, a list of names (as JSON has it) a tuple.

    Raises:
        ConfigError: If a value is outside its range; the message names the field, what was expected and what came.
    """

    # Student
    student: str = "tiny"
    """The base model: a Hugging Face hub id, a local model directory, a .gguf file, or "tiny" (packaged). [ours]"""
    adapter: str | None = None
    """Directory of a plain peft LoRA adapter that every episode starts from; None starts from the base model. [ours]"""
    dtype: Literal["float32", "bfloat16"] = _choice("float32", "float32", "bfloat16")
    """Number format of the frozen base; adapters and losses stay float32. [OPSD: bfloat16]"""
    forward: Literal["fused", "modules"] = _choice("fused", "fused", "modules")
    """How the student is run: written out, in fewer and larger operations, where its architecture is known (Llama, Qwen2,
    Qwen3), or through transformers' modules. The same numbers up to rounding. [ours]"""
    device: str = "auto"
    """Torch device, such as "cpu" or "cuda:0"; "auto" takes a GPU if there is one. [ours]"""
    base_sharding: Literal["none", "fsdp2"] = _choice("none", "none", "fsdp2")
    """On several devices (`torchrun`): each holds the whole frozen base, or "fsdp2": its layers are shared out and gathered one
    at a time while they compute. Runs through the modules (`forward`). [ours]"""
    base_quantization: Literal["none", "nf4"] = _choice("none", "none", "nf4")
    """Keep the frozen base's linear layers in 4 bits, "nf4" (package bitsandbytes). Runs through the modules (`forward`). [ours]"""
    rank_timeout_sec: float = _number(600.0, 0, open_low=True)
    """On several devices: how long a process waits for another one before the run ends with an error. [ours]"""
    enable_thinking: bool = False
    """Passed to the chat template (Qwen3's thinking switch; other templates ignore it). [ours]"""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time. [OPSD: on]"""
    lora_r: int = _number(8, 1, 4096)
    """Rank of the LoRA adapters. [OPSD: 64]"""
    lora_alpha: float = _number(16.0, 0, open_low=True)
    """LoRA scale; the adapter's output is multiplied by lora_alpha / lora_r. [OPSD: 128]"""
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names (or name endings) of the linear layers that get an adapter. [OPSD]"""

    # Task
    task: Literal["arithmetic", "math"] = _choice("arithmetic", "arithmetic", "math")
    """Where problems come from: generated running sums, or JSONL rows of problem, solution, answer. [ours]"""
    data_path: str | None = None
    """Task math: training problems, a JSONL or Parquet file or a data set of the hub by its id; "gsm8k" is a packaged sample of
    GSM8K. [ours]"""
    probe_data_path: str | None = None
    """Task math: JSONL file of probe problems; None sets apart problems of data_path. [ours]"""
    data_on_disk: bool = False
    """Task math: read each problem from its file when it is needed, for data larger than memory; the same problems in the same
    order. [ours]"""
    min_addends: int = _number(4, 2, 20)
    """Task arithmetic: fewest numbers in a sum. [ours]"""
    max_addends: int = _number(5, 2, 20)
    """Task arithmetic: most numbers in a sum. [ours]"""

    # Exposure
    exposure: Literal["reference", "none", "other"] = _choice("reference", "reference", "none", "other")
    """What the teacher is shown: the reference solution, nothing, or another problem's solution (control). [paper]"""
    groups: int = _number(1, 1, 16)
    """Difficulty groups, each with a reveal ratio of its own; 1 is one ratio for the whole batch. [paper: 1]"""
    max_prompt_tokens: int = _number(160, 8)
    """Longest prompt in tokens; a longer teacher prompt loses its last shown steps, which a column counts. [ours]"""

    # Rollouts
    num_rollouts: int = _number(16, 1)
    """Rollouts of one update (the effective batch), one for each problem. [OPSD: 32]"""
    max_new_tokens: int = _number(48, 1)
    """Longest rollout in tokens. [OPSD: 1024 to 2048]"""
    temperature: float = _number(1.0, 0)
    """Sampling temperature; 0 is greedy. [OPSD: 1.1]"""
    top_p: float = _number(1.0, 0, 1, open_low=True)
    """Nucleus sampling: smallest set of tokens with at least this probability; 1 is off. [OPSD: 0.95]"""
    top_k: int = _number(0, 0)
    """Sample among this many most likely tokens; 0 is off. [OPSD: 20]"""

    # Rollout engine (docs/rollout-engines.md)
    rollout_engine: str = "own"
    """What samples the rollouts: "own" (this package's decode loop), "vllm" (vLLM in a process of this machine), or the address
    of a vLLM server, such as "http://localhost:8000". [ours]"""
    engine_adapter: Literal["lora", "merged"] = _choice("lora", "lora", "merged")
    """How another engine gets the student at every update: as a LoRA adapter, or as whole weights with the adapter added.
    [ours]"""
    engine_folder: str | None = None
    """Folder through which adapters or weights go to the engine, which must see it under the same path; None is a temporary
    one. [ours]"""
    engine_cache_gib: float = _number(4.0, 0, open_low=True)
    """Memory for the key-value cache of vLLM in process, in GiB. [ours]"""
    engine_sleep: bool = True
    """Let vLLM in process give its device memory back between rollouts, where the device can (a GPU). [ours]"""
    engine_timeout_sec: float = _number(600.0, 0, open_low=True)
    """Seconds that another engine may take to start, to load an adapter or to answer the rollouts of an update. [ours]"""
    engine_retries: int = _number(2, 0)
    """How often another engine that is dead or silent is asked again before the step fails. [ours]"""
    engine_tolerance: float = _number(0.1, 0, open_low=True)
    """Largest mean difference between another engine's and the trainer's log-probabilities that its start-up test accepts,
    in nats a token. [ours]"""
    importance_cap: float | None = _number(None, 1)
    """Multiply a token's loss by min(importance_cap, p_trainer / p_engine), which corrects for another engine's other
    numbers; 2 is usual. None is off; the own engine needs none. [ours]"""

    # Divergence
    divergence: Literal["forward_kl", "reverse_kl", "jsd"] = _choice("forward_kl", "forward_kl", "reverse_kl", "jsd")
    """The loss on a token: KL(teacher||student), KL(student||teacher), or the generalized JSD. [paper: forward_kl]"""
    jsd_beta: float = _number(0.5, 0.001, 0.999)
    """Weight of the teacher in the JSD's mixture, m = (1 - jsd_beta) student + jsd_beta teacher. [OPSD: 0.5]"""
    token_clip: float | None = _number(None, 0, open_low=True)
    """Largest loss of one token, in nats; the token's sum is clipped, so the loss stays non-negative. None is off.
    [OPSD]"""
    divergence_top_k: int | None = _number(None, 1)
    """Keep the teacher's k most likely tokens and one bucket for all others; None is the full vocabulary. [OPSD]"""
    divergence_chunk: int = _number(128, 1)
    """Scored tokens whose vocabulary is held in memory at once. [ours]"""

    # Update
    learning_rate: float = _number(2e-3, 0)
    """AdamW's step size, constant. [OPSD: 5e-6 to 2e-4]"""
    weight_decay: float = _number(0.0, 0)
    """AdamW's decoupled weight decay on the adapters. [ours]"""
    max_grad_norm: float = _number(1.0, 0, open_low=True)
    """Gradient norm above which a student's gradient is scaled down. [ours]"""
    micro_batch_size: int | None = _number(None, 1)
    """Rollouts in memory at once in an update; gradients add up to the whole batch's. None is the whole batch.
    [ours]"""
    teacher: Literal["initial", "ema"] = _choice("initial", "initial", "ema")
    """The teacher's weights: the initial policy (adapters as they began), or an average of the student's.
    [OPSD: initial]"""
    ema_decay: float = _number(0.99, 0, 1)
    """Share of its old weights that the "ema" teacher keeps in an update, 0..1. [ours]"""

    # Episode
    windows: int = _number(20, 1)
    """Hold windows (environment steps) of an episode. [ours]"""
    hold_window: int = _number(3, 1)
    """Student updates of a hold window, all at the same reveal ratio: the paper's H. [ours; unpublished]"""
    collapse_nll: float = _number(3.0, 0, open_low=True)
    """The student counts as broken, and the episode terminates, when its probe NLL exceeds the initial one by this many
    nats a token. [ours]"""

    # Probe
    probe_size: int = _number(128, 1)
    """Held-out problems of the probe, the same in every run. [ours; unpublished]"""
    probe_max_tokens: int = _number(64, 1)
    """Tokens of a reference solution that probe NLL and teacher-grounded score use. [ours]"""
    probe_batch_size: int = _number(128, 1)
    """Probe problems in one forward pass or decoding batch. [ours]"""
    probe_accuracy_every: int = _number(5, 0)
    """Windows between measurements of the probe's greedy accuracy; 0 never measures it. [ours]"""
    probe_pass_k: int = _number(0, 0, 64)
    """Also sample the probe k times and report pass@k; 0 is off. [ours]"""

    # Reward and statistics
    progress: Literal["positive", "signed"] = _choice("positive", "positive", "signed")
    """Learning progress of a window: the positive part of the drop in probe NLL, or the drop itself.
    [paper: positive]"""
    grounded_weight: float = _number(0.1, 0)
    """Weight of the teacher-grounded score in the reward: the paper's lambda_gt. [ours; unpublished]"""
    gamma: float = _number(0.9, 0, 1)
    """Discount of later measurements in a decision's return: the paper's g. [ours; unpublished]"""
    lookahead: int = _number(3, 1)
    """Measurements that a decision is credited for: the paper's L. [ours; unpublished]"""
    ema_coefficient: float = _number(0.3, 0, 1, open_low=True)
    """Weight of the newest window in the observation's moving averages. [ours; unpublished]"""

    # ATESD-Toy-v0 only
    toy_kind: Literal["constant", "drift", "delayed"] = _choice("constant", "constant", "drift", "delayed")
    """Toy: the best reveal ratio stays, drifts as the student learns, or shows its worth only some windows later. [ours]"""
    toy_best_ratio: float = _number(0.4, 0, 1)
    """Toy: the reveal ratio at which the closed-form learner learns fastest; "drift": before anything is learned. [ours]"""
    toy_final_ratio: float = _number(0.9, 0, 1)
    """Toy "drift": the best reveal ratio of a student that has learned everything. [ours]"""
    toy_tempting_ratio: float = _number(0.9, 0, 1)
    """Toy "delayed": the reveal ratio with the best immediate drop of the probe NLL, and a worse one later. [ours]"""
    toy_group_spread: float = _number(0.0, -1, 1)
    """Toy: by how much the hardest group's ratios (the three above) lie above the easiest one's; evenly in between. [ours]"""
    toy_noise: float = _number(0.01, 0)
    """Toy: standard deviation of the measured probe NLL, in nats. [ours]"""
    toy_relative_noise: float = _number(0.0, 0)
    """Toy: what is added to that standard deviation, as a multiple of the probe NLL: heavier noise early on. [ours]"""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        check_rollout_engine(self.rollout_engine)
        if self.min_addends > self.max_addends:
            raise ConfigError(
                f"min_addends: expected at most max_addends ({self.max_addends}), got {self.min_addends}; set both."
            )
        if self.task == "arithmetic" and (self.data_path or self.probe_data_path):
            raise ConfigError(
                f"data_path: expected None with task='arithmetic', which generates its problems, got "
                f"{self.data_path or self.probe_data_path!r}; pass task='math' to train on a file."
            )
        if self.base_sharding != "none" and self.base_quantization != "none":
            raise ConfigError(
                f"base_quantization: expected 'none' with base_sharding={self.base_sharding!r}, got {self.base_quantization!r}: 4-bit "
                "weights are not shared out; choose one of the two."
            )
        if self.task == "math" and not self.data_path:
            raise ConfigError(
                "data_path: expected a JSONL file of problem, solution, answer (task='math'), got none; pass "
                "data_path='problems.jsonl'."
            )

    def replace(self, **changes: Any) -> EnvConfig:
        """Returns a copy with some fields changed.

        Raises:
            ConfigError: If a name is not a field (the nearest is suggested), or a value is refused.
        """
        names = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in names:
                raise ConfigError(
                    f"{name}: expected the name of a configuration field, got {name!r}; {_hint(name, names, 'fields')}"
                )
        return dataclasses.replace(self, **changes)


def is_server(engine: str) -> bool:
    """Returns whether a rollout engine is given as the address of a server."""
    try:
        address = urlsplit(engine)
        return address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is no number
        return False


def check_rollout_engine(engine: str) -> None:
    """Refuses what is neither "own", "vllm" nor the address of a server.

    Raises:
        ConfigError: If it is something else.
    """
    if engine not in ("own", "vllm") and not is_server(engine):
        nearest = _nearest(engine, ("own", "vllm"))
        suggestion = f" Did you mean {nearest!r}?" if nearest else ""
        raise ConfigError(
            f'rollout_engine: expected "own", "vllm" or the address of a vLLM server such as "http://localhost:8000", got '
            f"{engine!r}; give one of these.{suggestion}"
        )


def _hint(name: str, names: list[str], kind: str) -> str:
    nearest = _nearest(name, names)
    return f"did you mean {nearest!r}?" if nearest else f"the {kind} are {', '.join(names)}."


def _nearest(name: str, names: Sequence[str]) -> str | None:
    """Returns the name that was probably meant, capitals aside, or None."""
    by_lower = {candidate.lower(): candidate for candidate in names}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def _checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """Returns ``value`` as plain Python; raises ConfigError unless it has the field's type, range or choice."""
    annotation = str(field.type)
    if value is None and annotation.endswith("| None"):
        return None
    if "choices" in field.metadata:
        choices = field.metadata["choices"]
        if not isinstance(value, str) or value not in choices:
            nearest = _nearest(str(value), choices)
            suggestion = f" Did you mean {nearest!r}?" if nearest else ""
            raise ConfigError(
                f"{field.name}: expected one of {choices}, got {value!r}; choose one of these.{suggestion}"
            )
        return str(value)
    base = annotation.removesuffix(" | None")
    if base.startswith("tuple"):
        names = tuple(value) if isinstance(value, list | tuple) else ()
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ConfigError(f"{field.name}: expected a non-empty tuple of names, got {value!r}; pass them as a list.")
        return names
    plain = _plain(base, value)
    if plain is None:
        raise ConfigError(
            f"{field.name}: expected {annotation}, got {value!r} ({type(value).__name__}); pass a value of that type."
        )
    bounds = field.metadata.get("bounds")
    if bounds is not None and plain not in bounds:
        raise ConfigError(f"{field.name}: expected a number in {bounds}, got {value!r}; pass one of these.")
    return plain


def _plain(base: str, value: Any) -> str | bool | int | float | None:
    """Returns ``value`` as the Python type that ``base`` names, or None if it is not of that kind."""
    if base == "bool":
        return bool(value) if isinstance(value, bool | np.bool_) else None
    if base == "str":
        return os.fsdecode(value) if isinstance(value, str | os.PathLike) else None
    if isinstance(value, bool):  # a whole number to Python, a slip here
        return None
    if base == "int":
        return int(value) if isinstance(value, numbers.Integral) else None
    if not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf  # outside any bounds


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

PRESETS: dict[str, EnvConfig] = {
    "ATESD-Tiny-v0": _TINY,
    "ATESD-SmolLM2-135M-v0": _SMOLLM2,
    "ATESD-Qwen3-1.7B-v0": _QWEN3,
    "ATESD-Qwen3-4B-v0": _QWEN3.replace(student="Qwen/Qwen3-4B"),
    "ATESD-Qwen3-8B-v0": _QWEN3.replace(student="Qwen/Qwen3-8B"),
    "ATESD-Toy-v0": EnvConfig(student="toy", windows=100, hold_window=1),
}
"""The configuration behind each environment id."""


CARRYING_OUT_FIELDS = (
    "engine_folder",
    "engine_cache_gib",
    "engine_sleep",
    "engine_timeout_sec",
    "engine_retries",
    "engine_tolerance",
)
"""Fields that say how a run is carried out, not what it is: it may go on with other values of them."""


def differing_fields(there: Mapping[str, Any], here: Mapping[str, Any], where: str) -> list[str]:
    """Returns what differs between two configurations in a way that matters, as texts "name (value there, value here)".

    A run may go on with another server, and with other ``CARRYING_OUT_FIELDS``. A field that the older one does not have yet
    had its default: new fields change nothing by themselves.

    Args:
        there: The fields of the older one, as JSON gives them back (lists for tuples).
        here: The fields of the newer one.
        where: How the newer one is called, such as "here".
    """
    defaults = {field.name: _as_json(field.default) for field in dataclasses.fields(EnvConfig)}
    different = []
    for name, value in here.items():
        old, new = there.get(name, defaults.get(name, "nothing")), _as_json(value)
        if name in CARRYING_OUT_FIELDS or old == new:
            continue
        if name == "rollout_engine" and is_server(str(old)) and is_server(str(new)):
            continue
        different.append(f"{name} ({old!r} there, {value!r} {where})")
    return different


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def check_same_config(config: EnvConfig, saved: Mapping[str, Any]) -> None:
    """Refuses a state that was saved under another configuration, where it would not go on as it was.

    Args:
        config: The environment's configuration.
        saved: All fields of the state's, as JSON gives them back (lists for tuples).

    Raises:
        ConfigError: If they differ; the message names the fields.
    """
    different = differing_fields(saved, dataclasses.asdict(config), "here")
    if different:
        raise ConfigError(
            f"state: expected one saved under this configuration, got other values of {', '.join(different)}; make the "
            "environment with the state's values."
        )


def preset(env_id: str, **changes: Any) -> EnvConfig:
    """Returns the configuration of an environment id, with some fields changed.

    Args:
        env_id: One of ``PRESETS``, with or without the prefix ``atesd_env:``.
        **changes: Fields to change.

    Raises:
        ConfigError: If the id or a field is unknown (the nearest is suggested), or a value is refused.

    >>> preset("ATESD-Tiny-v0", windows=5).windows
    5
    """
    name = env_id.removeprefix("atesd_env:")
    if name not in PRESETS:
        raise ConfigError(f"env id: expected one of ours, got {env_id!r}; {_hint(name, list(PRESETS), 'ids')}")
    return PRESETS[name].replace(**changes)
