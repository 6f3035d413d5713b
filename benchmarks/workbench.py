"""The product's own learner of weights at work on the five gyms, for as long as it is given, with a clock."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from inside.five_gyms import OfFive
from msgspec.structs import replace

from gainful.answers.extract import extract
from gainful.answers.prompt import request
from gainful.core import Answer, Attempt, Case, Evidence, Format, JsonObject, Policy, Rollout
from gainful.learners.teaching import Method, Taught, Teaching, Vetting
from gainful.learners.weights import Course
from gainful.loop.everyday import unrelated
from gainful.loop.workshop import GUARD_TOKENS
from gainful.models.adapters import find_adapter
from gainful.models.gguf import gguf_digest
from gainful.tasks import Task
from gainful.train import Lesson, Limits, Progress, Sampling, Trained, Work, fine_tune, sample_replies

START_S = 9.0  # a trainer imports and loads before its own clock begins, and writes files after it


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

    async def sample(self, asked: Sequence[tuple[Policy, Case]], samples: range, temperature: float) -> list[Rollout]:
        """Answer each case at random."""
        if self.left_s < 2 * START_S:
            raise Over
        began_s = time.monotonic()
        first, _ = asked[0]
        folder = find_adapter(first.adapter) if first.adapter else None
        how = Sampling(len(samples), temperature, first.max_tokens, self.place.seed + samples.start)
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
            self.learned = replace(student, adapter=trained.adapter)
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
