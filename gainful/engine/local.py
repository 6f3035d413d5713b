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
from gainful.answers.prompt import request
from gainful.core import (
    Answer,
    AnswerKind,
    Attempt,
    Case,
    Check,
    Model,
    Policy,
    RequestRefused,
    Rollout,
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
        return self._judged(case, policy, checks, outcome)

    async def attempts(
        self, policy: Policy, cases: Iterable[Case], checks: Sequence[Check]
    ) -> AsyncGenerator[Attempt, None]:
        """Yield one attempt a case, in order."""
        works = (self.attempt(case, policy, checks) for case in cases)
        async with contextlib.aclosing(in_order(works, WINDOW * self.model.concurrency)) as attempts:
            async for attempt in attempts:
                yield attempt

    async def rollouts(
        self, policy: Policy, cases: Iterable[Case], checks: Sequence[Check], samples: range, temperature: float
    ) -> AsyncGenerator[Rollout, None]:
        """Yield each case with answers drawn at *temperature*, of the numbers in *samples*, in the order of the cases.

        The policy's strategy is left out: each answer is one reply of the model.  A case that the model refuses has no
        attempts.
        """
        works = (self._rollout(case, policy, checks, samples, temperature) for case in cases)
        async with contextlib.aclosing(in_order(works, WINDOW * self.model.concurrency)) as found:
            async for rollout in found:
                yield rollout

    async def _rollout(
        self, case: Case, policy: Policy, checks: Sequence[Check], samples: range, temperature: float
    ) -> Rollout:
        body = {**request(policy, case, self.kind), "temperature": temperature}
        attempts = []
        for sample in samples:
            asking = Asking(case, policy, self.model, self.kind, body)
            try:
                _, found = await asking.ask(body, sample)
            except RequestRefused:
                break
            attempts.append(self._judged(case, policy, checks, asking.outcome(found)))
        return Rollout(case=case, attempts=tuple(attempts))

    def _judged(self, case: Case, policy: Policy, checks: Sequence[Check], outcome: Outcome) -> Attempt:
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
