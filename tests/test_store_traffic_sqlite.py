"""The serving half of the SQLite store: an older store that learns to serve, size, damage and a full disk."""

from __future__ import annotations

import random
import shutil
import sqlite3
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
from exchanges import POLICY, ordinary_exchange

from gainful.core import Answer, Attempt, Exchange, StoreError, canonical, digest
from gainful.store import SQLiteStore
from gainful.store.compact import pack
from gainful.store.sqlite_database import SQLiteDatabase


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def raw(path: Path, *statements: str) -> list[tuple[object, ...]]:
    """Run statements on the file behind the store's back; return the last one's rows."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return [connection.execute(statement).fetchall() for statement in statements][-1]
    finally:
        connection.close()


def test_a_store_of_the_first_version_keeps_all_it_holds_and_learns_to_serve(path: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    shutil.copy(str(files("gainful.store") / "migrations" / "0001_first.sql"), old)
    SQLiteDatabase(path, "normal", 1, old).close()
    attempt = Attempt(case=digest(1), policy=POLICY.id, answer=Answer(text="four"), calls=(digest(2),))
    id, content = f"x'{POLICY.id}'", f"x'{pack(canonical(POLICY)).hex()}'"
    answer = f"x'{pack(canonical(msgspec.structs.replace(attempt, case='', policy='', calls=()))).hex()}'"
    line = {"key": "hold-out", "seq": 0, "kind": "epoch", "content": {"alpha": "0.05"}, "previous": "0" * 64}
    alpha = canonical(line["content"]).decode()
    raw(
        path,
        f"INSERT INTO memo VALUES (1, 'key', x'{pack(b'value').hex()}')",
        f"INSERT INTO policies VALUES (7, {id}, {content})",
        "INSERT INTO tasks VALUES (3, 'task')",
        f"INSERT INTO attempts VALUES (1, 3, 7, x'{digest(1)}', x'{digest(2)}', {answer})",
        f"INSERT INTO ledger VALUES ('hold-out', 0, 'epoch', '{alpha}', zeroblob(32), x'{digest(line)}', 1)",
        f"INSERT INTO champions VALUES (1, 3, 7, 'confirmed', x'{digest(line)}', 1)",
        "INSERT INTO runs VALUES (1, 'run', 'task', '{}', 1, 1)",
        f"INSERT INTO events VALUES (1, 0, x'{pack(b'{}').hex()}')",
    )
    assert raw(path, "PRAGMA user_version") == [(1,)]
    exchange = Exchange(id="reply", at=1.0, task="task", policy=POLICY.id, model="model", verdict="verified")

    for _ in range(2):
        with SQLiteStore(path) as store:
            assert store.memo_get("key") == b"value"
            assert store.attempts("task", POLICY.id) == [attempt]
            assert [entry.hash for entry in store.ledger("hold-out")] == [digest(line)]
            assert store.champion_history("task") == [(POLICY.id, "confirmed", digest(line))]
            assert store.runs() == [("run", "task", {}, True)]
            assert store.events("run") == [b"{}"]
            store.put_exchanges([exchange])
            assert store.exchange("reply") == exchange
    assert raw(path, "PRAGMA user_version") == [(len(list((files("gainful.store") / "migrations").iterdir())),)]
    assert raw(path, "SELECT task, policy FROM exchanges") == [(3, 7), (3, 7)]


def test_an_exchange_of_ordinary_size_takes_at_most_a_kilobyte(path: Path) -> None:
    """Request and reply of 300 bytes of random words each, two verdicts; the file after closing, indexes included."""
    rng = random.Random(0)
    with SQLiteStore(path) as store:
        store.put_policy(POLICY)
        for _ in range(20):
            store.put_exchanges(ordinary_exchange(rng) for _ in range(100))

    assert path.stat().st_size / 2000 <= 1000


def test_a_flipped_bit_in_an_exchange_is_damage(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.put_exchanges([ordinary_exchange(random.Random(0))])
    (content,) = raw(path, "SELECT content FROM exchanges")[0]
    assert isinstance(content, bytes)
    raw(path, f"UPDATE exchanges SET content = x'{content[:20].hex()}{content[20] ^ 1:02x}{content[21:].hex()}'")

    with SQLiteStore(path) as store, pytest.raises(StoreError, match="is damaged"):
        store.exchanges("support")


@pytest.mark.parametrize(("room", "size"), [(20, 500), (280, 1500)], ids=["one statement", "the second of two"])
def test_a_batch_that_does_not_fit_is_stored_not_at_all_and_a_smaller_one_still_is(
    path: Path, room: int, size: int
) -> None:
    rng = random.Random(0)
    with SQLiteStore(path) as store:
        store.put_exchanges([ordinary_exchange(rng)])
        (pages,) = store._database.row("PRAGMA page_count")
        store._database.connection.execute(f"PRAGMA max_page_count = {pages + room}")
        with pytest.raises(StoreError, match="is full; free some space"):
            store.put_exchanges([ordinary_exchange(rng) for _ in range(size)])
        store.put_exchanges([ordinary_exchange(rng)])

        assert store.exchange_count() == 2
