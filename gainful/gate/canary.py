"""Judge a challenger while it answers callers: two bets on every difference, one that it harms, one that it does not.

D in [-1, 1] is the challenger's score minus the champion's: in a shadow both answered the same request; in a canary
one request of a block, at a position drawn before anything in the block was looked at, went to the challenger, and D is
its score minus the mean score of the others.  Position and requests are independent, so E[D] is the mean over the
block of what the challenger would have scored there minus what the champion would have: traffic that changes from
block to block moves both alike.  With a margin epsilon in [0, 1),

    harm_n  = mean over lambda of prod_{i <= n} (1 - lambda (D_i + epsilon)),   lambda in {.2, .4} / (1 + epsilon)
    worth_n = mean over lambda of prod_{i <= n} (1 + lambda (D_i + epsilon)),   lambda in STAKES / (1 - epsilon)

Every factor is at least 0.2, for lambda times the worst loss is at most 0.8, the largest of STAKES.  Stakes are fixed
beforehand, so a factor's mean given all D before it is at most 1 as soon as E[D | before] >= -epsilon (harm), or
<= -epsilon (worth).  Each product, and so their mean, is then a non-negative supermartingale that starts at 1, and
ever reaches 1/level with probability at most level (Ville 1939; Waudby-Smith & Ramdas 2024, JRSS B 86, 1-27):

    a challenger that is no worse than by epsilon is rolled back, ever, with probability at most level_harm;
    one that is worse than by epsilon is ever let through with probability at most level_step.

Nothing is assumed of the D's size, number or likeness, nor of when one looks; so evidence runs on through the shadow
and all stages of one challenger, whatever their blocks.  Two things must not depend on what was scored: the order in
which differences come, and whether one comes at all.

What it takes to see harm grows with the variance of D over the square of (its mean + epsilon).  Small blocks make the
champion's mean noisy, and a margin of half the harm costs four times the requests: see docs/notes/canary.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

from gainful.gate.e_process import STAKES, mean_product
from gainful.gate.level import exact

Step: TypeAlias = Literal["roll back", "go on", "hold"]

HARM_STAKES = (0.2, 0.4)  # for harm of 10 to 20 points; one that fails outright is seen in about 20 requests too
LEAST = 30  # differences before a step: fewer can all be of one kind of request; harm is never waited for


class Canary:
    """The evidence for and against one challenger, from its first difference on.

    *margin* is epsilon, how much worse than the champion it may be; *level_harm* and *level_step* are probabilities of
    the two errors.  Raises ``ValueError`` for a margin outside [0, 1) or a level outside (0, 1).

    >>> canary = Canary(margin=0.02)
    >>> for _ in range(40):
    ...     canary.see(0.5)
    >>> canary.judge(), canary.n, canary.mean
    ('go on', 40, 0.5)
    """

    def __init__(self, margin: float, level_harm: float = 0.05, level_step: float = 0.05) -> None:
        if not 0.0 <= margin < 1.0:
            raise ValueError(f"margin {margin!r} is outside [0, 1); it is a difference of mean scores")
        self.margin = margin
        self.n = 0
        self._total = 0.0
        self._against = Bet([stake / (1.0 + margin) for stake in HARM_STAKES])
        self._for = Bet([stake / (1.0 - margin) for stake in STAKES])
        self.harm_needed = float(1 / exact(level_harm))
        self.worth_needed = float(1 / exact(level_step))
        self._was_harmful = False

    def see(self, difference: float) -> None:
        """Enter the next difference; raises ``ValueError`` for one outside [-1, 1]."""
        if not -1.0 <= difference <= 1.0:
            raise ValueError(f"pair {self.n}: difference {difference!r} is outside [-1, 1]; scores must lie in [0, 1]")
        self.n += 1
        self._total += difference
        self._against.gain(-(difference + self.margin))
        self._for.gain(difference + self.margin)
        self._was_harmful = self._was_harmful or self.harm >= self.harm_needed

    @property
    def mean(self) -> float | None:
        """The mean difference so far; a number to look at, not to decide by."""
        return self._total / self.n if self.n else None

    @property
    def harm(self) -> float:
        """The evidence that the challenger is worse by more than the margin; 1 is none."""
        return self._against.evidence

    @property
    def worth(self) -> float:
        """The evidence that it is not; 1 is none."""
        return self._for.evidence

    def judge(self) -> Step:
        """Return what to do: "roll back" once ``harm`` has ever reached 1/level_harm, whatever came after.

        "go on" while ``worth`` is at least 1/level_step, after ``LEAST`` differences; else "hold".  How often one asks
        changes no answer.
        """
        if self._was_harmful:
            return "roll back"
        return "go on" if self.n >= LEAST and self.worth >= self.worth_needed else "hold"


class Bet:
    """Money that starts at 1, split over *stakes*."""

    def __init__(self, stakes: Sequence[float]) -> None:
        self._stakes = stakes
        self._logs = [0.0] * len(stakes)

    @property
    def evidence(self) -> float:
        """The mean over the stakes of what became of the money on each."""
        return mean_product(self._logs)

    def gain(self, amount: float) -> None:
        """Enter what a stake of 1 has won."""
        self._logs = [log + math.log1p(stake * amount) for log, stake in zip(self._logs, self._stakes, strict=True)]
