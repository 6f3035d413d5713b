"""What is remembered: attempts, policies, champions, the ledger, runs, and a memo of model calls."""

from pathlib import Path

from gainful.core import StoreError
from gainful.store.memo import MemoModel, memo_key
from gainful.store.sqlite import SQLiteStore
from gainful.store.store import Installed, LedgerEntry, LedgerKind, Run, Store, verify_chain

__all__ = [
    "Installed",
    "LedgerEntry",
    "LedgerKind",
    "MemoModel",
    "Run",
    "SQLiteStore",
    "Store",
    "memo_key",
    "open_store",
    "verify_chain",
]


def open_store(place: str | Path) -> Store:
    """Open the store at *place*, a file path or ``sqlite:///PATH``; make it where there is none.

    Raises ``StoreError`` for any other address, and where the file cannot be a store.
    """
    text = str(place)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return SQLiteStore(place)
    if scheme == "sqlite" and len(rest) > 1:
        return SQLiteStore(rest[1:])
    raise StoreError(f"{text!r} is no store; give a file path or sqlite:///PATH")
