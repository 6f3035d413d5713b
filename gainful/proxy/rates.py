"""How many requests a minute each caller may make, counted together by all workers of one server.

Guarantees: a caller who was quiet for a minute may make a minute's worth at once; after that they come back at an even
rate, so that over any T seconds at most (1 + T / 60) times the limit pass, whichever workers they reach.  Asking
takes microseconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

SLOTS = 1 << 14  # callers at most, 16 bytes each: who comes after that is not limited
ROUNDING_S = 1e-6  # what sums of intervals may carry
_SLOT = struct.Struct("<Qd")  # the caller, and when its last request is paid off


class Rates:
    """The callers' limits.  Workers that are given the same *path* count together.

    One number a caller is kept: the time by which, at the even rate, the requests so far are paid off (the generic cell
    rate algorithm, ITU-T I.371).  *clock* gives seconds and must be the same for all workers, as the system's monotonic
    clock is.
    """

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._file: int | None = None
        if path is not None:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.ftruncate(self._file, SLOTS * _SLOT.size)
        self._slots = mmap.mmap(-1 if self._file is None else self._file, SLOTS * _SLOT.size)

    def wait_s(self, caller: str, per_minute: int) -> float:
        """Take one request of *caller*'s: return 0.0 where it may pass, else the seconds until it may, not taken."""
        if self._file is None:
            return self._take(caller, 60.0 / per_minute)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            return self._take(caller, 60.0 / per_minute)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the memory back."""
        self._slots.close()
        if self._file is not None:
            os.close(self._file)

    def _take(self, caller: str, interval_s: float) -> float:
        now_s = self._clock()
        place, paid_s = self._find(caller)
        paid_s = max(paid_s, now_s) + interval_s
        early_s = paid_s - now_s - 60.0
        if early_s > ROUNDING_S:
            return early_s
        if place is not None:
            _SLOT.pack_into(self._slots, place, _id(caller), paid_s)
        return 0.0

    def _find(self, caller: str) -> tuple[int | None, float]:
        """Return the caller's place, or the free one where it belongs, and its time; no place where all are taken."""
        wanted = _id(caller)
        for step in range(SLOTS):
            place = (wanted + step) % SLOTS * _SLOT.size
            found, paid_s = _SLOT.unpack_from(self._slots, place)
            if found in (wanted, 0):
                return place, paid_s
        return None, 0.0


def _id(caller: str) -> int:
    return int.from_bytes(hashlib.sha256(caller.encode()).digest()[:8], "little") or 1
