"""Send chat requests on a schedule that waits for nobody, and say how long each took from its scheduled time.

    python open_loop.py http://127.0.0.1:8000/v1 MODEL --rate 100 --seconds 10 [--stream] [--arrivals poisson]

A closed loop asks again only after an answer, so that a server which stalls is asked less and looks fast (coordinated
omission).  Here a request that finds no connection, or a stalled server, is late and counts from when it was due.

Prints one JSON object: ``sent``, ``asked`` (with the warm-up, which counts nowhere else), ``good``, ``failures``
by kind, ``rate`` reached, ``latency_ms`` and, for streams, ``first_ms`` (the first event's data) of the good ones as
p50, p90, p99 and max, ``late_ms`` (the p99 of how late this program itself was in sending) and ``cpu``, its share of
one core.  ``--keep FILE`` writes the body of each whole reply as one line of JSON text.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop
from agenda import Agenda

QUESTION = "A customer writes: my parcel number %08d has not arrived. " + "Where is it, and when will it be here? " * 4
LOOK_FOR_TIMEOUTS_S = 0.25


class Request:
    """One request: when it was due, and what became of it."""

    __slots__ = ("done_s", "due_s", "failure", "first_s", "number", "sent_s")

    def __init__(self, number: int, due_s: float) -> None:
        self.number, self.due_s = number, due_s
        self.sent_s = self.first_s = self.done_s = math.nan
        self.failure = ""


class Connection(asyncio.Protocol):
    """One kept-alive connection with one request at a time on it."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.transport: asyncio.Transport | None = None
        self.request: Request | None = None
        self._clear()

    def _clear(self) -> None:
        self.buffer = b""
        self.body: list[bytes] = []
        self.status = 0
        self.left: int | None = None  # bytes still to come of a body of known length
        self.chunked = self.to_the_end = self.keeps = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one, but no subclass

    def send(self, request: Request, data: bytes) -> None:
        assert self.transport is not None
        self.request = request
        request.sent_s = time.perf_counter()
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.load.gone(self)
        if self.request is not None:
            if self.to_the_end and exc is None:
                self._finish()
            else:
                self._end("reset before the reply" if not self.status else "reset in the reply")

    def data_received(self, data: bytes) -> None:
        if self.request is None:
            if self.transport is not None:
                self.transport.abort()  # bytes that nobody asked for
            return
        self.buffer = self.buffer + data if self.buffer else data
        if not self.status and not self._head():
            return
        if self.chunked:
            self._chunks()
        else:
            self._plain()

    def _head(self) -> bool:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head, self.buffer = self.buffer[:end].lower(), self.buffer[end + 4 :]
        self.status = int(head[9:12])
        at = head.find(b"\r\ncontent-length:")
        self.left = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else None
        self.chunked = b"\r\ntransfer-encoding: chunked" in head
        self.keeps = b"\r\nconnection: close" not in head and head.startswith(b"http/1.1")
        self.to_the_end = self.left is None and not self.chunked
        return True

    def _plain(self) -> None:
        self._take(self.buffer)
        if self.left is not None:
            self.left -= len(self.buffer)
        self.buffer = b""
        if self.left is not None and self.left <= 0:
            self._finish()

    def _chunks(self) -> None:
        while (end := self.buffer.find(b"\r\n")) >= 0:
            size = int(self.buffer[:end].split(b";")[0], 16)
            if len(self.buffer) < end + size + 4:
                return
            if size == 0:
                self._finish()
                return
            self._take(self.buffer[end + 2 : end + 2 + size])
            self.buffer = self.buffer[end + size + 4 :]

    def _take(self, data: bytes) -> None:
        request = self.request
        if request is not None and data:
            self.body.append(data)
            if request.first_s != request.first_s and b"data:" in data:  # not a number yet: the first event
                request.first_s = time.perf_counter()

    def _finish(self) -> None:
        body = b"".join(self.body)
        if self.status != 200:
            self._end(f"status {self.status}")
        elif self.load.stream and (b"data: [DONE]" not in body or b'"error"' in body):
            self._end("stream without its end" if b'"error"' not in body else "error in the stream")
        elif b'"choices"' not in body:
            self._end("no reply in the body")
        else:
            self._end("", body)

    def _end(self, failure: str, body: bytes = b"") -> None:
        request, keeps = self.request, self.keeps
        assert request is not None
        self.request = None
        request.done_s, request.failure = time.perf_counter(), failure
        self._clear()
        if self.transport is not None and not keeps:
            self.transport.close()
            self.transport = None
            self.load.gone(self)
        self.load.ended(request, self, body)


