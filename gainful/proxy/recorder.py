"""Exchanges on disk before their replies are sent, many in one commit.

Guarantees: ``record`` says ``True`` only of a row that is committed, so it survives the death of the process, and with
``sync="full"`` a power cut.  It raises for no fault of the store: it says ``False`` in time, and the server fails open.
A row that came too late stays and is written once the store is well again, as far as there is room to keep it.
What waits is bounded, in rows and in bytes.

While one batch is being committed the next one gathers: there is no timer, a lone row leaves at once, and a busy
server commits many rows at the price of one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import NamedTuple

from gainful.core import Exchange, StoreError
from gainful.store import (
    EncodedExchange,
    LogKeeper,
    SQLiteStore,
    SQLStore,
    Sync,
    encode_exchange,
    open_store,
    store_file,
)

MOST_WAITING_ROWS = 10_000
MOST_WAITING_BYTES = 64 << 20
MOST_AT_ONCE = 256  # rows in one commit: to pack more would keep the first of them waiting
BUSY_S = 0.5  # how long one try waits for a store that another process holds
PAUSE_S = 0.1  # between tries on a store that refused
LOG_EVERY_S = 10.0  # a server of 1,000 requests/s on a full disk must not fill another one with its log

_log = logging.getLogger("gainful.proxy")


class _Waiting(NamedTuple):
    encoded: EncodedExchange
    committed: asyncio.Future[bool]

    @property
    def size(self) -> int:
        return len(self.encoded.text)


class Recorder:
    """Writes exchanges to the store at *place*; to be used from one event loop.

    ``failed`` counts the calls of ``record`` that said ``False``.  Raises ``StoreError`` where *place* is no store.
    """

    def __init__(self, place: str | Path, *, sync: Sync = "normal", busy_s: float = BUSY_S) -> None:
        self.failed = 0
        self._place = place
        self._arriving: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._backlog: deque[_Waiting] = deque()  # the writer's own
        self._taken = self._taken_bytes = 0  # counted by the event loop
        self._settled = self._settled_bytes = 0  # counted by the writer; the difference is what waits
        self._fault: str | None = None
        self._doubtful = 0  # rows at the head of the backlog that a try has failed with: they may be there all the same
        self._told_at = -LOG_EVERY_S
        self._closing = Event()
        opened: Future[None] = Future()
        self._thread = Thread(target=self._run, args=(opened, sync, busy_s), name="gainful-recorder", daemon=True)
        self._thread.start()
        opened.result()
        file = store_file(place)
        self._log_keeper = None if file is None else LogKeeper(file, sync)  # a server keeps its log itself

    async def record(self, exchange: Exchange, timeout_s: float) -> bool:
        """Return whether *exchange* was committed within *timeout_s* seconds.

        If not, the row may still be written later.  Whoever is cancelled while waiting leaves the row to be written.
        """
        committed = self._hand_over(exchange, MOST_WAITING_ROWS, MOST_WAITING_BYTES)
        if isinstance(committed, str):
            return self._fail(committed)
        timer = asyncio.get_running_loop().call_later(timeout_s, _settle, [committed], False)
        try:
            return await committed or self._fail(self._fault or f"the store took longer than {timeout_s:g} s")
        finally:
            timer.cancel()

    def offer(self, exchange: Exchange) -> bool:
        """Have *exchange* written when there is time for it; say whether there is room.

        Nobody waits for it: half of the room is left to those who do.
        """
        return not isinstance(self._hand_over(exchange, MOST_WAITING_ROWS // 2, MOST_WAITING_BYTES // 2), str)

    @property
    def waiting(self) -> int:
        """How many exchanges are not written yet."""
        return self._taken - self._settled

    def _hand_over(self, exchange: Exchange, most_rows: int, most_bytes: int) -> asyncio.Future[bool] | str:
        """Give *exchange* to the writer, or say why not; the future says whether it was committed."""
        try:
            encoded = encode_exchange(exchange)
        except (TypeError, ValueError, RecursionError) as error:
            return f"exchange cannot be written as JSON, {type(error).__name__}"  # its words may be content
        if self._closing.is_set():
            return "the recorder is closed"
        size = len(encoded.text)
        if self.waiting >= most_rows or self._taken_bytes - self._settled_bytes + size > most_bytes:
            return self._fault or "too many exchanges wait for the store"
        committed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._taken += 1
        self._taken_bytes += size
        self._arriving.put(_Waiting(encoded, committed))
        return committed

    def _fail(self, reason: str) -> bool:
        self.failed += 1
        if time.monotonic() - self._told_at >= LOG_EVERY_S:
            self._told_at = time.monotonic()
            _log.error("replies go out before they are stored", extra={"replies": self.failed, "reason": reason})
        return False

    def close(self) -> None:
        """Write what waits and let go of the store; closing twice is fine.

        A store that refuses is tried once more; what is lost then is counted in the log.
        """
        if not self._closing.is_set():
            self._closing.set()
            self._arriving.put(None)
        self._thread.join()
        if self._log_keeper is not None:
            self._log_keeper.close()

    # --- the writer's thread

    def _run(self, opened: Future[None], sync: Sync, busy_s: float) -> None:
        try:
            store = open_store(self._place, sync=sync, busy_s=busy_s)
            if isinstance(store, SQLiteStore):
                store.leave_log()
        except BaseException as error:  # noqa: BLE001 - whoever waits for us gets it
            opened.set_exception(error)
            return
        opened.set_result(None)
        with store:
            while self._gather():
                self._write(store)
        if self._backlog:
            _log.error("replies were never stored", extra={"replies": len(self._backlog), "reason": self._fault})

    def _gather(self) -> bool:
        """Add what arrived to the backlog, waiting where there is nothing to do; ``False`` at the end."""
        if self._fault is not None:
            if self._closing.wait(PAUSE_S) and self._arriving.empty():
                return False
        elif not self._backlog:
            if self._closing.is_set() and self._arriving.empty():
                return False
            self._take(self._arriving.get())
        try:
            while True:
                self._take(self._arriving.get_nowait())
        except Empty:
            return bool(self._backlog)

    def _take(self, waiting: _Waiting | None) -> None:
        if waiting is not None:
            self._backlog.append(waiting)

    def _write(self, store: SQLStore) -> None:
        most = 1 if self._fault is not None else self._doubtful or MOST_AT_ONCE  # one that refused is asked with little
        batch = list(islice(self._backlog, most))
        try:
            store.put_encoded([waiting.encoded for waiting in batch], again=self._doubtful > 0)
        except StoreError as error:
            self._fault = str(error)
            self._doubtful = max(self._doubtful, len(batch))
            self._tell(list(self._backlog), False)
        except Exception as error:  # noqa: BLE001 - some row cannot be written: the writer must outlive it
            self._fault = f"{type(error).__name__} in the recorder"
            if len(batch) == 1:
                self._settle_first(batch, False)
        else:
            if self._fault is not None:
                self._fault = None
                _log.info("the store takes replies again", extra={"replies": len(self._backlog)})
            self._settle_first(batch, True)

    def _settle_first(self, batch: Sequence[_Waiting], committed: bool) -> None:
        for waiting in batch:
            self._backlog.popleft()
            self._settled += 1
            self._settled_bytes += waiting.size
        self._doubtful = max(0, self._doubtful - len(batch))
        self._tell(batch, committed)

    def _tell(self, batch: Sequence[_Waiting], committed: bool) -> None:
        """Tell all who wait for *batch*, in one call."""
        loop = batch[0].committed.get_loop()
        try:
            loop.call_soon_threadsafe(_settle, [waiting.committed for waiting in batch], committed)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return


def _settle(futures: Sequence[asyncio.Future[bool]], committed: bool) -> None:
    for future in futures:
        if not future.done():
            future.set_result(committed)
