"""What one request says for or against the policy that answered it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from worlds import sums

from gainful.core import Exchange, Seat, Usage, VerdictWord
from gainful.store import SQLiteStore, encode_exchange
from gainful.tasks.improving import Improving
from gainful.watch.evidence import Scores
from gainful.watch.holdback import HoldbackWatch


def exchange(status: int, verdict: VerdictWord) -> Exchange:
    return Exchange(
        id="r",
        at=0.0,
        task="t",
        policy="p",
        model="m",
        verdict=verdict,
        status=status,
        usage=Usage(),
        seat=Seat("challenger", "w", 1),
    )


@pytest.mark.parametrize(
    ("status", "verdict", "quality", "errors"),
    [
        (200, "verified", 1.0, 1.0),
        (200, "unverified", 1.0, 1.0),
        (200, "failed-open", None, 0.0),
        (503, "unverified", None, 0.0),
    ],
)
def test_an_answer_without_the_policy_is_an_error_of_the_policys_and_says_nothing_of_its_quality(
    status: int, verdict: VerdictWord, quality: float | None, errors: float
) -> None:
    scores = Scores(Improving(), lambda _: 1.0).of(exchange(status, verdict))

    assert (scores["quality"], scores["errors"]) == (quality, errors)


@pytest.mark.parametrize(("champion", "drifts"), [("known", True), ("new", False)])
def test_a_champion_that_comes_back_is_held_against_what_it_was_and_against_nobody_else(
    tmp_path: Path, champion: str, drifts: bool
) -> None:
    """At first a poor policy, then a good one, a new one, and the champion again: half of its answers are wrong."""
    served = ["poor"] * 600 + ["known"] * 600 + ["new"] * 20 + [champion] * 600
    right = {"poor": 0, "known": 1, "new": 1}

    def quality(one: Exchange) -> float:
        number = int(one.id)
        return float(number % 2) if number >= 1220 else float(right[one.policy])

    with SQLiteStore(tmp_path / "store.db") as store:
        store.put_encoded(
            [
                encode_exchange(Exchange(str(n), float(n), "sums", policy, "m", "verified"))
                for n, policy in enumerate(served)
            ]
        )
        task = replace(sums(), name="sums")
        watch = HoldbackWatch(store, task, champion, None, 0, quality)
        watch.read(1e9)

    assert watch.told["known"] == 600 + (600 if champion == "known" else 20)
    assert watch.drifts == ("quality" if drifts else "")
    assert watch.told["reference"] is not None
