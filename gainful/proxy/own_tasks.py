"""Callers' own tasks as one worker serves them: asked for by the name that all use, answered by what is theirs.

Guarantees: a request of a key that has its own task is never answered, kept or compared as the shared task's, not even
while the store cannot be read: then what answers all callers answers, under the own task's name.  An own task is put
into service when its caller first asks, off the event loop; keys may be added while the server runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from gainful.core import AdapterNotFound, GainfulError
from gainful.proxy.seating import Seating
from gainful.proxy.service import InService, Service, Watch, new_lane, read, warm
from gainful.store import Key, Store
from gainful.tasks import Task
from gainful.tasks.own import own_name, shared_name
from gainful.watch.own_tasks import own_tasks
from gainful.watch.service import settle

log = logging.getLogger("gainful.proxy")


class OwnTasks:
    """The own tasks of this worker's callers; *watch* keeps them as the store says, *opened* opens it."""

    def __init__(self, watch: Watch, opened: Callable[[], Store]) -> None:
        self._watch = watch
        self._opened = opened
        self._services: dict[str, Service] = {}  # by the names of the own tasks
        self._beginning = asyncio.Lock()

    async def start(self, shared: Sequence[Service]) -> None:
        """Put those into service that were asked for before; raises ``StoreError`` where the store cannot be read."""
        by_name = {service.task.name: service for service in shared}
        for task in await asyncio.to_thread(self._known, [service.task for service in shared]):
            await self._own(by_name[shared_name(task.name)], task.owner)

    async def service(self, shared: Service, key: Key | None) -> Service:
        """Return what answers a request of *key* for what *shared* stands for."""
        if key is None or not key.own_task:
            return shared
        found = self._services.get(own_name(shared.task.name, key.name))
        return found or await self._own(shared, key.name)

    async def _own(self, shared: Service, key: str) -> Service:
        task = shared.task.of(key)
        async with self._beginning:
            if task.name not in self._services:
                service = replace(shared, task=task, now=await self._now(task, shared))
                self._services[task.name] = service
                self._watch.add(service)
        return self._services[task.name]

    async def _now(self, task: Task, shared: Service) -> InService:
        served = shared.now.champion
        try:
            now = await asyncio.to_thread(self._read, task, shared)
            if now.champion.policy.id != served.policy.id:
                await warm(shared.usual.model, now.champion.policy)
        except AdapterNotFound as error:  # its answers will say so: they come without the adapter, failed open
            log.error("a policy lacks its adapter", extra={"task": task.name, "reason": str(error)})
        except GainfulError as error:
            log.error(
                "a caller's own task cannot be read yet", extra={"task": task.name, "reason": type(error).__name__}
            )
            return InService("", replace(served, task=task), {}, Seating(served.policy.id, new_lane()))
        return now

    def _read(self, task: Task, shared: Service) -> InService:
        served = shared.now.champion
        with self._opened() as store:
            settle(store, task)
            return read(store, task, shared.usual.model.name, served.judging, served.limits, new_lane())

    def _known(self, tasks: Sequence[Task]) -> list[Task]:
        with self._opened() as store:
            return own_tasks(store, tasks)
