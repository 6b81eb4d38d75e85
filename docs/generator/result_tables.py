"""Tables of the pages about results, made from the committed outputs of ``benchmarks``: one number, one file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from docs.generator.markdown import markdown_table
from docs.generator.public_names import ROOT

SAVED_AGENTS = {
    "controllers/ppo_surrogate_best.zip": "PPO trained on the surrogate, best evaluation",
    "controllers/ppo_surrogate_last.zip": "PPO trained on the surrogate, last",
    "controllers/ppo_population_last.zip": "PPO trained on the population",
}
"""Files of agents -> what they are."""

PROBLEMS = ("constant", "noisy", "drift", "delayed", "groups")
"""Closed-form learners, in the order of the table's columns."""

FAULTS = ("kills", "damages", "inputs")
"""Kinds of faults, in the order of the table's columns."""

REACHED_AGENTS = (
    (
        "`beta`",
        "the paper's controller: a Beta policy trained by REINFORCE inside the run",
        "beta",
        "beta:credit=grounded",
    ),
    ("`fixed:A`", "ratio A in every window; `fixed:1` is OPSD", "best_fixed", "fixed:0.75"),
    ("`random`", "uniformly random", "random", "random"),
    (
        "`linear:A:B`, `cosine:A:B`",
        "from A to B over the run, in a straight line or along half a cosine",
        None,
        "linear:1:0",
    ),
    ("`staged:A:B[:C...]`", "one ratio after the other, in equal stages", None, None),
    ("`binomial`", "UFT's hint schedule: a binomial number of steps whose mean falls", None, None),
    ("`feedback`", "holds the mismatch at a set point", None, None),
    ("`lookahead`", "tries a few ratios on branches of the run, goes back, and takes the best", None, None),
    (
        "`grounded`, `mismatch`, `balance`",
        "rules: the ratio with the best grounded score, the lowest mismatch, or the best balance of both",
        None,
        None,
    ),
    ("`meta`", "the same with weights that were learned on other students", None, None),
    ("`oracle`", "on [the bench](bench.md): the best schedule of a search on other seeds", None, None),
    (
        "`ucb`",
        "bandit on the grid 0, 0.25, 0.5, 0.75, 1; `ucb:discount=0.95` or `ucb:window=50` forgets",
        "ucb",
        None,
    ),
    ("`thompson`", "the same by posterior sampling", "thompson", "thompson"),
    ("`linucb`", "the same with the observation as context", "linucb", None),
    ("`exp3s`", "Exp3.S on the same grid: no assumption about returns, and slow", "exp3s", None),
    (
        "`ppo`",
        "Stable-Baselines3's and sb3-contrib's, best trained over many runs: [`atesd train`](training.md)",
        "ppo",
        "controllers/ppo_population_last.zip",
    ),
    ("`a2c`", '"', "a2c", None),
    ("`td3`", '"', "td3", None),
    ("`dqn`", '" (on a grid)', "dqn", None),
    ("`sac`", '"', "sac", None),
    ("`tqc`", '"', "tqc", None),
    ("`recurrent_ppo`", '"', "recurrent_ppo", None),
    (
        "`agent.safetensors`, `agent.zip`",
        "a saved agent, which only decides; with `:learn=true` it goes on learning; a `.zip` takes `:trust=true`",
        None,
        None,
    ),
    ("`package.module:Class`", "your own", None, None),
)
"""Rows of the table of what agents reach: the spec, who decides, and what it is called in the toy's and in Tiny's results."""


def measured(name: str) -> dict[str, Any]:
    """Returns a committed output of ``benchmarks``."""
    return dict(json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text()))


def source(output: Mapping[str, Any]) -> str:
    """Returns a sentence that says where a table's numbers come from."""
    threads = f"{output['threads']} thread{'s' if output['threads'] > 1 else ''}"
    return f"`{output['command']}`, commit `{output['commit'][:7]}`, {output['cores']} cores, {threads}, torch {output['torch']}."


def sweep_table() -> str:
    """Returns accuracy by fixed ratio, as measured."""
    output = measured("fixed_ratio_sweep")
    differences = output["paired_difference_to_full_exposure"]
    rows = [
        (
            f"{float(ratio):g}",
            _interval(accuracy, "mean", "low", "high", 100, 1),
            _interval(differences[ratio], "mean", "low", "high", 100, 1, "+") if ratio in differences else "-",
        )
        for ratio, accuracy in output["accuracy"].items()
    ]
    headers = ("reveal ratio", "accuracy, %", "minus full exposure, points")
    return f"{markdown_table(headers, rows)}\n\n{len(output['seeds'])} seeds. {source(output)}"


