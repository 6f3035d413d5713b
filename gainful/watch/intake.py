"""Traffic becomes cases: each request once, on a side that its words decide, before anything looks at it.

Guarantees: an exchange is taken in once, however often the watcher dies; copies of a case are one; the side follows
from the words alone, so that nobody chooses it by asking at the right time; only what was stored in full is read; of
a caller whose data are kept apart (``gainful keys add --own-data``) nothing but figures is.  What a trusted check says
of a reply no caller changes, unless the operator trusts callers.
Leaves to others: what may be learned from (``screen``), which cases a run takes (``selection``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from gainful.answers.shape import case_of
from gainful.core import Answer, Arm, Case, CheckError, Choice, Exchange, Verdict, judge, lowest
from gainful.store import Banked, Feedback, Repair, Store, Tally
from gainful.store.bank import Signal
from gainful.tasks import Task
from gainful.tasks.split import content
from gainful.watch.traffic_task import proof_checks

BATCH = 500  # exchanges a transaction
INTAKE, FEEDBACK = "intake", "feedback"

Screen = Callable[[Case, Any], str]
"""Says why nothing may learn from a case and the answer to it; empty where something may."""


class Known(NamedTuple):
    """What is known of a reply: its score in [0, 1], ``None`` where nothing is, and who said so."""

    score: float | None
    signal: Signal


def known(exchange: Exchange) -> Known:
    """Return what trusted checks said of the reply."""
    score = lowest(verdict for verdict in exchange.verdicts if verdict.trusted)
    return Known(score, "" if score is None else "check")


def judged(exchange: Exchange) -> Known:
    """Return what trusted checks said of the reply, and where they are silent what the others said: no proof."""
    found = known(exchange)
    score = lowest(exchange.verdicts)
    return found if found.signal or score is None else Known(score, "judged")


def error_group(verdicts: Iterable[Verdict]) -> str:
    """Return the group of the first objection, a trusted check's before all others; empty where there is none."""
    errors = [verdict for verdict in verdicts if verdict.score is not None and verdict.score < 1.0]
    error = min(errors, key=lambda verdict: not verdict.trusted, default=None)
    return "" if error is None else error.group or error.check


class Intake:
    """Reads what was served of *task* since the last time, and what callers said of it."""

    def __init__(self, store: Store, task: Task, screen: Screen) -> None:
        self._store = store
        self._task = task
        self._screen = screen
        self._apart: frozenset[str] = frozenset()  # keys whose callers' words are no case of anybody's

    def take(self, most: int = 20 * BATCH) -> int:
        """Take in up to *most* exchanges and as many pieces of feedback; return how many exchanges there were."""
        self._apart = frozenset(key.name for key in self._store.keys() if key.own_data)  # noqa: SIM118 - no mapping
        taken = 0
        while taken < most and (found := self._exchanges()):
            taken += found
        if taken >= most:
            return taken  # a word on a reply must not come before the reply
        for _ in range(0, most, BATCH):
            if not self._feedback():
                break
        return taken

    def _exchanges(self) -> int:
        task, store = self._task.name, self._store
        rows = store.exchanges_after(task, store.cursor(task, INTAKE), limit=BATCH)
        if rows:
            heard = [exchange for _, exchange in rows]
            banked = [found for exchange in heard if (found := self._banked(exchange)) is not None]
            store.put_repairs(task, [repair for exchange in heard if (repair := self._repair(exchange)) is not None])
            store.take_in(task, INTAKE, rows[-1][0], banked, tallies(heard))
        return len(rows)

    def _feedback(self) -> int:
        task, store = self._task.name, self._store
        rows = store.feedback_after(task, store.cursor(task, FEEDBACK), limit=BATCH)
        if rows:
            heard = [(told, exchange) for _, told in rows if (exchange := store.exchange(told.reply)) is not None]
            banked = [found for told, exchange in heard if (found := self._told(told, exchange)) is not None]
            news = [_news(told, exchange) for told, exchange in heard if known(exchange).score is None]
            store.take_in(task, FEEDBACK, rows[-1][0], banked, total(news))
        return len(rows)

    def _banked(self, exchange: Exchange) -> Banked | None:
        """Return the case that an exchange brings; ``None`` where it was not stored, is nobody's or is kept apart."""
        case = stored_case(exchange)
        if (
            case is None
            or exchange.key in self._apart
            or exchange.status >= 400
            or (exchange.seat is not None and exchange.seat.arm == "shadow")
        ):
            return None
        score, signal = judged(exchange)
        return Banked(
            id=content(case),
            case=case,
            side=self._task.split.side(case),
            at=exchange.at,
            last_at=exchange.at,
            key=exchange.key,
            signal=signal,
            score=score,
            group=error_group(exchange.verdicts),
            policy=exchange.policy,
            reply=exchange.id,
            value=exchange.value,
            quarantine=self._screen(case, exchange.value),
            latest_key=exchange.key,
        )

    def _told(self, told: Feedback, exchange: Exchange) -> Banked | None:
        """Return the case of a reply that a caller has judged; ``None`` where their word changes nothing.

        Where what callers say counts as proof, a reply that is right, or the answer they gave instead, is the target,
        unless nothing may learn from it or the checks cannot read it: one such target would break every run.  Where a
        trusted check has scored the reply too, the lower score counts.  Where callers are no proof, their word is kept
        unless a trusted check has scored this reply, or one to the same words.
        """
        found = self._banked(exchange)
        if found is None or told.key in self._apart:
            return None
        if not self._task.improving.trust_feedback:
            return None if self._is_checked(found) else _objected(found, told)
        right = told.target if told.target is not None else (exchange.value if told.score == 1.0 else None)
        if right is not None:
            with_target = msgspec.structs.replace(found.case, target=right)
            if not self._screen(with_target, right) and self._is_readable(with_target):
                found = msgspec.structs.replace(found, case=with_target, target_key=told.key)
        if found.signal == "check" and found.score is not None and found.score <= told.score:
            return msgspec.structs.replace(found, last_at=told.at, count=0)
        return _objected(found, told)

    def _is_checked(self, found: Banked) -> bool:
        """Whether a trusted check scored this reply, or the one by which the bank knows the case."""
        before = self._store.find_banked(self._task.name, [found.id])
        return "check" in {found.signal, *(one.signal for one in before)}

    def _is_readable(self, case: Case) -> bool:
        """Whether the checks can compare an answer with the target of *case*."""
        kind = self._task.kind
        if isinstance(kind, Choice) and case.target not in kind.labels:
            return False
        try:
            judge(proof_checks(self._task), case, Answer(text="", value=case.target))
        except CheckError:
            return False
        return True

    def _repair(self, exchange: Exchange) -> Repair | None:
        """Return the error that a correction repaired, where a trusted check passes what came of it."""
        case = stored_case(exchange)
        if case is None or exchange.key in self._apart:
            return None
        if exchange.verdict != "corrected" or known(exchange).score != 1.0:
            return None
        if self._task.split.side(case) != "dev" or self._screen(case, exchange.value):
            return None
        return Repair(
            id=content(case),
            case=case,
            wrong=exchange.draft,
            right=exchange.value,
            signal="check",
            at=exchange.at,
            key=exchange.key,
            policy=exchange.policy,
        )


