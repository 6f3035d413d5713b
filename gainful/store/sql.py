"""What the store's logic asks of an SQL database: rows, transactions, and faults said in one sentence.

There is one copy of the logic, in ``sql_store.py``, ``sql_traffic.py``, ``sql_bank.py`` and ``forget.py``.  It speaks
the SQL that SQLite and PostgreSQL share, with a question mark for each value.  What differs is in their migrations and
behind this seam.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeAlias, TypeVar

from gainful.core import StoreError
from gainful.store.compact import unpack

Sync: TypeAlias = Literal["normal", "full"]
T = TypeVar("T")


class Found(Protocol):
    """What a statement inside a transaction came to."""

    def fetchone(self) -> Any:
        """Return the next row, ``None`` behind the last."""
        ...


class Connection(Protocol):
    """A transaction that is under way."""

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Found:
        """Do one statement."""
        ...

    def executemany(self, query: str, rows: Iterable[Sequence[Any]], /) -> object:
        """Do one statement with each of *rows*."""
        ...


class RunLock(Protocol):
    """A run that this process holds, until ``release`` or its own end."""

    def release(self) -> None:
        """Let go; releasing twice is fine."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Database(ABC):
    """A connection to a store's tables; ``name`` is how messages call the store.

    Every method raises ``StoreError`` where the database cannot do it.
    """

    name: str

    @abstractmethod
    def writing(self, *, alone: bool = False) -> AbstractContextManager[Connection]:
        """A transaction in which nobody else reads in order to write: all of it or nothing.

        With *alone* nobody else writes anything meanwhile; without, rows that depend on nothing read may be added.
        """

    @abstractmethod
    def execute(self, query: str, *values: Any) -> int:
        """Do one statement as a transaction of its own, and return how many rows it changed."""

    @abstractmethod
    def rows(self, query: str, *values: Any) -> list[Any]:
        """Return all rows that *query* finds."""

    @abstractmethod
    def row(self, query: str, *values: Any) -> Any:
        """Return the first row that *query* finds, else ``None``."""

    @abstractmethod
    def damage(self, seen: str) -> str:
        """Say that something stored cannot be read."""

    @abstractmethod
    def wipe(self, tables: Sequence[str]) -> None:
        """Leave nothing on the disk of what was removed from *tables* before."""

    @abstractmethod
    def lock(self, run: str) -> RunLock:
        """Take *run* for this process, at once; raises ``StoreError`` while another holds it."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; closing twice is fine."""

    def read(self, decode: Callable[[bytes], T], packed: bytes) -> T:
        """Return what a packed text says; raises ``StoreError`` where it was changed since it was written."""
        try:
            return decode(unpack(packed))
        except ValueError as error:
            raise StoreError(self.damage(str(error))) from error
