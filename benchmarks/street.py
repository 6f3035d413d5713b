"""A street: callers of a task, answered by whoever is seated, with everything stored as the proxy stores it.

The proxy's own seating decides who answers; the model is the shipped scripted one; judging is the task's.  Only HTTP is
left out, so that thousands of requests take a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gainful.answers.answer import Asking, answer, judge_by
from gainful.answers.prompt import request
from gainful.core import Case, Exchange, Model, Policy, Seat
from gainful.proxy.seating import Seating, unheard
from gainful.store import MemoModel, SQLiteStore, Store
from gainful.tasks import Task
from gainful.watch.service import read_service
from gainful.watch.watcher import Workplace


@dataclass
class Clock:
    """The time of the street and of its store."""

    now: float = 1.79e9

    def __call__(self) -> float:
        return self.now


@dataclass
class Street:
    """Callers ask ``case(number)`` for number = 0, 1, ...; a second passes with each request."""

    store: Store
    task: Task
    model: Model
    case: Callable[[int], Case]
    clock: Clock
    key: str = "web"
    asked: int = 0

    def ask(self, requests: int) -> None:
        """Have so many requests answered and stored, under the state of service as it is now."""
        asyncio.run(self._ask(requests))

    async def _ask(self, requests: int) -> None:
        champion = self.store.champion(self.task.name) or self.task.baseline.id
        state = read_service(self.store, self.task.name)
        seating = Seating(champion, f"lane {self.asked}", state.canary, state.holdback)
        exchanges = []
        for _ in range(requests):
            self.clock.now += 1.0
            case = self.case(self.asked)
            self.asked += 1
            seated = seating.take()
            exchanges.append(await self._answered(case, seated.policy, seated.seat))
            if seated.shadow is not None and seated.seat is not None:
                exchanges.append(await self._answered(case, seated.shadow, unheard(seated.seat)))
        self.store.put_exchanges(exchanges)

    async def _answered(self, case: Case, policy: str, seat: Seat | None) -> Exchange:
        found = self._policy(policy)
        asking = Asking(case, found, self.model, self.task.kind, request(found, case, self.task.kind))
        judging = judge_by(self.task.keyless)
        outcome = await answer(asking, judging)
        suffix = "-shadow" if seat is not None and seat.arm == "shadow" else ""
        return Exchange(
            id=f"reply-{self.asked}{suffix}",
            at=self.clock.now,
            task=self.task.name,
            policy=policy,
            model=self.model.name,
            verdict="unverified",
            key=self.key,
            request={"model": "m", "messages": list(case.messages), "tools": list(case.tools)},
            reply={"choices": []},
            value=outcome.answer.value,
            verdicts=await judging(case, outcome.answer),
            usage=outcome.usage,
            seat=seat,
        )

    def _policy(self, id: str) -> Policy:
        return self.task.baseline if id == self.task.baseline.id else self.store.policy(id)


def working(store: SQLiteStore, model: Model, clock: Clock, holder: str = "one") -> Workplace:
    """Return the workplace of a watcher on the street's store."""
    return Workplace(
        store=store,
        model=model,
        memo=MemoModel(model, store),
        model_spec="scripted",
        receipts=store.path.parent / "receipts",
        signing_key=store.path.parent / "key.pem",
        holder=holder,
        clock=clock,
    )
