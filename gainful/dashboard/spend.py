"""What is spent: error budget, calls, tokens and money."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gainful.core import Usage
from gainful.dashboard.quality import HOUR_S
from gainful.loop.confirm import Lifetime
from gainful.store import LedgerEntry, Tally

DAY_HOURS = 24


class ErrorBudget(msgspec.Struct, frozen=True):
    """Where the lifetime of the newest run's hold-out stands.

    ``alpha`` bounds the chance of any false promotion; ``left`` of it is not spent, and the next confirmation may spend
    ``level``.  ``fresh``: every confirmation gets new cases, so that a promotion costs nothing.
    """

    alpha: float
    left: float
    level: float
    confirmations: int
    promotions: int
    fresh: bool


class Spent(msgspec.Struct, frozen=True):
    """What some requests cost; ``cost_usd`` is ``None`` where no price is known."""

    requests: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    corrected: int
    errors: int
    failed_open: int
    cost_usd: float | None
    added_ms: float | None


class Spend(msgspec.Struct, frozen=True):
    """What serving cost in the last day and in all, and what the last ``runs`` runs of learning did, finished ones."""

    day: Spent
    all: Spent
    runs: int
    learning: Usage


def error_budget(entries: Sequence[LedgerEntry], alpha: float) -> ErrorBudget:
    """Return where the lifetime stands after *entries*; *alpha* counts where there is none yet.

    Levels in a row without a promotion sum to less than what was granted, so what is left is never nothing.
    """
    epochs = [entry.content for entry in entries if entry.kind == "epoch"]
    granted = float(epochs[-1]["alpha"]) if epochs else alpha
    fresh = bool(epochs) and epochs[-1].get("size") is None
    lifetime = Lifetime.after(entries, alpha, fresh=fresh)
    budget = lifetime.budget
    spent = sum(type(budget)(budget.alpha, rank).level for rank in range(1, budget.rank))
    won = [entry for entry in entries if entry.kind == "closed" and entry.content.get("decision") == "promoted"]
    return ErrorBudget(
        alpha=granted,
        left=budget.alpha - spent,
        level=budget.level,
        confirmations=lifetime.confirmations,
        promotions=len(won),
        fresh=fresh,
    )


def spend(tallies: Sequence[Tally], learned: Sequence[Usage], now: float) -> Spend:
    """Return what serving and learning have cost."""
    since = int(now) // HOUR_S - DAY_HOURS
    return Spend(
        day=_spent([tally for tally in tallies if tally.hour > since]),
        all=_spent(tallies),
        runs=len(learned),
        learning=sum(learned, Usage()),
    )


def _spent(tallies: Sequence[Tally]) -> Spent:
    heard = [tally for tally in tallies if tally.arm != "shadow"]
    requests = sum(tally.requests for tally in heard)
    costs = [tally.cost_usd for tally in tallies if tally.cost_usd is not None]
    return Spent(
        requests=requests,
        calls=sum(tally.calls for tally in tallies),
        prompt_tokens=sum(tally.prompt_tokens for tally in tallies),
        completion_tokens=sum(tally.completion_tokens for tally in tallies),
        corrected=sum(tally.corrected for tally in heard),
        errors=sum(tally.errors for tally in heard),
        failed_open=sum(tally.failed_open for tally in heard),
        cost_usd=sum(costs) if costs else None,
        added_ms=sum(tally.added_ms for tally in heard) / requests if requests else None,
    )
