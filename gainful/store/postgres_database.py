"""A store's tables on a PostgreSQL server: reached, brought up to date, and its faults said in one sentence.

Guarantees: tables that are not a store of Gainful's, or are one of a newer version, are refused and left as they were;
a migration happens as a whole or not at all, once; a password is in no message.  Whoever reads in order to write holds
one lock of the store, so such transactions come one after the other, as they do in SQLite: none fails because of
another, and none needs to be tried again.  Rows that depend on nothing read, such as exchanges, are added beside it, in
the order of their numbers (``migrations_postgres``).

A connection that was lost is made anew by the next call.  What is read is then read again; of what was being written
nobody knows whether it was, so that raises.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

from gainful.core import StoreError
from gainful.store.compact import Name
from gainful.store.place import spoken_place
from gainful.store.sql import Database, Found, Sync

MIGRATIONS = files("gainful.store") / "migrations_postgres"
OLDEST_SERVER = 13
CONNECT_S = 5  # to find a server that is there
STATEMENT_S = 120.0  # no query of ours takes so long, but for those that forget
STALLED_S = 60.0  # a process that was stopped inside a transaction keeps all others waiting for so long
ORDER = 1734437230  # "gain": with a table's number, the lock of those who add to it (``migrations_postgres``)
REWRITTEN = {"memo": "value", "banked": "latest"}  # a table's column that is not called "content"

# A machine that vanished is noticed within half a minute, on both sides: its locks are let go of.
KEEP_ALIVE = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
SERVER_KEEP_ALIVE = {"tcp_keepalives_idle": 15, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 3}

T = TypeVar("T")

LOST = ("08", "57P", "25P03")  # how codes of errors begin after which there is no connection any more

_STATE = """
    SELECT current_schema(), current_setting('server_encoding'), current_setting('server_version_num')::integer / 10000,
        to_regclass(quote_ident(current_schema()) || '.gainful_store') IS NOT NULL,
        (SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = current_schema()::regnamespace)
