"""Answer one case under one policy: once, by vote, or by verifying and refining.

Every strategy returns all calls it made and what they cost, and stops at its allowance with the best answer so
far.  None of them reads an answer key: checks that need a target are refused at the door.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from gainful.answers.allowance import Allowance
from gainful.answers.extract import extract
from gainful.answers.prompt import compact, request
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
    Verdict,
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


Judge: TypeAlias = Callable[[Case, Answer], Awaitable[tuple[Verdict, ...]]]
"""What strategies consult; nothing in it reads an answer key."""


def judge_by(checks: Sequence[Check]) -> Judge:
    """Return a judge that runs *checks* here and now; raises ``CheckError`` for one that reads the target."""
    for check in checks:
        if check.needs_target:
            raise CheckError(f"check {check.name!r} reads the answer key; it cannot help to answer")

    async def judging(case: Case, answer: Answer) -> tuple[Verdict, ...]:
        return judge(checks, case, answer)

    return judging


class Asking:
    """One case being answered: asks the model, extracts, and keeps account against an allowance.

    *body* is the request to start from, where it is not simply that of the policy for the case.
    """

    def __init__(
        self,
        case: Case,
        policy: Policy,
        model: Model,
        kind: AnswerKind,
        body: JsonObject | None = None,
        allowance: Allowance | None = None,
    ):
        self.case, self.policy, self.model, self.kind = case, policy, model, kind
        self.body = request(policy, case, kind) if body is None else body
        self.allowance = allowance or Allowance()
        self.replies: list[Reply] = []

    async def ask(self, body: JsonObject, sample: int = 0, model: Model | None = None) -> tuple[JsonObject, Answer]:
        """Ask once, *model* or else the usual one; return the reply's message and the answer in it.

        Raises ``TimeoutError`` at the deadline.
        """
        is_first = self.allowance.claim()
        async with asyncio.timeout(self.allowance.left_s):
            reply = await (model or self.model).complete(body, sample=sample)
        self.take(reply, is_first=is_first)
        return reply.message, self.read(reply.message)

    def take(self, reply: Reply, *, is_first: bool) -> None:
        """Enter a reply into the account."""
        self.replies.append(reply)
        if not is_first:
            self.allowance.spend(reply.usage)

    def read(self, message: JsonObject) -> Answer:
        """Return the answer in a reply's message."""
        value = extract(self.kind, message, self.case, self.policy.format)
        return Answer(text=message_text(message), value=value)

    def outcome(self, answer: Answer) -> Outcome:
        """Close the account."""
        usage = sum((reply.usage for reply in self.replies), Usage())
        return Outcome(answer=answer, calls=tuple(sorted(reply.key for reply in self.replies)), usage=usage)


async def answer(asking: Asking, judging: Judge) -> Outcome:
    """Answer under the policy's strategy; strategies that verify consult *judging*.

    Raises ``ModelError`` where the model cannot be asked, and ``TimeoutError`` where the deadline came before any
    answer.
    """
    match asking.policy.strategy:
        case Once():
            _, found = await asking.ask(asking.body)
            return asking.outcome(found)
        case Vote() as vote:
            return asking.outcome(await voted(asking, vote))
        case Refine() as refine:
            message, found = await asking.ask(asking.body)
            verdicts = await judging(asking.case, found)
            return asking.outcome(await refined(asking, message, found, verdicts, refine, judging))


async def voted(asking: Asking, vote: Vote) -> Answer:
    """Ask for a majority at once, then one at a time while the rest could still change the leader.

    Where the allowance covers no sample at all, the answer is empty.
    """
    answers: list[Answer] = []
    wanted = vote.samples
    while len(answers) < wanted:
        first = vote.samples // 2 + 1 if not answers else 1
        numbers = range(len(answers), len(answers) + asking.allowance.affords(min(first, wanted - len(answers))))
        found = await _sampled(asking, vote, numbers)
        answers += found
        if len(found) < first:
            break  # the allowance or the deadline: the best so far
        counts = [count for _, count in _tally(answers).most_common(2)] + [0, 0]
        if counts[0] - counts[1] > wanted - len(answers):
            break
    return _leader(answers)


async def _sampled(asking: Asking, vote: Vote, numbers: Sequence[int]) -> list[Answer]:
    """Take the samples *numbers* at once; those that the deadline cut off are left out, unless all of them were."""
    bodies = [{**asking.body, "temperature": vote.temperature, "seed": number} for number in numbers]
    asked = await asyncio.gather(
        *(asking.ask(b, n) for b, n in zip(bodies, numbers, strict=True)), return_exceptions=True
    )
    for failed in (a for a in asked if isinstance(a, BaseException)):
        if not isinstance(failed, TimeoutError) or not asking.replies:
            raise failed
    return [found for _, found in (a for a in asked if not isinstance(a, BaseException))]


def _tally(answers: Sequence[Answer]) -> Counter[bytes]:
    """Count extracted answers by value; replies without one do not vote."""
    return Counter(canonical(a.value) for a in answers if a.value is not None)


def _leader(answers: Sequence[Answer]) -> Answer:
    """Return the earliest answer among the most common, with every sample's value."""
    samples = tuple(a.value for a in answers)
    tally = _tally(answers)
    if not tally:
        return Answer(text=answers[0].text if answers else "", samples=samples)
    most = max(tally.values())
    winner = next(a for a in answers if a.value is not None and tally[canonical(a.value)] == most)
    return Answer(text=winner.text, value=winner.value, samples=samples)


async def refined(
    asking: Asking, message: JsonObject, best: Answer, verdicts: Sequence[Verdict], refine: Refine, judging: Judge
) -> Answer:
    """Ask again with the checks' own words; a later answer wins only where the checks score it higher.

    *message* is the reply that *best* came in, *verdicts* what the checks say of it.
    """
    messages = list(asking.body["messages"])
    for _ in range(refine.rounds):
        objecting = objections(verdicts)
        if not objecting or not asking.allowance.affords(1):
            break
        words = f"This is not right yet. {objecting} Reply again in the same form."
        messages += [
            {"role": "assistant", "content": _shown(message, best)},
            {"role": "user", "content": words},
        ]
        try:
            message, found = await asking.ask({**asking.body, "messages": messages})
        except TimeoutError:
            break
        judged = await judging(asking.case, found)
        if (lowest(judged) or 0.0) > (lowest(verdicts) or 0.0):
            best, verdicts = found, judged
    return best


def objections(verdicts: Sequence[Verdict]) -> str:
    """Return what checks say against an answer, in their own words; empty where none objects in words."""
    return " ".join(v.feedback for v in verdicts if v.score is not None and v.score < 1.0 and v.feedback)


def _shown(message: JsonObject, best: Answer) -> str:
    """Return the text of a reply as a turn; a call that came in the message's own field, as JSON."""
    return message_text(message) or best.text or ("" if best.value is None else compact(best.value))
