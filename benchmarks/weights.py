"""Weights learned from the model's own verified answers: is it knowledge?

Five tasks of reasoning-gym, the embedded model, the product's own loop with ``--weights``.  Evaluated on cases that
were fixed first and whose questions are never sampled: the untouched model, the best policy before any training (which
shows own verified answers as demos), and the policy after each training; strictly (the reply is the answer) and
leniently (the last number or word of the reply is it).  Beside it the same with the replies shuffled within each gym,
and the best constant answer.

    python benchmarks/weights.py [--seeds 3] [--rounds 6] [--shuffled]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections import Counter
from pathlib import Path

from figures import RESULTS
from inside.five_gyms import GYMS, OfFive, five_gyms, gym_of
from msgspec.structs import replace

from gainful.core import Answer, Case, Policy, Text
from gainful.engine.local import Engine
from gainful.learners import Demos, Formats
from gainful.learners.weights import Taught, Teaching
from gainful.loop import session
from gainful.loop.events import Event, Finished, Head, Progress, Proposed
from gainful.loop.run import Halving, Settings
from gainful.models import connect
from gainful.store import MemoModel, SQLiteStore

DEV, PRACTICE, EVALUATED = 24, 600, 60  # of each gym
WORK = RESULTS.parent / "weights"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
WORD = re.compile(r"[A-Za-z]+")


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


async def evaluated(store: Path, policy: Policy, cases: tuple[Case, ...]) -> dict[str, dict[str, float]]:
    """Return right answers by gym, strictly and leniently."""
    right: dict[str, Counter[str]] = {"strict": Counter(), "lenient": Counter()}
    for case, (strict, loose) in zip(cases, await graded(store, policy, cases), strict=True):
        right["strict"][gym_of(case)] += strict
        right["lenient"][gym_of(case)] += loose
    return {how: {gym: counts[gym] for gym in GYMS} for how, counts in right.items()}


def constant(cases: tuple[Case, ...]) -> dict[str, float]:
    """Return how many cases of each gym the most frequent answer gets right."""
    answers = {gym: Counter(case.target for case in cases if gym_of(case) == gym) for gym in GYMS}
    return {gym: float(counts.most_common(1)[0][1]) for gym, counts in answers.items()}


def one_seed(seed: int, chosen: argparse.Namespace) -> dict[str, object]:
    name = f"{'shuffled' if chosen.shuffled else 'own'}-{seed}"
    store = WORK / f"{name}.db"
    task, cases = five_gyms(DEV, PRACTICE, EVALUATED, seed)
    teaching = Teaching(
        cases=chosen.cases, samples=chosen.samples, minutes=chosen.train_minutes, shuffled=chosen.shuffled
    )
    settings = Settings(
        seed=seed, rounds=chosen.rounds, halving=Halving((10, 30, 60)), fresh_cases=300, teaching=teaching
    )
    clock = Clock()
    session.improve(task, "embedded", store, settings, (Formats(), Demos()), (clock,))
    policies = {"untouched": (0.0, task.baseline)}
    proposed = {e.label: e.proposal for _, e in clock.records if isinstance(e, Proposed)}
    for at, event in clock.records:
        if isinstance(event, Head) and event.label and proposed[event.label].learner != "weights":
            policies["demos"] = (at, proposed[event.label].policy)  # the last one: before any training
        if isinstance(event, Taught) and event.trained is not None:
            number = 1 + sum(name.startswith("training") for name in policies)
            policies[f"training {number}"] = (at, replace(task.baseline, adapter=event.trained.adapter))
    found = {}
    for label, (at, policy) in policies.items():
        scores = asyncio.run(evaluated(store, policy, cases))
        found[label] = {"seconds": at, **scores}
        print(label, f"{at:.0f} s", {how: f"{sum(c.values()) / len(cases):.3f}" for how, c in scores.items()}, scores)
    return {"seed": seed, "n": len(cases), "constant": constant(cases), "policies": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--cases", type=int, default=400, help="practice cases sampled a training")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--train-minutes", type=float, default=5.0)
    parser.add_argument("--shuffled", action="store_true")
    chosen = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    runs = [one_seed(seed, chosen) for seed in range(chosen.first, chosen.first + chosen.seeds)]
    RESULTS.mkdir(parents=True, exist_ok=True)
    kind = "shuffled" if chosen.shuffled else "own"
    (RESULTS / f"weights_{kind}_runs.json").write_text(json.dumps(runs, indent=2) + "\n")


if __name__ == "__main__":
    main()
