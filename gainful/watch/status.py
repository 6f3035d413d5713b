"""How a task stands in production, at a glance: what is in service, what is on its way in, what was noticed last.

Guarantees: nothing is written and no task is loaded; exchanges are never counted one by one, so that ten million of
them cost no more than the hours in which they came.  Leaves to others: the words (``report.service``).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gainful.core import JsonObject, StoreError
from gainful.loop.confirm import Lifetime
from gainful.loop.events import Finished
from gainful.loop.journal import read_events
from gainful.store import LedgerEntry, Run, Store, Tally
from gainful.watch.promotions import Promotion, ended, promotions
from gainful.watch.service import Stage, replay, service_key, watch_lease
from gainful.watch.standings import Evidence, Held, Learns, evidence_against, evidence_on, learns

ALPHA = 0.05  # of a lifetime whose run does not say


class Running(msgspec.Struct, frozen=True):
    """A stage under way: ``share`` of requests goes to ``policy`` since ``at``, in Unix seconds.

    ``evidence`` is that on a challenger, ``None`` in a hold-back.
    """

    mode: str
    policy: str
    share: float
    step: int
    at: float
    evidence: Evidence | None = None


class Alarm(msgspec.Struct, frozen=True):
    """What a watcher noticed last, and when."""

    at: float | None
    about: str


class ErrorBudget(msgspec.Struct, frozen=True):
    """Where the lifetime of a hold-out stands.

    ``alpha`` bounds the chance of any false promotion; ``left`` of it is not spent, and the next confirmation may spend
    ``level``.  ``fresh``: every confirmation gets new cases, so that a promotion costs nothing.
    """

    alpha: float
    left: float
    level: float
    confirmations: int
    promotions: int
    fresh: bool


class LastRun(msgspec.Struct, frozen=True):
    """The run begun last; ``is_promoted`` is ``None`` until it is over, ``at`` and ``why`` where a watcher began it."""

    run: str
    is_promoted: bool | None
    at: float | None = None
    why: str = ""


class Cases(msgspec.Struct, frozen=True):
    """Cases in the bank: ``dev`` and ``held_out`` free to be used, ``never`` for others to judge us by."""

    dev: int
    held_out: int
    never: int


class CorrectionCost(msgspec.Struct, frozen=True):
    """What corrections took per thousand requests, on so many ``requests``; ``usd`` is ``None`` without a price."""

    requests: int
    corrected: float
    calls: float
    tokens: float
    usd: float | None


class Status(msgspec.Struct, frozen=True):
    """How *task* stands.

    ``came`` is how the champion came into service: ``baseline``, ``begun``, ``confirmed``, ``promoted`` or
    ``rolled-back``; ``void`` says which guarantee that voids.  ``watcher`` names the process that holds the lease.
    Watchers have counted ``taken_in`` requests; ``exchanges`` were ever stored, of all tasks together.  ``adapter`` is
    what is said of the champion's adapter, "" where it has none.  ``held`` is the evidence against the champion,
    ``learning`` says why nothing is tried; ``promotions`` are the latest, the oldest first.
    """

    task: str
    champion: str | None
    since: float | None
    came: str
    void: str
    former: str | None
    canary: Running | None
    holdback: Running | None
    is_paused: bool
    is_pinned: bool
    alarm: Alarm | None
    budget: ErrorBudget | None
    run: LastRun | None
    watcher: str | None
    taken_in: int
    exchanges: int
    cases: Cases
    adapter: str = ""
    held: Held | None = None
    learning: Learns | None = None
    promotions: tuple[Promotion, ...] = ()
    correction: CorrectionCost | None = None


def read_status(store: Store, task: str) -> Status:
    """Return how *task* stands; raises ``StoreError`` where the store cannot be read, or a ledger was changed."""
    ledger = store.ledger(service_key(task))
    state, pointer = replay(ledger), store.champion(task)
    history, times = store.champion_history(task), store.champion_times(task)
    line = next((entry for entry in ledger if history and entry.hash == history[-1].ledger), None)
    alarm = next((entry for entry in reversed(ledger) if entry.kind == "alarm"), None)
    runs = [run for run in store.runs() if run.task == task]
    lease = store.find_lease(watch_lease(task))
    canary, holdback = (_seated(stage, pointer) for stage in (state.canary, state.holdback))
    tallies = store.tallies(task)
    return Status(
        task=task,
        champion=pointer,
        since=times[-1] if times else None,
        came=history[-1].reason if history else "",
        void=line.content.get("void", "") if line else "",
        former=state.former if state.champion == pointer else None,
        canary=_running(canary, evidence_on(store, task, canary, ledger)) if canary else None,
        holdback=_running(holdback) if holdback else None,
        is_paused=state.is_paused,
        is_pinned=state.is_pinned,
        alarm=Alarm(alarm.content.get("at"), alarm.content["about"]) if alarm else None,
        budget=_budget(store, runs),
        run=_last_run(store, runs),
        watcher=lease.holder if lease else None,
        taken_in=sum(tally.requests for tally in tallies if tally.arm != "shadow"),
        exchanges=store.last_exchange_row(),
        cases=Cases(*(store.count_banked(task, side) for side in ("dev", "held-out", "never"))),
        adapter=_adapter(store, pointer),
        held=evidence_against(store, task, pointer, holdback),
        learning=learns(store, task),
        promotions=tuple(promotions(store, task, ledger, ended(store, task, runs), tallies)),
        correction=correction_cost(tallies),
    )


def _adapter(store: Store, champion: str | None) -> str:
    """Return what is said of the champion's adapter; a policy that has lost its words says nothing."""
    if champion is None:
        return ""
    try:
        adapter = store.policy(champion).adapter
    except StoreError:
        return ""
    return adapter.label if adapter else ""


