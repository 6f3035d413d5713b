"""Call functions at given times with the kernel's precision, for the load generator and the mock upstream.

An event loop's own timers are rounded to milliseconds, which would be most of what we measure.  A ``timerfd`` is
late by some tens of microseconds and costs one descriptor.  Linux only; elsewhere the loop's timers have to do.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import itertools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

CLOCK_MONOTONIC, ABSOLUTE = 1, 1
NONBLOCKING_CLOEXEC = 0o2004000


class _Timerspec(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]


class Agenda:
    """Calls in the order of their times, given on the clock of ``time.perf_counter``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._armed_for = float("inf")
        self._libc = self._timer = None
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._timer = self._libc.timerfd_create(CLOCK_MONOTONIC, NONBLOCKING_CLOEXEC)
            if self._timer < 0:
                raise OSError(ctypes.get_errno(), "timerfd_create failed")
            loop.add_reader(self._timer, self._ring)

    def at(self, when_s: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call *call* at *when_s*, or as soon as possible where that has passed."""
        heapq.heappush(self._calls, (when_s, next(self._numbers), call, arguments))
        if when_s < self._armed_for:
            self._arm(when_s)

    def _arm(self, when_s: float) -> None:
        self._armed_for = when_s
        if self._libc is None:
            self._loop.call_later(when_s - time.perf_counter(), self._run)
            return
        ns = max(1, int(when_s * 1e9))
        spec = _Timerspec(0, 0, *divmod(ns, 1_000_000_000))
        self._libc.timerfd_settime(self._timer, ABSOLUTE, ctypes.byref(spec), None)

    def _ring(self) -> None:
        try:
            os.read(self._timer or 0, 8)
        except BlockingIOError:  # armed anew since the loop saw it
            return
        self._run()

    def _run(self) -> None:
        self._armed_for = float("-inf")  # calls may add calls: arm once, afterwards
        while self._calls and self._calls[0][0] <= time.perf_counter():
            _, _, call, arguments = heapq.heappop(self._calls)
            call(*arguments)
        self._armed_for = float("inf")
        if self._calls:
            self._arm(self._calls[0][0])
