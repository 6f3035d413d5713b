"""Propose the model's own weights, changed a little by training on its own verified answers.

The head answers practice cases many times at random; what the checks pass is chosen (``lessons``), trained on in
another process (``gainful.train``), and comes back as an adapter on the head's policy.  Then it races like any other
proposal: that a loss fell is no evidence of anything.

The student is asked with a short prompt: the head's without its demos.  So one training does two things at once, it
learns from what was verified and it takes in what the long prompt said (context distillation, Snell et al. 2022,
arXiv 2209.15189).  With ``prompt="own"`` it keeps the head's prompt.  The method ``distillation`` goes further: the
head answers as it does in service, with votes and second thoughts, and the student has to say so at once, with neither
demos nor instructions.  It is for runs that look for the same quality at fewer tokens.

An adapter that the server answers otherwise with than the trainer does, that changes nothing, or that does harm to
unrelated prompts is not proposed.  Whatever came of it is told to the workshop, which keeps it for the report.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeAlias

from msgspec.structs import replace

from gainful.answers.prompt import request
from gainful.core import (
    Attempt,
    Case,
    Evidence,
    JsonObject,
    Once,
    Policy,
    Proposal,
    Rollout,
    Value,
)
from gainful.learners.lessons import Choosing, Chosen, Counts, choose, count, pairs
from gainful.learners.teachers import find_teacher
from gainful.train import Lesson, Material, Parity, Preference, Question, Recipe, Trained, Work

Method: TypeAlias = Literal["rejection", "preferences", "rewards", "distillation"]

RECIPES: dict[Method, Recipe] = {
    "rejection": Recipe(method="sft", learning_rate=1e-3),
    "preferences": Recipe(method="dpo", learning_rate=5e-5, epochs=1.0),
    "rewards": Recipe(method="grpo", learning_rate=1e-4, epochs=1.0),
    "distillation": Recipe(method="sft"),
}
WORDS: dict[Method, str] = {
    "rejection": "trained on {n} own verified answers",
    "preferences": "trained on {n} pairs of own right and wrong answers",
    "rewards": "trained on {n} questions with the checks as reward",
    "distillation": "say the same unprompted, trained on {n} own verified answers",
}


PILOT = 60  # cases that are answered first, a quarter of all at most, to see under which policy to sample the rest
TRIED = 8  # samples of each of those


class Teaching(Value, frozen=True):
    """How weights are learned: part of a run's settings, so of its name.

    ``methods`` are tried in this order, one proposal each, after ``rounds`` of sampling and training: the first brings
    little but form, and would often lose its race.  In each round ``cases`` of practice are answered ``samples`` times
    at ``temperature``: many samples of a case cost little more than a few, since its prompt is read once, and it is the
    hard cases that they solve.  ``least`` lessons or pairs are needed to begin.  ``start``: whether a head that has an
    adapter is trained on from there, or its lessons begin from the base again.  Training ends after ``minutes`` with
    what it has, and does not begin where it needs more than ``memory_bytes`` (``None``: than there is).  ``base`` names
    the weights of a model that a server serves: a folder, or a model on the hub.  ``shuffled`` gives every lesson
    another one's reply, a control that shows what format alone is worth.
    """

    methods: tuple[Method, ...] = ("rejection",)
    prompt: Literal["short", "own"] = "short"
    rounds: int = 3
    cases: int = 200
    samples: int = 32
    temperature: float = 1.0
    least: int = 20
    start: Literal["last", "base"] = "last"
    choosing: Choosing = Choosing()
    recipe: Recipe | None = None
    minutes: float = 30.0
    memory_bytes: int | None = None
    base: str | None = None
    shuffled: bool = False


class Vetting(Value, frozen=True):
    """What an adapter showed before it was allowed to race.

    ``parity`` is how far trainer and server agree; ``changed`` the share in [0, 1] of its prompts that the adapter
    answers otherwise than its base.  ``guard`` is the mean change of log-likelihood a token, in nats, of the base's
    replies to unrelated prompts, with its lower bound ``guard_low``.  ``refused`` says why it may not race; empty where
    it may.
    """

    parity: Parity
    changed: float
    guard: float
    guard_low: float
    refused: str = ""


class Taught(Value, frozen=True, tag="taught"):
    """One attempt at training, whatever came of it.

    ``trained`` is ``None`` where it did not begin, and ``vetting`` where another round followed.
    """

    learner: str
    method: Method
    counts: Counts
    material: int
    trained: Trained | None = None
    vetting: Vetting | None = None
    refused: str = ""


class Workshop(Protocol):
    """What a learner that trains needs of the house it works in."""

    @property
    def base(self) -> str:
        """What an adapter for the model calls its base."""
        ...

    async def sample(self, policy: Policy, cases: Sequence[Case], samples: int, temperature: float) -> list[Rollout]:
        """Answer *cases* at random under *policy*, judged by the checks that learning may use."""
        ...

    async def answer(self, policy: Policy, cases: Sequence[Case]) -> list[Rollout]:
        """Answer *cases* once each as *policy* does in service, judged likewise."""
        ...

    async def rehearsal(self) -> list[Lesson]:
        """Return unrelated prompts with the base's own replies, to be learned along so that they stay as they are."""
        ...

    async def train(self, work: Work, student: Policy) -> Trained:
        """Train; raises ``TrainError``.  *student* is asked in GRPO, by the checks that learning may use."""
        ...

    async def vet(self, policy: Policy, cases: Sequence[Case]) -> Vetting:
        """Compare trainer and server on *cases*, tuned and base, and guard unrelated prompts."""
        ...

    def tell(self, taught: Taught) -> None:
        """Keep what came of a training."""
        ...


