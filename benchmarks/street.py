"""A street: callers of a task, answered by whoever is seated, with everything stored as the proxy stores it.

In the path are the functions that the proxy's handler of a request calls: reading what is in service, seating, the
policy's prompt, draft, checks and correction (``proxy.chat``), the row that is kept (``proxy.books``), and the store's
writing of encoded rows.  The model is the shipped scripted one.  Not in the path: HTTP and its parsing, admission,
spans and figures, the recorder's thread (rows are stored together at the end of ``ask``), and the queue that drops
shadows of a busy server.  The time is the street's own, and so are lanes and names of replies, so that a street is a
function of its arguments.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from msgspec.structs import replace as with_time

from gainful.answers.allowance import UNLIMITED, Allowance
from gainful.core import Case, Exchange, Model, StreamingModel
from gainful.proxy.books import Arrival
from gainful.proxy.breaker import Breaker
from gainful.proxy.chat import Chat, Models
from gainful.proxy.redact import Keeping
from gainful.proxy.seating import unheard
from gainful.proxy.service import Placed, Service, judging_of, read
from gainful.proxy.spans import RequestSpan
from gainful.proxy.upstream import Guarded, Upstream
from gainful.proxy.wire import Ask
from gainful.store import SQLiteStore, Store
from gainful.tasks import Task
from gainful.watch.service import service_key, settle
from gainful.watch.watcher import Workplace


@dataclass
class Clock:
    """The time of the street and of its store."""

    now: float = 1.79e9

    def __call__(self) -> float:
        return self.now


@dataclass
class Street:
    """Callers ask ``case(number)`` for number = 0, 1, ...; a second passes with each request.

    The task's checks must be such as need no process of their own (``proxy.judging``).
    """

    store: Store
    task: Task
    model: StreamingModel
    case: Callable[[int], Case]
    clock: Clock
    key: str = "web"
    asked: int = 0
    _service: Service | None = field(default=None, init=False)
    _keeping: Keeping = field(default_factory=lambda: Keeping("full"), init=False)

    def ask(self, requests: int) -> None:
        """Have so many requests answered and stored, under the state of service as it is now."""
        asyncio.run(self._ask(requests))

    async def _ask(self, requests: int) -> None:
        service = self._looked()
        exchanges = []
        for _ in range(requests):
            self.clock.now += 1.0
            case = self.case(self.asked)
            self.asked += 1
            body = {"messages": list(case.messages), **({"tools": list(case.tools)} if case.tools else {})}
            ask = Ask(model=service.name, body=body)
            arrival = Arrival(service, service.now.place(), ask, self.key, UNLIMITED, time.perf_counter())
            exchanges.append(await self._answered(arrival, f"reply-{self.asked}"))
            placed = arrival.placed
            if placed.shadow is not None and placed.seat is not None:
                served = replace(placed.shadow, detector=None)
                arrival = replace(arrival, placed=Placed(served, unheard(placed.seat)))
                exchanges.append(await self._answered(arrival, f"reply-{self.asked}-shadow"))
        self.store.put_exchanges(exchanges)

    async def _answered(self, arrival: Arrival, name: str) -> Exchange:
        """Return the row of one reply, its draft alone where nobody hears it."""
        models = Models(Upstream(arrival.service.usual, RequestSpan(None, arrival.ask.model, {})))
        chat = Chat(arrival.placed.served, arrival.ask.body, models, Allowance(arrival.limits), lambda: True)
        if arrival.placed.arm == "shadow":
            await chat.draft()
            await chat.examine()
        else:
            await chat.finish()
        row = arrival.row(chat, chat.answered(), name, self._keeping, added_s=0.0)
        return with_time(row, at=self.clock.now)

    def _looked(self) -> Service:
        """Return what is in service now, seated in a new lane where that has changed since the last time."""
        task, store = self.task, self.store
        lane = f"lane {self.asked}"
        if self._service is None:
            settle(store, task)
            now = read(store, task, self.model.name, judging_of(task), UNLIMITED, lane)
            self._service = Service(task, Guarded(self.model, Breaker()), None, "hold", now)
        now = self._service.now
        if (store.champion(task.name), store.ledger_head(service_key(task.name))) != (now.champion.policy.id, now.head):
            self._service.now = read(store, task, self.model.name, now.champion.judging, UNLIMITED, lane)
        return self._service


def working(store: SQLiteStore, model: Model, clock: Clock, holder: str = "one") -> Workplace:
    """Return the workplace of a watcher on the street's store."""
    return Workplace(
        store=store,
        model=model,
        model_spec="scripted",
        receipts=store.path.parent / "receipts",
        signing_key=store.path.parent / "key.pem",
        holder=holder,
        clock=clock,
    )
