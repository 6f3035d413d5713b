"""What is spent: calls, tokens and money."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gainful.core import Usage
from gainful.dashboard.quality import HOUR_S
from gainful.store import Tally
from gainful.watch.status import CorrectionCost, correction_cost

DAY_HOURS = 24


class Spent(msgspec.Struct, frozen=True):
    """What some requests cost, unheard copies of them included; ``cost_usd`` is ``None`` where no price is known.

    ``extra_calls`` are those that heard replies took beyond one each: votes, refinements and corrections.
    """

    requests: int
    calls: int
    extra_calls: int
    prompt_tokens: int
    completion_tokens: int
    corrected: int
    errors: int
    failed_open: int
    cost_usd: float | None
    added_ms: float | None


class Spend(msgspec.Struct, frozen=True):
    """What serving cost in the last day and in all, what all ``runs`` that are over took to learn, and corrections."""

    day: Spent
    all: Spent
    runs: int
    learning: Usage
    correction: CorrectionCost | None


def spend(tallies: Sequence[Tally], learned: Sequence[Usage], now: float) -> Spend:
    """Return what serving and learning have cost."""
    since = int(now) // HOUR_S - DAY_HOURS
    return Spend(
        day=_spent([tally for tally in tallies if tally.hour > since]),
        all=_spent(tallies),
        runs=len(learned),
        learning=sum(learned, Usage()),
        correction=correction_cost(tallies),
    )


def _spent(tallies: Sequence[Tally]) -> Spent:
    heard = [tally for tally in tallies if tally.arm != "shadow"]
    requests = sum(tally.requests for tally in heard)
    costs = [tally.cost_usd for tally in tallies if tally.cost_usd is not None]
    return Spent(
        requests=requests,
        calls=sum(tally.calls for tally in tallies),
        extra_calls=sum(max(tally.calls - tally.requests, 0) for tally in heard),
        prompt_tokens=sum(tally.prompt_tokens for tally in tallies),
        completion_tokens=sum(tally.completion_tokens for tally in tallies),
        corrected=sum(tally.corrected for tally in heard),
        errors=sum(tally.errors for tally in heard),
        failed_open=sum(tally.failed_open for tally in heard),
        cost_usd=sum(costs) if costs else None,
        added_ms=sum(tally.added_ms for tally in heard) / requests if requests else None,
    )
