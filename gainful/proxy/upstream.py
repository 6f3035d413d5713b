"""The model as one request uses it: every call counted, timed, traced and told to the circuit breaker.

Guarantees: no call is made while the breaker is open; ``busy_s`` counts time in which at least one call was under way,
once, however many ran together; where a policy's adapter cannot be had the model answers without it, and ``failure``
says so.  What the calls cost is in the replies; retries are the caller's business, for theirs and ours would multiply.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import NamedTuple

from gainful.core import AdapterNotFound, JsonObject, Reply, StreamingModel
from gainful.models.adapters import without_adapter
from gainful.proxy.breaker import Breaker
from gainful.proxy.spans import CallSpan, RequestSpan


class Guarded(NamedTuple):
    """A model and the breaker that all requests share."""

    model: StreamingModel
    breaker: Breaker


class Upstream:
    """A ``StreamingModel`` for one request; *span* is the request's."""

    def __init__(self, guarded: Guarded, span: RequestSpan) -> None:
        model, self._breaker = guarded
        self.name = model.name
        self.concurrency = model.concurrency
        self.calls = 0
        self.busy_s = 0.0
        self.failure = ""  # the kind of error that a call went on without
        self._model = model
        self._span = span
        self._running = 0
        self._since_s = 0.0

    @property
    def identity(self) -> JsonObject:
        """The model's identity."""
        return self._model.identity

    async def complete(self, body: JsonObject, *, sample: int = 0) -> Reply:
        """Ask the model; raises ``ModelError`` with status 503 at once while the breaker is open."""
        with self._call() as span:
            try:
                reply = await self._model.complete(body, sample=sample)
            except AdapterNotFound as error:
                reply = await self._model.complete(self._bare(body, error), sample=sample)
            span.heard(reply.body)
            return reply

    async def stream(self, body: JsonObject) -> AsyncGenerator[bytes, None]:
        """Ask the model for a stream, likewise."""
        with self._call():
            try:
                async with aclosing(self._model.stream(body)) as payloads:
                    async for payload in payloads:
                        yield payload
                return
            except AdapterNotFound as error:  # always before the first piece
                bare = self._bare(body, error)
            async with aclosing(self._model.stream(bare)) as payloads:
                async for payload in payloads:
                    yield payload

    def _bare(self, body: JsonObject, error: AdapterNotFound) -> JsonObject:
        self.failure = type(error).__name__
        return without_adapter(body)

    async def close(self) -> None:
        """Do nothing: the model outlives the request."""

    @contextmanager
    def _call(self) -> Iterator[CallSpan]:
        with self._breaker.call(), self._span.call(self.name) as span:
            self.calls += 1
            self._running += 1
            if self._running == 1:
                self._since_s = time.perf_counter()
            try:
                yield span
            finally:
                self._running -= 1
                if self._running == 0:
                    self.busy_s += time.perf_counter() - self._since_s
