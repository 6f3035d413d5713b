"""The half of the SQL store that serving uses.

Guarantees what ``Traffic`` promises.  An exchange is encoded apart from being written, so that a server can do the
one where it has the object and the other where it may wait for the disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from gainful.core import Exchange, JsonObject, StoreError, Trial, canonical
from gainful.store.compact import encode, long_id, pack, short_id
from gainful.store.sql import Connection, Database
from gainful.store.traffic import Feedback, Key

MOST_ROWS = 1000  # in one statement; SQLite takes 32,766 values

_exchange = msgspec.json.Decoder(Exchange).decode
_feedback = msgspec.json.Decoder(Feedback).decode
_trial = msgspec.json.Decoder(Trial).decode
_object = msgspec.json.Decoder(JsonObject).decode

_EXCHANGE = (
    "reply, at, tasks.name, policies.digest, exchanges.content FROM exchanges "
    "JOIN tasks ON tasks.id = exchanges.task LEFT JOIN policies ON policies.id = exchanges.policy "
)
_EXCHANGES = f"SELECT {_EXCHANGE}"
ENTER_TASK = "INSERT INTO tasks (name) VALUES (?) ON CONFLICT DO NOTHING"
OF_TASK = "WHERE task = (SELECT id FROM tasks WHERE name = ?) "
_IS_STORED = "SELECT 1 FROM exchanges WHERE reply = ? AND at = ?"
_KEYS = "SELECT name, sha256, created_at, revoked, requests_per_minute, own_data, own_task FROM keys "


class EncodedExchange(NamedTuple):
    """An exchange on its way to the store: what its row says, and the rest as JSON."""

    reply: str
    at: float
    task: str
    policy: str
    text: bytes


def encode_exchange(exchange: Exchange) -> EncodedExchange:
    """Return *exchange* as bytes; later changes to its objects are not seen.

    Raises ``ValueError`` for a time that is no number and ``TypeError`` for content that is not JSON.
    """
    if not math.isfinite(exchange.at):
        raise ValueError(f"exchange {exchange.id!r} is of time {exchange.at!r}; give Unix time in seconds")
    rest = msgspec.structs.replace(exchange, id="", at=0.0, task="", policy="")
    return EncodedExchange(_storable(exchange.id), exchange.at, exchange.task, exchange.policy, encode(rest))


class SQLTraffic:
    """``Traffic`` in *database*; *clock* stamps what has no time of its own."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._tasks: dict[str, int] = {}  # rows that were committed; none is ever removed
        self._policies: dict[str, int] = {}

    # --- exchanges and feedback

    def put_exchanges(self, exchanges: Iterable[Exchange]) -> None:
        self.put_encoded([encode_exchange(exchange) for exchange in exchanges])

    def put_encoded(self, batch: Sequence[EncodedExchange], *, again: bool = False) -> None:
        """Store all of *batch* or none, in one transaction.

        With *again* some may be there: an earlier call has failed, and whether before or after its commit is not known.
        """
        rows = [self._exchange_row(*encoded) for encoded in batch]
        if again:
            with self._database.writing(alone=True) as connection:  # the earlier call has ended, wherever it still ran
                rows = [row for row in rows if not self._database.row(_IS_STORED, *row[:2])]
                if rows:
                    connection.execute(*_insertion(rows))
        elif len(rows) > MOST_ROWS:
            with self._database.writing() as connection:
                for start in range(0, len(rows), MOST_ROWS):
                    connection.execute(*_insertion(rows[start : start + MOST_ROWS]))
        elif rows:
            statement, values = _insertion(rows)
            self._database.execute(statement, *values)

    def _exchange_row(self, reply: str, at: float, task: str, policy: str, text: bytes) -> tuple[Any, ...]:
        policy_row = self._policies.get(policy) or self._stored_policy(policy)
        if policy_row is None:
            text = encode(msgspec.structs.replace(_exchange(text), policy=policy))
        return reply, at, self._tasks.get(task) or self._stored_task(task), policy_row, pack(text)

    def _stored_policy(self, policy: str) -> int | None:
        row = self._database.row("SELECT id FROM policies WHERE digest = ?", short_id(policy))
        if row is None:
            return None
        self._policies[policy] = row[0]
        return self._policies[policy]

    def _stored_task(self, task: str) -> int:
        find = "SELECT id FROM tasks WHERE name = ?"
        if not self._database.row(find, task):
            self._database.execute(ENTER_TASK, task)
        self._tasks[task] = int(self._database.row(find, task)[0])
        return self._tasks[task]

    def exchange(self, reply: str) -> Exchange | None:
        row = self._database.row(f"{_EXCHANGES} WHERE reply = ? ORDER BY exchanges.id DESC LIMIT 1", _storable(reply))
        return self._exchange(*row) if row else None

    def exchanges(self, task: str, *, limit: int = 100, before: int | None = None) -> list[Exchange]:
        limit = max(limit, 0)
        if before is None:
            rows = self._database.rows(f"{_EXCHANGES} {OF_TASK} ORDER BY exchanges.id DESC LIMIT ?", task, limit)
        else:
            first = max(before - limit, 0)
            rows = self._database.rows(
                f"{_EXCHANGES} {OF_TASK} ORDER BY exchanges.id LIMIT ? OFFSET ?", task, max(before, 0) - first, first
            )[::-1]
        return [self._exchange(*row) for row in rows]

    def _exchange(self, reply: str, at: float, task: str, policy: bytes | None, content: bytes) -> Exchange:
        rest = self._database.read(_exchange, content)
        named = rest.policy if policy is None else long_id(policy)
        return msgspec.structs.replace(rest, id=reply, at=at, task=task, policy=named)

    def exchange_count(self, task: str | None = None) -> int:
        if task is None:
            return int(self._database.row("SELECT count(*) FROM exchanges")[0])
        return int(self._database.row(f"SELECT count(*) FROM exchanges {OF_TASK}", task)[0])

    def put_feedback(self, feedback: Feedback) -> None:
        if not 0.0 <= feedback.score <= 1.0:
            raise StoreError(f"feedback on {feedback.reply!r} has score {feedback.score!r}; give a number in [0, 1]")
        reply = _storable(feedback.reply)
        content = pack(encode(msgspec.structs.replace(feedback, reply="", at=0.0)))
        added = self._database.execute(
            "INSERT INTO feedback (exchange, task, at, content) "
            "SELECT id, task, ?, ? FROM exchanges WHERE reply = ? ORDER BY id DESC LIMIT 1",
            feedback.at,
            content,
            reply,
        )
        if not added:
            raise StoreError(f"store {self._database.name} holds no reply {reply!r}; give the id of a stored reply")

    def feedback(self, reply: str) -> list[Feedback]:
        rows = self._database.rows(
            "SELECT reply, feedback.at, feedback.content FROM feedback "
            "JOIN exchanges ON exchanges.id = feedback.exchange WHERE reply = ? ORDER BY feedback.id",
            _storable(reply),
        )
        return [self._feedback(*row) for row in rows]

    def _feedback(self, reply: str, at: float, content: bytes) -> Feedback:
        return msgspec.structs.replace(self._database.read(_feedback, content), reply=reply, at=at)

    # --- the same, from the oldest to the newest

    def last_exchange_row(self) -> int:
        return int(self._database.row("SELECT coalesce(max(id), 0) FROM exchanges")[0])

    def exchanges_after(self, task: str, after: int, *, limit: int = 1000) -> list[tuple[int, Exchange]]:
        rows = self._database.rows(
            f"SELECT exchanges.id, {_EXCHANGE} {OF_TASK} AND exchanges.id > ? ORDER BY exchanges.id LIMIT ?",
            task,
            after,
            max(limit, 0),
        )
        return [(row, self._exchange(*rest)) for row, *rest in rows]

    def feedback_after(self, task: str, after: int, *, limit: int = 1000) -> list[tuple[int, Feedback]]:
        rows = self._database.rows(
            "SELECT feedback.id, reply, feedback.at, feedback.content FROM feedback "
            "JOIN exchanges ON exchanges.id = feedback.exchange "
            "WHERE feedback.task = (SELECT id FROM tasks WHERE name = ?) AND feedback.id > ? "
            "ORDER BY feedback.id LIMIT ?",
            task,
            after,
            max(limit, 0),
        )
        return [(row, self._feedback(*rest)) for row, *rest in rows]

    # --- corrections

    def put_trials(self, trials: Iterable[Trial]) -> None:
        with self._database.writing() as connection:
            for trial in trials:
                task, packed = enter_task(connection, trial.task), _pack_trial(trial)
                if trial.source == "cases":  # the latest stands at the end, so it is not updated where it is
                    connection.execute(
                        'DELETE FROM trials WHERE task = ? AND model = ? AND method = ? AND "case" = ? '
                        "AND source = 'cases'",
                        (task, *packed[:3]),
                    )
                connection.execute(
                    'INSERT INTO trials (task, model, method, "case", source, content) VALUES (?, ?, ?, ?, ?, ?)',
                    (task, *packed),
                )

    def trials(self, task: str, model: str, *, limit: int = 1000) -> list[Trial]:
        rows = self._database.rows(
            f'SELECT method, "case", source, content FROM trials {OF_TASK} AND model = ? ORDER BY id DESC LIMIT ?',
            task,
            model,
            max(limit, 0),
        )
        return [
            msgspec.structs.replace(
                self._database.read(_trial, content),
                task=task,
                model=model,
                method=method,
                case=long_id(case),
                source=source,
            )
            for method, case, source, content in reversed(rows)
        ]

    def put_detector(self, task: str, model: str, content: JsonObject) -> None:
        packed = pack(canonical(content))
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO detectors (task, model, content, created_at) VALUES (?, ?, ?, ?)",
                (enter_task(connection, task), model, packed, self._clock()),
            )

    def detector(self, task: str, model: str) -> JsonObject | None:
        row = self._database.row(
            f"SELECT content FROM detectors {OF_TASK} AND model = ? ORDER BY id DESC LIMIT 1", task, model
        )
        return self._database.read(_object, row[0]) if row else None

    # --- keys

    def put_key(self, key: Key) -> None:
        sha256 = short_id(key.sha256)
        if isinstance(sha256, str):  # perhaps the secret itself: it must not be stored, nor said
            raise StoreError(f"key {key.name!r} comes without a SHA-256; give it as 64 hexadecimal digits")
        with self._database.writing() as connection:
            if self._database.row("SELECT 1 FROM keys WHERE name = ? OR sha256 = ?", key.name, sha256):
                raise StoreError(
                    f"store {self._database.name} holds key {key.name!r} or its secret already; give another name and "
                    "a new secret"
                )
            connection.execute(
                "INSERT INTO keys (name, sha256, created_at, revoked, requests_per_minute, own_data, own_task) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    key.name,
                    sha256,
                    key.created_at,
                    key.revoked,
                    key.requests_per_minute,
                    key.own_data,
                    key.own_task,
                ),
            )

    def keys(self) -> list[Key]:
        return [_key(*row) for row in self._database.rows(f"{_KEYS} ORDER BY id")]

    def revoke_key(self, name: str) -> None:
        if not self._database.execute("UPDATE keys SET revoked = ? WHERE name = ?", True, name):
            known = ", ".join(key.name for key in self.keys()) or "none yet"
            raise StoreError(f"store {self._database.name} holds no key {name!r}; give one of: {known}")

    def find_key(self, sha256: str) -> Key | None:
        row = self._database.row(f"{_KEYS} WHERE sha256 = ?", short_id(sha256))
        return _key(*row) if row else None


