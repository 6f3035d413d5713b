"""A reply in pieces: passed as it comes, held until it was checked, or released segment by segment.

Guarantees: every frame is one server-sent event or one comment; what was released is never taken back; the chat is
complete (drafted, examined, perhaps corrected) when a generator ends; an error before the first frame is raised, so
that the caller gets a status for it.  The closing ``[DONE]`` is the server's to send, once the reply is on disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from gainful.core import Json, JsonObject, RequestRefused
from gainful.models.chunks import split
from gainful.proxy.chat import Chat
from gainful.proxy.chunks import Assembler
from gainful.proxy.segments import Segmenter
from gainful.proxy.wire import Ask

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
WITH_USAGE = {"include_usage": True}

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(JsonObject).decode


def frame(payload: bytes) -> bytes:
    """Return one server-sent event."""
    return b"data: " + payload + b"\n\n"


def comment(name: str, value: str) -> bytes:
    """Return a comment that says what a header would have said; clients pass over it."""
    return f": {name} {value}\n\n".encode()


async def passed(chat: Chat, ask: Ask) -> AsyncGenerator[bytes, None]:
    """Yield the model's own events, byte for byte, and check behind them."""
    drafting = Drafting(chat)
    async for payload, chunk in drafting.chunks():
        if chunk.get("choices") or ask.include_usage:  # the usage that only we asked for is ours to read
            yield frame(payload)
    if drafting.is_cut_off:
        yield frame(_encode(drafting.ending()))
    await chat.examine()


async def held(chat: Chat, ask: Ask) -> AsyncGenerator[bytes, None]:
    """Yield the reply once it was checked and perhaps corrected."""
    await chat.finish()
    for chunk in split(chat.answered().body, include_usage=ask.include_usage):
        yield frame(_encode(chunk))


async def segmented(chat: Chat, ask: Ask) -> AsyncGenerator[bytes, None]:
    """Yield complete segments, each once the next is complete, until a segment check objects to one.

    From there on, and always the last one, the text is held until the whole reply was checked and perhaps corrected;
    a correction counts only if it begins with what was released.
    """
    drafting, segmenter = Drafting(chat), segmenter_for(chat)
    released, waiting, is_quiet = "", "", True
    async for _, chunk in drafting.chunks():
        for segment in segmenter.feed(_text(chunk)):
            is_quiet = is_quiet and await chat.passes_segment(segment)
            if not is_quiet:
                break
            if waiting:
                yield frame(_encode(_piece(chunk, waiting, is_first=not released)))
                released += waiting
            waiting = segment
    await chat.examine()
    await chat.correct(begins_with=released)
    for chunk in split(_rest(chat.answered().body, released), include_usage=ask.include_usage):
        yield frame(_encode(chunk))


async def kept_alive(frames: AsyncGenerator[bytes, None], keep_alive_s: float) -> AsyncGenerator[bytes, None]:
    """Yield *frames*, and a comment whenever nothing came for *keep_alive_s*."""
    ahead: asyncio.Future[bytes] | None = None
    try:
        while True:
            ahead = ahead or asyncio.ensure_future(anext(frames))
            if not (await asyncio.wait([ahead], timeout=keep_alive_s))[0]:
                yield KEEP_ALIVE
                continue
            try:
                found = ahead.result()
            except StopAsyncIteration:
                return
            ahead = None
            yield found
    finally:
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)
        await frames.aclose()


class Drafting:
    """A draft that streams in: its chunks as they come, and the whole of it in *chat* at the end.

    At the deadline the stream ends with what has come, ``is_cut_off``; where nothing has, ``TimeoutError`` is raised.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._assembler = Assembler()
        self._came = False
        self.is_cut_off = False

    async def chunks(self) -> AsyncGenerator[tuple[bytes, JsonObject], None]:
        """Yield each payload, and the chunk in it."""
        try:
            async with aclosing(self._asked()) as found:
                async for one in found:
                    yield one
            return
        except RequestRefused as error:
            if self._came or not self._chat.ask_plainly(error):
                raise
        async with aclosing(self._asked()) as found:
            async for one in found:
                yield one

    async def _asked(self) -> AsyncGenerator[tuple[bytes, JsonObject], None]:
        asking, started = self._chat.asking, time.perf_counter()
        asking.allowance.claim()
        async with aclosing(self._chat.models.usual.stream({**asking.body, "stream_options": WITH_USAGE})) as payloads:
            while True:
                try:
                    async with asyncio.timeout(asking.allowance.left_s):
                        payload = await anext(payloads)
                except StopAsyncIteration:
                    break
                except TimeoutError:
                    if not self._came:
                        raise
                    self.is_cut_off = True
                    break
                self._came = True
                chunk = _decode(payload)
                self._assembler.feed(chunk)
                yield payload, chunk
        if self.is_cut_off:
            self._assembler.feed(self.ending())
        self._chat.take(self._assembler.body(), (time.perf_counter() - started) * 1000)

    def ending(self) -> JsonObject:
        """Return the chunk that ends a reply which the deadline cut off."""
        head = {name: value for name, value in self._assembler.body().items() if name in ("id", "created", "model")}
        ended = {"index": 0, "delta": {}, "finish_reason": "length"}
        return {**head, "object": "chat.completion.chunk", "choices": [ended]}


def segmenter_for(chat: Chat) -> Segmenter:
    """Return what cuts this chat's reply: JSON value by value where the answer is JSON, else sentence by sentence."""
    return Segmenter("json" if isinstance(chat.served.task.kind, Json) else "text")


def _text(chunk: JsonObject) -> str:
    """Return the words that *chunk* adds to the first choice."""
    added = (choice["delta"].get("content") for choice in chunk.get("choices") or () if choice.get("index", 0) == 0)
    return "".join(filter(None, added))


def _piece(chunk: JsonObject, text: str, *, is_first: bool) -> JsonObject:
    """Return *chunk* with *text* as all that it adds."""
    delta = {"role": "assistant", "content": text} if is_first else {"content": text}
    return {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def _rest(body: JsonObject, released: str) -> JsonObject:
    """Return the reply without what the caller has already."""
    first, *others = body["choices"]
    content = first["message"].get("content")
    if not released or not isinstance(content, str):
        return body
    message = {**first["message"], "content": content[len(released) :]}
    return {**body, "choices": [{**first, "message": message}, *others]}
