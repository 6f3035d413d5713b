"""Which engines are in memory, against real loopback servers in place of llama.cpp."""

import asyncio
import tempfile
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestServer
from model_servers import ChatServer

from gainful.core import Adapter, AdapterNotFound
from gainful.models.engine import Engine, Loaded
from gainful.models.shelf import MOST, Shelf
from gainful.models.specials import Specials

A, B, C, D = (Adapter(digit * 64, "m", rank=1, alpha=1.0) for digit in "abcd")
BODY = {"messages": [{"role": "user", "content": "hi"}]}


class Loads:
    """Loads engines that answer from one server, and notes when which was loaded and freed."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.events: list[tuple[str, Adapter | None]] = []
        self.broken: set[Adapter | None] = set()

    def engine(self, adapter: Adapter | None) -> Engine:
        return Engine(lambda: self.load(adapter), 8, "key")

    def load(self, adapter: Adapter | None) -> Loaded:
        if adapter in self.broken:
            raise AdapterNotFound("it is not here")
        self.events.append(("loaded", adapter))
        return Freed(self, adapter)

    def in_memory(self) -> int:
        return sum(1 if what == "loaded" else -1 for what, _ in self.events)


class Freed(Loaded):
    def __init__(self, loads: Loads, adapter: Adapter | None) -> None:
        super().__init__(loads.address, tempfile.TemporaryDirectory(), Specials([]))
        self._noted = loads, adapter

    def free(self) -> None:
        super().free()
        loads, adapter = self._noted
        loads.events.append(("freed", adapter))


@pytest.fixture
async def loads() -> AsyncIterator[Loads]:
    async with TestServer(ChatServer().app) as server:
        yield Loads(str(server.make_url("")))


async def ask(shelf: Shelf, adapter: Adapter | None) -> int:
    async with shelf.engine(adapter) as engine, engine.asked() as line:
        return (await line.session.post("/v1/chat/completions", BODY)).status


async def test_the_engine_that_was_idle_longest_makes_room(loads: Loads) -> None:
    shelf = Shelf(loads.engine)
    for adapter in (None, A, B, None, C):
        assert await ask(shelf, adapter) == 200
    await shelf.close()

    assert loads.events[:5] == [("loaded", None), ("loaded", A), ("loaded", B), ("freed", A), ("loaded", C)]
    assert loads.in_memory() == 0


async def test_an_engine_in_use_is_not_freed_and_who_waits_for_room_gets_it(loads: Loads) -> None:
    shelf, held = Shelf(loads.engine), asyncio.Event()

    async def hold(adapter: Adapter | None) -> None:
        async with shelf.engine(adapter) as engine, engine.asked():
            await held.wait()

    holding = [asyncio.create_task(hold(adapter)) for adapter in (A, B, C)]
    await asyncio.sleep(0.05)
    waiting = [asyncio.create_task(ask(shelf, adapter)) for adapter in (D, None, A)]
    await asyncio.sleep(0.05)
    before = [task.done() for task in waiting], loads.in_memory()
    held.set()

    assert before == ([False] * 3, MOST)
    assert await asyncio.gather(*waiting) == [200] * 3
    await asyncio.gather(*holding)
    await shelf.close()
    assert loads.in_memory() == 0


async def test_calls_for_more_adapters_than_fit_all_end_and_never_too_many_are_in_memory(loads: Loads) -> None:
    shelf = Shelf(loads.engine)
    statuses = await asyncio.gather(*(ask(shelf, adapter) for adapter in (None, A, B, C, D) * 6))
    most = max(sum(1 if what == "loaded" else -1 for what, _ in loads.events[:n]) for n in range(len(loads.events) + 1))
    await shelf.close()

    assert statuses == [200] * 30
    assert most <= MOST


@pytest.mark.slow
async def test_a_steady_stream_of_calls_does_not_keep_another_adapter_out(loads: Loads) -> None:
    shelf, is_over = Shelf(loads.engine), asyncio.Event()

    async def steadily(adapter: Adapter) -> None:
        while not is_over.is_set():
            await ask(shelf, adapter)

    steady = [asyncio.create_task(steadily(adapter)) for adapter in (A, B, C) * 3]
    await asyncio.sleep(0.05)
    assert await asyncio.wait_for(ask(shelf, D), 5) == 200
    is_over.set()
    await asyncio.gather(*steady)
    await shelf.close()


async def test_an_adapter_that_cannot_be_loaded_takes_no_room_and_is_tried_again(loads: Loads) -> None:
    shelf = Shelf(loads.engine)
    loads.broken = {A, B, C, D}
    for adapter in (A, B, C, D):
        with pytest.raises(AdapterNotFound):
            await ask(shelf, adapter)
    loads.broken = set()

    assert [await ask(shelf, adapter) for adapter in (A, B)] == [200, 200]
    await shelf.close()


async def test_who_stops_waiting_leaves_the_others_as_they_were(loads: Loads) -> None:
    shelf, held = Shelf(loads.engine), asyncio.Event()

    async def hold(adapter: Adapter | None) -> None:
        async with shelf.engine(adapter) as engine, engine.asked():
            await held.wait()

    holding = [asyncio.create_task(hold(adapter)) for adapter in (A, B, C)]
    await asyncio.sleep(0.05)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await ask(shelf, D)
    held.set()
    await asyncio.gather(*holding)

    assert [await ask(shelf, adapter) for adapter in (A, B, C, D)] == [200] * 4
    await shelf.close()
    assert loads.in_memory() == 0


async def test_closing_cancels_calls_under_way_and_those_that_wait_for_room(loads: Loads) -> None:
    shelf = Shelf(loads.engine)

    async def hold(adapter: Adapter | None) -> None:
        async with shelf.engine(adapter) as engine, engine.asked():
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(hold(adapter)) for adapter in (A, B, C, D)]
    await asyncio.sleep(0.05)
    await shelf.close()
    done, _ = await asyncio.wait(tasks, timeout=5)

    assert all(task.cancelled() for task in tasks)
    assert len(done) == 4
    assert loads.in_memory() == 0
    assert await ask(shelf, D) == 200
    await shelf.close()
