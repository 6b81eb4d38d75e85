"""Instances and sets of them: what a controller is judged on, as files that say what differs and why. No torch.

A set is a JSON file, packaged or one's own::

    {"format_version": 1, "name": "mine", "version": "1", "description": "...", "env": "ATESD-Tiny-v0",
     "fields": {"windows": 9, "hold_window": 4},
     "instances": [{"id": "x-4", "split": "train", "why": "...", "fields": {"learning_rate": 0.003}}, ...]}

An instance's configuration is that of ``env``, with the set's ``fields`` and then its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, get_args

from atesd_env.bench.seeds import Split
from atesd_env.config import BenchConfig, RunConfig, SurrogateConfig, preset
from atesd_env.errors import ConfigError, DataError
from atesd_env.files.atomic import write_atomically
from atesd_env.files.reading import read_json, reading
from atesd_env.hints import did_you_mean

ENV_ID = "ATESD-Bench-v0"
"""The id under which Gymnasium knows the bench."""
FORMAT_VERSION = 1
"""Version of the layout of a set's file."""

PACKAGED = Path(__file__).parents[1] / "assets" / "instances"
"""The packaged sets, NAME.json each."""

MOST_WINDOWS = 100
"""Windows of the longest episode that a set may have: ``gymnasium.make`` cuts after the id's ``max_episode_steps``."""

SPLITS: tuple[Split, ...] = get_args(Split)
"""What instances and seeds are split into."""

_ID = re.compile(r"[a-z0-9][a-z0-9._-]*")
_SET_ENTRIES = ("format_version", "name", "version", "description", "env", "fields", "instances")


