"""The SQLite store: versions, files that are no store, and what it says when the disk lets it down."""

from __future__ import annotations

import fcntl
import os
import pickle
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest

from gainful.core import Answer, Attempt, GainfulError, Policy, StoreError, digest
from gainful.store import SQLiteStore, open_for_reading, open_store
from gainful.store.compact import pack, unpack
from gainful.store.sqlite_database import APPLICATION_ID, SQLiteDatabase

POLICY = Policy(instructions="Answer.")
TWINS = ("2670", "4647")  # as instructions: found by trying, the ids of both begin with 7d7b55


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


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run *code* in a second process."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# --- where a store may be


def test_a_store_is_made_with_its_folders(tmp_path: Path) -> None:
    for place in (tmp_path / "a" / "b" / "store.db", f"sqlite:///{tmp_path}/c/store.db"):
        with open_store(place) as store:
            store.memo_put("key", b"value")

    assert (tmp_path / "a" / "b" / "store.db").is_file()
    assert (tmp_path / "c" / "store.db").is_file()


@pytest.mark.parametrize("address", ["mysql://host/base", "sqlite://", "sqlite:///", "http://x"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(StoreError, match=f"'{address}' is no store; give a file path"):
        open_store(address)


def test_nobody_but_its_owner_reads_a_new_store_and_its_log(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "store.db") as store:
        store.put_policy(Policy())
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}

    assert modes == dict.fromkeys(("store.db", "store.db-wal", "store.db-shm"), 0o600)


def test_the_mode_of_a_store_that_is_there_stays(tmp_path: Path) -> None:
    SQLiteStore(tmp_path / "store.db").close()
    os.chmod(tmp_path / "store.db", 0o660)  # its owner shares it

    SQLiteStore(tmp_path / "store.db").close()

    assert (tmp_path / "store.db").stat().st_mode & 0o777 == 0o660


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"{tmp_path} is a directory; name a file in it"):
        SQLiteStore(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match=r"folder .*file.* cannot be made"):
        SQLiteStore(tmp_path / "file" / "folder" / "store.db")
    with pytest.raises(StoreError, match=r"folder .*file cannot be made"):
        SQLiteStore(tmp_path / "file" / "store.db")


@pytest.mark.parametrize("content", [b"a text, not a database" * 99, b"x", b"SQLite format 3\0 no more than the name"])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    with pytest.raises(StoreError, match="is not a store; name another file"):
        SQLiteStore(path)
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]


@pytest.mark.parametrize("statement", ["CREATE TABLE notes (text)", "PRAGMA application_id = 7"])
def test_another_program_s_database_is_refused_and_left_as_it_was(path: Path, statement: str) -> None:
    raw(path, statement)
    before = path.read_bytes()

    with pytest.raises(StoreError, match="is a database of another program; name another file"):
        SQLiteStore(path)
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()

    with SQLiteStore(path) as store:
        assert store.attempt_count() == 0
    assert raw(path, "PRAGMA application_id") == [(APPLICATION_ID,)]


@pytest.mark.parametrize(("sync", "synchronous"), [("normal", 1), ("full", 2)])
def test_a_store_keeps_a_log_checks_references_and_waits_for_the_disk_as_told(
    path: Path, sync: Literal["normal", "full"], synchronous: int
) -> None:
    with SQLiteStore(path, sync=sync) as store:
        names = ("journal_mode", "foreign_keys", "synchronous")
        settings = [store._database.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert settings == ["wal", 1, synchronous]
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]  # closed, the log is folded in


# --- versions


def test_a_store_of_a_newer_version_is_refused_and_left_as_it_was(path: Path) -> None:
    SQLiteStore(path).close()
    raw(path, "PRAGMA user_version = 99")
    before = path.read_bytes()

    with pytest.raises(StoreError, match=r"is of version 99 and this Gainful reads versions up to \d+; update Gainful"):
        SQLiteStore(path)
    assert path.read_bytes() == before