def enter_task(connection: Connection, name: str) -> int:
    """Return the number of task *name*, inside a transaction that may have to enter it."""
    connection.execute(ENTER_TASK, (name,))
    (row,) = connection.execute("SELECT id FROM tasks WHERE name = ?", (name,)).fetchone()
    return int(row)


def _insertion(rows: Sequence[tuple[Any, ...]]) -> tuple[str, tuple[Any, ...]]:
    """Return one statement that inserts *rows*, and its values.

    One statement is a transaction of its own; a call a row would give up Python's lock, and wait for it, as many times.
    """
    places = ", ".join(["(?, ?, ?, ?, ?)"] * len(rows))
    return (
        f"INSERT INTO exchanges (reply, at, task, policy, content) VALUES {places}",
        tuple(chain.from_iterable(rows)),
    )


def _pack_trial(trial: Trial) -> tuple[Any, ...]:
    rest = msgspec.structs.replace(trial, task="", model="", method="", case="", source="cases")
    return trial.model, trial.method, short_id(trial.case), trial.source, pack(encode(rest))


def _key(
    name: str, sha256: bytes, created_at: float, revoked: int, limit: int | None, own_data: int, own_task: int
) -> Key:
    return Key(name, sha256.hex(), created_at, bool(revoked), limit, bool(own_data), bool(own_task))


def _storable(id: str) -> str:
    """Return *id*, a stranger's text, with a question mark for each character that no database takes as text."""
    return id.encode(errors="replace").decode().replace("\0", "?")
