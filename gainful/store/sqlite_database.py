"""One SQLite file of ours: opened, brought up to date, and its faults said in one sentence.

Guarantees: a file that is not a store of Gainful's, or is one of a newer version, is refused and left as it
was; a migration happens as a whole or not at all, once, even when two processes open an old store together.
What the tables mean is left to ``sql_store.py``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from gainful.core import StoreError
from gainful.store.lock import FileLock
from gainful.store.sql import Database, Sync

APPLICATION_ID = 0x6761696E  # "gain", in bytes 68 to 71 of the file
LEAST_BYTES = 512  # SQLite's smallest page; it takes a file of a single byte for a new database

GET_READABLE = "ask its owner to let you read it and the files beside it, or for a copy of all of them"

Stamp: TypeAlias = tuple[int, int, int, bool]  # what tells a file that was written from one that was not
T = TypeVar("T")


class SQLiteDatabase(Database):
    """A connection to the store at *path*, created with its folders where there is none.

    ``sync="full"`` waits for the disk at each commit, so that commits survive a power cut as well; ``normal``
    survives the death of the process and may lose the last commits with the power.  *busy_s* is how long a call
    waits for another process.  ``sync="never"`` opens what is there for reading alone: nothing is created, brought up
    to date or written, so the store may lie where one may not write.  Raises ``StoreError`` when the file cannot be a
    store, and leaves it as it was.
    """

    def __init__(self, path: Path, sync: Sync | Literal["never"], busy_s: float, migrations: Traversable) -> None:
        self.path = path
        self.name = str(path)
        self.busy_s = busy_s
        self._reads_only = reads_only = sync == "never"
        self._as_opened: Stamp | None = None  # of a file that is read as if it never changed
        if reads_only:
            _check_readable(path)
        _check_place(path)
        if not reads_only:
            _make_private(path)
        elif not _can_share(path):
            self._as_opened = _stamp(path)
        with self.faults():
            way = "mode=ro" if self._as_opened is None else "immutable=1"
            name = f"{path.absolute().as_uri()}?{way}" if reads_only else path
            self.connection = sqlite3.connect(name, timeout=busy_s, isolation_level=None, uri=reads_only)
            try:
                self._prepare(sync, migrations)
            except BaseException:
                self.connection.close()
                raise

    def _prepare(self, sync: Sync | Literal["never"], migrations: Traversable) -> None:
        execute = self.connection.execute
        (tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
        (owner,) = execute("PRAGMA application_id").fetchone()  # second, for another process may be making the store
        if owner != APPLICATION_ID and (owner or tables):
            raise StoreError(f"{self.path} is a database of another program; name another file for the store")
        scripts = sorted((int(file.name[:4]), file) for file in migrations.iterdir() if file.name.endswith(".sql"))
        latest = scripts[-1][0]
        if self._version() > latest:
            raise StoreError(
                f"store {self.path} is of version {self._version()} and this Gainful reads versions up to {latest}; "
                "update Gainful, or name another store"
            )
        if sync == "never":
            if self._version() < latest:
                raise StoreError(
                    f"store {self.path} is of version {self._version()} and reading it takes version {latest}; "
                    "a command that writes to it, such as gainful improve or serve, brings it up to date"
                )
            return
        execute(f"PRAGMA synchronous = {sync}")
        execute("PRAGMA foreign_keys = ON")
        self._log_ahead()
        if self._version() < latest:  # else opening takes no lock
            self._migrate(scripts)

    def _log_ahead(self) -> None:
        """Switch a new file to write-ahead logging, once, whichever of the processes that open it comes first."""
        deadline = time.monotonic() + self.busy_s
        while self.connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            try:
                self.connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:  # for this statement SQLite never waits, whatever the timeout
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _migrate(self, scripts: list[tuple[int, Traversable]]) -> None:
        with self.writing() as connection:
            version = self._version()  # again: another process may have migrated meanwhile
            for number, script in scripts:
                if number > version:
                    for statement in _statements(script.read_text(encoding="utf-8")):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {number}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _version(self) -> int:
        version: int = self.connection.execute("PRAGMA user_version").fetchone()[0]
        return version

    @contextmanager
    def writing(self, *, alone: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction that owns the store from its first read on, *alone* or not: all of it or nothing."""
        with self.faults():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turn what SQLite raises inside into a ``StoreError`` that says what to do."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a mistake in our own code is no fault of the store
        except sqlite3.DatabaseError as error:
            self._check_unchanged()
            raise StoreError(self._sentence(error)) from error
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        """Refuse what was read of a file that nothing kept from being written meanwhile."""
        if self._as_opened is not None and _stamp(self.path) != self._as_opened:
            raise StoreError(
                f"store {self.path} was written by another process while it was read; run the same command again"
            )

    def _sentence(self, error: sqlite3.DatabaseError) -> str:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return f"store {self.path} is held by another process (waited {self.busy_s:g} s); wait for it or stop it"
        if code == sqlite3.SQLITE_FULL:
            return (
                f"the disk of store {self.path} is full; free some space and run the same command again, "
                "what was written before is safe"
            )
        if code == sqlite3.SQLITE_NOTADB:
            return f"{self.path} is not a store; name another file"
        if code == sqlite3.SQLITE_CORRUPT:
            return self.damage(str(error))
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
            if self._reads_only and error.sqlite_errorcode != sqlite3.SQLITE_READONLY:  # it was no attempt to write
                return f"store {self.path} cannot be read ({error}); {GET_READABLE}"
            return f"store {self.path} cannot be written ({error}); change its permissions or name another file"
        if code == sqlite3.SQLITE_IOERR:
            return (
                f"store {self.path} could not be read or written ({error}); check the disk's space and health and "
                "run the same command again, what was written before is safe"
            )
        return f"store {self.path} refused ({error}); nothing was written"

    def damage(self, seen: str) -> str:
        """Say that part of the file cannot be read."""
        return (
            f"store {self.path} is damaged ({seen}); restore a copy of it, or move the file away and start a new one: "
            "nothing in it was overwritten"
        )

    def checkpoint(self, mode: Literal["PASSIVE", "FULL"]) -> int:
        """Fold the log into the file, and return how many pages the log holds.

        ``PASSIVE`` stops nobody, so pages may be added meanwhile.  ``FULL`` keeps writers out until it is done.
        """
        _, held, _ = self.row(f"PRAGMA wal_checkpoint({mode})")
        return int(held)

    def wipe(self, tables: Sequence[str]) -> None:
        """Leave nothing in the file or its log of what was removed before, from *tables* or others.

        Nobody else can write meanwhile.  The file is written anew: SQLite's ``secure_delete`` zeroes a removed row
        where it lies, and not the copies that were left behind when pages were split or merged.
        """
        self.row("VACUUM")
        if self.row("PRAGMA wal_checkpoint(TRUNCATE)")[0]:
            raise StoreError(
                f"store {self.path} is being read by another process (waited {self.busy_s:g} s), so its log could not "
                "be emptied of what was forgotten; nothing finds it any more, run the same command again to wipe it out"
            )

    def rows(self, query: str, *values: Any) -> list[Any]:
        with self.faults():
            return self.connection.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> Any:
        with self.faults():
            return self.connection.execute(query, values).fetchone()

    def execute(self, query: str, *values: Any) -> int:
        with self.faults():
            return self.connection.execute(query, values).rowcount

    def lock(self, run: str) -> FileLock:
        return FileLock(self.path, run)

    def close(self) -> None:
        """Close the connection; SQLite folds its log into the file."""
        self.connection.close()


