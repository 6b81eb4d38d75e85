"""``atesd fit-surrogate``: logged runs in, the file of ``ATESD-Surrogate-v0`` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from atesd.commands import shared
from atesd.console import say
from atesd_env.config.checks import checked_seed
from atesd_env.errors import ConfigError
from atesd_env.files.atomic import check_writable, is_own_file, make_parent


@dataclass(frozen=True)
class Command:
    """Fit a fast environment to logged runs of one configuration, and tell its errors on held-out runs.

    Then: gymnasium.make("ATESD-Surrogate-v0", file="surrogate.safetensors"). Runs of `random`, `linear:0:1`, `linear:1:0` and
    a grid of fixed ratios over several seeds tell most; the surrogate knows only where its runs have been, and says so in
    info["surrogate/is_extrapolating"] where it is asked beyond.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, or folders that hold some at any depth."""
    out: Path
    """The file to write."""
    families: tuple[str, ...] = ()
    """Families of models to choose from: linear, quadratic, varying, network; all, without any."""
    heldout_share: float = 0.2
    """Share of the runs that is set apart to measure errors on."""
    seed: int = 0
    """Seed of the choice of held-out runs."""
    overwrite: bool = False
    """Replace an existing file."""


def main(arguments: Sequence[str]) -> None:
    """``atesd fit-surrogate``.

    Raises:
        ConfigError: If the runs or an argument cannot be used.
        RunFilesError: If a file cannot be read or written.
    """
    command = tyro.cli(Command, args=list(arguments), prog="atesd fit-surrogate")
    checked_seed(command.seed)
    check_writable(command.out)
    if is_own_file(command.out) and not command.overwrite:
        raise ConfigError(f"out: expected a new file, got {command.out}, which is there; pass --overwrite or another.")
    from atesd.experiments.surrogate.data import find_runs, read_windows
    from atesd.experiments.surrogate.fitting import FAMILIES, fit

    windows, config, env_id = read_windows(find_runs(command.runs))
    surrogate = fit(
        windows,
        config,
        env_id,
        families=command.families or FAMILIES,
        heldout_share=command.heldout_share,
        seed=command.seed,
    )
    make_parent(command.out)
    surrogate.save(command.out)
    _show_report(surrogate.report)
    say(f"surrogate: {command.out}")


def _show_report(report: dict[str, Any]) -> None:
    table = shared.table_of(
        f"One window ahead on {report['num_heldout_runs']} held-out of {report['num_runs']} runs: root mean square error",
        ("quantity", "surrogate", "next = present", "mean of the window", "skill"),
    )
    for line in report["errors"]:
        table.add_row(
            line["quantity"],
            f"{line['rmse']:.4g}",
            f"{line['persistence_rmse']:.4g}",
            f"{line['window_mean_rmse']:.4g}",
            "-" if line["skill"] is None else f"{line['skill']:.2f}",
        )
    shared.show(table)
    whole = report["whole_run"]
    low, high = report["reveal_ratio_range"]
    say(
        "skill: 1 - (error / the better baseline's)^2; 1 is perfect, 0 no better than a baseline.\n"
        f"Whole runs foretold from their ratios alone: probe NLL at the end off by {whole['final_nll_rmse']:.4g} (the other "
        f"runs' mean: {whole['final_nll_mean_rmse']:.4g}).\n"
        f"Chosen: {report['chosen']['later']} ({report['chosen']['first']} for the first window). Reveal ratios seen: "
        f"{low:.3g} to {high:.3g}. Held-out windows flagged as extrapolation: {report['heldout_flagged_rate']:.2%}."
    )
