"""Is what was trained what is served?  The trainer's greedy answers and log-probabilities beside the server's.

The loudest complaint about training stacks is that the served adapter silently is not the trained one: another order
of rows, another scale, another chat template, a cache of another adapter's.  Each of these shows here.
"""

from __future__ import annotations

from collections.abc import Sequence

from gainful.core import Value
from gainful.train.jobs import Reading

LEAST_AGREEMENT = 0.95
TIE_NATS = 0.5  # quantised arithmetic moves a log-probability by 0.03 on average, and by up to 0.4 where answers part


class Parity(Value, frozen=True):
    """How far trainer and server agree on ``prompts``.

    ``identical`` is the share of equal greedy answers in [0, 1]; ``agreement`` counts those too that part where the
    trainer finds the server's token as likely as its own but for what quantisation moves.  The differences are
    absolute, in nats a token, over the ``tokens`` that both gave a log-probability for; ``None`` where there is none.
    """

    prompts: int
    identical: float
    agreement: float
    tokens: int = 0
    mean_difference: float | None = None
    largest_difference: float | None = None

    @property
    def holds(self) -> bool:
        """Whether what is served may count as what was trained."""
        return self.prompts > 0 and self.agreement >= LEAST_AGREEMENT


def parity(trained: Sequence[Reading], served: Sequence[Reading]) -> Parity:
    """Compare the trainer's readings, of the served answers as replies, with the server's, prompt by prompt.

    Answers are compared as text without blanks at either end.  Raises ``ValueError`` for lists of two lengths.

    >>> ours = Reading(greedy="7", logprobs=(-0.5, -1.0), behind=0.0)
    >>> parity([ours], [Reading(greedy="7\\n", logprobs=(-0.25, -1.0))])
    Parity(prompts=1, identical=1.0, agreement=1.0, tokens=2, mean_difference=0.125, largest_difference=0.25)
    """
    pairs = list(zip(trained, served, strict=True))
    same = [ours.greedy.strip() == theirs.greedy.strip() for ours, theirs in pairs]
    tied = [ours.behind is not None and ours.behind <= TIE_NATS for ours, _ in pairs]
    apart = [
        abs(one - other)
        for ours, theirs in pairs
        if len(ours.logprobs) == len(theirs.logprobs)  # other lengths: the tokenizers cut the reply differently
        for one, other in zip(ours.logprobs, theirs.logprobs, strict=True)
    ]
    return Parity(
        prompts=len(pairs),
        identical=sum(same) / len(pairs) if pairs else 0.0,
        agreement=sum(map(max, same, tied)) / len(pairs) if pairs else 0.0,
        tokens=len(apart),
        mean_difference=sum(apart) / len(apart) if apart else None,
        largest_difference=max(apart, default=None),
    )
