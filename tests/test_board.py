"""What a lineage of policies has unlearned."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace
from worlds import QUICK, case, sums

from gainful.core import Answer, Attempt, Case, Policy
from gainful.loop.attempts import former_marks
from gainful.loop.board import Board
from gainful.loop.events import Errors
from gainful.loop.run import Run
from gainful.report.words import unlearned
from gainful.store import SQLiteStore


class Lineage:
    """A board on which policies have answered as told: one text a policy, one sign a case."""

    def __init__(self, *scores: str, earlier: dict[str, str] | None = None) -> None:
        self.policies = [Policy(instructions=str(n)) for n in range(len(scores))]
        run: Any = type("Stub", (), {"task": sums(), "settings": QUICK, "earlier": earlier or {}})()
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
        "Broke what worked: 50 % (7–93) of 4 cases that an earlier policy got right. "
        "Most where questions are like “Spell the word cat backwards.”: 2 of 2."
    )


def test_what_champions_before_this_run_got_right_or_corrected_is_looked_at_again() -> None:
    """The first two of four cases were right once, the second after a correction; of the last nobody could tell."""
    lineage = Lineage("-+--", "--+?")
    ids = [case(n).id for n in range(4)]
    lineage.board.cases = tuple(case(n) for n in range(4))
    lineage.board._run.earlier = {ids[0]: "+", ids[1]: "-+", ids[3]: "+"}  # type: ignore[misc]

    errors = lineage.errors()

    assert replace(errors, kinds=()) == Errors(worked=2, broken=2, corrected=1, repeated=1)
    assert unlearned(errors) == (
        "Broke what worked: 100 % (16–100) of 2 cases that an earlier policy got right. "
        "Repeated errors: 100 % (2–100) of 1 corrected before."
    )


def test_a_former_champions_marks_are_those_of_its_attempts_on_dev(tmp_path: Path) -> None:
    """Two came before: the first knew case 1, the second case 2, and of case 3 no check could tell."""
    first, second, now = (Policy(instructions=name) for name in ("first", "second", "now"))
    with SQLiteStore(tmp_path / "s.db") as store:
        for policy, scores in ((first, (1.0, 0.0, None)), (second, (0.0, 1.0, None)), (now, (0.0, 0.0, 0.0))):
            store.set_champion("sums", policy, "test")
            attempts = [Attempt(case(n).id, policy.id, Answer(text=""), score=s) for n, s in enumerate(scores, 1)]
            store.put_attempts("sums", attempts)

        marks = former_marks(store, "sums", [case(1), case(2), case(3)], now.id)

    assert marks == {case(1).id: "+-", case(2).id: "-+"}


def test_practice_that_nearly_repeats_a_raced_or_held_out_case_is_left_out_and_counted() -> None:
    practice = [Case(messages=({"role": "user", "content": words},)) for words in ("please ADD 3 and 1003", "Add 9")]
    held_out = next(number for number in range(200) if case(number) not in sums().dev)
    practice.append(Case(messages=({"role": "user", "content": f"Please add {held_out} and {1000 + held_out}!"},)))
    raced = next(one for one in sums().dev if one == case(3))
    task = dataclasses.replace(sums(), dev=(raced,), practice=tuple(practice))
    run: Any = type("Stub", (), {"task": task, "settings": QUICK, "earlier": {}})()

    evidence = Board(cast(Run, run)).evidence(Policy())

    assert [one.text for one in evidence.practice] == ["Add 9"]
    assert evidence.left_out == 2
