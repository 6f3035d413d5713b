"""The product's own learner of weights at work, for as long as it is given, with a clock and a cache of its own.

What was sampled, read or trained once is remembered in the user's cache, so a benchmark that counts minutes works in
another one: what it finds there it has done itself.  Rows are named after the code that made them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from inside.five_gyms import OfFive
from msgspec.structs import replace

from gainful.answers.extract import extract
from gainful.answers.prompt import request
from gainful.core import Answer, Attempt, Case, Evidence, Format, JsonObject, Learner, Policy, Rollout, Verdict
from gainful.learners.teaching import Method, Taught, Teaching, Vetting
from gainful.learners.weights import Course
from gainful.loop import session
from gainful.loop.events import Event, Progress
from gainful.loop.everyday import rehearsed
from gainful.loop.journal import read_events
from gainful.loop.run import Settings
from gainful.loop.vetting import everyday
from gainful.loop.workshop import REHEARSED_TOKENS, rehearsal
from gainful.models.adapters import find_adapter
from gainful.models.files import cache_folder
from gainful.models.gguf import gguf_digest
from gainful.store import open_store
from gainful.tasks import Task
from gainful.train import Kept, Lesson, Limits, Parity, Sampling, Trained, Work, fine_tune, sample_replies
from gainful.train import Progress as Step
from gainful.train.folders import RESULT

MANY = 1_000_000  # rounds: more than there is time for
COURSES_APART = 1_000_003  # seeds of samples
START_S = 9.0  # a trainer imports and loads before its own clock begins, and writes files after it
SAVED_EVERY_S = 5.0
ROOT = Path(__file__).resolve().parent.parent
SHARED_CACHE = cache_folder()  # the user's


def code_version() -> str:
    """Return a name for the code that decides what is learned: of its learners, its trainer and these benchmarks."""
    files = [*ROOT.glob("gainful/learners/*.py"), *ROOT.glob("gainful/train/*.py")]
    files += [*ROOT.glob("benchmarks/weights*.py"), *ROOT.glob("benchmarks/inside/*.py"), Path(__file__)]
    whole = hashlib.sha256()
    for file in sorted(files):
        whole.update(file.read_bytes())
    return whole.hexdigest()[:8]


def own_cache(folder: Path) -> None:
    """Let all that is sampled, read and trained from now on be remembered in *folder* alone.

    Fetched files and dequantised bases are the user's: they are made once on a machine.
    """
    cache = folder / "cache" / "gainful"
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("bases", "wheels"):
        (SHARED_CACHE / name).mkdir(parents=True, exist_ok=True)
        if not (cache / name).is_symlink():
            (cache / name).symlink_to(SHARED_CACHE / name)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")


def kind_of(event: Event) -> str:
    return type(event).__name__


class Clock:
    """When each record of a run was written, in seconds of work: what was stopped meanwhile does not count.

    It is kept in *file*, and goes on from there; *say* puts a record into words.
    """

    def __init__(self, file: Path, say: Callable[[Event], str] = kind_of) -> None:
        nothing: dict[str, Any] = {"worked_s": 0.0, "began": [], "records_s": []}
        known = json.loads(file.read_text()) if file.exists() else nothing
        self.records: list[tuple[float, Event]] = []
        self._file, self._say = file, say
        self._records_s: list[float] = known["records_s"]
        self._began: list[tuple[float, float]] = [(at, worked_s) for at, worked_s in known["began"]]
        self._began.append((time.time(), known["worked_s"]))
        self._saved_s = 0.0

    def at(self, moment: float) -> float:
        """Return how long had been worked at *moment*, in Unix seconds."""
        began, worked_s = next((one for one in reversed(self._began) if one[0] <= moment), self._began[0])
        return worked_s + max(0.0, moment - began)

    def __call__(self, event: Event | Progress) -> None:
        now_s = self.at(time.time())
        if not isinstance(event, Progress):
            number = len(self.records)
            if number == len(self._records_s):
                self._records_s.append(now_s)
            self.records.append((self._records_s[number], event))
            print(f"{self._records_s[number]:7.0f} s  {self._say(event)}", flush=True)
        elif now_s < self._saved_s + SAVED_EVERY_S:
            return
        self._saved_s = now_s
        kept = {"worked_s": now_s, "began": self._began, "records_s": self._records_s}
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(kept))
        part.replace(self._file)


def improved(
    task: Task, store: Path, settings: Settings, learners: Sequence[Learner], say: Callable[[Event], str] = kind_of
) -> Clock:
    """Run the loop in *store*, or go on with it, or tell again what came of it; the clock lies beside the store."""
    clock, finished = Clock(store.with_name("clock.json"), say), store.with_name("finished.txt")
    if not finished.exists():
        result = session.improve(task, "embedded", store, settings, learners, (clock,))
        finished.write_text(result.run)
        return clock
    with open_store(store) as opened:
        for event in read_events(opened, finished.read_text()):
            clock(event)
    return clock


def trained_at(work: str) -> float | None:
    """Return when the training *work* was done, in Unix seconds; ``None`` where it is not in this cache."""
    result = cache_folder() / "training" / work / RESULT
    return result.stat().st_mtime if result.exists() else None


class Place(NamedTuple):
    """Where a method works: seed, minutes, practice cases of a round, the GGUF file, a folder of its own."""

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
    """The minutes are over."""


class Bench:
    """The house that the product's learner works in here, with a clock: ``Workshop`` of ``learners.teaching``."""

    def __init__(self, place: Place, task: Task, policy: Policy) -> None:
        self.task, self.place, self.spent = task, place, Spent()
        self.learned = policy
        self.base = gguf_digest(place.base)
        self._began_s = time.monotonic()
        self._courses = 0
        self._kept = Kept()
        self._cases = {case.id: case for case in task.practice}
        self._check = OfFive()

    @property
    def left_s(self) -> float:
        return self.place.minutes * 60 - (time.monotonic() - self._began_s)

    def asked(self, policy: Policy, case: Case) -> tuple[JsonObject, ...]:
        return tuple(request(policy, case, self.task.kind)["messages"])

    async def sample(self, asked: Sequence[tuple[Policy, Case]], samples: range, temperature: float) -> list[Rollout]:
        """Answer each case at random."""
        if self.left_s < 2 * START_S:
            raise Over
        began_s = time.monotonic()
        first, _ = asked[0]
        folder = find_adapter(first.adapter) if first.adapter else None
        seed = self.place.seed + samples.start + COURSES_APART * self._courses
        how = Sampling(len(samples), temperature, first.max_tokens, seed)
        drawn = sample_replies(folder, self.place.base, [self.asked(*one) for one in asked], how, kept=self._kept)
        self.spent.sampling_s += time.monotonic() - began_s
        return [self._judged(case, policy, replies) for (policy, case), replies in zip(asked, drawn, strict=True)]

    async def answer(self, policy: Policy, cases: Sequence[Case]) -> list[Rollout]:
        """Answer none: rounds are not compared here, and no method learns from what a policy says in service."""
        return []

    def worth(self, case: Case, reply: str) -> tuple[Answer, float]:
        """Return a reply as the task reads it, and what it is worth."""
        value = extract(self.task.kind, {"role": "assistant", "content": reply}, case, Format())
        answer = Answer(text=reply, value=value)
        scored = self._check(case, answer)
        return answer, 0.0 if scored is None else scored.value

    def _judged(self, case: Case, policy: Policy, replies: Sequence[str]) -> Rollout:
        worths = [self.worth(case, reply) for reply in replies]
        attempts = [
            Attempt(case.id, policy.id, answer, (Verdict("gym", True, score),), score) for answer, score in worths
        ]
        return Rollout(case, tuple(attempts))

    async def rehearsal(self) -> list[Lesson]:
        """Return what the base itself says to everyday prompts, as the product has it learned along."""
        began_s = time.monotonic()
        prompts = [body["messages"] for body in everyday(rehearsed())]
        how = Sampling(1, 0.0, REHEARSED_TOKENS)
        drawn = sample_replies(None, self.place.base, prompts, how, kept=self._kept)
        self.spent.sampling_s += time.monotonic() - began_s
        return rehearsal(prompts, [reply for (reply,) in drawn])

    async def train(self, work: Work, student: Policy) -> Trained:
        """Train for as long as is left; what GRPO samples meanwhile counts as sampling."""
        steps, now_s, sampling_s = 0, time.monotonic(), 0.0

        def reward(case: str, replies: Sequence[str]) -> list[float]:
            nonlocal now_s, sampling_s
            if steps:  # the first step's samples cannot be told from the start of the program
                sampling_s += time.monotonic() - now_s
            now_s = time.monotonic()
            return [self.worth(self._cases[case], reply)[1] for reply in replies]

        def watch(progress: Step) -> None:
            nonlocal now_s, steps
            steps, now_s = progress.step, time.monotonic()

        if self.left_s < START_S:
            raise Over
        self._kept.end()
        minutes = max(1.0, self.left_s - START_S) / 60
        trained = fine_tune(work, self.place.base, Limits(minutes), watch=watch, reward=reward)
        self.spent.steps += len(trained.steps)
        self.spent.sampling_s += sampling_s
        self.spent.training_s += trained.seconds - sampling_s
        self.spent.rounds += 1
        if trained.stopped != "time" or work.start is not None:  # one from the base is worth nothing half-way
            self.learned = replace(student, adapter=trained.adapter)
        return trained

    async def vet(self, policy: Policy, cases: Sequence[Case]) -> Vetting:
        """Vet nothing: nobody is proposed here."""
        return Vetting(Parity(0, 0.0, 0.0), 0.0, 0.0, 0.0, refused="it was not vetted")

    def tell(self, taught: Taught) -> None:
        """Say what came of a training."""
        print(f"{self.place.minutes - self.left_s / 60:.1f} min: {taught.counts}", file=sys.stderr, flush=True)

    def take(self, method: Method, evidence: Evidence, cases: int, rounds: int | None) -> Policy:
        """Let the product's learner take so many rounds; ``None``: until the minutes are over.

        Where a round brings too little to learn from, a course ends.  While there are minutes left another one begins
        then, from what has been learned so far and on other cases.
        """
        teaching = Teaching(cases=cases, rounds=rounds or MANY)
        with contextlib.suppress(Over):
            for self._courses in range(MANY if rounds is None else 1):
                sampled_s = self.spent.sampling_s
                shown = replace(evidence, seed=evidence.seed + self._courses)
                asyncio.run(Course("weights", method, self, teaching, shown).take(self.learned))
                if self.spent.sampling_s == sampled_s:
                    break  # there is nothing to ask
        return self.learned

    def finished(self) -> Spent:
        """Return what was spent, with what all processes below this one took."""
        self._kept.end()
        below = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.spent.seconds = self.place.minutes * 60 - self.left_s
        self.spent.core_s = below.ru_utime + below.ru_stime
        self.spent.memory_mb = below.ru_maxrss * 1024 / 1e6
        return self.spent
