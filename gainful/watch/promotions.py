"""What each promotion took: time since the first failure that it fixed, callers' words, calls, tokens and money.

Guarantees: finished runs are counted whole, failed ones too, each for the promotion that came after it; nothing is
written; what cannot be told is ``None``.  A policy that a person forced in was not learned, and is none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from gainful.core import Usage
from gainful.loop.events import Finished, Opened
from gainful.loop.journal import read_events
from gainful.store import Installed, LedgerEntry, Run, Store, Tally
from gainful.watch.service import service_key

HOUR_S = 3600
MOST = 20  # promotions, the newest, of which it is looked up what they fixed

Champions: TypeAlias = Sequence[tuple[Installed, float]]
"""Each champion of a task, and when it came into service, the first one first."""

_finished = msgspec.json.Decoder(Finished).decode


class Promotion(msgspec.Struct, frozen=True):
    """A policy that was proven and came into service at Unix time ``at``.

    ``first_failure_at`` is when a request was first answered wrongly that ``run``, which found the policy, has fixed;
    ``certified_at`` when the policy was first staged, right after its confirmation.  ``labels`` counts the cases of the
    run of which a caller's word was used, targets and scores.  ``spent`` is what finished runs took since the promotion
    before, ``runs`` of them, and shadows, these to the hour.
    """

    policy: str
    at: float
    run: str | None
    first_failure_at: float | None
    certified_at: float | None
    minutes_to_certified: float | None
    minutes_to_service: float | None
    minutes: float | None
    labels: int | None
    runs: int | None = None
    spent: Usage | None = None


class Ended(NamedTuple):
    """A finished run, and its end."""

    run: Run
    end: Finished

    @property
    def usage(self) -> Usage:
        return self.end.search_usage + self.end.confirm_usage


class _Entered(NamedTuple):
    """How a proven policy came in; ``registration`` is empty where a run of its own put it into service."""

    policy: str
    at: float
    certified_at: float | None
    registration: str


def ended(store: Store, task: str, runs: Sequence[Run]) -> list[Ended]:
    """Return those of *runs* that are over, with their ends."""
    last = store.last_events(task)
    return [Ended(run, _finished(last[run.run])) for run in runs if run.run in last]


def read_promotions(store: Store, task: str) -> list[Promotion]:
    """Return what the latest promotions of *task* took, from its store alone."""
    runs = [run for run in store.runs() if run.task == task]
    return promotions(store, task, store.ledger(service_key(task)), ended(store, task, runs), store.tallies(task))


def promotions(
    store: Store, task: str, ledger: Sequence[LedgerEntry], runs: Sequence[Ended], tallies: Sequence[Tally]
) -> list[Promotion]:
    """Return what the latest promotions of *task* took, the oldest first; *ledger* is its service's."""
    champions = list(zip(store.champion_history(task), store.champion_times(task), strict=True))
    entered = _entered(ledger, champions)
    shadows = [tally for tally in tallies if tally.arm == "shadow"]
    found, done = [], 0
    for place, one in enumerate(entered):
        number = _number_of(store, runs, one)
        mine, shadows = _shadows(shadows, one)
        since = [] if number is None else runs[done : number + 1]
        if len(entered) - place <= MOST:
            promotion = _promotion(store, task, one, since[-1] if since else None, champions)
            if since:
                spent = _total([*(ended.usage for ended in since), *map(_usage, mine)])
                promotion = msgspec.structs.replace(promotion, runs=len(since), spent=spent)
            found.append(promotion)
        done = max(done, 0 if number is None else number + 1)
    return found


def _entered(ledger: Sequence[LedgerEntry], champions: Champions) -> list[_Entered]:
    lines = {entry.hash: entry.content for entry in ledger if entry.kind == "promoted"}
    found = []
    for one, at in champions:
        content = lines.get(one.ledger or "")
        if content is not None and content.get("registration"):
            found.append(_Entered(one.policy, content["at"], content.get("first_at"), content["registration"]))
        elif one.reason == "confirmed":
            found.append(_Entered(one.policy, at, at, ""))
    return found


