"""The closed loop, unattended: traffic in, a proven improvement in service, and back again when it was wrong.

A vendor's small model on loopback; in front of it ``gainful serve --improve`` with tool calls of BFCL and, with
``--banking``, the mail of a bank, each from a policy that asks in free words; callers who go on asking.  For each task,
one after the other:

1. a promotion through every stage, by itself;
2. a challenger that is worse is staged as if it had been proven, and is stopped;
3. a bad champion is forced in, and is taken back;

and then for all: 4. the vendor swaps the model behind the name for a coarser one, and it is noticed.

Tool calls are judged by trusted checks, the bank's mail by nothing but what callers say of a half of the replies.  What
callers saw is counted on their side.  Everything else is said by the store, with its times.

    python benchmarks/closed_loop.py [--rate 0.25] [--banking train.csv] [--banking-rate 0.4] [--minutes 120]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from callers import Callers, bank_mail, tool_calls
from figures import RESULTS, Figure, publish
from peers import environment
from rich.console import Console
from servers import free_port

from gainful.core import Policy
from gainful.models import SMOLLM2, wheel_file
from gainful.report.service import show_status
from gainful.store import LedgerEntry, SQLiteStore
from gainful.watch.promotions import read_promotions
from gainful.watch.service import Helm, service_key
from gainful.watch.status import read_status

INSIDE = Path(__file__).parent / "inside"
CALLS = f"{INSIDE / 'closed_loop_task.py'}:calls"
NEEDS_GGUF = ("gguf==0.19.0", "numpy==2.3.4")
WORK = RESULTS.parent / "closed_loop"
SEED, REGISTRATION = "5eed" * 16, "0" * 64  # of what is staged and forced by hand
SWAP_AT = 0.8  # of the time; the rest is kept for the last trial, whatever became of the others
LOOK_S = 2.0
LEAST_PROBES = 20  # that wait for their last answer when the model is swapped

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
    """What happens, as it happens; *ends* is when the run is to be over, in minutes."""

    def __init__(self, ends: float) -> None:
        self.began = time.time()
        self.ends = ends
        self.events: list[dict[str, Any]] = []

    def minute(self, at: float) -> float:
        return round((at - self.began) / 60, 2)

    @property
    def now(self) -> float:
        return self.minute(time.time())

    def say(self, what: str, at: float | None = None, **more: Any) -> None:
        """Write down an event of now, or of the Unix time *at*."""
        event = {"minute": self.now if at is None else self.minute(at), "what": what, **more}
        self.events.append(event)
        print(json.dumps(event), flush=True)


Event = Callable[[LedgerEntry], bool]


@dataclass
class Trials:
    """The trials of one task; ``delays`` are by trial: minutes, and requests of its callers meanwhile."""

    store: SQLiteStore
    timeline: Timeline
    callers: Callers
    told: int = 0
    delays: dict[str, tuple[float, int]] = field(default_factory=dict)
    requests_at: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.callers.task

    async def in_time(self, swap_at: float) -> None:
        """Go through the first three; the last one begins at minute *swap_at*, whatever became of these."""
        if not await self.until("promoted", lambda line: line.kind == "promoted", swap_at):
            return
        champion = self.store.policy(str(self.store.champion(self.name)))
        mute = Policy(instructions=champion.instructions, format=champion.format, demos=champion.demos, max_tokens=1)
        self.store.put_policy(mute)
        self.helm.stage(mute.id, "shadow", 0.25, SEED, REGISTRATION)
        if not await self.until("a worse challenger", lambda line: line.kind == "rejected", swap_at):
            return
        self.helm.force(mute.id, SEED, self.callers.held_back)
        if not await self.until("a bad champion", lambda line: line.kind == "rolled-back", swap_at):
            self.helm.roll_back("not noticed in time")  # a mute champion would hide the swap

    @property
    def helm(self) -> Helm:
        return Helm(self.store, self.name, time.time)

    async def until(self, trial: str, is_it: Event, ends: float) -> bool:
        """Tell the ledger's lines until one is what *trial* waits for; say ``False`` where that is not in time."""
        began, asked, known = time.time(), self.callers.asked, len(self.lines)
        while self.timeline.now < ends:
            self.look()
            found = next((line for line in self.lines[known:] if is_it(line)), None)
            if found is not None:
                minutes = (found.content["at"] - began) / 60
                self.delays[trial] = minutes, self.callers.asked - asked
                self.timeline.say(f"noticed: {trial}", task=self.name, after_minutes=round(minutes, 2))
                return True
            await asyncio.sleep(LOOK_S)
        self.timeline.say(f"not in time: {trial}", task=self.name)
        return False

    async def until_probed(self, ends: float) -> None:
        """Wait for probes of the champion that a swap could change: asked twice, with the last answer still to come."""
        while self.timeline.now < ends:
            probes, champion = self.store.probes(self.name), self.store.champion(self.name)
            if sum(len(probe.answers) == 2 and probe.policy == champion for probe in probes) >= LEAST_PROBES:
                return
            await asyncio.sleep(LOOK_S)

    @property
    def lines(self) -> list[LedgerEntry]:
        return self.store.ledger(service_key(self.name))

    def look(self) -> None:
        """Tell what has been written since the last time."""
        for line in self.lines[self.told :]:
            self.told += 1
            stage = line.content.get("stage") or {}
            more = {name: line.content[name] for name in ("reason", "about", "void") if line.content.get(name)}
            more |= {name: stage[name] for name in ("mode", "share") if name in stage}
            self.timeline.say(line.kind, stage.get("at", line.content.get("at")), task=self.name, **more)
            self.requests_at.setdefault(line.kind, self.callers.asked)


