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


def test_what_corrections_took_is_counted_apart_and_their_money_only_where_it_is_known(store: SQLiteStore) -> None:
    took = [Usage(calls=2, prompt_tokens=30, completion_tokens=4, cost_usd=cost) for cost in (0.25, None)]
    store.put_exchanges([exchange(1, RIGHT, correcting=took[0]), exchange(2, RIGHT, correcting=took[1])])
    store.put_exchanges([exchange(3, RIGHT)])
    intake(store).take()

    (tally,) = store.tallies("sums")
    assert (tally.correction_calls, tally.correction_tokens, tally.correction_usd) == (4, 68, 0.25)


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


def dev_number() -> int:
    return next(n for n in range(99) if sums().split.side(case(n)) == "dev")


def trusting() -> Task:
    return replace(sums(), improving=Improving(trust_feedback=True))


JUDGED = Verdict("grounding", False, 0.25, group="ungrounded value")


@pytest.mark.parametrize(
    ("verdicts", "told", "untrusted", "trusted"),
    [
        ([RIGHT], 0.0, ("check", 1.0, ""), ("feedback", 0.0, "caller's objection")),
        ([WRONG], 1.0, ("check", 0.0, "missing argument"), ("check", 0.0, "missing argument")),
        ([RIGHT], 1.0, ("check", 1.0, ""), ("check", 1.0, "")),
        ([], 0.5, ("feedback", 0.5, "caller's objection"), ("feedback", 0.5, "caller's objection")),
        ([JUDGED], 1.0, ("feedback", 1.0, ""), ("feedback", 1.0, "")),
    ],
)
def test_a_caller_s_word_overrules_a_trusted_check_only_where_callers_are_trusted_and_say_less(
    store: SQLiteStore,
    tmp_path: Path,
    verdicts: list[Verdict],
    told: float,
    untrusted: tuple[str, float, str],
    trusted: tuple[str, float, str],
) -> None:
    number = dev_number()
    with SQLiteStore(tmp_path / "other.db") as other:
        for place, task, expected in ((store, sums(), untrusted), (other, trusting(), trusted)):
            place.put_exchanges([exchange(number, *verdicts)])
            place.put_feedback(Feedback(reply=f"reply-{number}", score=told, at=NOON + 500))
            intake(place, task).take()

            (banked,) = place.banked("sums", "dev")
            assert (banked.signal, banked.score, banked.group) == expected
            assert len(place.feedback(f"reply-{number}")) == 1


@pytest.mark.slow
def test_what_an_untrusted_check_says_is_judged_and_a_trusted_one_speaks_first(store: SQLiteStore) -> None:
    numbers = [n for n in range(99) if sums().split.side(case(n)) == "dev"][:3]
    verdicts = ([JUDGED], [JUDGED, WRONG], [JUDGED, RIGHT])
    store.put_exchanges(exchange(n, *said) for n, said in zip(numbers, verdicts, strict=True))
    intake(store).take()

    found = {one.reply: (one.signal, one.score, one.group) for one in store.banked("sums", "dev")}
    assert found == {
        f"reply-{numbers[0]}": ("judged", 0.25, "ungrounded value"),
        f"reply-{numbers[1]}": ("check", 0.0, "missing argument"),
        f"reply-{numbers[2]}": ("check", 1.0, "ungrounded value"),
    }
    (tally,) = store.tallies("sums")
    assert tally.known == 2  # a judged score is no known one


def test_an_untrusted_word_on_an_older_reply_does_not_undo_what_a_check_said_since(store: SQLiteStore) -> None:
    number = dev_number()
    store.put_exchanges([exchange(number, key="eve"), exchange(number, RIGHT, id="later", at=NOON + 500, key="ann")])
    store.put_feedback(Feedback(reply=f"reply-{number}", score=0.0, at=NOON + 600, key="eve"))
    intake(store).take()

    (banked,) = store.banked("sums", "dev")
    assert (banked.signal, banked.score, banked.reply, banked.hands) == ("check", 1.0, "later", {"eve"})


def test_who_told_the_target_and_the_score_of_another_s_question_is_known(store: SQLiteStore) -> None:
    number, told = dev_number(), {"name": "add", "arguments": {"a": [6], "b": [660]}}
    store.put_exchanges([exchange(number, key="ann"), exchange(number, id="again", at=NOON + 500, key="eve")])
    store.put_feedback(Feedback(reply="again", score=0.0, at=NOON + 600, key="eve", target=told))
    intake(store, trusting()).take()

    (banked,) = store.banked("sums", "dev")
    assert (banked.key, banked.latest_key, banked.target_key) == ("ann", "eve", "eve")
    assert banked.case.target == told
    assert banked.hands == {"ann", "eve"}
    store.forget_key("eve")
    (kept,) = store.banked("sums", "dev")
    assert (kept.case.target, kept.score, kept.reply, kept.hands) == (None, None, "", {"ann"})


def test_a_caller_whose_data_are_kept_apart_tells_nobody_a_target(store: SQLiteStore) -> None:
    store.put_key(make_key("clinic", own_data=True)[1])
    store.put_exchanges([exchange(1, key="web")])
    store.put_feedback(Feedback(reply="reply-1", score=1.0, at=NOON + 9, key="clinic"))
    intake(store, trusting()).take()

    assert everything(store)["reply-1"].target is None


def test_no_word_is_read_before_its_reply_where_there_is_a_backlog(store: SQLiteStore) -> None:
    store.put_exchanges(exchange(number) for number in range(3))
    store.put_feedback(Feedback(reply="reply-2", score=1.0, at=NOON + 9))

    assert intake(store).take(most=1) == 3
    assert store.cursor("sums", "feedback") == 0
    intake(store).take()
    assert store.cursor("sums", "feedback") > 0


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
