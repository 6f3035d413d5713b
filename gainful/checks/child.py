"""The process in which checks run that may hang, crash or eat memory.

Started by ``serve.judging_process`` (and not in that room, whose imports would triple its start) and spoken to over its
standard input and output: frames of JSON, each with its length before it.  Guarantees: what a check prints goes
nowhere; its memory is limited (on Linux); a check that outlives its time limit ends with this process even where the
server that started it is gone.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from gainful.checks import from_spec
from gainful.core import Answer, Case, Check, CheckError, GainfulError, JsonObject, Value, Verdict, judge

LENGTH = struct.Struct(">I")
MOST_SAID_BYTES = 1 << 20  # of one verdict: its words go back to a model, and nobody reads a megabyte
MOST_ERROR_CHARACTERS = 10_000  # escaped as JSON, six bytes each, they still fit
START_S = 60.0  # a check may import a large library; longer than this and something hangs
GRACE_S = 1.0  # by which the server's own time limit comes first


class Named(Value, frozen=True):
    """A check by its spec, and the folder from which its file is found."""

    name: str
    spec: JsonObject
    folder: str | None = None


class Hello(Value, frozen=True):
    """What the process is to do: the checks, and how many bytes it may take beyond those it starts with."""

    checks: list[Named]
    memory_bytes: int


class Judgement(Value, frozen=True):
    """A request: case and answer, the places of the checks to run, and the seconds that they may take."""

    case: msgspec.Raw
    answer: msgspec.Raw
    places: list[int]
    timeout_s: float


class Said(Value, frozen=True):
    """What came of one check: its verdict, or what is wrong.  ``is_spent``: the process ran out of memory."""

    verdict: Verdict | None = None
    error: str = ""
    is_spent: bool = False


def main() -> None:
    """Build the checks, say so, then judge until the server hangs up."""
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    _end_after(START_S + GRACE_S)
    hello = msgspec.json.decode(_read(inbox), type=Hello)
    try:
        checks = [from_spec(named.spec, Path(named.folder) if named.folder else None) for named in hello.checks]
    except GainfulError as error:
        _say(outbox, msgspec.json.encode(Said(error=str(error)[:MOST_ERROR_CHARACTERS])))
        return
    _limit(hello.memory_bytes)
    _say(outbox, msgspec.json.encode(Said()))
    _end_after(0)
    while frame := _read(inbox):
        request = msgspec.json.decode(frame, type=Judgement)
        _end_after(request.timeout_s + GRACE_S)
        for frame in _judged(request, checks):  # one by one: the server knows which check it is waiting for
            _say(outbox, frame)
        _end_after(0)


def _judged(request: Judgement, checks: list[Check]) -> Iterator[bytes]:
    """Yield what is said of each check, and nothing after the first that broke."""
    case = msgspec.json.decode(request.case, type=Case)
    answer = msgspec.json.decode(request.answer, type=Answer)
    for place in request.places:
        try:
            yield _verdict(checks[place], case, answer)
        except CheckError as error:
            said = str(error)[:MOST_ERROR_CHARACTERS]
            yield msgspec.json.encode(Said(error=said, is_spent=isinstance(error.__cause__, MemoryError)))
            return


def _verdict(check: Check, case: Case, answer: Answer) -> bytes:
    """Return the verdict as it is said; raises ``CheckError`` for one that would not arrive as it is."""
    (verdict,) = judge([check], case, answer)
    try:
        frame = msgspec.json.encode(Said(verdict))
        msgspec.json.decode(frame, type=Said)  # a check may put anything into a score's words
    except (TypeError, ValueError, MemoryError) as error:
        raise CheckError(f"check {check.name!r} gave a score whose words are none: {type(error).__name__}") from error
    if len(frame) > MOST_SAID_BYTES:
        raise CheckError(f"check {check.name!r} said {len(frame)} bytes of feedback; say less than a megabyte")
    return frame


def _read(inbox: BinaryIO) -> bytes:
    """Return the next frame, empty where the server hung up."""
    header = inbox.read(LENGTH.size)
    return inbox.read(*LENGTH.unpack(header)) if len(header) == LENGTH.size else b""


def _say(outbox: BinaryIO, frame: bytes) -> None:
    outbox.write(framed(frame))
    outbox.flush()


def framed(frame: bytes) -> bytes:
    """Return *frame* with its length before it."""
    return LENGTH.pack(len(frame)) + frame


def _limit(memory_bytes: int) -> None:
    """Let this process take *memory_bytes* more than now, and leave no core file, for it would hold prompts."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(FileNotFoundError):  # only Linux says how much is taken, and only there the limit holds
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _end_after(seconds: float) -> None:
    """Let the kernel end this process, whatever it is doing, after *seconds*; 0 for never."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
