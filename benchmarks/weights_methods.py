"""Each way of learning weights at equal minutes on one core, from the same start, beside TRL's plain GRPO.

The start is an adapter after one round of rejection sampling, for from the untouched model nearly no sample is right
and there is nothing to reward: samples beside examples, of which the first are one solved practice case of each gym,
and a bare student trained on those that are right.  Making it is not counted.  From there each of ours takes rounds
until its minutes are over, ``rejection``, ``preferences`` and ``rewards``, with the product's own learner and recipes.
TRL's own trainer gets the same prompts, the same reward and the same start, as its guide to LoRA says: ``GRPOConfig``
with its defaults and a learning rate of 1e-5; replies are cut where the task cuts them, in place of 512 tokens.  A
second row gives it its best: only prompts whose samples are both right and wrong (that sampling, by our sampler, is in
its minutes), with the learning rate and the batch that ours has, and without gradient checkpointing.

All minutes count by the clock, with what programs take to start, so that the machine must be quiet: the share of a core
that each really had is in the figures.  What is evaluated was fixed first and is never sampled: greedy answers of the
embedded engine with the adapter, as it is served, strictly and leniently (see ``weights.py``).

*Sampling* and *training* are shares of a method's minutes; what is left is starting programs, loading and saving.
Memory is the largest process of each method.  What is finished lies in out/weights_methods and is not run again.

    taskset -c 1 python benchmarks/weights_methods.py [--minutes 10] [--seeds 3] [--only rejection trl]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
from figures import RESULTS, Figure, accuracy, gain, publish
from inside.five_gyms import OfFive, five_gyms, gym_of
from weights import graded

from gainful.answers.extract import extract
from gainful.answers.prompt import request
from gainful.core import Answer, Attempt, Case, Evidence, Format, JsonObject, Policy, Rollout
from gainful.learners.teaching import Method, Taught, Teaching, Vetting
from gainful.learners.weights import RECIPES, Course
from gainful.loop.workshop import GUARD_TOKENS, unrelated
from gainful.models import connect
from gainful.models.adapters import find_adapter, keep_adapter, read_adapter
from gainful.models.files import cache_folder
from gainful.models.gguf import gguf_digest
from gainful.tasks import Task
from gainful.train import (
    Lesson,
    Limits,
    Progress,
    Sampling,
    Trained,
    Work,
    fine_tune,
    sample_replies,
)
from gainful.train.process import QUIET

DEV, PRACTICE, EVALUATED = 24, 600, 60  # of each gym
WORK = RESULTS.parent / "weights_methods"
PEER = Path(__file__).resolve().parent / "inside" / "trl_grpo.py"
OURS: tuple[Method, ...] = ("rejection", "preferences", "rewards")
GUIDE: JsonObject = {"learning_rate": 1e-5}  # docs/source/peft_integration.md of TRL 1.16; its default is 1e-6
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
START_S = 9.0  # a trainer imports and loads before its own clock begins, and writes files after it
HOW = Teaching()
MANY = 1_000_000  # rounds: more than there is time for


class Place(NamedTuple):
    """Where a method works: its seed, its minutes, the practice cases of a round, the GGUF file, a folder."""

    seed: int
    minutes: float
    cases: int
    base: Path
    scratch: Path


@dataclass
class Spent:
    """What a method took, in seconds by the clock, and how often it stepped."""

    seconds: float = 0.0
    sampling_s: float = 0.0
    training_s: float = 0.0
    steps: int = 0
    rounds: int = 0
    core_s: float = 0.0
    memory_mb: float = 0.0


class Over(Exception):
    """The minutes are over; or a course has come to its end, where nothing is vetted."""


class Bench:
    """The house that the product's learner works in here, with a clock: ``Workshop`` of ``learners.teaching``."""

    def __init__(self, place: Place, task: Task, policy: Policy) -> None:
        self.task, self.place, self.spent = task, place, Spent()
        self.learned = policy
        self.base = gguf_digest(place.base)
        self._began_s = time.monotonic()
        self._cases = {case.id: case for case in task.practice}
        self._check = OfFive()

    @property
    def left_s(self) -> float:
        return self.place.minutes * 60 - (time.monotonic() - self._began_s)

    def asked(self, policy: Policy, case: Case) -> tuple[JsonObject, ...]:
        return tuple(request(policy, case, self.task.kind)["messages"])

    async def sample(self, asked: Sequence[tuple[Policy, Case]], samples: int, temperature: float) -> list[Rollout]:
        """Answer each case at random."""
        if self.left_s < 2 * START_S:
            raise Over
        began_s = time.monotonic()
        first, _ = asked[0]
        folder = find_adapter(first.adapter) if first.adapter else None
        how = Sampling(samples, temperature, first.max_tokens, self.place.seed)
        drawn = sample_replies(folder, self.place.base, [self.asked(*one) for one in asked], how)
        self.spent.sampling_s += time.monotonic() - began_s
        return [self._judged(case, policy, replies) for (policy, case), replies in zip(asked, drawn, strict=True)]

    async def answer(self, policy: Policy, cases: Sequence[Case]) -> list[Rollout]:
        """Refuse: no method here learns from what a policy says in service."""
        raise NotImplementedError

    def worth(self, case: Case, reply: str) -> tuple[Answer, float]:
        """Return a reply as the task reads it, and what it is worth."""
        value = extract(self.task.kind, {"role": "assistant", "content": reply}, case, Format())
        answer = Answer(text=reply, value=value)
        scored = self._check(case, answer)
        return answer, 0.0 if scored is None else scored.value

    def _judged(self, case: Case, policy: Policy, replies: Sequence[str]) -> Rollout:
        worths = [self.worth(case, reply) for reply in replies]
        return Rollout(case, tuple(Attempt(case.id, policy.id, answer, score=score) for answer, score in worths))

    async def rehearsal(self) -> list[Lesson]:
        """Return what the base itself says to everyday prompts, as the product has it learned along."""
        began_s = time.monotonic()
        prompts: list[list[JsonObject]] = [[{"role": "user", "content": words}] for words in unrelated()[::2]]
        drawn = sample_replies(None, self.place.base, prompts, Sampling(1, 0.0, GUARD_TOKENS))
        self.spent.sampling_s += time.monotonic() - began_s
        return [Lesson(tuple(prompt), reply) for prompt, (reply,) in zip(prompts, drawn, strict=True) if reply.strip()]

    async def train(self, work: Work, student: Policy) -> Trained:
        """Train for as long as is left; what GRPO samples meanwhile counts as sampling."""
        steps, now_s, sampling_s = 0, time.monotonic(), 0.0

        def reward(case: str, replies: Sequence[str]) -> list[float]:
            nonlocal now_s, sampling_s
            if steps:  # the first step's samples cannot be told from the start of the program
                sampling_s += time.monotonic() - now_s
            now_s = time.monotonic()
            return [self.worth(self._cases[case], reply)[1] for reply in replies]

        def watch(progress: Progress) -> None:
            nonlocal now_s, steps
            steps, now_s = progress.step, time.monotonic()

        if self.left_s < START_S:
            raise Over
        minutes = max(1.0, self.left_s - START_S) / 60
        trained = fine_tune(work, self.place.base, Limits(minutes), watch=watch, reward=reward)
        self.spent.steps += len(trained.steps)
        self.spent.sampling_s += sampling_s
        self.spent.training_s += trained.seconds - sampling_s
        self.spent.rounds += 1
        if trained.stopped != "time" or work.start is not None:  # one from the base is worth nothing half-way
            self.learned = msgspec.structs.replace(student, adapter=trained.adapter)
        return trained

    async def vet(self, policy: Policy, cases: Sequence[Case]) -> Vetting:
        """Go no further."""
        raise Over

    def tell(self, taught: Taught) -> None:
        """Say what came of a training."""
        print(f"{self.place.minutes - self.left_s / 60:.1f} min: {taught.counts}", file=sys.stderr, flush=True)

    def take(self, method: Method, evidence: Evidence, cases: int, rounds: int) -> Policy:
        """Let the product's learner work until the minutes are over."""
        teaching = Teaching(cases=cases, rounds=rounds)
        with contextlib.suppress(Over):
            asyncio.run(Course("weights", method, self, teaching, evidence).take(self.learned))
        return self.learned

    def finished(self) -> Spent:
        """Return what was spent, with what all processes below this one took."""
        below = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.spent.seconds = self.place.minutes * 60 - self.left_s
        self.spent.core_s = below.ru_utime + below.ru_stime
        self.spent.memory_mb = below.ru_maxrss * 1024 / 1e6
        return self.spent


