"""The configuration of an environment whose students are language models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from atesd_env.config.checks import choice, number, option
from atesd_env.config.phases import check_phases
from atesd_env.config.run import RunConfig
from atesd_env.config.task import check_task
from atesd_env.errors import ConfigError
from atesd_env.hints import suggestion


@dataclass(frozen=True, kw_only=True)
class EnvConfig(RunConfig):
    """Everything that defines an environment of language models, except the seed (an argument of ``reset``).

    Raises:
        ConfigError: If a value is outside its range, or does not go with another; the message names the field, what was
            expected and what came.
    """

    student_kind = "language model"
    has_problems = True

    # Student
    student: str = "tiny"
    """The base model: a Hugging Face hub id, a local model directory, a .gguf file, "tiny" or "tiny-lists" (packaged), or a
    packaged base with habits, such as "tiny-terse-slip-0". [ours]"""
    adapter: str | None = None
    """Directory of a plain peft LoRA adapter that every episode starts from; None starts from the base model. [ours]"""
    dtype: Literal["float32", "bfloat16"] = choice("float32", "float32", "bfloat16")
    """Number format of the frozen base; adapters and losses stay float32. [OPSD: bfloat16]"""
    forward: Literal["fused", "modules"] = choice("fused", "fused", "modules")
    """How the student is run: written out, in fewer and larger operations, where its architecture is known (Llama, Qwen2,
    Qwen3), or through transformers' modules. The same numbers up to rounding. [ours]"""
    products: Literal["blas", "onednn"] = choice("blas", "blas", "onednn")
    """Who multiplies with the base's float32 weights on a CPU: PyTorch's BLAS, or oneDNN, which is about twice as fast on AMD's
    processors. Needs `forward` "fused"; elsewhere it changes nothing. The same numbers up to rounding. [ours]"""
    cuda_graph: bool = False
    """Decode in steps of one shape, which a GPU captures once and repeats: a launch a token in the place of hundreds. Needs
    `forward` "fused"; elsewhere the same steps run without capture. The same tokens up to rounding. [ours]"""
    device: str = "auto"
    """Torch device, such as "cpu" or "cuda:0"; "auto" takes a GPU if there is one. [ours]"""
    base_quantization: Literal["none", "nf4"] = choice("none", "none", "nf4")
    """Keep the frozen base's linear layers in 4 bits, "nf4" (package bitsandbytes). Runs through the modules (`forward`). [ours]"""
    rank_timeout_sec: float = number(600.0, 0, open_low=True)
    """On several devices: how long a process waits for another one before the run ends with an error. [ours]"""
    student_thinking: bool = False
    """Thinking switch of the chat template (Qwen3's; other templates ignore it) in the student's prompts, those of the probe too. The
    probe scores reference solutions where the student would write them: behind an empty think block. [OPSD: off]"""
    teacher_thinking: bool = False
    """The same switch in the teacher's prompts; its score of a reference solution stands behind an empty think block too. [OPSD: on]"""
    evaluation_thinking: bool = False
    """The same switch in evaluations that sample as the environment does (`atesd evaluate --sampling env` or `greedy`). [OPSD: on]"""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time. [OPSD: on]"""
    lora_r: int = number(8, 1, 4096)
    """Rank of the LoRA adapters. [OPSD: 64]"""
    lora_alpha: float = number(16.0, 0, open_low=True)
    """LoRA scale; the adapter's output is multiplied by lora_alpha / lora_r. [OPSD: 128]"""
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names (or name endings) of the linear layers that get an adapter. [OPSD]"""
    lora_merge: bool = False
    """Multiply with the sum of weight and adapter: one product in the place of three, in updates and where a single student samples,
    which holds a copy of the layers meanwhile. Float32 bases and `forward` "fused"; elsewhere it changes nothing. The same numbers up
    to rounding. [ours]"""

    # Task
    task: str = option("arithmetic", instance=True)
    """Where problems come from: generated ("arithmetic", "lists", "facts", "engram", "reasoning_gym"), rows of a file ("math", "code",
    "choice"), or a class of your own as package.module:Class. [ours]"""
    data_path: str | None = option(None, instance=True)
    """Tasks math, code, choice: training problems, a JSONL or Parquet file or a data set of the hub by its id; "gsm8k" is a packaged
    sample of GSM8K. [ours]"""
    probe_data_path: str | None = option(None, instance=True)
    """Tasks math, code, choice: JSONL file of probe problems; None sets apart problems of data_path. [ours]"""
    data_columns: str | None = option(None, instance=True)
    """Tasks math, code, choice: which columns hold problem, solution, answer, id or level, where their names differ:
    "problem=question,answer=final". [ours]"""
    train_on_benchmark: bool = option(False, instance=True)
    """Tasks math, code, choice: accept a data_path whose split a known benchmark measures on. [ours]"""
    code_answer: Literal["examples", "nothing"] = choice("examples", "examples", "nothing", instance=True)
    """Task code: what every reveal ratio shows in the place of a final answer, the function's signature and the examples that its
    problem shows, or nothing. [ours]"""
    min_level: int = number(1, 1, 20, instance=True)
    """Tasks lists, facts, engram: easiest problems, in operations, hops or tiers. [ours]"""
    max_level: int = number(3, 1, 20, instance=True)
    """Tasks lists, facts, engram: hardest problems, in operations, hops or tiers. [ours]"""
    min_addends: int = number(4, 2, 20, instance=True)
    """Task arithmetic: fewest numbers in a sum. [ours]"""
    max_addends: int = number(5, 2, 20, instance=True)
    """Task arithmetic: most numbers in a sum. [ours]"""
    phases: str | None = option(None, instance=True)
    """Task arithmetic: addends in each of equal parts of the run, such as "4,5" or "2-3,4-5": what is trained on changes, while
    probe and held-out problems are of all phases. None trains on all at any time. [ours]"""
    phase_jitter: float = number(0.0, 0, 0.5, instance=True)
    """Task arithmetic: how far from its place a change of phase may lie, in shares of the run; drawn from the run's seed. [ours]"""

    # Exposure
    exposure: Literal["reference", "none", "other", "other_matched", "wrong_answer", "no_answer", "answer_only"] = (
        choice("reference", "reference", "none", "other", "other_matched", "wrong_answer", "no_answer", "answer_only")
    )
    """What the teacher is shown: the reference solution, or a control in its place, such as another problem's. [paper: reference]"""
    view: str | None = None
    """Task math: which version of the solution stands for the reference, a name in the rows' `views`; None is the solution. [ours]"""
    action_views: str | None = None
    """Task math: let the action pick the version in each window, out of these names ("solution" is the solution), such as
    "gist,solution": one entry more behind the reveal ratios. [ours]"""
    action_retire: bool = False
    """Let the action drop the teacher for a window: one entry more, the last, above 0.5. [ours]"""
    max_prompt_tokens: int = number(160, 8)
    """Longest prompt in tokens; a longer teacher prompt loses its last shown steps, which a column counts. [ours]"""

    # Rollouts
    temperature: float = number(1.0, 0)
    """Sampling temperature; 0 is greedy. [OPSD: 1.1]"""
    top_p: float = number(1.0, 0, 1, open_low=True)
    """Nucleus sampling: smallest set of tokens with at least this probability; 1 is off. [OPSD: 0.95]"""
    top_k: int = number(0, 0)
    """Sample among this many most likely tokens; 0 is off. [OPSD: 20]"""

    # Rollout engine (docs/rollout-engines.md)
    rollout_engine: str = "own"
    """What samples the rollouts: "own" (this package's decode loop), "vllm" (vLLM in a process of this machine), or the address
    of a vLLM server, such as "http://localhost:8000". [ours]"""
    engine_folder: str | None = option(None, is_carrying_out=True)
    """Folder through which adapters go to another engine, which must see it under the same path; None is a temporary one.
    [ours]"""
    engine_cache_gib: float = number(4.0, 0, open_low=True, is_carrying_out=True)
    """Memory for the key-value cache of vLLM in process, in GiB. [ours]"""
    engine_sleep: bool = option(True, is_carrying_out=True)
    """Let vLLM in process give its device memory back between rollouts, where the device can (a GPU). [ours]"""
    engine_timeout_sec: float = number(600.0, 0, open_low=True, is_carrying_out=True)
    """Seconds that another engine may take to start, to load an adapter or to answer the rollouts of an update. [ours]"""
    engine_retries: int = number(2, 0, is_carrying_out=True)
    """How often another engine that is dead or silent is asked again before the step fails. [ours]"""
    engine_tolerance: float = number(0.1, 0, open_low=True, is_carrying_out=True)
    """Largest mean difference between another engine's and the trainer's log-probabilities that its start-up test and every window
    accept, in nats a token. [ours]"""
    importance_cap: float | None = number(None, 1)
    """Multiply a token's loss by min(importance_cap, p_trainer / p_engine), which corrects for another engine's other
    numbers; 2 is usual. None is off; the own engine needs none. [ours]"""

    # Divergence
    divergence: Literal["forward_kl", "reverse_kl", "jsd"] = choice(
        "forward_kl", "forward_kl", "reverse_kl", "jsd", instance=True
    )
    """The loss on a token: KL(teacher||student), KL(student||teacher), or the generalized JSD. [paper: forward_kl]"""
    jsd_beta: float = number(0.5, 0.001, 0.999, instance=True)
    """Weight of the teacher in the JSD's mixture, m = (1 - jsd_beta) student + jsd_beta teacher. [OPSD: 0.5]"""
    token_clip: float | None = number(None, 0, open_low=True, instance=True)
    """Largest loss of one token, in nats; the token's sum is clipped, so the loss stays non-negative. None is off.
    [OPSD]"""
    divergence_top_k: int | None = number(None, 1, instance=True)
    """Keep the teacher's k most likely tokens and one bucket for all others; None is the full vocabulary. [OPSD]"""
    merge_end_tokens: bool = False
    """Treat the tokens that end a rollout as one: student and teacher that stop with different ones agree, in loss and statistics.
    [ours]"""
    loss_horizon: int | None = number(None, 1)
    """Score only the first so many tokens of a rollout, in loss and statistics; None is all. [OPSD: all of 1024 to 2048]"""
    divergence_chunk: int = number(128, 1)
    """Scored tokens whose vocabulary is held in memory at once. [ours]"""

    # Update
    learning_rate: float = number(2e-3, 0, instance=True)
    """AdamW's step size, constant. [OPSD: 5e-6 to 2e-4]"""
    weight_decay: float = number(0.0, 0, instance=True)
    """AdamW's decoupled weight decay on the adapters. [ours]"""
    max_grad_norm: float = number(1.0, 0, open_low=True, instance=True)
    """Gradient norm above which a student's gradient is scaled down. [ours]"""
    micro_batch_size: int | None = number(None, 1)
    """Rollouts in memory at once in an update; gradients add up to the whole batch's. None is the whole batch.
    [ours]"""
    teacher: Literal["initial", "ema"] = choice("initial", "initial", "ema")
    """The teacher's weights: the initial policy (adapters as they began), or an average of the student's.
    [OPSD: initial]"""
    ema_decay: float = number(0.99, 0, 1, instance=True)
    """Share of its old weights that the "ema" teacher keeps in an update, 0..1. [ours]"""

    # Episode
    collapse_loop_rate: float | None = number(None, 0, 1)
    """The student also counts as broken when more than this share of a window's rollouts end in a loop; None is off. [ours]"""
    collapse_nll: float = number(3.0, 0, open_low=True)
    """The student counts as broken, and the episode terminates, when its probe NLL exceeds the initial one by this many
    nats a token. [ours]"""

    # Probe
    probe_size: int = number(128, 1)
    """Held-out problems of the probe, the same in every run. [ours; unpublished]"""
    probe_max_tokens: int = number(64, 1)
    """Tokens of a reference solution that probe NLL and teacher-grounded score use. [ours]"""
    probe_batch_size: int = number(128, 1)
    """Probe problems in one forward pass or decoding batch. [ours]"""

    @property
    def views(self) -> tuple[str | None, ...]:
        """The versions of a solution that a teacher may be shown; None is the solution itself."""
        names = self.action_views.split(",") if self.action_views else [self.view]
        return tuple(None if name is None or name.strip() == "solution" else name.strip() for name in names)

    @property
    def action_size(self) -> int:
        return self.num_ratios + (self.action_views is not None) + self.action_retire

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.student == "toy":
            raise ConfigError(
                "student: expected a base model, got 'toy', the closed form; make ATESD-Toy-v0 (its configuration is ToyConfig), or "
                "give a directory of that name as './toy'."
            )
        check_rollout_engine(self.rollout_engine)
        if self.min_addends > self.max_addends:
            raise ConfigError(
                f"min_addends: expected at most max_addends ({self.max_addends}), got {self.min_addends}; set both."
            )
        check_task(self.task, self.data_path, self.probe_data_path, self.phases)
        if self.task == "arithmetic" and (self.view or self.action_views):
            raise ConfigError(
                f"view, action_views: expected None with task='arithmetic', whose solutions have one version, got "
                f"{self.view or self.action_views!r}; leave them out."
            )
        if self.view and self.action_views:
            raise ConfigError(
                f"view: expected None where the action picks it (action_views={self.action_views!r}), got {self.view!r}; leave one out."
            )
        if self.phases is not None:
            check_phases(self.phases, self.min_addends, self.max_addends, self.phase_jitter)


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
        raise ConfigError(
            f'rollout_engine: expected "own", "vllm" or the address of a vLLM server such as "http://localhost:8000", got '
            f"{engine!r}; give one of these.{suggestion(engine, ('own', 'vllm'))}"
        )