def stored_case(exchange: Exchange) -> Case | None:
    """Return the case an exchange was about, ``None`` where its request is not stored in full."""
    request = exchange.request
    if request is None or not request.get("messages"):
        return None
    return msgspec.structs.replace(case_of(request), name=exchange.id)


def _objected(found: Banked, told: Feedback) -> Banked:
    """Return the case of a reply with what a caller says of it."""
    group = "" if told.score == 1.0 else found.group or "caller's objection"
    changed = {"score": told.score, "signal": "feedback", "group": group, "last_at": told.at, "latest_key": told.key}
    return msgspec.structs.replace(found, **changed, count=0)


def tallies(exchanges: Iterable[Exchange]) -> list[Tally]:
    """Add *exchanges* up by hour, policy and arm."""
    return total(map(_tally, exchanges))


def total(tallies: Iterable[Tally]) -> list[Tally]:
    """Add up those of the same hour, policy and arm."""
    sums: dict[tuple[int, str, str], Tally] = {}
    for one in tallies:
        place = one.hour, one.policy, one.arm
        sums[place] = one if place not in sums else add(sums[place], one)
    return list(sums.values())


def _news(told: Feedback, exchange: Exchange) -> Tally:
    """What a caller's word adds to the tally of a reply that no trusted check could score."""
    arm: Arm = "champion" if exchange.seat is None else exchange.seat.arm
    return Tally(hour=int(exchange.at // 3600), policy=exchange.policy, arm=arm, known=1, right=told.score)


def _tally(exchange: Exchange) -> Tally:
    score, usage = known(exchange).score, exchange.usage
    return Tally(
        hour=int(exchange.at // 3600),
        policy=exchange.policy,
        arm="champion" if exchange.seat is None else exchange.seat.arm,
        requests=1,
        known=int(score is not None),
        right=score or 0.0,
        corrected=int(exchange.verdict == "corrected"),
        failed_open=int(exchange.verdict == "failed-open"),
        errors=int(exchange.status >= 400),
        calls=usage.calls,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cost_usd=usage.cost_usd,
        added_ms=exchange.added_ms,
        correction_calls=exchange.correcting.calls,
        correction_tokens=exchange.correcting.prompt_tokens + exchange.correcting.completion_tokens,
        correction_usd=exchange.correcting.cost_usd,
    )


def add(one: Tally, other: Tally) -> Tally:
    """Return the sum of two tallies of the same hour, policy and arm."""
    summed = {name: [n for n in (getattr(one, name), getattr(other, name)) if n is not None] for name in _SUMMED}
    return msgspec.structs.replace(one, **{name: sum(known) if known else None for name, known in summed.items()})


_SUMMED = tuple(name for name in Tally.__struct_fields__ if name not in ("hour", "policy", "arm"))
