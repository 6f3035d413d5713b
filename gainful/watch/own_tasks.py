"""Callers' own tasks in a store: which there are, and what was learned on them."""

from __future__ import annotations

from collections.abc import Iterable

from gainful.core import StoreError
from gainful.loop.events import Proposed
from gainful.loop.journal import read_events
from gainful.store import Store
from gainful.tasks import Task
from gainful.tasks.own import owner
from gainful.watch.service import service_key


def own_tasks(store: Store, tasks: Iterable[Task]) -> list[Task]:
    """Return *tasks* as the own ones of valid keys, as far as their callers have asked for them."""
    known = set(store.tasks())
    keys = [key.name for key in store.keys() if key.own_task and not key.revoked]  # noqa: SIM118 - a store is no mapping
    return [own for task in tasks for key in keys if (own := task.of(key)).name in known]


def learned_for(store: Store, key: str) -> frozenset[str]:
    """Return the stored policies that only runs on *key*'s own tasks have found: they say what its words taught.

    What other runs have found too, what is a task's own policy, and what an own task began with, say nothing of them.
    """
    ours: set[str] = set()
    others: set[str] = set()
    for run in store.runs():
        found = (event.proposal.policy.id for event in read_events(store, run.run) if isinstance(event, Proposed))
        (ours if key and owner(run.task) == key else others).update(found)
    for task in store.tasks() if ours else ():
        others |= {one.policy for one in store.champion_history(task) if one.reason in ("baseline", "begun")}
        others |= {line.content["former"] for line in store.ledger(service_key(task)) if line.kind == "begun"}
    return frozenset(id for id in ours - others if _is_stored(store, id))


def _is_stored(store: Store, id: str) -> bool:
    try:
        store.policy(id)
    except StoreError:
        return False
    return True
