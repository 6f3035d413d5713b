"""An OpenAI-shaped upstream that answers after a fixed time and costs next to nothing.

    python mock_upstream.py [--port 0] [--delay-ms 20] [--pieces 4] [--gap-ms 5] [--faults KIND/EVERY,...]
                            [--ledger FILE]

Prints ``{"port": P}`` once it listens.  Every reply has an id, a number in its text (``reply 17``) and token counts of
its own.  A stream's first piece comes after the delay, the others a gap apart.  ``--faults 500/89,hang/1009`` spoils
every 89th and every 1009th request: the first kind whose number divides the request's.  ``GET /stats`` says how many
requests came, what was answered whole, with its tokens, and the processor time used; ``--ledger`` writes a line
``number prompt_tokens completion_tokens`` for each reply that was handed whole to the connection.

The parser knows what HTTP clients send here: HTTP/1.1, Content-Length, one request at a time on a connection.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any, TextIO, cast

import uvloop
from agenda import Agenda

WORDS = " ".join(["the quick brown fox jumps over the lazy dog"] * 4)
FAULTS = ("429", "500", "hang", "garbage", "truncated", "slow")
SLOW_MS = 2_000.0
ERROR = b'{"error":{"message":"injected fault","type":"server_error","param":null,"code":null}}'


class Upstream:
    """What all connections share: settings, the number of the next reply, counts."""

    def __init__(self, chosen: argparse.Namespace, agenda: Agenda) -> None:
        self.agenda = agenda
        self.delay_s, self.gap_s, self.pieces = chosen.delay_ms / 1000, chosen.gap_ms / 1000, chosen.pieces
        self.faults = faults(chosen.faults)
        self.ledger: TextIO | None = open(chosen.ledger, "w") if chosen.ledger else None  # noqa: SIM115 it lives as long
        self.began = time.perf_counter()
        self.number = self.prompt_tokens = self.completion_tokens = 0
        self.counts: Counter[str] = Counter()
        words = WORDS.split(" ")
        size = -(-len(words) // self.pieces)
        self.texts = [" ".join(words[i : i + size]) for i in range(0, len(words), size)]

    def fault(self, number: int) -> str:
        """Return what goes wrong with request *number*; empty where nothing does."""
        return next((kind for kind, every in self.faults if number % every == 0), "")

    def whole(self, number: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Count a reply that was handed whole to its connection."""
        self.counts["whole"] += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        if self.ledger:
            self.ledger.write(f"{number} {prompt_tokens} {completion_tokens}\n")

    def stats(self) -> dict[str, Any]:
        if self.ledger:
            self.ledger.flush()
        return {
            "requests": self.number,
            **self.counts,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cpu_s": time.process_time(),
            "up_s": time.perf_counter() - self.began,
        }


def faults(text: str) -> list[tuple[str, int]]:
    """Read ``KIND/EVERY,...``."""
    read = []
    for part in filter(None, text.split(",")):
        kind, _, every = part.partition("/")
        if kind not in FAULTS or not every.isdigit() or int(every) < 1:
            raise SystemExit(f"--faults: {part!r} is no fault; give KIND/EVERY with KIND one of {', '.join(FAULTS)}")
        read.append((kind, int(every)))
    return read


