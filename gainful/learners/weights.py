"""Propose the model's own weights, changed a little by training on its own verified answers.

The head answers practice cases many times at random; what the checks pass is chosen (``lessons``), trained on in
another process (``gainful.train``), and comes back as an adapter on the head's policy.  There are several rounds, each
sampled under the student of the last; the best of them on dev races like any other proposal: that a loss fell is no
evidence of anything.
Each training goes on from the last adapter, with what came right in all rounds: a student that is trained on and on
with each round's own lessons forgets what the first ones taught, so these are learned on, once each, beside the new
ones, which are there as often as in a first training; one that begins from the base each time (as in
Singh et al. 2023, Beyond human data, arXiv 2312.06585, section 3) takes three times as long.  Preferences and rewards
begin with a round of lessons where there is no adapter to go on from.

The student is asked with a short prompt: the head's without its demos.  So one training does two things at once, it
learns from what was verified and it takes in what the long prompt said (context distillation, Snell et al. 2022,
arXiv 2209.15189).  With ``prompt="own"`` it keeps the head's prompt.  The method ``distillation`` goes further: the
head answers as it does in service, with votes and second thoughts, and the student has to say so at once, with neither
demos nor instructions.  It is for runs that look for the same quality at fewer tokens.

An adapter that the server answers otherwise with than the trainer does, that changes nothing, or that does harm to
unrelated prompts is not proposed.  Whatever came of it is told to the workshop, which keeps it for the report, and
beside it, where that was asked for, what the same training comes to with replies that belong to other cases.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from msgspec.structs import replace

from gainful.answers.prompt import request
from gainful.core import Adapter, Case, Demo, Evidence, JsonObject, Once, Policy, Proposal, Rollout, TrainError
from gainful.learners.kinds import OTHER, kinds
from gainful.learners.lessons import Chosen, Counts, choose, evened, pairs, shuffle, tally
from gainful.learners.practice import Practice, reply
from gainful.learners.teachers import Teachers
from gainful.learners.teaching import Method, OnDev, Taught, Teaching, Workshop
from gainful.train import Lesson, Material, Preference, Question, Recipe, Work

FEWER_EPOCHS = 3  # times, where earlier rounds have learned most of the lessons
EVERYDAY_ROUNDS = 3  # in which each of the everyday questions is learned along
GENTLER = 2.0  # times, then: what nobody trains for drifts by what is added up
LEAST_LEAD = 2  # dev cases that an earlier round must be ahead by, or the later one is taken: it has learned more
VETTED = 2  # students of a course at most, the second where the best may not race

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
                proposals.append(learned)
        return proposals


@dataclass(frozen=True)
class _Student:
    """Who came of a round, by which work, and which dev cases it gets right, by id."""

    taught: Taught
    policy: Policy
    work: Work
    right: dict[str, bool] = field(default_factory=dict)


class Course:
    """Rounds of answering and training by one method."""

    def __init__(
        self, learner: str, method: Method, workshop: Workshop, teaching: Teaching, evidence: Evidence
    ) -> None:
        self._learner = learner
        self._method = method
        self._workshop = workshop
        self._teaching = teaching
        self._evidence = evidence
        self._kinds = kinds((*evidence.cases, *evidence.practice))
        self._practice = Practice(workshop, teaching, evidence, self._kinds)
        self._solved: dict[str, Rollout] = {}  # in earlier rounds
        self._shown: dict[int, tuple[Demo, ...]] = {}
        self._first: Adapter | None = None  # with which it begins

    async def take(self, head: Policy) -> Proposal | None:
        """Train as often as the teaching says, each time on what the last student answers.

        The best on dev is vetted and returned, the second best where it may not race, ``None`` where neither may.
        """
        self._first = None if self._teaching.start == "base" else head.adapter
        students: list[_Student] = []  # that may be proposed, the best first
        rounds = 1 if self._method == "distillation" else self._teaching.rounds
        for number in range(rounds):
            try:
                student = await self._round(head, number)
            except TrainError:
                if not students:
                    raise
                break  # the workshop says why; what has been learned so far may race
            if student is None:
                break  # likewise
            head = student.policy
            if rounds > 1 or self._teaching.control:
                student = await self._on_dev(student)
            students = _ranked([*students, student])
            for behind in students[VETTED:]:
                self._workshop.tell(behind.taught)
            del students[VETTED:]
        return await self._vetted(students)

    async def _vetted(self, students: Sequence[_Student]) -> Proposal | None:
        """Return the first of *students* that may race, ``None`` where none may; what came of each is told."""
        for place, student in enumerate(students, 1):
            try:
                vetting = await self._workshop.vet(student.policy, self._evidence.practice)
            except TrainError:
                for unvetted in students[place - 1 :]:
                    self._workshop.tell(unvetted.taught)
                raise
            for behind in () if vetting.refused else students[place:]:
                self._workshop.tell(behind.taught)
            self._workshop.tell(replace(student.taught, vetting=vetting, refused=vetting.refused))
            if not vetting.refused:
                return await self._proposal(student)
        return None

    async def _proposal(self, student: _Student) -> Proposal | None:
        if (adapter := student.policy.adapter) is None:
            return None
        if self._teaching.control:
            with contextlib.suppress(TrainError):  # the workshop says why; the adapter races without its control
                await self._tell_control(student, adapter)
        change = f"{WORDS[student.taught.method].format(n=student.taught.material)} ({adapter.label})"
        return Proposal(policy=student.policy, learner=self._learner, change=change)

    async def _tell_control(self, student: _Student, adapter: Adapter) -> None:
        """Train once more as *student* was, but with the replies of other cases, and tell what that is worth on dev."""
        work = self._from_the_first(student.work)
        work = replace(work, material=tuple(shuffle(work.material, self._kinds, self._evidence.seed)))
        trained = await self._workshop.train(work, student.policy)
        taught = replace(student.taught, trained=trained, control_of=adapter.sha256)
        control = _Student(taught, replace(student.policy, adapter=trained.adapter), work)
        self._workshop.tell((await self._on_dev(control)).taught)

    def _from_the_first(self, work: Work) -> Work:
        """Return *work* as one training, of lessons that were learned in several."""
        if self._method != "rejection":
            return work
        return replace(work, start=self._first, recipe=self._recipe(self._method))

    async def _on_dev(self, student: _Student) -> _Student:
        """Return *student* with what it says to the dev cases, where there are any and the budget lets it be asked."""
        answered = await self._workshop.answer(student.policy, self._evidence.cases)
        right = {one.case.id: any(attempt.score == 1.0 for attempt in one.attempts) for one in answered}
        if not right:
            return student
        taught = replace(student.taught, dev=OnDev(right=sum(right.values()), n=len(right)))
        return _Student(taught, student.policy, student.work, right)

    async def _round(self, head: Policy, number: int) -> _Student | None:
        """Answer and train once; return who learned, ``None`` where there was too little to learn from."""
        teaching, seed, method = self._teaching, self._evidence.seed, self._method_for(head)
        is_pooled, start = self._method == "rejection", head.adapter
        if is_pooled and teaching.start == "base":
            start = None
        if method == "distillation":
            cases = self._practice.draw(head, number, self._solved)
            teachers, rollouts = Teachers(head), await self._workshop.answer(head, cases)
        else:
            teachers, rollouts = await self._practice.answered(head, number, self._solved)
        demos = {kind: teachers.under(kind).demos for kind in {OTHER, *self._kinds.values()}}
        self._shown |= {kind: shown for kind, shown in demos.items() if shown}  # a student is shown none
        learned = set(self._solved)
        all_rollouts = [*self._solved.values(), *rollouts]
        if is_pooled:
            self._solved |= {rollout.case.id: rollout for rollout in rollouts if rollout.verified}
        chosen = choose(all_rollouts, reply, teaching.choosing, seed, self._kinds)
        counts = tally(rollouts, chosen, self._shown, self._practice.echoes)
        student = self._student(head, teachers)
        material = self._material(method, student, all_rollouts, chosen)
        taught = Taught(
            learner=self._learner,
            method=method,
            counts=counts,
            material=len(material),
            round=number + 1,
            left_out=self._evidence.left_out,
        )
        if len(material) < teaching.least or not counts.verified:
            self._workshop.tell(replace(taught, refused=_too_few(method, counts, len(material), teaching.least)))
            return None
        is_known = bool(is_pooled and start and number)
        recipe = self._recipe(method, is_known=is_known)
        if recipe.method == "sft":
            lessons = [one for one in material if isinstance(one, Lesson)]
            times = FEWER_EPOCHS if is_known else 1
            new = {one.case for one in lessons} - learned
            material = tuple(evened(lessons, self._kinds, teaching.choosing.repeated * times, new, times))
        if teaching.shuffled:
            material = tuple(shuffle(material, self._kinds, seed))
        if recipe.method == "sft":
            everyday = await self._workshop.rehearsal()
            material = (*material, *everyday[number % EVERYDAY_ROUNDS :: EVERYDAY_ROUNDS])
        work = Work(self._workshop.base, material, recipe, start, seed)
        trained = await self._workshop.train(work, student)
        return _Student(replace(taught, trained=trained), replace(student, adapter=trained.adapter), work)

    def _method_for(self, head: Policy) -> Method:
        """Return how *head* is taught: who has learned nothing yet has few answers to prefer or to reward."""
        is_first = head.adapter is None and self._method in ("preferences", "rewards") and self._teaching.rounds > 1
        return "rejection" if is_first else self._method

    def _recipe(self, method: Method, *, is_known: bool = False) -> Recipe:
        """Return how to train; *is_known*: lessons that have been learned for the most part."""
        recipe = self._teaching.changes.applied(RECIPES[method], is_opening=method != self._method)
        if not is_known:
            return recipe
        return replace(recipe, epochs=recipe.epochs / FEWER_EPOCHS, learning_rate=recipe.learning_rate / GENTLER)

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
                return tuple(Lesson(asked(one.case), one.reply, one.case.id) for one in chosen)
            case "preferences":
                found = pairs(rollouts, reply, self._teaching.choosing.per_case, evidence.seed)
                return tuple(Preference(asked(case), right, wrong, case.id) for case, right, wrong in found)
            case "rewards":
                mixed = [rollout.case for rollout in rollouts if rollout.verified and rollout.failed]
                return tuple(Question(asked(case), case.id, student.max_tokens) for case in mixed)


def _ranked(students: Sequence[_Student]) -> list[_Student]:
    """Return them, the best first: of those that no other leads the last one, who has learned most."""
    left = sorted(students, key=lambda one: one.taught.round)
    ranked: list[_Student] = []
    while left:
        best = next((one for one in reversed(left) if not any(_leads(other, one) for other in left)), left[-1])
        left.remove(best)
        ranked.append(best)
    return ranked


def _leads(one: _Student, other: _Student) -> bool:
    """Say whether *one* is ahead of *other* by ``LEAST_LEAD`` of the dev cases that both were asked."""
    both = one.right.keys() & other.right.keys()
    return sum(one.right[case] - other.right[case] for case in both) >= LEAST_LEAD


def is_longer(policy: Policy) -> bool:
    """Say whether *policy* takes more than one call with the bare question."""
    return bool(policy.demos or policy.instructions or policy.strategy != Once())


def _too_few(method: Method, counts: Counts, material: int, least: int) -> str:
    if not counts.cases:
        return (
            "there is nothing left to practise on: for practice are dev cases that no race uses, and those that a task "
            "brings for it; give more cases"
        )
    return (
        f"{counts.verified} of {counts.sampled} sampled answers to {counts.cases} practice cases passed the checks, "
        f"which makes {material} to train on by {method} where {least} are needed; let prompts and formats be improved "
        "first, give more cases, or more samples of each"
    )
