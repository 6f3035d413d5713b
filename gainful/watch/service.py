"""What is in service for a task, and every move of it: a ledger of its own, and the state that its lines amount to.

Guarantees: the state is a function of the ledger; a move is one line, written with the champion's pointer in one
transaction, and only on the state that it was decided on: of two processes that move at once, one is told so.  A move
that voids a guarantee says so in its line.  Leaves to others: when to move (``watcher``, or a person).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from gainful.core import JsonObject, Policy, StoreError, Value
from gainful.store import Store
from gainful.store.bank import Lease
from gainful.store.store import LedgerEntry, LedgerKind

Mode: TypeAlias = Literal["shadow", "canary", "holdback"]

STAGE_DIGITS = 16  # of a line's hash that name the stage it began

FORCED = "a person put this policy into service: no confirmation bounds the chance that it is worse"
TAKEN_BACK = "a person took the champion back: what was certified of it no longer concerns what is in service"
PINNED = "a person pinned the champion: it is not taken back by itself while it is pinned"


class Stage(Value, frozen=True):
    """A time in which requests are seated at random between the champion and another policy.

    ``share`` of requests in (0, 1) goes to ``policy``; positions in blocks of ``block`` follow from ``seed``, 64
    hexadecimal digits that were fixed before the first request.  ``step`` counts the stages of one challenger from 0.
    ``at`` is the Unix time at which it began, ``row`` the last exchange before it.
    """

    id: str
    mode: Mode
    policy: str
    champion: str
    share: float
    seed: str
    at: float
    row: int = 0
    step: int = 0

    @property
    def block(self) -> int:
        """How many requests hold one of the other policy's.

        >>> [Stage("", "canary", "", "", share, "", 0.0).block for share in (0.01, 0.03, 0.5)]
        [100, 33, 2]
        """
        return round(1 / self.share)


class Service(Value, frozen=True):
    """The state of a task's service after so many ``lines``; ``registration`` is the confirmation of the canary's.

    ``first_at`` is when the challenger was first staged.  ``champion`` is ``None`` until something was promoted or
    forced through this ledger: then the store's pointer says who it is.
    """

    lines: int = 0
    head: str = ""
    champion: str | None = None
    former: str | None = None
    canary: Stage | None = None
    holdback: Stage | None = None
    registration: str = ""
    first_at: float | None = None
    is_paused: bool = False
    is_pinned: bool = False

    def after(self, entry: LedgerEntry) -> Service:
        """Return the state after one more line."""
        content = entry.content
        changed: dict[str, Any] = {"lines": self.lines + 1, "head": entry.hash}
        match entry.kind:
            case "staged":
                stage = _stage(content["stage"], entry)
                changed |= {"canary": stage, "registration": content["registration"]}
                changed["first_at"] = self.first_at if stage.step else stage.at
            case "rejected":
                changed |= _NO_CANARY
            case "promoted" | "rolled-back":
                changed |= _NO_CANARY
                changed |= {"champion": content["champion"], "former": content["former"]}
                changed["holdback"] = _stage(content["holdback"], entry) if content["holdback"] else None
            case "paused" | "resumed":
                changed["is_paused"] = entry.kind == "paused"
            case "pinned" | "unpinned":
                changed["is_pinned"] = entry.kind == "pinned"
        return Service(**{name: changed.get(name, getattr(self, name)) for name in self.__struct_fields__})


_NO_CANARY: dict[str, Any] = {"canary": None, "registration": "", "first_at": None}


def _stage(content: JsonObject, entry: LedgerEntry) -> Stage:
    return Stage(id=entry.hash[:STAGE_DIGITS], **content)


def service_key(task: str) -> str:
    """Return the key of a task's service ledger; hold-outs have digests for keys, so the two never meet."""
    return f"service:{task}"


def read_service(store: Store, task: str) -> Service:
    """Return the state of *task*'s service; raises ``StoreError`` for a ledger that was changed."""
    return replay(store.ledger(service_key(task)))


def replay(entries: Sequence[LedgerEntry]) -> Service:
    """Return the state that *entries* amount to."""
    state = Service()
    for entry in entries:
        state = state.after(entry)
    return state