def _check_readable(path: Path) -> None:
    """Refuse a file that is not there, or may not be read; it is not opened, as in ``_make_private``."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"there is no store at {str(path)!r}; name the one to look at") from None
    except OSError as error:
        raise StoreError(f"store {path} cannot be read ({error.strerror}); {GET_READABLE}") from error
    if not os.access(path, os.R_OK):
        raise StoreError(f"store {path} cannot be read ({os.strerror(errno.EACCES)}); {GET_READABLE}")


def _can_share(path: Path) -> bool:
    """Whether SQLite can read *path* beside others: it needs the log's index, and makes one where it may write.

    Without, a file can be read on its own while nobody has it open; then nothing lies beside it (sqlite.org/wal.html,
    "Read-only databases").  Raises ``StoreError`` where commits lie in a log that has lost its index.
    """
    log, index = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
    if (log.exists() and index.exists()) or (os.access(path.parent, os.W_OK) and os.access(path, os.W_OK)):
        return True
    if log.exists() and log.stat().st_size:
        raise StoreError(
            f"store {path} has a log without an index, and none can be made in its folder; copy the store and {log} to "
            "a folder where you may write, and look at it there"
        )
    return False


def _stamp(path: Path) -> Stamp:
    """Return what changes with every commit: each goes to the log first, and from there to the file."""
    try:
        found, log = path.stat(), path.with_name(path.name + "-wal")
        return found.st_ino, found.st_size, found.st_mtime_ns, log.exists() and log.stat().st_size > 0
    except OSError:  # it has gone
        return 0, 0, 0, False


def _check_place(path: Path) -> None:
    """Refuse what SQLite would take for a new database, or would only say that it is unable to open."""
    if path.name == ":memory:":  # it has no write-ahead log, and nothing in it survives a process
        raise StoreError("a store in memory remembers nothing; name a file")
    if path.is_dir():
        raise StoreError(f"{path} is a directory; name a file in it for the store")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"folder {path.parent} cannot be made ({error.strerror}); name another file for the store"
        ) from error
    if path.exists() and 0 < path.stat().st_size < LEAST_BYTES:
        raise StoreError(f"{path} is not a store; name another file")


def _make_private(path: Path) -> None:
    """Let nobody but the owner read a new store: prompts are in it.  SQLite gives its log the same mode.

    The store itself is never opened here.  To close a file is to give up every lock of this process on it (POSIX,
    fcntl), those of other connections too: the next process to close would then take itself for the last, and remove
    a log that is in use.
    """
    if path.exists():
        return
    empty = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    with contextlib.suppress(OSError):  # SQLite will say it better
        os.close(os.open(empty, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            os.link(empty, path)  # unless another process was first
        finally:
            empty.unlink()


def _statements(script: str) -> Iterator[str]:
    """Split an SQL script, triggers included: ``executescript`` would end the transaction that must hold it all."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
