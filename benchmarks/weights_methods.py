"""Each way of learning weights at equal minutes on one core, from the same start, beside TRL's plain GRPO.

The start is an adapter after one round of rejection sampling, for from the untouched model nearly no sample is right
and there is nothing to reward: samples beside examples, of which the first are one solved practice case of each gym,
and a bare student trained on those that are right.  Making it is not counted.  From there each of ours takes rounds
until its minutes are over, ``rejection``, ``preferences`` and ``rewards``, with the product's own learner and recipes.
TRL's own trainer gets the same prompts, the same reward and the same start, as its guide to LoRA says: ``GRPOConfig``
with its defaults and a learning rate of 1e-5; replies are cut where the task cuts them, in place of 512 tokens.  A
second row gives it its best: only prompts of whose replies, as many as it samples itself, some are right and some wrong
(that sampling, by our sampler, is in its minutes), with the learning rate and the batch that ours has, and without
gradient checkpointing.

All minutes count by the clock, with what programs take to start, so that the machine must be quiet: the share of a core
that each really had is in the figures.  What is evaluated was fixed first and is never sampled: greedy answers of the
embedded engine with the adapter, as it is served, strictly and leniently (see ``weights.py``).

*Sampling* and *training* are shares of a method's minutes; what is left is starting programs, loading and saving.
Memory is the largest process of each method.  A method runs in one go, in a cache of its own; what is finished lies in
out/weights_methods and is not run again, until the code is another.

    taskset -c 1 python benchmarks/weights_methods.py [--minutes 10] [--seeds 3] [--only rejection trl]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from figures import RESULTS, Figure, accuracy, gain, publish
from inside.five_gyms import five_gyms, gym_of
from weights import graded
from workbench import Bench, Place, Spent, code_version, own_cache

from gainful.core import Answer, Attempt, Case, Evidence, JsonObject, Policy, Verdict
from gainful.learners.teaching import Method, Teaching
from gainful.learners.weights import RECIPES
from gainful.models import connect
from gainful.models.adapters import find_adapter, keep_adapter, read_adapter
from gainful.models.files import cache_folder
from gainful.tasks import Task
from gainful.train.process import QUIET

DEV, PRACTICE, EVALUATED = 24, 600, 60  # of each gym
WORK = RESULTS.parent / "weights_methods"
PEER = Path(__file__).resolve().parent / "inside" / "trl_grpo.py"
OURS: tuple[Method, ...] = ("rejection", "preferences", "rewards")
GUIDE: JsonObject = {"learning_rate": 1e-5}  # docs/source/peft_integration.md of TRL 1.16; its default is 1e-6
TRL_SAMPLES = 8  # of a prompt, its default
BEST: JsonObject = {
    "learning_rate": RECIPES["rewards"].learning_rate,
    "per_device_train_batch_size": RECIPES["rewards"].batch,
    "gradient_checkpointing": False,  # its default saves memory and costs time
}
NAMES = {
    "rejection": "rejection sampling",
    "preferences": "preferences (DPO)",
    "rewards": "rewards (GRPO)",
    "trl": "TRL's GRPO, as its guide says",
    "trl-mixed": "TRL's GRPO at its best",
}
START_MINUTES = 30.0  # at most; it is not counted
HOW = Teaching()
RIGHT = (Verdict("gym", True, 1.0),)

Learned: TypeAlias = tuple[Policy, Spent]


def begin(place: Place) -> Learned:
    """Return the policy that all begin from: one round, which is shown one solved case of each gym."""
    task, _ = the_task(place.seed)
    bench, practice = Bench(place, task, task.baseline), shuffled(task, "start")
    firsts = tuple({gym_of(case): case for case in practice}.values())
    right = tuple(Attempt(case.id, "", Answer(text=case.target, value=case.target), RIGHT, 1.0) for case in firsts)
    left = tuple(case for case in practice if case not in firsts)
    evidence = Evidence(task.kind, firsts, right, place.seed, left)
    policy = bench.take("rejection", evidence, 2 * place.cases, rounds=1)
    if policy.adapter is None:
        raise SystemExit(f"the start of seed {place.seed} learned nothing in {place.minutes:g} min; give more --cases")
    return policy, bench.finished()


def ours(method: Method, place: Place, policy: Policy) -> Learned:
    """Take rounds of one of our methods until its minutes are over."""
    task, _ = the_task(place.seed)
    bench = Bench(place, task, policy)
    evidence = Evidence(task.kind, (), (), place.seed, tuple(shuffled(task, "rounds")))
    return bench.take(method, evidence, place.cases, rounds=None), bench.finished()


def trls(settings: JsonObject, place: Place, policy: Policy, *, mixed: bool) -> Learned:
    """Let TRL's own trainer have the minutes, on all prompts or on those that the start answers both ways."""
    assert policy.adapter is not None
    task, _ = the_task(place.seed)
    bench, cases = Bench(place, task, policy), shuffled(task, "rounds")
    if mixed:
        asked = [(policy, case) for case in cases[: place.cases]]
        rollouts = asyncio.run(bench.sample(asked, range(TRL_SAMPLES), HOW.temperature))
        cases = [rollout.case for rollout in rollouts if rollout.verified and rollout.failed]
    if not cases:
        raise SystemExit(f"the start answers none of {place.cases} cases both ways; give more --cases")
    order = {
        "source": str(cache_folder() / "bases" / bench.base[:16]),  # the start's training has left it there
        "base": str(place.base),
        "adapter": str(find_adapter(policy.adapter)),
        "prompts": [bench.asked(policy, case) for case in cases],
        "cases": cases,
        "until": time.time() + bench.left_s,
        "settings": {"max_completion_length": policy.max_tokens, "seed": place.seed, **settings},
    }
    (place.scratch / "order.json").write_bytes(msgspec.json.encode(order))
    command = [sys.executable, str(PEER), str(place.scratch / "order.json"), str(place.scratch)]
    ran = subprocess.run(
        command, env={**os.environ, **QUIET, "HF_HUB_OFFLINE": "1"}, stdout=subprocess.PIPE, text=True, check=True
    )
    told = json.loads(ran.stdout.splitlines()[-1])
    spent = bench.finished()
    spent.steps, spent.training_s = told["steps"], told["training_s"]
    spent.sampling_s += told["sampling_s"]
    adapter = read_adapter(keep_adapter(place.scratch / "adapter"), bench.base)
    return msgspec.structs.replace(policy, adapter=adapter), spent


