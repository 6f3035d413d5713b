"""Removing from a store all that one caller brought, and what was learned from it.

Guarantees: all of it happens or nothing; once ``forget`` returns, no removed byte is left in the file or its log.
The ledger, the history of champions and all ids stay, so that what was decided can still be read and checked.

A case that another sent before stays, without what the caller told of it and what stands on that.

What remains: tallies and trials, which hold numbers and digests; the name of the key itself; words of the caller's that
another sent before; what others were answered under a policy that carried them; a memo reply whose run died before its
attempt was entered, under a digest that only the prompt leads to; and copies outside the store, such as receipts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from gainful.core import Attempt, Case, JsonObject, Policy, StoreError, canonical, digest
from gainful.store.bank import Forgotten, Probe, Repair
from gainful.store.compact import long_id, pack, short_id, split_ids
from gainful.store.sql import Connection, Database

TABLES = ("exchanges", "feedback", "banked", "repairs", "probes", "policies", "attempts", "memo", "events")
AT_ONCE = 10_000  # rows read by one statement: some 10 MB
FORGOTTEN = b""  # in place of a policy's packed words; ``pack`` never makes it
UNANSWERED = pack(b"{}")  # in place of how a case was last answered, and what was said of that
QUOTING = (b'"question"', b'"instructions"', b'"demos"')  # members by which a record quotes an example or a policy
BLANK: JsonObject = {"instructions": "(forgotten)"}  # in place of a policy in a record: it must read as one


def forgotten(policy: str) -> StoreError:
    """Return the error for a policy that only its id is left of."""
    return StoreError(
        f"policy {policy[:12]} was forgotten: its words carried those of a caller who was; its id alone is left, "
        "choose another policy"
    )


class _Keyed(msgspec.Struct):
    """What is read of an exchange, or of feedback, to tell whose it is."""

    key: str = ""


_keyed = msgspec.json.Decoder(_Keyed).decode
_case = msgspec.json.Decoder(Case).decode
_repair = msgspec.json.Decoder(Repair).decode
_probe = msgspec.json.Decoder(Probe).decode
_policy = msgspec.json.Decoder(Policy).decode
_attempt = msgspec.json.Decoder(Attempt).decode
_record = msgspec.json.Decoder().decode


def forget(database: Database, key: str, policies: Sequence[str]) -> Forgotten:
    """Remove what ``Bank.forget_key`` says, in one transaction, and wipe it off the disk."""
    scanned = {table: _rows_of(database, table, key, 0) for table in ("exchanges", "feedback")}  # while others write
    with database.writing(alone=True) as connection:
        exchanges, feedback = (
            scanned[table].rows + _rows_of(database, table, key, scanned[table].upto).rows
            for table in ("exchanges", "feedback")
        )
        connection.executemany("DELETE FROM feedback WHERE id = ?", ((row,) for row in feedback))
        connection.executemany("DELETE FROM feedback WHERE exchange = ?", ((row,) for row in exchanges))
        connection.executemany("DELETE FROM exchanges WHERE id = ?", ((row,) for row in exchanges))
        words, cases, repairs, probes = _remove_cases(database, connection, key)
        blanked = _blank_policies(database, connection, key, policies, words)
        _remove_attempts(database, connection, words, blanked)
        _redact_records(database, connection, words, blanked)
    database.wipe(TABLES)
    return Forgotten(len(exchanges), cases, repairs, probes, tuple(sorted(blanked)))


class _Scanned(NamedTuple):
    rows: list[int]
    upto: int


def _rows_of(database: Database, table: Literal["exchanges", "feedback"], key: str, after: int) -> _Scanned:
    """Return the rows of *table* behind row *after* that are *key*'s: their key is inside their text."""
    found: list[int] = []
    for row, content in _each(database, f"SELECT id, content FROM {table} WHERE id > ? ORDER BY id", (after,)):
        after = row
        if database.read(_keyed, content).key == key:
            found.append(row)
    return _Scanned(found, after)


