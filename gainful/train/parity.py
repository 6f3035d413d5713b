"""Is what was trained what is served?  The trainer's greedy answers and log-probabilities beside the server's.

The loudest complaint about training stacks is that the served adapter silently is not the trained one: another order
of rows, another scale, another chat template, a cache of another adapter's.  Each of these shows here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gainful.core import Value
from gainful.train.jobs import Reading

FEWEST_PROMPTS = 200  # to compare, or all that there are
LEAST_AGREEMENT = 0.95
TIE_NATS = 0.5  # quantised arithmetic moves a log-probability by 0.03 on average, and by up to 0.4 where answers part
MOST_DIFFERENCE = 0.12  # nats a token on average: twice what quantisation was seen to explain


class Parity(Value, frozen=True):
    """How far trainer and server agree on ``prompts``.

    ``identical`` is the share of equal greedy answers in [0, 1]; ``agreement`` counts those too of which the trainer
    finds every token that the server chose as likely as its own choice but for what quantisation moves.  The
    differences are absolute, in nats a token, over the ``tokens`` of ``compared`` replies, which both sides cut into
    as many; ``None`` where there is none.
    """

    prompts: int
    identical: float
    agreement: float
    tokens: int = 0
    mean_difference: float | None = None
    largest_difference: float | None = None
    compared: int = 0

    @property
    def holds(self) -> bool:
        """Whether what is served may count as what was trained."""
        return self.agrees and self.is_near

    @property
    def agrees(self) -> bool:
        """Whether enough greedy answers agree."""
        return self.prompts > 0 and self.agreement >= LEAST_AGREEMENT

    @property
    def is_comparable(self) -> bool:
        """Whether both sides gave log-probabilities of most replies."""
        return 2 * self.compared > self.prompts

    @property
    def is_near(self) -> bool:
        """Whether they did, and these are apart by no more than is allowed."""
        apart = self.mean_difference
        return self.is_comparable and apart is not None and apart <= MOST_DIFFERENCE


def parity(trained: Sequence[Reading], served: Sequence[Reading]) -> Parity:
    """Compare the trainer's readings, of the served answers as replies, with the server's, prompt by prompt.

    Answers are compared as text without blanks at either end.  Raises ``ValueError`` for lists of two lengths.

    >>> ours = Reading(greedy="7", logprobs=(-0.5, -1.0), behind=0.0)
    >>> found = parity([ours], [Reading(greedy="7\\n", logprobs=(-0.25, -1.0))])
    >>> found.agreement, found.tokens, found.mean_difference, found.largest_difference
    (1.0, 2, 0.125, 0.25)
    """
    pairs = list(zip(trained, served, strict=True))
    same = [ours.greedy.strip() == theirs.greedy.strip() for ours, theirs in pairs]
    tied = [ours.behind is not None and ours.behind <= TIE_NATS for ours, _ in pairs]
    comparable = [
        (ours.logprobs, theirs.logprobs)
        for ours, theirs in pairs
        if 0 < len(ours.logprobs) == len(theirs.logprobs)  # other lengths: the tokenizers cut the reply differently
        and all(map(math.isfinite, (*ours.logprobs, *theirs.logprobs)))
    ]
    apart = [abs(one - other) for both in comparable for one, other in zip(*both, strict=True)]
    return Parity(
        prompts=len(pairs),
        identical=sum(same) / len(pairs) if pairs else 0.0,
        agreement=sum(map(max, same, tied)) / len(pairs) if pairs else 0.0,
        tokens=len(apart),
        mean_difference=sum(apart) / len(apart) if apart else None,
        largest_difference=max(apart, default=None),
        compared=len(comparable),
    )
