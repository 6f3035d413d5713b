"""The write-ahead log of a busy store, folded into the file beside its writers.

SQLite would do it inside a commit, which then takes as long as the disk likes.  Here a thread of its own does it, every
few seconds, and stops nobody.  A log begins anew only once all of it is folded in, which under writers that never pause
is never: where it has outgrown its bound, writers are kept out while the pages of the last moment are folded.
"""

from __future__ import annotations

import threading
from pathlib import Path

from gainful.core import StoreError
from gainful.store.sql import Sync
from gainful.store.sqlite_database import SQLiteDatabase
from gainful.store.sqlite_store import MIGRATIONS

EVERY_S = 5.0  # after a log is folded whole, the next commit waits for the disk once: not more often than this
MOST_PAGES = 16_384  # 64 MiB of 4 KiB pages
BUSY_S = 1.0


class LogKeeper:
    """Keeps the log of the store at *path* short until ``close``.

    A fold that fails, on a full disk or a locked store, is tried again; nothing committed depends on it.
    """

    def __init__(self, path: Path, sync: Sync, *, every_s: float = EVERY_S, most_pages: int = MOST_PAGES) -> None:
        self._path, self._sync, self._every_s, self._most_pages = path, sync, every_s, most_pages
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gainful-log", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        database: SQLiteDatabase | None = None
        while not self._closing.wait(self._every_s):
            try:
                if database is None:
                    database = SQLiteDatabase(self._path, self._sync, BUSY_S, MIGRATIONS)
                if database.checkpoint("PASSIVE") > self._most_pages:
                    database.checkpoint("FULL")
            except StoreError:
                continue  # the next round tries again
        if database is not None:
            database.close()

    def close(self) -> None:
        """Stop; closing twice is fine."""
        self._closing.set()
        self._thread.join()
