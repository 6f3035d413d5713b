"""What a test says: one record a look, and the decision.

Both tests look at the same fixed moments and speak in these words; the loop, the receipt and the report read
them.  Nothing here decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Decision: TypeAlias = Literal["promote", "continue", "stop"]

LOOKS_PERCENT = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)  # of the size; 5 % lets a huge gain through at once


@dataclass(frozen=True)
class Look:
    """The evidence after ``n`` pairs.

    ``statistic`` promotes from ``boundary`` on; ``None`` means that nothing can promote at this look.
    ``conditional_power`` is the chance, in [0, 1], that the rest of the cases would still promote if the true gain
    were at the optimistic end of what was seen; 1.0 once promoted, 0.0 once the cases are used up without it.
    """

    n: int
    wins: int
    losses: int
    statistic: float
    boundary: float | None
    conditional_power: float
    decision: Decision


@dataclass(frozen=True)
class Judgement:
    """The decision after every look reached so far; ``reason`` is one sentence for people."""

    decision: Decision
    looks: tuple[Look, ...]
    reason: str


def schedule(size: int) -> tuple[int, ...]:
    """Return after how many of *size* pairs to look: strictly increasing, the last look at *size*.

    Raises ``ValueError`` for a size below 1.

    >>> schedule(240)
    (12, 24, 48, 72, 96, 120, 144, 168, 192, 216, 240)
    >>> schedule(7)
    (1, 2, 3, 4, 5, 6, 7)
    """
    if size < 1:
        raise ValueError(f"a test of size {size!r} has no cases; give it at least one")
    return tuple(sorted({-(-size * percent // 100) for percent in LOOKS_PERCENT}))


def conclude(looks: Sequence[Look], size: int) -> Judgement:
    """Return the judgement that *looks* amount to; the last one carries the decision."""
    if not looks:
        return Judgement("continue", (), f"no look yet; the first comes after {schedule(size)[0]} of {size} cases")
    last = looks[-1]
    seen = f"after {last.n} of {size} cases: {last.wins} wins, {last.losses} losses"
    if last.decision == "promote":
        reason = f"promoted {seen}; the evidence, {last.statistic:.4g}, reached the boundary, {last.boundary:.4g}"
    elif last.decision == "continue":
        reason = f"undecided {seen}"
    elif last.n == size:
        reason = f"not promoted {seen}; the cases are used up"
    else:
        reason = f"not promoted {seen}; the chance that the rest would promote is {last.conditional_power:.1%}"
    return Judgement(last.decision, tuple(looks), reason)
