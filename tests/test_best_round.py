"""Of several rounds of training the best on dev is vetted and proposed: not always the last, and never on a whim."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from test_course import EASY, House, judged

from gainful.core import Adapter, Case, Evidence, Policy, Rollout, Text, TrainError
from gainful.learners.teaching import OnDev, Teaching, Vetting
from gainful.learners.weights import Course
from gainful.train import Trained, Work

DEV = EASY[-10:]
PRACTICE = EASY[:300]


class Uneven(House):
    """The student of round n gets as many dev cases right as the n-th number says."""

    def __init__(self, *right: int, refused: str = "") -> None:
        super().__init__()
        self.right = right
        self.refused = refused
        self.vetted: list[Policy] = []

    async def train(self, work: Work, student: Policy) -> Trained:
        trained = await super().train(work, student)
        adapter = Adapter(sha256=f"{len(self.works):064x}", base="b", rank=1, alpha=1.0)
        return Trained(work.id, adapter, (), trained.seconds, trained.peak_memory_bytes, trained.tokens)

    async def answer(self, policy: Policy, cases: Sequence[Case]) -> list[Rollout]:
        assert policy.adapter is not None
        right = self.right[int(policy.adapter.sha256, 16) - 1]
        return [Rollout(case, (judged(case, "", n < right),)) for n, case in enumerate(cases)]

    async def vet(self, policy: Policy, cases: Sequence[Case]) -> Vetting:
        self.vetted.append(policy)
        vetting = await super().vet(policy, cases)
        return Vetting(vetting.parity, vetting.changed, vetting.guard, vetting.guard_low, refused=self.refused)


async def learned(house: Uneven, rounds: int, *, control: bool = False) -> int | None:
    """Return the training whose adapter is proposed, counted from 1."""
    evidence = Evidence(Text(), DEV, (), practice=PRACTICE)
    teaching = Teaching(cases=40, rounds=rounds, samples=8, control=control)
    found = await Course("weights", "rejection", house, teaching, evidence).take(Policy())
    return int(found.policy.adapter.sha256, 16) if found and found.policy.adapter else None


@pytest.mark.parametrize(
    ("right", "best"),
    [((2, 8, 5), 2), ((2, 6, 5), 3), ((5, 5, 5), 3), ((2, 5, 8), 3), ((9, 1, 8), 3), ((9, 1, 7), 1)],
)
async def test_an_earlier_round_is_proposed_where_it_leads_by_two_cases(right: tuple[int, ...], best: int) -> None:
    house = Uneven(*right)

    assert await learned(house, 3) == best

    assert len(house.vetted) == 1
    assert [one.round for one in house.told][-1] == best
    assert sorted(one.round for one in house.told) == [1, 2, 3]
    assert {one.round: one.dev for one in house.told} == {n: OnDev(k, 10) for n, k in enumerate(right, 1)}
    assert [one.vetting is None for one in house.told] == [True, True, False]


async def test_who_may_not_race_is_not_proposed_and_has_no_control() -> None:
    house = Uneven(2, 8, 5, refused="it harms")

    assert await learned(house, 3, control=True) is None

    assert len(house.works) == 3
    assert house.told[-1].refused == "it harms"


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
