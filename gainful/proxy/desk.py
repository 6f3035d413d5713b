"""All that one worker answers with: tasks in service, models, store, keys, limits, figures."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gainful.answers.shape import PLAIN
from gainful.core import AdapterNotFound, ServeError, StreamingModel
from gainful.models import connect
from gainful.models.openai import Price
from gainful.models.patience import Patience
from gainful.proxy.admission import Admission
from gainful.proxy.books import Arrival
from gainful.proxy.breaker import Breaker
from gainful.proxy.keys import Keyring
from gainful.proxy.metrics import Metrics
from gainful.proxy.own_tasks import OwnTasks
from gainful.proxy.rates import Rates
from gainful.proxy.recorder import Recorder
from gainful.proxy.redact import Keeping
from gainful.proxy.service import Service, Watch, judging_of, new_lane, read, task_limits, warm
from gainful.proxy.settings import Settings
from gainful.proxy.shadows import Shadows
from gainful.proxy.spans import Spans
from gainful.proxy.upstream import Guarded
from gainful.store import Store, open_for_reading, open_store
from gainful.tasks import Task, load
from gainful.watch.budget import is_spent, require_price
from gainful.watch.service import settle

CORRECTIONS = "\ncorrections"  # its place among the rates of callers, none of whom has a line end in the name
ERRORS = "\nerrors"
TOLD = "\ntold"
TOLD_PER_MINUTE = 60  # requests without an answer that get a line in the log; /metrics counts them all
ERRORS_PER_MINUTE = 1200  # that are kept of a server whose model is down: some evidence, and no flood of rows
STATES = ("closed", "half-open", "open")  # of a breaker, from good to bad

log = logging.getLogger("gainful.proxy")


class Plan(NamedTuple):
    """What is to be served: tasks and model, as objects or in the words of the command line, and the store's place.

    Several workers need words: an object lives in one process.
    """

    tasks: tuple[Task | str, ...]
    model: StreamingModel | str
    store: str
    settings: Settings
    scratch: Path | None = None  # a folder that the workers of one server share


@dataclass
class Desk:
    """All that a worker answers with."""

    services: dict[str, Service]
    own_tasks: OwnTasks
    settings: Settings
    recorder: Recorder
    keyring: Keyring
    admission: Admission
    metrics: Metrics
    spans: Spans
    keeping: dict[str, Keeping]
    rates: Rates
    shadows: Shadows
    opened: Callable[[], Store]
    reading: Callable[[], Store]

    def may_correct(self) -> bool:
        """Take one correction from what all requests together may spend on them."""
        most = self.settings.corrections_per_minute
        return most is None or (most > 0 and self.rates.wait_s(CORRECTIONS, most) == 0.0)

    def may_tell(self) -> bool:
        """Take one line from those that requests without an answer may write."""
        return self.rates.wait_s(TOLD, TOLD_PER_MINUTE) == 0.0

    def keep_error(self, arrival: Arrival, status: int) -> None:
        """Keep that a seated request got an error with this status; in a storm, of some of them.

        Its shadow is asked all the same: else only the challenger could be caught in an error.
        """
        name = arrival.service.task.name
        is_kept = False
        try:
            if self.rates.wait_s(ERRORS, ERRORS_PER_MINUTE) == 0.0:
                row = arrival.error_row(status, self.keeping[arrival.service.name])
                is_kept = self.recorder.offer(row)
                if is_kept:
                    self.shadows.offer(arrival, row.id)
        except Exception as error:  # noqa: BLE001 - nobody waits for this any more, and its words may be the prompt's
            log.error("an error was not kept", extra={"task": name, "kind": type(error).__name__})
        if not is_kept:
            self.metrics.dropped(name, "error")


async def open_desk(plan: Plan, stack: AsyncExitStack) -> Desk:
    """Return all that a worker answers with; *stack* closes it, in reverse.

    Raises ``ServeError`` for tasks that cannot be served so, and what loading and connecting raise.
    """
    settings, opened = plan.settings, functools.partial(open_store, plan.store)
    opening = _Opening(plan, stack)
    with opened() as store:
        services = [await opening.service(task, store) for task in plan.tasks]
    names = [service.name for service in services]
    if len(set(names)) < len(names):
        raise ServeError(f"two tasks have the same name among {', '.join(names)}; name one of them otherwise")
    recorder = Recorder(plan.store, sync=settings.sync)
    stack.push_async_callback(asyncio.to_thread, recorder.close)
    keyring = Keyring(opened)
    stack.push_async_callback(keyring.close)
    await keyring.start()
    watch = Watch(services, opened)
    stack.push_async_callback(watch.close)
    watch.start()
    own_tasks = OwnTasks(watch, opened)
    await own_tasks.start(services)
    rates = Rates(plan.scratch and plan.scratch / "rates")
    stack.callback(rates.close)
    spans = Spans()
    stack.callback(spans.close)
    admission = Admission(settings.most_running, settings.most_waiting, rates)
    metrics = _watching(services, admission)
    keeping = {s.name: Keeping(settings.store_prompts, s.task.serving.redact) for s in services}
    shadows = Shadows(recorder, admission, metrics, keeping)
    stack.push_async_callback(shadows.close)
    metrics.watch("recorder_queue", lambda: recorder.waiting)
    metrics.watch("shadows", lambda: shadows.waiting)
    return Desk(
        services=dict(zip(names, services, strict=True)),
        own_tasks=own_tasks,
        settings=settings,
        recorder=recorder,
        keyring=keyring,
        admission=admission,
        metrics=metrics,
        spans=spans,
        keeping=keeping,
        rates=rates,
        shadows=shadows,
        opened=opened,
        reading=functools.partial(open_for_reading, plan.store),
    )


def _watching(services: Sequence[Service], admission: Admission) -> Metrics:
    metrics = Metrics()
    metrics.watch("running", lambda: admission.running)
    metrics.watch("waiting", lambda: admission.waiting)
    metrics.watch("breaker", lambda: max(STATES.index(service.usual.breaker.state) for service in services))
    return metrics


class _Opening:
    """Puts tasks into service; a model that several tasks name is connected once."""

    def __init__(self, plan: Plan, stack: AsyncExitStack) -> None:
        self._plan = plan
        self._stack = stack
        self._connected: dict[str, Guarded] = {}

    async def service(self, spec: Task | str, store: Store) -> Service:
        """Return the task *spec* as it is in service."""
        task = load(spec) if isinstance(spec, str) else spec
        serving, settings = task.serving, self._plan.settings
        limits = settings.limits.tightened(task_limits(task))
        if limits.extra_cost_usd is not None and (settings.price is None or serving.escalate):
            raise ServeError(
                f"money is limited for task {task.name!r}, and what a call costs is not known; give --price and "
                "escalate to no other model, or limit calls and tokens"
            )
        if settings.improve:
            require_price(task, is_known=settings.price is not None)
        if not task.keyless:
            log.warning("no check judges the replies: all of this task's read an answer key", extra={"task": task.name})
        judging = judging_of(task)
        await judging.start()
        self._stack.push_async_callback(judging.close)
        usual = self._guarded(self._plan.model, settings.price)
        settle(store, task)
        now = read(store, task, usual.model.name, judging, limits, new_lane())
        for policy in (PLAIN, now.champion.policy):
            store.put_policy(policy)
        try:
            await warm(usual.model, now.champion.policy)
        except AdapterNotFound as error:
            raise ServeError(
                f"task {task.name!r}: the champion cannot be served: {error}, or put another policy into service "
                "(gainful rollback)"
            ) from error
        return Service(
            task=task,
            usual=usual,
            stronger=self._guarded(serving.escalate, None) if serving.escalate else None,
            stream=settings.stream or serving.stream,
            now=now,
            is_spent=is_spent(store, task.name),
        )

    def _guarded(self, spec: StreamingModel | str, price: Price | None) -> Guarded:
        name = spec if isinstance(spec, str) else spec.name
        if name not in self._connected:
            settings = self._plan.settings
            patience = Patience(attempts=1, timeout_s=settings.upstream_s)
            model = spec
            if isinstance(model, str):
                model = connect(model, patience=patience, concurrency=settings.most_running, price=price)
                self._stack.push_async_callback(model.close)
            self._connected[name] = Guarded(model, Breaker())
        return self._connected[name]
