"""Which request gets which slot, against an engine that only writes down what it was asked."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gainful.models.session import Session
from gainful.models.slots import KEPT, Slots

RULES = "Use only values that occur in the request. " * 20


class Engine:
    """Saves a slot as an empty file; ``log`` holds what was done, in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log: list[tuple[str, int]] = []
        self.saves = True
        self.app = web.Application()
        self.app.router.add_post("/v1/chat/completions", self._compute)
        self.app.router.add_post("/slots/{slot}", self._move)

    async def _compute(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["max_tokens"] == 0
        await asyncio.sleep(0.01)
        self.log.append(("compute", body["id_slot"]))
        return web.json_response({"choices": []})

    async def _move(self, request: web.Request) -> web.Response:
        action, name = request.query["action"], (await request.json())["filename"]
        self.log.append((action, int(request.match_info["slot"])))
        if action == "save" and self.saves:
            (self.folder / name).touch()
        return web.json_response({}, status=200 if (self.folder / name).exists() else 400)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[tuple[Engine, Slots]]:
    engine = Engine(tmp_path)
    async with TestServer(engine.app) as server:
        session = Session(str(server.make_url("")), None, connections=8, timeout=aiohttp.ClientTimeout())
        yield engine, Slots(4, tmp_path, session)
        await session.close()


def body(question: str, rules: str = RULES) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": rules}, {"role": "user", "content": question}]}


async def ask(slots: Slots, *bodies: dict[str, Any]) -> list[int]:
    """Have all these under way at once; return their slots."""
    under_way = asyncio.Barrier(len(bodies))

    async def one(asked: dict[str, Any]) -> int:
        async with slots.slot(asked) as slot:
            await under_way.wait()
            return slot

    return await asyncio.gather(*map(one, bodies))


async def test_a_stem_that_comes_again_is_computed_once_and_restored_elsewhere(engine: tuple[Engine, Slots]) -> None:
    written, slots = engine
    used = await ask(slots, *(body(f"question {n}") for n in range(4)))

    assert sorted(used) == [0, 1, 2, 3]
    assert written.log[:2] == [("compute", 1), ("save", 1)]
    assert sorted(written.log[2:]) == [("restore", 2), ("restore", 3)]


async def test_a_stem_that_comes_once_costs_nothing(engine: tuple[Engine, Slots]) -> None:
    written, slots = engine
    await ask(slots, *(body("question", f"{number} {RULES}") for number in range(4)))

    assert written.log == []


async def test_a_slot_that_holds_the_stem_is_used_as_it_is(engine: tuple[Engine, Slots]) -> None:
    written, slots = engine
    await ask(slots, body("one"))
    done = list(written.log)
    await ask(slots, body("two"))
    await ask(slots, body("three"))

    assert written.log == done


async def test_a_request_goes_to_the_slot_that_holds_most_of_its_prompt(engine: tuple[Engine, Slots]) -> None:
    _, slots = engine
    used = await ask(slots, body("apples"), body("pears"), body("plums"))

    assert await ask(slots, body("plums and figs"), body("apples and figs")) == [used[2], used[0]]


async def test_a_prompt_like_no_other_takes_the_slot_that_was_idle_longest(engine: tuple[Engine, Slots]) -> None:
    _, slots = engine

    assert [(await ask(slots, body(letter * 99, "Be brief.")))[0] for letter in "abcdef"] == [0, 1, 2, 3, 0, 1]


async def test_a_short_stem_is_left_to_the_engine(engine: tuple[Engine, Slots]) -> None:
    written, slots = engine
    await ask(slots, body("one", "Be brief."), body("two", "Be brief."))

    assert written.log == []


async def test_tools_are_part_of_the_stem(engine: tuple[Engine, Slots]) -> None:
    written, slots = engine
    tool = {"type": "function", "function": {"name": "f", "description": RULES}}
    await ask(slots, *({**body(question), "tools": [tool]} for question in ("one", "two")))
    await ask(slots, body("one"), body("two"))

    assert [action for action, _ in written.log].count("compute") == 2


async def test_only_a_few_stems_are_kept_in_files(engine: tuple[Engine, Slots]) -> None:
    written, slots = engine
    for number in range(KEPT + 3):
        await ask(slots, body("one", f"{number} {RULES}"), body("two", f"{number} {RULES}"))

    assert len(list(written.folder.iterdir())) == KEPT


async def test_an_engine_that_cannot_save_is_asked_all_the_same(engine: tuple[Engine, Slots]) -> None:
    written, slots = engine
    written.saves = False

    assert sorted(await ask(slots, *(body(f"question {n}") for n in range(4)))) == [0, 1, 2, 3]


async def test_a_cancelled_computation_leaves_the_stem_to_the_next(engine: tuple[Engine, Slots]) -> None:
    written, slots = engine
    async with slots.slot(body("met before")):
        first = asyncio.create_task(ask(slots, body("one")))
        second = asyncio.create_task(ask(slots, body("two")))
        await asyncio.sleep(0.001)
        first.cancel()
        await second
        await ask(slots, body("three"), body("four"))

    assert "save" in [action for action, _ in written.log]
    assert len(list(written.folder.iterdir())) == 1


@pytest.mark.parametrize("messages", [None, "hi", {}, []])
async def test_what_is_no_list_of_turns_is_left_to_the_engine(engine: tuple[Engine, Slots], messages: object) -> None:
    written, slots = engine

    assert await ask(slots, {"messages": messages}) == [0]
    assert written.log == []
