"""What every store promises of learning from traffic, on each store there is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gainful.core import Answer, Case, Exchange, Policy, StoreError, digest
from gainful.store import Banked, Feedback, Lease, Probe, Repair, SQLiteStore, Store, Tally, store_file
from gainful.store.postgres_store import PostgresStore


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


Opener = Callable[[], Store]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reopen(place: str, clock: Clock) -> Opener:
    """Opens the same store again and again, by the test's clock."""
    return lambda: (SQLiteStore if store_file(place) else PostgresStore)(place, clock=clock)


@pytest.fixture
def store(reopen: Opener) -> Iterator[Store]:
    with reopen() as store:
        yield store


POLICY = Policy(instructions="Answer.")


def exchange(number: int, task: str = "task", **fields: Any) -> Exchange:
    known = {"id": f"reply-{number}", "policy": POLICY.id, "model": "model", "verdict": "unverified"}
    return Exchange(at=float(number), task=task, **(known | fields))


def case(number: int, **fields: Any) -> Case:
    return Case(messages=({"role": "user", "content": f"question {number}"},), **fields)


def banked(number: int, **fields: Any) -> Banked:
    known = {"id": digest(number), "case": case(number), "side": "dev", "at": float(number), "last_at": float(number)}
    return Banked(**(known | fields))


def held_out(number: int, **fields: Any) -> Banked:
    return banked(number, side="held-out", **fields)


def repair(number: int, **fields: Any) -> Repair:
    known = {"id": digest(number), "case": case(number), "wrong": "4", "right": {"x": [5]}, "signal": "feedback"}
    return Repair(**(known | {"at": float(number)} | fields))


def probe(number: int, **fields: Any) -> Probe:
    answers = (Answer(text="a", value=1), Answer(text="b"))
    known = {"id": digest(number), "case": case(number), "policy": POLICY.id, "model": "model", "answers": answers}
    return Probe(**(known | {"scores": (1.0, None), "asked": (float(number), number + 0.5)} | fields))


def numbers(found: list[Banked]) -> list[int]:
    """Which cases these are, by when they came first."""
    return [int(one.at) for one in found]


# --- reading what was served


def test_exchanges_are_read_on_from_the_last_row_seen_whatever_comes_meanwhile(store: Store) -> None:
    store.put_policy(POLICY)
    store.put_exchanges(exchange(number, task) for number in range(5) for task in ("other", "task"))
    seen: list[Exchange] = []
    row = 0
    while found := store.exchanges_after("task", row, limit=2):
        seen += [one for _, one in found]
        row = found[-1][0]
        if len(seen) == 2:
            store.put_exchanges([exchange(5)])

    assert seen == [exchange(number) for number in range(6)]
    assert row == store.last_exchange_row()
    assert store.exchanges_after("nothing", 0) == store.exchanges_after("task", 0, limit=-1) == []


def test_the_last_row_is_of_any_task_and_0_where_nothing_was_served(store: Store) -> None:
    assert store.last_exchange_row() == 0
    store.put_exchanges([exchange(1), exchange(2, "other")])

    ((row, _),) = store.exchanges_after("other", 0)
    assert store.last_exchange_row() == row


def test_feedback_is_read_on_from_the_last_row_seen_by_the_task_of_its_reply(store: Store) -> None:
    store.put_exchanges([exchange(1), exchange(2, "other")])
    written = [Feedback(reply=f"reply-{1 + number % 2}", score=1.0, at=float(number), key="web") for number in range(6)]
    for feedback in written:
        store.put_feedback(feedback)

    first = store.feedback_after("task", 0, limit=2)
    rest = store.feedback_after("task", first[-1][0])
    assert [one for _, one in first + rest] == written[::2]
    assert store.feedback_after("task", rest[-1][0]) == store.feedback_after("nothing", 0) == []


# --- taking it in


