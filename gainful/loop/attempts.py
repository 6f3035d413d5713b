"""Make attempts and keep them: what the engine answers is in the store before a run goes on from it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence

from gainful.core import Attempt, Case, Check, Policy
from gainful.engine.local import Engine
from gainful.store import Store

BATCH = 64  # attempts a commit; the calls behind them are in the memo already, so a crash loses nothing paid for


async def kept_attempts(
    store: Store, task: str, engine: Engine, policy: Policy, cases: Iterable[Case], checks: Sequence[Check]
) -> AsyncGenerator[Attempt, None]:
    """Yield one attempt a case, in order, and store them under *task* in batches, the last one at the end."""
    store.put_policy(policy)
    batch: list[Attempt] = []
    try:
        async with contextlib.aclosing(engine.attempts(policy, cases, checks)) as attempts:
            async for attempt in attempts:
                batch.append(attempt)
                if len(batch) == BATCH:
                    store.put_attempts(task, batch)
                    batch = []
                yield attempt
    finally:
        if batch:
            store.put_attempts(task, batch)
