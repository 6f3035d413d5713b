"""Answer many cases under one policy, in this process, as many at once as the model answers well.

Attempts come out in the order of the cases, whatever the order in which the model finishes, and memory is bounded
by the window of calls under way.  An infrastructure error ends the stream with ``ModelError``: no attempt is made
of it, and what was finished before is remembered by the model's memo.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gainful.answers.answer import Asking, Outcome, answer, judge_by
from gainful.core import (
    Answer,
    AnswerKind,
    Attempt,
    Case,
    Check,
    Model,
    Policy,
    RequestRefused,
    Usage,
    judge,
    lowest,
)

T = TypeVar("T")

WINDOW = 2  # calls queued per call the model works on, so that it never waits for us


@dataclass(frozen=True)
class Engine:
    """Answers with *model*; strategies that verify may use ``consult``, which reads no answer key."""

    model: Model
    kind: AnswerKind
    consult: tuple[Check, ...] = ()

    async def attempt(self, case: Case, policy: Policy, checks: Sequence[Check]) -> Attempt:
        """Answer one case and judge the answer by *checks*; a request that the model refuses is an empty answer."""
        try:
            outcome = await answer(Asking(case, policy, self.model, self.kind), judge_by(self.consult))
        except RequestRefused:
            outcome = Outcome(answer=Answer(text=""), calls=(), usage=Usage())
        verdicts = judge(checks, case, outcome.answer)
        return Attempt(
            case=case.id,
            policy=policy.id,
            answer=outcome.answer,
            verdicts=verdicts,
            score=lowest(verdicts),
            calls=outcome.calls,
            usage=outcome.usage,
        )

    async def attempts(
        self, policy: Policy, cases: Iterable[Case], checks: Sequence[Check]
    ) -> AsyncGenerator[Attempt, None]:
        """Yield one attempt a case, in order."""
        works = (self.attempt(case, policy, checks) for case in cases)
        async with contextlib.aclosing(in_order(works, WINDOW * self.model.concurrency)) as attempts:
            async for attempt in attempts:
                yield attempt


async def in_order(works: Iterable[Coroutine[Any, Any, T]], window: int) -> AsyncGenerator[T, None]:
    """Yield what *works* return, in their order, with *window* of them under way; one that raises ends the stream."""
    under_way: deque[asyncio.Task[T]] = deque()
    try:
        for work in works:
            under_way.append(asyncio.create_task(work))
            if len(under_way) >= window:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