def test_a_case_comes_back_whole(store: Store) -> None:
    whole = banked(
        1,
        id="a name",
        case=case(1, tools=({"type": "function"},), target={"right": [1, None]}, name="name", metadata={"m": 0.5}),
        side="never",
        key="web",
        signal="check",
        score=0.1 + 0.2,
        group="wrong value",
        policy=POLICY.id,
        reply="reply-1",
        value={"x": [1.5, "é\0"]},
        count=3,
        quarantine="a canary",
        opened="registration",
        latest_key="shop",
        target_key="desk",
    )
    store.take_in("task", "intake", 1, [whole])

    assert store.banked("task", "never", only_free=False) == [whole]


def test_a_known_case_takes_on_how_it_was_last_answered_and_keeps_all_else(store: Store) -> None:
    first = banked(1, case=case(1, target="x"), key="web", score=0.0, group="g", quarantine="q", reply="reply-1")
    later = banked(
        1,
        case=Case(messages=({"role": "user", "content": "QUESTION 1"},), target="y"),
        side="never",
        at=9.0,
        last_at=9.0,
        key="other",
        signal="feedback",
        score=1.0,
        policy=POLICY.id,
        reply="reply-2",
        value=[2],
        count=2,
        latest_key="other",
        target_key="other",
    )
    store.take_in("task", "intake", 1, [first])
    store.take_in("task", "intake", 2, [later, banked(1, last_at=10.0, latest_key="third")])

    (found,) = store.banked("task", "dev", only_free=False)
    keys = {"key": "web", "latest_key": "third", "target_key": "other"}
    assert found == banked(1, case=case(1, target="y"), **keys, quarantine="q", last_at=10.0, count=4)
    assert store.count_banked("task", "never", only_free=False) == 0


def test_what_lies_before_the_cursor_is_taken_in_once(store: Store) -> None:
    assert store.cursor("task", "intake") == 0
    for upto in (5, 5, 3):
        store.take_in("task", "intake", upto, [banked(1)], [Tally(1, POLICY.id, "champion", requests=1)])

    assert store.cursor("task", "intake") == 5
    assert [one.count for one in store.banked("task", "dev")] == [1]
    assert [tally.requests for tally in store.tallies("task")] == [1]
    assert store.cursor("task", "another") == store.cursor("other", "intake") == 0


