"""How soon a canary is taken back, and how often falsely, with all the code that does it in production.

A model is scripted to be right with a known probability under each policy, by luck of its own on each request and
policy.  A challenger is staged; callers ask; what they get is stored; the watcher takes its rounds until it takes the
challenger back or lets it into service.  Beside each median stands what the gate alone comes to (``canary.drawn``), at
the level that the watcher uses.

In the path: the store (a SQLite file), reading what is in service, seating in blocks, the policy's prompt, checks, rows
as the proxy's books write them (``street``), and whole rounds of the watcher: intake, blocks put together again,
quality and guards, the tests, the ledger's lines.  Not in the path: HTTP and what else ``street`` leaves out; the way
to the first stage (search and confirmation); cases for learning, since the callers' key keeps its data apart; and time:
a round is taken after every few canary requests, in place of every two seconds.  So a detection counts all that came
before the round that saw it.

Then champions that a person forced in, after the former one had answered 600 requests: how many more are answered until
they are taken back, by the hold-back, by what the former one was, or both; and how often one that is as good is.

    taskset -c 1 python benchmarks/canary_in_service.py [--runs 200] [--boundary-runs 500] [--only "canary of 50%"]
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hashlib
import logging
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from canary import drawn, until
from figures import Estimate, median, publish_estimates, share
from lifetimes import JUDGE, RIGHT, question
from street import Clock, Street, working

from gainful.core import JsonObject, Policy, Text
from gainful.gate import Canary
from gainful.models import ScriptedModel
from gainful.store import Key, SQLiteStore
from gainful.tasks import Task, divide, make_task
from gainful.tasks.improving import Improving
from gainful.watch.canary import LEVEL_QUALITY
from gainful.watch.service import Helm, service_key
from gainful.watch.watcher import Watcher

CHAMPION, CHALLENGER = Policy(instructions="Say yes.", max_tokens=8), Policy(instructions="Say no.", max_tokens=8)
MARGIN = Improving().margin
EACH_ROUND = {-0.2: 2, -0.1: 5, -MARGIN: 25}  # by gain, canary requests between two rounds: few where few are needed
LONGEST = 5000  # comparisons after which we wait no longer for harm to be seen
GATE_RUNS = 2000


class Way(NamedTuple):
    """How a challenger is tried: staged at once at this share of requests, unheard or not, champion at *quality*."""

    quality: float
    gain: float
    share: float
    is_unheard: bool = False

    def __str__(self) -> str:
        stage = "shadow" if self.is_unheard else "canary"
        return f"{stage} of {self.share:.0%}, {100 * self.gain:+.0f} points, quality {self.quality:.0%}"


class End(NamedTuple):
    """What became of a challenger: the ledger's last word and why, and how often it was asked until then."""

    word: str
    why: str
    canary_requests: int
    has_gone_on: bool


HARMFUL = (
    *(Way(0.5, gain, 0.5) for gain in (-0.1, -0.2)),
    *(Way(0.5, gain, 0.2) for gain in (-0.1, -0.2)),
    *(Way(0.5, gain, 0.25, is_unheard=True) for gain in (-0.1, -0.2)),
    *(Way(0.8, gain, 0.5) for gain in (-0.1, -0.2)),
    *(Way(0.8, gain, 0.2) for gain in (-0.1, -0.2)),
    *(Way(0.5, gain, 0.05) for gain in (-0.2, -0.1)),
    *(Way(0.5, gain, 0.01) for gain in (-0.2, -0.1)),
)


class Forced(NamedTuple):
    """A champion that is forced in, better by *gain*; the share *holdback* stays on the former one, of *quality*.

    From then on callers ask for what both are worse at, by *harder*.
    """

    quality: float
    gain: float
    holdback: float
    harder: float = 0.0

    def __str__(self) -> str:
        kept = f"hold-back of {self.holdback:.0%}" if self.holdback else "no hold-back"
        harder = f", all harder by {100 * self.harder:.0f}" if self.harder else ""
        return f"forced in, {100 * self.gain:+.0f} points{harder}, quality {self.quality:.0%}, {kept}"


FORCED = (
    *(Forced(0.8, gain, held) for held in (0.03, 0.2, 0.0) for gain in (-0.8, -0.2, -0.1, 0.0)),
    *(Forced(0.8, 0.0, held, harder) for held in (0.03, 0.2) for harder in (0.2, 0.5)),
)
BEFORE, AFTER, AT_A_TIME = 600, 5000, 20  # requests before it is forced in, afterwards at most, and between two rounds
BOUNDARY = {  # comparisons: what errs does so early, for stakes are fixed and the money drifts to 0
    Way(0.5, -MARGIN, 0.5): 1000,
    Way(0.5, -MARGIN, 0.25, is_unheard=True): 600,
    Way(0.5, -MARGIN, 0.2): 600,
}


def task_of() -> Task:
    task = make_task("canary", divide([question(-n) for n in range(1, 9)]), Text(), [JUDGE], [], CHAMPION)
    return dataclasses.replace(task, improving=Improving(probes=0))


