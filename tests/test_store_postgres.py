"""The store on a PostgreSQL server: who gets in, versions, the order of rows, locks, lost connections, forgetting."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from children import children
from exchanges import POLICY as SERVED
from exchanges import ordinary_exchange
from postgres import PASSWORD, Cluster, Wire, cluster
from test_store_forget import exchange as brought_by
from test_store_forget import fill
from test_store_processes import WRITING, assert_nothing_told_is_lost

from gainful.core import Answer, Attempt, Exchange, GainfulError, Policy, StoreError, digest
from gainful.proxy.recorder import Recorder
from gainful.store import Feedback, SQLiteStore, encode_exchange, open_for_reading, open_store
from gainful.store.postgres_database import MIGRATIONS, PostgresDatabase
from gainful.store.postgres_store import PostgresStore

pytestmark = pytest.mark.slow  # it takes a server

POLICY = Policy(instructions="Answer.")


@pytest.fixture
def address(postgres: Cluster) -> str:
    return postgres.store()


@pytest.fixture
def store(address: str) -> Iterator[PostgresStore]:
    with PostgresStore(address) as store:
        yield store


def raw(address: str) -> psycopg.Connection[tuple[object, ...]]:
    """A connection behind the store's back."""
    return psycopg.connect(address, autocommit=True)


def exchange(number: int, task: str = "task") -> Exchange:
    return Exchange(f"reply-{number}", float(number), task, POLICY.id, "model", "unverified")


# --- who gets in, and what is said of it


def refused(address: str) -> str:
    """Return the sentence with which a store at *address* is refused, and nothing of the password with it."""
    with pytest.raises(StoreError) as raised:
        open_store(address)
    said = str(raised.value)
    assert not re.search(r"s@cret|s%40cret|gainful:", said)
    assert "\n" not in said
    assert isinstance(pickle.loads(pickle.dumps(raised.value)), GainfulError)
    return said


def test_what_keeps_a_store_from_being_reached_is_one_sentence_without_the_password(postgres: Cluster) -> None:
    address = postgres.address("postgres")
    there = f"postgresql://127.0.0.1:{postgres.port}"

    assert f"store {there}/postgres lets nobody in so (password" in refused(address.replace("s%40", "t%40"))
    assert "no password supplied" in refused(address.replace(":s%40cret%3A%2F%3F%23%25@", "@"))
    assert f"store {there}/nothing (database" in refused(postgres.address("nothing"))
    assert "cannot be reached (connection to server" in refused(address.replace(str(postgres.port), "1"))
    assert "cannot be reached (failed to resolve host" in refused(address.replace("127.0.0.1", "no.invalid"))
    assert "has no schema to be in" in refused(f"{address}?options=-csearch_path%3Dnone")


@pytest.mark.parametrize("password", ["s@cret", "s@cret:/?#%", "1/s@cret", "s@cret%", "s[@cret"])
def test_an_address_with_a_password_that_is_not_quoted_is_not_shown(postgres: Cluster, password: str) -> None:
    said = refused(f"postgresql://gainful:{password}@127.0.0.1:{postgres.port}/postgres")

    assert "the address of the store cannot be read; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE" in said