class Connection(asyncio.Protocol):
    """One connection: requests are answered one after the other."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one, but no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"\r\ncontent-length:")
            size = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + size:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + size], self.buffer[end + 4 + size :]
            self.request(head, body)

    def request(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"get "):
            if head.startswith(b"get /stats"):
                self.send(200, json.dumps(self.upstream.stats()).encode())
            else:
                self.send(200, b'{"object":"list","data":[{"id":"mock","object":"model","owned_by":"nobody"}]}')
            return
        if b"\r\ntransfer-encoding:" in head:
            self.send(411, ERROR)
            return
        upstream = self.upstream
        upstream.number += 1
        number, fault = upstream.number, upstream.fault(upstream.number)
        if fault:
            upstream.counts[fault] += 1
        due_s = time.perf_counter() + (SLOW_MS / 1000 if fault == "slow" else upstream.delay_s)
        if fault == "hang":
            return
        if fault in ("429", "500", "garbage"):
            upstream.agenda.at(due_s, self.spoil, fault)
            return
        try:
            asked = json.loads(body)
        except ValueError:
            self.send(400, ERROR)
            return
        reply = Reply(number, len(body) // 4, bool((asked.get("stream_options") or {}).get("include_usage")))
        if asked.get("stream"):
            upstream.agenda.at(due_s, self.stream, reply, 0, fault, due_s)
        else:
            upstream.agenda.at(due_s, self.plain, reply, fault)

    def spoil(self, fault: str) -> None:
        if fault == "garbage":
            self.send(200, b"<html>this is no JSON</html>")
        elif fault == "429":
            self.send(429, ERROR, b"Retry-After: 1\r\n")
        else:
            self.send(500, ERROR)

    def plain(self, reply: Reply, fault: str) -> None:
        if self.transport is None:
            self.upstream.counts["caller left"] += 1
            return
        body = reply.body(self.upstream.texts)
        if fault == "truncated":
            self.transport.write(header(200, len(body)) + body[: len(body) // 2])
            self.transport.close()
            return
        self.transport.write(header(200, len(body)) + body)
        self.upstream.whole(reply.number, *reply.tokens)

    def stream(self, reply: Reply, piece: int, fault: str, due_s: float) -> None:
        if self.transport is None:
            self.upstream.counts["caller left"] += 1
            return
        texts = self.upstream.texts
        written = STREAM_HEAD if piece == 0 else b""
        written += b"".join(reply.events(texts, piece))
        self.transport.write(written)
        if piece + 1 < len(texts):
            if fault == "truncated" and piece >= len(texts) // 2:
                self.transport.close()
                return
            due_s += self.upstream.gap_s
            self.upstream.agenda.at(due_s, self.stream, reply, piece + 1, fault, due_s)
            return
        if fault == "truncated":
            self.transport.close()
            return
        self.transport.write(b"0\r\n\r\n")
        self.upstream.whole(reply.number, *reply.tokens)

    def send(self, status: int, body: bytes, more: bytes = b"") -> None:
        if self.transport is not None:
            self.transport.write(header(status, len(body), more) + body)


class Reply:
    """One reply, whose number, text and token counts nobody else's share."""

    def __init__(self, number: int, prompt_tokens: int, counts_tokens: bool) -> None:
        self.number, self.counts_tokens = number, counts_tokens
        self.tokens = prompt_tokens, 30 + number % 17

    @property
    def usage(self) -> bytes:
        prompt, completion = self.tokens
        return b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (
            prompt,
            completion,
            prompt + completion,
        )

    def body(self, texts: list[str]) -> bytes:
        """Return the reply as one body."""
        return (
            b'{"id":"chatcmpl-mock-%d","object":"chat.completion","created":1767225600,"model":"mock","choices":['
            b'{"index":0,"message":{"role":"assistant","content":"reply %d %s"},"logprobs":null,"finish_reason":"stop"}'
            b'],"usage":%s}' % (self.number, self.number, " ".join(texts).encode(), self.usage)
        )

    def events(self, texts: list[str], piece: int) -> list[bytes]:
        """Return the events of a stream's *piece*; after the last text come the end and, if asked for, the usage."""
        text = f"reply {self.number} {texts[0]}" if piece == 0 else " " + texts[piece]
        role = b'"role":"assistant",' if piece == 0 else b""
        events = [self.event(b'[{"index":0,"delta":{%s"content":"%s"},"finish_reason":null}]' % (role, text.encode()))]
        if piece + 1 == len(texts):
            events.append(self.event(b'[{"index":0,"delta":{},"finish_reason":"stop"}]'))
            if self.counts_tokens:
                events.append(self.event(b"[]", b',"usage":' + self.usage))
            events.append(chunk(b"data: [DONE]\n\n"))
        return events

    def event(self, choices: bytes, more: bytes = b"") -> bytes:
        return chunk(
            b'data: {"id":"chatcmpl-mock-%d","object":"chat.completion.chunk","created":1767225600,"model":"mock",'
            b'"choices":%s%s}\n\n' % (self.number, choices, more)
        )


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def header(status: int, size: int, more: bytes = b"") -> bytes:
    reason = {200: b"OK", 400: b"Bad Request", 411: b"Length Required", 429: b"Too Many Requests"}.get(status, b"Error")
    return b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n" % (
        status,
        reason,
        more,
        size,
    )


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def serve(chosen: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    upstream = Upstream(chosen, Agenda(loop))
    server = await loop.create_server(lambda: Connection(upstream), "127.0.0.1", chosen.port, backlog=4096)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    gc.freeze()
    gc.disable()  # nothing here makes cycles, and a collection would be a pause of the upstream's
    await stop.wait()
    upstream.stats()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=float, default=20.0)
    parser.add_argument("--pieces", type=int, default=4, help="pieces of text in a stream")
    parser.add_argument("--gap-ms", type=float, default=5.0, help="between two pieces")
    parser.add_argument("--faults", default="", help="KIND/EVERY,... with KIND one of " + ", ".join(FAULTS))
    parser.add_argument("--ledger", type=Path)
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
