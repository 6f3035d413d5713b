"""Rounds of answering and training, in a house where nothing is asked or trained: which cases, and how many of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gainful.core import Adapter, Answer, Attempt, Case, Evidence, Policy, Rollout, Text, Verdict
from gainful.learners.teaching import Taught, Teaching, Vetting
from gainful.learners.weights import Course
from gainful.train import Lesson, Parity, Trained, Work

ADAPTER = Adapter(sha256="a" * 64, base="b", rank=1, alpha=1.0)
EASY = tuple(Case(messages=({"role": "user", "content": f"Add one to {n}, please."},)) for n in range(400))
RARE = tuple(Case(messages=({"role": "user", "content": f"Spell {n} backwards now."},)) for n in range(400))
HARD = tuple(Case(messages=({"role": "user", "content": f"How often is letter {n} in there?"},)) for n in range(400))

EVERYDAY = [Lesson(({"role": "user", "content": f"What is {n}?"},), "It is", f"everyday {n}") for n in range(30)]


def number(case: Case) -> int:
    return int("".join(filter(str.isdigit, case.text)))


def judged(case: Case, value: str, is_right: bool) -> Attempt:
    verdicts = (Verdict("key", True, float(is_right)),)
    return Attempt(case.id, "", Answer(text=value, value=value), verdicts, float(is_right))


class House:
    """Answers every easy case rightly beside examples, half of them without, and one hard case in five.

    Of rare ones every fifth comes right as well, but in no sample before the 60th.  Notes what is asked and trained on.
    """

    base = "b"

    def __init__(self) -> None:
        self.asked: list[list[Case]] = []
        self.ranges: list[range] = []
        self.works: list[Work] = []
        self.asked_before: list[int] = []  # each training
        self.told: list[Taught] = []

    async def sample(self, asked: Sequence[tuple[Policy, Case]], samples: range, temperature: float) -> list[Rollout]:
        self.asked.append([case for _, case in asked])
        self.ranges.append(samples)
        return [self._rollout(policy, case, samples) for policy, case in asked]

    def _rollout(self, policy: Policy, case: Case, samples: range) -> Rollout:
        value, is_right = str(number(case) + 1), number(case) % 5 == 0
        if case in EASY:
            is_right = bool(policy.demos or policy.adapter) or number(case) % 2 == 0
        elif case in RARE:
            is_right = is_right and samples.stop > 60
        attempt = judged(case, value, is_right)
        return Rollout(case=case, attempts=(attempt,) * len(samples))

    async def answer(self, policy: Policy, cases: Sequence[Case]) -> list[Rollout]:
        return [self._rollout(policy, case, range(1)) for case in cases]

    async def rehearsal(self) -> list[Lesson]:
        return EVERYDAY

    async def train(self, work: Work, student: Policy) -> Trained:
        self.works.append(work)
        self.asked_before.append(len(self.asked))
        return Trained(work.id, ADAPTER, (), seconds=1.0, peak_memory_bytes=1, tokens=1)

    async def vet(self, policy: Policy, cases: Sequence[Case]) -> Vetting:
        parity = Parity(prompts=1, identical=1.0, agreement=1.0)
        return Vetting(parity=parity, changed=1.0, guard=0.0, guard_low=0.0)

    def tell(self, taught: Taught) -> None:
        self.told.append(taught)


async def taken(teaching: Teaching, other: tuple[Case, ...] = HARD, house: House | None = None) -> House:
    house, evidence = house or House(), Evidence(Text(), (), (), practice=EASY + other)
    await Course("weights", "rejection", house, teaching, evidence).take(Policy())
    return house


async def test_of_a_hard_kind_more_is_asked_so_that_all_kinds_come_to_as_many_lessons() -> None:
    """One hard case in five comes right, so some five of them are asked for each easy one; but never all."""
    house = await taken(Teaching(cases=100, rounds=2, samples=8))

    of_round = [house.asked[: house.asked_before[0]], house.asked[house.asked_before[0] :]]
    first, second = (Counter(case in HARD for case in {c.id: c for some in r for c in some}.values()) for r in of_round)
    for asked in (first, second):
        assert asked.total() == 100
        assert 2 * asked[False] < asked[True] < 6 * asked[False]


async def test_in_each_round_another_third_of_the_everyday_questions_is_learned_along() -> None:
    house = await taken(Teaching(cases=100, rounds=4, samples=8))

    along = [[one for one in work.material if one in EVERYDAY] for work in house.works]
    assert along == [EVERYDAY[::3], EVERYDAY[1::3], EVERYDAY[2::3], EVERYDAY[::3]]


async def test_in_later_rounds_new_lessons_are_learned_as_often_as_in_the_first_and_others_once_more() -> None:
    """There is one kind, so none is repeated for having few lessons."""
    house = await taken(Teaching(cases=100, rounds=2, samples=8), ())

    first, second = (
        Counter(one.case for one in work.material if isinstance(one, Lesson) and one not in EVERYDAY)
        for work in house.works
    )
    assert [work.recipe.epochs for work in house.works] == [3.0, 1.0]
    assert set(first.values()) == {1}
    assert {second[case] for case in second.keys() - first.keys()} == {3}
    assert {second[case] for case in first} == {1}


async def test_what_is_distilled_is_evened_over_kinds() -> None:
    """One hard case in five comes right, every second easy one: of each kind as many are asked."""
    house, evidence = House(), Evidence(Text(), (), (), practice=EASY + HARD)

    await Course("weights", "distillation", house, Teaching(cases=100), evidence).take(Policy())

    (work,) = house.works
    learned = Counter(one.case for one in work.material if isinstance(one, Lesson) and one not in EVERYDAY)
    easy, hard = ({case.id for case in some} & learned.keys() for some in (EASY, HARD))
    assert len(easy) >= 2 * len(hard) > 0
    assert {learned[case] for case in easy} == {1}
    assert {learned[case] for case in hard} == {min(4, len(easy) // len(hard))}


async def test_no_case_is_asked_again_once_it_has_come_right() -> None:
    house = await taken(Teaching(cases=100, rounds=3, samples=8))

    first = {one.case for one in house.works[0].material if isinstance(one, Lesson)} - {one.case for one in EVERYDAY}
    later = {case.id for some in house.asked[house.asked_before[0] :] for case in some}
    assert first
    assert not first & later


async def test_a_case_is_asked_on_only_where_nothing_came_right_and_nothing_new_of_its_kind_is_left() -> None:
    few, many = range(8), range(8, 24)

    house = await taken(Teaching(cases=100, rounds=1, samples=24), HARD[:40])
    with_new_ones = await taken(Teaching(cases=100, rounds=1, samples=24))

    again = [case for some, samples in zip(house.asked, house.ranges, strict=True) for case in some if samples == many]
    assert {case.id for case in again} == {case.id for case in HARD[:40] if number(case) % 5}
    assert set(with_new_ones.ranges) == {few}


async def test_what_is_new_is_asked_before_what_was_asked_already() -> None:
    house = await taken(Teaching(cases=100, rounds=2, samples=8))

    first, second = (
        {case.id for some in part for case in some}
        for part in (house.asked[: house.asked_before[0]], house.asked[house.asked_before[0] :])
    )
    assert len(first) == len(second) == 100
    assert not first & second


async def test_a_kind_that_hardly_comes_right_is_asked_on_until_there_is_something_to_show() -> None:
    house = await taken(Teaching(cases=100, rounds=2, samples=32), RARE)

    asked = list(zip(house.asked, house.ranges, strict=True))
    first, second = (
        [r for some, r in part if any(case in RARE for case in some)] for part in split(asked, house.asked_before[0])
    )
    assert first[-4:] == [range(32, 40), range(40, 48), range(48, 56), range(56, 64)]
    assert set(second) == {range(8)}  # who has learned is not
    assert "Spell" in str(house.works[0].material)


async def test_right_answers_that_only_repeat_a_question_are_counted_and_not_learned() -> None:
    class Repeating(House):
        """Says rare numbers as they are, which is right of every fifth one."""

        def _rollout(self, policy: Policy, case: Case, samples: range) -> Rollout:
            if case not in RARE:
                return super()._rollout(policy, case, samples)
            attempt = judged(case, str(number(case)), number(case) % 5 == 0)
            return Rollout(case=case, attempts=(attempt,) * len(samples))

    house = await taken(Teaching(cases=100, rounds=1, samples=8), RARE, Repeating())

    (taught,) = house.told
    asked = {case.id for some in house.asked for case in some if case in RARE}
    assert taught.counts.echoes >= 8 * len(asked & {case.id for case in RARE[::5]}) > 0
    assert "Spell" not in str(house.works[0].material)


def split(some: list[tuple[list[Case], range]], at: int) -> tuple[list[tuple[list[Case], range]], ...]:
    return some[:at], some[at:]