async def go_through(timeline: Timeline, tasks: Sequence[Trials], swap: str) -> None:
    """Go through all trials, with all tasks at once."""
    swap_at = SWAP_AT * timeline.ends
    await asyncio.gather(*(one.in_time(swap_at) for one in tasks))
    await asyncio.gather(*(one.until_probed(swap_at) for one in tasks))
    async with aiohttp.ClientSession() as session, session.post(swap) as response:
        timeline.say("the model behind the name is swapped", now=(await response.json())["serving"])
    await asyncio.gather(
        *(one.until("another model", lambda line: line.kind == "alarm", timeline.ends) for one in tasks)
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
    files, callers = [CALLS], [Callers("calls", tool_calls("calls", random.Random(1)), chosen.rate)]
    if chosen.banking is not None:
        file, mail = bank_mail(chosen.banking, WORK, random.Random(1))
        files.append(str(file))
        callers.append(Callers("banking", mail, chosen.banking_rate, told_share=0.5, held_back=0.2))
    serve = [sys.executable, "-m", "gainful.cli", "serve", *files, "--model", "openai:vendor-small", "--improve"]
    serve += ["--store", str(path), "--port", str(port)]
    command = [sys.executable, str(INSIDE / "vendor.py"), str(vendor_port), f"gguf:{model}", f"gguf:{coarser}"]
    with process(command, WORK / "vendor.log"):
        await answering(f"{vendor}/v1/models")
        with process(serve, WORK / "serve.log", OPENAI_BASE_URL=f"{vendor}/v1", OPENAI_API_KEY="none"):
            await answering(f"{url}/healthz")
            timeline, stopped = Timeline(chosen.minutes), asyncio.Event()
            with SQLiteStore(path) as store:
                tasks = [Trials(store, timeline, one) for one in callers]
                async with asyncio.TaskGroup() as together:  # callers who break end the run
                    for one in callers:
                        together.create_task(one.ask(url, stopped))
                    await go_through(timeline, tasks, f"{vendor}/swap")
                    stopped.set()
    with SQLiteStore(path) as store:
        report(store, timeline, tasks)


def report(store: SQLiteStore, timeline: Timeline, tasks: Sequence[Trials]) -> None:
    figures: list[Figure] = []
    for one in tasks:
        name, callers, told = one.name, one.callers, store.feedback_after(one.name, 0, limit=1_000_000)
        show_status(Console(), read_status(store, name))
        found = {"requests": float(callers.asked), "failed": float(callers.asked - callers.seen["200"])}
        found |= {"human labels": float(len(told))} | fix_minutes(store, timeline, name)
        for trial, (minutes, requests) in one.delays.items():
            found |= {f"{trial}, after": minutes, f"{trial}, requests": float(requests)}
        waited = sorted(callers.waited_s)
        found |= {"p50": waited[len(waited) // 2], "p99": waited[int(0.99 * len(waited))]}
        timeline.say("callers", task=name, seen=dict(callers.seen), told=callers.told)
        timeline.say("figures", task=name, **{what: round(value, 2) for what, value in found.items()})
        figures += [Figure(name, what, unit(what), callers.asked, (value,)) for what, value in found.items()]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "closed_loop_timeline.json").write_text(json.dumps(timeline.events, indent=2) + "\n")
    publish("closed_loop", figures)


def fix_minutes(store: SQLiteStore, timeline: Timeline, name: str) -> dict[str, float]:
    """Return how long the first promotion took, as the dashboard says it."""
    won = next((one for one in read_promotions(store, name) if one.certified_at is not None), None)
    if won is None or won.first_failure_at is None or won.certified_at is None:
        return {}
    return {
        "first failure seen, minute": timeline.minute(won.first_failure_at),
        "failure to certified": (won.certified_at - won.first_failure_at) / 60,
        "failure to in service": (won.at - won.first_failure_at) / 60,
    }


def unit(what: str) -> str:
    if what in ("p50", "p99"):
        return "s"
    return "min" if what.startswith(("first failure", "failure")) or what.endswith("after") else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rate", type=float, default=0.25, help="tool calls a second")
    parser.add_argument("--banking", type=Path, help="a CSV file text,category: the bank's mail as a second task")
    parser.add_argument("--banking-rate", type=float, default=0.4, help="messages a second")
    parser.add_argument("--minutes", type=float, default=120.0, help="for everything")
    asyncio.run(run(parser.parse_args(), *prepare()))


if __name__ == "__main__":
    main()
