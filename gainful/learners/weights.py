"""Propose the model's own weights, changed a little by training on its own verified answers.

The head answers practice cases many times at random; what the checks pass is chosen (``lessons``), trained on in
another process (``gainful.train``), and comes back as an adapter on the head's policy.  After several rounds, each
sampled under the student of the last, it races like any other proposal: that a loss fell is no evidence of anything.
Each training begins from the base, with what came right in all rounds (as in Singh et al. 2023, Beyond human data,
arXiv 2312.06585, section 3): a student that is trained on and on forgets what its first lessons taught.  Preferences
and rewards go on from the last adapter, and begin with a round of lessons where there is none.

The student is asked with a short prompt: the head's without its demos.  So one training does two things at once, it
learns from what was verified and it takes in what the long prompt said (context distillation, Snell et al. 2022,
arXiv 2209.15189).  With ``prompt="own"`` it keeps the head's prompt.  The method ``distillation`` goes further: the
head answers as it does in service, with votes and second thoughts, and the student has to say so at once, with neither
demos nor instructions.  It is for runs that look for the same quality at fewer tokens.

An adapter that the server answers otherwise with than the trainer does, that changes nothing, or that does harm to
unrelated prompts is not proposed.  Whatever came of it is told to the workshop, which keeps it for the report.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from msgspec.structs import replace

from gainful.answers.prompt import request
from gainful.core import Case, Demo, Evidence, JsonObject, Once, Policy, Proposal, Rollout, TrainError
from gainful.learners.kinds import OTHER, kinds
from gainful.learners.lessons import Chosen, Counts, choose, count, evened, pairs
from gainful.learners.practice import Practice, reply
from gainful.learners.teachers import Teachers
from gainful.learners.teaching import Method, Taught, Teaching, Workshop
from gainful.train import Lesson, Material, Preference, Question, Recipe, Work

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
            course = Course(self.name, method, self.workshop, self.teaching, evidence)
            try:
                learned = await course.take(head)
            except TrainError:
                break  # the workshop has said why; what came before may race
            if learned is not None:
                change = WORDS[method].format(n=course.learned_from)
                proposals.append(Proposal(policy=learned, learner=self.name, change=change))
        return proposals


class Course:
    """Rounds of answering and training by one method; ``learned_from`` counts what the last one trained on."""

    def __init__(
        self, learner: str, method: Method, workshop: Workshop, teaching: Teaching, evidence: Evidence
    ) -> None:
        self.learned_from = 0
        self._learner = learner
        self._method = method
        self._workshop = workshop
        self._teaching = teaching
        self._evidence = evidence
        self._kinds = kinds((*evidence.cases, *evidence.practice))
        self._practice = Practice(workshop, teaching, evidence, self._kinds)
        self._solved: dict[str, Rollout] = {}  # in earlier rounds
        self._shown: dict[int, tuple[Demo, ...]] = {}

    async def take(self, head: Policy) -> Policy | None:
        """Train as often as the teaching says, each time on what the last student answers; vet the last one alone.

        Return it, ``None`` where it may not race.
        """
        last: tuple[Taught, Policy] | None = None
        for number in range(1 if self._method == "distillation" else self._teaching.rounds):
            taught, student = await self._round(last[1] if last else head, number)
            if last is None and student is None:
                self._workshop.tell(taught)
                return None
            if student is None:
                break  # what has been learned so far may race
            if last is not None:
                self._workshop.tell(last[0])
            last, self.learned_from = (taught, student), taught.material
        assert last is not None  # there is a first round
        taught, student = last
        vetting = await self._workshop.vet(student, self._evidence.practice)
        self._workshop.tell(replace(taught, vetting=vetting, refused=vetting.refused))
        return None if vetting.refused else student

    async def _round(self, head: Policy, number: int) -> tuple[Taught, Policy | None]:
        """Answer and train once; return what came of it, and the student where there was enough to learn from."""
        teaching, seed, method = self._teaching, self._evidence.seed, self._method_for(head)
        is_pooled = self._method == "rejection" and teaching.start == "base"
        cases = self._practice.draw(head, number, self._solved)
        if method == "distillation":
            teachers, rollouts = Teachers(head), await self._workshop.answer(head, cases)
        else:
            teachers, rollouts = await self._practice.answered(head, cases)
        demos = {kind: teachers.under(kind).demos for kind in {OTHER, *self._kinds.values()}}
        self._shown |= {kind: shown for kind, shown in demos.items() if shown}  # a student is shown none
        all_rollouts = [*self._solved.values(), *rollouts]
        if is_pooled:
            self._solved |= {rollout.case.id: rollout for rollout in rollouts if rollout.verified}
        chosen = choose(all_rollouts, reply, teaching.choosing, seed, self._kinds)
        counts = count(rollouts, chosen, self._shown)
        student = self._student(head, teachers)
        material = self._material(method, student, all_rollouts, chosen)
        taught = Taught(learner=self._learner, method=method, counts=counts, material=len(material))
        if len(material) < teaching.least or not counts.verified:
            return replace(taught, refused=_too_few(method, counts, len(material), teaching.least)), None
        recipe = teaching.recipe or RECIPES[method]
        if method == "rejection":
            lessons = [one for one in material if isinstance(one, Lesson)]
            material = tuple(evened(lessons, self._kinds, teaching.choosing.repeated))
        if recipe.method == "sft":
            material = (*material, *await self._workshop.rehearsal())
        start = None if is_pooled else head.adapter
        trained = await self._workshop.train(Work(self._workshop.base, material, recipe, start, seed), student)
        return replace(taught, trained=trained), replace(student, adapter=trained.adapter)

    def _method_for(self, head: Policy) -> Method:
        """Return how *head* is taught: who has learned nothing yet has few answers to prefer or to reward."""
        is_first = head.adapter is None and self._method in ("preferences", "rewards") and self._teaching.rounds > 1
        return "rejection" if is_first else self._method

    def _student(self, head: Policy, teachers: Teachers) -> Policy:
        """Return who learns: asked at once, and by the method or the teaching more briefly than the head."""
        student = replace(head, strategy=Once(), format=replace(teachers.format, turns=head.format.turns))
        if self._method == "distillation" or self._teaching.prompt == "short":
            student = replace(student, demos=(), format=replace(student.format, turns=False))
        return replace(student, instructions="") if self._method == "distillation" else student

    def _material(
        self, method: Method, student: Policy, rollouts: Sequence[Rollout], chosen: Sequence[Chosen]
    ) -> tuple[Material, ...]:
        """Return what the method trains on: the student's requests, with replies that the checks have judged."""
        evidence = self._evidence

        def asked(case: Case) -> tuple[JsonObject, ...]:
            return tuple(request(student, case, evidence.kind)["messages"])

        match method:
            case "rejection" | "distillation":
                if self._teaching.shuffled:
                    chosen = shuffle_replies(chosen, evidence.seed)
                return tuple(Lesson(asked(one.case), one.reply, one.case.id) for one in chosen)
            case "preferences":
                found = pairs(rollouts, reply, self._teaching.choosing.per_case, evidence.seed)
                return tuple(Preference(asked(case), right, wrong, case.id) for case, right, wrong in found)
            case "rewards":
                mixed = [rollout.case for rollout in rollouts if rollout.verified and rollout.failed]
                return tuple(Question(asked(case), case.id, student.max_tokens) for case in mixed)


def shuffle_replies(chosen: Sequence[Chosen], seed: int) -> list[Chosen]:
    """Return *chosen* with each reply given to another case of its kind: the same form, and nothing to know."""
    draw = random.Random(seed)
    of_kind: dict[int, list[str]] = {}
    for one in chosen:
        of_kind.setdefault(one.kind, []).append(one.reply)
    for replies in of_kind.values():
        draw.shuffle(replies)
    return [replace(one, reply=of_kind[one.kind].pop()) for one in chosen]


def is_longer(policy: Policy) -> bool:
    """Say whether *policy* takes more than one call with the bare question."""
    return bool(policy.demos or policy.instructions or policy.strategy != Once())


def _too_few(method: Method, counts: Counts, material: int, least: int) -> str:
    return (
        f"{counts.verified} of {counts.sampled} sampled answers to {counts.cases} practice cases passed the checks, "
        f"which makes {material} to train on by {method} where {least} are needed; let prompts and formats be improved "
        "first, give more cases, or more samples of each"
    )
