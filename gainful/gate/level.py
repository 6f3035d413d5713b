"""Levels: how much error may be spent, as numbers that every machine reads alike.

A level is a decimal number of at most 12 significant digits.  The float that carries it prints as that decimal,
so a level survives JSON, and a stranger on another platform computes with the very same number.  All rounding is
downward: what is spent never exceeds what was granted.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Context, Decimal
from fractions import Fraction

DIGITS = 12  # a float prints up to 15 significant decimal digits back unchanged; 12 leaves room


def cut(value: Decimal, digits: int = DIGITS) -> Decimal:
    """Return *value*, which is not negative, cut off (not rounded) after *digits* significant digits.

    >>> cut(Decimal("0.0127166666666666"))
    Decimal('0.0127166666666')
    """
    return Context(prec=digits, rounding=ROUND_DOWN).create_decimal(value)


def exact(level: float) -> Fraction:
    """Return the decimal number that *level* prints as, cut off after 12 significant digits.

    Raises ``ValueError`` for a level outside (0, 1).

    >>> exact(0.05)
    Fraction(1, 20)
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level {level!r} is outside (0, 1); a level is a probability of error such as 0.05")
    return Fraction(cut(Decimal(repr(float(level)))))
