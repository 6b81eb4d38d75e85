"""Tables of what was measured on the bench's instances."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from analysis.contrasts import to_best_fixed
from docs.generator.markdown import markdown_table
from docs.generator.result_tables import measured, source


def admission_table() -> str:
    """Returns accuracy by fixed ratio on each instance that was measured, and whether it is informative."""
    result = measured("admission")
    ratios = list(next(iter(result["instances"].values()))["accuracy"])
    rows = []
    for name, told in result["instances"].items():
        means = {ratio: told["accuracy"][ratio]["mean"] for ratio in ratios}
        texts = [
            f"**{100 * mean:.1f}**" if mean == max(means.values()) else f"{100 * mean:.1f}" for mean in means.values()
        ]
        spread = "{mean:.1f} [{low:.1f}, {high:.1f}]".format(
            **{end: 100 * value for end, value in told["best_minus_worst"].items()}
        )
        is_informative = "yes" if told["is_informative"] else "no"
        rows.append((f"`{name}`", told["split"], *texts, f"{100 * told['random']['mean']:.1f}", spread, is_informative))
    headers = ("instance", "split", *ratios, "random", "best minus worst, points", "informative")
    return f"{markdown_table(headers, rows)}\n\n{_splits(result['splits'])}\n\n{source(result)}"


def signals_table() -> str:
    """Returns how far below the best fixed ratio each cheap signal's choice ends, on each instance."""
    instances = measured("admission")["instances"]
    names = list(next(iter(instances.values()))["signals"])
    rows = [
        (
            f"`{name}`",
            f"{told['best_fixed']:g}",
            *(f"{100 * one['loss']['mean']:.1f} ({one['ratio']:g})" for one in told["signals"].values()),
        )
        for name, told in instances.items()
        if told["is_informative"]
    ]
    return markdown_table(("instance", "best ratio", *names), rows)


def mixing_table() -> str:
    """Returns accuracy by schedule on the stationary instance where ratios in turn win, and how far above the best fixed ratio."""
    result = measured("mixing")
    schedules = list(result["summary"]["accuracy"])
    outcomes = np.array(
        [[run["accuracy"] for run in result["runs"] if run["schedule"] == name] for name in schedules]
    ).T
    fixed = [place for place, name in enumerate(schedules) if name.startswith("fixed:")]
    contrast = to_best_fixed(outcomes, fixed, higher_is_better=True)
    rows = [
        (
            f"`{name}`",
            f"{100 * outcomes[:, place].mean():.1f}",
            "-"
            if place in fixed
            else f"{100 * contrast.difference[place]:+.1f} [{100 * contrast.low[place]:.1f}, {100 * contrast.high[place]:.1f}]",
        )
        for place, name in enumerate(schedules)
    ]
    headers = ("schedule", "accuracy, %", "points above the best fixed ratio")
    return f"{markdown_table(headers, rows)}\n\n{len(result['seeds'])} seeds. {source(result)}"


def _splits(splits: dict[str, dict[str, float]]) -> str:
    """Returns what the one best ratio of each split misses."""
    parts = [
        f"{name}: ratio {told['ratio']:g} is best on average, {100 * told['accuracy']:.1f}%; the best ratio of each "
        f"{100 * told['best_of_each']:.1f}%, {100 * told['gap']:.1f} points more"
        for name, told in splits.items()
    ]
    return f"One ratio for all instances of a split, {'; '.join(parts)}."


def settings_table() -> str:
    """Returns what each weight of mismatch against the grounded score is worth on train and validation instances."""
    result = measured("exposure_scores")
    rows = [[f"{100 * worth:.1f}" for worth in result["balance_mean"].values()]]
    chosen = result["meta"]["chosen"]
    learned = -chosen["weights"][1] / chosen["weights"][0]
    told = (
        f"`meta` learned {learned:.3f} on the split train: {100 * chosen['train']:.1f}% on train instances, "
        f"{100 * chosen['validation']:.1f}% on validation."
    )
    return f"{markdown_table([f'{float(weight):g}' for weight in result['balance_mean']], rows)}\n\n{told}\n\n{source(result)}"


def standings_table() -> str:
    """Returns each agent's accuracy over the split test, after the last window and at equal compute."""
    result = measured("claims")
    equal = result["accuracy_at_equal_compute"]
    order = sorted(_standing(result), key=lambda agent: -equal[agent])
    rows = [(f"`{agent}`", f"{equal[agent]:.1f}", f"{result['accuracy'][agent]:.1f}") for agent in order]
    table = markdown_table(("agent", "at equal compute, %", "after the last window, %"), rows)
    return f"{table}\n\n{result['num_seeds']} seeds of each instance. {source(result)}"


