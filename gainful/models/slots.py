"""Which prompt lies in which slot of the engine, so that a prefix many requests share is computed once.

llama.cpp keeps the keys and values of each slot's last prompt and computes only what differs from it, but a
prefix computed in one slot does not help the others, and on a CPU reading the prompt is most of the work.  A
*stem* is all of a request before its last turn: instructions, demos, tools.  The second request with a stem
computes it alone and saves it to a file; every other slot restores that file, which takes milliseconds.  A stem
that comes once, as with tools that differ from case to case, costs nothing.

A wrong belief about a slot costs time, never correctness: the engine compares tokens before it reuses any.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gainful.core import JsonObject
from gainful.models.session import Session

SHORTEST = 400  # characters of a stem worth a file: about 100 tokens, a second of reading on one core
REMEMBERED = 256  # stems known to have come once
KEPT = 4  # stems kept in files: a race alternates between few policies, and a large model's stem takes 50 MB
PROMPT_FIELDS = ("tools", "tool_choice", "chat_template_kwargs")  # what goes into a prompt besides its messages


class Slots:
    """Hands out the engine's slots, one request each, and puts a request's stem into the slot it gets.

    Bound to the event loop it is first used in.  *folder* is the one the engine saves slots to.
    """

    def __init__(self, count: int, folder: Path, session: Session) -> None:
        self._folder = folder
        self._session = session
        self._free = asyncio.Semaphore(count)
        self._idle: OrderedDict[int, str] = OrderedDict.fromkeys(range(count), "")  # slot → prompt, longest idle first
        self._met: OrderedDict[str, None] = OrderedDict()  # names of the stems that have come, oldest first
        self._saved: OrderedDict[str, asyncio.Event] = OrderedDict()  # stem's name → set once its file can be read

    @asynccontextmanager
    async def slot(self, body: JsonObject) -> AsyncIterator[int]:
        """Wait for an idle slot, put the stem of *body* into it, and give its number.

        It is the slot that holds most of the prompt where one holds half of it, else the one idle longest.
        """
        prompt, stem = prompt_text(body), stem_text(body)
        async with self._free:
            shared, slot = max((common(held, prompt), -slot) for slot, held in self._idle.items())
            slot = -slot if 2 * shared >= len(prompt) else next(iter(self._idle))
            held = self._idle.pop(slot)
            left = ""  # what a call that broke off leaves behind is unknown
            try:
                if len(stem) >= SHORTEST and self._comes_again(stem) and not held.startswith(stem):
                    await self._fill(slot, body, stem)
                yield slot
                left = prompt
            finally:
                self._idle[slot] = left

    def _comes_again(self, stem: str) -> bool:
        name = hashlib.sha256(stem.encode()).hexdigest()
        again = name in self._met
        self._met[name] = None
        self._met.move_to_end(name)
        if len(self._met) > REMEMBERED:
            self._met.popitem(last=False)
        return again

    async def _fill(self, slot: int, body: JsonObject, stem: str) -> None:
        """Put the stem into *slot*: from its file, or by computing it when we are the first to need it."""
        name = hashlib.sha256(stem.encode()).hexdigest()
        if name in self._saved:
            self._saved.move_to_end(name)
            await self._saved[name].wait()
            await self._move("restore", slot, name)  # where there is no file after all, the request computes it
        else:
            await self._compute(slot, body, name)

    async def _compute(self, slot: int, body: JsonObject, name: str) -> None:
        ready = self._saved[name] = asyncio.Event()
        self._forget_oldest()
        saved = False
        try:
            messages = [*body["messages"][:-1], {"role": "user", "content": ""}]
            before = {"messages": messages, "max_tokens": 0, "id_slot": slot, **_fields(body)}
            response = await self._session.post("/v1/chat/completions", before)
            saved = response.status == 200 and await self._move("save", slot, name)
        finally:
            if not saved:
                self._saved.pop(name, None)  # the next to come tries again
            ready.set()

    async def _move(self, action: str, slot: int, name: str) -> bool:
        response = await self._session.post(f"/slots/{slot}?action={action}", {"filename": name})
        return response.status == 200

    def _forget_oldest(self) -> None:
        while len(self._saved) > KEPT:
            name, _ = self._saved.popitem(last=False)
            (self._folder / name).unlink(missing_ok=True)


def prompt_text(body: JsonObject) -> str:
    """Return what decides the prompt of *body*, as text whose beginning is its ``stem_text``."""
    return json.dumps([_fields(body), *_turns(body)])


def stem_text(body: JsonObject) -> str:
    """Return what decides the prompt of *body* up to its last turn."""
    return json.dumps([_fields(body), *_turns(body)[:-1]])[:-1]


def common(one: str, other: str) -> int:
    """Return the length of the beginning that two texts share.

    >>> common("abcd", "abx"), common("", "a"), common("ab", "ab")
    (2, 0, 2)
    """
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one.startswith(other[:middle]):
            low = middle
        else:
            high = middle - 1
    return low


def _fields(body: JsonObject) -> JsonObject:
    return {field: body[field] for field in PROMPT_FIELDS if field in body}


def _turns(body: JsonObject) -> list[JsonObject]:
    turns = body.get("messages")
    return turns if isinstance(turns, list) else []  # what is no list the engine refuses in its own words
