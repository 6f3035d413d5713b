"""The closed loop, unattended: traffic in, a proven improvement in service, and back again when it was wrong.

A vendor's small model on loopback; in front of it ``gainful serve --improve`` with tool calls of BFCL, from a policy
that asks for them in free words; callers who go on asking.  Then, one after the other:

1. at least one promotion through every stage, by itself;
2. a challenger that is worse is staged as if it had been proven, and is stopped;
3. a bad champion is forced in, and is taken back;
4. the vendor swaps the model behind the name for a coarser one, and it is noticed.

What callers saw is counted on their side.  Everything is said by the store's own ledger, with its times.

    python benchmarks/closed_loop.py [--rate 1.0] [--minutes 100]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from figures import RESULTS, Figure, publish
from peers import environment
from servers import free_port

from gainful.core import Case, Policy
from gainful.models import SMOLLM2, wheel_file
from gainful.store import SQLiteStore
from gainful.tasks import bfcl
from gainful.watch.service import Helm, read_service, service_key

INSIDE = Path(__file__).parent / "inside"
TASK = f"{INSIDE / 'closed_loop_task.py'}:calls"
NAME = "calls"
NEEDS_GGUF = ("gguf==0.19.0", "numpy==2.3.4")
WORK = RESULTS.parent / "closed_loop"

COARSER = """
import sys, shutil, numpy
from gguf import GGUFReader
source, target = sys.argv[1:3]
shutil.copy(source, target)
reader = GGUFReader(target, "r+")
for tensor in reader.tensors:
    if tensor.tensor_type.name == "Q4_1":  # of each weight's four bits keep three: blocks of d, m and 16 bytes
        blocks = tensor.data.reshape(-1, 20)
        blocks[:, 4:] &= 0xEE
"""


@dataclass
class Callers:
    """Who asks: BFCL's questions with other numbers, one after the other at *rate* a second, and what they saw."""

    url: str
    rate: float
    seen: Counter[str] = field(default_factory=Counter)
    waited_s: list[float] = field(default_factory=list)

    async def ask(self, stopped: asyncio.Event) -> None:
        draw = random.Random(1)
        questions = variations(draw)
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session,
            asyncio.TaskGroup() as asking,
        ):
            while not stopped.is_set():
                asking.create_task(self._one(session, next(questions)))
                await asyncio.sleep(draw.expovariate(self.rate))

    async def _one(self, session: aiohttp.ClientSession, case: Case) -> None:
        body = {"model": f"gainful/{NAME}", "messages": list(case.messages), "tools": list(case.tools)}
        began_s = time.monotonic()
        try:
            async with session.post(f"{self.url}/v1/chat/completions", json=body) as response:
                await response.read()
                self.seen[str(response.status)] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.seen[type(error).__name__] += 1
        self.waited_s.append(time.monotonic() - began_s)


def variations(draw: random.Random) -> Iterator[Case]:
    """Yield BFCL's questions for ever, with other numbers each time they come round again."""
    cases = [case for category in bfcl.CATEGORIES for case in bfcl._cases(category)]
    while True:
        draw.shuffle(cases)
        for case in cases:
            turns = [{**turn, "content": varied(turn["content"], draw)} for turn in case.messages]
            yield Case(messages=tuple(turns), tools=case.tools)


def varied(text: str, draw: random.Random) -> str:
    return re.sub(r"\b\d{1,3}\b", lambda found: str(max(1, int(found[0]) + draw.randint(-9, 9))), text)


@contextlib.contextmanager
def process(command: list[str], log: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as file:
        running = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **environ})
        try:
            yield running
        finally:
            running.terminate()
            running.wait(60)


async def answering(url: str, seconds: float = 120.0) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(int(seconds * 2)):
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as response:
                    if response.status < 500:
                        return
            await asyncio.sleep(0.5)
    raise SystemExit(f"{url} does not answer; see the logs in {WORK}")


