"""How often to try again, how long to wait in between, and how many calls to have under way at once.

Exponential backoff with full jitter spreads the callers that a busy server turned away; ``Retry-After`` (RFC
9110, section 10.2.3) is kept to.  Concurrency follows additive increase, multiplicative decrease (Chiu and
Jain, 1989): the rule by which many callers of one server come to share it fairly without speaking.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

TRANSIENT = frozenset({408, 409, 429})  # and every 5xx: time may cure these


def may_pass(status: int) -> bool:
    """Whether time may cure what an HTTP status says."""
    return status in TRANSIENT or status >= 500


@dataclass(frozen=True)
class Patience:
    """How long one call may take, all times in seconds.

    ``attempts`` counts the first try too.  ``longest_s`` is the longest ``Retry-After`` that is waited for.
    ``timeout_s`` bounds one try, ``connect_s`` the part of it in which a connection is made.
    """

    attempts: int = 6
    base_s: float = 0.5
    cap_s: float = 20.0
    longest_s: float = 120.0
    timeout_s: float = 600.0
    connect_s: float = 10.0

    def wait_s(self, tried: int, asked_s: float | None) -> float | None:
        """Return the wait after *tried* failed attempts, ``None`` to give up.

        *asked_s*, what the server asked for, is a lower bound; the jitter on top keeps callers apart.
        """
        if tried >= self.attempts or (asked_s is not None and asked_s > self.longest_s):
            return None
        if asked_s is not None:
            return asked_s + random.uniform(0.0, min(self.base_s, asked_s))
        return random.uniform(0.0, min(self.cap_s, self.base_s * 2.0 ** (tried - 1)))


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds a server asks to wait, ``None`` where it does not say or says it unreadably.

    *headers* must look names up without regard to case.  ``retry-after-ms``, which some vendors send, wins
    over ``Retry-After`` in seconds or as an HTTP date.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            seconds = float(headers[name]) * unit_s
            if 0.0 <= seconds < float("inf"):
                return seconds
    with suppress(KeyError, ValueError):
        until = parsedate_to_datetime(headers["retry-after"])
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
    return None


@dataclass
class Turn:
    """One call under way; set ``went_well`` to say how it ended: ``False`` means turned away for being too many."""

    era: int
    went_well: bool | None = None


class Pace:
    """Lets at most ``limit`` calls run at once: halved when a server turns one away, one more after each full round.

    Calls that were under way when the limit was halved count no second time: eight refusals of one burst are
    one sign of crowding, not eight.
    """

    def __init__(self, most: int) -> None:
        self.limit = most
        self._most = most
        self._running = 0
        self._successes = 0
        self._era = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """Wait for a turn, first come first served, and learn from how it ended."""
        await self._enter()
        turn = Turn(self._era)
        try:
            yield turn
        finally:
            self._learn(turn)
            self._leave()

    def _learn(self, turn: Turn) -> None:
        if turn.era != self._era or turn.went_well is None:
            return
        if not turn.went_well:
            self.limit = max(1, self.limit // 2)
            self._era += 1
            self._successes = 0
            return
        self._successes += 1
        if self._successes >= self.limit:
            self.limit = min(self._most, self.limit + 1)
            self._successes = 0

    async def _enter(self) -> None:
        if self._running < self.limit and not self._waiting:
            self._running += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # the turn was handed to us already: it is another's now
                self._leave()
            raise

    def _leave(self) -> None:
        """Hand our turn, and any that a raised limit adds, to those who wait longest."""
        self._running -= 1
        while self._running < self.limit and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._running += 1
