"""The band around quality over time: an anytime-valid interval for the mean so far, from counts and sums alone.

Scores y in [0, 1] come in buckets; after each bucket we know n, their number so far, and S, their sum.  For a lambda,

    exp(lambda S - n psi(lambda, m)),   psi(lambda, m) = log(1 - m + m e^lambda)

psi is the largest log E[exp(lambda y)] that a score of mean m can have (a pass/fail one has it), and it is concave in
m.  So with m_n the running average of the scores' means, each given all scores before it, the process lies below a
supermartingale that starts at 1, though the means change: it ever reaches 1/a with probability at most a.  Solved:

    m_n >= (exp((lambda S - log(1/a)) / n) - 1) / (e^lambda - 1)    for all n at once, but for probability a

The lower bound is the best over lambda = 4, 2, 1, 1/2, ... with a_k = (level/2) / (k (k + 1)), which sum to half the
level; the upper bound is that of 1 - y.  No score is looked at twice, so a thousand buckets take milliseconds
(Howard, Ramdas, McAuliffe & Sekhon 2021, Annals of Statistics 49, 1055-1080, for the sub-Bernoulli process and the
geometric grid).

What it covers: with probability at least 1 - level, at the ends of all buckets at once, the average so far of the true
pass rate, even where that drifts or reacts to what was served.  Not the rate of the moment: start a band anew with
every champion.  Graded scores are covered too, more widely than need be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gainful.gate.level import exact

LARGEST_TILT = 4.0  # bets on odds e^4 times those supposed: the best for a handful of scores
TILTS = 18  # halvings of it; the last is the best for 10^9 scores and more


class Band(NamedTuple):
    """The mean score so far and its interval, after ``n`` scores; the mean is ``None`` before the first."""

    n: int
    mean: float | None
    low: float
    high: float


def running_band(buckets: Iterable[tuple[int, float]], level: float = 0.05) -> Iterator[Band]:
    """Yield the band after each bucket, given as the number of its scores and their sum.

    Raises ``ValueError`` for a sum that so many scores in [0, 1] cannot have.

    >>> [(round(b.low, 3), round(b.high, 3)) for b in running_band([(100, 80), (0, 0), (9_900, 7_920)])]
    [(0.636, 0.914), (0.636, 0.914), (0.784, 0.816)]
    """
    limits = [math.log(k * (k + 1) * 2 / float(exact(level))) for k in range(1, TILTS + 1)]
    tilts = [(LARGEST_TILT / 2**k, limit) for k, limit in enumerate(limits)]
    n, total = 0, 0.0
    for number, (count, score) in enumerate(buckets):
        if count < 0 or not 0.0 <= score <= count:
            raise ValueError(f"bucket {number}: {count!r} scores cannot sum to {score!r}; each must lie in [0, 1]")
        n, total = n + count, total + score
        if n == 0:
            yield Band(0, None, 0.0, 1.0)
        else:
            yield Band(n, total / n, _lower(n, total, tilts), 1.0 - _lower(n, n - total, tilts))


def _lower(n: int, total: float, tilts: list[tuple[float, float]]) -> float:
    """Return the best lower bound over *tilts*, pairs of a lambda and log(1/a); 0 where none says more."""
    return max(0.0, *(math.expm1((tilt * total - limit) / n) / math.expm1(tilt) for tilt, limit in tilts))
