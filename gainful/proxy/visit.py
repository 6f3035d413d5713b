"""One chat request at the desk: in which mode its reply leaves, and what is kept of it.

Guarantees: a reply's row is committed before ``headers`` or ``keep`` return, or the reply says ``failed-open``; what is
told to log, figures and trace holds nothing of prompt or reply.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from gainful.proxy import stream as streams
from gainful.proxy.books import Arrival, new_name
from gainful.proxy.chat import Answered, Chat
from gainful.proxy.desk import Desk
from gainful.proxy.replies import headers_of
from gainful.proxy.spans import RequestSpan

log = logging.getLogger("gainful.proxy")


@dataclass
class Visit:
    """One chat request at the desk, from its draft to its row in the store."""

    desk: Desk
    arrival: Arrival
    chat: Chat
    span: RequestSpan
    is_stored: bool = False
    _kept: tuple[Answered, str] | None = None

    def frames(self) -> AsyncGenerator[bytes, None]:
        """Return the reply's frames in the mode that the task is served in; what cannot pass as it comes is held."""
        ask = self.arrival.ask
        mode = self.arrival.service.stream if self.chat.passes else "hold"
        keep_alive_s = self.desk.settings.keep_alive_s
        if mode == "pass":
            return streams.passed(self.chat, ask)
        if mode == "segment":
            return streams.kept_alive(streams.segmented(self.chat, ask), keep_alive_s)
        return streams.kept_alive(streams.held(self.chat, ask), keep_alive_s)

    async def early_headers(self) -> dict[str, str]:
        """Return the headers of a stream: all of them where the reply is whole before its first piece is sent."""
        if self.chat.is_finished:
            return await self.headers()
        return {"x-gainful-policy": self.chat.shaped.policy.id}

    async def headers(self) -> dict[str, str]:
        """Return what was done, once the reply is in the store."""
        return headers_of(self.chat, *await self.keep())

    async def keep(self) -> tuple[Answered, str]:
        """Store the reply, once, and return it with its name; one that could not be stored says ``failed-open``."""
        if self._kept is not None:
            return self._kept
        answered = self.chat.answered()
        name = str(answered.body.get("id") or new_name())
        keeping = self.desk.keeping[self.arrival.service.name]
        row = self.arrival.row(self.chat, answered, name, keeping, self.added_s)
        self.is_stored = await self.desk.recorder.record(row, self.desk.settings.commit_s)
        if not self.is_stored:
            answered = answered._replace(verdict="failed-open", failure=answered.failure or "StoreError")
        self._tell(answered)
        self._kept = answered, name
        return self._kept

    async def sent(self) -> None:
        """Have the request answered unheard too, where its seat says so: its caller has the whole reply."""
        if self.is_stored:
            _, name = await self.keep()
            self.desk.shadows.offer(self.arrival, name)

    @property
    def added_s(self) -> float:
        """Seconds since the request came in which no model was asked."""
        return time.perf_counter() - self.arrival.began_s - self.chat.models.busy_s

    def _tell(self, answered: Answered) -> None:
        """Tell log, figures and trace."""
        task, metrics = self.arrival.service.task.name, self.desk.metrics
        if answered.failure:
            check = self.chat.broken_check or None
            log.warning("failed open", extra={"task": task, "kind": answered.failure, "check": check})
        extra = self.chat.asking.allowance.extra
        metrics.seated(task, self.arrival.placed.arm, "answered")
        metrics.answered(task, answered, self.added_s, self.chat.models.busy_s, extra)
        if self.chat.lost is not None:
            metrics.tried(task, *self.chat.lost)
        self.span.answered(
            self.chat.shaped.policy.id, answered.verdict, answered.usage, answered.p_wrong, answered.correction
        )
