"""The test for pass/fail scores: an exact, group-sequential sign test, conditional on the discordant pairs.

Challenger and champion answer the same held-out case; a pair is a win, a loss or a tie.  If the challenger is no
better, each of d discordant pairs is a win with probability at most 1/2, so the wins W given d are at most Bin(d, 1/2),
whatever the ties do.  We look at fixed moments and may promote at each; how much error each look may spend is fixed
beforehand by a spending function (Lan & DeMets 1983, Biometrika 70, 659-663, O'Brien-Fleming type, one-sided):

    A(t) = 2 (1 - Phi(z_{level/2} / sqrt(t))),   t = share of the cases used,   A(1) = level

At look k we promote from c_k wins, the smallest c with P(W_k >= c, no promotion before | d_1 .. d_k) <= A(t_k) - spent,
where spent is what the looks before have truly used.  Paths of wins are counted in integers, out of 2^d: there is no
rounding in the comparison, and so P(promote | no better) <= level holds exactly.

Futility stops a hopeless test early.  It only ever takes promotions away, so it costs no error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from statistics import NormalDist

from gainful.gate.judgement import Decision, Judgement, Look, conclude, schedule
from gainful.gate.level import cut, exact
from gainful.gate.power import FUTILE, conditional_power, outlook

SPENDING_DIGITS = 9  # far fewer than the 15 on which the mathematics libraries of all platforms agree


@dataclass(frozen=True)
class SignTest:
    """Test H0: E[difference] <= 0 on at most *size* pass/fail pairs, with P(promote | H0) <= *level*.

    Raises ``ValueError`` for a size below 1 or a level outside (0, 1).

    >>> test = SignTest(size=40, level=0.05)
    >>> test.judge([1, 0, 1, 1]).decision
    'continue'
    >>> judgement = test.judge([1, 0] * 10)
    >>> judgement.reason
    'promoted after 20 of 40 cases: 10 wins, 0 losses; the evidence, 10, reached the boundary, 10'
    """

    size: int
    level: float

    def __post_init__(self) -> None:
        schedule(self.size)
        exact(self.level)

    @cached_property
    def looks(self) -> tuple[int, ...]:
        """After how many pairs we look: 5, 10, 20, 30, ..., 100 % of the size, rounded up."""
        return schedule(self.size)

    @cached_property
    def spending(self) -> tuple[Fraction, ...]:
        """The error that may be spent up to each look, never falling; the last is the level itself."""
        level = exact(self.level)
        z = -NormalDist().inv_cdf(float(level) / 2)
        early = (math.erfc(z / math.sqrt(2 * n / self.size)) for n in self.looks[:-1])
        return (*(min(level, Fraction(cut(Decimal(a), SPENDING_DIGITS))) for a in early), level)

    def judge(self, differences: Sequence[float]) -> Judgement:
        """Return the decision on *differences*, challenger minus champion in evaluation order, each -1, 0 or 1.

        Every look reached is evaluated until one decides; pairs after the deciding look change nothing.  So judging a
        prefix gives a prefix of the looks, and the last look never says "continue".  Raises ``ValueError`` for any
        other difference or for more of them than ``size``.
        """
        _validate(differences, self.size)
        reached = [n for n in self.looks if n <= len(differences)]
        tallies = [(differences[:n].count(1), differences[:n].count(-1)) for n in reached]
        criticals, _ = critical_values([wins + losses for wins, losses in tallies], self.spending)
        looks: list[Look] = []
        for n, (wins, losses), critical in zip(reached, tallies, criticals, strict=True):
            look = self._look(n, wins, losses, critical)
            looks.append(look)
            if look.decision != "continue":
                break
        return conclude(looks, self.size)

    def _look(self, n: int, wins: int, losses: int, critical: int | None) -> Look:
        decision: Decision
        if critical is not None and wins >= critical:
            decision, chance = "promote", 1.0
        elif n == self.size:
            decision, chance = "stop", 0.0
        else:
            chance = self._chance(n, wins, losses)
            decision = "stop" if chance < FUTILE else "continue"
        return Look(n, wins, losses, float(wins), None if critical is None else float(critical), chance, decision)

    def _chance(self, n: int, wins: int, losses: int) -> float:
        """The conditional power to promote at the last look, were all the error still there to be spent on it."""
        belief = outlook(n, wins - losses, wins + losses)
        discordant = wins + losses + round((self.size - n) * belief.square)
        fewest = fewest_wins(discordant, exact(self.level))
        if fewest is None:
            return 0.0
        needed = (2 * fewest - discordant) - (wins - losses) - 1  # -1: the lead moves in steps of 2
        return conditional_power(needed, self.size - n, belief.drift, belief.variance)


def critical_values(
    discordant: Sequence[int], allowed: Sequence[Fraction]
) -> tuple[tuple[int | None, ...], tuple[Fraction, ...]]:
    """Return for each look the fewest wins that promote, and the error truly spent up to it.

    *discordant* counts the discordant pairs up to each look and never falls; *allowed* is the error that may be spent
    up to each look, and may go on for longer.  A critical value is ``None`` where no number of wins could promote.

    >>> criticals, spent = critical_values([4, 8], [Fraction(1, 16), Fraction(1, 8)])
    >>> criticals  # at 4, only an unbroken row of wins; at 8, seven or more of those that were not promoted then
    (4, 7)
    >>> [str(s) for s in spent]
    ['1/16', '5/64']
    """
    width = (discordant[-1] if discordant else 0) // 8 + 1  # bytes that hold a count of up to 2^d paths
    paths, crossed, before = 1, 0, 0  # paths: one field per number of wins, its count of paths not yet promoted
    criticals: list[int | None] = []
    spent: list[Fraction] = []
    for d, limit in zip(discordant, allowed, strict=False):
        for _ in range(d - before):
            paths += paths << (8 * width)  # one more fair pair: each count moves to w and to w + 1
        crossed <<= d - before
        before = d
        room = (limit.numerator << d) // limit.denominator - crossed
        critical, mass = _cut_off(paths, width, room)
        if critical is not None:
            crossed += mass
            paths &= (1 << (8 * width * critical)) - 1
        criticals.append(critical)
        spent.append(Fraction(crossed, 1 << d))
    return tuple(criticals), tuple(spent)


def fewest_wins(discordant: int, level: Fraction) -> int | None:
    """Return the smallest c with P(Bin(discordant, 1/2) >= c) <= level; ``None`` where there is none up to discordant.

    >>> fewest_wins(10, Fraction(1, 20))
    9
    """
    room = (level.numerator << discordant) // level.denominator
    wins, count = discordant, 1  # count = binomial(discordant, wins)
    while count <= room:
        room -= count
        count = count * wins // (discordant - wins + 1)
        wins -= 1
    return wins + 1 if wins < discordant else None


def _cut_off(paths: int, width: int, room: int) -> tuple[int | None, int]:
    """Return the smallest number of wins from which at most *room* paths lie, and how many do; ``None`` if none."""
    wins = (paths.bit_length() - 1) // (8 * width)
    fields = paths.to_bytes((wins + 1) * width, "little")
    mass = 0
    while (count := int.from_bytes(fields[wins * width : (wins + 1) * width], "little")) <= room - mass:
        mass += count
        wins -= 1
    return (wins + 1, mass) if mass else (None, 0)


def _validate(differences: Sequence[float], size: int) -> None:
    if len(differences) > size:
        raise ValueError(f"{len(differences)} differences for a test of size {size}; give at most as many as its size")
    for case, difference in enumerate(differences):
        if difference not in (-1, 0, 1):
            raise ValueError(
                f"pair {case}: difference {difference!r} is not -1, 0 or 1; use EProcess for scores between 0 and 1"
            )
