"""The lifetime budget: how much error each confirmation may spend, so that all of them together spend at most alpha.

One hold-out is reused by an unbounded sequence of challengers, each chosen in the light of what became of those
before it.  Only one bit of a confirmation, promoted or not, may reach whoever chooses: no score, no stopping time, no
case, no reason.  That makes the lifetime a binary tree of bit histories, and the budget is split over the tree.

The guarantee: if each confirmation of a challenger that is truly no better promotes it with probability at most its
level, then P(a false promotion, ever) <= alpha, for every strategy of choosing challengers.

Why.  Let B(h) be what is left at history h, and a(h) its level.  At h the challenger, the champion and the level are
settled without the hold-out having been seen, except through h itself.  Walk the whole tree in advance: it fixes one
test per node.  Let F(h) be the event, on the hold-out, that the lifetime passes through h and a false promotion happens
there or later.  We claim P(F(h)) <= B(h).

* The challenger at h is no better.  Then F(h) happens only if it is promoted, with probability <= a(h), or if it is
  not and something goes wrong below that branch, with probability <= B(h0) = B(h) - a(h).  A sum of B(h).
* The challenger at h is better.  Promoting it is no error, so F(h) happens only below one of the two branches:
  P <= B(h1) + B(h0) = a(h) + (B(h) - a(h)).  A promotion hands its own level on, and no more.

Both cases only add probabilities, so nothing is assumed of how the tests on one hold-out depend on each other.  Over a
finite lifetime the claim holds at the leaves and climbs to the root, where B = alpha; an endless one is the limit of
these.

Fresh cases for every confirmation (``fresh=True``) make the branches independent of what comes after them, so they are
averaged rather than summed: a(h) + (1 - a(h))(B(h) - a(h)) <= B(h) if no better, at most max(B(h1), B(h0)) if better.
So a promotion then costs nothing and keeps the budget as it stands.

This room does the arithmetic.  The ledger, which proves that the steps were taken, is the store's.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction

from gainful.gate.level import cut, exact

DECAY = Decimal("1.3")  # the level of the i-th confirmation falls as i^-1.3: slow, and still summable
ZETA = Decimal("3.931949211809544226974907510589")  # the sum of i^-1.3 over all i, rounded up so that levels round down
PI_SQUARED = Decimal("9.869604401089358618834490999877")  # rounded up, for the same reason
PRECISE = Context(prec=50)  # the errors of 50 digits vanish against the last digit of the constants above


@dataclass(frozen=True)
class Budget:
    """Where a lifetime stands: ``alpha`` granted since the last promotion, and the ``rank`` of the next confirmation.

    Raises ``ValueError`` for an alpha outside (0, 1) or a rank below 1.

    >>> start = Budget()
    >>> start.level
    0.0127163392268
    >>> start.after(promoted=False).level
    0.00516443850493
    >>> start.after(promoted=True)
    Budget(alpha=0.0127163392268, rank=1)
    """

    alpha: float = 0.05
    rank: int = 1

    def __post_init__(self) -> None:
        exact(self.alpha)
        if self.rank < 1:
            raise ValueError(f"rank {self.rank!r} is below 1; the first confirmation of a budget has rank 1")

    @property
    def level(self) -> float:
        """The level of the next confirmation: alpha * rank^-1.3 / zeta(1.3), cut off after 12 significant digits."""
        power = PRECISE.power(Decimal(self.rank), -DECAY)
        return float(cut(PRECISE.divide(PRECISE.multiply(_decimal(self.alpha), power), ZETA)))

    def after(self, *, promoted: bool, fresh: bool = False) -> Budget:
        """Return the budget once the next confirmation is decided, *fresh* if it used cases never used before."""
        if not promoted:
            return Budget(self.alpha, self.rank + 1)
        return self if fresh else Budget(self.level, 1)


def epoch_alpha(alpha: float, epoch: int) -> float:
    """Return the alpha of the *epoch*-th hold-out, counted from 1: 6 alpha / (pi * epoch)^2, cut off after 12 digits.

    Over any number of refreshed hold-outs these sum to at most *alpha*.

    >>> [epoch_alpha(0.05, epoch) for epoch in (1, 2)]
    [0.0303963550927, 0.00759908877317]
    """
    if epoch < 1:
        raise ValueError(f"epoch {epoch!r} is below 1; the first hold-out is epoch 1")
    share = PRECISE.divide(6, PRECISE.multiply(PI_SQUARED, epoch * epoch))
    return float(cut(PRECISE.multiply(_decimal(alpha), share)))


def _decimal(level: float) -> Decimal:
    number: Fraction = exact(level)
    return PRECISE.divide(number.numerator, number.denominator)
