"""One loaded llama.cpp, asked over its loopback port: loaded at first use, freed by ``close``.

Guarantees: a call that is cancelled stops being computed; nothing is asked of an engine that is being freed; an engine
in a process of its own ends with ours, and is missed when it died.
"""

from __future__ import annotations

import asyncio
import json
import select
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from gainful.core import ModelError
from gainful.models import llama
from gainful.models.llama import Settings
from gainful.models.session import Session
from gainful.models.slots import Slots
from gainful.models.specials import Specials

CLOSING_S = 0.05  # connections that were closed are gone for the engine too
LOADING_S = 300.0  # a file of 40 GB from a slow disk; what takes longer hangs
ENDING_S = 5.0  # for a process that was told to end, which it does at once

_RUN = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv[1]); runpy.run_path(sys.argv[2], run_name='__main__')"
)


class Loaded:
    """A model in memory: where it listens, the folder of its slots' save files, and what frees it."""

    def __init__(
        self,
        address: str,
        folder: tempfile.TemporaryDirectory[str],
        specials: Specials,
        *,
        server: Any = None,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.address = address
        self.specials = specials
        self.folder = Path(folder.name)
        self._folder = folder
        self._server = server
        self._process = process

    @property
    def is_apart(self) -> bool:
        """Whether it has a process of its own."""
        return self._process is not None

    @property
    def is_dead(self) -> bool:
        """Whether its process ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def free(self) -> None:
        """Stop the engine and delete the folder."""
        self._server = None
        if self._process is not None:
            end(self._process)
        self._folder.cleanup()


def load(settings: Settings, folder: tempfile.TemporaryDirectory[str], specials: Specials) -> Loaded:
    """Load into this process; raises ``ImportError`` and ``RuntimeError`` as ``llama.start`` does."""
    server = llama.start(settings)
    return Loaded(server.listening_address, folder, specials, server=server)


def load_apart(settings: Settings, folder: tempfile.TemporaryDirectory[str], specials: Specials) -> Loaded:
    """Load into a process of its own; raises what ``load`` raises, and ``OSError`` where no process can be had."""
    command = [sys.executable, "-c", _RUN, json.dumps(sys.path), str(llama.__file__)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us: it would end answers that we are waiting for
    )
    try:
        said = _first_words(process, settings)
    except BaseException:
        process.kill()
        end(process)
        raise
    if "address" in said:
        return Loaded(said["address"], folder, specials, process=process)
    end(process)
    raise (ImportError if said["error"] != "RuntimeError" else RuntimeError)(said["said"])


def _first_words(process: subprocess.Popen[bytes], settings: Settings) -> dict[str, str]:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):  # it ended already, and what it said tells why
        process.stdin.write(settings.line())
        process.stdin.flush()
    ready, _, _ = select.select([process.stdout], [], [], LOADING_S)
    line = process.stdout.readline() if ready else b""
    if not line:
        raise RuntimeError(f"its process said nothing within {LOADING_S:g} s" if not ready else "its process ended")
    said: dict[str, str] = json.loads(line)
    return said


def end(process: subprocess.Popen[bytes]) -> None:
    """Hang up, and wait until the process has ended."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
    try:
        process.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Line(NamedTuple):
    """How the loaded engine is asked from one event loop."""

    session: Session
    slots: Slots
    specials: Specials


class Engine:
    """An engine that *loading* brings into memory, in a thread; it answers *slots* calls together.

    ``users`` counts the calls that hold it; ``is_leaving``: it takes no more of them.
    """

    def __init__(self, loading: Callable[[], Loaded], slots: int, key: str) -> None:
        self.users = 0
        self.is_leaving = False
        self._loading = loading
        self._slots = slots
        self._key = key
        self._loaded: Loaded | None = None
        self._opening: asyncio.Task[Line] | None = None
        self._calls: set[asyncio.Task[Any]] = set()
        self._has_failed = False

    @property
    def is_lost(self) -> bool:
        """Whether it could not be loaded, or died."""
        return self._has_failed or (self._loaded is not None and self._loaded.is_dead)

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[Line]:
        """Give what asks the engine, once it is loaded; ``close`` cancels whatever is inside.

        Raises ``ModelError`` where it cannot be loaded.
        """
        task = asyncio.current_task()
        assert task is not None  # whoever awaits us runs in one
        self._calls.add(task)
        try:
            yield await self._opened()
        except (aiohttp.ClientError, OSError):  # a process that dies closes its connections before it is gone
            self._has_failed = self._has_failed or (self._loaded is not None and self._loaded.is_apart)
            raise
        finally:
            self._calls.discard(task)

    async def close(self) -> None:
        """Free the model; calls that are under way are cancelled.

        The engine's end waits for its open connections and keeps Python's lock meanwhile.  So nothing may be asked from
        here on, or both wait for ever.
        """
        opening, self._opening = self._opening, None
        calls = {call for call in self._calls if call is not asyncio.current_task() and not call.done()}
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls)
        if opening is not None and opening.get_loop() is asyncio.get_running_loop():
            with suppress(ModelError):
                await (await opening).session.close()
            await asyncio.sleep(CLOSING_S)
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            await asyncio.to_thread(loaded.free)

    async def _opened(self) -> Line:
        if self._opening is None or self._opening.get_loop() is not asyncio.get_running_loop():
            self._opening = asyncio.create_task(self._open())
        opening = self._opening
        try:
            return await asyncio.shield(opening)
        except ModelError:
            self._opening, self._has_failed = None, True
            raise

    async def _open(self) -> Line:
        if self._loaded is None:
            self._loaded = await asyncio.to_thread(self._loading)
        timeout = aiohttp.ClientTimeout(total=None)
        connections = 2 * self._slots  # a call that fills a slot, and the one before it still closing
        session = Session(self._loaded.address, self._key, connections=connections, timeout=timeout)
        return Line(session, Slots(self._slots, self._loaded.folder, session), self._loaded.specials)
