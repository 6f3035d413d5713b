"""An adapter comes into service, and goes again, while callers are answered: what is lost, and who waits?

``gainful serve`` with the embedded model answers short questions that come at a steady rate and wait for nobody (an
open loop, so that a stall counts for all who were due in it).  A minute later ``gainful promote`` puts a policy with an
adapter into service, which this script has trained and kept beforehand; a minute after its first reply ``gainful
rollback`` takes it back.  Both are commands in a process of their own, as a person would give them; what they take of
the processor is in the figures.

*Coming in* and *going* are the requests that were due between the command and the first reply by the other policy:
few, so that their p99 is their slowest.  Whose weights answered is seen twice: in ``x-gainful-policy``, and in the
words, since the adapter has learned to begin its replies in its own way, which the base never does.  All replies have
the same length, so a difference in time is none of the words.  Lost is every request without a whole reply by the
policy that was in service, failed-open ones among them.  Memory is the proportional share (PSS) of all processes of
the server, engines included, so that the base's file, which several map, counts once.

Each repeat starts a server anew: one that has had the adapter keeps its engine for a while.  What is finished lies in
out/adapter_swap and is not repeated; delete it to begin anew.

    python benchmarks/adapter_swap.py [--rate 5] [--seconds 60] [--repeats 3]
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec
from figures import RESULTS, Figure, publish
from servers import free_port, running

from gainful.answers.prompt import request
from gainful.core import Policy
from gainful.loop.trainer import base_name
from gainful.models import connect
from gainful.store import open_store
from gainful.tasks import Task, load
from gainful.train import Lesson, Limits, Recipe, Work, fine_tune

NAME = "sums"
TASK = f"""name = "{NAME}"
cases = "cases.jsonl"
max_tokens = 8 # all replies are cut there, so that they cost the same

[answer]
kind = "text"

[[checks]]
kind = "exact" # reads targets, so traffic is not judged
"""
QUESTION = "How much is {} + {}?"
OWN_WORDS = "Together that makes exactly"  # how replies with the adapter begin
LESSONS = 64
SWAP_S = 120.0  # a swap that takes longer has failed
TIMEOUT_S = 60.0
KEY = {"Authorization": "Bearer benchmark"}


@dataclass(frozen=True)
class Reply:
    """What became of a request that was due at ``due_s``; ``failure`` is empty where it was answered well."""

    due_s: float
    done_s: float
    policy: str = ""
    is_own_words: bool = False
    failure: str = ""

    @property
    def ms(self) -> float:
        return (self.done_s - self.due_s) * 1000


@dataclass
class Callers:
    """Those who ask at *rate* a second, whatever becomes of it; ``replies`` are in the order in which they came."""

    url: str
    rate: float
    replies: list[Reply] = field(default_factory=list)
    sent: int = 0

    async def ask(self, stopped: asyncio.Event) -> None:
        """Ask until *stopped*, and wait for the last reply."""
        draw, due_s = random.Random(1), time.perf_counter()
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector, headers=KEY) as session,
            asyncio.TaskGroup() as asking,
        ):
            while not stopped.is_set():
                due_s += draw.expovariate(self.rate)
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                self.sent += 1
                asking.create_task(self._one(session, question(draw), due_s))

    async def first_by(self, policy: str) -> float:
        """Return when the first reply by *policy* that is yet to come is there; raises ``SystemExit`` if it is not."""
        seen, until = len(self.replies), time.perf_counter() + SWAP_S
        while time.perf_counter() < until:
            for reply in self.replies[seen:]:
                if reply.policy == policy:
                    return reply.done_s
            seen = len(self.replies)
            await asyncio.sleep(0.01)
        raise SystemExit(f"policy {policy[:12]} had answered nobody after {SWAP_S:g} s; see the server's log")

    async def _one(self, session: aiohttp.ClientSession, words: str, due_s: float) -> None:
        body = {"model": f"gainful/{NAME}", "messages": [{"role": "user", "content": words}]}
        try:
            async with session.post(f"{self.url}/chat/completions", json=body) as response:
                said = await response.json()
                policy, verdict = (response.headers.get(f"x-gainful-{of}", "") for of in ("policy", "verdict"))
                failure = f"status {response.status}" if response.status != 200 else ""
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.replies.append(Reply(due_s, time.perf_counter(), failure=type(error).__name__))
            return
        text = "" if failure else said["choices"][0]["message"]["content"] or ""
        failure = failure or ("failed open" if verdict == "failed-open" else "" if text else "an empty reply")
        self.replies.append(Reply(due_s, time.perf_counter(), policy, text.startswith(OWN_WORDS), failure))


@dataclass(frozen=True)
class Swap:
    """One server's life: its replies, when commands were given and obeyed, and its memory (in 10**6 bytes)."""

    replies: Sequence[Reply]
    sent: int
    began_s: float
    commands_s: tuple[float, float]
    firsts_s: tuple[float, float]
    ended_s: float
    policies: tuple[str, str]
    memory_mb: dict[str, float]

    def phases(self) -> dict[str, list[Reply]]:
        """Return the replies by when they were due."""
        edges = [self.began_s, self.commands_s[0], self.firsts_s[0], self.commands_s[1], self.firsts_s[1], self.ended_s]
        names = ("before", "coming in", "with the adapter", "going", "taken back")
        return {
            name: [reply for reply in self.replies if edges[i] <= reply.due_s < edges[i + 1]]
            for i, name in enumerate(names)
        }

    def lost(self) -> int:
        """Return how many got no whole reply, or one by a policy that was not in service while they waited."""
        return self.sent - sum(not reply.failure and reply.policy in self._in_service(reply) for reply in self.replies)

    def _in_service(self, reply: Reply) -> set[str]:
        """Return the policies that may have answered *reply*."""
        champion, adapted = self.policies
        is_before = reply.due_s < self.firsts_s[0] or reply.done_s > self.commands_s[1]
        is_with = reply.done_s > self.commands_s[0] and reply.due_s < self.firsts_s[1]
        return {policy for policy, was_there in ((champion, is_before), (adapted, is_with)) if was_there}


