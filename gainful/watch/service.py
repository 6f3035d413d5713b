"""What is in service for a task, and every move of it: a ledger of its own, and the state that its lines amount to.

Guarantees: the state is a function of the ledger; a move is one line, written with the champion's pointer in one
transaction, and only on the state that it was decided on: of two processes that move at once, one is told so.  A move
that voids a guarantee says so in its line.  Leaves to others: when to move (``watcher``, or a person).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, TypeAlias

from gainful.core import JsonObject, Policy, StoreError, Value
from gainful.store import Store
from gainful.store.bank import Lease
from gainful.store.store import LedgerEntry, LedgerKind
from gainful.tasks import Task
from gainful.tasks.own import shared_name

Mode: TypeAlias = Literal["shadow", "canary", "holdback"]

STAGE_DIGITS = 16  # of a line's hash that name the stage it began

FORCED = "a person put this policy into service: no confirmation bounds the chance that it is worse"
TAKEN_BACK = "a person took the champion back: what was certified of it no longer concerns what is in service"
ALONE = "nothing stays on the former champion: that this one is worse can be seen by its own figures alone"
PINNED = "a person pinned the champion: it is not taken back by itself while it is pinned"
BEGUN = "what was certified of the champion it begins with is of all callers' requests, not of this caller's alone"


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

    ``first_at`` is when the challenger was first staged.  ``champion`` is whom this ledger put into service last,
    ``None`` until it did; the store's pointer says who is in service, for a run on its own may have moved it since.
    ``since`` is when it came in, in Unix seconds, behind exchange ``row``.  ``forgettings`` counts lines that say so.
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
    since: float | None = None
    row: int = 0
    forgettings: int = 0

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
            case "begun" | "promoted" | "rolled-back":
                changed |= _NO_CANARY
                changed |= {"champion": content["champion"], "former": content["former"]}
                changed["holdback"] = _stage(content["holdback"], entry) if content["holdback"] else None
                changed |= {"since": content["at"], "row": content.get("row", 0)}
            case "paused" | "resumed":
                changed["is_paused"] = entry.kind == "paused"
            case "pinned" | "unpinned":
                changed["is_pinned"] = entry.kind == "pinned"
            case "forgotten":
                changed |= self._without(content.get("policies", ())) | {"forgettings": self.forgettings + 1}
        return Service(**{name: changed.get(name, getattr(self, name)) for name in self.__struct_fields__})

    def _without(self, policies: Collection[str]) -> dict[str, Any]:
        """Return what changes when *policies* have lost their words: none of them is seated any more."""
        changed: dict[str, Any] = {}
        if self.canary is not None and self.canary.policy in policies:
            changed |= _NO_CANARY
        if self.holdback is not None and self.holdback.policy in policies:
            changed["holdback"] = None
        if self.former in policies:
            changed["former"] = None
        return changed


_NO_CANARY: dict[str, Any] = {"canary": None, "registration": "", "first_at": None}


def _stage(content: JsonObject, entry: LedgerEntry) -> Stage:
    return Stage(id=entry.hash[:STAGE_DIGITS], **content)


def service_key(task: str) -> str:
    """Return the key of a task's service ledger; hold-outs have digests for keys, so the two never meet."""
    return f"service:{task}"


def watch_lease(task: str) -> str:
    """Return the name of the lease that the watcher of *task* holds."""
    return f"watch {task}"


def next_seed(task: str, state: Service) -> str:
    """Return the seed of the stage that may follow *state*: fixed by the ledger, before any request of it came."""
    return hashlib.sha256(f"{task} {state.head}".encode()).hexdigest()


def read_service(store: Store, task: str) -> Service:
    """Return the state of *task*'s service; raises ``StoreError`` for a ledger that was changed."""
    return replay(store.ledger(service_key(task)))


def replay(entries: Sequence[LedgerEntry]) -> Service:
    """Return the state that *entries* amount to."""
    state = Service()
    for entry in entries:
        state = state.after(entry)
    return state


def left_at(entries: Sequence[LedgerEntry], policy: str) -> int | None:
    """Return the last exchange before *policy* left service the last time, ``None`` where no line says so."""
    left = (entry.content for entry in reversed(entries) if entry.kind in ("begun", "promoted", "rolled-back"))
    rows = (content.get("row", 0) for content in left if policy in (content["former"], content.get("left")))
    return next(rows, None)


def stages_of(entries: Sequence[LedgerEntry]) -> list[Stage]:
    """Return every stage of every challenger in *entries*, the first one first."""
    return [_stage(entry.content["stage"], entry) for entry in entries if entry.kind == "staged"]


