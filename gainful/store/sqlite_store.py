"""The store in one SQLite file, in WAL mode: readers never wait, and one writer at a time waits milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Literal

from gainful.store.sql import Sync
from gainful.store.sql_store import BUSY_S, SQLStore
from gainful.store.sqlite_database import SQLiteDatabase

MIGRATIONS = files("gainful.store") / "migrations"


class SQLiteStore(SQLStore):
    """A ``Store`` in the file *path*, created with its folders where it is missing.

    *clock* gives the time that ledger lines, champions and runs are stamped with; no content depends on it.
    ``sync="never"`` only reads a store that is there.  Raises ``StoreError`` when the file cannot be a store: a
    directory, another program's, a newer version's.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], float] = time.time,
        sync: Sync | Literal["never"] = "normal",
        busy_s: float = BUSY_S,
    ) -> None:
        self.path = Path(path)
        super().__init__(SQLiteDatabase(self.path, sync, busy_s, MIGRATIONS), clock)

    def leave_log(self) -> None:
        """Never fold the log into the file from here: a commit that did so would take long.  ``LogKeeper`` does."""
        self._database.row("PRAGMA wal_autocheckpoint = 0")
