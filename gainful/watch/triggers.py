"""When to try: is there something new to learn, enough to prove it by, and anything left to spend today?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from gainful.core import JsonObject
from gainful.loop.events import Finished
from gainful.store import Run, Store
from gainful.tasks import Task
from gainful.watch.traffic_task import needs_targets, proof_checks

DAY_S = 86_400.0
LEAST_DEV = 20  # cases, for the first steps of a race to tell anything apart
LEAST_HELD_OUT = 100  # fresh cases, with which a gain of about 20 points can be certified
LATEST = 1000  # cases that are looked at for new errors

_finished = msgspec.json.Decoder(Finished).decode


class Reason(NamedTuple):
    """Why a run is begun, and how many model calls it may make; ``None``: as many as it likes."""

    why: str
    budget_calls: int | None


def watch_runs(store: Store, task: str) -> list[Run]:
    """Return the runs that watchers have begun for *task*, the oldest first."""
    return [run for run in store.runs() if run.task == task and "watch" in run.spec]


def reason_to_try(store: Store, task: Task, now: float, alarms: Sequence[str]) -> Reason | None:
    """Return why a run should begin now, ``None`` where none should.

    *alarms* say what was noticed since the last run: a drift, another model behind the name.
    """
    before = watch_runs(store, task.name)
    since = before[-1].spec["watch"]["at"] if before else 0.0
    why = alarms[0] if alarms else _new_errors(store, task, since) or _schedule(task, since, now)
    if not why or not _enough(store, task):
        return None
    left = calls_left(store, task, now)
    return None if left is not None and left <= 0 else Reason(why, left)


def _new_errors(store: Store, task: Task, since: float) -> str:
    latest = store.banked(task.name, "dev", limit=LATEST, only_targets=needs_targets(task))
    champion = store.champion(task.name)  # others' errors, in a hold-back or a canary, are not to be learned from
    errors = (one for one in latest if one.last_at > since and one.group and one.policy == champion)
    groups = Counter(banked.group for banked in errors)
    group, count = max(groups.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    return f"{count} new errors: {group}" if group and count >= task.improving.after_errors > 0 else ""


def _schedule(task: Task, since: float, now: float) -> str:
    hours = task.improving.every_hours
    return f"{hours:g} hours since the last run" if hours is not None and now - since >= 3600 * hours else ""


def _enough(store: Store, task: Task) -> bool:
    """Whether there is enough to learn from and to prove by; without a trusted check nothing could ever be proven."""
    only_targets = needs_targets(task)
    return (
        bool(proof_checks(task))
        and store.count_banked(task.name, "dev", only_targets=only_targets) >= LEAST_DEV
        and store.count_banked(task.name, "held-out", only_targets=only_targets) >= LEAST_HELD_OUT
    )


def calls_left(store: Store, task: Task, now: float) -> int | None:
    """Return how many model calls learning may still make today, ``None`` where nothing limits them."""
    most = task.improving.calls_per_day
    if most is None:
        return None
    return most - calls_spent(store, task, now - DAY_S)


def calls_spent(store: Store, task: Task, since: float) -> int:
    """Return the model calls that learning has made since a time, a day ago at most: runs, shadows and probes."""
    runs = [run for run in watch_runs(store, task.name) if run.spec["watch"]["at"] >= since]
    shadows = [t.calls for t in store.tallies(task.name, since_hour=int(since // 3600)) if t.arm == "shadow"]
    periods = DAY_S / (3600.0 * task.improving.probe_hours) + 3  # those begun before may have been asked since
    begun = store.probes(task.name, limit=math.ceil(periods * task.improving.probes))
    probes = [sum(at >= since for at in probe.asked) for probe in begun]
    return sum(map(_run_calls, map(store.events, (run.run for run in runs)))) + sum(shadows) + sum(probes)


def _run_calls(events: Sequence[bytes]) -> int:
    """Return what a run has spent, by its last record; one under way counts from its end on."""
    last: JsonObject = msgspec.json.decode(events[-1]) if events else {}
    if last.get("type") != "finished":
        return 0
    finished = _finished(events[-1])
    return finished.search_usage.calls + finished.confirm_usage.calls
