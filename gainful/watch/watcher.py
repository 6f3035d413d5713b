"""The watcher of a task: takes traffic in, watches what is in service, tries to improve it, and moves it.

Guarantees: one watcher at a time acts for a task, whatever happens to it: it holds a lease, and each of its lines is
refused once another has taken the lease over.  Every round reads the state from the store, so a watcher that was killed
goes on where it was.  Watching and taking back come first; what breaks in learning promotes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from gainful.core import GainfulError, JsonObject, Learner, Model, StoreError
from gainful.learners import ON_TRAFFIC
from gainful.store import Lease, MemoModel, Store
from gainful.tasks import Task
from gainful.watch.budget import BUDGET, Budget, MeteredModel
from gainful.watch.canary import CanaryWatch
from gainful.watch.evidence import quality_of, settled_at
from gainful.watch.holdback import Former, HoldbackWatch
from gainful.watch.holder import is_dead
from gainful.watch.intake import BATCH, FEEDBACK, Intake
from gainful.watch.learning import Learning, Proven
from gainful.watch.probes import ProbeReport, Probes
from gainful.watch.regression import Regression
from gainful.watch.screen import screen
from gainful.watch.service import (
    Helm,
    Mode,
    Service,
    Stage,
    left_at,
    next_seed,
    service_key,
    settle,
    stages_of,
    watch_lease,
)
from gainful.watch.triggers import Waiting

LEASE_S = 60.0  # a watcher that has been silent for so long is dead
EXCHANGES_A_ROUND = 10_000  # taken in at once: a long backlog must not keep the watcher from taking back

PAUSED = Waiting("paused", "learning is paused")
PINNED = Waiting("pinned", "the champion is pinned")
RAMPING = Waiting("ramping", "a challenger is on its way in")
RUNNING = Waiting("running", "a run is under way")
BROKEN = Waiting("broken", "corrected errors could not be asked again; they are after a while")
REPAIRS = Waiting("running", "corrected errors are asked again under the new champion")

log = logging.getLogger("gainful.watch")


@dataclass(frozen=True)
class Workplace:
    """What a watcher works with.  ``model`` is asked for probes as it is; what runs ask is remembered."""

    store: Store
    model: Model
    model_spec: str
    receipts: Path
    signing_key: Path
    holder: str
    clock: Callable[[], float] = time.time


class _Compared(NamedTuple):
    """The watch on a champion, the stage that holds its former one back, if any, and the row behind which it began."""

    champion: str | None
    stage: str
    since: int
    watch: HoldbackWatch


class Watcher:
    """Watches one task; ``round`` is to be called every few seconds."""

    def __init__(self, task: Task, place: Workplace, learners: Sequence[Learner] = ON_TRAFFIC) -> None:
        self.task = task
        self._place = place
        self._store = place.store
        self._intake = Intake(self._store, task, partial(screen, kind=task.kind, canaries=task.improving.canaries))
        self._budget = Budget(place.store, task, place.clock)
        self._learning = Learning(task, place.store, place.model, place, self._budget, learners)
        metered = MeteredModel(place.model, self._budget)
        self._regression = Regression(task, place.store, MemoModel(metered, place.store))
        self._probes = Probes(self._store, task, metered)
        self._canary: CanaryWatch | None = None
        self._holdback: _Compared | None = None
        self._quality = quality_of(place.store, task)
        self._run: asyncio.Task[None] | None = None
        self._is_regression = False  # what is under way, and no run
        self._probing: asyncio.Task[ProbeReport | None] | None = None
        self._told: dict[str, JsonObject] = {}  # how things stand, as it was written last
        self._is_settled = False
        self.is_behind = False  # whether more than one round's share had come
        self._forgettings = 0
        self._lease: Lease | None = None

    async def round(self) -> None:
        """Look once, and do what is due.  Raises ``StoreError`` where the store cannot be used."""
        self.is_behind = False
        self._lease = lease = self._take_lease()
        if lease is None:
            self._told.clear()  # whoever has it says now how things stand
            await self.close()
            return
        if not self._is_settled:  # once: another process may have read a newer task file since
            settle(self._store, self.task, self._place.clock)
            self._is_settled = True
        self._finish()
        helm = Helm(self._store, self.task.name, self._place.clock, lease)
        self._take_in()
        state = helm.state
        if state.forgettings != self._forgettings:
            await self.close()  # a run may be learning from the words of whoever was forgotten
            self._forgettings = state.forgettings
        if state.canary is not None:
            self._watch_canary(helm, state, state.canary)
        self._watch_champion(helm)
        if self._holdback is not None:
            compared = self._holdback
            ids = {"champion": compared.champion, "stage": compared.stage}
            self._tell("hold-back", {**ids, **compared.watch.told})
        self._probe(helm)
        waits = await self._improve(helm, lease)
        left = self._budget.left()
        self._tell(BUDGET, {"is_spent": left.is_spent})
        self._tell("learning", {**waits._asdict(), "calls_left": left.calls, "usd_left": left.usd})

    async def close(self) -> None:
        """Stop what is under way; the next watcher goes on with it."""
        await _stopped(self._probing)
        self._probing = None
        await self._stop_run()

    async def _stop_run(self) -> None:
        await _stopped(self._run)
        self._run = None

    async def leave(self) -> None:
        """Stop what is under way, and let another watcher begin at once."""
        await self.close()
        if self._lease is not None:
            self._store.end_lease(self._lease)

    @property
    def is_busy(self) -> bool:
        """Whether a run is under way, or what follows a promotion."""
        return self._run is not None

    @property
    def under_way(self) -> list[asyncio.Task[Any]]:
        """What goes on between rounds: a run, or probes."""
        return [work for work in (self._run, self._probing) if work is not None]

    def _take_lease(self) -> Lease | None:
        """Take or renew the lease; one whose holder died on this machine need not be waited for."""
        name, store = watch_lease(self.task.name), self._store
        lease = store.take_lease(name, self._place.holder, LEASE_S)
        held = None if lease else store.find_lease(name)
        if held is None or not is_dead(held.holder):
            return lease
        store.end_lease(held)
        return store.take_lease(name, self._place.holder, LEASE_S)

    def _take_in(self) -> None:
        taken = self._intake.take(EXCHANGES_A_ROUND)
        said = self._store.feedback_after(self.task.name, self._store.cursor(self.task.name, FEEDBACK), limit=BATCH)
        self.is_behind = taken >= EXCHANGES_A_ROUND or len(said) == BATCH

    def _tell(self, name: str, content: JsonObject) -> None:
        """Keep how something stands, where that has changed, for whoever looks on."""
        if self._told.get(name) != content:
            self._store.put_standing(self.task.name, name, self._place.clock(), content)
            self._told[name] = content

    # --- what is in service

    def _watch_canary(self, helm: Helm, state: Service, stage: Stage) -> None:
        if stage.champion != self._store.champion(self.task.name):
            helm.reject("the champion it was compared with is no longer in service")
            return
        watch = self._canary_watch(stage)
        watch.read(self._settled_at)
        verdict, why = watch.verdict()
        found: JsonObject = {"stage": stage.id, "seen": watch.seen, "evidence": watch.told}
        self._tell("canary", {**found, "verdict": verdict, "why": why})
        if verdict == "roll back":
            helm.reject(why, watch.told)
            log.warning("challenger taken back", extra={"task": self.task.name, "reason": why})
        elif verdict == "go on" and not (state.is_paused or state.is_pinned):
            self._advance(helm, state, stage, watch.told)

    def _canary_watch(self, stage: Stage) -> CanaryWatch:
        """Return the reader of this challenger's evidence, which goes on from stage to stage."""
        if self._canary is None or not self._canary.goes_on_to(stage):
            ledger = self._store.ledger(service_key(self.task.name))
            stages = [known for known in stages_of(ledger) if known.policy == stage.policy][-(stage.step + 1) :]
            self._canary = CanaryWatch(self._store, self.task, stages, self._quality)
        return self._canary

    def _advance(self, helm: Helm, state: Service, stage: Stage, evidence: JsonObject) -> None:
        """Take the next stage: a larger share, or into service."""
        shares = self.task.improving.ramp
        following = (
            0
            if stage.mode == "shadow"
            else next((place + 1 for place, share in enumerate(shares) if share == stage.share), len(shares))
        )
        if following < len(shares):
            seed = next_seed(self.task.name, state)
            helm.stage(stage.policy, "canary", shares[following], seed, state.registration, evidence)
            log.info("challenger goes on", extra={"task": self.task.name, "share": shares[following]})
        else:
            helm.promote(next_seed(self.task.name, state), self.task.improving.holdback, evidence)
            log.info("promoted", extra={"task": self.task.name, "policy": stage.policy})

    def _watch_champion(self, helm: Helm) -> None:
        """Take the champion back where it does harm, and notice where quality falls."""
        state = helm.state
        watch = self._holdback_watch(state)
        watch.read(self._settled_at)
        why = watch.takes_back if self._former(state) is not None else ""
        if why and not state.is_pinned:
            helm.roll_back(why, watch.told)
            log.warning("champion taken back", extra={"task": self.task.name, "reason": why})
        elif about := why or watch.drifts:  # a pinned champion stays, and whoever pinned it is told
            helm.alarm(about, watch.told)
            log.warning("what is in service has become worse", extra={"task": self.task.name, "reason": about})

    def _holdback_watch(self, state: Service) -> HoldbackWatch:
        """Return the reader of the champion's evidence, which begins anew behind its last alarm."""
        stage = state.holdback if self._former(state) is not None else None
        champion = self._store.champion(self.task.name)
        since = max(stage.row if stage else 0, self._rang_at(champion))
        wanted = champion, stage.id if stage else "", since
        if self._holdback is None or self._holdback[:3] != wanted:
            before = self._before(state) if since <= state.row else None
            watch = HoldbackWatch(self._store, self.task, champion, stage, since, self._quality, before)
            self._holdback = _Compared(*wanted, watch)
        return self._holdback.watch

    def _before(self, state: Service) -> Former | None:
        """Return whose last answers the champion is held against: the former one's, or its own where it came back."""
        if (former := self._former(state)) is not None:
            return Former(former, state.row)
        champion = self._store.champion(self.task.name)
        if champion is None or champion != state.champion:
            return None  # a run of its own has put it there
        row = left_at(self._store.ledger(service_key(self.task.name)), champion)
        return None if row is None else Former(champion, row)

    def _rang_at(self, champion: str | None) -> int:
        """Return the row at which the last alarm about *champion* rang, 0 where none has; the model's are no such."""
        lines = (entry.content for entry in self._store.ledger(service_key(self.task.name)) if entry.kind == "alarm")
        rows = [line["row"] for line in lines if line["about"] != "model" and line.get("policy", "") == champion]
        return int(rows[-1]) if rows else 0

    @property
    def _settled_at(self) -> float:
        return settled_at(self.task.improving, self._place.clock())

    def _former(self, state: Service) -> str | None:
        """Return whom the champion is compared with; nobody where a run of its own has put another into service."""
        return state.former if state.champion == self._store.champion(self.task.name) else None

    def _probe(self, helm: Helm) -> None:
        """Ask old cases again beside all else, and say so where the model behind the name has changed."""
        if self._probing is not None and self._probing.done():
            error = self._probing.exception()
            report = None if error else self._probing.result()
            self._probing = None
            if error is not None:
                log.warning(
                    "old cases could not be asked again", extra={"task": self.task.name, "reason": _said(error)}
                )
            if report is not None and report.is_alarm:
                helm.alarm("model", report.told)
                log.warning("another model answers behind the name", extra={"task": self.task.name})
        now = self._place.clock()
        if self._probing is None and not self._budget.left().is_spent and self._probes.is_due(now):
            self._probing = asyncio.create_task(self._probes.round(now))

    # --- learning

    async def _improve(self, helm: Helm, lease: Lease) -> Waiting:
        """Go on with learning where it may; return what it does, or waits for."""
        state = helm.state
        if state.is_paused or state.is_pinned:
            await self._stop_run()
            return PAUSED if state.is_paused else PINNED
        if state.canary is None:
            return self._learn(helm, lease)
        left = self._budget.left()
        is_unheard = state.canary.mode == "shadow"
        return Waiting("spent", f"{RAMPING.why} and waits: {left.why}") if is_unheard and left.is_spent else RAMPING

    def _learn(self, helm: Helm, lease: Lease) -> Waiting:
        """Begin a run where one is due, and stage what a finished one has proven."""
        if self._run is not None:
            return RUNNING
        proven = self._learning.unstaged()
        if self._regression.is_resting(self._place.clock()):
            return BROKEN
        if (work := self._regression_work(proven)) is not None:
            if (left := self._budget.left()).is_spent:
                work.close()
                return Waiting("spent", left.why)
            self._run, self._is_regression = asyncio.create_task(work), True
            return REPAIRS
        if proven is not None:
            self._begin(helm, proven)
            return RAMPING
        return self._learning.waits_for(self._place.clock()) or self._begin_run(lease)

    def _begin_run(self, lease: Lease) -> Waiting:
        """Begin a run, or go on with one, unless another process makes one of this task: then the next round asks."""
        held = contextlib.ExitStack()
        try:
            held.enter_context(self._store.lock_run(self.task.name))
        except StoreError as error:
            return Waiting("locked", str(error))
        self._run, self._is_regression = asyncio.create_task(self._learning.run(lease)), False
        self._run.add_done_callback(lambda _: held.close())
        return RUNNING

    def _regression_work(self, proven: Proven | None) -> Coroutine[Any, Any, None] | None:
        """Return what is to be asked of the last promotion's champion, or else of a challenger that is to be staged."""
        if (promotion := self._regression.unsettled()) is not None:
            return self._regression.settle(promotion, self._place.clock())
        return self._regression.examine(proven) if proven and not self._regression.is_examined(proven) else None

    def _begin(self, helm: Helm, proven: Proven) -> None:
        """Let a proven challenger in, unheard at first, unless it breaks what was repaired."""
        challenger, registration = proven
        if (objection := self._regression.objection(proven)) is not None:
            helm.refuse(challenger, registration, *objection)
            log.warning("challenger not staged", extra={"task": self.task.name, "reason": objection.why})
            return
        improving, state = self.task.improving, helm.state
        mode: Mode = "shadow" if improving.shadow > 0.0 else "canary"
        share = improving.shadow or improving.ramp[0]
        helm.stage(challenger, mode, share, next_seed(self.task.name, state), registration)
        log.info("challenger staged", extra={"task": self.task.name, "policy": challenger, "mode": mode})

    def _finish(self) -> None:
        """Let go of a run that has ended."""
        if self._run is None or not self._run.done():
            return
        error, self._run = self._run.exception(), None
        if error is not None and (left := self._budget.left()).is_spent:
            log.info("a run waits", extra={"task": self.task.name, "reason": left.why})
        elif error is not None:
            log.error("a run ended in an error", extra={"task": self.task.name, "reason": _said(error)})
            if self._is_regression:
                self._regression.failed(self._place.clock())
            else:
                self._learning.failed(self._place.clock(), _said(error))


async def _stopped(*works: asyncio.Task[Any] | None) -> None:
    """Cancel what is under way, and wait for its end."""
    under_way = [work for work in works if work is not None]
    for work in under_way:
        work.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, GainfulError) else type(error).__name__
