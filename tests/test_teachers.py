"""Under which policy practice is sampled: several sets of examples are tried on the same cases."""

from __future__ import annotations

from collections.abc import Sequence

from gainful.core import Adapter, Answer, Attempt, Case, Evidence, Format, Json, Policy, Rollout, Text
from gainful.learners.teachers import SETS, SHOWN, find_teacher

HEAD = Policy(format=Format(shape="schema"))
CASES = tuple(Case(messages=({"role": "user", "content": f"question {number}"},), target="x") for number in range(12))


def attempt(case: Case, value: str, *, right: bool) -> Attempt:
    return Attempt(case=case.id, policy="", answer=Answer(text=value, value=value), score=float(right))


def evidence(*right: Case, kind: object = Text()) -> Evidence:
    attempts = tuple(attempt(case, f"own {number}", right=True) for number, case in enumerate(right))
    return Evidence(kind, right, attempts)  # type: ignore[arg-type]


class Samples:
    """Answers of which as many are right as there are examples that say "own 1" last, and one beside."""

    def __init__(self) -> None:
        self.asked: list[Policy] = []

    async def __call__(self, policy: Policy, cases: Sequence[Case]) -> list[Rollout]:
        self.asked.append(policy)
        good = 8 if policy.demos and policy.demos[-1].value == "own 1" else 1
        return [
            Rollout(case=case, attempts=(attempt(case, f"{len(self.asked)}", right=number < good),))
            for number, case in enumerate(cases)
        ]


def worth(rollouts: Sequence[Rollout]) -> int:
    return sum(bool(rollout.verified) for rollout in rollouts)


async def test_the_policy_whose_samples_teach_most_is_taken() -> None:
    samples = Samples()

    teacher, _, most = await find_teacher(HEAD, evidence(*CASES[:2]), CASES[2:], samples, worth)

    assert (teacher.demos[-1].value, most) == ("own 1", 8)
    assert teacher.format == Format(turns=True)


async def test_all_samples_of_a_case_are_kept_and_what_came_right_is_shown_next() -> None:
    samples = Samples()

    _, rollouts, _ = await find_teacher(HEAD, evidence(), CASES, samples, worth)

    assert [len(rollout.attempts) for rollout in rollouts] == [2] * len(CASES)
    assert [len(policy.demos) for policy in samples.asked] == [0, 1]  # one set can be drawn of one right answer
    assert samples.asked[1].demos[0].case.target is None


async def test_answers_that_differ_are_shown_first() -> None:
    samples, cases = Samples(), CASES * 2

    many = [Case(messages=({"role": "user", "content": f"many {n}"},)) for n in range(40)]
    attempts = tuple(attempt(case, "1" if n >= 6 else f"{n + 2}", right=True) for n, case in enumerate(many))
    await find_teacher(HEAD, Evidence(Text(), tuple(many), attempts), cases[:4], samples, worth)

    assert len(samples.asked) == 1 + SETS

    shown = [demo.value for demo in samples.asked[1].demos]
    assert len(shown) == SHOWN
    assert len(set(shown)) == 7


async def test_who_has_learned_or_must_keep_to_a_shape_is_sampled_as_it_is() -> None:
    tuned = Policy(adapter=Adapter(sha256="a" * 64, base="b", rank=1, alpha=1.0))
    for head, kind in ((tuned, Text()), (HEAD, Json({"type": "object"}))):
        samples = Samples()

        teacher, rollouts, _ = await find_teacher(head, evidence(*CASES[:3], kind=kind), CASES[3:], samples, worth)

        assert (teacher, samples.asked) == (head, [head])
        assert all(len(rollout.attempts) == 1 for rollout in rollouts)