@dataclass(frozen=True)
class Weights:
    """Adapters trained in *workshop* as *teaching* says, one proposal a method."""

    workshop: Workshop
    teaching: Teaching
    name: str = "weights"
    trains: ClassVar[bool] = True

    async def propose(self, head: Policy, evidence: Evidence) -> Sequence[Proposal]:
        """Return what training brought that may race; none where too little was verified, or it may not."""
        proposals = []
        for method in self.teaching.methods:
            if method == "distillation" and not is_longer(head):
                continue  # there is nothing to leave out
            learned, material = await self._in_rounds(method, head, evidence)
            if learned is not None:
                change = WORDS[method].format(n=material)
                proposals.append(Proposal(policy=learned, learner=self.name, change=change))
        return proposals

    async def _in_rounds(self, method: Method, head: Policy, evidence: Evidence) -> tuple[Policy | None, int]:
        """Train as often as the teaching says, each time on what the last student answers; vet the last one alone.

        Return what may race, and on how much it was trained.
        """
        last: tuple[Taught, Policy] | None = None
        material = 0
        for number in range(1 if method == "distillation" else self.teaching.rounds):
            teacher, rollouts = await self._answered(method, last[1] if last else head, evidence, number)
            taught, student = await self._teach(method, teacher, rollouts, evidence)
            if last is None and student is None:
                self.workshop.tell(taught)
                return None, 0
            if student is None:
                break  # what has been learned so far may race
            if last is not None:
                self.workshop.tell(last[0])
            last, material = (taught, student), material + taught.material
        assert last is not None  # there is a first round
        taught, student = last
        vetting = await self.workshop.vet(student, evidence.practice)
        self.workshop.tell(replace(taught, vetting=vetting, refused=vetting.refused))
        return None if vetting.refused else student, material

    async def _answered(
        self, method: Method, head: Policy, evidence: Evidence, number: int
    ) -> tuple[Policy, list[Rollout]]:
        """Return how practice cases, drawn anew in each round, were answered, and under which policy."""
        draw = random.Random(f"{evidence.seed} {head.id} {number}")
        cases = draw.sample(evidence.practice, min(self.teaching.cases, len(evidence.practice)))
        if method == "distillation":
            return head, await self.workshop.answer(head, cases)
        return await self._sampled(head, evidence, cases)

    async def _sampled(self, head: Policy, evidence: Evidence, cases: Sequence[Case]) -> tuple[Policy, list[Rollout]]:
        """Return under which policy *cases* were answered, that which the first of them teach most by, and how.

        Where those show that all are too few, the first alone are answered.
        """
        teaching = self.teaching

        async def sample(policy: Policy, some: Sequence[Case], samples: int = teaching.samples) -> list[Rollout]:
            return await self.workshop.sample(policy, some, samples, teaching.temperature)

        async def try_out(policy: Policy, some: Sequence[Case]) -> list[Rollout]:
            return await sample(policy, some, min(TRIED, teaching.samples))

        def worth(rollouts: Sequence[Rollout]) -> int:
            return len(choose(rollouts, _reply, teaching.choosing, evidence.seed))

        first = min(PILOT, math.ceil(len(cases) / 4))
        teacher, rollouts, most = await find_teacher(head, evidence, cases[:first], try_out, worth)
        if (most + 1) * len(cases) >= teaching.least * first:
            rollouts += await sample(teacher, cases[first:])
        return teacher, rollouts

    async def _teach(
        self, method: Method, teacher: Policy, rollouts: Sequence[Rollout], evidence: Evidence
    ) -> tuple[Taught, Policy | None]:
        teaching = self.teaching
        student = replace(teacher, strategy=Once())
        if method == "distillation" or teaching.prompt == "short":
            student = replace(student, demos=(), format=replace(teacher.format, turns=False))
        if method == "distillation":
            student = replace(student, instructions="")
        chosen = choose(rollouts, _reply, teaching.choosing, evidence.seed)
        counts = count(rollouts, chosen, teacher.demos)
        material = self._material(method, student, rollouts, chosen, evidence)
        taught = Taught(learner=self.name, method=method, counts=counts, material=len(material))
        if len(material) < teaching.least:
            return replace(taught, refused=_too_few(method, counts, len(material), teaching.least)), None
        recipe = teaching.recipe or RECIPES[method]
        if recipe.method == "sft":
            material = (*material, *await self.workshop.rehearsal())
        start = teacher.adapter if teaching.start == "last" else None
        work = Work(self.workshop.base, material, recipe, start, evidence.seed)
        trained = await self.workshop.train(work, student)
        return replace(taught, trained=trained), replace(student, adapter=trained.adapter)

    def _material(
        self,
        method: Method,
        student: Policy,
        rollouts: Sequence[Rollout],
        chosen: Sequence[Chosen],
        evidence: Evidence,
    ) -> tuple[Material, ...]:
        """Return what *method* trains on: the student's requests, with replies that the checks have judged."""
        teaching = self.teaching

        def asked(case: Case) -> tuple[JsonObject, ...]:
            return tuple(request(student, case, evidence.kind)["messages"])

        match method:
            case "rejection" | "distillation":
                replies = [one.reply for one in chosen]
                if teaching.shuffled:
                    random.Random(evidence.seed).shuffle(replies)
                return tuple(
                    Lesson(asked(one.case), reply, one.case.id) for one, reply in zip(chosen, replies, strict=True)
                )
            case "preferences":
                found = pairs(rollouts, _reply, teaching.choosing.per_case, evidence.seed)
                return tuple(Preference(asked(case), right, wrong, case.id) for case, right, wrong in found)
            case "rewards":
                mixed = [rollout.case for rollout in rollouts if rollout.verified and rollout.failed]
                return tuple(Question(asked(case), case.id, student.max_tokens) for case in mixed)


def is_longer(policy: Policy) -> bool:
    """Say whether *policy* takes more than one call with the bare question."""
    return bool(policy.demos or policy.instructions or policy.strategy != Once())


def _reply(case: Case, attempt: Attempt) -> str:
    return attempt.answer.text.strip()


def _too_few(method: Method, counts: Counts, material: int, least: int) -> str:
    return (
        f"{counts.verified} of {counts.sampled} sampled answers to {counts.cases} practice cases passed the checks, "
        f"which makes {material} to train on by {method} where {least} are needed; let prompts and formats be improved "
        "first, give more cases, or more samples of each"
    )