def test_a_batch_that_breaks_off_or_cannot_be_stored_moves_nothing(store: Store) -> None:
    def arriving() -> Iterator[Banked]:
        yield banked(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.take_in("task", "intake", 1, arriving())
    with pytest.raises(StoreError, match="refused"):
        store.take_in("task", "intake", 1, [banked(1)], [Tally(1, POLICY.id, "champion", added_ms=math.nan)])
    with pytest.raises(StoreError, match=r"case .* has score 1.5; give a number in \[0, 1\], or None"):
        store.take_in("task", "intake", 1, [banked(1, score=1.5)])

    assert store.cursor("task", "intake") == 0
    assert store.banked("task", "dev") == store.tallies("task") == []


def test_tallies_of_an_hour_policy_and_arm_add_up_and_unknown_costs_stay_unknown(store: Store) -> None:
    whole = Tally(7, POLICY.id, "former", 2, 1, 0.5, 1, 1, 1, 3, 40, 50, 0.25, 1.5)
    free = Tally(7, "a name", "champion", requests=1)
    store.take_in("task", "intake", 1, (), [whole, free, Tally(3, POLICY.id, "champion", requests=1)])
    store.take_in("task", "intake", 2, (), [whole, free, Tally(7, POLICY.id, "former", requests=1)])
    store.take_in("other", "intake", 2, (), [whole])

    assert store.tallies("task", since_hour=4) == [
        Tally(7, "a name", "champion", requests=2),
        Tally(7, POLICY.id, "former", 5, 2, 1.0, 2, 2, 2, 6, 80, 100, 0.5, 3.0),
    ]
    assert [tally.hour for tally in store.tallies("task")] == [3, 7, 7]


# --- cases


def test_the_latest_cases_of_a_side_come_first(store: Store) -> None:
    cases = [banked(number, last_at=last_at) for number, last_at in ((1, 5.0), (2, 7.0), (3, 6.0), (4, 7.0))]
    store.take_in("task", "intake", 1, [*cases, held_out(5), banked(6, quarantine="q", last_at=6.5)])
    store.take_in("other", "intake", 1, [banked(7)])

    assert numbers(store.banked("task", "dev")) == [4, 2, 3, 1]
    assert numbers(store.banked("task", "dev", limit=2)) == [4, 2]
    assert numbers(store.banked("task", "dev", only_free=False)) == [4, 2, 6, 3, 1]
    assert numbers(store.banked("task", "dev", only_free=False, limit=3)) == [4, 2, 6]
    assert store.banked("task", "dev", limit=-1) == store.banked("nothing", "dev") == []
    counts = [store.count_banked("task", "dev"), store.count_banked("task", "dev", only_free=False)]
    assert [*counts, store.count_banked("task", "held-out"), store.count_banked("nothing", "dev")] == [4, 5, 1, 0]


def test_cases_are_opened_once_and_for_one_confirmation(store: Store) -> None:
    store.take_in("task", "intake", 1, [*map(held_out, range(10)), banked(20), held_out(21, quarantine="q")])
    store.take_in("other", "intake", 1, [held_out(30)])

    first = store.open_banked("task", 4, "first")
    second = store.open_banked("task", 3, "second")
    store.take_in("task", "intake", 2, [held_out(number) for number in range(40, 60)])
    ids = [one.id for one in first + second]
    assert len(set(ids)) == 7
    assert set(ids) <= {held_out(number).id for number in range(10)}
    assert [one.id for one in first] == sorted(one.id for one in first)
    assert {one.opened for one in first} == {"first"}
    assert store.open_banked("task", 4, "first") == first
    assert store.count_banked("task", "held-out") == 23
    assert store.count_banked("task", "held-out", only_free=False) == 31
    assert {one.id for one in store.banked("task", "held-out")}.isdisjoint(ids)


def test_which_cases_are_opened_depends_on_the_confirmation_so_that_no_wording_gets_in_by_itself(
    store: Store, tmp_path: Path
) -> None:
    with SQLiteStore(tmp_path / "twin.db") as twin:
        for place in (store, twin):
            place.take_in("task", "intake", 1, map(held_out, range(100)))
        one, other = store.open_banked("task", 10, "first"), twin.open_banked("task", 10, "second")

        assert {case.id for case in one} != {case.id for case in other}


@pytest.mark.parametrize(("honest", "flood"), [(40, 10), (5, 45)])
def test_a_key_that_floods_gets_its_share_and_more_only_where_others_bring_too_few(
    store: Store, honest: int, flood: int
) -> None:
    flooded = [held_out(number, key="flood") for number in range(900)]
    store.take_in("task", "intake", 1, [held_out(1000 + n, key=f"k{n % 5}") for n in range(honest)] + flooded)

    opened = store.open_banked("task", 50, "first", most_of_a_key=0.2)

    assert sum(one.key == "flood" for one in opened) == flood


@pytest.mark.parametrize("told", [True, False])
def test_who_told_the_targets_has_a_hand_in_a_confirmation_and_who_only_asks_again_has_none(
    store: Store, told: bool
) -> None:
    def fields(number: int) -> dict[str, str]:
        key = f"k{number % 9}"
        if number >= 400:
            return {"key": key, "target_key": key}
        return {"key": key, "latest_key": "eve", "target_key": "eve" if told else key}

    store.take_in("task", "intake", 1, [held_out(n, case=case(n, target="x"), **fields(n)) for n in range(500)])

    opened = store.open_banked("task", 50, "first", most_of_a_key=0.2)

    by_eve = sum(one.latest_key == "eve" for one in opened)
    assert by_eve == 10 if told else by_eve > 30
    assert max(Counter(one.key for one in opened).values()) <= 10
    assert store.open_banked("task", 50, "first", most_of_a_key=0.2) == opened


def test_a_target_that_is_told_after_a_confirmation_began_does_not_reach_it(store: Store) -> None:
    store.take_in("task", "intake", 1, [held_out(1, case=case(1, target="x"), target_key="ann")])
    opened = store.open_banked("task", 1, "first")
    store.take_in("task", "intake", 2, [held_out(1, case=case(1, target="y"), target_key="eve", count=0)])

    assert store.open_banked("task", 1, "first") == opened


def test_a_confirmation_that_asks_for_more_cases_than_there_are_gets_and_uses_none(store: Store) -> None:
    store.take_in("task", "intake", 1, [held_out(1), held_out(2)])

    with pytest.raises(StoreError, match=r"task 'task' has 2 held-out cases that nobody has used, .* for 3; wait"):
        store.open_banked("task", 3, "first")
    assert store.count_banked("task", "held-out") == 2
    assert store.open_banked("task", 0, "none") == []
    assert len(store.open_banked("task", 2, "second")) == 2


def test_a_confirmation_gets_no_other_number_of_cases_than_before(store: Store) -> None:
    store.take_in("task", "intake", 1, [held_out(1), held_out(2)])
    store.open_banked("task", 1, "first")

    with pytest.raises(StoreError, match="confirmation 'first' of task 'task' holds 1 cases and asks for 2"):
        store.open_banked("task", 2, "first")
    with pytest.raises(StoreError, match="without a name"):
        store.open_banked("task", 1, "")
    assert store.count_banked("task", "held-out") == 1


# --- repairs and probes


def test_repairs_come_back_whole_the_newest_first_and_a_later_one_replaces_the_earlier(store: Store) -> None:
    whole = repair(1, wrong=None, signal="check", key="web", policy=POLICY.id)
    store.put_repairs("task", [repair(2, id="a name"), whole, repair(3), repair(1, right="old")])
    store.put_repairs("task", [whole])
    store.put_repairs("other", [repair(1, right="other")])

    assert store.repairs("task") == [repair(3), repair(2, id="a name"), whole]
    assert store.repairs("task", limit=1) == [repair(3)]
    assert store.repairs("other") == [repair(1, right="other")]
    assert store.repairs("nothing") == store.repairs("task", limit=-1) == []


def test_probes_come_back_whole_the_oldest_first_and_only_the_last_ones(store: Store) -> None:
    used = probe(1).with_answer(Answer(text="c", samples=(1, 2)), 0.5, 9.0)
    again = probe(1, answers=(Answer(text="a"),), scores=(None,), asked=(4.0,))
    store.put_probes("task", [probe(3), probe(1), probe(2), again])
    store.put_probes("task", [used])
    store.put_probes("other", [probe(5)])

    assert store.probes("task") == [used, probe(2), probe(3), again]
    assert store.probes("task", limit=2) == [probe(3), again]
    assert store.probes("nothing") == store.probes("task", limit=-1) == []


@pytest.mark.parametrize(("answers", "asked"), [(0, 0), (4, 4), (2, 1)])
def test_a_probe_has_one_to_three_answers_and_a_time_for_each(answers: int, asked: int) -> None:
    with pytest.raises(StoreError, match=f"has {answers} answers, {answers} scores and {asked} times; it needs 1 to 3"):
        probe(1, answers=(Answer(text="a"),) * answers, scores=(None,) * answers, asked=(1.0,) * asked)


# --- leases


def test_a_lease_is_one_holder_s_until_it_ends_and_keeps_its_token_when_renewed(store: Store, clock: Clock) -> None:
    lease = store.take_lease("watch", "a", 10.0)
    assert lease == Lease("watch", "a", 1, 1010.0)
    assert store.take_lease("watch", "b", 10.0) is None
    assert store.take_lease("another", "b", 10.0) == Lease("another", "b", 1, 1010.0)

    clock.now = 1009.0
    assert store.take_lease("watch", "a", 10.0) == Lease("watch", "a", 1, 1019.0)
    clock.now = 1018.9
    assert store.take_lease("watch", "b", 10.0) is None
    clock.now = 1019.0
    assert store.take_lease("watch", "b", 10.0) == Lease("watch", "b", 2, 1029.0)
    assert store.take_lease("watch", "a", 10.0) is None


def test_a_lease_that_ran_out_comes_back_with_a_larger_token(store: Store, clock: Clock) -> None:
    store.take_lease("watch", "a", 10.0)
    clock.now = 1010.0

    assert store.take_lease("watch", "a", 10.0) == Lease("watch", "a", 2, 1020.0)


def test_whoever_asks_sees_who_holds_a_lease_and_takes_nothing(store: Store, clock: Clock) -> None:
    assert store.find_lease("watch") is None
    lease = store.take_lease("watch", "a", 10.0)

    assert store.find_lease("watch") == lease
    assert store.find_lease("another") is None
    clock.now += 10.0
    assert store.find_lease("watch") is None
    assert store.take_lease("watch", "a", 10.0) == Lease("watch", "a", 2, 1020.0)


def test_a_lease_given_back_is_free_at_once_and_ending_another_s_changes_nothing(store: Store) -> None:
    lease = store.take_lease("watch", "a", 10.0)
    assert lease is not None
    store.end_lease(lease)
    second = store.take_lease("watch", "b", 10.0)
    store.end_lease(lease)

    assert second == Lease("watch", "b", 2, 1010.0)
    assert store.take_lease("watch", "a", 10.0) is None


def test_a_ledger_line_is_refused_once_the_lease_is_lost(store: Store, clock: Clock) -> None:
    lease = store.take_lease("watch", "a", 10.0)
    assert lease is not None
    store.append_ledger("service:task", "staged", {}, seq=0, lease=lease)
    clock.now = 1009.0
    store.take_lease("watch", "a", 10.0)
    clock.now = 1011.0
    store.append_ledger(
        "service:task", "rejected", {}, seq=1, lease=lease
    )  # renewed meanwhile: it is still the holder's

    for now, taker in ((1019.0, None), (1019.0, "b"), (1040.0, "a")):  # over; another's; its own, a later one
        clock.now = now
        if taker:
            store.take_lease("watch", taker, 10.0)
        with pytest.raises(StoreError, match="lease 'watch' of 'a' is over or another's by now; take it again"):
            store.append_ledger("service:task", "promoted", {}, champion=("task", POLICY), seq=2, lease=lease)
    assert [line.kind for line in store.ledger("service:task")] == ["staged", "rejected"]
    assert store.champion("task") is None


@pytest.mark.parametrize(
    ("kind", "reason"), [("closed", "confirmed"), ("promoted", "promoted"), ("rolled-back", "rolled-back")]
)
def test_the_history_of_champions_says_what_kind_of_line_moved_it(store: Store, kind: Any, reason: str) -> None:
    line = store.append_ledger("service:task", kind, {}, champion=("task", POLICY))

    assert store.champion_history("task") == [(POLICY.id, reason, line.hash)]


# --- life


def test_everything_is_there_when_the_store_is_opened_again(reopen: Opener) -> None:
    tally = Tally(1, POLICY.id, "champion", requests=1)
    with reopen() as store:
        store.take_in("task", "intake", 3, [banked(1)], [tally])
        store.put_repairs("task", [repair(1)])
        store.put_probes("task", [probe(1)])
        store.take_lease("watch", "a", 10.0)

    with reopen() as store:
        assert store.cursor("task", "intake") == 3
        assert store.banked("task", "dev") == [banked(1)]
        assert store.tallies("task") == [tally]
        assert store.repairs("task") == [repair(1)]
        assert store.probes("task") == [probe(1)]
        assert store.take_lease("watch", "b", 10.0) is None


# --- how things stand


def test_what_stands_is_the_last_that_was_said_of_it_task_by_task(reopen: Opener) -> None:
    with reopen() as store:
        assert store.standing("task", "canary") is None
        store.put_standing("task", "canary", 1.0, {"n": 1, "why": "é"})
        store.put_standing("task", "canary", 2.5, {"n": 2, "gain": None})
        store.put_standing("task", "hold-back", 3.0, {})
        store.put_standing("other", "canary", 4.0, {"n": 9})
    with reopen() as store:
        assert store.standing("task", "canary") == (2.5, {"n": 2, "gain": None})
        assert store.standing("task", "hold-back") == (3.0, {})
        assert store.standing("other", "hold-back") is None
