"""Of several rounds of training the best on dev is vetted and proposed: not always the last, and never on a whim."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest
from msgspec.structs import replace
from test_course import EASY, House, judged

from gainful.core import Adapter, Case, Evidence, Policy, Rollout, Text, TrainError
from gainful.learners.teaching import OnDev, Teaching, Vetting
from gainful.learners.weights import Course
from gainful.train import Trained, Work

DEV = EASY[-10:]
PRACTICE = EASY[:300]


class Uneven(House):
    """The student of round n gets as many dev cases right as the n-th number says."""

    def __init__(self, *right: int, refused: Collection[int] = ()) -> None:
        super().__init__()
        self.right = right
        self.refused = refused
        self.vetted: list[int] = []

    async def train(self, work: Work, student: Policy) -> Trained:
        trained = await super().train(work, student)
        adapter = Adapter(sha256=f"{len(self.works):064x}", base="b", rank=1, alpha=1.0)
        return Trained(work.id, adapter, (), trained.seconds, trained.peak_memory_bytes, trained.tokens)

    async def answer(self, policy: Policy, cases: Sequence[Case]) -> list[Rollout]:
        right = self.right[training(policy) - 1]
        return [Rollout(case, (judged(case, "", n < right),)) for n, case in enumerate(cases)]

    async def vet(self, policy: Policy, cases: Sequence[Case]) -> Vetting:
        self.vetted.append(training(policy))
        vetting = await super().vet(policy, cases)
        return replace(vetting, refused="it harms" if training(policy) in self.refused else "")


def training(policy: Policy) -> int:
    """Return the training that *policy* came of, counted from 1."""
    assert policy.adapter is not None
    return int(policy.adapter.sha256, 16)


async def learned(house: Uneven, rounds: int, *, control: bool = False) -> int | None:
    """Return the training whose adapter is proposed, counted from 1."""
    evidence = Evidence(Text(), DEV, (), practice=PRACTICE)
    teaching = Teaching(cases=40, rounds=rounds, samples=8, control=control)
    found = await Course("weights", "rejection", house, teaching, evidence).take(Policy())
    return training(found.policy) if found else None


@pytest.mark.parametrize(
    ("right", "best"),
    [((2, 8, 5), 2), ((2, 6, 5), 3), ((5, 5, 5), 3), ((2, 5, 8), 3), ((9, 1, 8), 3), ((9, 1, 7), 1), ((8, 7, 6), 2)],
)
async def test_an_earlier_round_is_proposed_where_it_leads_by_two_cases(right: tuple[int, ...], best: int) -> None:
    house = Uneven(*right)

    assert await learned(house, 3) == best

    assert house.vetted == [best]
    assert [one.round for one in house.told][-1] == best
    assert sorted(one.round for one in house.told) == [1, 2, 3]
    assert {one.round: one.dev for one in house.told} == {n: OnDev(k, 10) for n, k in enumerate(right, 1)}
    assert [one.vetting is None for one in house.told] == [True, True, False]


async def test_where_the_best_may_not_race_the_second_best_does() -> None:
    house = Uneven(2, 8, 5, 6, 1, refused=[2])  # the last is the control's

    assert await learned(house, 4, control=True) == 4

    assert house.vetted == [2, 4]
    assert [(one.round, one.refused) for one in house.told] == [(1, ""), (3, ""), (2, "it harms"), (4, ""), (4, "")]
    assert house.told[-1].control_of == f"{4:064x}"


async def test_who_may_not_race_is_not_proposed_and_has_no_control() -> None:
    house = Uneven(2, 8, 5, refused=[1, 2, 3])

    assert await learned(house, 3, control=True) is None

    assert len(house.works) == 3
    assert house.vetted == [2, 3]
    assert [(one.round, one.refused) for one in house.told] == [(1, ""), (2, "it harms"), (3, "it harms")]


class Broken(Uneven):
    """A house in which nobody can be vetted."""

    async def vet(self, policy: Policy, cases: Sequence[Case]) -> Vetting:
        raise TrainError("the server is gone")


async def test_who_cannot_be_vetted_is_told_all_the_same() -> None:
    house = Broken(2, 8, 5)

    with pytest.raises(TrainError, match="server is gone"):
        await learned(house, 3)

    assert sorted((one.round, one.vetting) for one in house.told) == [(1, None), (2, None), (3, None)]


async def test_the_control_is_asked_the_same_dev_cases() -> None:
    house = Uneven(6, 1)

    assert await learned(house, 1, control=True) == 1

    own, control = house.told
    assert (own.dev, control.dev) == (OnDev(6, 10), OnDev(1, 10))
    assert control.control_of == f"{1:064x}"


class Full(Uneven):
    """A house whose disk is full after *room* trainings."""

    def __init__(self, room: int) -> None:
        super().__init__(2, 8, 9)
        self.room = room

    async def train(self, work: Work, student: Policy) -> Trained:
        if len(self.works) == self.room:
            raise TrainError("the disk is full")
        return await super().train(work, student)


async def test_what_was_learned_before_a_training_broke_off_may_race() -> None:
    assert await learned(Full(room=2), 3) == 2
    assert await learned(Full(room=3), 3, control=True) == 3  # whose control has no room
    with pytest.raises(TrainError, match="disk is full"):
        await learned(Full(room=0), 3)
