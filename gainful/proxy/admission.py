"""Who is answered now, who waits, and who is turned away: nothing piles up.

Guarantees: at most so many requests run and so many wait, in the order of coming; whoever is turned away is told at
once, and when to come again.  Leaves to others: what a refusal looks like in HTTP, and deadlines.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gainful.core import Busy
from gainful.proxy.rates import Rates
from gainful.store import Key

RETRY_S = 1.0  # a full house empties quickly or not at all
LONGEST_WAIT_S = 10.0  # for a turn; clients give up on silence, and come again on a refusal


class Admission:
    """The door of one worker."""

    def __init__(self, most_running: int, most_waiting: int, rates: Rates | None = None) -> None:
        self.most_running = most_running
        self.most_waiting = most_waiting
        self.running = 0
        self.waiting = 0
        self._turns = asyncio.Semaphore(most_running)
        self._rates = rates or Rates()

    @asynccontextmanager
    async def turn(self, key: Key | None = None) -> AsyncIterator[None]:
        """Hold a turn inside; raises ``Busy`` where the caller made too many requests, or too many are waiting.

        A request that is turned away because others fill the house counts towards its caller's limit too.
        """
        if key is not None and key.requests_per_minute is not None:
            wait_s = self._rates.wait_s(key.name, key.requests_per_minute)
            if wait_s > 0.0:
                raise Busy(
                    f"this key may make {key.requests_per_minute} requests a minute; try again in {wait_s:.1f} s",
                    reason="rate",
                    retry_after_s=wait_s,
                )
        await self._wait()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._turns.release()

    async def _wait(self) -> None:
        if not self._turns.locked():
            await self._turns.acquire()  # at once; a time limit would cost more than all the rest
            return
        if self.waiting >= self.most_waiting:
            raise self._full()
        self.waiting += 1
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                await self._turns.acquire()
        except TimeoutError:
            raise self._full() from None
        finally:
            self.waiting -= 1

    def _full(self) -> Busy:
        return Busy(
            f"the server is answering {self.running} requests and {self.waiting} more are waiting; "
            f"try again in {RETRY_S:g} s",
            reason="full",
            retry_after_s=RETRY_S,
        )
