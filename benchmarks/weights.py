"""Weights learned from the model's own verified answers: is it knowledge?

Five tasks of reasoning-gym, the embedded model, the product's own loop with ``--weights``.  Evaluated on cases that
were fixed first and whose questions are never sampled: the untouched model, the best policy before any training (which
shows own verified answers as demos), and each adapter, asked the bare question; strictly (the reply is the answer) and
leniently (the last number or word of the reply is it).  Beside it the same with the replies shuffled within each kind
of question, and the best constant answer.

What has finished lies in out/weights and is not run again.

    python benchmarks/weights.py [--seeds 3] [--rounds 8] [--shuffled]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from figures import RESULTS, Figure, accuracy, gain, publish
from inside.five_gyms import GYMS, OfFive, five_gyms, gym_of
from msgspec.structs import replace

from gainful.core import Answer, Case, Policy, Text
from gainful.engine.local import Engine
from gainful.learners import Demos, Formats
from gainful.learners.teaching import Taught, Teaching
from gainful.loop import session
from gainful.loop.events import Event, Finished, Head, Progress, Proposed
from gainful.loop.run import Halving, Settings
from gainful.models import connect
from gainful.store import MemoModel, SQLiteStore

DEV, PRACTICE, EVALUATED = 24, 600, 60  # of each gym
WORK = RESULTS.parent / "weights"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
WORD = re.compile(r"[A-Za-z]+")

Run: TypeAlias = dict[str, dict[str, Any]]
"""Of each policy of a run: after how many minutes it was there (``None``: unknown), and what it gets right by gym."""


class Clock:
    """When each record was written, in seconds since the run began."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.records: list[tuple[float, Event]] = []

    def __call__(self, event: Event | Progress) -> None:
        if not isinstance(event, Progress):
            self.records.append((time.monotonic() - self.began, event))
            print(f"{self.records[-1][0]:7.0f} s  {told(event)}", flush=True)


def told(event: Event) -> str:
    match event:
        case Taught():
            trained = event.trained
            took = f"{trained.seconds:.0f} s, {trained.tokens} tokens, stopped {trained.stopped!r}" if trained else ""
            return f"taught {event.counts} material {event.material} {took} {event.vetting} {event.refused}"
        case Proposed():
            return f"proposed {event.label} {event.proposal.learner}: {event.proposal.change}"
        case Head():
            return f"head {event.label} {event.learner} {event.score.mean:.3f} gain {event.gain:+.3f}"
        case Finished():
            return f"finished, promoted: {event.promoted}"
    return type(event).__name__


def lenient(case: Case, text: str) -> str:
    """Return the last number of a reply, or its last word where words are asked for."""
    found = (WORD if gym_of(case) == "spell_backward" else NUMBER).findall(text)
    return found[-1] if found else ""


async def graded(store: Path, policy: Policy, cases: tuple[Case, ...]) -> list[tuple[bool, bool]]:
    """Return for each case whether the embedded model's greedy answer is right, strictly and leniently."""
    check, model = OfFive(), connect("embedded")
    found: list[tuple[bool, bool]] = []
    with SQLiteStore(store) as opened:
        engine = Engine(MemoModel(model, opened), Text())
        async for attempt in engine.attempts(policy, cases, (check,)):
            case = cases[len(found)]
            value = lenient(case, str(attempt.answer.value or ""))
            scored = check(case, Answer(text=value, value=value))
            is_right = attempt.score == 1.0
            found.append((is_right, is_right or (scored is not None and scored.value == 1.0)))
    await model.close()
    return found


def constant(cases: tuple[Case, ...]) -> dict[str, list[tuple[bool, bool]]]:
    """Return, gym by gym, which cases its most frequent answer gets right."""
    targets = {gym: [case.target for case in cases if gym_of(case) == gym] for gym in GYMS}
    usual = {gym: Counter(of_it).most_common(1)[0][0] for gym, of_it in targets.items()}
    return {gym: [(target == usual[gym],) * 2 for target in of_it] for gym, of_it in targets.items()}


