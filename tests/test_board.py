"""What a lineage of policies has unlearned."""

from __future__ import annotations

from typing import Any, cast

import pytest
from msgspec.structs import replace
from worlds import QUICK, case, sums

from gainful.core import Answer, Attempt, Case, Policy
from gainful.loop.board import Board
from gainful.loop.events import Errors
from gainful.loop.run import Run
from gainful.report.words import unlearned


class Lineage:
    """A board on which policies have answered as told: one text a policy, one sign a case."""

    def __init__(self, *scores: str) -> None:
        self.policies = [Policy(instructions=str(n)) for n in range(len(scores))]
        run: Any = type("Stub", (), {"task": sums(), "settings": QUICK})()
        self.board = Board(cast(Run, run))
        values = {"+": 1.0, "-": 0.0, "?": None}
        self.board._attempts = {
            policy.id: [
                Attempt(case=case(n).id, policy=policy.id, answer=Answer(text=""), score=values[sign])
                for n, sign in enumerate(signs)
            ]
            for policy, signs in zip(self.policies, scores, strict=True)
        }

    def errors(self) -> Errors:
        return self.board.errors(self.policies)


@pytest.mark.parametrize(
    ("scores", "errors"),
    [
        (["+--"], Errors()),
        (["+-+-", "++--"], Errors(worked=2, broken=1)),
        (["+--", "-+-", "+--"], Errors(worked=2, broken=1, corrected=1, repeated=1)),
        (["--", "+-", "++", "-+"], Errors(worked=2, broken=1, corrected=2, repeated=1)),
        (["+", "-", "+", "+"], Errors(worked=1, broken=0, corrected=1, repeated=0)),
        (["++", "+?", "--"], Errors(worked=1, broken=1)),
        (["+++", "--"], Errors(worked=2, broken=2)),
    ],
)
def test_what_was_right_once_and_what_was_corrected_is_looked_at_again(scores: list[str], errors: Errors) -> None:
    found = Lineage(*scores).errors()

    assert replace(found, kinds=()) == errors
    assert [(kind.worked, kind.broken) for kind in found.kinds] == [(errors.worked, errors.broken)] * bool(
        errors.worked
    )


def test_what_was_unlearned_is_told_by_kind_of_question() -> None:
    lineage = Lineage("++++", "+-+-")
    other = [
        Case(messages=({"role": "user", "content": f"Spell the word {word} backwards."},)) for word in ("cat", "dog")
    ]
    lineage.board.cases = (case(1), other[0], case(2), other[1])

    errors = lineage.errors()

    assert {(kind.example[:5], kind.worked, kind.broken) for kind in errors.kinds} == {("Pleas", 2, 0), ("Spell", 2, 2)}
    assert unlearned(errors) == (
        "Of 4 cases that an earlier policy got right it gets 2 wrong. "
        "Most where questions are like “Spell the word cat backwards.”: 2 of 2."
    )
