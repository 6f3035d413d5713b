"""The store in an SQL database: SQLite's or PostgreSQL's.

Guarantees what ``Store`` promises.  What it asks of the database is in ``sql.py``; how a text is made small is in
``compact.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import msgspec

from gainful.core import Attempt, JsonObject, Policy, StoreError, canonical
from gainful.store.bank import Lease
from gainful.store.compact import encode, long_id, pack, short_id, split_ids
from gainful.store.forget import FORGOTTEN, forgotten
from gainful.store.sql import Connection, Database, RunLock
from gainful.store.sql_bank import SQLBank
from gainful.store.sql_traffic import SQLTraffic, enter_task
from gainful.store.store import (
    GENESIS,
    Installed,
    LedgerEntry,
    LedgerKind,
    Run,
    broken_ledger,
    ledger_hash,
    verify_chain,
)

BUSY_S = 5.0  # our writes take milliseconds: whoever holds a store for longer is stuck, or is not ours
MIN_PREFIX = 6  # hexadecimal digits; with fewer, policies of one store would soon share them

_attempt = msgspec.json.Decoder(Attempt).decode
_policy = msgspec.json.Decoder(Policy).decode


class SQLStore(SQLTraffic, SQLBank):
    """A ``Store`` in *database*, which goes by *clock*."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        super().__init__(database, clock)
        self._locks: list[RunLock] = []

    # --- memo of model calls

    def memo_get(self, key: str) -> bytes | None:
        row = self._database.row("SELECT value FROM memo WHERE key = ?", short_id(key))
        return self._database.read(bytes, row[0]) if row else None

    def memo_put(self, key: str, value: bytes) -> None:
        self._database.execute(
            "INSERT INTO memo (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING", short_id(key), pack(value)
        )

    # --- policies and attempts

    def put_policy(self, policy: Policy) -> None:
        row = self._database.row("SELECT content FROM policies WHERE digest = ?", short_id(policy.id))
        if row is None or row[0] == FORGOTTEN:
            with self._database.writing() as connection:
                _put_policy(connection, policy)

    def policy(self, id: str) -> Policy:
        prefix = id.lower()
        if not MIN_PREFIX <= len(prefix) <= 64 or set(prefix) - set("0123456789abcdef"):
            raise StoreError(f"{id!r} names no policy; give at least {MIN_PREFIX} digits of its hexadecimal id")
        rows = self._database.rows(
            "SELECT digest, content FROM policies WHERE digest BETWEEN ? AND ? LIMIT 2",
            bytes.fromhex(prefix.ljust(64, "0")),
            bytes.fromhex(prefix.ljust(64, "f")),
        )
        if len(rows) != 1:
            found, wanted = (
                ("several policies", "more digits") if rows else ("no policy", f"{MIN_PREFIX} digits or more")
            )
            raise StoreError(
                f"store {self._database.name} holds {found} {id!r}; give {wanted} of the id of a stored one"
            )
        if rows[0][1] == FORGOTTEN:
            raise forgotten(rows[0][0].hex())
        policy = self._database.read(_policy, rows[0][1])
        if policy.id != rows[0][0].hex():
            raise StoreError(self._database.damage(f"policy {id!r} is not the one its id names"))
        return policy

    def put_attempts(self, task: str, attempts: Iterable[Attempt]) -> None:
        with self._database.writing() as connection:
            task_row = enter_task(connection, task)
            policies: dict[str, int] = {}
            for attempt in attempts:
                if attempt.policy not in policies:
                    policies[attempt.policy] = self._policy_row(connection, attempt.policy)
                calls, content = _pack_attempt(attempt)
                connection.execute(
                    'INSERT INTO attempts (task, policy, "case", calls, content) VALUES (?, ?, ?, ?, ?) '
                    "ON CONFLICT DO NOTHING",
                    (task_row, policies[attempt.policy], short_id(attempt.case), calls, content),
                )

    def attempts(self, task: str, policy: str) -> list[Attempt]:
        rows = self._database.rows(
            'SELECT "case", calls, content FROM attempts WHERE task = (SELECT id FROM tasks WHERE name = ?) '
            "AND policy = (SELECT id FROM policies WHERE digest = ?) ORDER BY id",
            task,
            short_id(policy),
        )
        return [self._attempt(policy, *row) for row in rows]

    def _attempt(self, policy: str, case: bytes | str, calls: bytes, content: bytes) -> Attempt:
        rest = self._database.read(_attempt, content)
        return msgspec.structs.replace(rest, case=long_id(case), policy=policy, calls=split_ids(calls) or rest.calls)

    def attempt_count(self) -> int:
        return int(self._database.rows("SELECT count(*) FROM attempts")[0][0])

    def tasks(self) -> list[str]:
        return [name for (name,) in self._database.rows("SELECT name FROM tasks ORDER BY id")]

    # --- champion and ledger

    def champion(self, task: str) -> str | None:
        history = self._history(task, "DESC LIMIT 1")
        return history[0].policy if history else None

    def champion_history(self, task: str) -> list[Installed]:
        return self._history(task, "ASC")

    def _history(self, task: str, order: str) -> list[Installed]:
        rows = self._database.rows(
            "SELECT digest, reason, ledger FROM champions JOIN policies ON policies.id = champions.policy "
            f"WHERE task = (SELECT id FROM tasks WHERE name = ?) ORDER BY champions.id {order}",
            task,
        )
        return [Installed(policy.hex(), reason, ledger.hex() if ledger else None) for policy, reason, ledger in rows]

    def champion_times(self, task: str) -> list[float]:
        rows = self._database.rows(
            "SELECT created_at FROM champions WHERE task = (SELECT id FROM tasks WHERE name = ?) ORDER BY id", task
        )
        return [float(at) for (at,) in rows]

    def set_champion(self, task: str, policy: Policy, reason: str) -> None:
        with self._database.writing() as connection:
            if self.champion(task) != policy.id:
                _install(connection, self._clock(), (task, policy), reason, None)

    def ledger(self, key: str) -> list[LedgerEntry]:
        return verify_chain(key, self._ledger(key, "ASC"))

    def _ledger(self, key: str, order: str) -> list[LedgerEntry]:
        rows = self._database.rows(
            f"SELECT seq, kind, content, previous, hash FROM ledger WHERE key = ? ORDER BY seq {order}", key
        )
        return [_ledger_entry(key, *row) for row in rows]

    def ledger_head(self, key: str) -> str:
        row = self._database.row("SELECT hash FROM ledger WHERE key = ? ORDER BY seq DESC LIMIT 1", key)
        return row[0].hex() if row else ""

    def append_ledger(
        self,
        key: str,
        kind: LedgerKind,
        content: JsonObject,
        champion: tuple[str, Policy] | None = None,
        *,
        seq: int | None = None,
        lease: Lease | None = None,
    ) -> LedgerEntry:
        text = canonical(content).decode()
        content = json.loads(text)  # as it will be read back: tuples are lists, 1.0 is 1
        with self._database.writing() as connection:
            if lease is not None:
                self._check_lease(lease)
            last = next(iter(self._ledger(key, "DESC LIMIT 1")), None)
            following, previous = (last.seq + 1, last.hash) if last else (0, GENESIS)
            if seq is not None and seq != following:
                raise StoreError(
                    f"ledger {key[:12]!r} has {following} lines, not {seq}: another process has written to it; "
                    "run the same command again, it decides anew"
                )
            entry = LedgerEntry(
                key, following, kind, content, previous, ledger_hash(key, following, kind, content, previous)
            )
            connection.execute(
                "INSERT INTO ledger (key, seq, kind, content, previous, hash, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (key, following, kind, text, bytes.fromhex(previous), bytes.fromhex(entry.hash), self._clock()),
            )
            if champion:
                _install(connection, self._clock(), champion, "confirmed" if kind == "closed" else kind, entry.hash)
        return entry

    # --- runs

    def start_run(self, run: str, task: str, spec: JsonObject) -> None:
        text = canonical(spec).decode()
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO runs (run, task, spec, created_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (run, task, text, self._clock()),
            )
            if self._database.row("SELECT task, spec FROM runs WHERE run = ?", run) != (task, text):
                raise StoreError(f"run {run!r} was started with another task or spec; give the new run another name")

    def runs(self) -> list[Run]:
        rows = self._database.rows("SELECT run, task, spec, finished FROM runs ORDER BY id")
        return [Run(run, task, json.loads(spec), bool(finished)) for run, task, spec, finished in rows]

    def find_run(self, prefix: str) -> Run:
        runs = self.runs()
        found = [run for run in runs if run.run == prefix] or [run for run in runs if run.run.startswith(prefix)]
        if len(found) != 1:
            known = ", ".join(run.run[:12] for run in (found or runs)[-5:]) or "none yet"
            raise StoreError(
                f"{prefix!r} names {'several runs' if found else 'no run'} of store {self._database.name}; "
                f"give one of: {known}"
            )
        return found[0]

    def append_event(self, run: str, seq: int, event: bytes, *, last: bool = False) -> None:
        with self._database.writing() as connection:
            row = self._run(run)
            (count,) = self._database.row("SELECT coalesce(max(seq), -1) + 1 FROM events WHERE run = ?", row)
            if not 0 <= seq <= count:
                raise StoreError(f"run {run!r} holds {count} records and was given number {seq}; write them in order")
            if seq == count:
                connection.execute("INSERT INTO events (run, seq, content) VALUES (?, ?, ?)", (row, seq, pack(event)))
            elif self._event(row, seq) != event:
                raise StoreError(
                    f"run {run!r} no longer repeats itself at record {seq}; start a new run: the task's files, "
                    "the model or Gainful itself changed since it was stopped"
                )
            if last:
                connection.execute("UPDATE runs SET finished = 1 WHERE id = ?", (row,))

    def events(self, run: str) -> list[bytes]:
        rows = self._database.rows("SELECT content FROM events WHERE run = ? ORDER BY seq", self._run(run))
        return [self._database.read(bytes, content) for (content,) in rows]

    def last_events(self, task: str) -> dict[str, bytes]:
        rows = self._database.rows(
            "SELECT runs.run, events.content FROM runs JOIN events ON events.run = runs.id "
            "WHERE runs.task = ? AND finished = 1 AND seq = (SELECT max(seq) FROM events WHERE run = runs.id) "
            "ORDER BY runs.id",
            task,
        )
        return {run: self._database.read(bytes, content) for run, content in rows}

    def lock_run(self, run: str) -> RunLock:
        lock = self._database.lock(run)
        self._locks.append(lock)
        return lock

    # --- life

    def close(self) -> None:
        for lock in self._locks:
            lock.release()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- rows

    def _policy_row(self, connection: Connection, policy: str) -> int:
        row = self._database.row("SELECT id FROM policies WHERE digest = ?", short_id(policy))
        if row is None:
            raise StoreError(
                f"store {self._database.name} holds no policy {policy!r}; store the policy before its attempts"
            )
        return int(row[0])

    def _event(self, run_row: int, seq: int) -> bytes:
        (content,) = self._database.row("SELECT content FROM events WHERE run = ? AND seq = ?", run_row, seq)
        return self._database.read(bytes, content)

    def _run(self, run: str) -> int:
        row = self._database.row("SELECT id FROM runs WHERE run = ?", run)
        if row is None:
            raise StoreError(f"store {self._database.name} holds no run {run!r}; start it before its records")
        return int(row[0])


