"""Pictures of one task, kept fresh while somebody looks, and what changed from one to the next.

Guarantees: the store is read in a thread, for reading alone, once for all who look, and not at all while nobody does;
at most once a second and for at most a twentieth of a processor's time, so that a page left open slows no request.  A
store that cannot be read is said to be so, and looked for again; what was seen last stays.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from gainful.core import GainfulError
from gainful.dashboard.data import Reader, Snapshot
from gainful.store import Store

LEAST_S = 1.0  # between two readings
REST = 19.0  # times as long as a reading kept the processor busy does the reader rest after it
KEEP_ALIVE_S = 15.0  # between two comments on a stream where nothing changes: proxies cut what is silent for longer
TIMES = ("at",)  # members that change with every picture and are no news by themselves

log = logging.getLogger("gainful.dashboard")

_encode = msgspec.json.Encoder().encode


class Feed:
    """The pictures that *reader* takes; *opened* opens the store, in *thread*."""

    def __init__(self, reader: Reader, opened: Callable[[], Store], thread: ThreadPoolExecutor) -> None:
        self._reader = reader
        self._opened = opened
        self._thread = thread
        self._parts: dict[str, bytes] = {}
        self._turned = asyncio.Event()
        self._listeners = 0
        self._looking: asyncio.Task[None] | None = None
        self._is_closed = False

    async def picture(self) -> Snapshot:
        """Take a picture now; raises ``StoreError`` where the store cannot be read."""
        found, _ = await asyncio.get_running_loop().run_in_executor(self._thread, self._read)
        return found

    async def changes(self) -> AsyncGenerator[bytes, None]:
        """Yield server-sent events: all members of the picture first, and from then on those that have changed.

        ``trouble`` is a member too: why the store cannot be read, ``null`` while it can.  Ends when the feed is closed.
        """
        self._listeners += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        seen: dict[str, bytes] = {}
        try:
            while not self._is_closed:
                turned, parts = self._turned, self._parts
                news = {name: part for name, part in parts.items() if seen.get(name) != part}
                if any(name not in TIMES for name in news):
                    seen = parts
                    yield _event(news)
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        await turned.wait()
                except TimeoutError:
                    yield b": nothing has changed\n\n"
        finally:
            self._listeners -= 1
            if self._listeners == 0:
                self._rest()

    def close(self) -> None:
        """End all streams."""
        self._is_closed = True
        self._rest()
        self._turn()

    def _rest(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _turn(self) -> None:
        self._turned.set()
        self._turned = asyncio.Event()

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            busy_s = 0.0
            try:
                found, busy_s = await loop.run_in_executor(self._thread, self._read)
                members = {name: _encode(getattr(found, name)) for name in found.__struct_fields__}
                self._parts = members | {"trouble": b"null"}
            except GainfulError as error:
                self._parts = self._parts | {"trouble": _encode(str(error))}
            except Exception as error:  # noqa: BLE001 - a fault of ours: whoever looks must not take old numbers for new
                log.error("a picture could not be made", extra={"kind": type(error).__name__})
                said = f"the picture of it could not be made ({type(error).__name__}); the server's log has the kind"
                self._parts = self._parts | {"trouble": _encode(said)}
            self._turn()
            await asyncio.sleep(max(LEAST_S, REST * busy_s))

    def _read(self) -> tuple[Snapshot, float]:
        """Return a picture, and for how long the processor was busy with it."""
        began_s = time.thread_time()
        with self._opened() as store:
            found = self._reader.read(store, time.time())
        return found, time.thread_time() - began_s


def _event(parts: dict[str, bytes]) -> bytes:
    """Return one server-sent event of these members; JSON holds no line end."""
    members = b",".join(b'"%s":%s' % (name.encode(), part) for name, part in parts.items())
    return b"event: change\ndata: {%s}\n\n" % members
