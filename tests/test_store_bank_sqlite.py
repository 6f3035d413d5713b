"""The SQLite store's bank: an older store that gets one, kills between any two statements, and query plans."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import pytest
from children import children

from gainful.core import Answer, Case, Exchange, Policy, digest
from gainful.store import Banked, Feedback, Probe, Repair, SQLiteStore, Tally
from gainful.store.compact import encode, pack
from gainful.store.sqlite_database import SQLiteDatabase

POLICY = Policy(instructions="Answer.")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def exchange(number: int, task: str = "task", key: str = "") -> Exchange:
    return Exchange(f"reply-{number}", float(number), task, POLICY.id, "model", "unverified", key=key)


def banked(number: int, key: str = "") -> Banked:
    case = Case(messages=({"role": "user", "content": str(number)},))
    return Banked(digest(number), case, "held-out", float(number), float(number), key=key)


# --- an older store


def test_a_store_that_only_served_keeps_all_of_it_and_gets_a_bank(path: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name in ("0001_first.sql", "0002_serving.sql"):
        shutil.copy(str(files("gainful.store") / "migrations" / name), old)
    SQLiteDatabase(path, "normal", 1, old).close()
    served = [exchange(1, "other"), exchange(2), exchange(4)]
    told = [Feedback("reply-4", 0.5, 2.0, "so so", "web"), Feedback("reply-1", 1.0, 3.0)]
    before = sqlite3.connect(path, isolation_level=None)
    before.execute("INSERT INTO tasks VALUES (3, 'task'), (5, 'other')")
    for one in served:
        content = pack(encode(one))
        row = (int(one.at), one.id, one.at, 3 if one.task == "task" else 5, content)
        before.execute("INSERT INTO exchanges VALUES (?, ?, ?, ?, NULL, ?)", row)
    for row, exchange_row, one in ((1, 4, told[0]), (7, 1, told[1])):
        before.execute("INSERT INTO feedback VALUES (?, ?, ?, ?)", (row, exchange_row, one.at, pack(encode(one))))
    assert before.execute("PRAGMA user_version").fetchall() == [(2,)]
    before.close()

    for _ in range(2):
        with SQLiteStore(path) as store:
            assert store.exchanges_after("task", 0)[:2] == [(2, served[1]), (4, served[2])]
            assert store.exchanges_after("other", 0) == [(1, served[0])]
            assert store.feedback_after("task", 0)[0] == (1, told[0])
            assert store.feedback_after("other", 0) == [(7, told[1])]
            assert store.feedback("reply-1") == told[1:]
            store.put_exchanges([exchange(9)])
            store.put_feedback(Feedback("reply-9", 1.0, 4.0))
            store.take_in("task", "intake", 9, [banked(1)])
            assert store.banked("task", "held-out") == [banked(1)]
    with SQLiteStore(path) as store:
        assert [row for row, _ in store.exchanges_after("task", 0)] == [2, 4, 5, 6]
        assert [row for row, _ in store.feedback_after("task", 0)] == [1, 8, 9]
        (version,) = store._database.row("PRAGMA user_version")
        names = [name for (name,) in store._database.rows("SELECT name FROM sqlite_master")]
        assert store._database.rows("PRAGMA foreign_key_check") == []
    assert version == len(list((files("gainful.store") / "migrations").iterdir()))
    assert not [name for name in names if name.startswith("kept")]


def test_probes_that_were_begun_as_two_calls_at_one_time_are_dropped_and_all_else_stays(
    path: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name in ("0001_first.sql", "0002_serving.sql", "0003_bank.sql"):
        shutil.copy(str(files("gainful.store") / "migrations" / name), old)
    SQLiteDatabase(path, "normal", 1, old).close()
    begun = {"id": "", "case": {"messages": []}, "policy": "", "model": "m", "at": 0, "before": [], "scores": [1, 1]}
    with closing(sqlite3.connect(path, isolation_level=None)) as before:
        before.execute("INSERT INTO tasks VALUES (3, 'task')")
        before.execute("INSERT INTO probes VALUES (1, 3, 1.0, 'id', ?)", (pack(encode(begun)),))
        before.execute("INSERT INTO repairs VALUES (1, 3, 'id', '', 1.0, ?)", (pack(encode({})),))

    with SQLiteStore(path) as store:
        assert store.probes("task") == []
        assert store._database.row("SELECT count(*) FROM repairs") == (1,)


# --- kills

KILLED = """
    import os, signal
    from gainful.core import Answer, Attempt, Case, digest
    from gainful.store import Banked, Repair, Tally

    def banked(number, key=""):
        case = Case(messages=({{"role": "user", "content": str(number)}},))
        return Banked(digest(number), case, "held-out", float(number), float(number), key=key)

    def act(store):
        {act}

    store.close()
    for moment in range({moments}):
        if os.fork() == 0:
            store = SQLiteStore(sys.argv[1] + "." + str(moment))
            seen = []
            def trace(statement):
                if len(seen) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen.append(statement)
            store._database.connection.set_trace_callback(trace)
            act(store)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def kill_at_each_statement(path: Path, act: str, moments: int) -> list[SQLiteStore]:
    """Do *act* on copies of the store at *path*, killed before its first statement, its second ...; the last lives."""
    for moment in range(moments):
        shutil.copy(path, f"{path}.{moment}")
    with children(path, KILLED.format(act=act, moments=moments)) as [child]:
        statuses = [int(line) for line in child.output]
    assert statuses[-1] == 0
    assert set(statuses[:-1]) >= {-9}
    assert len(statuses) == moments
    return [SQLiteStore(f"{path}.{moment}") for moment in range(moments)]


