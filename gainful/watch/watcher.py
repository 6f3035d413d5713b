"""The watcher of a task: takes traffic in, watches what is in service, tries to improve it, and moves it.

Guarantees: one watcher at a time acts for a task, whatever happens to it: it holds a lease, and each of its lines is
refused once another has taken the lease over.  Every round reads the state from the store, so a watcher that was killed
goes on where it was.  Watching and taking back come first; what breaks in learning promotes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gainful.core import GainfulError, JsonObject, Learner, Model, StoreError, StreamingModel
from gainful.learners import ON_TRAFFIC
from gainful.loop.session import data_folder
from gainful.models import connect
from gainful.store import Lease, MemoModel, Store, open_store
from gainful.tasks import Task, load
from gainful.watch.canary import CanaryWatch
from gainful.watch.evidence import quality_of, settled_at
from gainful.watch.holdback import CHANGED, Former, HoldbackWatch
from gainful.watch.intake import Intake
from gainful.watch.learning import Learning
from gainful.watch.probes import ProbeReport, Probes
from gainful.watch.screen import screen
from gainful.watch.service import Helm, Mode, Service, Stage, next_seed, service_key, settle, stages_of, watch_lease

AT_ONCE = 4  # calls of learning under way: callers come first, and wait for what a server does for us
ROUND_S = 2.0  # between two rounds: a bad champion is noticed within seconds
LEASE_S = 60.0  # a watcher that has been silent for so long is dead
EXCHANGES_A_ROUND = 10_000  # taken in at once: a long backlog must not keep the watcher from taking back

log = logging.getLogger("gainful.watch")


@dataclass(frozen=True)
class Workplace:
    """What a watcher works with.  ``model`` is asked for probes as it is; ``memo`` remembers what runs ask."""

    store: Store
    model: Model
    memo: Model
    model_spec: str
    receipts: Path
    signing_key: Path
    holder: str
    clock: Callable[[], float] = time.time


class Watcher:
    """Watches one task; ``round`` is to be called every few seconds."""

    def __init__(self, task: Task, place: Workplace, learners: Sequence[Learner] = ON_TRAFFIC) -> None:
        self.task = task
        self._place = place
        self._store = place.store
        self._intake = Intake(self._store, task, partial(screen, kind=task.kind, canaries=task.improving.canaries))
        self._learning = Learning(task, place.store, place.memo, place, learners)
        self._probes = Probes(self._store, task, place.model)
        self._canary: CanaryWatch | None = None
        self._holdback: tuple[str, HoldbackWatch] | None = None
        self._quality = quality_of(place.store, task)
        self._run: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[ProbeReport | None] | None = None
        self._alarms: list[str] = []
        self._served_since = 0
        self._is_settled = False
        self._forgettings = 0
        self._lease: Lease | None = None
        self._promoted: Stage | None = None  # whose repairs are still to be entered

    async def round(self) -> None:
        """Look once, and do what is due.  Raises ``StoreError`` where the store cannot be used."""
        self._lease = lease = self._take_lease()
        if lease is None:
            await self.close()
            return
        if not self._is_settled:  # once: another process may have read a newer task file since
            settle(self._store, self.task)
            self._is_settled = True
        self._finish()
        helm = Helm(self._store, self.task.name, self._place.clock, lease)
        self._intake.take(EXCHANGES_A_ROUND)
        state = helm.state
        if state.forgettings != self._forgettings:
            await self.close()  # a run may be learning from the words of whoever was forgotten
            self._forgettings = state.forgettings
        if state.canary is not None:
            self._watch_canary(helm, state, state.canary)
        self._watch_champion(helm)
        self._probe(helm)
        state = helm.state
        if state.is_paused or state.is_pinned:
            await self._stop_run()
        elif state.canary is None:
            self._learn(helm, lease)

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

    def _take_lease(self) -> Lease | None:
        """Take or renew the lease; one whose holder died on this machine need not be waited for."""
        name, store = watch_lease(self.task.name), self._store
        lease = store.take_lease(name, self._place.holder, LEASE_S)
        held = None if lease else store.find_lease(name)
        if held is None or not is_dead(held.holder):
            return lease
        store.end_lease(held)
        return store.take_lease(name, self._place.holder, LEASE_S)

    # --- what is in service

    def _watch_canary(self, helm: Helm, state: Service, stage: Stage) -> None:
        if stage.champion != self._store.champion(self.task.name):
            helm.reject("the champion it was compared with is no longer in service")
            return
        watch = self._canary_watch(stage)
        watch.read(self._settled_at)
        verdict, why = watch.verdict()
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
            self._promoted = stage

    def _watch_champion(self, helm: Helm) -> None:
        """Take the champion back where it does harm, and notice where quality falls."""
        state = helm.state
        watch = self._holdback_watch(state)
        watch.read(self._settled_at)
        why = watch.takes_back if self._former(state) is not None else ""
        if why and not state.is_pinned:
            helm.roll_back(why, watch.told)
            log.warning("champion taken back", extra={"task": self.task.name, "reason": why})
            self._alarms.append(why)
        elif about := why or watch.drifts:  # a pinned champion stays, and whoever pinned it is told
            helm.alarm(about, watch.told)
            log.warning("what is in service has become worse", extra={"task": self.task.name, "reason": about})
            self._alarms.append(CHANGED.get(about, about))
            self._holdback = None  # watch again, by what is usual now
            self._served_since = self._store.last_exchange_row()

    def _holdback_watch(self, state: Service) -> HoldbackWatch:
        stage = state.holdback if self._former(state) is not None else None
        champion = self._store.champion(self.task.name)
        name = f"{champion} {stage.id if stage else ''}"
        if self._holdback is None or self._holdback[0] != name:
            since = max(stage.row if stage else 0, self._served_since)
            former = self._former(state)
            before = Former(former, state.row) if former is not None and since <= state.row else None
            self._holdback = name, HoldbackWatch(self._store, self.task, champion, stage, since, self._quality, before)
        return self._holdback[1]

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
                self._alarms.append("another model answers behind the name")
        if self._probing is None:
            self._probing = asyncio.create_task(self._probes.round(self._place.clock()))

    # --- learning

    def _learn(self, helm: Helm, lease: Lease) -> None:
        """Begin a run where one is due, and stage what a finished one has proven."""
        if self._run is not None:
            return
        if self._promoted is not None:
            promoted, self._promoted = self._promoted, None
            self._run = asyncio.create_task(self._learning.settle(promoted.policy, promoted.champion))
            return
        proven = self._learning.unstaged()
        if proven is not None:
            self._begin(helm, proven.challenger, proven.registration)
        elif self._learning.is_due(self._place.clock(), self._alarms):
            self._alarms.clear()
            self._run = asyncio.create_task(self._learning.run(lease))

    def _begin(self, helm: Helm, challenger: str, registration: str) -> None:
        """Let a proven challenger in, unheard at first."""
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
        if error is not None:
            log.error("a run ended in an error", extra={"task": self.task.name, "reason": _said(error)})
            self._learning.failed(self._place.clock(), _said(error))


async def _stopped(*works: asyncio.Task[Any] | None) -> None:
    """Cancel what is under way, and wait for its end."""
    under_way = [work for work in works if work is not None]
    for work in under_way:
        work.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, GainfulError) else type(error).__name__


# --- the process


def watch(tasks: Sequence[str], model: str, store: Path, *, once: bool = False) -> None:
    """Watch *tasks* until SIGTERM or SIGINT; with *once*, do what is due now and return.

    Raises what loading and connecting raise.
    """
    asyncio.run(_watch([load(task) for task in tasks], model, Path(store).absolute(), once=once))


def this_process() -> str:
    """Return a holder's name that no other process has: machine, process, and something random."""
    return f"{socket.gethostname()} {os.getpid()} {os.urandom(4).hex()}"


