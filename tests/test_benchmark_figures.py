"""What benchmarks say of pairs, and of requests around a swap."""

from __future__ import annotations

import pytest
from adapter_swap import Reply, Swap, nearest_rank
from figures import gain, sign_p


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [(0, 0, 1.0), (3, 3, 1.0), (5, 0, 0.0625), (0, 5, 0.0625), (80, 15, 6.8127817099494966e-12)],
)
def test_a_sign_test_counts_both_sides(wins: int, losses: int, p: float) -> None:
    assert sign_p(wins, losses) == pytest.approx(p)


def test_a_gain_pairs_the_cases_of_each_run() -> None:
    ours, theirs = [[True, True, False, True], [True] * 4], [[True, False, True, False], [True, True, True, False]]

    found = {figure.quantity: figure.repeats for figure in gain("ours", ours, theirs)}

    assert found["gain"] == (25.0, 25.0)
    assert found["corrected, broken"] == (3, 1)
    low, high = found["gain, 95 % interval"]
    assert low < 25.0 < high


def test_the_interval_of_a_gain_does_not_go_by_the_order_of_its_cases() -> None:
    """Cases stand by kind: the first all won, the last all lost, none of which is a trend."""
    ours, theirs = [[True] * 49 + [False] * 251], [[False] * 294 + [True] * 6]

    low, high = {one.quantity: one.repeats for one in gain("ours", ours, theirs)}["gain, 95 % interval"]

    assert 5.0 < low < 100 * 43 / 300 < high < 25.0


def swap(*replies: Reply, sent: int) -> Swap:
    """A swap at 10 s, obeyed at 12 s, and back at 20 s, obeyed at 21 s."""
    return Swap(replies, sent, 0.0, (10.0, 20.0), (12.0, 21.0), 30.0, ("old", "new"), {})


def test_requests_belong_to_the_phase_in_which_they_were_due() -> None:
    found = swap(Reply(-1.0, 0.5, "old"), Reply(9.9, 13.0, "new"), Reply(10.0, 11.0, "old"), sent=3).phases()

    assert {name: len(replies) for name, replies in found.items() if replies} == {"before": 1, "coming in": 1}


@pytest.mark.parametrize(
    ("reply", "lost"),
    [
        (Reply(5.0, 6.0, "old"), 0),
        (Reply(9.9, 13.0, "new"), 0),  # due before the command, and answered after it was obeyed
        (Reply(11.0, 11.5, "new"), 0),
        (Reply(5.0, 6.0, "new"), 1),
        (Reply(15.0, 16.0, "old"), 1),
        (Reply(25.0, 26.0, "new"), 1),
        (Reply(5.0, 6.0, "another"), 1),
        (Reply(5.0, 6.0, "old", failure="status 502"), 1),
    ],
)
def test_lost_is_who_got_no_reply_by_the_policy_in_service(reply: Reply, lost: int) -> None:
    assert swap(reply, sent=1).lost() == lost
    assert swap(reply, sent=2).lost() == lost + 1  # one whose reply never came


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = [float(value) for value in range(200, 0, -1)]

    assert (nearest_rank(values, 50), nearest_rank(values, 99), nearest_rank(values, 100)) == (100.0, 198.0, 200.0)