class Helm:
    """Moves the service of one task; *lease* is the watcher's right to do so, ``None`` where a person does.

    Every move returns the new state.  Raises ``StoreError`` where the move cannot be made in the present state, where
    another process has moved meanwhile, or where the lease is lost; nothing has changed then.
    """

    def __init__(self, store: Store, task: str, clock: Callable[[], float], lease: Lease | None = None) -> None:
        self.lease = lease
        self._store = store
        self._task = task
        self._clock = clock

    @property
    def state(self) -> Service:
        """The state as it is in the store now."""
        return read_service(self._store, self._task)

    # --- the watcher's moves

    def stage(
        self,
        challenger: str,
        mode: Mode,
        share: float,
        seed: str,
        registration: str,
        evidence: JsonObject | None = None,
    ) -> Service:
        """Begin the next stage of *challenger*, which *registration* has confirmed; *evidence* says why."""
        state = self._unpinned()
        if state.canary is not None and state.canary.policy != challenger:
            raise self._refused(f"policy {state.canary.policy[:12]} is on its way in; end that first")
        stage = {
            "mode": mode,
            "policy": challenger,
            "champion": self._champion(),
            "share": share,
            "seed": seed,
            "at": self._clock(),
            "row": self._last_row(),
            "step": state.canary.step + 1 if state.canary else 0,
        }
        return self._move(state, "staged", {"stage": stage, "registration": registration, "evidence": evidence or {}})

    def reject(self, reason: str, evidence: JsonObject | None = None) -> Service:
        """End the canary: its challenger does not come in."""
        state = self.state
        if state.canary is None:
            raise self._refused("no challenger is on its way in")
        content = {"challenger": state.canary.policy, "registration": state.registration, "reason": reason}
        return self._move(state, "rejected", {**content, "evidence": evidence or {}})

    def promote(self, seed: str, holdback: float, evidence: JsonObject | None = None) -> Service:
        """Put the canary's challenger into service for all but the share *holdback*, which stays on the champion."""
        state = self._unpinned()
        if state.canary is None:
            raise self._refused("no challenger is on its way in")
        challenger, former = state.canary.policy, state.canary.champion
        content = {"registration": state.registration, "first_at": state.first_at, "evidence": evidence or {}}
        return self._install(state, "promoted", challenger, former, content, seed=seed, holdback=holdback)

    def alarm(self, about: str, evidence: JsonObject) -> Service:
        """Write down what was noticed; it changes nothing by itself."""
        return self._move(self.state, "alarm", {"about": about, "evidence": evidence})

    # --- a watcher's or a person's

    def roll_back(self, reason: str, evidence: JsonObject | None = None, *, to: str | None = None) -> Service:
        """Put the former champion, or policy *to*, back into service; a canary under way ends with it.

        Raises ``StoreError`` where there is none, and where the champion is pinned and a watcher asks.
        """
        state = self.state
        target, leaving = to or state.former, self._champion()
        if target is None or target == leaving:
            raise self._refused("there is no former champion to go back to")
        if state.is_pinned and self.lease is not None:
            raise self._refused("the champion is pinned")
        content = {"reason": reason, "evidence": evidence or {}, "left": leaving}
        return self._install(state, "rolled-back", target, None, content | {"void": "" if self.lease else TAKEN_BACK})

    # --- a person's

    def force(self, policy: str, seed: str = "", holdback: float = 0.0) -> Service:
        """Put *policy* into service without a confirmation; the line says what that voids."""
        state, former = self.state, self._champion()
        content: JsonObject = {"registration": "", "first_at": None, "evidence": {}, "void": FORCED}
        return self._install(state, "promoted", policy, former, content, seed=seed, holdback=holdback)

    def pause(self) -> Service:
        """Learn and ramp no further; what is in service is still watched, and taken back where it does harm."""
        return self._switch("paused", is_on=self.state.is_paused)

    def resume(self) -> Service:
        """Learn again."""
        return self._switch("resumed", is_on=not self.state.is_paused)

    def pin(self) -> Service:
        """Keep the champion whatever is seen; no challenger comes in either."""
        return self._switch("pinned", is_on=self.state.is_pinned, void=PINNED)

    def unpin(self) -> Service:
        """Let the champion be replaced again."""
        return self._switch("unpinned", is_on=not self.state.is_pinned)

    def forgot(self, content: JsonObject) -> Service:
        """Write down that something was forgotten: how much, and which policies lost their words; never what."""
        return self._move(self.state, "forgotten", content)

    # --- writing

    def _unpinned(self) -> Service:
        state = self.state
        if state.is_pinned:
            raise self._refused("the champion is pinned")
        return state

    def _champion(self) -> str:
        champion = self._store.champion(self._task)
        if champion is None:
            raise self._refused("nothing is in service yet; serve the task, or improve it, first")
        return champion

    def _last_row(self) -> int:
        return self._store.last_exchange_row()

    def _switch(self, kind: LedgerKind, *, is_on: bool, void: str = "") -> Service:
        state = self.state
        return state if is_on else self._move(state, kind, {"at": self._clock(), "void": void})

    def _install(
        self,
        state: Service,
        kind: LedgerKind,
        champion: str,
        former: str | None,
        content: JsonObject,
        *,
        seed: str = "",
        holdback: float = 0.0,
    ) -> Service:
        """Write the line and move the pointer; with *holdback*, that share of requests goes on with *former*."""
        stage: JsonObject | None = None
        if former is not None and holdback > 0.0:
            stage = {"mode": "holdback", "policy": former, "champion": champion, "share": holdback, "seed": seed}
            stage |= {"at": self._clock(), "row": self._last_row()}
        line = {**content, "champion": champion, "former": former, "holdback": stage, "at": self._clock()}
        return self._move(state, kind, line, champion=self._store.policy(champion))

    def _move(self, state: Service, kind: LedgerKind, content: JsonObject, champion: Policy | None = None) -> Service:
        entry = self._store.append_ledger(
            service_key(self._task),
            kind,
            content,
            champion=(self._task, champion) if champion else None,
            seq=state.lines,
            lease=self.lease,
        )
        return state.after(entry)

    def _refused(self, why: str) -> StoreError:
        return StoreError(f"task {self._task!r}: {why}; `gainful status` shows what is in service")