def _seated(stage: Stage | None, champion: str | None) -> Stage | None:
    """Return a stage that is seated: one that was begun against another champion is not."""
    return stage if stage is not None and stage.champion == champion else None


def _running(stage: Stage, evidence: Evidence | None = None) -> Running:
    return Running(stage.mode, stage.policy, stage.share, stage.step, stage.at, evidence)


def correction_cost(tallies: Sequence[Tally]) -> CorrectionCost | None:
    """Return what corrections took of what callers heard, where it was counted; ``None`` where nothing was."""
    counted = [tally for tally in tallies if tally.arm != "shadow" and tally.correction_calls is not None]
    requests = sum(tally.requests for tally in counted)
    if not requests:
        return None
    is_priced = all(tally.correction_usd is not None or not tally.correction_calls for tally in counted)

    def per_thousand(total: float) -> float:
        return 1000 * total / requests

    return CorrectionCost(
        requests=requests,
        corrected=per_thousand(sum(tally.corrected for tally in counted)),
        calls=per_thousand(sum(tally.correction_calls or 0 for tally in counted)),
        tokens=per_thousand(sum(tally.correction_tokens or 0 for tally in counted)),
        usd=per_thousand(sum(tally.correction_usd or 0.0 for tally in counted)) if is_priced else None,
    )


def error_budget(entries: Sequence[LedgerEntry], alpha: float) -> ErrorBudget:
    """Return where the lifetime stands after *entries* of a hold-out; *alpha* counts where there is none yet.

    Levels in a row without a promotion sum to less than what was granted, so what is left is never nothing.
    """
    epochs = [entry.content for entry in entries if entry.kind == "epoch"]
    fresh = bool(epochs) and epochs[-1].get("size") is None
    lifetime = Lifetime.after(entries, alpha, fresh=fresh)
    budget = lifetime.budget
    spent = sum(type(budget)(budget.alpha, rank).level for rank in range(1, budget.rank))
    return ErrorBudget(
        alpha=float(epochs[-1]["alpha"]) if epochs else alpha,
        left=budget.alpha - spent,
        level=budget.level,
        confirmations=lifetime.confirmations,
        promotions=sum(entry.content.get("decision") == "promoted" for entry in entries if entry.kind == "closed"),
        fresh=fresh,
    )


def _budget(store: Store, runs: Sequence[Run]) -> ErrorBudget | None:
    """Return the budget of the hold-out that the last run used; ``None`` before the first."""
    if not runs:
        return None
    spec = runs[-1].spec
    settings: JsonObject = spec.get("settings", {})
    return error_budget(store.ledger(spec.get("holdout", "")), float(settings.get("alpha", ALPHA)))


def _last_run(store: Store, runs: Sequence[Run]) -> LastRun | None:
    if not runs:
        return None
    last, watched = runs[-1], runs[-1].spec.get("watch", {})
    end = read_events(store, last.run)[-1] if last.finished else None
    promoted = end.promoted if isinstance(end, Finished) else None
    return LastRun(last.run, promoted, watched.get("at"), watched.get("why", ""))