def one_seed(seed: int, chosen: argparse.Namespace) -> Run:
    """Return what one run brought; a run that has finished is read from its file."""
    name = f"{'shuffled' if chosen.shuffled else 'own'}-{seed}"
    store, finished = WORK / f"{name}.db", WORK / f"{name}.json"
    if finished.is_file():
        return dict(json.loads(finished.read_text()))
    task, cases = five_gyms(DEV, PRACTICE, EVALUATED, seed)
    teaching = Teaching(
        rounds=chosen.trainings,
        cases=chosen.cases,
        samples=chosen.samples,
        minutes=chosen.train_minutes,
        shuffled=chosen.shuffled,
    )
    settings = Settings(
        seed=seed, rounds=chosen.rounds, halving=Halving((10, 30, 60)), fresh_cases=300, teaching=teaching
    )
    clock = Clock()
    session.improve(task, "embedded", store, settings, (Formats(), Demos()), (clock,))
    policies: dict[str, tuple[float | None, Policy]] = {"untouched": (None, task.baseline)}
    proposed = {e.label: e.proposal for _, e in clock.records if isinstance(e, Proposed)}
    for at, event in clock.records:
        if isinstance(event, Head) and event.label and proposed[event.label].learner != "weights":
            policies["demos"] = (at, proposed[event.label].policy)  # the last one: before any training
        if isinstance(event, Taught) and event.trained is not None:
            number = 1 + sum(name.startswith("training") for name in policies)
            is_vetted = event.vetting is not None  # of the rounds before it is told when the next one has ended
            policies[f"training {number}"] = (
                at if is_vetted else None,
                replace(task.baseline, adapter=event.trained.adapter),
            )
    found: Run = {"constant": {"right": constant(cases)}}
    for label, (at, policy) in policies.items():
        right = asyncio.run(graded(store, policy, cases))
        found[label] = {"minutes": None if at is None else at / 60, "right": {gym: [] for gym in GYMS}}
        for case, one in zip(cases, right, strict=True):
            found[label]["right"][gym_of(case)].append(one)
        print(label, at, {gym: sum(strict for strict, _ in ones) for gym, ones in found[label]["right"].items()})
    finished.write_text(json.dumps(found))
    return found


def figures(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield what all *runs* share: minutes until each policy was there, and how often it is right."""
    labels = [label for label in runs[0] if all(label in run for run in runs)]
    for label in labels:
        minutes = [run[label].get("minutes") for run in runs]
        if None not in minutes:
            yield Figure(label, "ready after", "min", 1, tuple(minutes))
        for number, how in enumerate(("strict", "lenient")):
            yield from accuracy(label, how, [[one[number] for one in all_of(run[label])] for run in runs])
        for gym in GYMS:
            yield from accuracy(label, gym, [[strict for strict, _ in run[label]["right"][gym]] for run in runs])
    for label in labels if "demos" in labels else ():
        if label.startswith("training"):
            both = ([[strict for strict, _ in all_of(run[one])] for run in runs] for one in (label, "demos"))
            yield from gain(f"{label} against demos", *both)


def all_of(policy: dict[str, Any]) -> list[tuple[bool, bool]]:
    return [one for gym in GYMS for one in policy["right"][gym]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--trainings", type=int, default=Teaching().rounds, help="before an adapter races")
    parser.add_argument("--cases", type=int, default=400, help="practice cases sampled a training")
    parser.add_argument(
        "--samples", type=int, default=Teaching().samples, help="of a case of which nothing comes right"
    )
    parser.add_argument("--train-minutes", type=float, default=5.0)
    parser.add_argument("--shuffled", action="store_true")
    chosen = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    runs = [one_seed(seed, chosen) for seed in range(chosen.first, chosen.first + chosen.seeds)]
    publish("weights_shuffled" if chosen.shuffled else "weights", list(figures(runs)))


if __name__ == "__main__":
    main()