"""
_HOLDER = """
    SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND (classid::bigint << 32) + objid::bigint = ?
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class PostgresDatabase(Database):
    """A connection to the store at *address*; its tables are made where there are none.

    ``sync="normal"`` commits as the server is set up to, ``full`` waits at least for the server's disk, ``never`` only
    reads.  *busy_s* is how long a call waits for another process.
    """

    def __init__(self, address: str, sync: Sync | Literal["never"], busy_s: float) -> None:
        self.name = spoken_place(address)
        self.busy_s = busy_s
        self._sync = sync
        self._parameters = self._read_address(address)
        self._held: dict[int, str] = {}  # the runs that this session has locked
        self._is_writing = False
        self._schema = ""
        self._server = self._connect()
        try:
            with self._faults():
                self._prepare()
        except BaseException:
            self.close()
            raise

    # --- reaching the server

    def _read_address(self, address: str) -> dict[str, Any]:
        try:
            given = conninfo_to_dict(address)
        except psycopg.Error:  # whose message may quote half of a password
            given = {"host": "@"}
        odd = [name for name in ("host", "dbname") if "@" in str(given.get(name, ""))]
        if odd or not re.fullmatch(r"[\d,]*", str(given.get("port", ""))):
            raise StoreError(
                "the address of the store cannot be read; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, and in "
                "the password %40 for @, %2F for /, %3A for :, %3F for ?, %23 for # and %25 for %"
            ) from None
        ours = {"connect_timeout": CONNECT_S, "application_name": f"gainful {os.getpid()} {socket.gethostname()}"}
        return {**ours, **KEEP_ALIVE, **given, "client_encoding": "utf8"}

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        try:
            server = psycopg.connect(**self._parameters, autocommit=True)
            server.execute("; ".join(self._settings()).encode(), prepare=False)
            held = {run: server.execute("SELECT pg_try_advisory_lock(%s)", (key,)) for key, run in self._held.items()}
        except psycopg.Error as error:
            raise StoreError(self._unreached(str(error))) from error
        for run, found in held.items():
            if found.fetchone() != (True,):
                server.close()
                raise StoreError(
                    f"run {run!r} was taken by another process while the connection to store {self.name} was lost; "
                    "wait for it, and resume the run"
                )
        return server

    def _settings(self) -> Iterator[str]:
        yield f"SET lock_timeout = {max(1, int(1000 * self.busy_s))}"
        yield f"SET statement_timeout = {int(1000 * STATEMENT_S)}"
        yield f"SET idle_in_transaction_session_timeout = {int(1000 * STALLED_S)}"
        for name, value in SERVER_KEEP_ALIVE.items():
            yield f"SET {name} = {value}"
        if self._sync == "never":
            yield "SET default_transaction_read_only = on"
        if self._sync == "full":
            yield (
                "SELECT set_config('synchronous_commit', 'on', false) "
                "WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
            )

    def _unreached(self, said: str) -> str:
        """Say why the server was not reached, in its own words where they are not known."""
        reason = _reason(said)
        if re.search(r"password|authentication|no pg_hba\.conf entry|role .* does not exist", reason):
            return (
                f"the server of store {self.name} lets nobody in so ({reason}); correct user and password in the "
                "address, or in PGUSER and PGPASSWORD or ~/.pgpass"
            )
        if re.search(r"database .* does not exist", reason):
            return f"there is no database for store {self.name} ({reason}); make it with: createdb, or name another"
        return f"the server of store {self.name} cannot be reached ({reason}); start it, or correct the address"

    # --- versions

    def _prepare(self) -> None:
        schema, encoding, version, is_ours, tables = self.row(_STATE)
        if version < OLDEST_SERVER:
            raise StoreError(
                f"the server of store {self.name} is PostgreSQL {version}; a store needs {OLDEST_SERVER} or newer"
            )
        if encoding != "UTF8":
            raise StoreError(
                f"the database of store {self.name} has the encoding {encoding} and cannot keep every text; "
                "make one with: createdb --encoding=UTF8 --template=template0"
            )
        if schema is None:
            raise StoreError(f"store {self.name} has no schema to be in; make the one that its search_path names")
        self._schema = schema
        if not is_ours and tables:
            raise StoreError(
                f"{self.name} holds tables of another program; name a database, or by options=-csearch_path%3DSCHEMA a "
                "schema, that is the store's own"
            )
        scripts = sorted((int(file.name[:4]), file) for file in MIGRATIONS.iterdir() if file.name.endswith(".sql"))
        latest = scripts[-1][0]
        found = self._version() if is_ours else 0
        if found > latest:
            raise StoreError(
                f"store {self.name} is of version {found} and this Gainful reads versions up to {latest}; "
                "update Gainful, or name another store"
            )
        if found == latest:
            return
        if self._sync == "never":
            if not is_ours:
                raise StoreError(f"there is no store at {self.name!r}; name the one to look at")
            raise StoreError(
                f"store {self.name} is of version {found} and reading it takes version {latest}; "
                "a command that writes to it, such as gainful improve or serve, brings it up to date"
            )
        with self.writing():
            self._server.execute("CREATE TABLE IF NOT EXISTS gainful_store (version INTEGER NOT NULL)")
            found = self._version()  # again: another process may have migrated meanwhile
            for number, script in scripts:
                if number > found:
                    self._server.execute(script.read_bytes(), prepare=False)
                    self._server.execute("DELETE FROM gainful_store")
                    self._server.execute("INSERT INTO gainful_store VALUES (%s)", (number,))

    def _version(self) -> int:
        row = self.row("SELECT version FROM gainful_store")
        return int(row[0]) if row else 0

    # --- statements

    @contextmanager
    def writing(self, *, alone: bool = False) -> Iterator[_Transaction]:
        with self._faults():
            try:
                self._begin(alone)
                self._is_writing = True
                yield _Transaction(self)
                self._server.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(psycopg.Error):  # the first fault is the one to tell
                    if not self._server.closed:
                        self._server.execute("ROLLBACK")
                raise
            finally:
                self._is_writing = False

    def _begin(self, alone: bool) -> None:
        """Begin a transaction that has the lock of the store, in one message; READ COMMITTED: it sees all before it."""
        statements = ["BEGIN ISOLATION LEVEL READ COMMITTED", f"SELECT pg_advisory_xact_lock({self._key('writing')})"]
        if alone:
            statements += ["SET LOCAL statement_timeout = 0", "SET LOCAL idle_in_transaction_session_timeout = 0"]
            statements += [
                f"SELECT pg_advisory_xact_lock({ORDER}, '{table}'::regclass::oid::integer)"
                for table in ("exchanges", "feedback")
            ]
        script = "; ".join(statements).encode()
        self._again(lambda: self._server.execute(script, prepare=False))

    def execute(self, query: str, *values: Any) -> int:
        with self._faults():
            if self._server.closed:
                self._server = self._connect()
            return self.ask(query, values).rowcount

    def rows(self, query: str, *values: Any) -> list[Any]:
        with self._faults():
            return self._again(lambda: self.ask(query, values)).fetchall()

    def row(self, query: str, *values: Any) -> Any:
        with self._faults():
            return self._again(lambda: self.ask(query, values)).fetchone()

    def ask(self, query: str, values: Sequence[Any]) -> psycopg.Cursor[tuple[Any, ...]]:
        """Do one statement, in the transaction that is under way or as one of its own; raises what psycopg raises."""
        return self._server.execute(_translated(query), self._plain(values))

    def ask_many(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        """Do one statement with each of *rows*, which are all there before the first is sent."""
        plain = [self._plain(row) for row in rows]
        if plain:
            with self._server.cursor() as cursor:
                cursor.executemany(_translated(query), plain)

    def _plain(self, values: Sequence[Any]) -> list[Any]:
        """Return *values* as the server takes them; raises ``StoreError`` for a text that it does not."""
        plain = []
        for value in values:
            if isinstance(value, str) and "\0" in value:
                raise StoreError(
                    f"store {self.name} cannot keep the name {value!r:.80}, for PostgreSQL takes no NUL character in a "
                    "text; give another name"
                )
            plain.append(value.to_bytes() if isinstance(value, Name) else value)
        return plain

    def _again(self, work: Callable[[], T]) -> T:
        """Do *work*, which changes nothing; where the connection was lost and no transaction with it, on a new one."""
        try:
            return work()
        except psycopg.OperationalError as error:
            if self._is_writing or not self._is_lost(error):
                raise
        self._server.close()
        self._server = self._connect()
        return work()

    def time(self) -> float:
        """Return the server's Unix time in seconds."""
        return float(self.row("SELECT extract(epoch FROM clock_timestamp())::double precision")[0])

    def wipe(self, tables: Sequence[str]) -> None:
        """Write *tables* anew, one after the other, with what is there now and nothing else.

        ``VACUUM FULL`` would keep what some old transaction might still ask for.  What the server has in its log, and
        in copies and archives of it, stays there for as long as it keeps them.
        """
        for table in tables:
            column = REWRITTEN.get(table, "content")
            with self.writing(alone=True) as connection:
                connection.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE BYTEA USING {column} || ''::bytea")

    # --- locks

    def lock(self, run: str) -> SessionLock:
        key = self._key(f"run {run}")
        if key in self._held or not self.row("SELECT pg_try_advisory_lock(?)", key)[0]:
            raise StoreError(
                f"run {run!r} is under way in process {self._holder(key)}; wait for it, or stop it and resume the run"
            )
        self._held[key] = run
        return SessionLock(self, key)

    def unlock(self, key: int) -> None:
        """Let go of a lock; doing so twice is fine."""
        if self._held.pop(key, None) is not None and not self._server.closed:
            self.row("SELECT pg_advisory_unlock(?)", key)

    def _holder(self, key: int) -> str:
        row = self.row(_HOLDER, key)
        words = (row[0] or "").split(" ") if row else []
        return f"{words[1]} of {words[2]}" if len(words) == 3 else "?"

    def _key(self, name: str) -> int:
        """Return the number of a lock of this store, by which it is told from those of others in the database."""
        hashed = hashlib.sha256(f"gainful {self._schema} {name}".encode()).digest()
        return int.from_bytes(hashed[:8], "big", signed=True)

    # --- faults

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn what psycopg raises inside into a ``StoreError`` that says what to do."""
        try:
            yield
        except psycopg.ProgrammingError as error:
            if error.sqlstate is None:
                raise  # a mistake in our own code is no fault of the store
            raise StoreError(self._sentence(error)) from error
        except psycopg.Error as error:
            sentence = self._sentence(error)
            if self._is_lost(error):
                self._server.close()  # the next call makes a new one
            raise StoreError(sentence) from error

    def _is_lost(self, error: psycopg.Error) -> bool:
        return self._server.closed or (error.sqlstate or "").startswith(LOST)

    def _sentence(self, error: psycopg.Error) -> str:
        code = error.sqlstate or ""
        reason = error.diag.message_primary or _reason(str(error))  # the detail would quote what was to be stored
        if code == "55P03":
            return f"store {self.name} is held by another process (waited {self.busy_s:g} s); wait for it or stop it"
        if code == "57014":
            return f"store {self.name} took longer than {STATEMENT_S:g} s; look at what keeps the server busy"
        if code == "53100":
            return (
                f"the disk of store {self.name} is full; free some space and run the same command again, "
                "what was written before is safe"
            )
        if code in ("XX001", "XX002"):
            return self.damage(reason)
        if code == "25006":
            return f"store {self.name} is open for reading alone ({reason}); nothing was written"
        if code == "42501":
            return f"the user of store {self.name} lacks a right ({reason}); grant it, or name another user"
        if self._is_lost(error):
            return (
                f"the connection to store {self.name} was lost ({reason}); see whether its server runs and run the "
                "same command again, what was written before is safe"
            )
        return f"store {self.name} refused ({reason}); nothing was written"

    def damage(self, seen: str) -> str:
        return f"store {self.name} is damaged ({seen}); restore a copy of its database: nothing in it was overwritten"

    def close(self) -> None:
        self._server.close()


class _Transaction:
    """What may be done inside a transaction."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Found:
        return self._database.ask(query, values)

    def executemany(self, query: str, rows: Iterable[Sequence[Any]], /) -> None:
        self._database.ask_many(query, rows)


class SessionLock:
    """A run that this session holds: the server lets go of it when the session ends, however it does."""

    def __init__(self, database: PostgresDatabase, key: int) -> None:
        self._database = database
        self._key = key

    def release(self) -> None:
        """Let go; releasing twice is fine."""
        self._database.unlock(self._key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@functools.lru_cache(maxsize=1024)
def _translated(query: str) -> bytes:
    """Return *query* with psycopg's place-holders; none of our texts holds a question mark."""
    return query.replace("%", "%%").replace("?", "%s").encode()


def _reason(said: str) -> str:
    """Return the one line of a connection's failure that tells why."""
    fatal = re.search(r"(?:FATAL|ERROR): +(.+)", said)
    if fatal:
        return fatal[1]
    first = said.strip().splitlines()[0] if said.strip() else "no reason given"
    return first.removeprefix("connection failed: ")