def the_task(seed: int) -> tuple[Task, tuple[Case, ...]]:
    return five_gyms(DEV, PRACTICE, EVALUATED, seed)


def shuffled(task: Task, part: str) -> list[Case]:
    """Return the practice cases of *part*, in the same order for all methods: the start has a fifth for itself."""
    cases = sorted(task.practice, key=lambda case: case.id)
    random.Random(task.name).shuffle(cases)
    fifth = len(cases) // 5
    return cases[:fifth] if part == "start" else cases[fifth:]


def learned(name: str, place: Place, policy: Policy | None) -> Learned:
    """Carry out *name* in this process, which does nothing else: what it took is its own."""
    own_cache(place.scratch)
    if policy is None:
        return begin(place)
    if name in OURS:
        return ours(name, place, policy)
    return trls(BEST if name == "trl-mixed" else GUIDE, place, policy, mixed=name == "trl-mixed")


def alone(work: Callable[..., Learned], *arguments: Any) -> Learned:
    """Return what *work* returns from a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


@dataclass
class Row:
    """What one method came to on one seed: the policy, what it took, and each case's grade, strict and lenient."""

    policy: Policy
    spent: Spent
    strict: list[bool]
    lenient: list[bool]


def one_seed(seed: int, chosen: argparse.Namespace, base: Path) -> dict[str, Row]:
    """Return a row for the start and each method."""
    cases = tuple(sorted(the_task(seed)[1], key=lambda case: case.id))[: chosen.evaluated]  # of all gyms
    rows: dict[str, Row] = {}
    for name in ("start", *chosen.only):
        minutes = START_MINUTES if name == "start" else chosen.minutes
        known = WORK / f"{name}-{seed}-{minutes:g}-{chosen.cases}-{len(cases)}-{code_version()}.json"
        if not known.exists():
            place = Place(seed, minutes, chosen.cases, base, WORK)
            row = tried(name, place, rows["start"].policy if rows else None, cases)
            known.write_bytes(msgspec.json.encode(row))
        rows[name] = msgspec.json.decode(known.read_bytes(), type=Row)
        right = sum(rows[name].strict), sum(rows[name].lenient)
        print(f"seed {seed}, {name}: {right} of {len(cases)}; {rows[name].spent}", file=sys.stderr, flush=True)
    return rows