def settle(store: Store, task: Task, clock: Callable[[], float] = time.time) -> None:
    """Enter the task's baseline as champion while nothing else ever was: whatever replaces it can be taken back.

    A baseline that was edited since takes the place of the one before, unless a person has pinned that.  A caller's own
    task begins once with the champion that the shared one has by then, and goes its own way from there.
    """
    latest = store.champion_history(task.name)[-1:]
    shared = store.champion(shared_name(task.name)) if task.owner and not latest else None
    if shared is not None and shared != task.baseline.id:
        store.put_policy(task.baseline)
        try:
            Helm(store, task.name, clock).begin(shared, task.baseline.id)
        except StoreError:
            if store.champion(task.name) is None:  # else another process has begun it meanwhile
                raise
        return
    if all(one.reason == "baseline" for one in latest) and not read_service(store, task.name).is_pinned:
        store.set_champion(task.name, task.baseline, "baseline")


class Helm:
    """Moves the service of one task; *lease* is the watcher's right to do so, ``None`` where a person does.

    Every move returns the new state, and takes the ids of stored policies or their beginnings.  Raises ``StoreError``
    where the move cannot be made in the present state, where another process has moved meanwhile, or where the lease is
    lost; nothing has changed then.
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
        """Begin the next stage of *challenger*, which *registration* has confirmed; *evidence* says why.

        Raises ``StoreError`` while the task is paused or the champion pinned, while another challenger is on its way
        in, and where the champion is no longer the one that this challenger was compared with.
        """
        state, policy, champion = self._free(), self._store.policy(challenger).id, self._champion()
        if not registration:
            raise self._refused(f"policy {policy[:12]} comes without a confirmation")
        if policy == champion:
            raise self._refused(f"policy {policy[:12]} is in service already")
        if state.canary is not None and (state.canary.policy, state.registration) != (policy, registration):
            raise self._refused(f"policy {state.canary.policy[:12]} is on its way in; end that first")
        if state.canary is not None:
            self._challenged(state)
        step = state.canary.step + 1 if state.canary else 0
        stage = self._stage(mode, policy, champion, share, seed) | {"step": step}
        return self._move(state, "staged", {"stage": stage, "registration": registration, "evidence": evidence or {}})

    def reject(self, reason: str, evidence: JsonObject | None = None) -> Service:
        """End the canary: its challenger does not come in."""
        state = self.state
        if state.canary is None:
            raise self._refused("no challenger is on its way in")
        content = {"challenger": state.canary.policy, "registration": state.registration, "reason": reason}
        return self._move(state, "rejected", {**content, "evidence": evidence or {}})

    def refuse(self, challenger: str, registration: str, reason: str, evidence: JsonObject | None = None) -> Service:
        """Write down that *challenger*, which *registration* has confirmed, is not even staged, and why.

        Raises ``StoreError`` while a challenger is on its way in.
        """
        state = self.state
        if state.canary is not None:
            raise self._refused(f"policy {state.canary.policy[:12]} is on its way in; end that first")
        content = {"challenger": self._store.policy(challenger).id, "registration": registration, "reason": reason}
        return self._move(state, "rejected", {**content, "evidence": evidence or {}})

    def promote(self, seed: str, holdback: float, evidence: JsonObject | None = None) -> Service:
        """Put the canary's challenger into service for all but the share *holdback*, which stays on the champion.

        Raises ``StoreError`` where ``stage`` would.
        """
        state = self._free()
        canary = self._challenged(state)
        content = {"registration": state.registration, "first_at": state.first_at, "evidence": evidence or {}}
        return self._install(state, "promoted", canary.policy, canary.champion, content, seed=seed, holdback=holdback)

    def alarm(self, about: str, evidence: JsonObject) -> Service:
        """Write down what was noticed, of which champion, and behind which exchange; it changes nothing by itself."""
        content = {"about": about, "evidence": evidence, "policy": self._store.champion(self._task)}
        return self._move(self.state, "alarm", {**content, "row": self._store.last_exchange_row()})

    # --- a server's

    def begin(self, champion: str, former: str) -> Service:
        """Put the first *champion* of a caller's own task into service, which can be taken back to *former*.

        Raises ``StoreError`` where the task has one.
        """
        state = self.state
        if self._store.champion(self._task) is not None:
            raise self._refused("it has begun")
        return self._install(state, "begun", self._store.policy(champion).id, former, {"void": BEGUN})

    # --- a watcher's or a person's

    def roll_back(self, reason: str, evidence: JsonObject | None = None, *, to: str | None = None) -> Service:
        """Put the former champion, or policy *to*, back into service; a canary under way ends with it.

        The line says for how many seconds the one that leaves was in service, where that is known.

        Raises ``StoreError`` where there is none, where *to* never was in service, and, where a watcher asks, while the
        champion is pinned or where a run of its own has replaced it: the evidence is about another one then.
        """
        state, leaving = self.state, self._champion()
        if self.lease is not None and state.is_pinned:
            raise self._refused("the champion is pinned")
        target = self._former(state, leaving) if to is None else self._once_in_service(to)
        if target == leaving:
            raise self._refused(f"policy {target[:12]} is in service already")
        served_s = self._clock() - state.since if state.since is not None and state.champion == leaving else None
        content = {"reason": reason, "evidence": evidence or {}, "left": leaving, "served_s": served_s}
        return self._install(state, "rolled-back", target, None, content | {"void": "" if self.lease else TAKEN_BACK})

    # --- a person's

    def force(
        self,
        policy: str,
        seed: str = "",
        holdback: float = 0.0,
        *,
        evidence: JsonObject | None = None,
        void: str = FORCED,
    ) -> Service:
        """Put *policy* into service without a confirmation; the line says what that voids.

        A canary under way ends with it.  Raises ``StoreError`` where it is in service already.
        """
        state, former, id = self.state, self._store.champion(self._task), self._store.policy(policy).id
        if id == former:
            raise self._refused(f"policy {id[:12]} is in service already")
        void = void if holdback or former is None else f"{void}; {ALONE}"
        content: JsonObject = {"registration": "", "first_at": None, "evidence": evidence or {}, "void": void}
        return self._install(state, "promoted", id, former, content, seed=seed, holdback=holdback)

    def ask(self) -> Service:
        """Have the watcher try to improve the task now; nothing else changes."""
        return self._move(self.state, "asked", {})

    def pause(self) -> Service:
        """Learn and ramp no further; what is in service is still watched, and taken back where it does harm."""
        return self._switch("paused", is_on=self.state.is_paused)

    def resume(self) -> Service:
        """Learn again."""
        return self._switch("resumed", is_on=not self.state.is_paused)

    def pin(self) -> Service:
        """Keep the champion whatever is seen; no challenger comes in either, and one under way stays where it is."""
        return self._switch("pinned", is_on=self.state.is_pinned, void=PINNED)

    def unpin(self) -> Service:
        """Let the champion be replaced again."""
        return self._switch("unpinned", is_on=not self.state.is_pinned)

    def forgot(self, content: JsonObject) -> Service:
        """Write down that something was forgotten: how much, and which ``policies`` lost their words; never what.

        None of these is seated any more: a canary or hold-back of one ends with the line.
        """
        return self._move(self.state, "forgotten", content)

    # --- what a move needs

    def _free(self) -> Service:
        """Return the state, in which a challenger may go on."""
        state = self.state
        if state.is_pinned:
            raise self._refused("the champion is pinned")
        if state.is_paused:
            raise self._refused("it is paused")
        return state

    def _challenged(self, state: Service) -> Stage:
        """Return the canary, which was compared with the champion of now."""
        if state.canary is None:
            raise self._refused("no challenger is on its way in")
        if state.canary.champion != self._champion():
            raise self._refused(f"policy {state.canary.policy[:12]} was compared with a champion that has gone")
        return state.canary

    def _champion(self) -> str:
        champion = self._store.champion(self._task)
        if champion is None:
            raise self._refused("nothing is in service yet; serve the task, or improve it, first")
        return champion

    def _former(self, state: Service, leaving: str) -> str:
        """Return who was in service before *leaving*: by this ledger, or for a person where a run replaced it since."""
        former = state.former
        if state.champion != leaving:
            before = (one.policy for one in reversed(self._store.champion_history(self._task)))
            former = next((one for one in before if one != leaving), None) if self.lease is None else None
        if former is None:
            raise self._refused("there is no former champion to go back to")
        return former

    def _once_in_service(self, policy: str) -> str:
        id = self._store.policy(policy).id
        before = {one.policy for one in self._store.champion_history(self._task)}
        if id not in before | {line.content.get("former") for line in self._store.ledger(service_key(self._task))}:
            raise self._refused(f"policy {id[:12]} never was in service; promote it instead")
        return id

    # --- writing

    def _switch(self, kind: LedgerKind, *, is_on: bool, void: str = "") -> Service:
        state = self.state
        return state if is_on else self._move(state, kind, {"void": void})

    def _stage(self, mode: Mode, policy: str, champion: str, share: float, seed: str) -> JsonObject:
        """Return a stage that begins now."""
        if not 0.0 < share < 1.0 or not seed:
            raise self._refused(f"a stage of share {share!r} and seed {seed!r} cannot be drawn")
        stage = {"mode": mode, "policy": policy, "champion": champion, "share": share, "seed": seed}
        return stage | {"at": self._clock(), "row": self._store.last_exchange_row()}

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
        is_held = former is not None and holdback != 0.0
        stage = self._stage("holdback", str(former), champion, holdback, seed) if is_held else None
        row = self._store.last_exchange_row()
        line = {**content, "champion": champion, "former": former, "holdback": stage, "row": row}
        return self._move(state, kind, line, champion=self._store.policy(champion))

    def _move(self, state: Service, kind: LedgerKind, content: JsonObject, champion: Policy | None = None) -> Service:
        """Write a line, with the time in it, on the state that it was decided on."""
        entry = self._store.append_ledger(
            service_key(self._task),
            kind,
            {"at": self._clock(), **content},
            champion=(self._task, champion) if champion else None,
            seq=state.lines,
            lease=self.lease,
        )
        return state.after(entry)

    def _refused(self, why: str) -> StoreError:
        return StoreError(f"task {self._task!r}: {why}; `gainful status` shows what is in service")
