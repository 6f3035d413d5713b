"""What is remembered: attempts, policies, champions, the ledger, runs, a memo of model calls, and what was served."""

from pathlib import Path
from typing import Literal

from gainful.core import StoreError
from gainful.store.bank import Bank, Banked, Forgotten, Lease, Probe, Repair, Standing, Tally
from gainful.store.log import LogKeeper
from gainful.store.memo import MemoModel, memo_key
from gainful.store.place import full_place, spoken_place, store_file
from gainful.store.sql import Sync
from gainful.store.sql_store import BUSY_S, SQLStore
from gainful.store.sql_traffic import EncodedExchange, encode_exchange
from gainful.store.sqlite_store import SQLiteStore
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
    "SQLStore",
    "SQLiteStore",
    "Standing",
    "Store",
    "Sync",
    "Tally",
    "Traffic",
    "encode_exchange",
    "full_place",
    "memo_key",
    "open_for_reading",
    "open_store",
    "spoken_place",
    "store_file",
    "verify_chain",
]


def open_store(place: str | Path, *, sync: Sync = "normal", busy_s: float = BUSY_S) -> SQLStore:
    """Open the store at *place*, a file path, ``sqlite:///PATH`` or ``postgresql://...``; make it where there is none.

    With ``sync="full"`` commits survive a power cut as well.  *busy_s* is how long a call waits for another process.
    Raises ``StoreError`` for any other address, and where no store can be there.
    """
    return _opened(place, sync, busy_s)


def open_for_reading(place: str | Path) -> SQLStore:
    """Open the store at *place* for reading alone; its methods that write raise ``StoreError``.

    Raises ``StoreError`` where there is none, and for one of another version.
    """
    return _opened(place, "never", BUSY_S)


def _opened(place: str | Path, sync: Sync | Literal["never"], busy_s: float) -> SQLStore:
    file = store_file(place)
    if file is not None:
        return SQLiteStore(file, sync=sync, busy_s=busy_s)
    try:
        from gainful.store.postgres_store import PostgresStore
    except ImportError as error:
        raise StoreError(
            f"a store on a PostgreSQL server needs psycopg ({error}); install it with: pip install 'gainful[postgres]'"
        ) from error
    return PostgresStore(str(place), sync=sync, busy_s=busy_s)
