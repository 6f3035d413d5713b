"""What one request says for or against the policy that answered it."""

from __future__ import annotations

import pytest

from gainful.core import Exchange, Seat, Usage, VerdictWord
from gainful.tasks.improving import Improving
from gainful.watch.evidence import Scores


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
