"""A request as it came in, and the row that is kept of it.

Guarantees: what a row holds of prompt and reply went through the operator's ``Keeping``; a request that got an error
has a row without a reply and without a verdict, for an error of ours is no wrong answer.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

import msgspec

from gainful.answers.allowance import Limits
from gainful.core import Exchange
from gainful.proxy.chat import Answered, Chat
from gainful.proxy.redact import Keeping
from gainful.proxy.service import Placed, Service
from gainful.proxy.wire import Ask


@dataclass(frozen=True)
class Arrival:
    """A request as it came in at ``began_s`` of the performance counter, already seated.

    ``key`` names the caller's; ``limits`` are what task, operator and caller allow together.
    """

    service: Service
    placed: Placed
    ask: Ask
    key: str
    limits: Limits
    began_s: float

    def row(self, chat: Chat, answered: Answered, name: str, keeping: Keeping, added_s: float) -> Exchange:
        """Return what is kept of the reply called *name*."""
        return msgspec.structs.replace(
            self._row(name, keeping),
            policy=chat.shaped.policy.id,
            verdict=answered.verdict,
            reply=keeping.kept(answered.body),
            value=keeping.kept_value(answered.answer.value),
            draft=keeping.kept_value(answered.draft),
            verdicts=keeping.kept_verdicts(answered.verdicts),
            p_wrong=answered.p_wrong,
            correction=answered.correction,
            usage=answered.usage,
            correcting=answered.correcting,
            added_ms=1000 * added_s,
        )

    def error_row(self, status: int, keeping: Keeping, name: str | None = None) -> Exchange:
        """Return what is kept where there was an error with this HTTP status in place of a reply."""
        return msgspec.structs.replace(self._row(name or new_name(), keeping), status=status)

    def _row(self, name: str, keeping: Keeping) -> Exchange:
        return Exchange(
            id=name,
            at=time.time(),
            task=self.service.task.name,
            policy=self.placed.served.policy.id,
            model=self.service.usual.model.name,
            verdict="unverified",
            key=self.key,
            request=keeping.kept(self.ask.body),
            seat=self.placed.seat,
        )


def new_name() -> str:
    """Return a name for a reply that the model gave none."""
    return f"gainful-{uuid.uuid4().hex}"


def is_unheard(exchange: Exchange) -> bool:
    """Whether no caller got this reply: it is a shadow's, or there was an error in its place."""
    return exchange.status >= 400 or (exchange.seat is not None and exchange.seat.arm == "shadow")