def _standing(result: dict[str, Any]) -> list[str]:
    """Returns the agents without the sweep of fixed ratios, which has a table of its own: its ends and its best one stand for it."""
    ends = {"fixed:0", "fixed:1", result["single_fixed"]}
    return [agent for agent in result["accuracy"] if not agent.startswith("fixed:") or agent in ends]


def wins_table() -> str:
    """Returns how many points controllers are above what they must beat at equal compute."""
    result = measured("claims")
    told, standing = result["a_at_equal_compute"], _standing(result)
    others = [other for other in dict.fromkeys(other for one in told.values() for other in one) if other in standing]
    rows = [
        (f"`{agent}`", *(_interval(against[other]) if other in against else "-" for other in others))
        for agent, against in told.items()
    ]
    return markdown_table(("points above", *(f"`{other}`" for other in others)), rows)


def branches_table() -> str:
    """Returns how many points controllers without branches are above lookahead after the last window."""
    told = measured("claims")["b_without_branches"]
    rows = [(f"`{agent}`", *map(_interval, against.values())) for agent, against in told.items()]
    (lookahead,) = {other for against in told.values() for other in against}
    return markdown_table(("points above", f"`{lookahead}`"), rows)


def by_instance_table() -> str:
    """Returns each agent's accuracy on each instance of the split test; best ones, and what may be as good, in bold."""
    told = measured("claims")["instances"]
    agents = list(dict.fromkeys(agent for one in told.values() for agent in one["agents"]))
    rows = [
        (f"`{name}`", *(_accuracy(one["agents"][agent]) if agent in one["agents"] else "-" for agent in agents))
        for name, one in told.items()
    ]
    return markdown_table(("instance", *(f"`{agent}`" for agent in agents)), rows)


def fixed_table() -> str:
    """Returns the accuracy of each fixed ratio on each instance of the split test; best ones, and what may be as good, in bold."""
    told = measured("claims")["fixed"]
    ratios = list(next(iter(told.values()))["agents"])
    rows = [(f"`{name}`", *(_accuracy(one["agents"][ratio]) for ratio in ratios)) for name, one in told.items()]
    return markdown_table(("instance", *(ratio.removeprefix("fixed:") for ratio in ratios)), rows)


def search_within_table() -> str:
    """Returns what a search within each run reaches and spends, beside agents of its runs' seeds."""
    rows = [
        (
            f"`{agent}`" if "search_above" in one else "search within each run",
            f"{one['accuracy']:.1f}",
            _interval(one["search_above"]) if "search_above" in one else "-",
            f"{one['updates']:.0f}",
            f"{one['tokens']:,.0f}",
        )
        for agent, one in measured("claims")["search_within"].items()
    ]
    return markdown_table(("agent", "accuracy, %", "search above it", "updates", "tokens sampled"), rows)


def random_search_table() -> str:
    """Returns what random search over staged schedules reaches with the oracle's windows."""
    result = measured("random_search")
    rows = [
        (
            f"`{name}`",
            f"{one['windows_of_the_oracle']}",
            f"{one['windows_spent']}",
            f"{one['oracle']['mean']:.1f}",
            f"{one['random_search']['mean']:.1f}",
            _interval(one["difference"]),
        )
        for name, one in result["instances"].items()
    ]
    headers = (
        "instance",
        "windows, oracle",
        "windows, random search",
        "oracle, %",
        "random search, %",
        "oracle above it",
    )
    return f"{markdown_table(headers, rows)}\n\n{source(result)}"


def surrogates_table() -> str:
    """Returns how far the packaged surrogates are off on held-out seeds, by instance: one window ahead, and whole runs."""
    result = measured("bench_surrogates")
    rows = []
    for name, told in result["instances"].items():
        nll, reward = (_line(told, quantity) for quantity in ("probe/nll", "reward/total"))
        whole = told["whole_run"]
        rows.append(
            (
                f"`atesd-bench/{name}`",
                str(told["num_runs"]),
                f"{nll['rmse']:.3f} ({nll['skill']:.2f})",
                f"{reward['rmse']:.3f} ({reward['skill']:.2f})",
                f"{whole['final_nll_rmse']:.3f}",
                f"{whole['final_nll_mean_rmse']:.3f}",
            )
        )
    headers = (
        "surrogate",
        "runs",
        "probe NLL (skill)",
        "reward (skill)",
        "last NLL of a run",
        "mean of the other runs",
    )
    return f"{markdown_table(headers, rows)}\n\n{source(result)}"


