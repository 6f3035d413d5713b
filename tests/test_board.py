"""What a lineage of policies has unlearned."""

from __future__ import annotations

from typing import Any, cast

import pytest
from worlds import QUICK, case, sums

from gainful.core import Answer, Attempt, Policy
from gainful.loop.board import Board
from gainful.loop.events import Errors
from gainful.loop.run import Run


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
    assert Lineage(*scores).errors() == errors
