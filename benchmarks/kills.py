"""``kill -9`` of server and watcher at random moments, while callers ask and the service moves; then the books.

The scripted vendor of ``inside/sums.py`` behind ``gainful serve --improve``.  At each of 50 seeded moments a worker,
the watcher or the whole server is killed and, where need be, started again; now and then a person rolls back, so that
there is always something to learn, to stage and to promote.  Afterwards:

- every reply that a caller received whole is in the store;
- the service ledger is an unbroken chain, and so is that of every hold-out;
- each line that moved the champion has exactly one entry in the history of champions, and none is there without one;
- the champion in service is the one of the last such line, and at most one challenger was ever on its way in;
- no registration was staged twice.

Exits with 1, saying what does not hold.

    python benchmarks/kills.py [--kills 50]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from figures import RESULTS, Figure, publish
from servers import INSIDE, Server, free_port

from gainful.core import StoreError
from gainful.store import SQLiteStore
from gainful.watch.service import Helm, Service, read_service, service_key

sys.path.insert(0, str(INSIDE))
from sums import case

WORK = RESULTS.parent / "kills"
NAME = "sums"
RATE = 40.0  # requests a second
PAUSES_S = (1.0, 9.0)  # between two kills


class Callers:
    """Ask until told to stop; ``received`` holds the ids of replies that came whole."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.received: list[str] = []
        self.lost: Counter[str] = Counter()

    async def ask(self, stopped: asyncio.Event) -> None:
        number = 0
        patience = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(timeout=patience) as session, asyncio.TaskGroup() as asking:
            while not stopped.is_set():
                number += 1
                asking.create_task(self._one(session, number))
                await asyncio.sleep(1 / RATE)

    async def _one(self, session: aiohttp.ClientSession, number: int) -> None:
        asked = case(number)
        body = {"model": f"gainful/{NAME}", "messages": list(asked.messages), "tools": list(asked.tools)}
        try:
            async with session.post(f"{self._url}/v1/chat/completions", json=body) as response:
                told = await response.json()
            if response.status == 200 and response.headers["x-gainful-verdict"] != "failed-open":
                self.received.append(told["id"])
            else:
                self.lost[str(response.status)] += 1
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.lost[type(error).__name__] += 1


class House:
    """The server with its workers and watcher, started again whenever it was killed."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self._command, self._environ = command, environ
        self._log = (WORK / "serve.log").open("ab")
        self.start()

    def start(self) -> None:
        self._running = subprocess.Popen(
            self._command, env=self._environ, stdout=self._log, stderr=self._log, start_new_session=True
        )

    @property
    def members(self) -> list[int]:
        return Server("", "", self._running.pid).members()

    def kill(self, draw: random.Random) -> str:
        """Kill all of it, or one process of it that is not the first; say which."""
        others = [pid for pid in self.members if pid != self._running.pid]
        if not others or draw.random() < 0.4:
            os.killpg(self._running.pid, signal.SIGKILL)
            self._running.wait()
            self.start()
            return "all"
        with contextlib.suppress(ProcessLookupError):
            os.kill(draw.choice(others), signal.SIGKILL)
        return "one"

    def stop(self) -> None:
        self._running.terminate()
        self._running.wait(60)
        self._log.close()


async def disturb(house: House, path: Path, kills: int) -> Counter[str]:
    draw, done = random.Random(7), Counter[str]()
    while done.total() < kills:
        await asyncio.sleep(draw.uniform(*PAUSES_S))
        done[house.kill(draw)] += 1
        with contextlib.suppress(StoreError), SQLiteStore(path) as store:
            state = read_service(store, NAME)
            print(f"kill {done.total()}: {state.lines} lines, canary {state.canary and state.canary.share}", flush=True)
            if state.former is not None and done.total() % 5 == 0:
                Helm(store, NAME, time.time).roll_back("so that there is something to do again")
    return done


def faults(store: SQLiteStore, received: list[str]) -> Iterator[str]:
    """Yield what does not hold, one sentence each."""
    missing = [reply for reply in received if store.exchange(reply) is None]
    if missing:
        yield f"{len(missing)} replies that callers received are not in the store, {missing[0]} first"
    lines = store.ledger(service_key(NAME))  # raises where the chain is broken
    moves = [line.hash for line in lines if line.kind in ("promoted", "rolled-back")]
    moved = [installed.ledger for installed in store.champion_history(NAME) if installed.ledger is not None]
    if moves != moved:
        yield f"the ledger moves the champion {len(moves)} times, its history has {len(moved)}"
    champions = [line.content["champion"] for line in lines if line.kind in ("promoted", "rolled-back")]
    if champions and champions[-1] != store.champion(NAME):
        yield f"the ledger's champion is {champions[-1][:12]}, the store's {str(store.champion(NAME))[:12]}"
    first = [line for line in lines if line.kind == "staged" and line.content["stage"]["step"] == 0]
    staged = [line.content["registration"] for line in first]
    if len(staged) != len(set(staged)):
        yield "a registration was staged twice"
    state = Service()
    for line in lines:
        on_its_way = state.canary and state.canary.policy
        if line.kind == "staged" and on_its_way not in (None, line.content["stage"]["policy"]):
            yield f"line {line.seq} stages a challenger while another is on its way in"
        state = state.after(line)
    for run in store.runs():
        store.ledger(run.spec["holdout"])


async def run(kills: int) -> None:
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    vendor_port, port, path = free_port(), free_port(), WORK / "gainful.db"
    command = [sys.executable, "-m", "gainful.cli", "serve", f"{INSIDE / 'sums.py'}:sums", "--model", "openai:sums"]
    command += ["--improve", "--workers", "2", "--store", str(path), "--port", str(port)]
    environ = {**os.environ, "OPENAI_BASE_URL": f"http://127.0.0.1:{vendor_port}/v1", "OPENAI_API_KEY": "none"}
    environ["XDG_DATA_HOME"] = str(WORK / "data")
    vendor = await asyncio.create_subprocess_exec(sys.executable, str(INSIDE / "sums.py"), str(vendor_port))
    house, callers, stopped = House(command, environ), Callers(f"http://127.0.0.1:{port}"), asyncio.Event()
    try:
        asking = asyncio.create_task(callers.ask(stopped))
        done = await disturb(house, path, kills)
        await asyncio.sleep(20)
        stopped.set()
        await asking
    finally:
        house.stop()
        vendor.terminate()
        await vendor.wait()
    with SQLiteStore(path) as store:
        found = list(faults(store, callers.received))
        kinds = Counter(line.kind for line in store.ledger(service_key(NAME)))
        runs = len(store.runs())
    print(f"kills {dict(done)}, lines {dict(kinds)}, {runs} runs, not answered {dict(callers.lost)}")
    figures = {"replies received whole": len(callers.received), "lines": kinds.total(), "faults": len(found)}
    publish("kills", [Figure("kill -9", name, "", kills, (float(value),)) for name, value in figures.items()])
    if found:
        raise SystemExit("\n".join(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=50)
    asyncio.run(run(parser.parse_args().kills))


if __name__ == "__main__":
    main()
