"""Answer one case under one policy: once, by vote, or by verifying and refining.

Every strategy returns all calls it made and what they cost, and stops at its allowance with the best answer so
far.  None of them reads an answer key: checks that need a target are refused at the door.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from gainful.answers.extract import extract
from gainful.answers.prompt import request
from gainful.core import (
    Answer,
    AnswerKind,
    Case,
    Check,
    CheckError,
    JsonObject,
    Model,
    Once,
    Policy,
    Refine,
    Reply,
    Usage,
    Value,
    Vote,
    canonical,
    judge,
    lowest,
    message_text,
)


class Outcome(Value, frozen=True):
    """An answer, the keys of the calls behind it in order, and their sum."""

    answer: Answer
    calls: tuple[str, ...]
    usage: Usage


class Asking:
    """One case being answered: asks the model, extracts, and keeps account against an allowance of calls."""

    def __init__(self, case: Case, policy: Policy, model: Model, kind: AnswerKind, allowance: int | None = None):
        if allowance is not None and allowance < 1:
            raise ValueError(f"an allowance of {allowance} calls answers nothing; allow at least 1")
        self.case, self.policy, self.model, self.kind = case, policy, model, kind
        self.body = request(policy, case, kind)
        self._left = allowance
        self._replies: list[Reply] = []

    def affords(self, calls: int) -> int:
        """How many of *calls* more the allowance covers."""
        return calls if self._left is None else min(calls, self._left)

    async def ask(self, body: JsonObject, sample: int = 0) -> tuple[JsonObject, Answer]:
        """Ask once; return the reply's message and the answer in it."""
        if self._left is not None:
            self._left -= 1
        reply = await self.model.complete(body, sample=sample)
        self._replies.append(reply)
        value = extract(self.kind, reply.message, self.case, self.policy.format)
        return reply.message, Answer(text=message_text(reply.message), value=value)

    def outcome(self, answer: Answer) -> Outcome:
        """Close the account."""
        usage = sum((reply.usage for reply in self._replies), Usage())
        return Outcome(answer=answer, calls=tuple(sorted(reply.key for reply in self._replies)), usage=usage)


async def answer(asking: Asking, checks: Sequence[Check]) -> Outcome:
    """Answer under the policy's strategy.  *checks* may be consulted by strategies that verify.

    Raises ``ModelError`` where the model cannot be asked, ``CheckError`` for a check that reads the target.
    """
    for check in checks:
        if check.needs_target:
            raise CheckError(f"check {check.name!r} reads the answer key; it cannot help to answer")
    match asking.policy.strategy:
        case Once():
            _, found = await asking.ask(asking.body)
            return asking.outcome(found)
        case Vote() as vote:
            return await _vote(asking, vote)
        case Refine() as refine:
            return await _refine(asking, refine, checks)


async def _vote(asking: Asking, vote: Vote) -> Outcome:
    """Ask for a majority at once, then one at a time while the rest could still change the leader."""
    answers: list[Answer] = []
    wanted = asking.affords(vote.samples)
    while len(answers) < wanted:
        first = vote.samples // 2 + 1 if not answers else 1
        numbers = range(len(answers), min(len(answers) + first, wanted))
        bodies = [{**asking.body, "temperature": vote.temperature, "seed": number} for number in numbers]
        asked = await asyncio.gather(*(asking.ask(b, n) for b, n in zip(bodies, numbers, strict=True)))
        answers += [found for _, found in asked]
        counts = [count for _, count in _tally(answers).most_common(2)] + [0, 0]
        if counts[0] - counts[1] > wanted - len(answers):
            break
    return asking.outcome(_leader(answers))


def _tally(answers: Sequence[Answer]) -> Counter[bytes]:
    """Count extracted answers by value; replies without one do not vote."""
    return Counter(canonical(a.value) for a in answers if a.value is not None)


def _leader(answers: Sequence[Answer]) -> Answer:
    """Return the earliest answer among the most common, with every sample's value."""
    samples = tuple(a.value for a in answers)
    tally = _tally(answers)
    if not tally:
        return Answer(text=answers[0].text, samples=samples)
    most = max(tally.values())
    winner = next(a for a in answers if a.value is not None and tally[canonical(a.value)] == most)
    return Answer(text=winner.text, value=winner.value, samples=samples)


async def _refine(asking: Asking, refine: Refine, checks: Sequence[Check]) -> Outcome:
    """Ask again with the checks' own words; a later answer wins only where the checks score it higher."""
    message, best = await asking.ask(asking.body)
    messages = list(asking.body["messages"])
    for _ in range(asking.affords(refine.rounds)):
        verdicts = judge(checks, asking.case, best)
        objections = [v.feedback for v in verdicts if v.score is not None and v.score < 1.0 and v.feedback]
        if not objections:
            break
        words = "This is not right yet. " + " ".join(objections) + " Reply again in the same form."
        messages += [
            {"role": "assistant", "content": message_text(message) or best.text},
            {"role": "user", "content": words},
        ]
        message, found = await asking.ask({**asking.body, "messages": messages})
        if (lowest(judge(checks, asking.case, found)) or 0.0) > (lowest(verdicts) or 0.0):
            best = found
    return asking.outcome(best)