def mismatch_table() -> str:
    """Returns the first window's mismatch by ratio, as measured."""
    output = measured("mismatch_by_ratio")
    rows = [
        (f"{float(ratio):g}", _interval(value, "mean", "low", "high", 1, 3))
        for ratio, value in output["mismatch"].items()
    ]
    table = markdown_table(("reveal ratio", "mismatch, nats a token"), rows)
    return f"{table}\n\n{len(output['seeds'])} seeds. {source(output)}"


def toy_table() -> str:
    """Returns what agents reach on the closed-form learners."""
    problems = measured("agents_on_toy")["problems"]
    fixed = {name: problems[name]["best_fixed"] for name in PROBLEMS}
    rows = [
        ("best fixed ratio", *(f"{best['reached_rate']:.2f} (at {best['ratio']:.2f})" for best in fixed.values())),
        ("fixed:0.5", *(f"{problems[name]['fixed_0.5']:.2f}" for name in PROBLEMS)),
    ]
    agents = dict.fromkeys(agent for name in PROBLEMS for agent in problems[name]["agents"])
    everywhere = [agent for agent in agents if all(agent in problems[name]["agents"] for name in PROBLEMS)]
    for agent in [*everywhere, *(agent for agent in agents if agent not in everywhere)]:
        rows.append((f"`{agent}`", *(_reached(problems[name]["agents"].get(agent)) for name in PROBLEMS)))
    return markdown_table(("agent", *PROBLEMS), rows)


def reached_table() -> str:
    """Returns the agents with what they reach on two closed forms and on the packaged student."""
    problems = measured("agents_on_toy")["problems"]
    lines = measured("controllers_on_tiny")["comparison"]["comparison"]
    tiny = {line["agent"]: line for line in lines if line["metric"] == "probe/accuracy"}
    noted = {"fixed:0.75": " (at 0.75)", "linear:1:0": " (1 to 0)"}
    rows = []
    for spec, meaning, toy, agent in REACHED_AGENTS:
        row = [spec, meaning]
        for name in ("constant", "drift"):
            best = problems[name]["best_fixed"]
            reached = _reached(problems[name]["agents"].get(toy))
            row.append(f"{best['reached_rate']:.2f} (at {best['ratio']:.2f})" if toy == "best_fixed" else reached)
        accuracy = "" if agent is None else _interval(tiny[agent], "mean", "low", "high", 100, 1)
        rows.append((*row, accuracy + noted.get(agent or "", "")))
    return markdown_table(("spec", "who decides", "constant", "drift", "Tiny, accuracy %"), rows)


def controllers_table() -> str:
    """Returns the controllers on the packaged student, by accuracy and by NLL."""
    return _compared(measured("controllers_on_tiny")["comparison"]["comparison"], ("to_reference", "to_best_fixed"))


def baselines_table() -> str:
    """Returns ways to train the packaged student."""
    return _compared(measured("baselines_on_tiny")["comparison"], ("to_reference",), costs=True)


def baselines_verdict() -> str:
    """Returns which way to train the packaged student is ahead, and by how much."""
    output = measured("baselines_on_tiny")
    lines = [line for line in output["comparison"] if line["metric"] == "probe/accuracy"]
    first, second = sorted(lines, key=lambda line: -line["mean"])[:2]
    ends = " to ".join(f"{100 * abs(second[f'to_best_{end}']):.0f}" for end in ("high", "low"))
    return (
        f"**Supervised fine-tuning (`{first['agent']}`) did best**: {-100 * second['to_best']:.0f} points over `{second['agent']}`, the "
        f"next (95% interval {ends}), and {100 * first['to_reference']:.0f} over full exposure, at {first['num_seeds']} seeds."
    )


def baselines_mixed_table() -> str:
    """Returns ways to train the packaged student on problems half of which the base solves."""
    return _compared(measured("baselines_on_mixed")["comparison"], ("to_reference",), costs=True)


def grpo_sweep_table() -> str:
    """Returns GRPO's accuracy and NLL at each learning rate, on the seeds that the rate was chosen by."""
    lines = measured("grpo_sweep")["lines"]
    rows = [
        (
            line["problems"],
            f"{line['rollouts_of_an_update']}",
            f"{line['learning_rate']:.2g}",
            ", ".join(f"{100 * value:.1f}" for value in line["accuracy_by_seed"]),
            ", ".join(f"{value:.3f}" for value in line["nll_by_seed"]),
        )
        for line in lines
    ]
    return markdown_table(
        ("sums of", "rollouts of an update", "rate", "accuracy by seed, %", "probe NLL by seed"), rows
    )