def is_dead(holder: str) -> bool:
    """Whether *holder* was a process of this machine, and is no more; of another machine's nobody here can tell."""
    host, _, rest = holder.rpartition(" ")[0].rpartition(" ")
    if host != socket.gethostname() or not rest.isdigit():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def learning_model(spec: str) -> StreamingModel:
    """Return the model that *spec* names, to learn with: it is asked little at once."""
    return connect(spec, concurrency=AT_ONCE)


async def _watch(tasks: Sequence[Task], model: str, path: Path, *, once: bool) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    connected = learning_model(model)
    with open_store(path) as store:
        place = Workplace(
            store=store,
            model=connected,
            memo=MemoModel(connected, store),
            model_spec=model,
            receipts=path.parent / "receipts",
            signing_key=data_folder() / "signing-key.pem",
            holder=this_process(),
        )
        watchers = [Watcher(task, place) for task in tasks]
        log.info("watching", extra={"tasks": [task.name for task in tasks]})
        try:
            await _rounds(watchers, stopped, once=once)
        finally:
            for watcher in watchers:
                await watcher.leave()
            await connected.close()


async def _rounds(watchers: Sequence[Watcher], stopped: asyncio.Event, *, once: bool) -> None:
    while not stopped.is_set():
        for watcher in watchers:
            try:
                await watcher.round()
            except (
                StoreError
            ) as error:  # a full disk or a lost lease: nothing was moved, and the next round looks again
                log.warning("a round was cut short", extra={"task": watcher.task.name, "reason": str(error)})
        if once and not any(watcher.is_busy for watcher in watchers):
            return
        try:
            await asyncio.wait_for(stopped.wait(), ROUND_S)
        except TimeoutError:
            continue
