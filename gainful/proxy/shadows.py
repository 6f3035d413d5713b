"""Asks the challenger what the champion was asked, once the caller has the champion's reply.

Guarantees: one shadow at a time in a worker, few wait, the rest is dropped and counted; none is asked while callers
fill the house or the model ails, for callers or for shadows, nor, from some seconds on, after the watcher has said that
the day's budget of learning is spent; a shadow shares with callers neither circuit breaker, process of checks nor
account, so that nothing it does is seen by one of them; it is stored as an exchange of its own, judged by the same
checks, and never corrected.

Which shadows are dropped depends on how busy the server is, on errors before and on how many calls were made, never on
the replies of the pair; an error of the champion's has its shadow too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from gainful.answers.allowance import Allowance
from gainful.core import CheckError, Exchange, ModelError, Seat
from gainful.proxy.admission import Admission
from gainful.proxy.books import Arrival
from gainful.proxy.breaker import Breaker
from gainful.proxy.chat import Chat, Models, Served
from gainful.proxy.judging import Judging
from gainful.proxy.metrics import Metrics
from gainful.proxy.recorder import Recorder
from gainful.proxy.redact import Keeping
from gainful.proxy.replies import status_of
from gainful.proxy.seating import unheard
from gainful.proxy.service import Placed, Service, judging_of
from gainful.proxy.spans import RequestSpan
from gainful.proxy.upstream import Guarded, Upstream
from gainful.watch.evidence import SHADOW

MOST_WAITING = 4  # what waits longer is compared with a champion of another minute

log = logging.getLogger("gainful.proxy")


class _Shadow(NamedTuple):
    arrival: Arrival
    served: Served
    seat: Seat
    name: str


@dataclass(frozen=True)
class _Own:
    """What the shadows of one task use in place of what callers use."""

    model: Guarded
    judging: Judging


class Shadows:
    """The shadows of one worker."""

    def __init__(
        self, recorder: Recorder, admission: Admission, metrics: Metrics, keeping: Mapping[str, Keeping]
    ) -> None:
        self._recorder = recorder
        self._admission = admission
        self._metrics = metrics
        self._keeping = keeping
        self._own: dict[str, _Own] = {}  # by the task's name; made when it is first needed
        self._waiting: deque[_Shadow] = deque()
        self._running: asyncio.Task[None] | None = None
        self._is_closed = False

    def offer(self, arrival: Arrival, name: str) -> None:
        """Have *arrival* answered unheard where its seat says so; its caller has the reply or error called *name*."""
        served, seat = arrival.placed.shadow, arrival.placed.seat
        if served is None or seat is None or self._is_closed:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._drop(arrival)
            return
        self._waiting.append(_Shadow(arrival, served, unheard(seat), f"{name}{SHADOW}"))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())

    @property
    def waiting(self) -> int:
        """How many wait or are under way."""
        is_running = self._running is not None and not self._running.done()
        return len(self._waiting) + is_running

    async def close(self) -> None:
        """Leave at once what is under way."""
        self._is_closed = True
        self._waiting.clear()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        for own in self._own.values():
            await own.judging.close()

    async def _run(self) -> None:
        while self._waiting:
            shadow = self._waiting.popleft()
            if shadow.arrival.service.is_spent or not self._is_quiet(shadow.arrival.service):
                self._drop(shadow.arrival)
                continue
            try:
                row = await self._answered(shadow)
            except Exception as error:  # noqa: BLE001 - nobody asked for it: its kind is for the log, its words are not
                log.error("a shadow failed", extra={"kind": type(error).__name__})
                self._drop(shadow.arrival)
                continue
            if not self._recorder.offer(row):
                self._drop(shadow.arrival)

    def _is_quiet(self, service: Service) -> bool:
        admission, (model, breaker), own = self._admission, service.usual, self._own.get(service.task.name)
        if breaker.state != "closed" or (own is not None and own.model.breaker.state == "open"):
            return False
        return admission.running < min(admission.most_running, model.concurrency) and not admission.waiting

    async def _answered(self, shadow: _Shadow) -> Exchange:
        """Return the row of what the challenger answers, or of its error."""
        service = shadow.arrival.service
        own, keeping = await self._own_of(service), self._keeping[service.name]
        served = replace(shadow.served, judging=own.judging, detector=None)
        models = Models(Upstream(own.model, RequestSpan(None, service.name, {})))
        arrival = replace(shadow.arrival, placed=Placed(served, shadow.seat), began_s=time.perf_counter())
        chat = Chat(served, arrival.ask.body, models, Allowance(arrival.limits), lambda: False)
        try:
            await chat.draft()
        except (ModelError, TimeoutError) as error:
            self._metrics.seated(service.task.name, "shadow", "error")
            return arrival.error_row(status_of(error), keeping, shadow.name)
        await chat.examine()
        answered = chat.answered()
        self._metrics.seated(service.task.name, "shadow", "answered")
        self._metrics.shadowed(service.task.name, answered.usage)
        added_s = time.perf_counter() - arrival.began_s - models.busy_s
        return arrival.row(chat, answered, shadow.name, keeping, added_s)

    async def _own_of(self, service: Service) -> _Own:
        name = service.task.name
        if name not in self._own:
            own = self._own[name] = _Own(Guarded(service.usual.model, Breaker()), judging_of(service.task))
            with contextlib.suppress(CheckError):  # judging says so again
                await own.judging.start()
        return self._own[name]

    def _drop(self, arrival: Arrival) -> None:
        self._metrics.dropped(arrival.service.task.name, "shadow")
