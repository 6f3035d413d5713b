"""The store on a PostgreSQL server, for processes on several machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from gainful.store.postgres_database import PostgresDatabase
from gainful.store.sql import Sync
from gainful.store.sql_store import BUSY_S, SQLStore


class PostgresStore(SQLStore):
    """A ``Store`` in the database that *address* names, ``postgresql://USER@HOST:PORT/DATABASE``.

    Its tables are made where there are none.  Without *clock* all go by the server's, so that leases and times mean the
    same on every machine.  ``sync="never"`` only reads a store that is there.  Raises ``StoreError`` where the server
    cannot be reached, lets nobody in, or holds something else there.
    """

    def __init__(
        self,
        address: str,
        *,
        clock: Callable[[], float] | None = None,
        sync: Sync | Literal["never"] = "normal",
        busy_s: float = BUSY_S,
    ) -> None:
        database = PostgresDatabase(address, sync, busy_s)
        super().__init__(database, clock or database.time)
