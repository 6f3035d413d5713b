"""Tool calls: weights on top of the best prompt, and the long prompt distilled into weights.

BFCL's one-call cases of both categories, the embedded model, the product's own loop three times over:

1. the main job, as ``gainful demo`` does it: prompts, formats and demos;
2. ``--weights --train-control``: the champion answers practice cases many times, and a student learns what the checks
   verify; beside it, the same training with the replies of other cases;
3. ``--weights --cheaper``: what the champion says in service becomes the weights of a student that is asked bare.

The second and the third each begin from the store as the first has left it, so from the same champion.

Half of all cases were set apart first, by their digest, and copies of a case with them; nothing here learns from them,
races on them or confirms by them.  On these the baseline, the champion of the main job and both students answer
greedily; strictly right is what the answer key allows.  A student is evaluated whether it was promoted or not: the
confirmation has half of the cases that are left, which can certify large gains alone.  Its verdict stands beside.

Without ``--key`` learning goes by BFCL's checks that read no answer key (the form of the call, and whether the request
says what it says), as on traffic; with it the key judges practice and dev as well.

*ms a request* is by the clock of single requests, one after the other, the policies taking turns: the machine must be
quiet.  Minutes are of work by the clock, in a cache of this benchmark's own.  What was stopped goes on from
out/weights_calls, where finished runs are not run again, until the code is another.  A student that may not race is
missing among the rows; *students* says so.

    taskset -c 1 python benchmarks/weights_calls.py [--key] [--seed 0] [--train-minutes 15]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sqlite3
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from figures import RESULTS, Figure, accuracy, gain, publish
from msgspec.structs import replace
from workbench import code_version, improved, own_cache

from gainful.checks import AnswerKey
from gainful.core import Attempt, Case, Check, Policy, digest
from gainful.engine.local import Engine
from gainful.learners import LEARNERS
from gainful.learners.teaching import Taught, Teaching
from gainful.loop.events import Finished, Proposed
from gainful.loop.run import Cheaper, Halving, Settings
from gainful.models import connect
from gainful.store import MemoModel, SQLiteStore, open_store
from gainful.tasks import Split, Task, divide, load, make_task
from gainful.tasks.bfcl import CATEGORIES

WORK = RESULTS.parent / "weights_calls"
PROMPTS = "prompts"
APART = Split(dev=0.5, seed=1)  # what it calls dev is set apart
LEARNED_FROM = Split(dev=0.6, seed=0)  # of the rest
RUNGS = (8, 20, 64)  # as the demo has them; dev cases that no race uses are practice


def bfcl(chosen: argparse.Namespace) -> tuple[Task, tuple[Case, ...]]:
    """Return the task, and the cases that were set apart."""
    parts = [load(f"bfcl:{category}") for category in CATEGORIES]
    cases = [case for part in parts for case in (*part.dev, *part.holdout.open("0" * 64, part.holdout.size or 0, 0))]
    apart = divide([case for case in cases if APART.is_dev(case)])  # drops copies; which of its sides is all one
    rest = divide([case for case in cases if not APART.is_dev(case)], LEARNED_FROM)
    first = parts[0]
    checks = (*first.checks, AnswerKey()) if chosen.key else first.checks
    name = f"bfcl-both{'-by-key' if chosen.key else ''}"
    return make_task(name, rest, first.kind, checks, first.proof, first.baseline), (*apart.dev, *apart.held_out)


@dataclass
class Found:
    """What the three runs came to: policies by name, and what is to be said of each run."""

    policies: dict[str, Policy]
    promoted: dict[str, bool] = field(default_factory=dict)
    minutes: dict[str, float] = field(default_factory=dict)
    students: dict[str, int] = field(default_factory=dict)


def searched(task: Task, folder: Path, chosen: argparse.Namespace) -> Found:
    """Run the main job, and both trainings from the champion that it comes to."""
    weights = Teaching(
        ("rejection",), cases=chosen.cases, samples=chosen.samples, minutes=chosen.train_minutes, control=True
    )
    bare = Teaching(("distillation",), cases=chosen.cases, minutes=chosen.train_minutes)
    common = {"seed": chosen.seed, "halving": Halving(rungs=tuple(chosen.rungs))}
    runs = {
        PROMPTS: (Settings(**common, rounds=chosen.rounds), LEARNERS),
        "weights": (Settings(**common, rounds=1, teaching=weights), ()),
        "distilled": (Settings(**common, rounds=1, teaching=bare, cheaper=Cheaper(margin=chosen.margin)), ()),
    }
    found = Found({"the baseline": task.baseline})
    for name, (settings, learners) in runs.items():
        store = folder / name / "run.db"
        if not store.exists():
            store.parent.mkdir(parents=True, exist_ok=True)
            if name != PROMPTS:
                _copy(folder / PROMPTS / "run.db", store)
        clock = improved(task, store, settings, learners)
        events = [event for _, event in clock.records]
        finished = events[-1]
        assert isinstance(finished, Finished)  # a run that returned ends so
        found.minutes[name] = clock.records[-1][0] / 60
        found.promoted[name] = finished.promoted
        if name == PROMPTS:
            with open_store(store) as opened:
                found.policies[name] = opened.policy(finished.champion)
            continue
        students = [event.proposal.policy for event in events if isinstance(event, Proposed)]
        taught = [event for event in events if isinstance(event, Taught)]
        found.students[name] = len(students)
        print(f"{name}: {len(students)} students; refused: {[one.refused for one in taught]}", file=sys.stderr)
        found.policies.update((name, student) for student in students)
        for control in (one.trained for one in taught if one.control_of and one.trained and students):
            found.policies[f"{name}, replies of others"] = replace(students[-1], adapter=control.adapter)
    return found


def _copy(store: Path, to: Path) -> None:
    """Copy a store that nobody has open; what is half copied is not there."""
    part = to.with_suffix(".part")
    part.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(store)) as source, contextlib.closing(sqlite3.connect(part)) as target:
        source.backup(target)
    part.replace(to)


async def answered(store: Path, task: Task, policy: Policy, cases: Sequence[Case]) -> list[Attempt]:
    """Return the greedy answers to *cases*, judged by the answer key; what was answered once is remembered."""
    model = connect("embedded")
    with SQLiteStore(store) as opened:
        engine = Engine(MemoModel(model, opened), task.kind, keyless(task))
        attempts = [attempt async for attempt in engine.attempts(policy, cases, task.proof)]
    await model.close()
    return attempts


async def timed(task: Task, policies: Sequence[Policy], cases: Sequence[Case]) -> list[list[float]]:
    """Return the milliseconds of each answer to *cases*, one request at a time, the policies taking turns."""
    model = connect("embedded")
    engine = Engine(model, task.kind, keyless(task))
    for policy in policies:
        await engine.attempt(cases[0], policy, task.proof)  # loads an engine, and what prompts share
    took: list[list[float]] = [[] for _ in policies]
    for number, case in enumerate(cases[1:]):
        for turn in range(len(policies)):
            one = (number + turn) % len(policies)
            attempt = await engine.attempt(case, policies[one], task.proof)
            took[one].append(attempt.usage.elapsed_ms)
    await model.close()
    return took


def keyless(task: Task) -> tuple[Check, ...]:
    return tuple(check for check in task.checks if not check.needs_target)


def figures(found: Found, attempts: dict[str, list[Attempt]], took_ms: dict[str, list[float]]) -> Iterator[Figure]:
    """Yield what was found."""
    right = {name: [attempt.score == 1.0 for attempt in attempts[name]] for name in attempts}
    for name, tried in attempts.items():
        yield from accuracy(name, "strict", [right[name]])
        for quantity, count in (
            ("prompt tokens", lambda one: one.usage.prompt_tokens),
            ("completion tokens", lambda one: one.usage.completion_tokens),
        ):
            yield Figure(name, f"{quantity} a request", "tokens", len(tried), (statistics.fmean(map(count, tried)),))
        if name in took_ms:
            deciles = statistics.quantiles(took_ms[name], n=10)
            yield Figure(name, "ms a request", "ms", len(took_ms[name]), (statistics.median(took_ms[name]),))
            yield Figure(name, "ms a request, p10, p90", "ms", len(took_ms[name]), (deciles[0], deciles[-1]))
        if name != "the baseline":
            before = "the baseline" if name == PROMPTS else PROMPTS
            yield from gain(f"{name} over {before}", [right[name]], [right[before]])
    for name, minutes in found.minutes.items():
        yield Figure(name, "its run", "min", 1, (minutes,))
        yield Figure(name, "promoted", "", 1, (float(found.promoted[name]),))
    for name, students in found.students.items():
        yield Figure(name, "students", "", 1, (students,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--key", action="store_true", help="the answer key judges practice and dev too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2, help="of the main job; the demo has two")
    parser.add_argument("--rungs", type=int, nargs="+", default=RUNGS, help="dev cases at each step of a race")
    parser.add_argument("--cases", type=int, default=200, help="practice cases at most")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--train-minutes", type=float, default=15.0)
    parser.add_argument("--margin", type=float, default=Cheaper().margin, help="by how much the distilled may be worse")
    parser.add_argument("--evaluated", type=int, default=None, help="cases at most of those set apart")
    parser.add_argument("--timed", type=int, default=60, help="requests of each policy, one at a time")
    chosen = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("GAINFUL_ADAPTERS", str(WORK / "adapters"))
    task, apart = bfcl(chosen)
    apart = apart[: chosen.evaluated]
    print(f"{len(task.dev)} dev, {task.holdout.size} held out, {len(apart)} set apart", file=sys.stderr)
    asked = [chosen.rounds, list(chosen.rungs), chosen.cases, chosen.samples, chosen.train_minutes, chosen.margin]
    folder = WORK / f"{task.name}-{chosen.seed}-{digest(asked)[:8]}-{code_version()}"
    own_cache(folder)
    found = searched(task, folder, chosen)
    memo = folder / "evaluation.db"
    attempts = {name: asyncio.run(answered(memo, task, policy, apart)) for name, policy in found.policies.items()}
    names = [name for name in found.policies if name != "the baseline" and not name.endswith("of others")]
    took_ms = asyncio.run(timed(task, [found.policies[name] for name in names], apart[: chosen.timed + 1]))
    name = "weights_calls_by_key" if chosen.key else "weights_calls"
    publish(name, list(figures(found, attempts, dict(zip(names, took_ms, strict=True)))))


if __name__ == "__main__":
    main()