class Load:
    """Requests at a rate; ``run`` returns what became of them."""

    def __init__(self, chosen: argparse.Namespace, keep: Callable[[bytes], None] | None = None) -> None:
        where = urlsplit(chosen.url)
        self.host, self.port = where.hostname or "127.0.0.1", where.port or 80
        self.stream, self.timeout_s, self.most = chosen.stream, chosen.timeout_s, chosen.connections
        self.prefix, self.suffix = request_parts(where.path.rstrip("/"), where.netloc, chosen)
        self.keep = keep
        self.idle: list[Connection] = []
        self.open = 0
        self.waiting: deque[Request] = deque()
        self.flying: dict[Request, Connection | None] = {}
        self.ended_ones: list[Request] = []
        self.all_sent = False
        self.finished = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self, times_s: Iterator[float]) -> list[Request]:
        """Send a request at each of *times_s*, counted from now; return them all when the last has ended."""
        loop = asyncio.get_running_loop()
        agenda, began = Agenda(loop), time.perf_counter()
        numbers = iter(enumerate(times_s))

        def arrive(request: Request) -> None:
            self.dispatch(request)
            plan()

        def plan() -> None:
            number, at_s = next(numbers, (-1, 0.0))
            if number < 0:
                self.all_sent = True
                self.look_whether_finished()
            else:
                agenda.at(began + at_s, arrive, Request(number, began + at_s))

        plan()
        watch = asyncio.create_task(self.watch())
        await self.finished.wait()
        watch.cancel()
        return self.ended_ones

    def dispatch(self, request: Request) -> None:
        self.flying[request] = None
        if self.idle:
            self.send(self.idle.pop(), request)
            return
        self.waiting.append(request)
        if self.open < self.most:
            self.open += 1
            task = asyncio.create_task(self.connect())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def send(self, connection: Connection, request: Request) -> None:
        self.flying[request] = connection
        connection.send(request, self.prefix + b"%08d" % request.number + self.suffix)

    async def connect(self) -> None:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self), self.host, self.port
            )
        except OSError as error:
            self.open -= 1
            if self.waiting:
                request = self.waiting.popleft()
                request.done_s, request.failure = time.perf_counter(), f"no connection: {error.strerror or error}"
                self.ended(request, None, b"")
            return
        self.free(connection)

    def free(self, connection: Connection) -> None:
        while self.waiting and self.waiting[0] not in self.flying:
            self.waiting.popleft()  # its time ran out while it waited
        if self.waiting:
            self.send(connection, self.waiting.popleft())
        else:
            self.idle.append(connection)

    def gone(self, connection: Connection) -> None:
        self.open -= 1
        if connection in self.idle:
            self.idle.remove(connection)

    def ended(self, request: Request, connection: Connection | None, body: bytes) -> None:
        if self.flying.pop(request, self) is self:
            return
        self.ended_ones.append(request)
        if body and self.keep:
            self.keep(body)
        if connection is not None and connection.transport is not None:
            self.free(connection)
        elif self.waiting and self.open < self.most:
            self.open += 1
            task = asyncio.create_task(self.connect())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        self.look_whether_finished()

    def look_whether_finished(self) -> None:
        if self.all_sent and not self.flying:
            self.finished.set()

    async def watch(self) -> None:
        """End requests that take too long."""
        while True:
            await asyncio.sleep(LOOK_FOR_TIMEOUTS_S)
            limit = time.perf_counter() - self.timeout_s
            for request, connection in [entry for entry in self.flying.items() if entry[0].due_s < limit]:
                request.done_s, request.failure = time.perf_counter(), "timeout"
                if connection is not None and connection.transport is not None:
                    connection.request = None
                    connection.transport.abort()
                self.ended(request, None, b"")


