"""Race candidates against the head on dev by successive halving, paired case by case.

All candidates answer the same few cases; the better part answers more; the last ones answer all.  Nothing is
claimed here: dev is for searching, however greedily, and only a confirmation on held-out cases promotes.
(Jamieson and Talwalkar, 2016, Non-stochastic best arm identification and hyperparameter optimization, section 3.)
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from gainful.core import Attempt, Policy, Proposal, Usage, Value
from gainful.loop.board import Board, difference
from gainful.loop.events import Proposed, Rung, Standing
from gainful.loop.journal import Journal
from gainful.loop.run import Cheaper, Settings

LEAST_LEAD = 2  # dev cases' worth of score over the head: by a single case one policy leads another on noise alone


class Runner(Value, frozen=True):
    """A proposal under its label."""

    label: str
    proposal: Proposal


async def race(
    head: Policy, runners: Sequence[Runner], board: Board, journal: Journal, round: int, settings: Settings
) -> Standing | None:
    """Return the best runner's last standing, ``None`` where there was nobody to race or no budget left to do it."""
    halving, goal = settings.halving, settings.cheaper
    for runner in runners:
        journal.write(Proposed(round=round, label=runner.label, proposal=runner.proposal))
    racing = {runner.label: runner.proposal.policy for runner in runners}
    best: Standing | None = None
    for number, n in enumerate(halving.rungs):
        n = min(n, len(board.cases))
        if not board.affords([head, *racing.values()], n):
            break
        standings = await _run_rung(head, racing, n, board, journal, f"round {round}, step {number + 1}")
        standings.sort(key=lambda standing: _rank(standing, goal))
        last = number == len(halving.rungs) - 1 or n == len(board.cases)
        survivors = 1 if last else max(1, math.ceil(len(standings) * halving.keep))
        kept = {s.label for s in standings[:survivors] if not last or leads(s, goal)}
        rung = tuple(msgspec.structs.replace(s, kept=s.label in kept) for s in standings)
        journal.write(Rung(round=round, rung=number + 1, n=n, standings=rung))
        best = rung[0] if rung else None
        racing = {label: policy for label, policy in racing.items() if label in kept}
        if last or not racing:
            break
    return best


def leads(standing: Standing, goal: Cheaper | None = None) -> bool:
    """Say whether a runner is ahead of the head by ``LEAST_LEAD`` cases, so that it may follow it.

    Where the *goal* is to be cheaper: whether it saves enough and is not worse by more than the margin.
    """
    if goal is not None:
        return standing.saving >= goal.saving and standing.gain >= -goal.margin
    return round(standing.gain * standing.n, 6) >= LEAST_LEAD


def _rank(standing: Standing, goal: Cheaper | None) -> tuple[Any, ...]:
    """What standings are ordered by, best first: the gain and then the saving, or the other way round."""
    if goal is not None:
        return (standing.gain < -goal.margin, -standing.saving, -standing.gain, standing.label)
    return (-standing.gain, standing.usage.completion_tokens + standing.usage.prompt_tokens, standing.label)


async def _run_rung(
    head: Policy, racing: dict[str, Policy], n: int, board: Board, journal: Journal, step: str
) -> list[Standing]:
    """Bring head and runners to *n* cases and return the runners' standings."""
    missing = sum(n - min(n, len(board.answered(policy))) for policy in (head, *racing.values()))
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        journal.progress(step, done, missing)

    reference, *filled = await asyncio.gather(*(board.fill(p, n, tick) for p in (head, *racing.values())))
    standings = []
    for (label, policy), attempts in zip(racing.items(), filled, strict=True):
        gains = [difference(ours, theirs) for ours, theirs in zip(attempts, reference, strict=True)]
        scores = [a.score for a in attempts if a.score is not None]
        standings.append(
            Standing(
                label=label,
                policy=policy.id,
                n=n,
                score=sum(scores) / len(scores) if scores else 0.0,
                gain=sum(gains) / n,
                wins=sum(g > 0 for g in gains),
                losses=sum(g < 0 for g in gains),
                kept=True,
                usage=sum((a.usage for a in attempts), Usage()),
                saving=round(1.0 - _tokens(attempts) / max(1, _tokens(reference)), 6),
            )
        )
    return standings


def _tokens(attempts: Sequence[Attempt]) -> int:
    return sum(attempt.usage.prompt_tokens + attempt.usage.completion_tokens for attempt in attempts)
