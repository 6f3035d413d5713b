"""What learning of one task may spend in a day, and what it has spent: model calls and money.

Guarantees: a call of a run or a probe is charged before it is made, so that neither ``kill -9`` nor a run that breaks
makes one free, and counts by when it was made; where nothing is left none is made.  What a reply took is added as it
comes: ``kill -9`` loses that of the calls under way.  What the memo knows is no call.  A day is the present hour and
the 24 before it.

Shadows are asked by servers and counted by the tallies, as they are taken in; the watcher tells servers to ask no more
(``is_spent``).  While nobody watches nobody counts them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from gainful.core import JsonObject, Model, ModelError, Reply, TaskError, Usage, Value
from gainful.in_front import ModelInFront
from gainful.store import Store
from gainful.tasks import Task

HOUR_S = 3600
DAY_HOURS = 24
SPENT, BUDGET = "spent", "budget"  # what the store calls the count, and what servers are told


class Left(NamedTuple):
    """What may still be spent today, ``None`` where nothing limits it; below 0 where shadows took more than it."""

    calls: int | None
    usd: float | None

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return bool(self.why)

    @property
    def why(self) -> str:
        """What is spent, in words; "" where something is left."""
        if self.calls is not None and self.calls <= 0:
            return "the day's calls are spent"
        return "the day's money is spent" if self.usd is not None and self.usd <= 0.0 else ""


class Spent(Value, frozen=True):
    """What runs and probes took, by the hour (Unix time // 3600), and what the run charged last took of it."""

    hours: dict[int, Usage] = msgspec.field(default_factory=dict)
    run: str = ""
    of_run: Usage = Usage()


class Budget:
    """The day's budget of *task*, counted in *store* by *clock*."""

    def __init__(self, store: Store, task: Task, clock: Callable[[], float]) -> None:
        self._store = store
        self._task = task
        self._clock = clock

    def left(self) -> Left:
        """Return what may still be spent today."""
        improving = self._task.improving
        since = int(self._clock() // HOUR_S) - DAY_HOURS
        spent = sum((usage for hour, usage in self._spent().hours.items() if hour >= since), Usage())
        for one in self._store.tallies(self._task.name, since_hour=since):
            if one.arm == "shadow":
                spent += Usage(calls=one.calls, cost_usd=one.cost_usd)
        return Left(
            None if improving.calls_per_day is None else improving.calls_per_day - spent.calls,
            None if improving.usd_per_day is None else improving.usd_per_day - (spent.cost_usd or 0.0),
        )

    def of_run(self, run: str) -> Usage:
        """Return what *run* has taken: nothing where another was charged since."""
        spent = self._spent()
        return spent.of_run if spent.run == run else Usage()

    def charge(self, usage: Usage, run: str = "") -> None:
        """Add *usage* to what was spent this hour, and to what *run* took where one is named."""
        spent, now = self._spent(), self._clock()
        hour = int(now // HOUR_S)
        hours = {known: took for known, took in spent.hours.items() if known >= hour - DAY_HOURS}
        hours[hour] = hours.get(hour, Usage()) + usage
        of_run = (spent.of_run if run == spent.run else Usage()) + usage
        charged = Spent(hours, run, of_run) if run else msgspec.structs.replace(spent, hours=hours)
        self._store.put_standing(self._task.name, SPENT, now, msgspec.to_builtins(charged, str_keys=True))

    def _spent(self) -> Spent:
        standing = self._store.standing(self._task.name, SPENT)
        return msgspec.convert(standing.content, Spent, str_keys=True) if standing else Spent()


class MeteredModel(ModelInFront):
    """A ``Model`` that charges each call of *model* to *budget*, and to ``run`` where that names one.

    Raises ``ModelError`` in place of a call where nothing is left.
    """

    def __init__(self, model: Model, budget: Budget) -> None:
        super().__init__(model)
        self.run = ""
        self._budget = budget

    async def complete(self, body: JsonObject, *, sample: int = 0) -> Reply:
        """Answer as the model does."""
        run, left = self.run, self._budget.left()
        if left.is_spent:
            raise ModelError(f"model {self.name!r} was not asked: {left.why}; it is asked again as hours pass")
        self._budget.charge(Usage(calls=1), run)
        reply = await self._model.complete(body, sample=sample)
        self._budget.charge(msgspec.structs.replace(reply.usage, calls=0), run)
        return reply


def is_spent(store: Store, task: str) -> bool:
    """Whether the watcher of *task* has said last that nothing is left to spend; to be asked by servers."""
    standing = store.standing(task, BUDGET)
    return standing is not None and bool(standing.content["is_spent"])


def require_price(task: Task, *, is_known: bool) -> None:
    """Raise ``TaskError`` where money is limited and what a call costs is not known: nobody could keep that limit."""
    if task.improving.usd_per_day is not None and not is_known:
        raise TaskError(
            f"task {task.name!r}: improve.usd_per_day limits money, and what a call costs is not known; give --price, "
            "or limit improve.calls_per_day"
        )
