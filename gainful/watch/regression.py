"""What must stay right: repaired cases are asked of a challenger before it is staged, and of whoever came into service.

Guarantees: a challenger that breaks repaired cases is not staged, nor one that could not be asked them, and this can
only turn one away; what follows a promotion, a watcher's or a person's, is found in the ledger and the store, so that a
watcher that was killed goes on with it; what breaks off ``MOST_FAILURES`` times is left, so that learning goes on.
Leaves to others: the lines of the ledger (``watcher``), the rates (``repairs``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from gainful.core import JsonObject, Model, Policy, StoreError
from gainful.loop.events import Opened
from gainful.loop.journal import read_events
from gainful.store import Banked, LedgerEntry, Run, Store
from gainful.tasks import Task
from gainful.watch.learning import MOST_FAILURES, PAUSE_S, Proven
from gainful.watch.repairs import ASKED_AGAIN, Kept, ask_again, compared, repaired, repaired_cases
from gainful.watch.selection import select
from gainful.watch.service import service_key
from gainful.watch.traffic_task import needs_targets
from gainful.watch.triggers import LATEST, watch_runs

SETTLED = "settled"  # what stands of a promotion: its line, the cases that are compared, and whether all is done


class Objection(NamedTuple):
    """Why a challenger is not staged, and the figures behind it."""

    why: str
    evidence: JsonObject


class Regression:
    """Asks the repairs of one *task* of whom they concern; *model* remembers its calls."""

    def __init__(self, task: Task, store: Store, model: Model) -> None:
        self._task = task
        self._store = store
        self._model = model
        self._examined: tuple[Proven, str, Kept | None] | None = None  # beside which champion; None: it broke off
        self._work: Proven | LedgerEntry | None = None  # under way, or tried last
        self._failures = 0  # of it
        self._not_before = 0.0

    def is_resting(self, now: float) -> bool:
        """Whether the model or the disk is given a while, for what was asked last broke."""
        return now < self._not_before

    def failed(self, now: float) -> None:
        """Ask nothing for a while: the last work broke off."""
        self._not_before = now + PAUSE_S
        self._failures += 1
        if self._failures < MOST_FAILURES:
            return
        if isinstance(self._work, LedgerEntry):
            self._stands(self._work, [], now, is_done=True)
        elif self._work is not None:
            self._examined = self._work, self._champion, None

    # --- before a challenger is staged

    async def examine(self, proven: Proven) -> None:
        """Ask *proven* and the champion the latest repairs."""
        self._begin(proven)
        store, task, champion = self._store, self._task, self._champion
        cases = repaired_cases(store, task, math.inf)
        for policy in (champion, proven.challenger):
            await ask_again(store, task, self._model, store.policy(policy), cases)
        self._examined = proven, champion, compared(store, task.name, champion, proven.challenger, cases)

    def is_examined(self, proven: Proven) -> bool:
        """Whether it is known what *proven* makes of the repairs beside the champion of now, or cannot be known."""
        return self._examined is not None and self._examined[:2] == (proven, self._champion)

    def objection(self, proven: Proven) -> Objection | None:
        """Return why *proven*, which is examined, is not staged; ``None`` where nothing speaks against it."""
        kept = self._examined[2] if self._examined is not None and self.is_examined(proven) else None
        if kept is None:
            return Objection(f"the repaired cases could not be asked of it: that broke off {MOST_FAILURES} times", {})
        if not kept.is_harm:
            return None
        why = f"it gets {kept.broken} repaired cases wrong that the champion gets right, and mends {kept.mended}"
        return Objection(why, {"repairs": kept._asdict()})

    # --- after a promotion

    def unsettled(self) -> LedgerEntry | None:
        """Return the line by which the champion came into service, if what follows from it is not all done yet."""
        lines = self._store.ledger(service_key(self._task.name))
        moved = [line for line in lines if line.kind in ("promoted", "rolled-back")]
        if not moved or moved[-1].kind != "promoted":
            return None
        if moved[-1].content["champion"] != self._store.champion(self._task.name):
            return None
        return None if self._settled(moved[-1]).get("is_done") else moved[-1]

    async def settle(self, promotion: LedgerEntry, now: float) -> None:
        """Enter what the new champion has repaired, and ask it all repairs: how much of both stays is known by that.

        Compared are the dev cases of the run that found it.  One that a person put into service was found by none: it
        and the champion before are asked the same cases, chosen as a run's are.
        """
        self._begin(promotion)
        store, task, content = self._store, self._task, promotion.content
        champion, former = store.policy(content["champion"]), self._known(content["former"])
        run = self._run_of(content["registration"])
        chosen = self._compared(promotion, run, now)
        if former is not None:
            for policy in (former, champion) if run is None else ():
                await ask_again(store, task, self._model, policy, [banked.case for banked in chosen])
            before, after = (store.attempts(task.name, policy.id) for policy in (former, champion))
            later = {repair.id for repair in store.repairs(task.name) if repair.at > content["at"]}
            found = repaired(task, before, after, chosen, content["at"])
            store.put_repairs(task.name, [repair for repair in found if repair.id not in later])
        await ask_again(store, task, self._model, champion, repaired_cases(store, task, content["at"]))
        self._stands(promotion, [banked.id for banked in chosen], now, is_done=True)

    def _compared(self, promotion: LedgerEntry, run: Run | None, now: float) -> list[Banked]:
        """Return the dev cases on which a promotion is compared, the same ones after a kill."""
        store, task = self._store, self._task
        ids = run.spec["watch"]["cases"] if run is not None else self._settled(promotion).get("cases")
        if ids is None:
            latest = store.banked(task.name, "dev", limit=LATEST, only_targets=needs_targets(task))
            ids = [banked.id for banked in select(latest, task.improving, ASKED_AGAIN, promotion.seq)]
            self._stands(promotion, ids, now, is_done=False)
        return store.find_banked(task.name, ids)

    def _settled(self, promotion: LedgerEntry) -> JsonObject:
        """Return what stands of *promotion*, nothing where it stands of another."""
        standing = self._store.standing(self._task.name, SETTLED)
        return standing.content if standing is not None and standing.content["line"] == promotion.hash else {}

    def _stands(self, promotion: LedgerEntry, cases: Sequence[str], now: float, *, is_done: bool) -> None:
        content: JsonObject = {"line": promotion.hash, "cases": list(cases), "is_done": is_done}
        self._store.put_standing(self._task.name, SETTLED, now, content)

    def _run_of(self, registration: str) -> Run | None:
        """Return the run whose confirmation has this registration, ``None`` where a person did without one."""
        for run in reversed(watch_runs(self._store, self._task.name)) if registration else ():
            opened = (event for event in read_events(self._store, run.run) if isinstance(event, Opened))
            if any(event.registration == registration for event in opened):
                return run
        return None

    def _begin(self, work: Proven | LedgerEntry) -> None:
        if self._work != work:
            self._work, self._failures = work, 0

    @property
    def _champion(self) -> str:
        return str(self._store.champion(self._task.name))

    def _known(self, policy: str | None) -> Policy | None:
        """Return a stored policy, ``None`` where there is none or its words were forgotten."""
        try:
            return self._store.policy(policy) if policy else None
        except StoreError:
            return None
