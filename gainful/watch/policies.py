"""The policies that a task knows: in service now or once, on their way in, or proven; and by what right each is there.

Guarantees: nothing is written; a policy that has lost its words is still listed, by its id.  What was only tried in a
race is not: it claims nothing.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from gainful.core import Policy, StoreError
from gainful.store import Store
from gainful.watch.promotions import ended
from gainful.watch.service import replay, service_key

Role: TypeAlias = Literal["in service", "shadow", "canary", "former", ""]
Right: TypeAlias = Literal["certified", "forced", "own", ""]
"""Confirmed on unseen cases; put into service by a person; the task's own; none that this store knows of."""


class Known(msgspec.Struct, frozen=True):
    """A policy of a task.  ``since`` is when it came into its role, or last into service; ``None`` where it never did.

    ``content`` is ``None`` where its words were forgotten.
    """

    policy: str
    role: Role
    right: Right
    since: float | None
    content: Policy | None


def known_policies(store: Store, task: str) -> list[Known]:
    """Return the policies of *task*, each once, those first that came first."""
    ledger, history, times = store.ledger(service_key(task)), store.champion_history(task), store.champion_times(task)
    proven = [one.end.champion for one in ended(store, task, store.runs()) if one.end.promoted]
    certified = {*proven, *(one.policy for one in history if one.reason == "confirmed")}
    forced: set[str] = set()
    staged: list[str] = []
    for entry in ledger:
        if entry.kind == "staged":
            staged.append(entry.content["stage"]["policy"])
        elif entry.kind == "promoted" and entry.content.get("void"):
            forced.add(entry.content["champion"])
    certified |= set(staged)
    own = {one.policy for one in history if one.reason == "baseline"}
    roles, since = _roles(store, task), {one.policy: at for one, at in zip(history, times, strict=True)}
    found = []
    for policy in dict.fromkeys([*(one.policy for one in history), *staged, *proven]):
        role, began = roles.get(policy, ("", since.get(policy)))
        rights: dict[Right, set[str]] = {"certified": certified, "own": own, "forced": forced}
        right: Right = next((name for name, policies in rights.items() if policy in policies), "")
        found.append(Known(policy, role, right, began, _content(store, policy)))
    return found


def _roles(store: Store, task: str) -> dict[str, tuple[Role, float | None]]:
    """Return which policies have a role now, and since when."""
    state, champion, times = replay(store.ledger(service_key(task))), store.champion(task), store.champion_times(task)
    found: dict[str, tuple[Role, float | None]] = {}
    if champion is None:
        return found
    if state.champion == champion and state.former is not None:
        found[state.former] = "former", state.holdback.at if state.holdback else times[-1]
    if state.canary is not None and state.canary.champion == champion:
        found[state.canary.policy] = "shadow" if state.canary.mode == "shadow" else "canary", state.canary.at
    return found | {champion: ("in service", times[-1])}


def _content(store: Store, policy: str) -> Policy | None:
    try:
        return store.policy(policy)
    except StoreError:
        return None
