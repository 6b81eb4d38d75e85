"""One page for each environment id, in Gymnasium's style, made from the tables and signatures of the code."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import gymnasium

from atesd_env.bench import BenchEnv
from atesd_env.bench.observation import CONTEXT
from atesd_env.config import BenchConfig, EnvConfig, RunConfig, preset
from atesd_env.envs.contract import make_spaces
from atesd_env.simulated.surrogate import REWARD_FIELDS, SurrogateExposureEnv
from atesd_env.simulated.toy import ToyExposureEnv
from docs.generator.code_tables import features_table, field_texts
from docs.generator.markdown import markdown_table

DESCRIPTIONS = {
    "ATESD-Tiny-v0": (
        "A packaged Qwen3 of 0.6 million parameters learns running sums of four and five numbers. It needs no download and no "
        "GPU: a window takes about half a second on two cores, so controllers can be compared over many seeds on a laptop."
    ),
    "ATESD-SmolLM2-135M-v0": (
        "SmolLM2-135M-Instruct, a real instruction-tuned model, on grade-school mathematics (GSM8K) or problems of yours. It runs "
        "on a CPU (about 35 s a window on two cores, 5 GB); rollouts of 96 tokens are far too short to say much about controllers."
    ),
    "ATESD-Qwen3-1.7B-v0": (
        "Qwen3-1.7B with OPSD's published recipe (LoRA of rank 64, 32 rollouts an update, bfloat16), on GSM8K or problems of yours. "
        "It is meant for one GPU."
    ),
    "ATESD-Qwen3-4B-v0": "Qwen3-4B with OPSD's published recipe, on GSM8K or problems of yours. It is meant for one GPU.",
    "ATESD-Qwen3-8B-v0": "Qwen3-8B with OPSD's published recipe, on GSM8K or problems of yours. It is meant for one large GPU.",
    "ATESD-Toy-v0": (
        "Closed-form learners whose best policy is known, for testing controllers in seconds: the same spaces, features and row as "
        "the other environments, no model and no torch."
    ),
    "ATESD-Surrogate-v0": (
        "A model fitted to logged runs by `atesd fit-surrogate`, thousands of windows a second: for trying and training controllers, "
        "not for judging them."
    ),
    "ATESD-Bench-v0": (
        "ATESD-Bench: with each reset a student of another instance of a set, on which it matters how much the teacher is shown. "
        "Controllers are trained on one split and judged on another."
    ),
}
"""What each id is, in a sentence or two."""

VERSIONS = dict.fromkeys(DESCRIPTIONS, (("v0", "First version, in atesd-env 0.1.0."),))
"""Version and what changed with it, for each id."""

_PAGE = "../environment.md"


def environment_ids() -> list[str]:
    """Returns our registered ids: students by size, then what stands for one."""
    ids = [env_id for env_id in gymnasium.registry if env_id.startswith("ATESD-")]
    missing = sorted(set(ids) ^ set(DESCRIPTIONS))
    if missing:
        raise KeyError(
            f"{', '.join(missing)}: expected a description of every registered id and no other; add or remove it in DESCRIPTIONS."
        )
    return sorted(ids, key=list(DESCRIPTIONS).index)


def index_page() -> str:
    """Returns the list of environments."""
    rows = [(f"[`{env_id}`]({env_id}.md)", DESCRIPTIONS[env_id]) for env_id in environment_ids()]
    return (
        "# Environments\n\nEvery id has the same action, observation, row and reward; they differ in who learns, and what.\n"
        f"[The environment]({_PAGE}) explains what is common to all.\n\n{markdown_table(('id', 'what learns'), rows)}\n"
    )


def environment_page(env_id: str) -> str:
    """Returns the page of an id."""
    is_surrogate = env_id == "ATESD-Surrogate-v0"
    config = preset(env_id)
    parts = [
        f"# {env_id}",
        DESCRIPTIONS[env_id],
        _summary(env_id, config, is_surrogate),
        *_dynamics(env_id),
        _action(config, is_surrogate),
        _observation(config),
        _reward(config, is_surrogate),
        _episode_end(env_id, config),
        _arguments(env_id, config),
        _state_and_info(),
        "## Version history\n\n" + "\n".join(f"- **{name}**: {text}" for name, text in VERSIONS[env_id]),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(env_id: str, config: RunConfig, is_surrogate: bool) -> str:
    bench = BenchEnv() if isinstance(config, BenchConfig) else None
    observation, action = make_spaces(config) if bench is None else (bench.observation_space, bench.action_space)
    file = ', file="surrogate.safetensors"' if is_surrogate else ""
    entry = gymnasium.spec(env_id)
    rows = [
        ("Action space", f"`{action}`"),
        (
            "Observation space",
            f"`Box({observation.low.min():g}, {observation.high.max():g}, {observation.shape}, float32)`",
        ),
        ("Import", f'`import atesd_env; gymnasium.make("{env_id}"{file})`'),
        ("Several students", f'`gymnasium.make_vec("{env_id}", num_envs=16{file})`'),
        ("Entry points", f"`{entry.entry_point}`, `{entry.vector_entry_point}`"),
        ("Render modes", ", ".join(f"`{mode}`" for mode in ToyExposureEnv.metadata["render_modes"])),
    ]
    if isinstance(config, EnvConfig):
        problems = f"`{config.task}`" + (f", `{config.data_path}`" if config.data_path else "")
        rows += [("Student", f"`{config.student}`"), ("Problems", problems)]
    return markdown_table(("", ""), rows)


def _dynamics(env_id: str) -> list[str]:
    classes: dict[str, tuple[type, str]] = {
        "ATESD-Toy-v0": (ToyExposureEnv, f"[the closed form learners]({_PAGE}#the-closed-form-learners)"),
        "ATESD-Surrogate-v0": (SurrogateExposureEnv, f"[surrogate]({_PAGE}#surrogate)"),
        "ATESD-Bench-v0": (BenchEnv, "[the bench](../bench.md)"),
    }
    if env_id not in classes:
        return []
    owner, link = classes[env_id]
    text = inspect.getdoc(owner) or ""
    body = text.partition("\nArgs:")[0].replace("``", "`").partition("\n")[2].strip()
    return [f"## Description\n\n{body}\n\nHow to use it: {link}."]


def _action(config: RunConfig, is_surrogate: bool) -> str:
    groups = "as many as the runs had" if is_surrogate else f"`groups={config.groups}` by default"
    if isinstance(config, BenchConfig):
        groups = "as many as any instance of the set has; one with fewer looks at the first"
    return (
        "## Action\n\nA reveal ratio in [0, 1], or one for each difficulty group, easiest first ("
        + groups
        + "): the share of the "
        "reference solution's steps that the teacher is shown during the hold window. 0 shows the final answer alone, 1 the whole "
        f"solution. [What a reveal ratio shows]({_PAGE}#what-a-reveal-ratio-shows)."
    )


def _observation(config: RunConfig) -> str:
    more = (
        "\n\nThen, for each group, the last window's `rollout_length_<g>` (mean length / max_new_tokens), `student_entropy_<g>` and "
        "`student_mismatch_<g>` (x/(1+x)); 0 for a group that the instance lacks. With `context=True` the instance's fields follow: "
        f"{', '.join(f'`{name}`' for name in CONTEXT)}."
    )
    return (
        "## Observation\n\nStatistics of the run so far, scaled by fixed functions; `env.unwrapped.feature_names` has their order.\n\n"
        + features_table()
        + (more if isinstance(config, BenchConfig) else "")
    )


def _reward(config: RunConfig, is_surrogate: bool) -> str:
    values = (
        "`progress` and `grounded_weight` are those of the runs unless they are given"
        if is_surrogate
        else f'`progress="{config.progress}"`, `grounded_weight={config.grounded_weight:g}`'
    )
    kind = (
        "the drop of the probe NLL in the window, or its positive part"
        if is_surrogate or config.progress == "signed"
        else "the positive part of the drop of the probe NLL in the window"
    )
    return (
        f"## Reward\n\nLearning progress, {kind}, plus `grounded_weight` times the teacher-grounded score ({values}); nats a token. "
        "Discounting belongs to the return: `agents.credit` turns rewards into the paper's R."
    )


def _episode_end(env_id: str, config: RunConfig) -> str:
    if env_id == "ATESD-Surrogate-v0":
        text = (
            "*Truncated* after as many windows as the runs had, or (by default) where the surrogate is asked for a window unlike "
            "those it was fitted on. Students never break, so nothing is *terminated*."
        )
    elif isinstance(config, BenchConfig):
        text = "*Truncated* after the instance's windows. *Terminated* if its student breaks; the reward is then minus its `collapse_nll`."
    elif not isinstance(config, EnvConfig):
        text = f"*Truncated* after `windows={config.windows}` windows. The learners never break, so nothing is *terminated*."
    else:
        text = (
            f"*Truncated* after `windows={config.windows}` windows of `hold_window={config.hold_window}` updates. *Terminated* if the "
            f"student breaks: a loss or gradient that is not finite, or a probe NLL more than `collapse_nll={config.collapse_nll:g}` "
            f'nats above the base model\'s. `info["termination_reason"]` says which, and the reward is {-config.collapse_nll:g}.'
        )
    return f"## Episode end\n\n{text}"


def _arguments(env_id: str, config: RunConfig) -> str:
    meanings = field_texts()
    if env_id == "ATESD-Surrogate-v0":
        signature = inspect.signature(SurrogateExposureEnv)
        texts = _argument_texts(SurrogateExposureEnv)
        rows = [
            (
                f"`{name}`",
                "required" if parameter.default is parameter.empty else f"`{parameter.default!r}`",
                texts[name],
            )
            for name, parameter in signature.parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        rows += [(f"`{name}`", "the runs'", meanings[name]) for name in REWARD_FIELDS]
        return "## Arguments\n\n" + markdown_table(("argument", "default", "meaning"), rows)
    fields = [field for field in dataclasses.fields(config) if field.name in config.keywords()]
    rows = [
        (
            f"`{field.name}`",
            _shown(getattr(config, field.name)),
            str(field.metadata.get("bounds") or ", ".join(field.metadata.get("choices", ()))),
            meanings[field.name],
        )
        for field in fields
    ]
    changed = [f"`{field.name}`" for field in fields if getattr(config, field.name) != field.default]
    changed = [] if isinstance(config, BenchConfig) else changed
    note = f"\n\nOther defaults than `ATESD-Tiny-v0`: {', '.join(changed)}." if changed else ""
    return (
        '## Arguments\n\nKeywords of `gymnasium.make`, beside `render_mode` ("ansi", "rgb_array"), and flags of `atesd run`. [paper] is '
        "ATESD, [OPSD] its basis, [ours] a choice of ours.\n\n"
        + markdown_table(("argument", "default", "allowed", "meaning [source]"), rows)
        + note
    )


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _argument_texts(owner: type) -> dict[str, str]:
    """Returns the texts of the section Args of a docstring, by the argument's name."""
    section = (inspect.getdoc(owner) or "").partition("Args:\n")[2].partition("\n\n")[0]
    texts: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            name, _, text = line.strip().partition(":")
            texts[name] = text.strip()
        else:
            texts[name] += f" {line.strip()}"
    return texts


def _state_and_info() -> str:
    return (
        f"## Info, state, seeds\n\n`info` is [the window's row]({_PAGE}#the-row-of-a-window). `snapshot()`, `restore()`, "
        '`save_state(path)` and `reset(options={"state": path})` keep '
        f"[exact states]({_PAGE}#checkpoints-and-resuming). `reset(seed=s)` gives one run bit for bit on one machine with one "
        "number of threads."
    )
