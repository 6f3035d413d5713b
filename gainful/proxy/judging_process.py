"""The server's end of the process that judges: start it, ask it, end it, start it again.

Guarantees: one judgement at a time, in the order of asking; few wait; a process that hangs or breaks is killed with
all that it started, and a new one is made ready at once, but ever later when it happens again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from typing import Any

import msgspec

from gainful.checks.child import LENGTH, MOST_SAID_BYTES, START_S, Hello, Judgement, Named, Said, framed
from gainful.core import CheckError, Verdict

MEMORY_BYTES = 1 << 30  # beyond what the process takes once the checks are loaded
MOST_WAITING = 16  # at 10 ms a check the last waits a sixth of a second; who comes later is better told at once
FIRST_PAUSE_S = 0.5  # before the second start in a row; doubled each time, for a start takes a core for 0.2 s
LONGEST_PAUSE_S = 30.0

_MAIN = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); import gainful.checks.child as c; c.main()"


class JudgingProcess:
    """Checks in a process of their own; nothing is started before ``start`` or the first judgement."""

    def __init__(self, checks: list[Named]) -> None:
        self._checks = checks
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._process: Process | None = None
        self._starting: asyncio.Task[Process] | None = None
        self._pause: asyncio.TimerHandle | None = None  # the next start, while it must wait
        self._failures = 0  # in a row
        self._is_closed = False

    async def start(self) -> None:
        """Have the process ready; raises ``CheckError`` where it cannot be, or must not be tried again yet."""
        await self._ready()

    async def judge(self, request: Judgement) -> list[Verdict]:
        """Return a verdict for each place in *request*; raises ``CheckError``."""
        deadline = asyncio.get_running_loop().time() + request.timeout_s
        first = self._checks[request.places[0]].name
        if self._waiting >= MOST_WAITING:
            raise CheckError(
                f"check {first!r} was not run: {MOST_WAITING} answers are waiting to be judged", check=first
            )
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._turn.acquire()
        except TimeoutError:
            raise CheckError(
                f"check {first!r} was not run within {request.timeout_s:g} s: others took it", check=first
            ) from None
        finally:
            self._waiting -= 1
        turn = asyncio.create_task(self._take_turn(request, deadline))
        turn.add_done_callback(_retrieved)
        return await asyncio.shield(turn)  # a caller who leaves must not cost a healthy process

    async def close(self) -> None:
        """End the process for good."""
        self._is_closed = True
        if self._pause is not None:
            self._pause.cancel()
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if self._process is not None:
            await _kill(self._process)
            self._process = None

    # --- a turn

    async def _take_turn(self, request: Judgement, deadline: float) -> list[Verdict]:
        try:
            async with asyncio.timeout_at(deadline):
                process = await self._ready()
            return await self._ask(process, request, deadline)
        except TimeoutError:  # whatever hangs in asking is dealt with there
            raise CheckError("nothing was judged: the process for checks is starting; try again") from None
        finally:
            self._turn.release()

    async def _ask(self, process: Process, request: Judgement, deadline: float) -> list[Verdict]:
        verdicts: list[Verdict] = []
        name, said = "", None
        try:
            async with asyncio.timeout_at(deadline):
                await _tell(process, msgspec.json.encode(request))
                for place in request.places:
                    name = self._checks[place].name
                    said = await _hear(process)
                    if said.verdict is None:
                        break
                    verdicts.append(said.verdict)
        except TimeoutError:
            await self._broke(process)
            raise CheckError(
                f"check {name!r} took longer than {request.timeout_s:g} s; its process was ended", check=name
            ) from None
        except (OSError, EOFError, msgspec.DecodeError):
            await self._broke(process)
            raise CheckError(f"check {name!r} ended the process that it ran in", check=name) from None
        if said is not None and said.is_spent:
            await self._broke(process)  # what it holds on to would fail the next answers too
        else:
            self._failures = 0
        if said is not None and said.error:
            raise CheckError(said.error, check=name)
        return verdicts

    # --- the process

    async def _ready(self) -> Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        self._process = None
        if self._is_closed:
            raise CheckError("nothing was judged: the process for checks was closed")
        if self._pause is not None:
            raise CheckError(
                f"nothing was judged: the process for checks broke {self._failures} times in a row; "
                f"it starts again in {self._pause.when() - asyncio.get_running_loop().time():.1f} s"
            )
        return await asyncio.shield(self._starting or self._begin())  # whoever stops waiting does not stop the start

    def _begin(self) -> asyncio.Task[Process]:
        self._pause = None
        self._starting = asyncio.create_task(self._start())
        self._starting.add_done_callback(_retrieved)
        return self._starting

    async def _start(self) -> Process:
        process = None
        try:
            async with asyncio.timeout(START_S):
                command = (sys.executable, "-c", _MAIN, json.dumps(sys.path))
                process = await asyncio.create_subprocess_exec(
                    *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
                )
                await _tell(process, msgspec.json.encode(Hello(self._checks, MEMORY_BYTES)))
                said = await _hear(process)
            if said.error:
                raise CheckError(said.error)
            self._process = process
        except (OSError, EOFError, msgspec.DecodeError) as error:
            raise CheckError(f"the process for checks did not start: {type(error).__name__}") from None
        finally:
            self._starting = None
            if self._process is None:
                self._start_later()
                if process is not None:
                    await _kill(process)
        return process

    async def _broke(self, process: Process) -> None:
        """Kill *process* with all that it started, and have another ready."""
        self._process = None
        self._start_later()
        await _kill(process)

    def _start_later(self) -> None:
        if self._is_closed:
            return
        self._failures += 1
        pause_s = 0.0 if self._failures == 1 else FIRST_PAUSE_S * 2.0 ** (self._failures - 2)
        if pause_s == 0.0:
            self._begin()
        else:
            self._pause = asyncio.get_running_loop().call_later(min(pause_s, LONGEST_PAUSE_S), self._begin)


async def _tell(process: Process, frame: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(framed(frame))
    await process.stdin.drain()


async def _hear(process: Process) -> Said:
    """Return what the process says next; raises ``EOFError`` where it ended, ``DecodeError`` for what is no saying."""
    assert process.stdout is not None
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    if length > MOST_SAID_BYTES:
        raise msgspec.DecodeError(f"a frame of {length} bytes")
    return msgspec.json.decode(await process.stdout.readexactly(length), type=Said)


async def _kill(process: Process) -> None:
    """Kill the process and all that it started, and hear it out, so that nothing of it is left open."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    process.stdin.close()
    with contextlib.suppress(TimeoutError):  # something that left the group may hold the pipe
        async with asyncio.timeout(1.0):
            await process.stdout.read()


def _retrieved(task: asyncio.Task[Any]) -> None:
    """Take a task's error from it: nobody may be left to ask for it."""
    if not task.cancelled():
        task.exception()