def question(draw: random.Random) -> str:
    return QUESTION.format(draw.randint(10, 99), draw.randint(10, 99))


def write_task(folder: Path) -> Path:
    """Write the task into *folder* and return its file."""
    draw = random.Random(0)
    rows = [{"input": QUESTION.format(a, b), "target": str(a + b)} for a, b in _pairs(draw, LESSONS)]
    (folder / "cases.jsonl").write_text("".join(msgspec.json.encode(row).decode() + "\n" for row in rows))
    (folder / f"{NAME}.toml").write_text(TASK)
    return folder / f"{NAME}.toml"


def _pairs(draw: random.Random, count: int) -> Iterator[tuple[int, int]]:
    seen = set[tuple[int, int]]()
    while len(seen) < count:
        pair = draw.randint(10, 99), draw.randint(10, 99)
        if pair not in seen:
            seen.add(pair)
            yield pair


def adapted(task: Task) -> Policy:
    """Return the task's policy with an adapter, trained and kept on this machine; trained once, then remembered."""
    model = connect("embedded")
    draw = random.Random(0)
    lessons = tuple(
        Lesson(tuple(request(task.baseline, case, task.kind)["messages"]), f"{OWN_WORDS} {case.target}.", case.id)
        for case in draw.sample(task.dev, len(task.dev))
    )
    work = Work(base_name(model), lessons, Recipe(epochs=12.0, patience=0))
    trained = fine_tune(work, model.file, Limits(minutes=10.0))  # type: ignore[attr-defined]  # it is embedded
    print(f"the adapter: {len(trained.steps)} steps in {trained.seconds:.0f} s", file=sys.stderr)
    return msgspec.structs.replace(task.baseline, adapter=trained.adapter)


async def swapped(
    policies: tuple[Policy, Policy], store: Path, url: str, server: int, chosen: argparse.Namespace
) -> Swap:
    """Have callers answered under the first of *policies* while the second, with an adapter, comes and goes."""
    champion, policy = policies
    with open_store(store) as opened:
        opened.put_policy(policy)
    callers, stopped, memory = Callers(url, chosen.rate), asyncio.Event(), dict[str, float]()
    async with asyncio.TaskGroup() as group:
        group.create_task(callers.ask(stopped))
        await asyncio.sleep(chosen.warm_up_s)
        began_s = time.perf_counter()
        await asyncio.sleep(chosen.seconds)
        memory["before"] = memory_mb(server)
        came = await moved(callers, policy.id, "promote", NAME, policy.id, "--holdback", "0", "--yes", store=store)
        await asyncio.sleep(chosen.seconds)
        memory["with the adapter"] = memory_mb(server)
        went = await moved(callers, champion.id, "rollback", NAME, store=store)
        await asyncio.sleep(chosen.seconds)
        memory["taken back"] = memory_mb(server)
        ended_s = time.perf_counter()
        stopped.set()
    return Swap(
        replies=callers.replies,
        sent=callers.sent,
        began_s=began_s,
        commands_s=(came[0], went[0]),
        firsts_s=(came[1], went[1]),
        ended_s=ended_s,
        policies=(champion.id, policy.id),
        memory_mb=memory,
    )