Learned: TypeAlias = tuple[Policy, Spent]


def begin(place: Place) -> Learned:
    """Return the policy that all begin from: one round, which is shown one solved case of each gym."""
    task, _ = the_task(place.seed)
    bench, practice = Bench(place, task, task.baseline), shuffled(task, "start")
    firsts = tuple({gym_of(case): case for case in practice}.values())
    right = tuple(Attempt(case.id, "", Answer(text=case.target, value=case.target), score=1.0) for case in firsts)
    left = tuple(case for case in practice if case not in firsts)
    evidence = Evidence(task.kind, firsts, right, place.seed, left)
    return bench.take("rejection", evidence, 2 * place.cases, rounds=1), bench.finished()


def ours(method: Method, place: Place, policy: Policy) -> Learned:
    """Take rounds of one of our methods until its minutes are over."""
    task, _ = the_task(place.seed)
    bench = Bench(place, task, policy)
    evidence = Evidence(task.kind, (), (), place.seed, tuple(shuffled(task, "rounds")))
    return bench.take(method, evidence, place.cases, rounds=MANY), bench.finished()


def trls(settings: JsonObject, place: Place, policy: Policy, *, mixed: bool) -> Learned:
    """Let TRL's own trainer have the minutes, on all prompts or on those that the start answers both ways."""
    assert policy.adapter is not None
    task, _ = the_task(place.seed)
    bench, cases = Bench(place, task, policy), shuffled(task, "rounds")
    if mixed:
        asked = [(policy, case) for case in cases[: 2 * place.cases]]
        rollouts = asyncio.run(bench.sample(asked, HOW.samples, HOW.temperature))
        cases = [rollout.case for rollout in rollouts if rollout.verified and rollout.failed]
    if not cases:
        raise SystemExit(f"the start answers none of {2 * place.cases} cases both ways; give more --cases")
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
    os.environ["XDG_CACHE_HOME"] = str(place.scratch / "cache")
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
        known = WORK / f"{name}-{seed}-{minutes:g}-{chosen.cases}-{len(cases)}.json"
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
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        cache = Path(folder) / "cache" / "gainful"
        cache.mkdir(parents=True)
        (cache / "bases").symlink_to(cache_folder() / "bases")
        place = place._replace(scratch=Path(folder))
        found, spent = alone(learned, name, place, policy)
        grades = asyncio.run(graded(place.scratch / "evaluation.db", found, cases))
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
    (cache_folder() / "bases").mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("GAINFUL_ADAPTERS", str(WORK / "adapters"))
    os.environ.setdefault("MPLCONFIGDIR", str(WORK / "matplotlib"))  # else each new cache costs it seconds of fonts
    base: Path = connect("embedded").file  # type: ignore[attr-defined]  # it is embedded
    publish("weights_methods", list(figures([one_seed(seed, chosen, base) for seed in range(chosen.seeds)])))


if __name__ == "__main__":
    main()
