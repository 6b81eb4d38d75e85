"""Two expressions by computer algebra; runs in the worker processes of `verification` and nowhere else.

math-verify rounds: to it 1/2^98 equals 1/2^99, and 1/3 equals 0.333333. What it finds equal is looked at again with 60 digits,
relative to the size of the values, at some points where variables are in it.
"""

from __future__ import annotations

from typing import Any

_DIGITS = 60
_TOLERANCE_EXACT = 1e-30
# A decimal that stands inside an expression, such as 0.1x, is a binary number of 53 bits to computer algebra.
_TOLERANCE_DECIMAL = 1e-12
_POINTS = ((17, 13), (-23, 7), (5, 11))
"""Variable number i takes numerator / denominator + i: values at which unlike expressions of answers differ."""


def are_equal(first: str, second: str) -> bool:
    r"""Returns whether two expressions in LaTeX (without a box) are equal, the same in both orders.

    >>> are_equal(r"\sqrt{8}", r"2\sqrt{2}"), are_equal(r"\frac{1}{2^{98}}", r"\frac{1}{2^{99}}")
    (True, False)
    """
    import math_verify

    left, right = (_parsed(text) for text in (first, second))
    if not any(math_verify.verify(*pair, timeout_seconds=None) for pair in ((right, left), (left, right))):
        return False
    return not _differ(left[0], right[0]) if left and right else False


def _parsed(text: str) -> Any:
    """Returns what math-verify makes of it: an expression and the text; ``i``, a variable to it, is the imaginary unit to us."""
    import math_verify
    from sympy import Expr, I

    parsed = math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=None)
    if parsed and isinstance(parsed[0], Expr):
        units = {symbol: I for symbol in parsed[0].free_symbols if symbol.name == "i"}
        return [parsed[0].subs(units), *parsed[1:]]
    return parsed


def _differ(first: Any, second: Any) -> bool:
    """Whether two parsed expressions have different values at some point; False where that cannot be told."""
    from sympy import Expr, MatrixBase

    if isinstance(first, MatrixBase) and isinstance(second, MatrixBase) and first.shape == second.shape:
        return any(_differ(*pair) for pair in zip(first.flat(), second.flat(), strict=True))
    if not isinstance(first, Expr) or not isinstance(second, Expr):
        return False
    try:
        return any(_differ_at(first, second, point) for point in _POINTS)
    except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
        return False  # sums, integrals and the like without a value: math-verify's verdict stands


def _differ_at(first: Any, second: Any, point: tuple[int, int]) -> bool:
    from sympy import Float, Rational

    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    values = {symbol: Rational(*point) + index for index, symbol in enumerate(symbols)}
    left, right = first.subs(values).doit(), second.subs(values).doit()
    tolerance = _TOLERANCE_DECIMAL if left.has(Float) or right.has(Float) else _TOLERANCE_EXACT
    difference, size = abs((left - right).evalf(_DIGITS)), max(abs(left.evalf(_DIGITS)), abs(right.evalf(_DIGITS)))
    return bool(difference > tolerance * size)