@dataclass(frozen=True)
class Instance:
    """What an episode is drawn from: a student, its problems and the settings of its updates.

    Attributes:
        id: Its name, lower case; a folder can be called so.
        split: "train", "validation" or "test".
        why: A sentence on why it is there.
        fields: Fields of the configuration in which it differs from the set's others.
    """

    id: str
    split: Split
    why: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class InstanceSet:
    """Instances in their order, with the configuration of each; ``set["x-4"]`` is one of them.

    Attributes:
        name: Its name.
        version: Of its content; a number that is compared with another must come from the same one.
        description: What it is for.
        env: Id of the environment whose configuration its instances begin from.
        fields: Fields of the configuration that all of them share.
        instances: The instances.
        source: What messages call it: its name, or its file.

    Raises:
        ConfigError: If the set is empty, an id is taken twice, or an instance's fields are refused; the message names it.
    """

    name: str
    version: str
    description: str
    env: str
    fields: Mapping[str, Any]
    instances: tuple[Instance, ...]
    source: str = field(default="instance set", compare=False)

    def __post_init__(self) -> None:
        if not self.instances:
            raise ConfigError(f"{self.source}: expected at least one instance, got none; write one.")
        try:
            base = preset(self.env)
        except ConfigError as error:
            raise ConfigError(f"{self.source}: {error}") from error
        if isinstance(base, BenchConfig | SurrogateConfig):
            raise ConfigError(
                f"{self.source}: expected an environment whose configuration says everything, got {self.env}; take another."
            )
        for place, instance in enumerate(self.instances):
            if instance.id in (other.id for other in self.instances[:place]):
                raise ConfigError(f"{self.source}: expected each id once, got {instance.id!r} twice; rename one.")
            self._check(instance, base)

    def __len__(self) -> int:
        return len(self.instances)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.instances)

    def __getitem__(self, instance_id: str) -> Instance:
        for instance in self.instances:
            if instance.id == instance_id:
                return instance
        ids = [instance.id for instance in self.instances]
        hint = did_you_mean(str(instance_id), ids, f"there are {', '.join(ids)}.")
        raise ConfigError(f"instance: expected one of {self.source}, got {instance_id!r}; {hint}")

    @property
    def groups(self) -> int:
        """Most difficulty groups of an instance."""
        return max(self.config(instance.id).groups for instance in self.instances)

    @property
    def windows(self) -> int:
        """Windows of the longest episode."""
        return max(self.config(instance.id).windows for instance in self.instances)

    @property
    def fingerprint(self) -> str:
        """Sixteen letters that change with anything that a run of the set depends on."""
        content = self.content()
        told = {name: content[name] for name in ("env", "fields", "instances")}
        for instance in told["instances"]:
            del instance["why"]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def config(self, instance_id: str, **shared: Any) -> RunConfig:
        """Returns the whole configuration of an instance.

        Args:
            instance_id: Its id.
            **shared: Fields to change, the same for all instances, such as the reward's.

        Raises:
            ConfigError: If there is no such instance.
        """
        return preset(self.env, **{"progress": "signed", **self.fields, **self[instance_id].fields, **shared})

    def of(self, split: Split) -> tuple[Instance, ...]:
        """Returns the instances of a split.

        Raises:
            ConfigError: If there is no such split, or nothing in it.
        """
        found = tuple(instance for instance in self.instances if instance.split == split)
        if not found:
            there = sorted({instance.split for instance in self.instances}, key=SPLITS.index)
            raise ConfigError(
                f"split: expected one that {self.source} has instances in ({', '.join(there)}), got {split!r}; choose one of these."
            )
        return found

    def content(self) -> dict[str, Any]:
        """Returns what its file holds."""
        own = {name: getattr(self, name) for name in ("name", "version", "description", "env")}
        instances = [
            {"id": one.id, "split": one.split, "why": one.why, "fields": dict(one.fields)} for one in self.instances
        ]
        return {"format_version": FORMAT_VERSION, **own, "fields": dict(self.fields), "instances": instances}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the set's file.

        Raises:
            RunFilesError: If it cannot be written.
        """
        write_atomically(Path(path), (json.dumps(self.content(), indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> Self:
        """Returns a packaged set by its name, or that of a file (whose name ends in .json).

        Raises:
            ConfigError: If there is no such set, or its content is refused.
        """
        if Path(name).suffix == ".json":
            return cls.from_file(name)
        packaged = sorted(path.stem for path in PACKAGED.glob("*.json"))
        if name not in packaged:
            hint = did_you_mean(str(name), packaged, f"packaged are {', '.join(packaged)}.")
            raise ConfigError(f"instances: expected a packaged set or a .json file, got {os.fspath(name)!r}; {hint}")
        return cls.from_file(PACKAGED / f"{name}.json", source=str(name))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, source: str | None = None) -> Self:
        """Returns the set that a file holds.

        Args:
            path: The file.
            source: What messages call it; None is its path.

        Raises:
            DataError: If it cannot be read, or is no instance set's.
            ConfigError: If its content is refused.
        """
        source = os.fspath(path) if source is None else source
        with reading(source, "an instance set", DataError, remedy="correct it there"):
            content = read_json(Path(path).expanduser())
        return cls.from_content(content, source)

    @classmethod
    def from_content(cls, content: Any, source: str = "instance set") -> Self:
        """Returns the set that ``content`` told.

        Raises:
            DataError: If entries are missing, unknown or of another kind.
            ConfigError: If its content is refused.
        """
        told = _entries(content, _SET_ENTRIES, source)
        if told["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{source}: expected format_version {FORMAT_VERSION}, got {told['format_version']!r}; take a set of this version."
            )
        if not isinstance(told["instances"], list):
            raise DataError(f"{source}: expected a list of instances, got {told['instances']!r}; write one.")
        names = tuple(one.name for one in dataclasses.fields(Instance))
        instances = [
            Instance(**_entries(one, names, f"{source}, instance {place}"))
            for place, one in enumerate(told["instances"], start=1)
        ]
        own = {name: str(told[name]) for name in ("name", "version", "description", "env")}
        return cls(**own, fields=told["fields"], instances=tuple(instances), source=source)

    def _check(self, instance: Instance, base: RunConfig) -> None:
        """Raises ConfigError, which names it, unless an instance can be made of the set's environment."""
        where = f"{self.source}, instance {instance.id!r}"
        if not isinstance(instance.id, str) or not _ID.fullmatch(instance.id):
            raise ConfigError(f"{where}: expected an id of a-z, 0-9 and . _ -, got {instance.id!r}; rename it.")
        if instance.split not in SPLITS:
            raise ConfigError(
                f"{where}: expected a split out of {SPLITS}, got {instance.split!r}; choose one of these."
            )
        if not isinstance(instance.why, str) or not instance.why.strip():
            raise ConfigError(f"{where}: expected a sentence on why it is there, got {instance.why!r}; write one.")
        alike = sorted(set(base.names("is_carrying_out")) & set(instance.fields))
        if alike:
            raise ConfigError(
                f"{where}: expected fields in which instances may differ, got {', '.join(alike)}: all of them are carried out alike; "
                "move it to the set's fields."
            )
        paid = sorted(set(base.names("is_reward")) & {*self.fields, *instance.fields})
        if paid:
            raise ConfigError(
                f"{where}: expected fields of the student and its problems, got {', '.join(paid)}, of the reward; give it to "
                "gymnasium.make instead, for all instances alike."
            )
        try:
            windows = self.config(instance.id).windows
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        if windows > MOST_WINDOWS:
            raise ConfigError(
                f"{where}: expected windows up to {MOST_WINDOWS}, the id's max_episode_steps, got {windows}; make fewer and longer "
                "ones."
            )


def _entries(content: Any, names: tuple[str, ...], where: str) -> dict[str, Any]:
    """Returns a JSON object's entries, which must be exactly these."""
    if not isinstance(content, dict):
        raise DataError(
            f"{where}: expected an object with {', '.join(names)}, got {type(content).__name__}; write one."
        )
    for name in content:
        if name not in names:
            hint = did_you_mean(name, names, f"the entries are {', '.join(names)}.")
            raise DataError(f"{where}: expected one of its entries, got {name!r}; {hint}")
    missing = [name for name in names if name not in content]
    if missing:
        raise DataError(
            f"{where}: expected the entries {', '.join(names)}, got none for {', '.join(missing)}; add them."
        )
    if not isinstance(content.get("fields"), dict):
        raise DataError(f"{where}: expected fields as an object, got {content.get('fields')!r}; write {{}} for none.")
    return dict(content)