def _number_of(store: Store, runs: Sequence[Ended], one: _Entered) -> int | None:
    """Return the place of the run that has proven a policy, ``None`` where it is not known."""
    for number in reversed(range(len(runs))):
        run, end = runs[number]
        if not end.promoted or end.champion != one.policy:
            continue
        if not one.registration:
            if "watch" not in run.spec:
                return number
        elif any(
            isinstance(event, Opened) and event.registration == one.registration
            for event in read_events(store, run.run)
        ):
            return number
    return None


def _shadows(tallies: Sequence[Tally], one: _Entered) -> tuple[list[Tally], list[Tally]]:
    """Divide tallies into those before a promotion and those after; of its own hour the policy's own are before."""
    hour = int(one.at // HOUR_S)
    before = [tally.hour < hour or (tally.hour == hour and tally.policy == one.policy) for tally in tallies]
    mine = [tally for tally, is_before in zip(tallies, before, strict=True) if is_before]
    return mine, [tally for tally, is_before in zip(tallies, before, strict=True) if not is_before]


def _total(parts: Sequence[Usage]) -> Usage:
    """Return the sum; the money is unknown where that of any part is."""
    is_priced = all(part.cost_usd is not None or not part.calls for part in parts)
    total = sum(parts, Usage())
    return total if is_priced else msgspec.structs.replace(total, cost_usd=None)


def _usage(tally: Tally) -> Usage:
    return Usage(tally.calls, tally.prompt_tokens, tally.completion_tokens, cost_usd=tally.cost_usd)


def _promotion(store: Store, task: str, one: _Entered, ending: Ended | None, champions: Champions) -> Promotion:
    """Return what is known of a promotion but for what was spent."""
    first = labels = None
    if ending is not None and one.registration and "watch" in ending.run.spec:
        first = _first_failure(store, task, ending.run, one.policy, champions)
        labels = _labels(store, task, ending.run, one.registration)
    return Promotion(
        policy=one.policy,
        at=one.at,
        run=ending.run.run if ending else None,
        first_failure_at=first,
        certified_at=one.certified_at,
        minutes_to_certified=_minutes(first, one.certified_at),
        minutes_to_service=_minutes(one.certified_at, one.at),
        minutes=_minutes(first, one.at),
        labels=labels,
    )


def _minutes(begins: float | None, ends: float | None) -> float | None:
    return None if begins is None or ends is None else round(max(ends - begins, 0.0) / 60, 1)


def _first_failure(store: Store, task: str, run: Run, policy: str, champions: Champions) -> float | None:
    """Return when a request first came that the run's champion answers wrongly, and *policy* rightly.

    Only dev cases of the run that both have answered can tell.  One that came before that champion was in service
    counts where it was asked once, and was seen to be wrong.
    """
    former, began = run.spec.get("champion"), run.spec["watch"].get("at")
    in_service = [(one.policy, at) for one, at in champions if began is None or at <= began]
    if not isinstance(former, str) or not in_service or in_service[-1][0] != former:
        return None
    since = in_service[-1][1]
    wrong = {one.case for one in store.attempts(task, former) if one.score is not None and one.score < 1.0}
    fixed = {one.case for one in store.attempts(task, policy) if one.score == 1.0} & wrong
    came = [
        banked.at
        for banked in store.find_banked(task, run.spec["watch"].get("cases", ()))
        if banked.case.id in fixed
        and (banked.at >= since or (banked.count == 1 and banked.score is not None and banked.score < 1.0))
    ]
    return min(came, default=None)


def _labels(store: Store, task: str, run: Run, registration: str) -> int:
    """Return of how many cases of a run a caller's word was used; a confirmation that needs targets opens no others."""
    watch = run.spec["watch"]
    cases = store.find_banked(task, [*watch.get("cases", ()), *watch.get("practice", ())])
    told = sum(banked.case.target is not None or banked.signal == "feedback" for banked in cases)
    source = (run.spec.get("task") or {}).get("traffic") or {}
    if not source.get("only_targets"):
        return told
    opened = (event for event in read_events(store, run.run) if isinstance(event, Opened))
    return told + sum(event.size for event in opened if event.registration == registration)
