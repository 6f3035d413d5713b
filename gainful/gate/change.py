"""Notice that what once paid does harm now: an e-detector for a change for the worse.

For a stake lambda, M_t = (M_{t-1} + 1) (1 - lambda (D_t + margin)), M_0 = 0; we take the mean over the stakes of
``e_process``.  While E[D] >= -margin, M_t - t never grows on average, so an alarm at M >= c comes no sooner than after
c values on average (Shin, Ramdas & Rinaldo 2024, New England Journal of Statistics in Data Science 2, 229-260).
"""

from __future__ import annotations

from collections.abc import Iterable

from gainful.gate.e_process import STAKES

LARGEST = 1e12  # beyond any alarm; a cap keeps M finite, and lets good values after a long bad time count soon


def evidence_of_harm(differences: Iterable[float], margin: float = 0.0) -> float:
    """Return M after *differences*, each in [-1, 1], oldest first; *margin* is in [0, 1).

    >>> evidence_of_harm([]), round(evidence_of_harm([-1.0] * 20)), round(evidence_of_harm([1.0] * 20), 1)
    (0.0, 49658, 4.6)
    """
    held = [0.0] * len(STAKES)
    stakes = [stake / (1.0 + margin) for stake in STAKES]
    for case, difference in enumerate(differences):
        if not -1.0 <= difference <= 1.0:
            raise ValueError(f"pair {case}: difference {difference!r} is outside [-1, 1]; scores must lie in [0, 1]")
        loss = difference + margin
        held = [min((m + 1.0) * (1.0 - stake * loss), LARGEST) for m, stake in zip(held, stakes, strict=True)]
    return sum(held) / len(held)
