"""What every store of attempts, policies, champions, ledger and runs promises.

Guarantees, for every store: a write is committed when its call returns and survives the death of the process;
writing the same thing again changes nothing, so a resumed run may repeat its writes; a ledger only grows, and
one whose lines were changed, dropped or moved is refused.  Nothing here knows what a ledger line or a run's
record means: the loop does.

Calls are synchronous and belong to one thread.  Several processes may share one store.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Literal, NamedTuple, Protocol, Self, TypeAlias

from gainful.core import Attempt, JsonObject, Policy, StoreError, Value, digest
from gainful.store.bank import Bank, Lease
from gainful.store.traffic import Traffic

LedgerKind: TypeAlias = Literal[
    "epoch", "opened", "closed",  # of a hold-out
    "staged", "rejected", "promoted", "rolled-back", "paused", "resumed", "pinned", "unpinned", "alarm", "forgotten",
    "asked",
    "begun",
]  # fmt: skip

GENESIS = "0" * 64  # what the first line of a ledger names as its predecessor


class LedgerEntry(Value, frozen=True):
    """One line of the ledger kept under ``key``; ``hash`` covers every other field, so also all lines before it."""

    key: str
    seq: int
    kind: LedgerKind
    content: JsonObject
    previous: str
    hash: str


class Installed(NamedTuple):
    """A champion as it came into service; ``ledger`` is the hash of the line that promoted it, if one did."""

    policy: str
    reason: str
    ledger: str | None


class Run(NamedTuple):
    """A run and its spec; ``finished`` says that its last record is written."""

    run: str
    task: str
    spec: JsonObject
    finished: bool


def ledger_hash(key: str, seq: int, kind: str, content: JsonObject, previous: str) -> str:
    """Return the hash of a ledger line: the digest of its five other fields."""
    return digest({"key": key, "seq": seq, "kind": kind, "content": content, "previous": previous})


def verify_chain(key: str, entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """Return *entries* as a list if they are the unbroken ledger *key* from its first line.

    Raises ``StoreError`` naming the first line that does not hold.  Lines missing from the end leave no trace
    in a chain: whoever holds a later hash, as a receipt does, notices.
    """
    chain: list[LedgerEntry] = []
    previous = GENESIS
    for seq, entry in enumerate(entries):
        if (entry.key, entry.seq, entry.previous) != (key, seq, previous) or not _is_own_hash(entry):
            raise broken_ledger(key, seq)
        chain.append(entry)
        previous = entry.hash
    return chain


def broken_ledger(key: str, seq: int) -> StoreError:
    """Return the error for a ledger that is not as it was written, from line *seq* on."""
    return StoreError(
        f"ledger {key[:12]!r} is broken at line {seq}: it is not the line that was written there; restore a copy of "
        "the store, because a changed ledger promotes nothing"
    )


def _is_own_hash(entry: LedgerEntry) -> bool:
    try:
        return entry.hash == ledger_hash(entry.key, entry.seq, entry.kind, entry.content, entry.previous)
    except ValueError:  # no canonical form: nobody of ours wrote it
        return False


class Store(Traffic, Bank, Protocol):
    """What is remembered; what serving adds is said in ``traffic.py``, what learning from traffic adds in ``bank.py``.

    Every method raises ``StoreError`` when the store cannot be read or written.
    """

    # --- memo of model calls

    def memo_get(self, key: str) -> bytes | None:
        """Return what is stored under *key*, ``None`` where nothing is."""
        ...

    def memo_put(self, key: str, value: bytes) -> None:
        """Store *value* under *key*, unless something is stored there: the first write stays."""
        ...

    # --- policies and attempts

    def put_policy(self, policy: Policy) -> None:
        """Store *policy* under its id."""
        ...

    def policy(self, id: str) -> Policy:
        """Return the policy with this id, or with this unique prefix of at least 6 hexadecimal digits."""
        ...

    def put_attempts(self, task: str, attempts: Iterable[Attempt]) -> None:
        """Store all of *attempts* or none; the first attempt of a case under a policy stays.

        Their policies must be stored already.
        """
        ...

    def attempts(self, task: str, policy: str) -> list[Attempt]:
        """Return the attempts made on *task* under the policy with id *policy*, in the order of storing."""
        ...

    def attempt_count(self) -> int:
        """Return how many attempts the store holds, over all tasks."""
        ...

    def tasks(self) -> list[str]:
        """Return the names of all tasks that the store knows anything of, the first one first."""
        ...

    # --- champion and ledger

    def champion(self, task: str) -> str | None:
        """Return the id of the policy in service, ``None`` where none was ever installed."""
        ...

    def champion_history(self, task: str) -> list[Installed]:
        """Return all champions of *task*, the first one first."""
        ...

    def champion_times(self, task: str) -> list[float]:
        """Return when each champion in the history came into service, in Unix seconds."""
        ...

    def set_champion(self, task: str, policy: Policy, reason: str) -> None:
        """Put *policy* into service without a confirmation; nothing changes if it is in service already."""
        ...

    def ledger(self, key: str) -> list[LedgerEntry]:
        """Return the ledger *key*, verified, from its first line; empty where there is none."""
        ...

    def ledger_head(self, key: str) -> str:
        """Return the hash of the last line of ledger *key*, "" where there is none; nothing is verified."""
        ...

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
        """Add a line to ledger *key* and, with *champion* = (task, policy), put that policy into service.

        Both happen or neither; neither where *lease* is no longer its holder's, which raises ``StoreError``.
        The reason in the history of champions is ``confirmed`` where the line is ``closed``, else the line's kind.
        *seq* is the number the line must get: pass the length of the ledger that the line was decided on, and
        a line another process has added meanwhile raises ``StoreError`` instead of being ignored.
        """
        ...

    # --- runs

    def start_run(self, run: str, task: str, spec: JsonObject) -> None:
        """Enter *run*; entering it again is fine, with another task or spec it raises ``StoreError``."""
        ...

    def runs(self) -> list[Run]:
        """Return all runs, the first one first."""
        ...

    def find_run(self, prefix: str) -> Run:
        """Return the one run whose name begins with *prefix*."""
        ...

    def append_event(self, run: str, seq: int, event: bytes, *, last: bool = False) -> None:
        """Write record *seq* (from 0, without gaps) of *run*; with ``last`` the run is finished, in the same breath.

        The same bytes again are accepted silently; other bytes raise ``StoreError``, because a resumed run
        must repeat itself.
        """
        ...

    def events(self, run: str) -> list[bytes]:
        """Return the records of *run* in order."""
        ...

    def last_events(self, task: str) -> dict[str, bytes]:
        """Return the last record of each finished run of *task*, by the run's name, the first run first."""
        ...

    def lock_run(self, run: str) -> AbstractContextManager[object]:
        """Take *run* for this process, at once, until the returned context ends or the process does.

        Raises ``StoreError`` while another holds it.
        """
        ...

    # --- life

    def close(self) -> None:
        """Let go of the store; closing twice is fine."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