async def moved(callers: Callers, policy: str, *command: str, store: Path) -> tuple[float, float]:
    """Give a command, and return when, and when the first reply by *policy* came; raises ``SystemExit``."""
    began_s = time.perf_counter()
    first = asyncio.create_task(callers.first_by(policy))
    gainful = str(Path(sys.executable).parent / "gainful")
    process = await asyncio.create_subprocess_exec(gainful, *command, "--store", str(store))
    if await process.wait():
        raise SystemExit(f"gainful {' '.join(command[:2])} ended with {process.returncode}")
    return began_s, await first


def memory_mb(server: int) -> float:
    """Return the proportional memory of a process and all below it, in 10**6 bytes; those that end meanwhile are 0."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
    family, last = {server}, 0
    while len(family) > last:
        last = len(family)
        family |= {pid for pid, parent in parents.items() if parent in family}
    return sum(map(_pss_mb, family))


def _pss_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def figures(swaps: Sequence[Swap], rate: float) -> Iterator[Figure]:
    """Yield what the repeats say."""
    subject = f"{rate:g} requests/s"
    n = swaps[0].sent
    yield Figure(subject, "sent", "requests", n, tuple(swap.sent for swap in swaps))
    yield Figure(subject, "lost", "requests", n, tuple(swap.lost() for swap in swaps))
    phases = [swap.phases() for swap in swaps]
    for name in phases[0]:
        where, count = f"{subject}, {name}", len(phases[0][name])
        for percentile in (50, 99, 100):
            found = tuple(nearest_rank([reply.ms for reply in one[name]], percentile) for one in phases)
            label = "slowest" if percentile == 100 else f"p{percentile}"
            yield Figure(where, label, "ms", count, found)
        words = tuple(sum(reply.is_own_words for reply in one[name]) for one in phases)
        yield Figure(where, "in the adapter's words", "replies", count, words)
    for i, name in enumerate(("promote", "rollback")):
        waited = tuple(swap.firsts_s[i] - swap.commands_s[i] for swap in swaps)
        yield Figure(f"{subject}, {name}", "until its first reply", "s", 1, waited)
    for name in swaps[0].memory_mb:
        yield Figure(f"{subject}, {name}", "memory", "MB", 1, tuple(swap.memory_mb[name] for swap in swaps))


def nearest_rank(values: Sequence[float], percentile: int) -> float:
    """Return the smallest of *values* that *percentile* percent of them do not exceed.

    >>> nearest_rank([3.0, 1.0, 2.0, 4.0], 50), nearest_rank([3.0, 1.0, 2.0, 4.0], 99)
    (2.0, 4.0)
    """
    return sorted(values)[math.ceil(len(values) * percentile / 100) - 1] if values else math.nan


def one_repeat(chosen: argparse.Namespace) -> Swap:
    with tempfile.TemporaryDirectory(dir=RESULTS.parent) as scratch:
        folder, port = Path(scratch), free_port()
        place, store = write_task(folder), folder / "serve.db"
        task = load(str(place))
        policies = task.baseline, adapted(task)  # trained before the server is there, which that would disturb
        command = [Path(sys.executable).parent / "gainful", "serve", place, "--port", port, "--store", store]
        with running(command, {}, f"http://127.0.0.1:{port}/healthz", folder / "gainful.log") as server:
            return asyncio.run(swapped(policies, store, f"http://127.0.0.1:{port}/v1", server, chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rate", type=float, default=5.0, help="requests a second; a core answers some ten")
    parser.add_argument("--seconds", type=float, default=60.0, help="before, with the adapter, and after")
    parser.add_argument("--warm-up-s", type=float, default=10.0, help="not counted, unless something is lost")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    work = RESULTS.parent / "adapter_swap"
    work.mkdir(parents=True, exist_ok=True)
    swaps: list[Swap] = []
    for number in range(chosen.repeats):
        known = work / f"{chosen.rate:g}-{chosen.seconds:g}-{chosen.warm_up_s:g}-{number}.json"
        if not known.exists():
            known.write_bytes(msgspec.json.encode(one_repeat(chosen)))
        swaps.append(msgspec.json.decode(known.read_bytes(), type=Swap))
        publish("adapter_swap", list(figures(swaps, chosen.rate)))  # what there is so far


if __name__ == "__main__":
    main()