def collapse_table() -> str:
    """Returns how many updates before a student broke each column of its rows told."""
    output = measured("collapse")
    full, none = (output["signs"][agent] for agent in ("fixed:1", "fixed:0"))

    def cell(signs: Mapping[str, Any], column: str) -> str:
        found = signs["columns"][column]
        told = f"{signs['runs'] - found['silent']} of {signs['runs']}"
        return told if found["lead"] is None else f"{told}: {_interval(found['lead'], 'mean', 'low', 'high', 1, 1)}"

    rows = [(f"`{column}`", cell(full, column), cell(none, column)) for column in full["columns"]]
    table = markdown_table(("column", "full exposure", "the answer alone"), rows)
    return f"{table}\n\n{len(output['seeds'])} seeds. {source(output)}"


def collapse_smollm2_table() -> str:
    """Returns in how many runs of SmolLM2 that broke each column told, how many updates before; and when they broke."""
    output = measured("collapse_smollm2")
    signs = output["signs"]["fixed:1"]
    broke = signs["broke_in_window"]
    rows = [
        (
            f"`{column}`",
            f"{len(broke) - found['silent']} of {len(broke)}",
            "-" if found["lead"] is None else f"{found['lead']['mean']:.1f}",
        )
        for column, found in signs["columns"].items()
    ]
    table = markdown_table(("column", "told", "updates before"), rows)
    when = ", ".join(map(str, broke)) or "none"
    return f"{table}\n\n{len(broke)} of {signs['runs']} runs broke, after updates {when}. {source(output)}"


def collapse_controllers_table() -> str:
    """Returns how many of each controller's students broke at the high rate, when, and how they ended."""
    output = measured("collapse_controllers")
    rows = []
    for name, line in output["controllers"].items():
        broke = [window for window in line["broke_in_window"] if window is not None]
        difference = line["difference"]
        rows.append(
            (
                f"`{name}`",
                f"{len(broke)} of {len(output['seeds'])}",
                f"{min(broke)} to {max(broke)}" if broke else "",
                _interval(line["rise"], "mean", "low", "high", 1, 2),
                "" if difference is None else _interval(difference, "mean", "low", "high", 1, 2),
            )
        )
    headers = ("controller", "broke", "after updates", f"rise of the NLL after {output['windows']}, nats")
    table = markdown_table((*headers, "difference to full exposure"), rows)
    seeds = f"Seeds {output['seeds'][0]} to {output['seeds'][-1]}"
    return f"{table}\n\n{seeds}; the differences are paired, and their 95% intervals hold together. {source(output)}"


def comparisons_table() -> str:
    """Returns how often comparisons are right on simulated tables of equal agents, before and after."""
    rows = []
    for line in (line for line in measured("comparisons_on_nulls")["lines"] if line["is_claimed"]):
        before, after = line["before"], line["after"]
        pairs = [(before[name], after[name]) for name in ("pair", "reference", "best", "best_fixed", "winner")]
        texts = [f"{old:.1f} -> {new:.1f}" for old, new in pairs]
        claimed = line["claimed"]
        texts.append(f"{after['best_fixed_dominates']:.1f} (of {claimed['best_fixed_dominates']:.1f})")
        rows.append((line["outcomes"], str(line["seeds"]), str(line["agents"]), f"{claimed['best']:.0f}", *texts))
    headers = ("outcomes", "seeds", "agents", "told apart, claimed", "pair covered", "told from the reference")
    headers += ("told from the best", "told from the best fixed", "a winner named", "one fixed ratio dominates")
    return markdown_table(headers, rows)


def equal_controllers() -> str:
    """Returns what the old rule found among as many equal agents, at as many seeds, as the controllers' table has."""
    lines = measured("controllers_on_tiny")["comparison"]["comparison"]
    size = {"outcomes": "normal", "seeds": lines[0]["num_seeds"], "agents": len({line["agent"] for line in lines})}
    (line,) = (one for one in measured("comparisons_on_nulls")["lines"] if size.items() <= one.items())
    return (
        f"[Simulated](comparisons.md), that rule tells some of {size['agents']} equal agents at {size['seeds']} seeds from the reference "
        f"in {line['before']['reference']:.1f}% of tables, and from the best fixed ratio in {line['before']['best_fixed']:.1f}%."
    )


def few_seeds_table() -> str:
    """Returns what intervals of one agent, and of two, cover at few seeds, before and after."""
    output = measured("intervals_at_few_seeds")
    names = ("mean", "iqm", "iqm_of_differences", "improvement", "improvement_of_better")
    rows = [
        (
            line["outcomes"],
            str(line["seeds"]),
            *(
                " -> ".join(f"{line[name][when]:.1f}" for when in ("before", "after") if when in line[name])
                for name in names
            ),
        )
        for line in output["lines"]
    ]
    headers = ("outcomes", "seeds", "own mean", "own interquartile mean", "interquartile mean of differences")
    headers += ("improvement on an equal agent", "improvement on one a deviation worse")
    return f"{markdown_table(headers, rows)}\n\n{output['samples']:,} samples of each kind. {source(output)}"


