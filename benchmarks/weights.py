"""Weights learned from the model's own verified answers: is it knowledge?

Five tasks of reasoning-gym, the embedded model, the product's own loop with ``--weights --train-control``.  Evaluated
on cases that were fixed first and whose questions are never sampled: the untouched model, the best policy before any
training (which shows own verified answers as demos), and each adapter, asked the bare question; strictly (the reply is
the answer) and leniently (the last number or word of the reply is it).  Beside it the same training with the replies of
other cases of their kind, and the best constant answer; with ``--shuffled`` all rounds are so from the first.

Minutes are of work by the clock, in a cache of this benchmark's own.  What was stopped goes on from out/weights, and
what has finished there is not run again; another version of the code begins anew.

    python benchmarks/weights.py [--seeds 3] [--rounds 4] [--shuffled]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from figures import RESULTS, Figure, accuracy, gain, publish
from inside.five_gyms import GYMS, OfFive, five_gyms, gym_of
from msgspec.structs import replace
from workbench import Clock, code_version, improved, own_cache, trained_at

from gainful.core import Answer, Case, Policy, Text, digest
from gainful.engine.local import Engine
from gainful.learners import Demos, Formats
from gainful.learners.teaching import Taught, Teaching
from gainful.loop.events import Event, Finished, Head, Proposed
from gainful.loop.run import Halving, Settings
from gainful.models import connect
from gainful.store import MemoModel, SQLiteStore
from gainful.tasks import Task

DEV, PRACTICE, EVALUATED = 24, 600, 60  # of each gym
WORK = RESULTS.parent / "weights"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
WORD = re.compile(r"[A-Za-z]+")

Run: TypeAlias = dict[str, dict[str, Any]]
"""Of each policy of a run: after how many minutes it was there (``None``: unknown), and what it gets right by gym."""


def told(event: Event) -> str:
    match event:
        case Taught():
            trained = event.trained
            took = f"{trained.seconds:.0f} s, {trained.tokens} tokens, stopped {trained.stopped!r}" if trained else ""
            what = f"control of {event.control_of[:8]}" if event.control_of else f"round {event.round}"
            return (
                f"{what}: {event.counts} material {event.material} {took} {event.dev} {event.vetting} {event.refused}"
            )
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
    """Return what one run brought; what was evaluated already is read from its file."""
    folder = WORK / f"{'shuffled' if chosen.shuffled else 'own'}-{seed}-{settings_key(chosen)}"
    folder.mkdir(parents=True, exist_ok=True)
    store, file = folder / "run.db", folder / "evaluated.json"
    own_cache(folder)
    task, cases = five_gyms(DEV, PRACTICE, chosen.evaluated, seed)
    teaching = Teaching(
        rounds=chosen.trainings,
        cases=chosen.cases,
        samples=chosen.samples,
        minutes=chosen.train_minutes,
        control=not chosen.shuffled,
        shuffled=chosen.shuffled,
    )
    settings = Settings(
        seed=seed, rounds=chosen.rounds, halving=Halving(tuple(chosen.rungs)), fresh_cases=300, teaching=teaching
    )
    clock = improved(task, store, settings, (Formats(), Demos()), told)
    found: Run = json.loads(file.read_text()) if file.exists() else {"constant": {"right": constant(cases)}}
    for label, (minutes, policy) in policies_of(clock, task).items():
        if label in found:
            continue
        right = asyncio.run(graded(store, policy, cases))
        found[label] = {"minutes": minutes, "right": {gym: [] for gym in GYMS}}
        for case, one in zip(cases, right, strict=True):
            found[label]["right"][gym_of(case)].append(one)
        print(label, minutes, {gym: sum(strict for strict, _ in ones) for gym, ones in found[label]["right"].items()})
        part = file.with_suffix(".part")
        part.write_text(json.dumps(found))
        part.replace(file)
    return found


def settings_key(chosen: argparse.Namespace) -> str:
    """Return a name for what the rows of a run depend on, beside its seed."""
    asked = [chosen.rounds, chosen.trainings, chosen.cases, chosen.samples, chosen.train_minutes]
    return f"{digest([*asked, chosen.evaluated, list(chosen.rungs)])[:8]}-{code_version()}"


def policies_of(clock: Clock, task: Task) -> dict[str, tuple[float | None, Policy]]:
    """Return the policies to evaluate, each with the minutes after which it was there (``None``: not known)."""
    found: dict[str, tuple[float | None, Policy]] = {"untouched": (None, task.baseline)}
    proposed = {event.label: event.proposal for _, event in clock.records if isinstance(event, Proposed)}
    for at_s, event in clock.records:
        if isinstance(event, Head) and event.label and proposed[event.label].policy.adapter is None:
            found["demos"] = (at_s / 60, proposed[event.label].policy)  # the last one without weights
    trained = [(event, event.trained) for _, event in clock.records if isinstance(event, Taught) and event.trained]
    moments = {done.work: trained_at(done.work) for _, done in trained}
    trained.sort(key=lambda one: (moments[one[1].work] or 0.0, one[0].round))
    number = 0
    for event, done in trained:
        moment = moments[done.work]
        minutes = None if moment is None else clock.at(moment) / 60
        number += not event.control_of
        label = "replies of other cases" if event.control_of else f"training {number}"
        found[label] = (minutes, replace(task.baseline, adapter=done.adapter))
    ends = [event.policy for _, event in clock.records if isinstance(event, Head)]
    best = next((one.policy for one in proposed.values() if ends and one.policy.id == ends[-1]), task.baseline)
    if best.adapter is not None:
        found["the best on dev"] = (None, best)
    return found


def figures(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield what all *runs* share: minutes until each policy was there, and how often it is right."""
    labels = [label for label in runs[0] if all(label in run for run in runs)]
    for label in labels:
        minutes = [run[label]["minutes"] for run in runs if run[label].get("minutes") is not None]
        if len(minutes) == len(runs):
            yield Figure(label, "ready after", "min", 1, tuple(minutes))
        for number, how in enumerate(("strict", "lenient")):
            yield from accuracy(label, how, [[one[number] for one in all_of(run[label])] for run in runs])
        for gym in GYMS:
            yield from accuracy(label, gym, [[strict for strict, _ in run[label]["right"][gym]] for run in runs])
    for label in labels if "demos" in labels else ():
        if label.startswith(("training", "the best")):
            both = ([[strict for strict, _ in all_of(run[one])] for run in runs] for one in (label, "demos"))
            yield from gain(f"{label} against demos", *both)


def all_of(policy: dict[str, Any]) -> list[tuple[bool, bool]]:
    return [one for gym in GYMS for one in policy["right"][gym]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--rounds", type=int, default=4, help="of which the last one trains, if none has before")
    parser.add_argument("--trainings", type=int, default=Teaching().rounds, help="before an adapter races")
    parser.add_argument("--cases", type=int, default=Teaching().cases, help="practice cases sampled a training")
    parser.add_argument(
        "--samples", type=int, default=Teaching().samples, help="of a case of which nothing comes right"
    )
    parser.add_argument("--train-minutes", type=float, default=10.0)
    parser.add_argument("--rungs", type=int, nargs="+", default=(10, 30, 60), help="dev cases at each step of a race")
    parser.add_argument("--evaluated", type=int, default=EVALUATED, help="cases of each gym")
    parser.add_argument("--shuffled", action="store_true", help="all rounds learn from the replies of other cases")
    chosen = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("GAINFUL_ADAPTERS", str(WORK / "adapters"))
    runs: list[Run] = []
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        runs.append(one_seed(seed, chosen))
        publish("weights_shuffled" if chosen.shuffled else "weights", list(figures(runs)))  # what there is so far


if __name__ == "__main__":
    main()
