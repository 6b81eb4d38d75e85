"""The public names of the packages, read from their source without importing it, and whether each is documented.

Public is what no underscore hides: modules, and in them classes, functions, methods and constants. A method counts as
documented where another class documents a method of that name: it then fulfils that contract. What a class's
attributes mean stands in the class's own docstring.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[2]
PACKAGES = ("atesd_env", "agents", "analysis", "atesd")
"""The packages, in the order of the reference."""


@cache
def loaded(package: str, root: Path = ROOT) -> griffe.Module:
    """Returns a package as its source says it."""
    module = griffe.load(package, search_paths=[str(root)], try_relative_path=False)
    assert isinstance(module, griffe.Module)
    return module


def public_modules(package: griffe.Module) -> Iterator[griffe.Module]:
    """Yields the package and its modules, by path, without the private ones."""
    yield package
    for name, member in sorted(package.members.items()):
        if not member.is_alias and member.is_module and not name.startswith("_"):
            assert isinstance(member, griffe.Module)
            yield from public_modules(member)


def undocumented(packages: Any) -> list[str]:
    """Returns the dotted paths of public names without a docstring, for packages as ``loaded`` returns them."""
    modules = [module for package in packages for module in public_modules(package)]
    classes = [member for module in modules for member in _own(module) if member.is_class]
    contracts = {
        method.name for owner in classes for method in _own(owner) if method.is_function and method.has_docstring
    }
    missing = [module.path for module in modules if not module.has_docstring]
    missing += [member.path for module in modules for member in _own(module) if not _is_documented(member)]
    missing += [
        method.path
        for owner in classes
        for method in _own(owner)
        if method.is_function and not method.has_docstring and method.name not in contracts
    ]
    return sorted(missing)


def _own(owner: Any) -> list[Any]:
    """Returns the public members that are defined here, not imported, modules aside."""
    return [
        member
        for name, member in owner.members.items()
        if not name.startswith("_") and not member.is_alias and not member.is_module
    ]


def _is_documented(member: Any) -> bool:
    return bool(member.has_docstring)


def unresolved_exports(package: griffe.Module) -> list[str]:
    """Returns names in a package's ``__all__`` that it does not have."""
    return [f"{package.path}.{name}" for name in package.exports or () if str(name) not in package.members]