def _each(database: Database, query: str, after: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of *query*, whose first columns go on behind *after*: never more than ``AT_ONCE`` in memory."""
    while rows := database.rows(f"{query} LIMIT {AT_ONCE}", *after):
        yield from rows
        after = rows[-1][: len(after)]


# --- cases, and all that stands on them


class _Words:
    """The cases that are being forgotten: their ids, as the bank and as attempts name them, and their texts."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self._texts: list[str] = []

    def add(self, id: str, case: Case) -> None:
        self.ids |= {id, case.id}
        self._texts.append(case.text)

    def sort(self) -> None:
        self._texts.sort()

    def begin_with(self, quoted: str) -> bool:
        """Whether *quoted* is one of the texts or the beginning of one; call ``sort`` first."""
        at = bisect_left(self._texts, quoted)
        return bool(quoted) and at < len(self._texts) and self._texts[at].startswith(quoted)


def brought(database: Database, key: str) -> list[str]:
    """Return what ``Bank.brought_by`` says."""
    return sorted(_found(database, key).words.ids)


class _Found(NamedTuple):
    """The rows of a caller's cases, of others' whose target is theirs, and of repairs that are theirs or of these."""

    words: _Words
    cases: list[int]
    told: list[int]
    repairs: list[int]


def _found(database: Database, key: str) -> _Found:
    words = _Words()
    cases = database.rows('SELECT id, digest, "case" FROM banked WHERE key = ?', key)
    told = database.rows(
        'SELECT id, digest, "case" FROM banked WHERE target_key = ? AND key <> ? AND target IS NOT NULL', key, key
    )
    for _, id, content in (*cases, *told):
        words.add(long_id(id), database.read(_case, content))
    repairs = []
    for row, id, owner, content in database.rows("SELECT id, digest, key, content FROM repairs"):
        repair = database.read(_repair, content)
        if owner == key or {long_id(id), repair.case.id} & words.ids:
            repairs.append(row)
            words.add(long_id(id), repair.case)
    return _Found(words, [row for row, *_ in cases], [row for row, *_ in told], repairs)


def _remove_cases(database: Database, connection: Connection, key: str) -> tuple[_Words, int, int, int]:
    """Remove the cases of *key*, its word on others', and repairs and probes of both; return what and how many."""
    words, cases, told, repairs = _found(database, key)
    probes = []
    for row, id, content in database.rows("SELECT id, digest, content FROM probes"):
        if {long_id(id), database.read(_probe, content).case.id} & words.ids:
            probes.append(row)
    for table, rows in (("banked", cases), ("repairs", repairs), ("probes", probes)):
        connection.executemany(f"DELETE FROM {table} WHERE id = ?", ((row,) for row in rows))
    connection.executemany("UPDATE banked SET target = NULL, target_key = '' WHERE id = ?", ((row,) for row in told))
    connection.execute("UPDATE banked SET latest = ?, latest_key = '' WHERE latest_key = ?", (UNANSWERED, key))
    words.sort()
    return words, len(cases), len(repairs), len(probes)


def _blank_policies(
    database: Database, connection: Connection, key: str, policies: Sequence[str], words: _Words
) -> set[str]:
    """Blank *policies* and those that show a forgotten case; return the ids of all that had words until now."""
    blanked = set()
    wanted = set(policies)
    for row, id, content in database.rows("SELECT id, digest, content FROM policies WHERE content <> ?", FORGOTTEN):
        name = long_id(id)
        if name in wanted or any(demo.case.id in words.ids for demo in database.read(_policy, content).demos):
            _refuse_champion(database, key, row, name)
            connection.execute("UPDATE policies SET content = ? WHERE id = ?", (FORGOTTEN, row))
            blanked.add(name)
    for name in wanted - blanked:
        if not database.row("SELECT 1 FROM policies WHERE digest = ?", short_id(name)):
            raise StoreError(f"store {database.name} holds no policy {name!r}; give full ids of stored policies")
    return blanked


def _refuse_champion(database: Database, key: str, row: int, policy: str) -> None:
    task = database.row(
        "SELECT tasks.name FROM champions JOIN tasks ON tasks.id = champions.task WHERE policy = ? "
        "AND champions.id = (SELECT max(id) FROM champions AS latest WHERE latest.task = champions.task)",
        row,
    )
    if task:
        raise StoreError(
            f"policy {policy[:12]} is in service for task {task[0]!r} and carries words of key {key!r}; nothing was "
            "forgotten: put another policy into service first"
        )


def _remove_attempts(database: Database, connection: Connection, words: _Words, blanked: set[str]) -> None:
    """Remove the attempts on forgotten cases, or under forgotten policies, and the memo's calls behind them."""
    rows = {database.row("SELECT id FROM policies WHERE digest = ?", short_id(id))[0] for id in blanked}
    found: list[int] = []
    calls: set[str] = set()
    if words.ids or rows:
        for row, policy, case, packed, content in _each(
            database, 'SELECT id, policy, "case", calls, content FROM attempts WHERE id > ? ORDER BY id', (0,)
        ):
            if long_id(case) in words.ids or policy in rows:
                found.append(row)
                calls.update(split_ids(packed) or database.read(_attempt, content).calls)
    connection.executemany("DELETE FROM attempts WHERE id = ?", ((row,) for row in found))
    connection.executemany("DELETE FROM memo WHERE key = ?", ((short_id(call),) for call in calls))


# --- records of runs


def _redact_records(database: Database, connection: Connection, words: _Words, blanked: set[str]) -> None:
    """Blank what records quote: examples of forgotten cases, and forgotten policies; the rest of a record stays."""
    changed = []
    records = "SELECT run, seq, content FROM events WHERE (run, seq) > (?, ?) ORDER BY run, seq"
    for run, seq, content in _each(database, records, (0, -1)):
        text = database.read(bytes, content)
        if not any(name in text for name in QUOTING):
            continue
        record = _record(text)
        redacted = _redacted(record, words, blanked)
        if redacted != record:
            changed.append((pack(canonical(redacted)), run, seq))
    connection.executemany("UPDATE events SET content = ? WHERE run = ? AND seq = ?", changed)


def _redacted(value: Any, words: _Words, blanked: set[str]) -> Any:
    if isinstance(value, list):
        return [_redacted(item, words, blanked) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("question"), str) and words.begin_with(value["question"]):
        return {name: "" if isinstance(member, str) else member for name, member in value.items()}
    if ("instructions" in value or "demos" in value) and (
        digest(value) in blanked or any(id in words.ids for id in _shown(value.get("demos")))
    ):
        return BLANK
    return {name: _redacted(member, words, blanked) for name, member in value.items()}


def _shown(demos: Any) -> Iterator[str]:
    """Yield the ids of the cases that *demos* show, as far as they are demos."""
    for demo in demos if isinstance(demos, Iterable) else ():
        try:
            yield msgspec.convert(demo["case"], Case).id
        except (TypeError, KeyError, msgspec.ValidationError):  # some other member of that name
            continue