def bench_intervals_table() -> str:
    """Returns how often intervals of a bench's scores cover, on simulated benches."""
    result = measured("bench_intervals")
    names = ("mean_after", "mean_before", "iqm_after", "iqm_before")
    rows = [
        (line["runs"], str(line["seeds"]), *(f"{line[name]['covered']:.1f}" for name in names))
        for line in result["lines"]
    ]
    headers = ("runs", "seeds", "mean", "mean, percentiles", "interquartile mean", "interquartile mean, percentiles")
    return f"{markdown_table(headers, rows)}\n\n{source(result)}"


def beyond_table() -> str:
    """Returns the same where the claims do not reach."""
    names = ("pair", "reference", "best", "best_fixed")
    rows = [
        (line["outcomes"], str(line["seeds"]), str(line["agents"]), *(f"{line['after'][name]:.1f}" for name in names))
        for line in measured("comparisons_on_nulls")["lines"]
        if not line["is_claimed"]
    ]
    headers = ("outcomes", "seeds", "agents", "pair covered", "told from the reference", "told from the best")
    return markdown_table((*headers, "told from the best fixed"), rows)


def faults_table() -> str:
    """Returns what the campaign of faults tried, and what was survived and what was wrong, by kind."""
    output = measured("faults")
    rows = [
        ("tried", *(f"{output['tried'][kind]:,}" for kind in FAULTS)),
        ("survived", *(f"{output['survived'][kind]:,}" for kind in FAULTS)),
    ]
    for verdict in output["wrong"]:
        lines = [[line for line in output["lines"] if line["kind"] == kind] for kind in FAULTS]
        rows.append((verdict, *(f"{sum(line['verdicts'].get(verdict, 0) for line in ours)}" for ours in lines)))
    return f"{markdown_table(('', *FAULTS), rows)}\n\nSeed {output['seed']}. {source(output)}"


def faults_by_reader_table() -> str:
    """Returns the same by reader."""
    right = ("refused", "same", "accepted", "warned")
    rows = [
        (
            line["kind"],
            line["reader"],
            *(f"{line[name]}" for name in ("tried", "survived")),
            *(f"{line['verdicts'].get(name, 0)}" for name in right),
        )
        for line in measured("faults")["lines"]
    ]
    headers = ("kind", "reader", "tried", "survived", "refused", "as undamaged", "used", "warned of")
    return markdown_table(headers, rows)


def _compared(lines: Iterable[Mapping[str, Any]], kinds: tuple[str, ...], *, costs: bool = False) -> str:
    """Returns a table of ``compare_agents``' lines: accuracy, NLL and differences, sorted by accuracy."""
    lines = list(lines)
    nll = {line["agent"]: line for line in lines if line["metric"] == "probe/nll"}
    names = {"to_reference": "minus `fixed:1`", "to_best_fixed": "minus the best fixed"}
    headers = ["agent", "accuracy, %", *(f"{names[kind]}, points" for kind in kinds), "probe NLL, 0.001 nats a token"]
    headers += [names[kind] for kind in kinds]
    counts = {
        "num_updates": "updates",
        "num_tokens": "tokens sampled",
        "num_trained_tokens": "answer tokens trained on",
    }
    counts = {name: text for name, text in counts.items() if costs and all(name in line for line in lines)}
    headers += counts.values()
    rows = []
    for line in (line for line in lines if line["metric"] == "probe/accuracy"):
        row = [SAVED_AGENTS.get(line["agent"], f"`{line['agent']}`")]
        for part, scale, digits in ((line, 100, 1), (nll[line["agent"]], 1000, 1)):
            row.append(_interval(part, "mean", "low", "high", scale, digits))
            row += [_interval(part, kind, f"{kind}_low", f"{kind}_high", scale, digits, "+") for kind in kinds]
        row += [f"{line[name]:.0f}" for name in counts]
        rows.append(tuple(row))
    return markdown_table(tuple(headers), rows)


def _interval(
    line: Mapping[str, float | None], mean: str, low: str, high: str, scale: float, digits: int, sign: str = ""
) -> str:
    """Returns "mean [low, high]", without the bounds where there are none, and "-" for a difference to itself."""
    numbers = [math.nan if line.get(name) is None else scale * float(line[name] or 0.0) for name in (mean, low, high)]
    texts = [f"{number:{sign}.{digits}f}" for number in numbers]
    if math.isnan(numbers[1]):
        return "-" if sign else texts[0]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _reached(agent: Mapping[str, Any] | None) -> str:
    return "" if agent is None else _interval(agent["reached_rate"], "mean", "low", "high", 1, 2)
