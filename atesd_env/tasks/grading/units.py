r"""Units of a final answer: what stands beside a value, in one name for all its spellings.

A unit may be left out (29 = 29 dollars), but two that are there must be the same: 5 km is not 5 m. Nothing is converted.
"""

from __future__ import annotations

import re

from atesd_env.tasks.grading.notation import TEXT_COMMAND

PERCENT = "%"
"""The unit of a percentage."""

_SPELLINGS = {
    "dollar": "$ usd USD dollar buck",
    "cent": "¢ cent",
    "euro": "€ eur EUR euro",
    "pound": "£ gbp GBP pound lb lbs",
    "rupee": "₹ rs rs. inr rupee",
    "yen": "¥ jpy yen",
    "km": "km kilometer kilometre",
    "m": "m meter metre",
    "cm": "cm centimeter centimetre",
    "mm": "mm millimeter millimetre",
    "inch": "in in. inch",
    "foot": "ft ft. foot feet",
    "yard": "yd yard",
    "mile": "mi mile",
    "second": "s sec second",
    "minute": "min minute",
    "hour": "h hr hour",
    "year": "yr year",
    "g": "g gram gramme",
    "kg": "kg kilogram kilo",
    "mg": "mg milligram",
    "ounce": "oz ounce",
    "l": "l L liter litre",
    "ml": "ml mL milliliter millilitre",
    "degree": r"^\circ deg degree",
    "radian": "rad radian",
    "mile/hour": "mph",
    "km/hour": "kph kmh kmph",
    "am": "am a.m a.m. AM A.M",
    "pm": "pm p.m p.m. PM P.M",
    "person": "person people persons",
    "child": "child children",
    "man": "man men",
    "woman": "woman women",
    PERCENT: "% percent",
}
_NAME_OF = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}

_POWER = r"(?:\^\{?[23]\}?)?"
_NO_UNIT = r"(?!(?:and|or|mod|choose|sin|cos|tan|cot|sec|csc|log|ln|sqrt|times|plus|minus|if|when|for|is)\b)"
_KNOWN = "|".join(re.escape(spelling) for spelling in sorted(_NAME_OF, key=len, reverse=True) if len(spelling) > 1)
# In plain text a unit is a known one, or behind a blank a word of three letters or a single letter of these: 5ab is a product.
_WORD = rf"{_NO_UNIT}(?=[A-Za-z]*[aeiouy])[A-Za-z]{{3,}}\.?"
_PLAIN = rf"(?:(?:{_KNOWN})(?![A-Za-z])|(?<= ){_WORD}|(?<= )[mgshLlNJWVAK](?![A-Za-z])|sq\.?(?= ?[a-z]))"
_PHRASE = rf"{_PLAIN}{_POWER}(?:(?:[ -]|/ ?)(?:{_PLAIN}|(?<=-){_WORD}){_POWER}|/[a-z]{_POWER})*"
_TEXT = rf"{TEXT_COMMAND}[^{{}}]*\}}(?:\^\{{?[23]\}}?)?"
_TEXTS = rf"(?:{_TEXT}|\\frac\{{{_TEXT}\}}\{{{_TEXT}\}})(?:(?:/|\\cdot)?{_TEXT})*"
_CIRCLE = r"\^\\circ(?: ?[CFNSEWR](?![A-Za-z]))?"
_TRAILING = re.compile(
    rf"(?P<core>.*?[\w.}})\]]) ?(?P<unit>{_CIRCLE}(?:{_TEXTS})?|%|[$€£¥₹¢]|(?<=\d)\'\'?|{_TEXTS})", re.DOTALL
)
_TRAILING_WORDS = re.compile(rf"(?P<core>.*?(?:[\d.}})]|\\pi))(?P<unit> ?{_PHRASE})", re.DOTALL)
_LEADING = re.compile(
    r"(?P<sign>[+-]?)(?:US)?(?P<unit>[$€£¥₹]|Rs\.?|USD|EUR|GBP) ?(?P<core>[+-]?[\d.(\\].*)", re.DOTALL
)


def split_unit(answer: str) -> tuple[str, str]:
    r"""Returns (value, unit) of an answer; the unit is "" where there is none.

    Args:
        answer: In one spelling (`notation`).

    >>> split_unit(r"5\text{km}"), split_unit("12 cm^2"), split_unit("29 miles per hour"), split_unit("2x")
    (('5', 'km'), ('12', 'cm^2'), ('29', 'mile/hour'), ('2x', ''))
    """
    if match := _LEADING.fullmatch(answer):
        core, unit = split_unit(f"{match['sign']}{match['core']}")
        own = unit_name(match["unit"])
        if unit in ("", own):
            return core, own
        return core, f"{own} {unit}"
    match = _TRAILING.fullmatch(answer) or _TRAILING_WORDS.fullmatch(answer)
    if match is None:
        return answer, ""
    scale, unit = _scaled(unit_name(match["unit"]))
    core = match["core"].strip()
    return (rf"{core}\times{scale}" if scale > 1 else core), unit


def unit_name(unit: str) -> str:
    r"""Returns one name for all spellings of a unit.

    >>> unit_name(r"\text{square meters}"), unit_name("feet"), unit_name("apples"), unit_name("km per hour")
    ('m^2', 'foot', 'apple', 'km/hour')
    """
    unit = re.sub(r"\\frac\{(" + _TEXT + r")\}\{(" + _TEXT + r")\}", r"\1/\2", unit)
    unit = re.sub(TEXT_COMMAND, " ", unit).replace(r"\cdot", " ").replace("^\\circ", " ^\\circ ")
    unit = re.sub(r"\^?\{([^{}]*)\}?|\}", lambda m: f"^{m[1]}" if m[1] else "", unit)
    unit = re.sub(r"\s+per\s+|\s*/\s*", " / ", unit.strip())
    words: list[str] = []
    power = ""
    for word in unit.replace("-", " ").split():
        bare = word.casefold().rstrip(".")
        if bare in ("square", "sq", "cubic", "cu"):
            power = "^2" if bare.startswith("s") else "^3"
        elif bare in ("squared", "cubed") and words:
            words[-1] += "^2" if bare == "squared" else "^3"
        elif bare not in ("of", "the", "a", "an"):
            words.append(_word_name(word) + power)
            power = ""
    return " ".join(words).replace(" / ", "/")


def _word_name(word: str) -> str:
    word, caret, power = word.partition("^") if word != r"^\circ" else (word, "", "")
    folded = word.casefold() if len(word) > 1 else word
    for spelling in (word, folded, folded.rstrip("."), _singular(folded)):
        if spelling in _NAME_OF:
            return _NAME_OF[spelling] + caret + power
    return _singular(folded.rstrip(".")) + caret + power


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word


def _scaled(unit: str) -> tuple[int, str]:
    """Returns what the words in front of a unit multiply by, and the unit: (10**6, "dollar") of "million dollar"."""
    scale, words = 1, unit.split(" ")
    while words and words[0] in _SCALES:
        scale *= _SCALES[words.pop(0)]
    return scale, " ".join(words)