def tried(name: str, place: Place, policy: Policy | None, cases: tuple[Case, ...]) -> Row:
    """Carry out *name* from *policy* with a cache of its own: nothing that was sampled or trained before is found."""
    scratch = place.scratch / f"{name}-{place.seed}"
    shutil.rmtree(scratch, ignore_errors=True)  # of one that was stopped half-way
    scratch.mkdir()
    found, spent = alone(learned, name, place._replace(scratch=scratch), policy)
    grades = asyncio.run(graded(scratch / "evaluation.db", found, cases))
    shutil.rmtree(scratch)
    return Row(found, spent, [strict for strict, _ in grades], [loose for _, loose in grades])


def figures(runs: Sequence[dict[str, Row]]) -> Iterator[Figure]:
    """Yield what the seeds say."""
    starts = [run["start"] for run in runs]
    yield from accuracy("the start", "strict", [row.strict for row in starts])
    yield from accuracy("the start", "lenient", [row.lenient for row in starts])
    for name in (name for name in runs[0] if name != "start"):
        subject, rows = NAMES[name], [run[name] for run in runs]
        yield from accuracy(subject, "strict", [row.strict for row in rows])
        yield from accuracy(subject, "lenient", [row.lenient for row in rows])
        yield from gain(f"{subject} over the start", [r.strict for r in rows], [r.strict for r in starts])
        spent = [row.spent for row in rows]
        quantities: dict[str, tuple[str, Callable[[Spent], float]]] = {
            "minutes": ("min", lambda one: one.seconds / 60),
            "share of a core": ("%", lambda one: 100 * one.core_s / one.seconds),
            "sampling": ("%", lambda one: 100 * one.sampling_s / one.seconds),
            "training": ("%", lambda one: 100 * one.training_s / one.seconds),
            "steps": ("steps", lambda one: one.steps),
            "a step, its samples apart": ("s", lambda one: one.training_s / max(1, one.steps)),
            "memory": ("MB", lambda one: one.memory_mb),
        }
        for quantity, (unit, value) in quantities.items():
            yield Figure(subject, quantity, unit, 1, tuple(map(value, spent)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each method")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cases", type=int, default=HOW.cases, help="practice cases of a round")
    parser.add_argument("--evaluated", type=int, default=5 * EVALUATED, help="cases at most")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    chosen = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("GAINFUL_ADAPTERS", str(WORK / "adapters"))
    os.environ.setdefault("MPLCONFIGDIR", str(WORK / "matplotlib"))  # else each new cache costs it seconds of fonts
    base: Path = connect("embedded").file  # type: ignore[attr-defined]  # it is embedded
    runs: list[dict[str, Row]] = []
    for seed in range(chosen.seeds):
        runs.append(one_seed(seed, chosen, base))
        publish("weights_methods", list(figures(runs)))  # what there is so far


if __name__ == "__main__":
    main()
