"""Make attempts and keep them: what the engine answers is in the store before a run goes on from it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence

from gainful.core import Attempt, Case, Check, Policy
from gainful.engine.local import Engine
from gainful.store import Store

RIGHT, WRONG = "+", "-"
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


def former_marks(store: Store, task: str, cases: Iterable[Case], champion: str) -> dict[str, str]:
    """Return how *champion*'s predecessors did on *cases*: by a case's id a mark for each that has answered it.

    The first champion's comes first.  What no check could tell has no mark.
    """
    wanted = {case.id for case in cases}
    marks: dict[str, str] = {}
    for policy in dict.fromkeys(installed.policy for installed in store.champion_history(task)):
        if policy != champion:
            for attempt in store.attempts(task, policy):
                if attempt.case in wanted and attempt.score is not None:
                    marks[attempt.case] = marks.get(attempt.case, "") + (RIGHT if attempt.score == 1.0 else WRONG)
    return marks
