"""The half of the SQL store that learning from traffic uses: cases, repairs, probes, tallies and leases.

Guarantees what ``Bank`` promises.  Reading what was served is in ``sql_traffic.py``, forgetting in ``forget.py``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from gainful.core import Case, JsonObject, StoreError, Value
from gainful.store.bank import Banked, Forgotten, Lease, Probe, Repair, Side, Signal, Standing, Tally
from gainful.store.compact import encode, long_id, pack, short_id
from gainful.store.forget import brought, forget
from gainful.store.sql import Database
from gainful.store.sql_traffic import OF_TASK, enter_task


class Latest(Value, frozen=True):
    """How a case was last answered, as it lies in one column."""

    signal: Signal = ""
    score: float | None = None
    group: str = ""
    policy: str = ""
    reply: str = ""
    value: Any = None


_case = msgspec.json.Decoder(Case).decode
_latest = msgspec.json.Decoder(Latest).decode
_repair = msgspec.json.Decoder(Repair).decode
_probe = msgspec.json.Decoder(Probe).decode
_any = msgspec.json.Decoder().decode

_BANKED_COLUMNS = (
    'digest, key, latest_key, target_key, side, at, last_at, count, quarantine, opened, "case", target, latest'
)
_BANKED = f"SELECT {_BANKED_COLUMNS} FROM banked "
_IS_TOLD = "excluded.target IS NOT NULL AND banked.opened = ''"  # what a confirmation was judged by stays as it was
_ENTER_CASE = (
    f"INSERT INTO banked (task, {_BANKED_COLUMNS}) VALUES (?{', ?' * 13}) ON CONFLICT (task, digest) DO UPDATE SET "
    "count = banked.count + excluded.count, last_at = excluded.last_at, latest = excluded.latest, "
    f"latest_key = excluded.latest_key, target = CASE WHEN {_IS_TOLD} THEN excluded.target ELSE banked.target END, "
    f"target_key = CASE WHEN {_IS_TOLD} THEN excluded.target_key ELSE banked.target_key END"
)

_TOLD = {False: "", True: "AND target IS NOT NULL"}  # of whom a caller told the right answer

_TALLIED = Tally.__struct_fields__[3:]  # behind hour, policy and arm
_COLUMNS = ", ".join(f'"{name}"' for name in ("hour", "policy", "arm", *_TALLIED))
_ADDED = ", ".join(
    f'"{name}" = coalesce(tallies."{name}" + excluded."{name}", tallies."{name}", excluded."{name}")'
    for name in _TALLIED
)
_ADD_TALLY = (
    f"INSERT INTO tallies (task, {_COLUMNS}) VALUES (?, ?, ?, ?{', ?' * len(_TALLIED)}) "
    f"ON CONFLICT (task, hour, policy, arm) DO UPDATE SET {_ADDED}"
)


class SQLBank:
    """``Bank`` in the store's database; *_clock* says when a lease ends."""

    _database: Database
    _clock: Callable[[], float]

    # --- taking in

    def cursor(self, task: str, name: str) -> int:
        row = self._database.row(f"SELECT upto FROM cursors {OF_TASK} AND name = ?", task, name)
        return int(row[0]) if row else 0

    def take_in(
        self, task: str, name: str, upto: int, cases: Iterable[Banked] = (), tallies: Iterable[Tally] = ()
    ) -> None:
        packed = [_pack_banked(case) for case in cases]  # before the lock is taken: writers wait for nothing
        counted = [_pack_tally(tally) for tally in tallies]
        with self._database.writing() as connection:
            if upto <= self.cursor(task, name):
                return
            row = enter_task(connection, task)
            connection.execute(
                "INSERT INTO cursors (task, name, upto) VALUES (?, ?, ?) "
                "ON CONFLICT (task, name) DO UPDATE SET upto = excluded.upto",
                (row, name, upto),
            )
            connection.executemany(_ENTER_CASE, ((row, *case) for case in packed))
            connection.executemany(_ADD_TALLY, ((row, *tally) for tally in counted))

    # --- cases

    def banked(
        self, task: str, side: Side, *, limit: int = 1000, only_free: bool = True, only_targets: bool = False
    ) -> list[Banked]:
        limit = max(limit, 0)
        found: list[tuple[Any, ...]] = []
        for is_free in (1,) if only_free else (1, 0):  # each in the index's order
            found += self._database.rows(
                f"{_BANKED} {OF_TASK} AND side = ? AND is_free = ? {_TOLD[only_targets]} "
                "ORDER BY last_at DESC, id DESC LIMIT ?",
                task,
                side,
                is_free,
                limit,
            )
        cases = [self._banked(*row) for row in found]
        return sorted(cases, key=lambda case: -case.last_at)[:limit]

    def find_banked(self, task: str, ids: Iterable[str]) -> list[Banked]:
        found = (self._database.row(f"{_BANKED} {OF_TASK} AND digest = ?", task, short_id(id)) for id in ids)
        return [self._banked(*row) for row in found if row is not None]

    def count_banked(self, task: str, side: Side, *, only_free: bool = True, only_targets: bool = False) -> int:
        free = "AND is_free = 1" if only_free else ""
        (count,) = self._database.row(
            f"SELECT count(*) FROM banked {OF_TASK} AND side = ? {free} {_TOLD[only_targets]}", task, side
        )
        return int(count)

    def open_banked(
        self, task: str, count: int, confirmation: str, *, only_targets: bool = False, most_of_a_key: float = 1.0
    ) -> list[Banked]:
        if not confirmation:
            raise StoreError("cases are opened for a confirmation without a name; give its registration")
        with self._database.writing() as connection:
            held = self._opened(task, confirmation)
            if not held:
                free = self._database.rows(
                    "SELECT id, digest, key, CASE WHEN target IS NULL THEN key ELSE target_key END "
                    f"FROM banked {OF_TASK} AND side = 'held-out' AND is_free = 1 {_TOLD[only_targets]}",
                    task,
                )
                rows = [(confirmation, row) for row in _drawn(free, max(count, 0), confirmation, most_of_a_key)]
                connection.executemany("UPDATE banked SET opened = ? WHERE id = ?", rows)
                held = self._opened(task, confirmation)
                if len(held) < count:
                    raise StoreError(
                        f"task {task!r} has {len(held)} held-out cases that nobody has used, and a confirmation asks "
                        f"for {count}; wait for more traffic"
                    )
            if len(held) != max(count, 0):
                raise StoreError(
                    f"confirmation {confirmation[:12]!r} of task {task!r} holds {len(held)} cases and asks for "
                    f"{count}: it was given another number, or some were forgotten; start another confirmation"
                )
        return held

    def _opened(self, task: str, confirmation: str) -> list[Banked]:
        rows = self._database.rows(
            f"{_BANKED} {OF_TASK} AND opened = ? AND opened <> '' ORDER BY digest", task, confirmation
        )
        return [self._banked(*row) for row in rows]

    def _banked(self, id: bytes | str, *row: Any) -> Banked:
        key, latest_key, target_key, side, at, last_at, count, quarantine, opened, case, target, latest = row
        answered = self._database.read(_latest, latest)
        asked = self._database.read(_case, case)
        if target is not None:
            asked = msgspec.structs.replace(asked, target=self._database.read(_any, target))
        return Banked(
            id=long_id(id),
            case=asked,
            side=side,
            at=at,
            last_at=last_at,
            key=key,
            count=count,
            quarantine=quarantine,
            opened=opened,
            latest_key=latest_key,
            target_key=target_key,
            **msgspec.structs.asdict(answered),
        )

    # --- repairs, probes, tallies

    def put_repairs(self, task: str, repairs: Iterable[Repair]) -> None:
        packed = [
            (short_id(one.id), one.key, one.at, pack(encode(msgspec.structs.replace(one, id="", at=0.0, key=""))))
            for one in repairs
        ]
        with self._database.writing() as connection:
            row = enter_task(connection, task)
            connection.executemany(
                "INSERT INTO repairs (task, digest, key, at, content) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (task, digest) "
                "DO UPDATE SET key = excluded.key, at = excluded.at, content = excluded.content",
                ((row, *repair) for repair in packed),
            )

    def repairs(self, task: str, *, limit: int = 1000) -> list[Repair]:
        rows = self._database.rows(
            f"SELECT digest, key, at, content FROM repairs {OF_TASK} ORDER BY at DESC, id DESC LIMIT ?",
            task,
            max(limit, 0),
        )
        return [
            msgspec.structs.replace(self._database.read(_repair, content), id=long_id(id), key=key, at=at)
            for id, key, at, content in rows
        ]

    def put_probes(self, task: str, probes: Iterable[Probe]) -> None:
        packed = [(one.at, short_id(one.id), pack(encode(msgspec.structs.replace(one, id="")))) for one in probes]
        with self._database.writing() as connection:
            row = enter_task(connection, task)
            connection.executemany(
                "INSERT INTO probes (task, at, digest, content) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (task, at, digest) DO UPDATE SET content = excluded.content",
                ((row, *probe) for probe in packed),
            )

    def probes(self, task: str, *, limit: int = 1000) -> list[Probe]:
        rows = self._database.rows(
            f"SELECT digest, content FROM probes {OF_TASK} ORDER BY at DESC, digest DESC LIMIT ?",
            task,
            max(limit, 0),
        )
        return [
            msgspec.structs.replace(self._database.read(_probe, content), id=long_id(id))
            for id, content in reversed(rows)
        ]

    def tallies(self, task: str, *, since_hour: int = 0) -> list[Tally]:
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM tallies {OF_TASK} AND hour >= ? ORDER BY hour, policy, arm", task, since_hour
        )
        return [Tally(hour, long_id(policy), *rest) for hour, policy, *rest in rows]

    def put_standing(self, task: str, name: str, at: float, content: JsonObject) -> None:
        packed = pack(encode(content))
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO standing (task, name, at, content) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (task, name) DO UPDATE SET at = excluded.at, content = excluded.content",
                (enter_task(connection, task), name, at, packed),
            )

    def standing(self, task: str, name: str) -> Standing | None:
        row = self._database.row(f"SELECT at, content FROM standing {OF_TASK} AND name = ?", task, name)
        return Standing(row[0], self._database.read(_any, row[1])) if row else None

    # --- leases

    def take_lease(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        with self._database.writing() as connection:
            now = self._clock()
            token = 1
            row = self._database.row("SELECT holder, token, until FROM leases WHERE name = ?", name)
            if row is not None:
                held_by, token, until = row
                if until > now and held_by != holder:
                    return None
                if until <= now:
                    token += 1
            lease = Lease(name, holder, token, now + ttl_s)
            connection.execute(
                "INSERT INTO leases (name, holder, token, until) VALUES (?, ?, ?, ?) ON CONFLICT (name) "
                "DO UPDATE SET holder = excluded.holder, token = excluded.token, until = excluded.until",
                lease,
            )
        return lease

    def find_lease(self, name: str) -> Lease | None:
        row = self._database.row(
            "SELECT name, holder, token, until FROM leases WHERE name = ? AND until > ?", name, self._clock()
        )
        return Lease(*row) if row else None

    def end_lease(self, lease: Lease) -> None:
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE leases SET until = 0 WHERE name = ? AND holder = ? AND token = ?",
                (lease.name, lease.holder, lease.token),
            )

    def _check_lease(self, lease: Lease) -> None:
        """Raise ``StoreError`` unless *lease* still is its holder's; inside the transaction that it must cover."""
        row = self._database.row(
            "SELECT until FROM leases WHERE name = ? AND holder = ? AND token = ?",
            lease.name,
            lease.holder,
            lease.token,
        )
        if row is None or row[0] <= self._clock():
            raise StoreError(
                f"lease {lease.name!r} of {lease.holder!r} is over or another's by now; take it again and decide anew"
            )

    # --- forgetting

    def brought_by(self, key: str) -> list[str]:
        return brought(self._database, key)

    def forget_key(self, key: str, policies: Sequence[str] = ()) -> Forgotten:
        return forget(self._database, key, policies)


