"""What is remembered: attempts, policies, champions, the ledger, runs, a memo of model calls, and what was served."""

from pathlib import Path

from gainful.core import StoreError
from gainful.store.bank import Bank, Banked, Forgotten, Lease, Probe, Repair, Standing, Tally
from gainful.store.database import Sync
from gainful.store.log import LogKeeper
from gainful.store.memo import MemoModel, memo_key
from gainful.store.sqlite import SQLiteStore
from gainful.store.sqlite_traffic import EncodedExchange, encode_exchange
from gainful.store.store import Installed, LedgerEntry, LedgerKind, Run, Store, verify_chain
from gainful.store.traffic import Feedback, Key, Traffic

__all__ = [
    "Bank",
    "Banked",
    "EncodedExchange",
    "Feedback",
    "Forgotten",
    "Installed",
    "Key",
    "Lease",
    "LedgerEntry",
    "LedgerKind",
    "LogKeeper",
    "MemoModel",
    "Probe",
    "Repair",
    "Run",
    "SQLiteStore",
    "Standing",
    "Store",
    "Sync",
    "Tally",
    "Traffic",
    "encode_exchange",
    "memo_key",
    "open_for_reading",
    "open_store",
    "store_file",
    "verify_chain",
]


def open_store(place: str | Path, *, sync: Sync = "normal") -> Store:
    """Open the store at *place*, a file path or ``sqlite:///PATH``; make it where there is none.

    With ``sync="full"`` commits survive a power cut as well.  Raises ``StoreError`` for any other address, and where
    the file cannot be a store.
    """
    return SQLiteStore(store_file(place), sync=sync)


def open_for_reading(place: str | Path) -> Store:
    """Open the store at *place* for reading alone; its methods that write raise ``StoreError``.

    Raises ``StoreError`` where there is none, and for one of another version.
    """
    return SQLiteStore(store_file(place), sync="never")


def store_file(place: str | Path) -> Path:
    """Return the file that *place* names; raises ``StoreError`` for an address of another kind."""
    text = str(place)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Path(place)
    if scheme == "sqlite" and len(rest) > 1:
        return Path(rest[1:])
    raise StoreError(f"{text!r} is no store; give a file path or sqlite:///PATH")