def surrogate_features_table() -> str:
    """Returns the surrogates' error of each feature one window ahead, over instances."""
    instances = list(measured("bench_surrogates")["instances"].values())
    rows = []
    for name in (line["quantity"] for line in instances[0]["errors"]):
        lines = [_line(told, name) for told in instances]
        skills = [line["skill"] for line in lines if line["skill"] is not None]
        errors = (median(line[label] for line in lines) for label in ("rmse", "persistence_rmse", "window_mean_rmse"))
        skill = f"{median(skills):.2f} [{min(skills):.2f}, {max(skills):.2f}]" if skills else "-"
        rows.append((f"`{name}`", *(f"{error:.3f}" for error in errors), skill))
    return markdown_table(("quantity", "error", "next = present", "mean of the window", "skill [worst, best]"), rows)


def _line(told: dict[str, Any], quantity: str) -> dict[str, float]:
    """Returns a surrogate's errors of one quantity."""
    found: dict[str, float] = next(line for line in told["errors"] if line["quantity"] == quantity)
    return found


def credit_table() -> str:
    """Returns what ratios end at that the first window and the discounted progress would choose."""
    rows = [
        (
            f"`{name}`",
            f"{one['first window']:.1f}",
            f"{one['discounted']:.1f}",
            f"{one['best ratio']:.1f}",
            _interval(one["difference"]),
        )
        for name, one in measured("claims")["e_credit"].items()
    ]
    return markdown_table(
        ("instance", "one window's drop", "discounted progress", "best ratio", "discounted minus one window"), rows
    )


def paper_picture_table() -> str:
    """Returns accuracy and mismatch by fixed ratio on the instances of the paper's picture."""
    rows = []
    for name, one in measured("claims")["f_sweep"].items():
        fixed = list(one["mismatch"])
        rows.append((f"`{name}`, accuracy, %", *(_accuracy(one["agents"][agent]) for agent in [*fixed, "random"])))
        rows.append(("mismatch, nats a token", *(f"{one['mismatch'][agent]['mean']:.3f}" for agent in fixed), "-"))
    return markdown_table(("", *(f"`{agent}`" for agent in fixed), "`random`"), rows)


def _accuracy(told: dict[str, Any]) -> str:
    """Returns a mean, in bold where it is the best one, or the interval of its difference to that reaches 0."""
    is_worse = told["to_best"][2] < 0  # NaN of the best one itself
    return f"{told['mean']:.1f}" if is_worse else f"**{told['mean']:.1f}**"


def _interval(told: dict[str, float]) -> str:
    return "{mean:+.1f} [{low:.1f}, {high:.1f}]".format(**told)


def gsm8k_branches_table() -> str:
    """Returns what SmolLM2's branches showed by ratio, as measured: in their first window, and in NLL over all of theirs."""
    result = measured("gsm8k_branches")
    at = result["common_windows"]
    runs = result["runs"].values()

    def by_seed(ratio: str, form: str, tell: Callable[[dict[str, list[float]]], float]) -> str:
        return ", ".join(format(tell(run["branches"][ratio]), form) for run in runs)

    rows = [
        (
            ratio,
            by_seed(ratio, ".3f", lambda its: its["student/mismatch"][at]),
            by_seed(ratio, ".3f", lambda its: sum(its["student/mismatch"][at:]) / len(its["student/mismatch"][at:])),
            by_seed(ratio, ".3f", lambda its: its["probe/grounded"][at]),
            by_seed(ratio, "+.4f", lambda its: its["probe/nll"][at] - its["probe/nll"][at - 1]),
            by_seed(ratio, "+.4f", lambda its: its["probe/nll"][-1] - its["probe/nll"][at - 1]),
        )
        for ratio in next(iter(runs))["branches"]
    ]
    headers = (
        "ratio",
        "mismatch, same rollouts",
        f"mean of {result['fields']['windows'] - at} windows",
        "grounded",
        "probe NLL, one window",
        "at the end",
    )
    seconds = sum(run["cpu_sec"] for run in runs)
    return f"{markdown_table(headers, rows)}\n\n{source(result)} It took {seconds / 60:.0f} CPU minutes."
