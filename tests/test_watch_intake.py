"""Traffic becomes cases: once, on a side its words decide, with what is known of the answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from worlds import case, sums

from gainful.core import Case, Exchange, Seat, Usage, Verdict
from gainful.proxy.keys import make_key
from gainful.store import Feedback, SQLiteStore
from gainful.tasks import Task
from gainful.tasks.improving import Improving
from gainful.watch.intake import Intake

NOON = 1.79e9
RIGHT, WRONG = Verdict("tool_call", True, 1.0), Verdict("tool_call", True, 0.0, group="missing argument")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "gainful.db") as store:
        yield store


def exchange(number: int, *verdicts: Verdict, **other: object) -> Exchange:
    asked = case(number)
    request = {"model": "m", "messages": list(asked.messages), "tools": list(asked.tools)}
    made = Exchange(
        id=f"reply-{number}",
        at=NOON + number,
        task="sums",
        policy="p" * 64,
        model="m",
        verdict="unverified",
        key="web",
        request=request,
        value={"name": "add", "arguments": {"a": number, "b": 1000 + number}},
        verdicts=verdicts,
        usage=Usage(calls=1, prompt_tokens=10, completion_tokens=5),
    )
    return structs.replace(made, **other)


def intake(store: SQLiteStore, task: Task | None = None, found: str = "") -> Intake:
    return Intake(store, task or sums(), lambda asked, value: found)


def everything(store: SQLiteStore) -> dict[str, Case]:
    sides = [store.banked("sums", side, only_free=False) for side in ("dev", "held-out", "never")]  # type: ignore[arg-type]
    return {banked.case.name: banked.case for side in sides for banked in side}


def test_every_exchange_becomes_a_case_once_however_often_it_is_taken_in(store: SQLiteStore) -> None:
    store.put_exchanges(exchange(number, RIGHT) for number in range(60))

    assert intake(store).take() == 60
    assert intake(store).take() == 0
    counts = [store.count_banked("sums", side) for side in ("dev", "held-out", "never")]  # type: ignore[arg-type]
    assert sum(counts) == 60
    assert all(counts)
    (tally,) = store.tallies("sums")
    assert (tally.requests, tally.known, tally.right, tally.calls) == (60, 60, 60.0, 60)


def test_words_of_a_caller_whose_data_are_kept_apart_become_no_case(store: SQLiteStore) -> None:
    for name, own_data in (("web", False), ("clinic", True)):
        store.put_key(make_key(name, own_data=own_data)[1])
    for name, first in (("web", 0), ("clinic", 100)):
        corrected = {"verdict": "corrected", "draft": {"name": "add", "arguments": {}}, "key": name}
        store.put_exchanges(exchange(n, RIGHT, **corrected) for n in range(first, first + 60))
        store.put_feedback(Feedback(f"reply-{first}", 0.0, NOON + 500, key=name, target={"name": "add"}))

    intake(store, replace(sums(), improving=Improving(trust_feedback=True))).take()

    assert set(everything(store)) == {f"reply-{number}" for number in range(60)}
    assert {repair.key for repair in store.repairs("sums")} == {"web"}
    (tally,) = store.tallies("sums")
    assert tally.requests == 120  # figures are everybody's


def test_a_side_follows_from_the_words_and_not_from_who_asks_when(store: SQLiteStore) -> None:
    store.put_exchanges(exchange(number, RIGHT) for number in range(30))
    store.put_exchanges(exchange(number, RIGHT, id=f"again-{number}", at=NOON + 9e5, key="x") for number in range(30))
    intake(store).take()

    split = sums().split
    for side in ("dev", "held-out", "never"):
        banked = store.banked("sums", side, only_free=False)  # type: ignore[arg-type]
        assert {split.side(one.case) for one in banked} <= {side}
        assert {(one.count, one.key) for one in banked} <= {(2, "web")}


def test_what_is_known_of_an_answer_is_the_latest_trusted_word(store: SQLiteStore) -> None:
    split = sums().split
    number = next(n for n in range(99) if split.side(case(n)) == "dev")
    store.put_exchanges([exchange(number, RIGHT), exchange(number, WRONG, id="later", at=NOON + 500)])
    intake(store).take()

    (banked,) = store.banked("sums", "dev")
    assert (banked.score, banked.signal, banked.group, banked.reply) == (0.0, "check", "missing argument", "later")


@pytest.mark.parametrize(
    "other",
    [
        {"request": None},
        {"request": {"sha256": "00"}},
        {"status": 502},
        {"seat": Seat("shadow", "lane", 1, "stage")},
    ],
)
def test_what_was_not_stored_was_an_error_or_unheard_is_no_case(store: SQLiteStore, other: dict[str, object]) -> None:
    store.put_exchanges([exchange(1, RIGHT, **other)])
    intake(store).take()

    assert everything(store) == {}
    assert store.tallies("sums")[0].requests == 1


def test_a_caller_s_answer_is_a_target_only_where_callers_are_trusted(store: SQLiteStore, tmp_path: Path) -> None:
    trusting = replace(sums(), improving=Improving(trust_feedback=True))
    told = {"name": "add", "arguments": {"a": [1], "b": [2]}}
    with SQLiteStore(tmp_path / "other.db") as other:
        for place, task in ((store, sums()), (other, trusting)):
            place.put_exchanges([exchange(1), exchange(2)])
            place.put_feedback(Feedback(reply="reply-1", score=0.0, at=NOON + 9, target=told))
            place.put_feedback(Feedback(reply="reply-2", score=1.0, at=NOON + 9))
            intake(place, task).take()

        assert {found.target for found in everything(store).values()} == {None}
        assert everything(other)["reply-1"].target == told
        assert everything(other)["reply-2"].target == exchange(2).value


def test_an_answer_of_a_caller_that_the_screen_objects_to_is_no_target(store: SQLiteStore) -> None:
    store.put_exchanges([exchange(1)])
    store.put_feedback(Feedback(reply="reply-1", score=0.0, at=NOON + 9, target={"name": "add", "arguments": {}}))

    trusting = replace(sums(), improving=Improving(trust_feedback=True))
    Intake(store, trusting, lambda asked, _: "gives orders" if asked.target is not None else "").take()

    assert everything(store)["reply-1"].target is None


def test_feedback_counts_in_the_quality_where_no_check_could_tell(store: SQLiteStore) -> None:
    store.put_exchanges([exchange(1), exchange(2, WRONG)])
    store.put_feedback(Feedback(reply="reply-1", score=1.0, at=NOON + 9))
    store.put_feedback(Feedback(reply="reply-2", score=1.0, at=NOON + 9))
    intake(store).take()

    (tally,) = store.tallies("sums")
    assert (tally.requests, tally.known, tally.right) == (2, 2, 1.0)


def test_a_corrected_error_is_a_repair_and_a_quarantined_one_is_not(store: SQLiteStore) -> None:
    split = sums().split
    numbers = [n for n in range(40) if split.side(case(n)) == "dev"]
    corrected = {"verdict": "corrected", "draft": {"name": "add", "arguments": {}}}
    store.put_exchanges(exchange(n, RIGHT, **corrected) for n in numbers[:3])
    intake(store).take()
    store.put_exchanges(exchange(n, RIGHT, **corrected) for n in numbers[3:6])
    intake(store, found="an order to the model").take()

    assert {repair.case.name for repair in store.repairs("sums")} == {f"reply-{n}" for n in numbers[:3]}
    banked = store.banked("sums", "dev", only_free=False)
    assert {one.quarantine for one in banked} == {"", "an order to the model"}