def _drawn(free: Sequence[tuple[int, bytes | str, str, str]], count: int, confirmation: str, share: float) -> list[int]:
    """Return the rows of *count* of the *free* cases, in an order that nobody could choose who wrote them.

    Each is given with the keys of who asked it first and of who told its target.
    """
    order = sorted(free, key=lambda row: hashlib.sha256(f"{confirmation} {long_id(row[1])}".encode()).digest())
    keys = len({key for _, _, *hands in free for key in hands})
    most = max(1, int(count * max(share, 1 / keys))) if keys > 1 else count
    taken: Counter[str] = Counter()
    chosen: list[int] = []
    over: list[int] = []
    for id, _, *hands in order:
        if all(taken[key] < most for key in hands):
            taken.update(set(hands))
            chosen.append(id)
        else:
            over.append(id)
    return (chosen + over)[:count]


def _pack_banked(case: Banked) -> tuple[Any, ...]:
    if case.score is not None and not 0.0 <= case.score <= 1.0:
        raise StoreError(
            f"case {case.id[:12]!r} has score {case.score!r}; give a number in [0, 1], or None for unknown"
        )
    latest = Latest(case.signal, case.score, case.group, case.policy, case.reply, case.value)
    target = case.case.target
    return (
        short_id(case.id),
        case.key,
        case.latest_key,
        case.target_key,
        case.side,
        case.at,
        case.last_at,
        case.count,
        case.quarantine,
        case.opened,
        pack(encode(msgspec.structs.replace(case.case, target=None))),
        None if target is None else pack(encode(target)),
        pack(encode(latest)),
    )


def _pack_tally(tally: Tally) -> tuple[Any, ...]:
    hour, policy, *rest = msgspec.structs.astuple(tally)
    return hour, short_id(policy), *rest