def request_parts(path: str, host: str, chosen: argparse.Namespace) -> tuple[bytes, bytes]:
    """Return the bytes of a request before and after its number of eight digits."""
    messages = [{"role": "system", "content": "You help customers."}, {"role": "user", "content": QUESTION % 0}]
    asked: dict[str, Any] = {"model": chosen.model, "messages": messages, "temperature": 0.7, "max_tokens": 64}
    if chosen.stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(asked).encode()
    head = (
        f"POST {path}/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {chosen.key}\r\n"
        f"Content-Type: application/json\r\nAccept: */*\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    before, _, after = (head.encode() + body).partition(b"%08d" % 0)
    return before, after


def arrivals(kind: str, rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Yield the times of arrival in seconds: evenly, or with exponential gaps of the same mean."""
    if kind == "fixed":
        yield from (number / rate for number in range(round(rate * seconds)))
        return
    rng, at_s = random.Random(seed), 0.0
    while (at_s := at_s + rng.expovariate(rate)) < seconds:
        yield at_s


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """Return p50, p90, p99 (nearest rank) and the largest; ``None`` where there is nothing."""
    if not values:
        return None
    ordered = sorted(values)
    ranks = {f"p{share}": ordered[math.ceil(len(ordered) * share / 100) - 1] for share in (50, 90, 99)}
    return {**ranks, "max": ordered[-1]}


def outcome(
    requests: Sequence[Request], elapsed_s: float, cpu_s: float, warmed_up: int, stream: bool
) -> dict[str, Any]:
    """Return what is printed."""
    good = [request for request in requests if not request.failure]
    first = [(request.first_s - request.due_s) * 1000 for request in good]
    return {
        "sent": len(requests),
        "asked": len(requests) + warmed_up,
        "good": len(good),
        "failures": dict(Counter(request.failure for request in requests if request.failure)),
        "rate": len(good) / elapsed_s if elapsed_s else 0.0,
        "latency_ms": quantiles([(request.done_s - request.due_s) * 1000 for request in good]),
        "first_ms": quantiles(first) if stream else None,
        "late_ms": (quantiles([(r.sent_s - r.due_s) * 1000 for r in requests if r.sent_s == r.sent_s]) or {}).get(
            "p99"
        ),
        "cpu": cpu_s / elapsed_s if elapsed_s else 0.0,
    }


async def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Warm up, send the requests, and return the outcome."""
    kept = open(chosen.keep, "a") if chosen.keep else None  # noqa: SIM115, ASYNC230 closed below
    load = Load(chosen, None if kept is None else lambda body: print(json.dumps(body.decode()), file=kept))
    warmed_up = 0
    if chosen.warm_up_s:
        await load.run(arrivals("fixed", chosen.rate, chosen.warm_up_s, 0))
        warmed_up = len(load.ended_ones)
        load.ended_ones, load.all_sent, load.finished = [], False, asyncio.Event()
    gc.collect()
    gc.freeze()
    gc.disable()
    began, cpu_began = time.perf_counter(), time.process_time()
    requests = await load.run(arrivals(chosen.arrivals, chosen.rate, chosen.seconds, chosen.seed))
    elapsed_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    if kept is not None:
        kept.close()
    return outcome(requests, elapsed_s, cpu_s, warmed_up, chosen.stream)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url", help="the base URL, ending in /v1 as a rule")
    parser.add_argument("model")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm-up-s", type=float, default=2.0, help="at the same rate, not counted")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--arrivals", choices=("fixed", "poisson"), default="poisson")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout-s", type=float, default=30.0)
    parser.add_argument("--connections", type=int, default=512, help="at most so many are open at once")
    parser.add_argument("--key", default="sk-benchmark")
    parser.add_argument("--keep", type=Path)
    print(json.dumps(uvloop.run(measure(parser.parse_args()))))


if __name__ == "__main__":
    main()
