"""A lock file: one policy and where its certification lies, enough to put exactly this champion into service elsewhere.

Guarantees: the same champion in the same store gives the same bytes; a file in which a byte was changed is refused, and
so is one whose policy is not the one that its id names.  A digest keeps an accident out, not a forger, who can compute
it as well: what was certified is in the receipt, which is signed.
"""

from __future__ import annotations

import importlib.metadata
from typing import NamedTuple

import msgspec

from gainful.core import Policy, StoreError, Value, canonical, digest
from gainful.loop.events import Opened
from gainful.loop.journal import read_events
from gainful.models.adapters import find_adapter
from gainful.store import LedgerEntry, Run, Store
from gainful.watch.service import FORCED, Helm, Service, next_seed, read_service, service_key

FORMAT = "urn:gainful:lock:v1"


class Lock(Value, frozen=True):
    """What a lock file says.

    ``registration`` is the hash under which the policy was confirmed, as its receipt has it, on the hold-out
    ``holdout`` whose ledger ended at ``ledger``; ``model`` is the digest of the identity of the model that it was
    confirmed with.  All four are ``None`` where nothing confirmed it.  ``sha256`` is the digest of everything else.
    """

    task: str
    id: str
    policy: Policy
    gainful: str
    registration: str | None = None
    holdout: str | None = None
    ledger: str | None = None
    model: str | None = None
    format: str = FORMAT
    sha256: str = ""

    @property
    def digest(self) -> str:
        """What ``sha256`` must be."""
        return digest(_whole(msgspec.structs.replace(self, sha256="")))

    def data(self) -> bytes:
        """Return the file: canonical JSON and a line end."""
        return canonical(_whole(self)) + b"\n"


def _whole(lock: Lock) -> dict[str, object]:
    """Return all members, those with default values too: whoever reads the file sees what is not known."""
    return {name: getattr(lock, name) for name in lock.__struct_fields__}


class _Confirmed(NamedTuple):
    registration: str
    holdout: str


def make_lock(store: Store, task: str) -> Lock:
    """Return the lock of the champion of *task*; raises ``StoreError`` where there is none."""
    champion = store.champion(task)
    if champion is None:
        raise StoreError(f"task {task!r}: nothing is in service yet, so there is nothing to lock; serve or improve it")
    runs = [run for run in store.runs() if run.task == task]
    confirmed = _confirmed(store, task, champion, runs)
    lock = Lock(
        task=task,
        id=champion,
        policy=store.policy(champion),
        gainful=importlib.metadata.version("gainful"),
        registration=confirmed and confirmed.registration,
        holdout=confirmed and confirmed.holdout,
        ledger=confirmed and store.ledger(confirmed.holdout)[-1].hash,
        model=confirmed and _model(store, runs, confirmed),
    )
    return msgspec.structs.replace(lock, sha256=lock.digest)


def _confirmed(store: Store, task: str, champion: str, runs: list[Run]) -> _Confirmed | None:
    """Return the latest confirmation by which *champion* came into service, however it came this time."""
    holdouts = {key: store.ledger(key) for key in {str(run.spec.get("holdout", "")) for run in runs}}
    lines = {entry.hash: entry for entry in store.ledger(service_key(task))}
    lines |= {entry.hash: entry for entries in holdouts.values() for entry in entries}
    for one in reversed(store.champion_history(task)):
        line = lines.get(one.ledger or "")
        registration = line.content.get("registration") if line is not None and one.policy == champion else None
        holdout = next((key for key, entries in holdouts.items() if _is_opened(entries, registration)), None)
        if registration and holdout:
            return _Confirmed(registration, holdout)
    return None


def _is_opened(entries: list[LedgerEntry], registration: str | None) -> bool:
    return any(entry.kind == "opened" and entry.content["registration"] == registration for entry in entries)


def _model(store: Store, runs: list[Run], confirmed: _Confirmed) -> str | None:
    for run in reversed(runs):
        if run.spec.get("holdout") == confirmed.holdout and any(
            isinstance(event, Opened) and event.registration == confirmed.registration
            for event in read_events(store, run.run)
        ):
            return digest(run.spec["model"])
    return None


# --- elsewhere


def read_lock(data: bytes, name: str) -> Lock:
    """Return what the lock file *name*, with this content, says; raises ``StoreError`` where it is not as written."""
    try:
        lock = msgspec.json.decode(data, type=Lock)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"{name!r} is no lock file of this version: {error}; write one with gainful lock") from None
    if lock.format != FORMAT:
        raise StoreError(f"{name!r} is a lock file of format {lock.format!r}, not {FORMAT!r}; update Gainful")
    if lock.sha256 != lock.digest or lock.data() != data or lock.policy.id != lock.id:
        raise StoreError(f"{name!r} was changed since it was written; write it again with gainful lock")
    return lock


def void(lock: Lock) -> str:
    """Say what restoring *lock* voids."""
    if lock.registration is None:
        return f"restored from a lock file that names no confirmation; {FORCED}"
    return (
        f"restored from a lock file: it was confirmed in another store, see the receipt of registration "
        f"{lock.registration[:16]}; no confirmation on this store's cases bounds the chance that it is worse"
    )


def restore(store: Store, lock: Lock, helm: Helm, holdback: float) -> Service:
    """Put the policy of *lock* into service, for all but the share *holdback* where another policy was in service.

    Nothing happens where it is in service already.

    Raises ``AdapterNotFound`` where the files of its adapter are not here: a lock file names them and holds no weights.
    """
    if lock.policy.adapter is not None:
        find_adapter(lock.policy.adapter)
    if store.champion(lock.task) == lock.id:
        return read_service(store, lock.task)
    store.put_policy(lock.policy)
    evidence = {"lock": lock.sha256, "registration": lock.registration}
    share = holdback if store.champion(lock.task) is not None else 0.0
    return helm.force(lock.id, next_seed(lock.task, helm.state), share, evidence=evidence, void=void(lock))
