"""The test for graded scores, and for a margin: bet on every difference and see whether the money grows.

Take D in [-1, 1], challenger minus champion, and a margin delta in (-1, 1).  H0: E[D] <= delta.  For a fixed stake
lambda in [0, 1/(1 + delta)) the product of 1 + lambda (D_i - delta) is a non-negative supermartingale under H0 that
starts at 1, and so is the mean over several stakes:

    E_n = mean over lambda of prod_{i <= n} (1 + lambda (D_i - delta)),  lambda in {.05, .1, .2, .3, .5, .8}/(1 + delta)

It ever reaches 1/level with probability at most level (Ville 1939; Waudby-Smith & Ramdas 2024, JRSS B 86, 1-27).
When we look, and when we stop, is therefore free; the size serves the schedule and the futility rule alone.  For
cases without end, give the most you would pay for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from gainful.gate.judgement import Decision, Judgement, Look, conclude, schedule
from gainful.gate.level import exact
from gainful.gate.power import FUTILE, conditional_power, outlook

STAKES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)  # best for gains from about 1 to 30 points at the usual discordance
LARGEST_LOG = 690.0  # exp of it is a float still, so that evidence is always a finite number in a receipt
PRIOR = 10  # pseudo-wins and pseudo-losses of the Beta mixture: bets on a share of wins near 1/2 to 3/4


@dataclass(frozen=True)
class EProcess:
    """Test H0: E[difference] <= *margin* on at most *size* pairs, with P(promote | H0) <= *level*.

    Raises ``ValueError`` for a size below 1, a level outside (0, 1) or a margin outside (-1, 1).

    >>> EProcess(size=60, level=0.05).judge([0.9, 0.5, 0.4] * 20).decision
    'promote'
    """

    size: int
    level: float
    margin: float = 0.0

    def __post_init__(self) -> None:
        schedule(self.size)
        exact(self.level)
        if not -1.0 < self.margin < 1.0:
            raise ValueError(f"margin {self.margin!r} is outside (-1, 1); it is a difference of mean scores")

    @cached_property
    def looks(self) -> tuple[int, ...]:
        """After how many pairs we look: 5, 10, 20, 30, ..., 100 % of the size, rounded up."""
        return schedule(self.size)

    def judge(self, differences: Sequence[float]) -> Judgement:
        """Return the decision on *differences*, challenger minus champion in evaluation order, each in [-1, 1].

        Every look reached is evaluated until one decides; pairs after the deciding look change nothing.  Wins and
        losses count the differences above and below 0.  Raises ``ValueError`` for any other difference or for more of
        them than ``size``.
        """
        _validate(differences, self.size)
        looks: list[Look] = []
        logs = [0.0] * len(STAKES)
        before = 0
        for n in self.looks:
            if n > len(differences):
                break
            logs = [log + more for log, more in zip(logs, self._growth(differences[before:n]), strict=True)]
            before = n
            looks.append(self._look(differences[:n], logs))
            if looks[-1].decision != "continue":
                break
        return conclude(looks, self.size)

    @property
    def _stakes(self) -> tuple[float, ...]:
        return tuple(stake / (1.0 + self.margin) for stake in STAKES)

    def _growth(self, differences: Sequence[float]) -> list[float]:
        """What *differences* add to the logarithm of the money, for each stake."""
        gains = [difference - self.margin for difference in differences]
        return [sum(math.log1p(stake * gain) for gain in gains) for stake in self._stakes]

    def _look(self, seen: Sequence[float], logs: Sequence[float]) -> Look:
        boundary = float(1 / exact(self.level))
        evidence = mean_product(logs)
        decision: Decision
        if evidence >= boundary:
            decision, chance = "promote", 1.0
        elif len(seen) == self.size:
            decision, chance = "stop", 0.0
        else:
            chance = self._chance(seen, logs)
            decision = "stop" if chance < FUTILE else "continue"
        wins, losses = sum(d > 0 for d in seen), sum(d < 0 for d in seen)
        return Look(len(seen), wins, losses, evidence, boundary, chance, decision)

    def _chance(self, seen: Sequence[float], logs: Sequence[float]) -> float:
        """The conditional power of the luckiest stake, had all the money been on it."""
        belief = outlook(len(seen), sum(seen), sum(d * d for d in seen), self.margin)
        gain = belief.drift - self.margin
        target, left = -math.log(exact(self.level)), self.size - len(seen)
        chances = []
        for stake, log in zip(self._stakes, logs, strict=True):
            growth = stake * gain - stake**2 * (belief.variance + gain**2) / 2  # E[log(1 + stake (D - margin))], nearly
            chances.append(conditional_power(target - log, left, growth, stake**2 * belief.variance))
        return max(chances)


def mean_product(logs: Sequence[float]) -> float:
    """Return the mean of the products whose logarithms are *logs*, at most exp(690), so that it is finite always.

    >>> round(mean_product([0.0, math.log(3.0)]), 9)
    2.0
    """
    top = max(logs)
    return math.exp(min(top + math.log(sum(math.exp(log - top) for log in logs) / len(logs)), LARGEST_LOG))


def beta_binomial_e_value(wins: int, losses: int) -> Fraction:
    """Return the evidence, exactly, that a challenger wins more than half of its discordant pass/fail pairs.

    The bet is spread over the share of wins p in [1/2, 1] as Beta(10, 10) restricted to it, so that the product has a
    closed form; with d = wins + losses,

        E = 2^(d+1) * B(wins + 10, losses + 10) / B(10, 10) * P(Bin(d + 19, 1/2) <= wins + 9)

    An e-process for H0: E[D] <= 0 in the number of discordant pairs; Ville's inequality holds as above.

    >>> beta_binomial_e_value(0, 0)
    Fraction(1, 1)
    >>> round(float(beta_binomial_e_value(30, 10)), 2)
    36.19
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"{wins!r} wins and {losses!r} losses; counts are not negative")
    trials = wins + losses + 2 * PRIOR - 1
    tail, count = 0, 1  # count = binomial(trials, k)
    for k in range(wins + PRIOR):
        tail += count
        count = count * (trials - k) // (k + 1)
    beta = Fraction(
        math.factorial(wins + PRIOR - 1) * math.factorial(losses + PRIOR - 1) * math.factorial(2 * PRIOR - 1),
        math.factorial(trials) * math.factorial(PRIOR - 1) ** 2,
    )
    return beta * Fraction(tail * 2 ** (wins + losses + 1), 2**trials)


def _validate(differences: Sequence[float], size: int) -> None:
    if len(differences) > size:
        raise ValueError(f"{len(differences)} differences for a test of size {size}; give at most as many as its size")
    for case, difference in enumerate(differences):
        if not -1.0 <= difference <= 1.0:
            raise ValueError(f"pair {case}: difference {difference!r} is outside [-1, 1]; scores must lie in [0, 1]")
