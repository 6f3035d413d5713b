"""The engines that are in memory: the model alone, and the model with one adapter each.

llama.cpp shares what it remembers of a prompt between adapters, and gives another adapter's answers with it; it takes
no adapter into a running engine either.  So each has an engine.

Guarantees: at most ``MOST`` engines are in memory; the one that nobody has used for longest makes room, and never while
a call is under way in it; a call that finds no room waits, and is not passed over for ever: the engine that is to go
takes no new calls.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gainful.core import Adapter
from gainful.models.engine import Engine

MOST = 3  # champion, challenger, and the former champion or the model alone; each takes memory for its slots


class Shelf:
    """Gives out engines by adapter, ``None`` for the model alone; *made* makes one that is not there."""

    def __init__(self, made: Callable[[Adapter | None], Engine]) -> None:
        self._made = made
        self._engines: OrderedDict[Adapter | None, Engine] = OrderedDict()  # longest unused first
        self._ending: dict[Adapter | None, asyncio.Task[None]] = {}
        self._waiting: set[asyncio.Future[None]] = set()

    @asynccontextmanager
    async def engine(self, adapter: Adapter | None) -> AsyncIterator[Engine]:
        """Give the engine of *adapter*, in memory or yet to be loaded, and keep it there while it is used."""
        engine = await self._entered(adapter)
        try:
            yield engine
        finally:
            engine.users -= 1
            if engine.users == 0 and (engine.is_lost or engine.is_leaving):
                self._end(adapter, engine)

    @property
    def holds_one(self) -> bool:
        """Whether one engine alone is in memory or coming into it."""
        return len(self._engines) == 1

    async def close(self) -> None:
        """Free all; calls that are under way, or wait for room, are cancelled."""
        for waiter in self._waiting:
            waiter.cancel()
        engines, self._engines = self._engines, OrderedDict()
        for engine in engines.values():
            await engine.close()
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(ending for ending in self._ending.values() if ending.get_loop() is loop))
        self._ending.clear()

    async def _entered(self, adapter: Adapter | None) -> Engine:
        while True:
            engine = self._engines.get(adapter)
            if engine is None and len(self._engines) < MOST:
                engine = self._engines[adapter] = self._made(adapter)
            if engine is not None and not (engine.is_leaving or engine.is_lost):
                self._engines.move_to_end(adapter)
                engine.users += 1
                return engine
            await self._room(adapter if engine is not None else self._last())

    def _last(self) -> Adapter | None:
        """Return whose engine makes room: one that is on its way out, else idle, else the longest unused."""
        return min(self._engines, key=lambda a: (not self._engines[a].is_leaving, self._engines[a].users > 0))

    async def _room(self, adapter: Adapter | None) -> None:
        """Wait for a change, once the engine of *adapter* takes no new calls."""
        engine = self._engines[adapter]
        engine.is_leaving = True
        if engine.users == 0:
            self._end(adapter, engine)
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def _end(self, adapter: Adapter | None, engine: Engine) -> None:
        if adapter not in self._ending and self._engines.get(adapter) is engine:
            self._ending[adapter] = asyncio.create_task(self._ended(adapter, engine))

    async def _ended(self, adapter: Adapter | None, engine: Engine) -> None:
        try:
            await engine.close()
        finally:
            if self._engines.get(adapter) is engine:
                del self._engines[adapter]
            self._ending.pop(adapter, None)
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_result(None)