@pytest.mark.slow
def test_a_kill_before_any_statement_of_taking_in_leaves_all_or_nothing(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.take_in("task", "intake", 1, [banked(1)], [Tally(1, "", "champion", requests=1)])
    act = 'store.take_in("task", "intake", 3, [banked(1), banked(2)], [Tally(1, "", "champion", requests=2)])'
    found = []
    for store in kill_at_each_statement(path, act, 12):
        with store:
            counts = tuple(sorted((int(one.at), one.count) for one in store.banked("task", "held-out")))
            found.append((store.cursor("task", "intake"), counts, store.tallies("task")[0].requests))

    assert set(found) == {(1, ((1, 1),), 1), (3, ((1, 2), (2, 1)), 3)}
    assert found == sorted(found)  # once done, it is done


@pytest.mark.slow
def test_a_kill_before_any_statement_of_opening_leaves_all_or_nothing(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.take_in("task", "intake", 1, map(banked, range(9)))
    found = []
    for store in kill_at_each_statement(path, 'store.open_banked("task", 5, "first")', 11):
        with store:
            found.append(store.count_banked("task", "held-out"))
            assert len(store.open_banked("task", 5, "first")) == 5

    assert set(found) == {9, 4}


@pytest.mark.slow
def test_a_kill_before_any_statement_of_forgetting_leaves_all_or_nothing(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.put_policy(POLICY)
        store.put_exchanges(exchange(number, key="eve" if number < 4 else "ann") for number in range(5))
        store.put_feedback(Feedback("reply-1", 1.0, 1.0))
        store.take_in("task", "intake", 5, [banked(1, "eve"), banked(2, "ann")])
        store.put_repairs("task", [Repair(digest(1), banked(1).case, 1, 2, "check", 1.0, key="eve")])
        forgotten = Policy(instructions="what eve said")
        store.put_policy(forgotten)
    act = f'store.forget_key("eve", ["{forgotten.id}"])'
    found = []
    for store in kill_at_each_statement(path, act, 60):
        with store:
            left = store._database.row("SELECT count(*) FROM policies WHERE content <> x''")[0]
            counts = (store.exchange_count(), store.count_banked("task", "held-out"), len(store.repairs("task")), left)
            found.append((*counts, len(store.feedback("reply-1"))))
            assert store._database.rows("PRAGMA integrity_check") == [("ok",)]

    assert set(found) == {(5, 2, 1, 2, 1), (1, 1, 0, 1, 0)}


# --- speed


def test_nothing_that_is_asked_often_reads_a_whole_table_or_sorts(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.put_policy(POLICY)
        for task in ("task", "other"):
            store.put_exchanges(exchange(number, task) for number in range(300))
            store.take_in(task, "intake", 300, map(banked, range(300)), [Tally(1, POLICY.id, "champion", requests=1)])
        store.put_feedback(Feedback("reply-1", 1.0, 1.0))
        store.put_repairs("task", [Repair(digest(1), banked(1).case, 1, 2, "check", 1.0)])
        store.put_probes("task", [Probe(digest(1), banked(1).case, "", "model", (Answer(""),), (1.0,), (1.0,))])
        asked: list[str] = []
        store._database.connection.set_trace_callback(asked.append)
        store.exchanges_after("task", 200)
        store.feedback_after("task", 0)
        store.last_exchange_row()
        store.cursor("task", "intake")
        store.banked("task", "dev", only_free=False)
        store.count_banked("task", "held-out")
        store.count_banked("task", "held-out", only_free=False)
        store.open_banked("task", 5, "first")
        store.repairs("task")
        store.probes("task")
        store.tallies("task", since_hour=1)
        store._database.connection.set_trace_callback(None)

        queries = [one for one in asked if one.startswith(("SELECT", "UPDATE"))]
        assert len(queries) >= 14
        for query in queries:
            plan = " | ".join(row[3] for row in store._database.rows(f"EXPLAIN QUERY PLAN {query}"))
            assert "SCAN" not in plan, (query, plan)
            assert "TEMP B-TREE" not in plan, (query, plan)
        plans = " ".join(str(store._database.rows(f"EXPLAIN QUERY PLAN {query}")) for query in queries)
        assert "exchanges_of_task (task=? AND rowid>?)" in plans
        assert plans.count("banked_opened (task=? AND opened=?)") == 2
        assert (
            plans.count("banked_by_time (task=? AND side=? AND is_free=?)") >= 2
        )  # else all opened ones are passed over
        assert "sqlite_autoindex_banked" not in plans  # it would be all cases of the task
