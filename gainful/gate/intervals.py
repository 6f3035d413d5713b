"""Confidence intervals: at a fixed number of cases, and at any moment a test may choose to stop.

``level`` is always the probability of missing the truth: 0.05 gives 95 % confidence.  No interval here rests on a
normal approximation; each holds at every number of cases.

Means are bounded by betting (Waudby-Smith & Ramdas 2024, JRSS B 86, 1-27, section 4).  For a supposed mean m of
values y in [0, 1], stake on every value that the mean is higher:

    K_t(m) = prod_{i <= t} (1 + min(l_i, 3/(4m)) (y_i - m)),   l_i = sqrt(2 log(1/level) / (v_i * h_i))

v_i is a running variance of the values before the i-th, so the stake never looks ahead, and h_i = (i + 0.3 size)/1.3
is the horizon it plays for.  If the mean is m or less, K(m) ever reaches 1/level with probability at most level (Ville
1939).  K_t(m) falls in m, so the lower bound is the largest m that was rejected *at any time so far*: a confidence
sequence, never loosened by later bad luck.

Any choice of h_i known beforehand is valid.  This one was the tightest over early and late stops; see
docs/notes/certified-bound.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gainful.gate.level import exact

LARGEST_STAKE = 0.75  # share of the money at risk on one value: keeps a quarter after the worst, as the paper suggests
HEAD_START = 0.3  # in sizes: the stakes of the first cases are those fit for 0.3/1.3 of the whole
HALVINGS = 40  # a bound to 12 decimals


def lower_bound(differences: Sequence[float], level: float, size: int) -> float:
    """Return an anytime-valid lower bound on the mean of paired *differences*, each in [-1, 1].

    *size* is the number of cases planned beforehand, not the number at which one happened to stop: the stakes depend
    on it.  With probability at least 1 - level the true mean is no lower than the bounds of all moments at once, so the
    bound may be quoted where a test stopped.

    After a promotion quote max(margin, lower_bound(...)).  A test of E[D] <= margin at a level no larger than this one
    has rejected every mean up to the margin; betting rejects means above it.  Only the one of the two that tests the
    true mean can err, so nothing is paid for having both.

    >>> round(lower_bound([1, 0, 0, 1, 0, 0, 1, 0, -1, 0] * 24, level=0.05, size=240), 3)
    0.097
    """
    return _lowest_mean(_scaled(differences, -1.0, 1.0, size), level, size) * 2.0 - 1.0


def present_bound(differences: Sequence[float], level: float, size: int) -> float:
    """Return ``lower_bound`` as of the last difference alone: later bad luck loosens it again.

    Valid at all moments at once, as ``lower_bound`` is, and never above it.  It is for what must close again once the
    evidence turns, where ``lower_bound`` would stay.

    >>> good, bad = [1.0, 0.0] * 40, [-1.0, 0.0] * 50
    >>> round(lower_bound(good + bad, 0.05, 180), 2), round(present_bound(good + bad, 0.05, 180), 2)
    (0.37, -0.06)
    """
    return _lowest_mean(_scaled(differences, -1.0, 1.0, size), level, size, at_any_time=False) * 2.0 - 1.0


def interval(
    values: Sequence[float], level: float, size: int, low: float = 0.0, high: float = 1.0
) -> tuple[float, float]:
    """Return an anytime-valid interval for the mean of *values*, each in [low, high]; *size* as in ``lower_bound``.

    Half of the level goes to either side.

    >>> low, high = interval([1, 0, 0, 1, 1] * 20, level=0.05, size=100)
    >>> round(low, 3), round(high, 3)
    (0.443, 0.724)
    """
    scaled, half = _scaled(values, low, high, size), float(exact(level)) / 2
    bottom = _lowest_mean(scaled, half, size)
    top = 1.0 - _lowest_mean([1.0 - y for y in scaled], half, size)
    return low + bottom * (high - low), low + top * (high - low)


def mean_interval(scores: Sequence[float], level: float) -> tuple[float, float]:
    """Return an interval for the mean of graded *scores* in [0, 1], for a number of cases fixed beforehand.

    For scores known beforehand to be pass or fail ``proportion_interval`` is shorter.  It depends a little on the
    order of the scores, which must not be chosen by them.

    >>> low, high = mean_interval([0.5, 0.25, 1.0, 0.75] * 10, level=0.05)
    >>> round(low, 3), round(high, 3)
    (0.507, 0.743)
    """
    return interval(scores, level, len(scores))


def proportion_interval(passed: int, n: int, level: float) -> tuple[float, float]:
    """Return the exact interval for a pass rate of which *passed* of *n* were seen (Clopper & Pearson 1934).

    >>> low, high = proportion_interval(5, 10, level=0.05)
    >>> round(low, 6), round(high, 6)
    (0.187086, 0.812914)
    >>> proportion_interval(0, 10, level=0.05)[0]
    0.0
    """
    if not 0 <= passed <= n or n < 1:
        raise ValueError(f"{passed!r} passed of {n!r}; give at least one case and no more passes than cases")
    half = float(exact(level)) / 2
    return _lowest_rate(passed, n, half), 1.0 - _lowest_rate(n - passed, n, half)


def _scaled(values: Sequence[float], low: float, high: float, size: int) -> list[float]:
    """Return *values* mapped from [low, high] to [0, 1]."""
    if not 1 <= len(values) <= size:
        raise ValueError(f"{len(values)} values of {size} planned; give at least one and at most as many as planned")
    for case, value in enumerate(values):
        if not low <= value <= high:
            raise ValueError(f"value {case}: {value!r} is outside [{low:g}, {high:g}]; scores must lie in [0, 1]")
    return [(value - low) / (high - low) for value in values]


def _lowest_mean(values: Sequence[float], level: float, size: int, *, at_any_time: bool = True) -> float:
    """Return the largest mean of *values* in [0, 1] that betting rejected, at some time or at the end; 0 if none."""
    fortune = 1.0 / float(exact(level))
    stakes = _stakes(values, math.log(fortune), size)

    def rejected(mean: float) -> bool:
        money, cap = 1.0, LARGEST_STAKE / mean
        for value, stake in zip(values, stakes, strict=True):
            money *= 1.0 + min(stake, cap) * (value - mean)
            if at_any_time and money >= fortune:
                return True
        return money >= fortune

    return _largest(rejected)


def _stakes(values: Sequence[float], target: float, size: int) -> list[float]:
    """Return the stake on each value, from the values before it alone; *target* is log(1/level)."""
    total, squares = 0.5, 0.25  # one imagined value of 1/2, with the largest variance there is
    stakes = []
    for i, value in enumerate(values, start=1):
        horizon = (i + HEAD_START * size) / (1.0 + HEAD_START)
        stakes.append(math.sqrt(2.0 * target / (squares / i * horizon)))
        total += value
        squares += (value - total / (i + 1)) ** 2
    return stakes


def _lowest_rate(passed: int, n: int, level: float) -> float:
    """Return the largest p with P(Bin(n, p) >= passed) <= level, 0 if none passed."""
    if passed == 0:
        return 0.0
    log_ways = math.lgamma(n + 1) - math.lgamma(passed + 1) - math.lgamma(n - passed + 1)

    def rejected(rate: float) -> bool:
        odds = rate / (1.0 - rate)
        tail, term = 0.0, math.exp(log_ways + passed * math.log(rate) + (n - passed) * math.log1p(-rate))
        for k in range(passed, n + 1):
            if tail + term == tail:  # terms fall where the rate is below passed/n, which is where the answer lies
                break
            tail += term
            term *= (n - k) / (k + 1) * odds
        return tail <= level

    return _largest(rejected, passed / n)


def _largest(rejected: Callable[[float], bool], high: float = 1.0) -> float:
    """Return, from below, the largest number in (0, high) that is *rejected*, 0 if none is; it rejects all below it."""
    low = 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        if rejected(middle):
            low = middle
        else:
            high = middle
    return low