def model_of(seed: int, way: Way | Forced) -> ScriptedModel:
    """A model that is right with the way's probabilities, by luck of its own on each request under each policy."""
    right = {CHAMPION.instructions: way.quality, CHALLENGER.instructions: way.quality + way.gain}

    def answer(body: JsonObject, sample: int) -> str:
        told, asked = (message["content"] for message in body["messages"])
        heard = hashlib.sha256(f"{seed} {told} {asked}".encode()).digest()
        harder = way.harder if isinstance(way, Forced) and int(asked.split()[2]) >= BEFORE else 0.0
        return RIGHT if int.from_bytes(heard[:6]) < (right[told] - harder) * 2**48 else "no"

    return ScriptedModel(answer, name=f"luck {seed}")


def tried(seed: int, way: Way, longest: int) -> End:
    """Try one challenger until it is taken back, let into service, or compared *longest* times."""
    place = "/dev/shm" if os.path.isdir("/dev/shm") else None
    clock, task, model = Clock(), task_of(), model_of(seed, way)
    with tempfile.TemporaryDirectory(dir=place) as folder, SQLiteStore(Path(folder) / "c.db", clock=clock) as store:
        store.set_champion(task.name, CHAMPION, "confirmed")
        store.put_policy(CHALLENGER)
        store.put_key(Key("web", "0" * 64, clock(), own_data=True))
        helm = Helm(store, task.name, clock)
        helm.stage(CHALLENGER.id, "shadow" if way.is_unheard else "canary", way.share, f"{seed:064x}", "r" * 64)
        street, watcher = Street(store, task, model, question, clock), Watcher(task, working(store, model, clock))
        while (stage := helm.state.canary) is not None and _compared(watcher) < longest:
            street.ask(EACH_ROUND[way.gain] * stage.block)
            asyncio.run(watcher.round())
        asked = sum(body["messages"][0]["content"] == CHALLENGER.instructions for body in model.calls)
        ledger = store.ledger(service_key(task.name))
        last = ledger[-1]
        return End(last.kind, last.content.get("reason", ""), asked, len(ledger) > 1 + (last.kind == "rejected"))


def forced(seed: int, way: Forced) -> int | None:
    """Return how many requests came until a champion was taken back, ``None`` where it was not."""
    place = "/dev/shm" if os.path.isdir("/dev/shm") else None
    clock, task, model = Clock(), task_of(), model_of(seed, way)
    with tempfile.TemporaryDirectory(dir=place) as folder, SQLiteStore(Path(folder) / "c.db", clock=clock) as store:
        store.set_champion(task.name, CHAMPION, "confirmed")
        store.put_policy(CHALLENGER)
        store.put_key(Key("web", "0" * 64, clock(), own_data=True))
        street, watcher = Street(store, task, model, question, clock), Watcher(task, working(store, model, clock))
        street.ask(BEFORE)
        asyncio.run(watcher.round())
        Helm(store, task.name, clock).force(CHALLENGER.id, f"{seed:064x}", way.holdback)
        while street.asked < BEFORE + AFTER:
            street.ask(AT_A_TIME)
            asyncio.run(watcher.round())
            if store.champion(task.name) == CHAMPION.id:
                return street.asked - BEFORE
    return None


def _compared(watcher: Watcher) -> int:
    return watcher._canary.tests["quality"].n if watcher._canary else 0


def shown(way: Way, ends: Sequence[End]) -> Iterator[Estimate]:
    """What came of harmful challengers, and what the gate alone would have made of their like."""
    block = 2 if way.is_unheard else round(1 / way.share)
    found = [end.canary_requests if end.word == "rejected" else LONGEST for end in ends]
    yield median(f"{way}: taken back after", found, "requests")
    yield share("  taken back", sum(end.word == "rejected" for end in ends), len(ends))
    rng = random.Random(1)
    alone = [
        until("roll back", Canary(MARGIN, LEVEL_QUALITY), drawn(rng, way.quality, way.gain, block))
        for _ in range(GATE_RUNS)
    ]
    yield median("  the gate alone", alone, "requests")


def shown_forced(way: Forced, found: Sequence[int | None]) -> Iterator[Estimate]:
    """What came of champions that were forced in."""
    yield share(f"{way}: taken back", sum(one is not None for one in found), len(found))
    if way.gain < 0.0:
        yield median("  after", [AFTER if one is None else one for one in found], "requests")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--boundary-runs", type=int, default=500)
    parser.add_argument("--only", default="", help="ways whose name begins so")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # the watcher says each time that it took one back
    publish_estimates("canary_in_service", 0, estimates(options.runs, options.boundary_runs, options.only))


def estimates(runs: int, boundary_runs: int, only: str) -> Iterator[Estimate]:
    for way in (way for way in HARMFUL if str(way).startswith(only)):
        yield from shown(way, [tried(seed, way, LONGEST) for seed in range(runs)])
    for one in (one for one in FORCED if str(one).startswith(only)):
        yield from shown_forced(one, [forced(seed, one) for seed in range(runs)])
    for way, compared in BOUNDARY.items():
        if not str(way).startswith(only):
            continue
        ends = [tried(seed, way, compared) for seed in range(boundary_runs)]
        back = [end for end in ends if end.word == "rejected"]
        yield share(f"{way}, {compared:,} comparisons: taken back", len(back), len(ends))
        yield share("  for its quality", sum(end.why.startswith("quality") for end in back), len(ends))
        yield share("  let through to the next stage", sum(end.has_gone_on for end in ends), len(ends))


if __name__ == "__main__":
    main()
