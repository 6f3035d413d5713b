"""When to try: is there something new to learn, enough to prove it by, and anything left to spend today?

What was noticed, and what a person asked for, is read from the service's ledger, so that a watcher that starts again
neither forgets a reason nor acts on it twice.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from gainful.store import Run, Store
from gainful.tasks import Task
from gainful.watch.budget import Left
from gainful.watch.service import service_key
from gainful.watch.traffic_task import needs_targets, proof_checks

LEAST_DEV = 20  # cases, for the first steps of a race to tell anything apart
LEAST_HELD_OUT = 100  # fresh cases, with which a gain of about 20 points can be certified
LATEST = 1000  # cases that are looked at for new errors
ASKED = "a person asked for it"
ALARMS = {
    "quality": "quality has fallen",
    "errors": "requests fail more often than before",
    "model": "another model answers behind the name",
}


class Reason(NamedTuple):
    """Why a run is begun, and how many model calls it may make; ``None``: as many as it likes."""

    why: str
    budget_calls: int | None


class Waiting(NamedTuple):
    """Why no run begins: in a word, and in a sentence for people."""

    state: str
    why: str


def watch_runs(store: Store, task: str) -> list[Run]:
    """Return the runs that watchers have begun for *task*, the oldest first."""
    return [run for run in store.runs() if run.task == task and "watch" in run.spec]


def reason_to_try(store: Store, task: Task, now: float, left: Left) -> Reason | Waiting:
    """Return why a run should begin now, or what it waits for; *left* is what may be spent today."""
    if not proof_checks(task):
        return Waiting("unprovable", "no trusted check can judge traffic")
    if lacking := _lacking(store, task):
        return Waiting("cases", lacking)
    before = watch_runs(store, task.name)
    since = before[-1].spec["watch"]["at"] if before else 0.0
    errors, group = _new_errors(store, task, since)
    enough = task.improving.after_errors
    why = _told(store, task, since)
    if not why and errors >= enough > 0:
        why = f"{errors} new errors: {group}"
    why = why or _schedule(task, since, now)
    if not why:
        return Waiting("nothing new", _nothing_new(task, errors))
    return Waiting("spent", left.why) if left.is_spent else Reason(why, left.calls)


def _told(store: Store, task: Task, since: float) -> str:
    """Return the first reason that the service's ledger gives after a time: an alarm, a roll-back, a person's wish."""
    for line in store.ledger(service_key(task.name)):
        content = line.content
        if content["at"] <= since:
            continue
        if line.kind == "asked":
            return ASKED
        if line.kind == "alarm":
            return ALARMS.get(content["about"], str(content["about"]))
        if line.kind == "rolled-back" and not content.get("void"):  # what a person takes back says nothing of traffic
            return str(content["reason"])
    return ""


def _new_errors(store: Store, task: Task, since: float) -> tuple[int, str]:
    """Return how many new errors the largest group has, and the group."""
    latest = store.banked(task.name, "dev", limit=LATEST, only_targets=needs_targets(task))
    champion = store.champion(task.name)  # others' errors, in a hold-back or a canary, are not to be learned from
    proof = {"check", "feedback"} if task.improving.trust_feedback else {"check"}
    errors = (
        one
        for one in latest
        if one.last_at > since and one.group and one.policy == champion and one.signal in proof and one.score != 1.0
    )
    groups = Counter(banked.group for banked in errors)
    return max(((count, group) for group, count in groups.items()), default=(0, ""))


def _schedule(task: Task, since: float, now: float) -> str:
    hours = task.improving.every_hours
    return f"{hours:g} hours since the last run" if hours is not None and now - since >= 3600 * hours else ""


def _nothing_new(task: Task, errors: int) -> str:
    improving, parts = task.improving, []
    if improving.after_errors:
        parts.append(f"{errors} of {improving.after_errors} errors of one group")
    if improving.every_hours is not None:
        parts.append(f"not yet {improving.every_hours:g} hours since the last run")
    return f"nothing new to learn: {', '.join(parts) or 'no alarm'}"


def _lacking(store: Store, task: Task) -> str:
    """Say how many cases there are where these are too few to learn from or to prove by, else ""."""
    only_targets = needs_targets(task)
    dev = store.count_banked(task.name, "dev", only_targets=only_targets)
    held_out = store.count_banked(task.name, "held-out", only_targets=only_targets)
    if dev >= LEAST_DEV and held_out >= LEAST_HELD_OUT:
        return ""
    told = " of which callers told the right answer" if only_targets else ""
    return (
        f"{min(dev, LEAST_DEV)} of {LEAST_DEV} dev cases and {min(held_out, LEAST_HELD_OUT)} of {LEAST_HELD_OUT} "
        f"held-out cases{told} so far"
    )