def migrations(folder: Path, *scripts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for number, script in enumerate(scripts, 1):
        (folder / f"{number:04}_step.sql").write_text(script)
    return folder


FIRST = "CREATE TABLE words (word TEXT);\nINSERT INTO words VALUES ('a; b');"
SECOND = """
-- a trigger holds semicolons of its own
CREATE TRIGGER no_more BEFORE DELETE ON words
BEGIN
    SELECT RAISE(ABORT, 'kept');
END;
UPDATE words SET word = word || '!';
"""


def test_an_older_store_is_brought_up_to_date_once_in_order(path: Path, tmp_path: Path) -> None:
    SQLiteDatabase(path, "normal", 1, migrations(tmp_path / "old", FIRST)).close()
    new = migrations(tmp_path / "new", FIRST, SECOND)
    for _ in range(2):
        SQLiteDatabase(path, "normal", 1, new).close()

    assert raw(path, "SELECT word FROM words") == [("a; b!",)]
    assert raw(path, "PRAGMA user_version") == [(2,)]
    with pytest.raises(sqlite3.IntegrityError, match="kept"):
        raw(path, "DELETE FROM words")


def test_a_migration_that_fails_leaves_the_older_store_as_it_was(path: Path, tmp_path: Path) -> None:
    SQLiteDatabase(path, "normal", 1, migrations(tmp_path / "old", FIRST)).close()

    with pytest.raises(StoreError, match="refused"):
        SQLiteDatabase(
            path, "normal", 1, migrations(tmp_path / "new", FIRST, SECOND, "ALTER TABLE nothing ADD COLUMN x;")
        )
    assert raw(path, "PRAGMA user_version") == [(1,)]
    assert raw(path, "SELECT word FROM words") == [("a; b",)]
    SQLiteDatabase(path, "normal", 1, migrations(tmp_path / "newer", FIRST, SECOND)).close()


def test_the_packaged_migrations_are_numbered_from_one_without_gaps() -> None:
    folder = Path(sys.modules["gainful.store"].__path__[0]) / "migrations"
    names = sorted(file.name for file in folder.glob("*.sql"))

    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert all(name[4] == "_" for name in names)


# --- what only grows


@pytest.mark.parametrize("table", ["ledger", "champions"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET created_at = 0"])
def test_the_ledger_and_the_history_of_champions_cannot_be_rewritten(path: Path, table: str, statement: str) -> None:
    with SQLiteStore(path) as store:
        store.append_ledger("hold-out", "closed", {}, champion=("task", POLICY))

    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw(path, statement.format(table))


@pytest.mark.parametrize(
    "change",
    [
        """UPDATE ledger SET content = '{"rank":7}' WHERE seq = 1""",
        "UPDATE ledger SET content = 'no JSON' WHERE seq = 1",
        "UPDATE ledger SET content = 'NaN' WHERE seq = 1",
        "UPDATE ledger SET kind = 'epoch' WHERE seq = 1",
        "UPDATE ledger SET previous = zeroblob(32) WHERE seq = 1",
        "UPDATE ledger SET hash = zeroblob(32) WHERE seq = 1",
        "UPDATE ledger SET seq = 9 WHERE seq = 1",
        "DELETE FROM ledger WHERE seq = 1",
    ],
)
def test_a_ledger_changed_behind_our_back_is_refused_at_the_changed_line(path: Path, change: str) -> None:
    with SQLiteStore(path) as store:
        for rank in range(3):
            store.append_ledger("hold-out", "opened", {"rank": rank})
    raw(path, "DROP TRIGGER ledger_is_never_rewritten", "DROP TRIGGER ledger_is_never_shortened", change)

    with SQLiteStore(path) as store, pytest.raises(StoreError, match="ledger 'hold-out' is broken at line 1:"):
        store.ledger("hold-out")


def test_the_clock_stamps_lines_and_enters_no_hash(tmp_path: Path) -> None:
    lines = []
    for time in (0.0, 5.5):
        with SQLiteStore(tmp_path / f"{time}.db", clock=lambda time=time: time) as store:
            lines.append(store.append_ledger("hold-out", "epoch", {}))

    assert lines[0] == lines[1]
    assert raw(tmp_path / "5.5.db", "SELECT created_at FROM ledger") == [(5.5,)]


# --- locks


def test_a_lock_left_by_a_killed_process_is_taken_over_under_our_own_name(path: Path) -> None:
    with SQLiteStore(path) as store, SQLiteStore(path) as second:
        store.lock_run("run").release()
        store.lock_run("run")
        (left,) = path.parent.glob("*.lock")
        store.close()
        left.write_text("4194304000")

        second.lock_run("run")
        with SQLiteStore(path) as third, pytest.raises(StoreError, match=f"in process {os.getpid()};"):
            third.lock_run("run")


def test_a_lock_file_removed_while_we_waited_for_it_is_not_taken_for_the_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last holder removes its file between our opening it and our locking it; staged, for it is rare."""
    flock = fcntl.flock
    removed = []

    def remove_first(file: int, how: int) -> None:
        if not removed:
            removed.extend(path.parent.glob("*.lock"))
            removed[0].unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with SQLiteStore(path) as store, SQLiteStore(path) as second:
        store.lock_run("run")

        assert removed
        with pytest.raises(StoreError, match="is under way in process"):
            second.lock_run("run")


def test_a_lock_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with (
        SQLiteStore(tmp_path / ("s" * 230)) as store,
        pytest.raises(StoreError, match=r"run 'run' cannot be locked at"),
    ):
        store.lock_run("run")


# --- faults


def test_two_policies_that_share_a_prefix_need_more_digits(path: Path) -> None:
    with SQLiteStore(path) as store:
        twins = [Policy(instructions=text) for text in TWINS]
        for policy in twins:
            store.put_policy(policy)

        assert twins[0].id[:6] == twins[1].id[:6]
        with pytest.raises(StoreError, match=r"holds several policies .*; give more digits"):
            store.policy(twins[0].id[:6])
        assert [store.policy(policy.id[:12]) for policy in twins] == twins


def test_a_policy_that_is_not_the_one_its_id_names_is_damage(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.put_policy(POLICY)
        store.put_policy(Policy(instructions="Another."))
    raw(path, "UPDATE policies SET content = (SELECT content FROM policies WHERE id = 2) WHERE id = 1")

    with SQLiteStore(path) as store, pytest.raises(StoreError, match="is damaged"):
        store.policy(POLICY.id)


def test_a_flipped_bit_in_a_stored_text_is_damage_not_an_answer(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.memo_put("key", b'{"body":{"choices":[{"message":{"content":"four"}}]}}')
    (value,) = raw(path, "SELECT value FROM memo")[0]
    assert isinstance(value, bytes)
    changed = value[:-3] + bytes([value[-3] ^ 1]) + value[-2:]
    raw(path, f"UPDATE memo SET value = x'{changed.hex()}'")

    with SQLiteStore(path) as store, pytest.raises(StoreError, match=r"is damaged \(a stored text .*restore a copy"):
        store.memo_get("key")


@pytest.mark.parametrize("text", [b"", b"x", b'{"type":"object"}' * 50, os.urandom(400)])
def test_a_changed_or_shortened_packed_text_never_gives_another_text(text: bytes) -> None:
    packed = pack(text)
    refused = 0
    for at, bit in product(range(len(packed)), range(8)):
        for damaged in (packed[:at] + bytes([packed[at] ^ 1 << bit]) + packed[at + 1 :], packed[:at]):
            try:
                assert unpack(damaged) == text  # the last byte of a deflated text holds bits that say nothing
            except ValueError:
                refused += 1

    assert unpack(packed) == text
    assert refused >= 16 * len(packed) - 16


def test_damaged_pages_are_told_and_nothing_is_overwritten(path: Path) -> None:
    SQLiteStore(path).close()
    tables = path.stat().st_size
    with SQLiteStore(path) as store:
        for number in range(200):
            store.memo_put(digest(number), digest([number]).encode())
    content = bytearray(path.read_bytes())
    content[tables:] = b"\xff" * (len(content) - tables)
    path.write_bytes(content)

    with (
        SQLiteStore(path) as store,
        pytest.raises(StoreError, match=r"is damaged \(.*\); restore a copy .* overwritten"),
    ):
        list(map(store.memo_get, map(digest, range(200))))
    assert path.read_bytes() == content


def test_a_full_database_keeps_what_was_written(path: Path) -> None:
    store = SQLiteStore(path)
    store._database.connection.execute("PRAGMA max_page_count = 60")
    written = []

    def write_on() -> None:
        for number in range(1000):
            store.memo_put(str(number), os.urandom(2000))
            written.append(number)

    with pytest.raises(StoreError, match=r"disk of store .* is full; free some space and run the same command again"):
        write_on()
    store.memo_put("small", b"")
    store.close()

    with SQLiteStore(path) as store:
        assert all(store.memo_get(str(number)) for number in written)
        assert len(written) > 10


def test_a_disk_that_refuses_more_bytes_keeps_what_was_written(path: Path) -> None:
    """A real limit on the size of files, in a second process; the write-ahead log is what hits it."""
    done = python(
        """
        import os, resource, sys
        from gainful.store import SQLiteStore
        from gainful.core import StoreError
        store = SQLiteStore(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        try:
            for number in range(1000):
                store.memo_put(str(number), os.urandom(2000))
                print(number, flush=True)
        except StoreError as error:
            print(error, file=sys.stderr)
        os._exit(0)
        """,
        path,
    )

    written = done.stdout.split()
    assert "run the same command again, what was written before is safe" in done.stderr
    assert len(written) > 10
    with SQLiteStore(path) as store:
        assert all(store.memo_get(number) for number in written)


def test_a_failed_transaction_does_not_stick(path: Path) -> None:
    with SQLiteStore(path) as store:
        attempt = Attempt(case=digest(1), policy=POLICY.id, answer=Answer(text=""))
        with pytest.raises(StoreError):
            store.put_attempts("task", [attempt])
        store.put_policy(POLICY)
        store.put_attempts("task", [attempt])

        assert store.attempt_count() == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="dropping the right to write takes root; below is the other half")
def test_a_read_only_store_is_refused_for_a_user_without_rights(path: Path) -> None:
    assert_read_only_is_refused(path, "os.setgroups([]); os.setuid(65534)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_read_only_store_is_refused(path: Path) -> None:
    assert_read_only_is_refused(path, "pass")


def assert_read_only_is_refused(path: Path, drop_rights: str) -> None:
    for folder in list(path.parents)[:-2]:
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o755)
    done = python(
        f"""
        import os, sys
        from gainful.store import SQLiteStore
        SQLiteStore(sys.argv[1]).close()
        os.chmod(sys.argv[1], 0o444)
        {drop_rights}
        try:
            SQLiteStore(sys.argv[1])
        except Exception as error:
            print(type(error).__name__, error)
        """,
        path,
    )

    assert done.stdout.startswith(f"StoreError store {path} cannot be written ("), done


def test_a_store_made_read_only_meanwhile_says_so(path: Path) -> None:
    with SQLiteStore(path) as store:
        store._database.connection.execute("PRAGMA query_only = ON")

        with pytest.raises(StoreError, match=r"cannot be written .*; change its permissions or name another file"):
            store.memo_put("key", b"value")


def test_an_error_of_the_store_survives_pickling_and_ends_a_command_with_2(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as raised:
        SQLiteStore(tmp_path)
    again = pickle.loads(pickle.dumps(raised.value))

    assert isinstance(again, GainfulError)
    assert (str(again), again.exit_code) == (str(raised.value), 2)


def test_a_store_in_memory_is_refused_in_one_sentence() -> None:
    with pytest.raises(StoreError, match="remembers nothing"):
        SQLiteStore(":memory:")


# --- looked at by somebody who may not write


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A store in a folder in which whoever looks (``look``) may read and not write.

    Not in ``tmp_path``: every session of pytest shuts the folder of them all to other users.
    """
    with TemporaryDirectory() as made:
        folder = Path(made)
        with SQLiteStore(folder / "store.db") as store:
            store.set_champion("task", POLICY, "baseline")
        (folder / "store.db").chmod(0o444)
        folder.chmod(0o555)
        yield folder / "store.db"
        folder.chmod(0o755)


def look(place: Path, code: str = "print(store.champion('task'))") -> subprocess.CompletedProcess[str]:
    return python(
        f"""
        import os, pathlib, sqlite3, sys
        from gainful.store import open_for_reading
        place = pathlib.Path(sys.argv[1])
        if os.geteuid() == 0:  # to whom permissions mean nothing
            os.setgroups([])
            os.setuid(65534)
        try:
            with open_for_reading(place) as store:
                {code}
        except Exception as error:
            print(type(error).__name__, error)
        """,
        place,
    )


def test_a_store_that_may_not_be_written_can_be_looked_at_and_nothing_is_left_beside_it(theirs: Path) -> None:
    done = look(theirs)

    assert done.stdout == f"{POLICY.id}\n", done
    assert os.listdir(theirs.parent) == ["store.db"]


def test_it_can_be_looked_at_while_its_owner_works_with_it(theirs: Path) -> None:
    theirs.chmod(0o644)
    theirs.parent.chmod(0o755)
    with SQLiteStore(theirs) as store:
        store.set_champion("task", Policy(instructions="Newer."), "baseline")  # lies in the log alone
        theirs.chmod(0o444)
        theirs.parent.chmod(0o555)
        done = look(theirs)

    assert done.stdout == f"{Policy(instructions='Newer.').id}\n", done


def test_what_was_read_while_the_owner_began_to_write_is_refused(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: mode == os.R_OK)
    theirs.chmod(0o644)
    theirs.parent.chmod(0o755)
    with open_for_reading(theirs) as reader:
        assert reader.champion("task") == POLICY.id
        with SQLiteStore(theirs) as owner:
            owner.set_champion("task", Policy(instructions="Newer."), "baseline")

            with pytest.raises(StoreError, match="was written by another process while it was read; run the same"):
                reader.champion("task")
        with pytest.raises(StoreError, match="was written by another process"):
            reader.champion("task")
    with open_for_reading(theirs) as reader:
        assert reader.champion("task") == Policy(instructions="Newer.").id


def test_a_log_without_an_index_is_not_passed_over(theirs: Path) -> None:
    theirs.parent.chmod(0o755)
    theirs.with_name("store.db-wal").write_bytes(b"commits")
    theirs.parent.chmod(0o555)

    assert "StoreError store" in (said := look(theirs).stdout)
    assert "copy the store and" in said


def test_a_store_that_may_not_even_be_read_says_so_to_a_reader(theirs: Path) -> None:
    theirs.chmod(0o200)

    assert look(theirs).stdout.startswith(
        f"StoreError store {theirs} cannot be read (Permission denied); ask its owner to let you read it"
    )


def test_a_folder_that_may_not_be_entered_says_so_to_a_reader(theirs: Path) -> None:
    theirs.parent.chmod(0o600)

    assert look(theirs).stdout.startswith(f"StoreError store {theirs} cannot be read (Permission denied); ask")
