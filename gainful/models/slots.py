"""Which prompt lies in which slot of the engine, so that a prefix many requests share is computed once.

llama.cpp keeps the keys and values of each slot's last prompt and computes only what differs from it, but a
prefix computed in one slot does not help the others, and on a CPU reading the prompt is most of the work.  A
*stem* is all of a request before its last turn: instructions, demos, tools.  The first request with a stem
computes it alone and saves it to a file; every other slot restores that file, which takes milliseconds.

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

SHORTEST = 400  # bytes of a stem worth sharing: about 100 tokens, a second of reading on one core
KEPT = 4  # stems kept in files: a race alternates between few policies, and a large model's stem takes 50 MB
PROMPT_FIELDS = ("tools", "tool_choice", "chat_template_kwargs")  # what else goes into the text of a prompt


class Slots:
    """Hands out the engine's slots, one request each, and puts a request's stem into the slot it gets.

    Save files lie in a folder of its own that goes when the object does.
    """

    def __init__(self, count: int, folder: Path, session: Session) -> None:
        self._folder = folder
        self._session = session
        self._free = asyncio.Semaphore(count)
        self._idle: OrderedDict[int, str] = OrderedDict.fromkeys(range(count), "")  # slot → stem, longest idle first
        self._saved: OrderedDict[str, asyncio.Event] = OrderedDict()  # stem → set once its file can be read

    @asynccontextmanager
    async def slot(self, body: JsonObject) -> AsyncIterator[int]:
        """Wait for a slot that is idle, and give the number of one whose contents suit *body* best."""
        before = stem(body)
        written = json.dumps(before, sort_keys=True).encode()
        name = hashlib.sha256(written).hexdigest() if len(written) >= SHORTEST else ""
        async with self._free:
            slot = next((s for s, held in self._idle.items() if name and held == name), next(iter(self._idle)))
            held = self._idle.pop(slot)
            try:
                if name and held != name and await self._fill(slot, name, before):
                    held = name
                yield slot
            finally:
                self._idle[slot] = held

    async def _fill(self, slot: int, name: str, before: JsonObject) -> bool:
        """Put the stem into *slot*: from its file, or by computing it when we are the first to need it."""
        ready = self._saved.get(name)
        if ready is None:
            return await self._compute(slot, name, before)
        self._saved.move_to_end(name)
        await ready.wait()
        return await self._move("restore", slot, name)

    async def _compute(self, slot: int, name: str, before: JsonObject) -> bool:
        ready = self._saved[name] = asyncio.Event()
        self._forget_oldest()
        saved = False
        try:
            response = await self._session.post("/v1/chat/completions", {**before, "max_tokens": 0, "id_slot": slot})
            saved = response.status == 200 and await self._move("save", slot, name)
        finally:
            if not saved:
                self._saved.pop(name, None)  # the next to come tries again
            ready.set()  # those who wait go on: without a file they compute for themselves
        return saved

    async def _move(self, action: str, slot: int, name: str) -> bool:
        response = await self._session.post(f"/slots/{slot}?action={action}", {"filename": name})
        return response.status == 200

    def _forget_oldest(self) -> None:
        while len(self._saved) > KEPT:
            name, _ = self._saved.popitem(last=False)
            (self._folder / name).unlink(missing_ok=True)


def stem(body: JsonObject) -> JsonObject:
    """Return the request whose prompt is that of *body* up to the words of its last turn."""
    turns = body.get("messages")
    before = turns[:-1] if isinstance(turns, list) else []
    messages = [*before, {"role": "user", "content": ""}]
    return {"messages": messages, **{field: body[field] for field in PROMPT_FIELDS if field in body}}
