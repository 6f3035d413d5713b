"""Thirty minutes of mixed load with everything going wrong, and then the books are checked.

    python benchmarks/soak.py [--minutes 30] [--rate 60] [--stream pass]

``gainful serve`` with two workers stands before an upstream that answers 429, 500 and garbage, hangs, cuts replies off
and dawdles; the task's check raises, hangs and kills its process now and then.  Plain and streamed requests come on a
schedule, slow readers and callers who leave come beside them, and every minute the younger worker is killed.  Then:

- every reply that a client received whole is in the store exactly once, with the same text and the same usage;
- what the store says a reply cost is what the upstream counted for it, each upstream reply at most once;
- the older worker's memory has not grown by more than 10 %.

Exits with 1, saying what does not hold, where one of these fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import RESULTS, Figure, publish
from servers import INSIDE, Server, gainful, resident_mb, settle, upstream

from gainful.core import Exchange
from gainful.store import open_store

FAULTS = "429/97,500/89,hang/1009,garbage/211,truncated/157,slow/61"
AWKWARD = 4  # slow readers, and as many who leave
GROWTH = 0.10  # of the older worker's memory, from the first quarter to the last
CHECK = '''
"""A check that mostly passes, and at times raises, hangs or kills its process."""

import os
import re
import time


def moody(case, answer):
    found = re.search(r"reply (\\d+)", answer.text)
    number = int(found[1]) if found else 0
    if number and number % 101 == 0:
        raise RuntimeError("moody")
    if number and number % 499 == 0:
        time.sleep(60)
    if number and number % 997 == 0:
        os._exit(1)
    return 1.0 if number else None
'''
TASK = """name = "plain"
cases = "cases.jsonl"

[answer]
kind = "text"

[[checks]]
function = "moody.py:moody"
needs_target = false
"""


@dataclass(frozen=True)
class Received:
    """A reply as a client received it: its id, its text, its tokens."""

    id: str
    text: str
    tokens: tuple[int, int]


def task(scratch: Path) -> Path:
    """Write the task with the moody check, and return its file."""
    (scratch / "moody.py").write_text(CHECK)
    (scratch / "cases.jsonl").write_text("".join(json.dumps({"input": f"Case {n}?"}) + "\n" for n in range(40)))
    (scratch / "plain.toml").write_text(TASK)
    return scratch / "plain.toml"


# --- what happens to the server ----------------------------------------------------------------------------


@contextmanager
def beside(work: Any, *arguments: Any) -> Iterator[None]:
    """Run *work* in a thread, with an event that ends it as its last argument, until the block ends."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(*arguments, over))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def kill_workers(server: Server, killed: list[int], over: threading.Event) -> None:
    """Kill the younger worker every minute."""
    while not over.wait(60):
        if len(workers := server.workers()) > 1:
            killed.append(workers[-1])
            os.kill(workers[-1], signal.SIGKILL)


def watch_memory(server: Server, sizes_mb: list[float], over: threading.Event) -> None:
    """Note the older worker's memory every ten seconds."""
    while not over.wait(10):
        if workers := server.workers():
            sizes_mb.append(resident_mb(workers[0]))


def awkward_clients(server: Server, kept: list[str], over: threading.Event) -> None:
    """Read slowly, or leave before, in and right after the first bytes, again and again."""

    async def all_of_them() -> None:
        rng = random.Random(1)
        people = [slow_reader(server, kept, over) for _ in range(AWKWARD)]
        await asyncio.gather(*people, *(leaver(server, rng, over) for _ in range(AWKWARD)))

    asyncio.run(all_of_them())


