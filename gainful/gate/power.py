"""What a hold-out can show: how many cases a gain needs, which gain the cases can certify, and what is still possible.

All of it is planning, by the normal approximation: nothing here can promote, so nothing here can break a guarantee.

How many cases a gain needs depends on the *discordance*, the share of cases on which challenger and champion differ:
the variance of a difference in {-1, 0, 1} is discordance - gain^2.  Unless told otherwise we assume 0.3, or the gain
itself where that is more (every difference then is a win).  At the first level of a lifetime of alpha = 0.05, 90 %
power then needs about 370 cases for +10 points, 1,480 for +5 and 9,270 for +2.  A change that touches fewer cases
needs fewer; one that reshuffles half of the answers needs more.  Simulated with the real test and all its looks, the
power is 87 % where these figures say 90 % (benchmarks/gate.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from gainful.gate.level import exact

DISCORDANCE = 0.3  # two policies of one small model, measured between 0.2 and 0.4
FUTILE = 0.1  # below this chance of promotion the remaining cases are better kept
NORMAL = NormalDist()


@dataclass(frozen=True)
class Outlook:
    """An optimistic belief about the next difference: its mean and its mean square."""

    drift: float
    square: float

    @property
    def variance(self) -> float:
        return max(self.square - self.drift**2, 0.0)


def outlook(n: int, total: float, squares: float, margin: float = 0.0) -> Outlook:
    """Return the drift max(margin, mean + 2 standard errors) after *n* differences of this sum and sum of squares.

    One imagined difference of size 1 is added to the squares, so that a first look without a single discordant pair
    leaves a large gain possible.

    >>> outlook(12, total=0.0, squares=0.0).drift > 0.1
    True
    """
    mean = total / n
    square = (squares + 1.0) / (n + 1)
    drift = min(1.0, max(margin, mean + 2.0 * math.sqrt(max(square - mean**2, 0.0) / n)))
    return Outlook(drift, min(1.0, max(square, abs(drift))))


def conditional_power(needed: float, steps: int, mean: float, variance: float) -> float:
    """Return the chance that *steps* independent steps of this mean and variance sum to *needed* or more.

    >>> conditional_power(needed=10.0, steps=100, mean=0.1, variance=0.3)
    0.5
    """
    spread = math.sqrt(steps * variance)
    ahead = steps * mean - needed
    if spread == 0.0:
        return 1.0 if ahead >= 0.0 else 0.0
    return NORMAL.cdf(ahead / spread)


def cases_for(gain: float, level: float, power: float = 0.9, discordance: float = DISCORDANCE) -> int:
    """Return how many pass/fail pairs certify a true *gain* in (0, 1] with this *power* at this *level*.

    n = ((z_level * sqrt(q) + z_power * sqrt(q - gain^2)) / gain)^2 with q = max(discordance, gain), the sample size
    of the paired-proportions test (Connor 1987, Biometrics 43, 207-211); at least as many as an unbroken row of wins
    needs.

    >>> [cases_for(gain, 0.0127163392268) for gain in (0.10, 0.05, 0.02)]
    [367, 1480, 9269]
    """
    if not 0.0 < gain <= 1.0:
        raise ValueError(f"gain {gain!r} is outside (0, 1]; give it as a share, 0.05 for 5 points")
    if not 0.0 < power < 1.0:
        raise ValueError(f"power {power!r} is outside (0, 1); 0.9 is customary")
    if not 0.0 <= discordance <= 1.0:
        raise ValueError(f"discordance {discordance!r} is outside [0, 1]; it is a share of the cases")
    q = max(discordance, gain)
    z_level, z_power = -NORMAL.inv_cdf(float(exact(level))), NORMAL.inv_cdf(power)
    n = ((z_level * math.sqrt(q) + z_power * math.sqrt(max(q - gain**2, 0.0))) / gain) ** 2
    return max(math.ceil(n), _fewest_cases(level))


def certifiable_gain(size: int, level: float, power: float = 0.9, discordance: float = DISCORDANCE) -> float | None:
    """Return the smallest true gain that *size* pass/fail pairs certify with this *power*; ``None`` if none.

    The assumptions are those of ``cases_for``.  Rounded up to a tenth of a point.

    >>> certifiable_gain(240, 0.0127163392268)
    0.124
    >>> certifiable_gain(5, 0.0127163392268) is None
    True
    """
    if size < 1:
        raise ValueError(f"a hold-out of size {size!r} has no cases; give it at least one")
    if cases_for(1.0, level, power, discordance) > size:
        return None
    low, high = 0, 1000  # tenths of a point; low cannot be certified, high can
    while high - low > 1:
        middle = (low + high) // 2
        if cases_for(middle / 1000, level, power, discordance) > size:
            low = middle
        else:
            high = middle
    return high / 1000


def _fewest_cases(level: float) -> int:
    """Return the smallest n with 2^-n <= level: with fewer, not even an unbroken row of wins is evidence enough."""
    limit = exact(level)
    return (limit.denominator // limit.numerator - (limit.denominator % limit.numerator == 0)).bit_length()