class Timeline:
    """What the store says has happened, as it happens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.began = time.time()
        self.told = 0
        self.events: list[dict[str, Any]] = []

    def say(self, what: str, **more: Any) -> None:
        event = {"minute": round((time.time() - self.began) / 60, 2), "what": what, **more}
        self.events.append(event)
        print(json.dumps(event), flush=True)

    def look(self, store: SQLiteStore) -> None:
        for entry in store.ledger(service_key(NAME))[self.told :]:
            self.told += 1
            content = {
                name: entry.content[name] for name in ("reason", "about", "champion", "void") if entry.content.get(name)
            }
            stage = entry.content.get("stage") or {}
            requests = store.exchange_count(NAME)
            self.say(entry.kind, requests=requests, share=stage.get("share"), mode=stage.get("mode"), **content)

    async def until(self, is_over: Callable[[SQLiteStore], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with SQLiteStore(self.path) as store:
                self.look(store)
                if is_over(store):
                    return True
            await asyncio.sleep(5)
        return False


def kinds(store: SQLiteStore) -> list[str]:
    return [entry.kind for entry in store.ledger(service_key(NAME))]


def count(store: SQLiteStore, kind: str) -> int:
    return kinds(store).count(kind)


async def trials(timeline: Timeline, minutes: float, swap: str) -> None:
    """Go through the four."""
    if not await timeline.until(lambda store: "promoted" in kinds(store), 60 * minutes):
        timeline.say("no promotion in time")
        return
    with SQLiteStore(timeline.path) as store:
        champion = store.policy(str(store.champion(NAME)))
        cut = Policy(instructions=champion.instructions, format=champion.format, demos=champion.demos, max_tokens=8)
        store.put_policy(cut)
        before = count(store, "rejected")
        Helm(store, NAME, time.time).stage(cut.id, "shadow", 0.25, "5eed" * 16, "0" * 64)
    timeline.say("a worse challenger is staged by hand")
    await timeline.until(lambda store: count(store, "rejected") > before, 1800)
    with SQLiteStore(timeline.path) as store:
        Helm(store, NAME, time.time).force(cut.id, "5eed" * 16, 0.05)
        before = count(store, "rolled-back")
    timeline.say("a bad champion is forced in")
    await timeline.until(lambda store: count(store, "rolled-back") > before, 3600)
    await timeline.until(lambda store: sum(len(p.answers) == 2 for p in store.probes(NAME)) >= 40, 2400)
    async with aiohttp.ClientSession() as session, session.post(swap) as response:
        timeline.say("the model behind the name is swapped", now=(await response.json())["serving"])
    await timeline.until(
        lambda store: any(e.kind == "alarm" and e.content["about"] == "model" for e in store.ledger(service_key(NAME))),
        3600,
    )


def prepare() -> tuple[Path, Path]:
    """Return the model's file and that of the coarser one, in an empty folder."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    model, coarser = wheel_file(**SMOLLM2), WORK / "coarser.gguf"
    subprocess.run([environment("gguf", NEEDS_GGUF), "-c", COARSER, model, coarser], check=True)
    return model, coarser


async def run(chosen: argparse.Namespace, model: Path, coarser: Path) -> None:
    vendor_port, port = free_port(), free_port()
    vendor, url, path = f"http://127.0.0.1:{vendor_port}", f"http://127.0.0.1:{port}", WORK / "gainful.db"
    serve = [sys.executable, "-m", "gainful.cli", "serve", TASK, "--model", "openai:vendor-small", "--improve"]
    serve += ["--store", str(path), "--port", str(port)]
    command = [sys.executable, str(INSIDE / "vendor.py"), str(vendor_port), f"gguf:{model}", f"gguf:{coarser}"]
    timeline, callers, stopped = Timeline(path), Callers(url, chosen.rate), asyncio.Event()
    with process(command, WORK / "vendor.log"):
        await answering(f"{vendor}/v1/models")
        with process(serve, WORK / "serve.log", OPENAI_BASE_URL=f"{vendor}/v1", OPENAI_API_KEY="none"):
            await answering(f"{url}/healthz")
            asking = asyncio.create_task(callers.ask(stopped))
            try:
                await trials(timeline, chosen.minutes, f"{vendor}/swap")
            finally:
                stopped.set()
                await asking
    report(timeline, callers)


def report(timeline: Timeline, callers: Callers) -> None:
    with SQLiteStore(timeline.path) as store:
        state = read_service(store, NAME)
        timeline.say("end", champion=store.champion(NAME), lines=state.lines, exchanges=store.exchange_count(NAME))
    waited = sorted(callers.waited_s)
    timeline.say(
        "callers", seen=dict(callers.seen), p50_s=waited[len(waited) // 2], p99_s=waited[int(0.99 * len(waited))]
    )
    (RESULTS / "closed_loop_timeline.json").write_text(json.dumps(timeline.events, indent=2) + "\n")
    answered = sum(callers.seen.values())
    failed = answered - callers.seen["200"]
    publish(
        "closed_loop",
        [
            Figure("callers", "requests", "", 1, (float(answered),)),
            Figure("callers", "failed", "", 1, (float(failed),)),
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rate", type=float, default=1.0, help="requests a second")
    parser.add_argument("--minutes", type=float, default=100.0, help="for the first promotion")
    asyncio.run(run(parser.parse_args(), *prepare()))


if __name__ == "__main__":
    main()