def _ledger_entry(key: str, seq: int, kind: LedgerKind, content: str, previous: bytes, own: bytes) -> LedgerEntry:
    try:
        return LedgerEntry(key, seq, kind, json.loads(content), previous.hex(), own.hex())
    except ValueError:
        raise broken_ledger(key, seq) from None


def _install(connection: Connection, at: float, champion: tuple[str, Policy], reason: str, ledger: str | None) -> None:
    task, policy = champion
    connection.execute(
        "INSERT INTO champions (task, policy, reason, ledger, created_at) VALUES (?, ?, ?, ?, ?)",
        (
            enter_task(connection, task),
            _put_policy(connection, policy),
            reason,
            bytes.fromhex(ledger) if ledger else None,
            at,
        ),
    )


def _put_policy(connection: Connection, policy: Policy) -> int:
    connection.execute(
        "INSERT INTO policies (digest, content) VALUES (?, ?) ON CONFLICT DO NOTHING",
        (short_id(policy.id), pack(canonical(policy))),
    )
    row, content = connection.execute(
        "SELECT id, content FROM policies WHERE digest = ?", (short_id(policy.id),)
    ).fetchone()
    if content == FORGOTTEN:  # whoever still has its words must not bring them back
        raise forgotten(policy.id)
    return int(row)


def _pack_attempt(attempt: Attempt) -> tuple[bytes, bytes]:
    """Return the attempt's calls as bytes, and the rest of what its row does not say already."""
    calls = [short_id(call) for call in attempt.calls]
    digests = [call for call in calls if isinstance(call, bytes)]
    kept = () if len(digests) == len(calls) else attempt.calls
    rest = msgspec.structs.replace(attempt, case="", policy="", calls=kept)
    return (b"" if kept else b"".join(digests)), pack(encode(rest))
