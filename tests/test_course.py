"""Rounds of answering and training, in a house where nothing is asked or trained: which cases, and how many of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gainful.core import Adapter, Answer, Attempt, Case, Evidence, Policy, Rollout, Text
from gainful.learners.teaching import Taught, Teaching, Vetting
from gainful.learners.weights import Course
from gainful.train import Lesson, Parity, Trained, Work

ADAPTER = Adapter(sha256="a" * 64, base="b", rank=1, alpha=1.0)
EASY = tuple(Case(messages=({"role": "user", "content": f"Add one to {n}, please."},)) for n in range(400))
HARD = tuple(Case(messages=({"role": "user", "content": f"How often is letter {n} in there?"},)) for n in range(400))


def number(case: Case) -> int:
    return int("".join(filter(str.isdigit, case.text)))


class House:
    """Answers every easy case rightly, and one hard case in five; notes what is asked and trained on."""

    base = "b"

    def __init__(self) -> None:
        self.asked: list[list[Case]] = []
        self.works: list[Work] = []
        self.asked_before: list[int] = []  # each training
        self.told: list[Taught] = []

    async def sample(self, asked: Sequence[tuple[Policy, Case]], samples: int, temperature: float) -> list[Rollout]:
        self.asked.append([case for _, case in asked])
        return [self._rollout(case, samples) for _, case in asked]

    def _rollout(self, case: Case, samples: int) -> Rollout:
        is_right = case.text.startswith("Add") or number(case) % 5 == 0
        value = str(number(case))
        attempt = Attempt(case.id, "", Answer(text=value, value=value), score=float(is_right))
        return Rollout(case=case, attempts=(attempt,) * samples)

    async def answer(self, policy: Policy, cases: Sequence[Case]) -> list[Rollout]:
        return [self._rollout(case, 1) for case in cases]

    async def rehearsal(self) -> list[Lesson]:
        return []

    async def train(self, work: Work, student: Policy) -> Trained:
        self.works.append(work)
        self.asked_before.append(len(self.asked))
        return Trained(work.id, ADAPTER, (), seconds=1.0, peak_memory_bytes=1, tokens=1)

    async def vet(self, policy: Policy, cases: Sequence[Case]) -> Vetting:
        parity = Parity(prompts=1, identical=1.0, agreement=1.0)
        return Vetting(parity=parity, changed=1.0, guard=0.0, guard_low=0.0)

    def tell(self, taught: Taught) -> None:
        self.told.append(taught)


async def taken(teaching: Teaching) -> House:
    house, evidence = House(), Evidence(Text(), (), (), practice=EASY + HARD)
    await Course("weights", "rejection", house, teaching, evidence).take(Policy())
    return house


async def test_of_a_hard_kind_more_is_asked_so_that_all_kinds_come_to_as_many_lessons() -> None:
    """One hard case in five comes right, so five of them are asked for each easy one; but never all."""
    house = await taken(Teaching(cases=100, rounds=2, samples=8))

    of_round = [house.asked[: house.asked_before[0]], house.asked[house.asked_before[0] :]]
    first, second = (Counter(case in HARD for case in {c.id: c for some in r for c in some}.values()) for r in of_round)
    assert first == {True: 50, False: 50}
    assert second.total() == 100
    assert 2.5 * second[False] < second[True] < 5 * second[False]


async def test_no_case_is_asked_again_once_it_has_come_right() -> None:
    house = await taken(Teaching(cases=100, rounds=3, samples=8))

    first = {one.case for one in house.works[0].material if isinstance(one, Lesson)}
    later = {case.id for some in house.asked[house.asked_before[0] :] for case in some}
    assert first
    assert not first & later


async def test_a_case_is_asked_on_only_where_nothing_came_right() -> None:
    house = await taken(Teaching(cases=100, rounds=1, samples=24))

    *first, again = house.asked
    hard = {case.id: case for some in first for case in some if case in HARD}.values()
    assert {case.id for case in again} == {case.id for case in hard if number(case) % 5}