async def ask(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a streamed request on a connection of its own."""
    host, _, port = server.base_url.removeprefix("http://").removesuffix("/v1").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    asked = {"model": server.model, "messages": [{"role": "user", "content": "Take your time."}], "stream": True}
    body = json.dumps({**asked, "stream_options": {"include_usage": True}}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
    await writer.drain()
    return reader, writer


async def slow_reader(server: Server, kept: list[str], over: threading.Event) -> None:
    """Read a hundred bytes at a time with pauses, and keep what came whole."""
    while not over.is_set():
        said = b""
        with suppress(OSError):  # workers are killed under this connection too
            reader, writer = await ask(server)
            while data := await reader.read(100):
                said += data
                await asyncio.sleep(0.05)
            writer.close()
        head, _, body = said.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 200") and body.endswith(b"0\r\n\r\n"):
            kept.append(dechunked(body).decode())
        await asyncio.sleep(0.2)


async def leaver(server: Server, rng: random.Random, over: threading.Event) -> None:
    """Hang up at a moment within the time that a reply takes."""
    while not over.is_set():
        with suppress(OSError):
            _, writer = await ask(server)
            await asyncio.sleep(rng.uniform(0, 0.06))
            writer.transport.abort()
        await asyncio.sleep(0.2)


def dechunked(body: bytes) -> bytes:
    """Return what chunks of HTTP hold."""
    held = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        held, body = held + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return held


# --- the books ---------------------------------------------------------------------------------------------


def received(bodies: Iterable[str]) -> Iterator[Received]:
    """Yield what clients received whole, from bodies of replies and of streams; one that tells an error is none."""
    for body in bodies:
        if not body.lstrip().startswith("{"):
            events = [line[5:] for line in body.splitlines() if line.startswith("data:")]
            chunks = [json.loads(event) for event in events if event.strip() != "[DONE]"]
            if any("error" in chunk for chunk in chunks) or "data: [DONE]" not in body:
                continue
            deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
            text = "".join(delta.get("content") or "" for delta in deltas)
            usage: dict[str, Any] = next((chunk["usage"] for chunk in chunks if chunk.get("usage")), {})
            yield Received(chunks[0]["id"], text, tokens(usage))
        else:
            reply = json.loads(body)
            yield Received(reply["id"], reply["choices"][0]["message"]["content"], tokens(reply["usage"]))


def tokens(usage: dict[str, Any]) -> tuple[int, int]:
    return usage.get("prompt_tokens", -1), usage.get("completion_tokens", -1)


def number_of(text: str) -> int:
    """Return the number that the upstream gave a reply; -1 where the text has none."""
    words = text.split(" ")
    return int(words[1]) if words[0] == "reply" and len(words) > 1 and words[1].isdigit() else -1


def faults_in_the_books(
    clients: Iterable[Received], exchanges: Iterable[Exchange], counted: dict[int, tuple[int, int]]
) -> Counter[str]:
    """Return how often each rule of the books is broken; *counted* are the upstream's tokens by number of reply."""
    found: Counter[str] = Counter()
    kept: dict[str, list[Exchange]] = {}
    for exchange in exchanges:
        kept.setdefault(exchange.id, []).append(exchange)
    for client in clients:
        rows = kept.get(client.id, [])
        if len(rows) != 1:
            found["received whole and not stored" if not rows else "received once and stored more often"] += 1
        elif rows[0].reply is None or rows[0].reply["choices"][0]["message"]["content"] != client.text:
            found["stored with another text"] += 1
        elif (rows[0].usage.prompt_tokens, rows[0].usage.completion_tokens) != client.tokens:
            found["stored with another usage"] += 1
    numbers: Counter[int] = Counter()
    for exchange in (row for rows in kept.values() for row in rows if row.status == 200 and row.reply):
        number = number_of((exchange.reply or {})["choices"][0]["message"]["content"])
        numbers[number] += 1
        spent = exchange.usage.prompt_tokens, exchange.usage.completion_tokens
        if exchange.usage.calls == 1 and number in counted and spent != counted[number]:
            found["stored with another usage than the upstream counted"] += 1
    found["replies of the upstream stored twice"] = sum(times > 1 for times in numbers.values())
    return +found


def exchanges_of(place: Path) -> Iterator[Exchange]:
    """Yield all that the store at *place* holds of the task, the newest first."""
    with open_store(place) as store:
        left = store.exchange_count("plain")
        while left > 0:
            yield from store.exchanges("plain", limit=1000, before=left)
            left -= 1000


def ledger(place: Path) -> dict[int, tuple[int, int]]:
    """Return the upstream's tokens by number of reply."""
    lines = (list(map(int, line.split())) for line in place.read_text().splitlines())
    return {number: (prompt, completion) for number, prompt, completion in lines}


# --- the run -----------------------------------------------------------------------------------------------


def load(server: Server, chosen: argparse.Namespace, keep: Path, *options: str) -> subprocess.Popen[str]:
    """Start a load of half the rate that keeps what it receives whole."""
    command = [sys.executable, INSIDE / "open_loop.py", server.base_url, server.model, "--rate", chosen.rate / 2]
    command += ["--seconds", chosen.minutes * 60, "--keep", keep, "--key", "benchmark", "--warm-up-s", "0", *options]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)


def run(chosen: argparse.Namespace, scratch: Path) -> tuple[list[Figure], list[str]]:
    """Return the figures, and what does not hold."""
    killed: list[int] = []
    sizes_mb: list[float] = []
    slow: list[str] = []
    kept = [scratch / "plain.jsonl", scratch / "streamed.jsonl"]
    with upstream("--faults", FAULTS, "--ledger", str(scratch / "ledger")) as behind:
        with gainful(behind.base_url, scratch, 2, chosen.stream, place=task(scratch)) as server:
            settle(server)
            with (
                beside(kill_workers, server, killed),
                beside(watch_memory, server, sizes_mb),
                beside(awkward_clients, server, slow),
            ):
                loads = [load(server, chosen, kept[0]), load(server, chosen, kept[1], "--stream", "--seed", "2")]
                said = [json.loads(process.communicate()[0]) for process in loads]
            settle(server)
            time.sleep(2)  # what leavers left behind is written
        stats = behind.stats()
    clients = list(received([*slow, *(json.loads(line) for file in kept for line in file.read_text().splitlines())]))
    stored = list(exchanges_of(scratch / "serve.db"))
    broken = faults_in_the_books(clients, stored, ledger(scratch / "ledger"))
    problems = [f"{times} {rule}" for rule, times in broken.items()]
    quarter = max(1, len(sizes_mb) // 4)
    first, last = (sum(part) / len(part) if part else 0.0 for part in (sizes_mb[:quarter], sizes_mb[-quarter:]))
    if last > first * (1 + GROWTH):
        problems.append(f"the older worker grew from {first:.0f} to {last:.0f} MB")
    print(json.dumps({"loads": said, "upstream": stats, "books": broken, "killed": len(killed)}), file=sys.stderr)
    values = {
        "received whole": len(clients),
        "stored": len(stored),
        "upstream answered whole": stats.get("whole", 0),
        "failures seen by clients": sum(one["sent"] - one["good"] for one in said),
        "workers killed": len(killed),
        "faults in the books": sum(broken.values()),
    }
    n = sum(one["sent"] for one in said)
    found = [Figure("soak", name, "", n, (value,)) for name, value in values.items()]
    return [*found, Figure("soak, older worker", "resident, first and last", "MB", n, (first, last))], problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second, half of them streamed")
    parser.add_argument("--stream", choices=("pass", "hold", "segment"), default="pass")
    chosen = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS.parent) as scratch:
        found, problems = run(chosen, Path(scratch))
    publish("soak", found)
    if problems:
        raise SystemExit("the books do not hold: " + "; ".join(problems))


if __name__ == "__main__":
    main()
