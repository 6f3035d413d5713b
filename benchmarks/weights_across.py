"""What learning one task does to the others: weights learned on each of the five gyms alone.

The product's learner takes its rounds on the practice cases of one gym, from the untouched model and shown one solved
case of it; the adapter is then asked the evaluated cases of all five, as it is served, strictly and leniently (see
``weights.py``).  Strictly the untouched model gets nothing right, because it talks, so a strict gain elsewhere is form;
what is lost or won leniently is more.  *Everyday* is how much likelier the model's own replies to unrelated prompts
become, in nats a token, and the worst of them.  A gym of which too little came right to learn from has no accuracy
here, and *rounds* says how many of those asked for the minutes allowed.

A gym is learned in one go, in a cache of its own, for its minutes count; what is finished lies in out/weights_across
and is not run again, until the code is another.

    taskset -c 1 python benchmarks/weights_across.py [--seeds 3] [--rounds 3] [--cases 400]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import msgspec
from figures import RESULTS, Figure, accuracy, publish
from inside.five_gyms import GYMS, five_gyms, gym_of
from weights import graded
from workbench import Bench, Place, Spent, code_version, own_cache

from gainful.core import Answer, Attempt, Case, Evidence, JsonObject, Policy, Verdict
from gainful.loop.everyday import unrelated
from gainful.loop.vetting import GUARD_TOKENS
from gainful.models import connect
from gainful.models.adapters import find_adapter
from gainful.train import Sampling, read_prompts, sample_replies

DEV, PRACTICE, EVALUATED = 24, 600, 60  # of each gym
WORK = RESULTS.parent / "weights_across"
MINUTES = 30.0  # at most, of one gym
UNTOUCHED = "untouched"
RIGHT = (Verdict("gym", True, 1.0),)


@dataclass
class Row:
    """What one adapter came to: each case's grade by gym, strict and lenient, and what it does to everyday replies.

    ``right`` is empty where nothing was learned in ``rounds``.
    """

    minutes: float
    rounds: int
    right: dict[str, list[tuple[bool, bool]]]
    everyday: float = 0.0
    worst: float = 0.0


def learned(gym: str, seed: int, chosen: argparse.Namespace, base: Path) -> Row:
    """Return what learning *gym* alone brings, or what there is without."""
    task, evaluated = five_gyms(DEV, PRACTICE, EVALUATED, seed)
    policy, spent, changes = task.baseline, Spent(), [0.0]
    if gym != UNTOUCHED:
        scratch = WORK / f"{gym}-{seed}"
        shutil.rmtree(scratch, ignore_errors=True)  # of one that was stopped half-way
        own_cache(scratch)
        first, *practice = [case for case in task.practice if gym_of(case) == gym]
        right = Attempt(first.id, "", Answer(text=first.target, value=first.target), RIGHT, 1.0)
        bench = Bench(Place(seed, chosen.minutes, chosen.cases, base, scratch), task, policy)
        evidence = Evidence(task.kind, (first,), (right,), seed, tuple(practice))
        policy = bench.take("rejection", evidence, chosen.cases, chosen.rounds)
        spent = bench.finished()
        if policy.adapter is None:
            return Row(spent.seconds / 60, spent.rounds, {})
        changes = everyday(policy, base)
    evaluated = tuple(case for gym in GYMS for case in of_gym(evaluated, gym)[: chosen.evaluated])
    grades = asyncio.run(graded(WORK / f"evaluation-{seed}.db", policy, evaluated))
    found: dict[str, list[tuple[bool, bool]]] = {name: [] for name in GYMS}
    for case, grade in zip(evaluated, grades, strict=True):
        found[gym_of(case)].append(grade)
    return Row(spent.seconds / 60, spent.rounds, found, fmean(changes), min(changes))


def of_gym(cases: Sequence[Case], gym: str) -> list[Case]:
    return [case for case in cases if gym_of(case) == gym]


def everyday(policy: Policy, base: Path) -> list[float]:
    """Return how much likelier the base's replies to unrelated prompts have become, in nats a token."""
    if policy.adapter is None:
        return [0.0]
    prompts: list[list[JsonObject]] = [[{"role": "user", "content": words}] for words in unrelated()[1::2]]
    replies = [reply for (reply,) in sample_replies(None, base, prompts, Sampling(1, 0.0, GUARD_TOKENS))]
    before = read_prompts(None, base, prompts, replies, 0)
    after = read_prompts(find_adapter(policy.adapter), base, prompts, replies, 0)
    return [fmean(a.logprobs) - fmean(b.logprobs) for a, b in zip(after, before, strict=True) if b.logprobs]


def figures(runs: Sequence[dict[str, Row]]) -> Iterator[Figure]:
    """Yield what the seeds say of each gym that was learned."""
    for name in runs[0]:
        subject, rows = name if name == UNTOUCHED else f"learned {name}", [run[name] for run in runs]
        taught = [row for row in rows if row.right]
        for gym in GYMS if taught else ():
            for number, how in enumerate(("strict", "lenient")):
                right = [[one[number] for one in row.right[gym]] for row in taught]
                yield from accuracy(subject, f"{gym}, {how}", right)
        if name != UNTOUCHED:
            yield Figure(subject, "seeds with something learned", "", len(rows), (len(taught),))
            yield Figure(subject, "minutes", "min", 1, tuple(row.minutes for row in rows))
            yield Figure(subject, "rounds", "", 1, tuple(row.rounds for row in rows))
        if name != UNTOUCHED and taught:
            yield Figure(subject, "everyday", "nats", 1, tuple(row.everyday for row in taught))
            yield Figure(subject, "everyday, worst", "nats", 1, tuple(row.worst for row in taught))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", type=int, default=400, help="practice cases of a round")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="at most, of one gym")
    parser.add_argument("--evaluated", type=int, default=EVALUATED, help="cases of each gym")
    parser.add_argument("--only", nargs="+", choices=list(GYMS), default=list(GYMS))
    chosen = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("GAINFUL_ADAPTERS", str(WORK / "adapters"))
    base: Path = connect("embedded").file  # type: ignore[attr-defined]  # it is embedded
    runs: list[dict[str, Row]] = []
    for seed in range(chosen.seeds):
        runs.append({})
        for name in (UNTOUCHED, *chosen.only):
            key = f"{chosen.rounds}-{chosen.cases}-{chosen.minutes:g}-{chosen.evaluated}-{code_version()}"
            known = WORK / f"{name}-{seed}-{key}.json"
            if not known.exists():
                known.write_bytes(msgspec.json.encode(learned(name, seed, chosen, base)))
            row = runs[-1][name] = msgspec.json.decode(known.read_bytes(), type=Row)
            right = {gym: [sum(one[how] for one in some) for how in (0, 1)] for gym, some in row.right.items()}
            print(f"seed {seed}, {name}: {right}, everyday {row.everyday:+.3f}", file=sys.stderr, flush=True)
        publish("weights_across", list(figures(runs)))  # what there is so far


if __name__ == "__main__":
    main()
