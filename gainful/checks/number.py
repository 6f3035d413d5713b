"""Is the answer the target's number?"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from gainful.core import Answer, Case, CheckError, JsonObject, Score, TaskError

_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,300}(?:\.[0-9]{0,300})?|\.[0-9]{1,300})(?:[eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class Number:
    """Score 1 where |answer - target| <= ``tolerance``, else 0; unknown where the case has no target.

    Both sides are JSON numbers, or texts that hold one decimal number with nothing but blanks around it; commas
    are dropped ("1,250.5", "-3e2").  They and the tolerance are compared as the exact decimals that they are
    written as (a float by its shortest digits), so 0.3 is within 0.1 of 0.2.  Numbers of more than 300 digits before
    or after the point, or with an exponent of more than three, are none.  Groups: "no number" where the answer's
    value is none, else "wrong value".  Raises ``TaskError`` for a tolerance that is negative or not finite.
    """

    tolerance: float = 0.0

    name: ClassVar[str] = "number"
    trusted: ClassVar[bool] = True
    needs_target: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (self.tolerance >= 0.0 and math.isfinite(self.tolerance)):
            raise TaskError(f"check 'number' has tolerance {self.tolerance!r}; it must be a number from 0 up")

    @property
    def spec(self) -> JsonObject:
        """Kind and settings."""
        return {"kind": self.name, "tolerance": self.tolerance}

    def __call__(self, case: Case, answer: Answer) -> Score | None:
        """Judge one answer; raises ``CheckError`` for a target that is no number."""
        if case.target is None:
            return None
        target, value = exact(case.target), exact(answer.value)
        if target is None:
            raise CheckError(f"the target is {case.target!r}; the check 'number' needs a number")
        if value is None:
            return Score(0.0, "The reply holds no number; end it with the number.", "no number")
        if abs(value - target) <= Fraction(repr(self.tolerance)):
            return Score(1.0)
        return Score(0.0, "The number is not right.", "wrong value")


def exact(value: Any) -> Fraction | None:
    """Return the number that *value* is or spells, exactly, ``None`` where it is none.

    >>> exact(0.1), exact("1,250.5"), exact("ten"), exact(True)
    (Fraction(1, 10), Fraction(2501, 2), None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = value.replace(",", "") if isinstance(value, str) else repr(value)
    match = _DECIMAL.fullmatch(text.strip())
    return Fraction(match[0]) if match else None