def test_a_database_that_cannot_be_a_store_is_refused_and_left_as_it_was(postgres: Cluster, address: str) -> None:
    latin = postgres.database("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    with raw(address) as other:
        other.execute("CREATE TABLE notes (text TEXT)")

    assert "has the encoding LATIN1 and cannot keep every text" in refused(latin)
    assert "holds tables of another program; name a database, or" in refused(address)
    with raw(address) as other:
        tables = other.execute("SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace")
        assert ("exchanges",) not in tables.fetchall()


def test_a_user_without_rights_is_refused(postgres: Cluster, store: PostgresStore, address: str) -> None:
    with raw(address) as owner:
        owner.execute("CREATE ROLE stranger LOGIN PASSWORD 'p'")
        owner.execute(f"GRANT USAGE ON SCHEMA {store._database.row('SELECT current_schema()')[0]} TO stranger")
    try:
        said = refused(address.replace("gainful:s%40cret%3A%2F%3F%23%25", "stranger:p"))
        assert re.search(r"the user of store .* lacks a right \(permission denied for table gainful_store\)", said)
    finally:
        postgres.sql("DROP OWNED BY stranger", "DROP ROLE stranger")


def test_a_server_needs_psycopg_and_says_how_to_get_it(address: str, tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('none here')")
    code = "import sys; from gainful.store import open_store; open_store(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, address],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "needs psycopg (none here); install it with: pip install 'gainful[postgres]'" in done.stderr
    assert PASSWORD not in done.stderr


# --- versions, and reading alone


def test_a_store_of_a_newer_version_is_refused_and_an_older_one_is_not_read_as_it_is(address: str) -> None:
    open_store(address).close()
    with raw(address) as behind:
        behind.execute("UPDATE gainful_store SET version = 99")
        assert "is of version 99 and this Gainful reads versions up to" in refused(address)
        behind.execute("UPDATE gainful_store SET version = 0")
        with pytest.raises(
            StoreError, match=r"is of version 0 and reading it takes version \d+; a command that writes"
        ):
            open_for_reading(address)


def test_the_migrations_are_numbered_from_one_without_gaps() -> None:
    names = sorted(file.name for file in MIGRATIONS.iterdir())

    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


def test_both_kinds_of_store_have_the_same_tables_and_columns(
    store: PostgresStore, address: str, tmp_path: Path
) -> None:
    with raw(address) as behind:
        found = behind.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
        ).fetchall()
    with SQLiteStore(tmp_path / "store.db") as other:
        tables = [name for (name,) in other._database.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = [(table, row[1]) for table in tables for row in other._database.rows(f"PRAGMA table_xinfo({table})")]

    ours = {(table, column) for table, column in columns if table != "sqlite_sequence"}
    assert set(found) - {("gainful_store", "version")} == ours


def test_processes_that_open_a_new_store_together_all_get_the_same_one(address: str) -> None:
    opening = """
        store.memo_put(sys.argv[1][:3] + str(__import__("os").getpid()), b"here")
        print("done")
    """
    with children(address, *[opening] * 4) as started:
        assert [child.output.read() for child in started] == ["done\n"] * 4

    with open_store(address) as store:
        assert [store.memo_get(f"pos{child.process.pid}") for child in started] == [b"here"] * 4


def test_a_store_that_is_opened_for_reading_is_neither_made_nor_written(address: str) -> None:
    with pytest.raises(
        StoreError, match=r"there is no store at 'postgresql://127\.0\.0\.1:\d+/postgres'; name the one"
    ):
        open_for_reading(address)
    with open_store(address) as store:
        store.put_exchanges([exchange(1)])
    with open_for_reading(address) as reader:
        assert reader.exchanges("task") == [exchange(1)]
        for write in (lambda: reader.put_exchanges([exchange(2)]), lambda: reader.put_policy(POLICY)):
            with pytest.raises(StoreError, match="is open for reading alone"):
                write()


def test_only_a_full_store_asks_a_careless_server_to_wait_for_its_disk(postgres: Cluster) -> None:
    careless = postgres.store().replace("?options=", "?options=-csynchronous_commit%3Doff%20")
    asked = "SELECT current_setting('synchronous_commit')"
    with PostgresStore(careless) as usual, PostgresStore(careless, sync="full") as full:
        assert (usual._database.row(asked), full._database.row(asked)) == (("off",), ("on",))


@pytest.mark.parametrize("table", ["ledger", "champions"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET created_at = 0", "TRUNCATE {} CASCADE"])
def test_the_ledger_and_the_history_of_champions_cannot_be_rewritten(
    store: PostgresStore, address: str, table: str, statement: str
) -> None:
    store.append_ledger("hold-out", "closed", {}, champion=("task", POLICY))

    with raw(address) as behind, pytest.raises(psycopg.errors.RaiseException, match="is append-only"):
        behind.execute(statement.format(table).encode())


def test_all_machines_go_by_the_server_s_clock(store: PostgresStore, address: str) -> None:
    store.set_champion("task", POLICY, "baseline")

    with raw(address) as server:
        row = server.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row is not None
    (now,) = row
    assert isinstance(now, float)
    assert now - 60 < store.champion_times("task")[0] <= now


def test_a_name_with_a_nul_character_is_refused_in_one_sentence(store: PostgresStore) -> None:
    for write in (lambda: store.start_run("run", "a\0task", {}), lambda: store.memo_put("a\0key", b"")):
        with pytest.raises(StoreError, match=r"cannot keep the name 'a\\x00.*', for PostgreSQL takes no NUL"):
            write()
    store.start_run("run", "task", {"text": "a\0b"})

    assert store.find_run("run").spec == {"text": "a\0b"}


# --- the order of rows


def test_a_row_waits_until_those_with_lower_numbers_are_there(store: PostgresStore, address: str) -> None:
    store.put_exchanges([exchange(0)])
    with raw(address) as slow, PostgresStore(address, busy_s=0.05) as hurried:
        slow.execute("BEGIN")
        slow.execute("INSERT INTO exchanges (reply, at, task, content) SELECT 'slow', 1, task, content FROM exchanges")
        with pytest.raises(StoreError, match=r"is held by another process \(waited 0.05 s\)"):
            hurried.put_exchanges([exchange(2)])
        assert [row for row, _ in hurried.exchanges_after("task", 0)] == [1]
        slow.execute("COMMIT")

        hurried.put_exchanges([exchange(3)])
        replies = [(row, one.id) for row, one in hurried.exchanges_after("task", 1)]
    assert [reply for _, reply in replies] == ["slow", "reply-3"]
    assert [row for row, _ in replies] == sorted(row for row, _ in replies)


def test_a_reader_that_goes_on_behind_the_last_row_misses_nothing_of_several_writers(
    store: PostgresStore, address: str
) -> None:
    writing = """
        import os
        from gainful.core import Exchange
        from gainful.store import Feedback
        me = os.getpid()
        for batch in range(60):
            names = [f"{me}-{batch}-{number}" for number in range(1 + batch % 7)]
            store.put_exchanges(Exchange(name, 1.0, "task", "", "model", "unverified") for name in names)
            store.put_feedback(Feedback(names[0], 1.0, 1.0, comment=names[0]))
            print(*names, flush=True)
    """
    seen: list[tuple[int, Exchange]] = []
    told: list[tuple[int, Feedback]] = []

    def read_on() -> bool:
        exchanges = store.exchanges_after("task", seen[-1][0] if seen else 0, limit=20)
        feedback = store.feedback_after("task", told[-1][0] if told else 0, limit=20)
        seen.extend(exchanges)
        told.extend(feedback)
        return bool(exchanges or feedback)

    with children(address, *[writing] * 4) as started:
        while any(child.process.poll() is None for child in started):
            read_on()
        while read_on():
            pass
        written = [line.split() for child in started for line in child.output.read().splitlines()]

    assert sorted(one.id for _, one in seen) == sorted(name for names in written for name in names)
    assert sorted(one.comment for _, one in told) == sorted(names[0] for names in written)
    assert len(seen) == 4 * sum(1 + batch % 7 for batch in range(60))


def test_whoever_decides_waits_for_no_exchange_and_no_exchange_for_them(store: PostgresStore, address: str) -> None:
    store.put_exchanges([exchange(0)])
    with PostgresStore(address, busy_s=0.05) as hurried, store._database.writing():
        hurried.put_exchanges([exchange(1)])
        with pytest.raises(StoreError, match="is held by another process"):
            hurried.set_champion("task", POLICY, "baseline")

    assert store.exchange_count("task") == 2


# --- locks


def test_a_run_under_way_in_another_process_is_refused_until_that_process_is_killed(
    store: PostgresStore, address: str
) -> None:
    holding = """
        lock = store.lock_run("run")
        print("locked", flush=True)
        sys.stdin.readline()
    """
    with children(address, holding) as [child]:
        assert child.output.readline() == "locked\n"
        with pytest.raises(StoreError, match=rf"run 'run' is under way in process {child.process.pid} of .+; wait"):
            store.lock_run("run")
        child.kill()
        wait_for_end_of(address, child.process.pid)

        with store.lock_run("run"), pytest.raises(StoreError, match=f"in process {os.getpid()} of"):
            store.lock_run("run")


def wait_for_end_of(address: str, pid: int) -> None:
    """Wait until the server has noticed that process *pid* has gone."""
    with raw(address) as server:
        name = f"gainful {pid} %"
        while server.execute("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE %s", (name,)).fetchone():
            pass


def test_stores_in_two_schemas_of_one_database_hold_each_other_up_nowhere(postgres: Cluster) -> None:
    with PostgresStore(postgres.store()) as one, PostgresStore(postgres.store(), busy_s=0.05) as other:
        one.put_exchanges([exchange(1)])
        with one.lock_run("run"), other.lock_run("run"), one._database.writing(alone=True):
            other.put_exchanges([exchange(2)])
            other.put_policy(POLICY)

        assert (one.exchange_count(), other.exchange_count()) == (1, 1)


# --- lost connections


def lose(address: str, store: PostgresStore) -> None:
    """End the session of *store*, as a server does that is shut down."""
    (pid,) = store._database.row("SELECT pg_backend_pid()")
    with raw(address) as server:
        server.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


def test_a_store_that_lost_its_connection_reads_on_and_tells_of_what_it_may_not_have_written(
    store: PostgresStore, address: str
) -> None:
    store.put_policy(POLICY)
    lose(address, store)
    assert store.policy(POLICY.id) == POLICY
    lose(address, store)
    store.set_champion("task", POLICY, "baseline")  # nothing was begun yet
    lose(address, store)
    with pytest.raises(StoreError, match=r"the connection to store .* was lost \(.*\); see whether its server runs"):
        store.memo_put("key", b"value")
    store.memo_put("key", b"value")

    assert store.memo_get("key") == b"value"
    assert store.champion("task") == POLICY.id


def test_a_transaction_whose_connection_is_lost_is_undone_and_told(store: PostgresStore, address: str) -> None:
    store.put_policy(POLICY)

    def losing() -> Iterator[Attempt]:
        yield Attempt("first", POLICY.id, Answer(text=""))
        lose(address, store)
        yield Attempt("second", POLICY.id, Answer(text=""))

    with pytest.raises(StoreError, match=r"the connection to store .* was lost"):
        store.put_attempts("task", losing())

    assert store.attempt_count() == 0
    assert store.tasks() == []


def test_a_run_is_held_again_after_a_lost_connection_unless_another_has_taken_it(
    store: PostgresStore, address: str
) -> None:
    with PostgresStore(address) as other:
        store.lock_run("run")
        lose(address, store)
        assert store.tasks() == []
        with pytest.raises(StoreError, match="run 'run' is under way"):
            other.lock_run("run")
        lose(address, store)
        with other.lock_run("run"), pytest.raises(StoreError, match="run 'run' was taken by another process while"):
            store.tasks()


@pytest.fixture
def own(postgres: Cluster) -> Iterator[Cluster]:
    """A server that a test may stop, where there is one for the others."""
    with cluster() as server:
        yield server


def test_what_was_acknowledged_is_there_after_the_server_was_killed(own: Cluster) -> None:
    """The writer sees its server die in the middle of a write, again and again, and is told; nothing told is lost."""
    address = own.store()
    rng = random.Random(0)
    told: list[str] = []
    for _ in range(3):
        with children(address, f"try:\n{WRITING}\nexcept StoreError as error: print('lost', error)") as [child]:
            told += [child.output.readline() for _ in range(rng.randrange(1, 40))]
            own.stop()
            told += list(child.output)
            own.start()
        assert re.match(r"lost (the connection to|the server of) store", told.pop())

        assert_nothing_told_is_lost(address, told)


async def test_replies_wait_for_a_server_that_comes_back(own: Cluster) -> None:
    address = own.store()
    rng = random.Random(0)
    recorder = Recorder(address, busy_s=0.05)
    assert await recorder.record(ordinary_exchange(rng), 30)
    await asyncio.to_thread(own.stop)
    assert not await recorder.record(ordinary_exchange(rng), 30)
    await asyncio.to_thread(own.start)
    assert await recorder.record(ordinary_exchange(rng), 30)
    await asyncio.to_thread(recorder.close)

    with open_store(address) as store:
        assert store.exchange_count() == 3


async def test_a_reply_whose_commit_was_not_answered_is_there_once(postgres: Cluster, address: str) -> None:
    rng = random.Random(0)
    with open_store(address) as store:
        store.put_policy(SERVED)  # known from the first reply on: the second one is one statement
    with closing(Wire(postgres.port)) as wire:
        recorder = Recorder(address.replace(f":{postgres.port}/", f":{wire.port}/"))
        assert await recorder.record(ordinary_exchange(rng), 30)
        wire.cut_next_answer()
        cut = ordinary_exchange(rng)
        assert not await recorder.record(cut, 30)
        assert await recorder.record(ordinary_exchange(rng), 30)
        await asyncio.to_thread(recorder.close)

    with open_store(address) as store:
        assert store.exchange(cut.id) == cut
        assert store.exchange_count() == 3


def test_what_may_be_there_already_is_stored_once_and_the_rest_with_it(store: PostgresStore) -> None:
    batch = [encode_exchange(exchange(number)) for number in range(3)]
    store.put_encoded(batch[:2])
    store.put_encoded(batch, again=True)
    store.put_encoded(batch, again=True)

    assert [one.id for _, one in store.exchanges_after("task", 0)] == ["reply-0", "reply-1", "reply-2"]


# --- forgetting


def on_disk(server: Cluster) -> bytes:
    """All that the server's tables and their indexes and statistics are, but its log."""
    server.sql("CHECKPOINT")
    return b"".join(file.read_bytes() for file in sorted((server.data / "base").rglob("*")) if file.is_file())


def test_no_byte_of_what_was_forgotten_stays_in_the_tables(own: Cluster) -> None:
    address = own.store()
    with open_store(address) as store, closing(raw(address)) as elsewhere:
        fill(store, "eve", "ann")
        rng = random.Random(0)
        store.put_exchanges(brought_by("eve", rng.getrandbits(40)) for _ in range(300))
        with raw(address) as behind:
            behind.execute("ANALYZE")
            packed = [row[0] for row in behind.execute("SELECT content FROM exchanges WHERE reply LIKE 'reply-eve%'")]
            packed += [row[0] for row in behind.execute("SELECT \"case\" FROM banked WHERE key = 'eve'")]
        texts = {text for text in packed if isinstance(text, bytes)}
        elsewhere.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")  # it could still see what is removed
        elsewhere.execute("SELECT 1")
        before = on_disk(own)
        assert len(texts) > 1
        assert all(text in before for text in texts)
        assert b"reply-eve" in before

        store.forget_key("eve")
        after = on_disk(own)
        assert not [text for text in texts if text in after]
        assert b"reply-eve" not in after
        assert store.feedback("reply-ann-1") == [Feedback("reply-ann-1", 1.0, 1.0, comment="ann likes it", key="ann")]
        store.put_exchanges([brought_by("ann", 7)])
        assert store.exchange_count() == 2


def test_a_table_that_another_reads_is_told_and_wiped_the_next_time(own: Cluster) -> None:
    address = own.store()
    with PostgresStore(address, busy_s=0.05) as store, raw(address) as reader:
        fill(store, "eve")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM banked")
        with pytest.raises(StoreError, match="is held by another process"):
            store.forget_key("eve")
        assert store.exchange_count() == 0

        reader.execute("COMMIT")
        store.forget_key("eve")
        assert b"question of eve" not in on_disk(own)


# --- speed


def test_what_is_asked_often_goes_by_an_index(store: PostgresStore, address: str) -> None:
    store.put_policy(POLICY)
    store.put_exchanges(exchange(number) for number in range(3))
    database = store._database
    assert isinstance(database, PostgresDatabase)
    with raw(address) as planner:
        planner.execute("SET enable_seqscan = off")
        for query, index in (
            ("SELECT id FROM exchanges WHERE task = 1 AND id > 2 ORDER BY id LIMIT 9", "exchanges_of_task"),
            ("SELECT id FROM exchanges WHERE reply = 'x' ORDER BY id DESC LIMIT 1", "exchanges_of_reply"),
            ("SELECT id FROM feedback WHERE task = 1 AND id > 2 ORDER BY id LIMIT 9", "feedback_of_task"),
            (
                "SELECT id FROM banked WHERE task = 1 AND side = 'dev' AND is_free = 1 "
                "ORDER BY last_at DESC, id DESC LIMIT 9",
                "banked_by_time",
            ),
            ("SELECT id FROM banked WHERE task = 1 AND opened = 'x' AND opened <> '' ORDER BY digest", "banked_opened"),
            ("SELECT id FROM repairs WHERE task = 1 ORDER BY at DESC, id DESC LIMIT 9", "repairs_by_time"),
            (f"SELECT 1 FROM memo WHERE key = '\\x{digest(1)}'", "memo_key_key"),
        ):
            plan = "\n".join(str(row[0]) for row in planner.execute(f"EXPLAIN {query}".encode()))
            assert index in plan, plan
