"""Lifetimes of traffic in which nothing can be improved: how often does anything come into service all the same?

The real code throughout: requests are seated, answered by the scripted model, judged and stored; the watcher takes
them in, begins runs, races candidates on dev and confirms on held-out traffic.  Every policy answers rightly half of
the time, by luck of its own on each case, so no candidate is better than any other and every promotion is false.

    python benchmarks/lifetimes.py [--lifetimes 1000] [--runs 8]
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from figures import Figure, publish
from msgspec.structs import replace
from street import Clock, Street, working

from gainful.checks import Choice
from gainful.core import Case, Evidence, JsonObject, Policy, Proposal, Text
from gainful.gate import proportion_interval
from gainful.learners import Demos
from gainful.loop.events import Opened
from gainful.loop.journal import read_events
from gainful.models import ScriptedModel
from gainful.store import SQLiteStore
from gainful.tasks import Task, divide, make_task
from gainful.tasks.improving import Improving
from gainful.watch.service import service_key
from gainful.watch.triggers import watch_runs
from gainful.watch.watcher import Watcher

REQUESTS = 250  # between two runs: about 100 to learn from and 135 held out
CANDIDATES = 8  # wordings in each round, beside the demos
RIGHT = "yes"
JUDGE = Choice((RIGHT, "indeed"), compare=False)  # trusted, and in no need of a process of its own


class Life(NamedTuple):
    """What came of one lifetime."""

    runs: int
    confirmations: int
    promoted: bool


@dataclasses.dataclass(frozen=True)
class Wordings:
    """Proposes other words with the same meaning, as many as are asked for."""

    name: str = "wordings"

    def propose(self, head: Policy, evidence: Evidence) -> Sequence[Proposal]:
        begin = len(head.instructions)
        policies = [replace(head, instructions=f"{head.instructions} {begin}.{n}") for n in range(CANDIDATES)]
        return [Proposal(policy=policy, learner=self.name, change="other words") for policy in policies]


def question(number: int) -> Case:
    return Case(messages=({"role": "user", "content": f"Is number {number} such a number?"},))


def task_of(seed: int) -> Task:
    task = make_task(f"null {seed}", divide([question(-n) for n in range(1, 9)]), Text(), [JUDGE])
    improving = Improving(after_errors=20, shadow=0.25, calls_per_day=None, probes=0)
    return dataclasses.replace(task, improving=improving)


def luck(seed: int) -> ScriptedModel:
    """A model that is right in half of the cases, whatever it is told, and in others for every other wording."""

    def answer(body: JsonObject, sample: int) -> str:
        heard = hashlib.sha256(repr((seed, sample, body["messages"])).encode()).digest()
        return RIGHT if heard[0] < 128 else "no"

    return ScriptedModel(answer, name=f"luck {seed}")


def live(seed: int, runs: int) -> Life:
    """Live one lifetime of so many runs, or until something is let in."""
    place = "/dev/shm" if os.path.isdir("/dev/shm") else None
    clock = Clock()
    with tempfile.TemporaryDirectory(dir=place) as folder, SQLiteStore(Path(folder) / "l.db", clock=clock) as store:
        task, model = task_of(seed), luck(seed)
        street = Street(store, task, model, question, clock)
        watcher = Watcher(task, working(store, model, clock), learners=(Wordings(), Demos()))
        for _ in range(4 * runs):
            street.ask(REQUESTS)
            asyncio.run(working_until_idle(watcher))
            ledger = store.ledger(service_key(task.name))
            lived = watch_runs(store, task.name)
            if ledger or len(lived) >= runs:
                break
        opened = [event for run in lived for event in read_events(store, run.run) if isinstance(event, Opened)]
        return Life(len(lived), len(opened), any(entry.kind == "staged" for entry in ledger))


async def working_until_idle(watcher: Watcher) -> None:
    await watcher.round()
    while watcher.is_busy:
        await asyncio.sleep(0.005)
        await watcher.round()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lifetimes", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=8, help="in each lifetime, at most")
    chosen = parser.parse_args()
    lives: list[Life] = []
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        for life in pool.map(live, range(chosen.lifetimes), [chosen.runs] * chosen.lifetimes):
            lives.append(life)
            if len(lives) % 50 == 0:
                print(
                    f"{len(lives)} lifetimes, {sum(one.promoted for one in lives)} with a false promotion", flush=True
                )
    false = sum(life.promoted for life in lives)
    low, high = proportion_interval(false, len(lives), 0.05)
    n = len(lives)
    publish(
        "lifetimes",
        [
            Figure("lifetimes", "with a false promotion", "%", n, (100 * false / n,)),
            Figure("lifetimes", "95 % interval from", "%", n, (100 * low,)),
            Figure("lifetimes", "95 % interval to", "%", n, (100 * high,)),
            Figure("lifetimes", "runs", "", n, (sum(life.runs for life in lives) / n,)),
            Figure("lifetimes", "confirmations", "", n, (sum(life.confirmations for life in lives) / n,)),
        ],
    )


if __name__ == "__main__":
    main()
