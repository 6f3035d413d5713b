"""What every store promises of forgetting a caller, on each store there is; and that no byte stays on the disk."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from exchanges import ordinary_exchange

from gainful.core import Answer, Attempt, Case, Demo, Exchange, Policy, Proposal, StoreError, canonical, digest
from gainful.loop.events import Baseline, ErrorGroup, Event, Example, Finished, Interval, Proposed, Started
from gainful.loop.journal import Journal, read_events
from gainful.store import Banked, Feedback, Forgotten, Probe, Repair, SQLiteStore, Store, Tally, open_store

Opener = Callable[[], Store]

PLAIN = Policy(instructions="Answer.")


@pytest.fixture
def reopen(place: str) -> Opener:
    """Opens the same store again and again."""
    return lambda: open_store(place)


@pytest.fixture
def store(reopen: Opener) -> Iterator[Store]:
    with reopen() as store:
        yield store


def case(key: str) -> Case:
    return Case(messages=({"role": "user", "content": f"question of {key}, at length"},))


def exchange(key: str, number: int = 1) -> Exchange:
    id = f"reply-{key}-{number}"
    return Exchange(id, float(number), "task", PLAIN.id, "model", "unverified", key=key, request={"text": key})


def banked(key: str) -> Banked:
    return Banked(id=digest(f"folded {key}"), case=case(key), side="dev", at=1.0, last_at=1.0, key=key)


def repair(key: str) -> Repair:
    return Repair(banked(key).id, case(key), wrong=1, right=2, signal="check", at=1.0, key=key)


def probe(key: str) -> Probe:
    return Probe(banked(key).id, case(key), PLAIN.id, "model", (Answer("a"), Answer("b")), (1.0, 0.0), (1.0, 2.0))


def attempt(key: str, policy: Policy = PLAIN) -> Attempt:
    return Attempt(case(key).id, policy.id, Answer(f"answer to {key}"), calls=(digest(["call", key, policy.id]),))


def showing(key: str) -> Policy:
    return Policy(demos=(Demo(case=case(key), value=f"right for {key}"),))


def fill(store: Store, *keys: str) -> None:
    """Store of each key one of all that a caller can bring, and attempts on its case."""
    store.put_policy(PLAIN)
    for key in keys:
        store.put_exchanges([exchange(key)])
        store.put_feedback(Feedback(f"reply-{key}-1", 1.0, 1.0, comment=f"{key} likes it", key=key))
        upto = store.last_exchange_row()
        store.take_in("task", "intake", upto, [banked(key)], [Tally(1, PLAIN.id, "champion", requests=1)])
        store.put_repairs("task", [repair(key)])
        store.put_probes("task", [probe(key)])
        put_attempt(store, attempt(key))


def put_attempt(store: Store, attempt: Attempt) -> None:
    for call in attempt.calls:
        store.memo_put(call, b"reply")
    store.put_attempts("task", [attempt])


def test_all_that_a_key_brought_is_gone_and_what_others_brought_stays(store: Store) -> None:
    fill(store, "eve", "ann")

    assert store.forget_key("eve") == Forgotten(exchanges=1, cases=1, repairs=1, probes=1, policies=())
    assert store.exchange("reply-eve-1") is None
    assert store.feedback("reply-eve-1") == []
    assert store.exchanges("task") == [exchange("ann")]
    assert [one.key for one in store.feedback("reply-ann-1")] == ["ann"]
    assert store.banked("task", "dev") == [banked("ann")]
    assert store.repairs("task") == [repair("ann")]
    assert store.probes("task") == [probe("ann")]
    assert store.attempts("task", PLAIN.id) == [attempt("ann")]
    assert [store.memo_get(attempt(key).calls[0]) for key in ("eve", "ann")] == [None, b"reply"]
    assert [tally.requests for tally in store.tallies("task")] == [2]
    assert store.forget_key("eve") == Forgotten(0, 0, 0, 0, ())


def test_feedback_goes_with_its_reply_and_with_whoever_gave_it(store: Store) -> None:
    fill(store, "eve", "ann")
    store.put_feedback(Feedback("reply-eve-1", 0.0, 2.0, key="ann"))
    store.put_feedback(Feedback("reply-ann-1", 0.0, 2.0, key="eve"))
    store.forget_key("eve")

    assert [(one.reply, one.key) for _, one in store.feedback_after("task", 0)] == [("reply-ann-1", "ann")]


def test_a_repair_of_a_forgotten_case_goes_whoever_made_it(store: Store) -> None:
    fill(store, "eve")
    store.put_repairs("task", [Repair(banked("eve").id, case("eve"), 1, 2, "feedback", 2.0, key="ann")])
    store.put_repairs("other", [Repair("a name", case("eve"), 1, 2, "feedback", 2.0, key="ann")])
    store.put_probes("other", [Probe("a name", case("eve"), "", "model", (Answer(""),), (1.0,), (1.0,))])

    assert store.forget_key("eve") == Forgotten(1, 1, repairs=2, probes=2, policies=())


def test_what_a_caller_told_of_another_s_case_goes_with_all_that_stands_on_it_and_the_case_stays(store: Store) -> None:
    fill(store, "ann", "bob")
    told = msgspec.structs.replace(case("ann"), target="666 of eve")
    word = {"signal": "feedback", "score": 0.0, "reply": "reply-eve-9", "value": "of eve"}
    by_eve = msgspec.structs.replace(
        banked("ann"), case=told, last_at=2.0, count=0, **word, latest_key="eve", target_key="eve"
    )
    store.take_in("task", "feedback", 1, [by_eve])
    store.put_policy(showing("ann"))

    assert {banked("ann").id, case("ann").id} <= set(store.brought_by("eve"))
    assert store.forget_key("eve") == Forgotten(0, 0, repairs=1, probes=1, policies=(showing("ann").id,))
    (kept,) = [one for one in store.banked("task", "dev") if one.id == banked("ann").id]
    assert kept == msgspec.structs.replace(banked("ann"), last_at=2.0)
    assert store.attempts("task", PLAIN.id) == [attempt("bob")]
    assert store.repairs("task") == [repair("bob")]
    assert store.exchange("reply-ann-1") == exchange("ann")
    assert store.brought_by("eve") == []


def test_an_answer_that_came_of_a_caller_s_request_goes_from_another_s_case(store: Store) -> None:
    fill(store, "ann")
    again = msgspec.structs.replace(banked("ann"), reply="reply-eve-9", score=1.0, signal="check", latest_key="eve")
    store.take_in("task", "again", 1, [again])

    assert store.forget_key("eve") == Forgotten(0, 0, 0, 0, ())
    assert store.banked("task", "dev") == [msgspec.structs.replace(banked("ann"), count=2)]
    assert store.repairs("task") == [repair("ann")]


def test_a_reader_sees_what_comes_after_the_last_row_was_forgotten(store: Store) -> None:
    fill(store, "ann", "eve")
    exchanges, feedback = store.last_exchange_row(), store.feedback_after("task", 0)[-1][0]
    store.forget_key("eve")
    store.put_exchanges([exchange("ann", 2)])
    store.put_feedback(Feedback("reply-ann-2", 1.0, 2.0))

    assert [one.id for _, one in store.exchanges_after("task", exchanges)] == ["reply-ann-2"]
    assert [one.reply for _, one in store.feedback_after("task", feedback)] == ["reply-ann-2"]


def test_a_store_of_many_rows_is_searched_to_its_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gainful.store.forget.AT_ONCE", 7)
    store.put_exchanges(exchange("eve" if number % 3 else "ann", number) for number in range(30))

    assert store.forget_key("eve").exchanges == 20
    assert store.exchange_count() == 10


# --- policies


def test_a_policy_that_shows_a_forgotten_case_keeps_its_id_and_loses_its_words(store: Store) -> None:
    fill(store, "eve", "ann")
    for policy in (showing("eve"), showing("ann"), PLAIN):
        store.set_champion("task", policy, "baseline")
    line = store.append_ledger("hold-out", "closed", {"challenger": showing("eve").id}, ("task", showing("eve")))
    store.set_champion("task", PLAIN, "taken back")
    put_attempt(store, attempt("ann", showing("eve")))
    store.put_exchanges([Exchange("reply-9", 9.0, "task", showing("eve").id, "model", "unverified", key="ann")])

    assert store.forget_key("eve").policies == (showing("eve").id,)
    for give in (lambda: store.policy(showing("eve").id[:12]), lambda: store.put_policy(showing("eve"))):
        with pytest.raises(
            StoreError, match=rf"policy {showing('eve').id[:12]} was forgotten: .* choose another policy"
        ):
            give()
    assert [one.policy for one in store.champion_history("task")] == [
        one.id for one in (showing("eve"), showing("ann"), PLAIN, showing("eve"), PLAIN)
    ]
    assert store.ledger("hold-out") == [line]
    assert store.attempts("task", showing("eve").id) == []
    assert store.memo_get(attempt("ann", showing("eve")).calls[0]) is None
    assert store.exchanges("task")[0].policy == showing("eve").id
    assert store.policy(showing("ann").id) == showing("ann")
    assert store.forget_key("eve").policies == ()


def test_a_forgotten_policy_cannot_come_back_into_service(store: Store) -> None:
    fill(store, "eve")
    store.set_champion("task", PLAIN, "baseline")
    store.put_policy(showing("eve"))
    store.forget_key("eve")

    for install in (
        lambda: store.set_champion("task", showing("eve"), "by hand"),
        lambda: store.append_ledger("hold-out", "closed", {}, ("task", showing("eve"))),
    ):
        with pytest.raises(StoreError, match="was forgotten"):
            install()
    assert store.champion("task") == PLAIN.id
    assert store.ledger("hold-out") == []


def test_policies_are_blanked_where_the_caller_says_so(store: Store) -> None:
    learned = Policy(instructions="Rule: what eve told.")
    store.put_policy(learned)
    store.put_policy(PLAIN)

    assert store.forget_key("eve", [learned.id]) == Forgotten(0, 0, 0, 0, (learned.id,))
    assert store.policy(PLAIN.id) == PLAIN
    with pytest.raises(StoreError, match="was forgotten"):
        store.policy(learned.id)
    with pytest.raises(StoreError, match=rf"holds no policy '{digest(1)}'; give full ids of stored policies"):
        store.forget_key("eve", [digest(1)])


@pytest.mark.parametrize("policies", [(), (showing("eve").id,)])
def test_nothing_is_forgotten_while_a_champion_carries_it(store: Store, policies: tuple[str, ...]) -> None:
    fill(store, "eve")
    store.set_champion("other", showing("eve"), "baseline")

    with pytest.raises(StoreError, match="is in service for task 'other' and carries words of key 'eve'; nothing was"):
        store.forget_key("eve", policies)
    assert store.exchange_count() == store.count_banked("task", "dev") == store.attempt_count() == 1
    assert store.policy(showing("eve").id) == showing("eve")


# --- records of runs


def records(*keys: str) -> list[Event]:
    """Records of a run in which all that can be quoted is quoted of each of *keys*."""
    known = Interval(0.5, 0.4, 0.6, 10)
    examples = tuple(Example(case(key).id[:12], case(key).text[:20], f"wrong for {key}", "no") for key in keys)
    return [
        Started("run", "task", "model", 0, 10, 10, showing(keys[0]), ("c",), ("c",)),
        Baseline(PLAIN.id, known, (ErrorGroup("wrong", 2, examples),), attempt("ann").usage),
        *(Proposed(1, "c1", Proposal(showing(key), "demos", "shows one")) for key in keys),
        Finished(PLAIN.id, False, None, (), attempt("ann").usage, attempt("ann").usage),
    ]


def test_records_of_runs_lose_what_they_quote_and_can_still_be_read(store: Store) -> None:
    others = [Banked(digest(key), case(key), "dev", 1.0, 1.0, "eve") for key in ("bob", "zoe")]
    store.take_in("task", "others", 1, others)
    fill(store, "eve", "ann")
    store.start_run("run", "task", {})
    store.start_run("bytes", "task", {})
    store.append_event("bytes", 0, b"no JSON at all")
    journal = Journal(store, "run")
    for record in records("eve", "ann"):
        journal.write(record)
    store.forget_key("eve")

    started, baseline, of_eve, of_ann, finished = read_events(store, "run")
    assert b"eve" not in b"".join(store.events("run"))
    assert [of_ann, finished] == records("eve", "ann")[3:]
    assert isinstance(baseline, Baseline)
    assert baseline.groups[0].count == 2
    assert [one.question for one in baseline.groups[0].examples] == ["", case("ann").text[:20]]
    assert isinstance(started, Started)
    assert isinstance(of_eve, Proposed)
    assert started.champion == of_eve.proposal.policy == Policy(instructions="(forgotten)")
    assert store.events("bytes") == [b"no JSON at all"]
    with pytest.raises(StoreError, match="no longer repeats itself at record 0; start a new run"):
        store.append_event("run", 0, canonical(records("eve", "ann")[0]))


# --- on the disk


def texts(path: Path) -> set[bytes]:
    """All that is stored in rows and long enough to be found by chance nowhere else."""
    connection = sqlite3.connect(path)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {value for table in tables for row in connection.execute(f"SELECT * FROM {table}") for value in row}
    connection.close()
    return {
        value.encode() if isinstance(value, str) else value
        for value in found
        if isinstance(value, str | bytes) and len(value) >= 12
    }


def on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()) if file.name.startswith(path.name))


def test_no_byte_of_what_was_forgotten_stays_in_the_file_or_its_log(tmp_path: Path) -> None:
    """Cases of changing length are stored again and again, so that pages split, and leave copies behind."""
    path, rng = tmp_path / "store.db", random.Random(0)

    def words(most: int) -> str:
        return " ".join(rng.randbytes(3).hex() for _ in range(rng.randrange(1, most)))

    with SQLiteStore(path) as store, SQLiteStore(path) as server:
        store._database.row("PRAGMA secure_delete = OFF")  # some systems build SQLite with another default
        for upto in range(1, 16):
            keys = ["eve", "ann"] * 25
            asked = [Case(messages=({"role": "user", "content": words(30)},)) for _ in keys]
            cases = [
                Banked(digest(rng.randrange(400)), one, "dev", 1.0, upto, key=key, value=words(40))
                for one, key in zip(asked, keys, strict=True)
            ]
            store.take_in("task", "intake", upto, cases)
            store.put_repairs("task", [Repair(one.id, one.case, 1, words(9), "check", upto, one.key) for one in cases])
            server.put_exchanges(exchange(key, rng.getrandbits(40)) for key in keys)
        before = texts(path)
        store._database.checkpoint("FULL")
        disk = on_disk(path)
        assert all(text in disk for text in before if len(text) < 600)  # longer ones lie on several pages

        store.forget_key("eve")
        server.put_exchanges([ordinary_exchange(rng)])
        gone = before - texts(path)
        assert len(gone) > 700
        disk = on_disk(path)
        assert sum(text in disk for text in gone) == 0
        assert b"reply-eve" not in disk


def test_a_log_that_a_reader_keeps_is_told_and_wiped_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with SQLiteStore(path, busy_s=0.05) as store:
        fill(store, "eve")
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM banked").fetchall()
        with pytest.raises(StoreError, match=r"is being read by another process .* run the same command again"):
            store.forget_key("eve")
        assert store.exchange_count() == 0
        assert b"reply-eve-1" in on_disk(path)

        reader.execute("COMMIT")
        reader.close()
        assert store.forget_key("eve") == Forgotten(0, 0, 0, 0, ())
        assert b"reply-eve-1" not in on_disk(path)
