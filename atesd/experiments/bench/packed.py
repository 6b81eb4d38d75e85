"""A submission as it is handed in: what ``score`` and ``validate`` read of its runs, in one file that any tar unpacks."""

from __future__ import annotations

import io
import lzma
import re
import tarfile
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from atesd.experiments.bench.plan import BENCH_FILE, SUBMISSION, read_bench_file
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.atomic import failing, is_own_file, make_parent, write_atomically
from atesd_env.files.description import read_description
from atesd_env.files.reading import open_regular, reading
from atesd_env.files.run_folder import CONFIG_FILE, TRAJECTORY_FILE

RUNS_FILE = "runs.tar.xz"
"""In a submission's folder, instead of the folders of its runs: their descriptions and rows."""
LARGEST = 256 * 2**20
"""Bytes that it may unpack to; eight seeds of the packaged set's twelve test instances take 1 to 3 MB an agent."""
MOST_MEMORY = 256 * 2**20
"""Bytes that unpacking it may take; what ``pack`` makes takes 65 MiB."""
MOST_FILES = 20_000
"""Files that it may unpack to."""

_NAME = rf"(?!\.)[^/\0]+/(?!\.)[^/\0]+/({re.escape(CONFIG_FILE)}|{re.escape(TRAJECTORY_FILE)})"


def pack(folder: Path, out: Path, agents: Collection[str] = (), *, overwrite: bool = False) -> int:
    """Packs the runs of a submission; the same runs give the same bytes.

    Args:
        folder: What ``atesd bench run`` made; left as it is.
        out: Folder of the packed one; made where it is missing.
        agents: Pack the runs of these only.
        overwrite: Replace runs that are packed there.

    Returns:
        How many runs there are in it.

    Raises:
        ConfigError: If there is no run of an agent.
        RunFilesError: If the folder is no submission, or ``out`` cannot be written to.
    """
    read_bench_file(folder)
    configs = sorted(folder.glob(f"*/*/{CONFIG_FILE}"))
    by = {config: str(read_description(config, "run", ["config"]).get("agent")) for config in configs}
    if missing := sorted(set(agents) - set(by.values())) or ([] if by else ["any agent"]):
        raise ConfigError(
            f"{folder}: expected runs of {', '.join(missing)}, got runs of {', '.join(sorted(set(by.values()))) or 'none'}; "
            "correct --agent."
        )
    SUBMISSION.check(out)
    if is_own_file(out / RUNS_FILE) and not overwrite:
        raise RunFilesError(
            f"{out}: expected a folder without packed runs, got {RUNS_FILE}; replace it with --overwrite."
        )
    kept = [config.parent for config, agent in by.items() if not agents or agent in agents]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz", preset=9) as archive:
        for path in (run / name for run in kept for name in (CONFIG_FILE, TRAJECTORY_FILE)):
            with failing(path, "a readable file"), open_regular(path) as file:
                raw = file.read()
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    make_parent(out / BENCH_FILE)
    write_atomically(out / BENCH_FILE, (folder / BENCH_FILE).read_bytes())
    write_atomically(out / RUNS_FILE, content.getvalue())
    return len(kept)


@contextmanager
def unpacked(folder: Path) -> Iterator[Path]:
    """Yields the folder that a submission's runs are in: its own, or where they are packed one for as long as they are read.

    Raises:
        RunFilesError: If what is packed is something else, or runs lie beside it.
    """
    path = folder / RUNS_FILE
    if not is_own_file(path):
        yield folder
        return
    if beside := sorted(folder.glob(f"*/*/{CONFIG_FILE}")):
        raise RunFilesError(
            f"{folder}: expected runs in folders or packed, got {RUNS_FILE} and {beside[0].parent.relative_to(folder)}; move one "
            "of them away."
        )
    with tempfile.TemporaryDirectory() as temporary:
        there = Path(temporary) / (folder.name or "submission")
        with reading(path, "runs that `atesd bench pack` packed"):
            for name, content in _files(path):
                (there / name).parent.mkdir(parents=True, exist_ok=True)
                (there / name).write_bytes(content)
            (there / BENCH_FILE).write_bytes((folder / BENCH_FILE).read_bytes())
        yield there


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yields names and contents of what is packed, all of it bounded before it is looked at."""
    try:
        unpacking = lzma.LZMADecompressor(memlimit=MOST_MEMORY)
        with open_regular(path) as file:
            content = unpacking.decompress(file.read(LARGEST), LARGEST)
        if not unpacking.eof:
            raise ValueError(f"more than {LARGEST:,} bytes in it, or no end")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for number, member in enumerate(archive):
                if not (member.isreg() and not member.issparse() and re.fullmatch(_NAME, member.name)):
                    raise ValueError(f"{member.name[:80]!r}, no {CONFIG_FILE} or {TRAJECTORY_FILE} of a run,")
                if number >= MOST_FILES:
                    raise ValueError(f"more than {MOST_FILES:,} files")
                file_of_it = archive.extractfile(member)
                assert file_of_it is not None  # what is regular has a content
                yield member.name, file_of_it.read()
    except (lzma.LZMAError, tarfile.TarError) as error:
        raise ValueError(str(error)) from error
