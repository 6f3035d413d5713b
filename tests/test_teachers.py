"""Under which policies practice is sampled: several sets of examples are tried on the same cases, kind by kind."""

from __future__ import annotations

from collections.abc import Sequence

from gainful.core import Adapter, Answer, Attempt, Case, Evidence, Format, Json, Policy, Rollout, Text, Verdict
from gainful.learners.teachers import SETS, SHOWN, find_teachers

HEAD = Policy(format=Format(shape="schema"))
CASES = tuple(Case(messages=({"role": "user", "content": f"question {number}"},), target="x") for number in range(12))


def attempt(case: Case, value: str, *, right: bool) -> Attempt:
    verdicts = (Verdict("key", True, float(right)),)
    return Attempt(case.id, "", Answer(text=value, value=value), verdicts, float(right))


def evidence(*right: Case, kind: object = Text()) -> Evidence:
    attempts = tuple(attempt(case, f"own {number}", right=True) for number, case in enumerate(right))
    return Evidence(kind, right, attempts)  # type: ignore[arg-type]


class Samples:
    """Answers of which as many are right as there are examples that say "own 1" last, and one beside."""

    def __init__(self) -> None:
        self.asked: list[Policy] = []
        self._places: dict[str, int] = {}

    async def __call__(self, asked: Sequence[tuple[Policy, Case]]) -> list[Rollout]:
        self.asked += {policy.id: policy for policy, _ in asked}.values()
        for _, case in asked:
            self._places.setdefault(case.id, len(self._places))
        return [
            Rollout(case, (attempt(case, f"{len(self.asked)}", right=self._places[case.id] < good(policy)),))
            for policy, case in asked
        ]


def good(policy: Policy) -> int:
    return 8 if policy.demos and policy.demos[-1].value == "own 1" else 1


def worth(rollouts: Sequence[Rollout]) -> int:
    return sum(bool(rollout.verified) for rollout in rollouts)


async def test_the_policy_whose_samples_teach_most_is_taken() -> None:
    samples = Samples()

    teachers, rollouts, most = await find_teachers(HEAD, evidence(*CASES[:2]), {}, CASES[2:], samples, worth)

    assert (teachers.under(0).demos[-1].value, most) == ("own 1", 8)
    assert teachers.under(0).format == Format(turns=True)
    assert teachers.format == Format()
    assert len(rollouts) == len(CASES[2:])


async def test_all_samples_beside_examples_are_kept_and_what_came_right_is_shown_next() -> None:
    samples = Samples()

    teachers, rollouts, _ = await find_teachers(
        HEAD, evidence(), {}, CASES, samples, lambda some: len(some[0].verified)
    )

    assert [len(policy.demos) for policy in samples.asked] == [0, 1]  # one set can be drawn of one right answer
    assert samples.asked[1].demos[0].case.target is None
    assert (teachers.of_kind, [len(rollout.attempts) for rollout in rollouts]) == ({}, [1] * len(CASES))


async def test_answers_that_differ_are_shown_first() -> None:
    samples, cases = Samples(), CASES * 2

    many = [Case(messages=({"role": "user", "content": f"many {n}"},)) for n in range(40)]
    attempts = tuple(attempt(case, "1" if n >= 6 else f"{n + 2}", right=True) for n, case in enumerate(many))
    await find_teachers(HEAD, Evidence(Text(), tuple(many), attempts), {}, cases[:4], samples, worth)

    assert len(samples.asked) == 1 + SETS

    shown = [demo.value for demo in samples.asked[1].demos]
    assert len(shown) == SHOWN
    assert len(set(shown)) == 7


async def test_each_kind_is_shown_its_own_right_answers_alone_and_others_where_it_has_none() -> None:
    right, asked = CASES[:5], CASES[9:]
    kinds = {case.id: 1 if number < 4 else 2 for number, case in enumerate(right)}
    kinds |= {case.id: kind for case, kind in zip(asked, (1, 2, 3), strict=True)}
    shown: dict[int, set[str]] = {}

    async def sample(asked: Sequence[tuple[Policy, Case]]) -> list[Rollout]:
        shown.update({kinds[case.id]: {str(demo.value) for demo in policy.demos} for policy, case in asked})
        return [Rollout(case=case, attempts=(attempt(case, "", right=False),)) for _, case in asked]

    await find_teachers(HEAD, evidence(*right), kinds, asked, sample, lambda some: 0)

    assert shown == {
        1: {"own 0", "own 1", "own 2", "own 3"},
        2: {"own 4"},
        3: {"own 0", "own 1", "own 2", "own 3", "own 4"},
    }


async def test_each_kind_is_sampled_beside_what_teaches_it_most() -> None:
    """Any set is good for the first kind that shows "own 1" last, and for the second one any."""
    kinds = {case.id: 1 + number // 2 % 2 for number, case in enumerate(CASES)}

    async def sample(asked: Sequence[tuple[Policy, Case]]) -> list[Rollout]:
        found = []
        for policy, case in asked:
            is_right = bool(policy.demos) and (policy.demos[-1].value == "own 1" or kinds[case.id] == 2)
            found.append(Rollout(case=case, attempts=(attempt(case, "", right=is_right),)))
        return found

    teachers, _, most = await find_teachers(HEAD, evidence(*CASES[:4]), kinds, CASES[4:], sample, worth)

    assert teachers.under(1).demos[-1].value == "own 1"
    assert {demo.value for demo in teachers.under(2).demos} == {"own 2", "own 3"}
    assert most == len(CASES[4:])


async def test_who_has_learned_or_must_keep_to_a_shape_is_sampled_as_it_is() -> None:
    tuned = Policy(adapter=Adapter(sha256="a" * 64, base="b", rank=1, alpha=1.0))
    for head, kind in ((tuned, Text()), (HEAD, Json({"type": "object"}))):
        samples = Samples()

        teachers, rollouts, _ = await find_teachers(
            head, evidence(*CASES[:3], kind=kind), {}, CASES[3:], samples, worth
        )

        assert (teachers.under(0), teachers.format, samples.asked) == (head, head.format, [head])
        assert all(len(rollout.attempts) == 1 for rollout in rollouts)


async def test_what_a_set_shows_is_not_asked_beside_it_and_the_others_speak_for_it() -> None:
    """Of twelve cases four are right from the first on, and all others beside those."""
    asked_beside: list[list[str]] = []

    async def sample(asked: Sequence[tuple[Policy, Case]]) -> list[Rollout]:
        asked_beside.append([case.id for _, case in asked])
        return [
            Rollout(case=case, attempts=(attempt(case, f"{n}", right=n < 4 or bool(policy.demos)),))
            for n, (policy, case) in enumerate(asked)
        ]

    _, rollouts, most = await find_teachers(HEAD, evidence(), {}, CASES, sample, worth)

    assert asked_beside[:2] == [[case.id for case in CASES], [case.id for case in CASES[4:]]]
    assert most == len(CASES)
    assert [rollout.case for rollout in rollouts] == list(CASES)
