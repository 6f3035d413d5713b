"""One chat request at the desk: in which mode its reply leaves, and what is kept of it.

Guarantees: a reply's row is committed before ``headers`` or ``keep`` return, or the reply says ``failed-open``; what is
told to log, figures and trace holds nothing of prompt or reply.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from gainful.core import Exchange
from gainful.proxy import stream as streams
from gainful.proxy.chat import Answered, Chat
from gainful.proxy.desk import Desk
from gainful.proxy.replies import headers_of
from gainful.proxy.service import Service
from gainful.proxy.spans import RequestSpan
from gainful.proxy.wire import Ask

log = logging.getLogger("gainful.proxy")


@dataclass
class Visit:
    """One chat request at the desk, from its draft to its row in the store."""

    desk: Desk
    service: Service
    chat: Chat
    ask: Ask
    key: str
    began_s: float
    span: RequestSpan
    _kept: tuple[Answered, str] | None = None

    def frames(self) -> AsyncGenerator[bytes, None]:
        """Return the reply's frames in the mode that the task is served in; what cannot pass as it comes is held."""
        mode = self.service.stream if self.chat.passes else "hold"
        keep_alive_s = self.desk.settings.keep_alive_s
        if mode == "pass":
            return streams.passed(self.chat, self.ask)
        if mode == "segment":
            return streams.kept_alive(streams.segmented(self.chat, self.ask), keep_alive_s)
        return streams.kept_alive(streams.held(self.chat, self.ask), keep_alive_s)

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
        name = str(answered.body.get("id") or f"gainful-{uuid.uuid4().hex}")
        if not await self.desk.recorder.record(self._exchange(answered, name), self.desk.settings.commit_s):
            answered = answered._replace(verdict="failed-open", failure=answered.failure or "StoreError")
        self._tell(answered)
        self._kept = answered, name
        return self._kept

    @property
    def added_s(self) -> float:
        """Seconds since the request came in which no model was asked."""
        return time.perf_counter() - self.began_s - self.chat.models.busy_s

    def _tell(self, answered: Answered) -> None:
        """Tell log, figures and trace."""
        task, metrics = self.service.task.name, self.desk.metrics
        if answered.failure:
            log.warning("failed open", extra={"task": task, "kind": answered.failure})
        extra = self.chat.asking.allowance.extra
        metrics.answered(task, answered, self.added_s, self.chat.models.busy_s, extra)
        if self.chat.lost is not None:
            metrics.tried(task, *self.chat.lost)
        self.span.answered(
            self.chat.shaped.policy.id, answered.verdict, answered.usage, answered.p_wrong, answered.correction
        )

    def _exchange(self, answered: Answered, name: str) -> Exchange:
        keeping = self.desk.keeping[self.service.name]
        return Exchange(
            id=name,
            at=time.time(),
            task=self.service.task.name,
            policy=self.chat.shaped.policy.id,
            model=self.service.usual.model.name,
            verdict=answered.verdict,
            key=self.key,
            request=keeping.kept(self.ask.body),
            reply=keeping.kept(answered.body),
            value=keeping.kept_value(answered.answer.value),
            draft=keeping.kept_value(answered.draft),
            verdicts=keeping.kept_verdicts(answered.verdicts),
            p_wrong=answered.p_wrong,
            correction=answered.correction,
            usage=answered.usage,
            added_ms=1000 * self.added_s,
        )
