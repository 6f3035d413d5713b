"""A streamed reply of a server, checked while it passes: the payloads of its events, up to the end that it announces.

Guarantees: each payload is a JSON object and is passed on as it came; a reply that does not come to its end is an
error and never looks whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import aiohttp

from gainful.core import JsonObject, ModelError, RequestRefused
from gainful.models.events import DONE, EventParser
from gainful.models.patience import may_pass
from gainful.models.session import decoded, error_words

LAST_S = 0.1  # how long the last bytes after [DONE] are waited for, so that the connection can be used again


async def payloads(response: aiohttp.ClientResponse, who: str) -> AsyncGenerator[bytes, None]:
    """Yield the payloads of *response* that come before ``[DONE]``; empty ones, which keep a line alive, are left out.

    Raises ``ModelError``, its sentence beginning with *who*, for a payload that is no JSON object, for an error in the
    stream (``RequestRefused`` where that says so), and for a stream that breaks off: neither ``[DONE]`` came nor a
    ``finish_reason`` for every choice that was begun.
    """
    parser, ends = EventParser(), _Ends()
    while piece := await _piece(response, who):
        for payload in parser.feed(piece):
            bare = payload.strip()
            if bare == DONE:
                await _read_out(response)
                return
            if bare:
                ends.note(_chunk(payload, who))
                yield payload
    if not ends.are_reached:
        raise ModelError(f"{who} broke off its stream before the end of the reply; ask again")


class _Ends:
    """Which choices of a reply were begun and which came to their end."""

    def __init__(self) -> None:
        self._begun: set[Any] = set()
        self._ended: set[Any] = set()

    def note(self, chunk: JsonObject) -> None:
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                index = str(choice.get("index"))
                self._begun.add(index)
                if choice.get("finish_reason") is not None:
                    self._ended.add(index)

    @property
    def are_reached(self) -> bool:
        return bool(self._ended) and self._begun == self._ended


async def _piece(response: aiohttp.ClientResponse, who: str) -> bytes:
    try:
        return await response.content.readany()
    except TimeoutError as error:
        raise ModelError(f"{who} did not end its stream in time; ask again") from error
    except (aiohttp.ClientError, OSError) as error:
        raise ModelError(f"{who} broke off its stream ({type(error).__name__}: {error}); ask again") from error


async def _read_out(response: aiohttp.ClientResponse) -> None:
    """Read what follows the end, which is nothing as a rule: a reply left unread costs its connection."""
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(LAST_S):
            while await response.content.readany():
                pass


def _chunk(payload: bytes, who: str) -> JsonObject:
    try:
        chunk = decoded(payload)
    except (ValueError, RecursionError):
        chunk = None
    if not isinstance(chunk, dict):
        shown = payload[:80].decode(errors="replace")
        raise ModelError(f"{who} sent something in its stream that is no JSON object: {shown!r}; ask again")
    error = chunk if chunk.get("object") == "error" else chunk.get("error")
    if error:
        raise _error(error, chunk, who)
    return chunk


def _error(error: Any, chunk: JsonObject, who: str) -> ModelError:
    """Return what a server says in the middle of a stream, where only ``code`` can still hold an HTTP status."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else None
    words = error_words({"error": error}) or str(error)[:200]
    if status is not None and not may_pass(status):
        return RequestRefused(f"{who} refused the request ({status}): {words!r}", status=status, said=chunk)
    return ModelError(f"{who} reported an error in its stream: {words!r}; ask again", status=status, said=chunk)
