"""Make something better of a draft that is probably wrong: re-ask, refine, vote, or escalate.

Guarantees: every call is made inside the draft's own allowance and entered in its account; where a method finds
nothing better, or cannot begin, the draft stands; no method reads an answer key.  Leaves to others: whether to correct
at all, and by which method (``rule``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gainful.answers.answer import Asking, Judge, Outcome, objections, refined, voted
from gainful.core import Answer, JsonObject, Model, Refine, Verdict, Vote, lowest

VOTE = Vote()
REFINE = Refine()


@dataclass(frozen=True)
class Draft:
    """An answer that may be replaced: the asking it came from, the reply's message, and what checks say of it.

    ``stronger`` is the model to escalate to, ``None`` where there is none.
    """

    asking: Asking
    message: JsonObject
    answer: Answer
    verdicts: tuple[Verdict, ...] = ()
    stronger: Model | None = None


async def correct(method: str, draft: Draft, judging: Judge) -> Outcome:
    """Correct *draft* by *method*; the outcome's calls and usage are those of the draft and of its correction.

    Raises ``ModelError`` and ``CheckError`` as answering does, and ``TimeoutError`` where the deadline came before
    anything better: the draft is still good then.
    """
    match method:
        case "reask":
            found = await _reask(draft, judging)
        case "refine":
            found = await refined(draft.asking, draft.message, draft.answer, draft.verdicts, REFINE, judging)
        case "vote":
            found = await _vote(draft)
        case "escalate":
            found = await _escalate(draft, judging)
        case _:
            raise ValueError(f"{method!r} is no method of correction; use reask, refine, vote or escalate")
    return draft.asking.outcome(found)


async def _reask(draft: Draft, judging: Judge) -> Answer:
    """Ask afresh with the checks' words and without the draft, which would only be repeated.

    The new answer replaces the draft where the checks score it higher.
    """
    asking, words = draft.asking, objections(draft.verdicts)
    if not words or not asking.allowance.affords(1):
        return draft.answer
    _, found = await asking.ask({**asking.body, "messages": _with_words(asking.body["messages"], words)})
    judged = await judging(asking.case, found)
    return found if _score(judged) > _score(draft.verdicts) else draft.answer


def _with_words(messages: Sequence[JsonObject], words: str) -> list[JsonObject]:
    """Return *messages* with *words* at the end of the last user's turn, images and earlier turns as they came."""
    advice = f"Mind what went wrong at a first attempt: {words}"
    last = max((i for i, m in enumerate(messages) if m.get("role") == "user"), default=None)
    if last is None:
        return [*messages, {"role": "user", "content": advice}]
    content = messages[last].get("content")
    if isinstance(content, list):
        told: object = [*content, {"type": "text", "text": advice}]
    else:
        told = f"{content}\n\n{advice}" if content else advice
    return [*messages[:last], {**messages[last], "content": told}, *messages[last + 1 :]]


async def _vote(draft: Draft) -> Answer:
    """Take what most of several samples say; the draft has no vote, and stands where no sample holds an answer."""
    found = await voted(draft.asking, VOTE)
    return draft.answer if found.value is None else found


async def _escalate(draft: Draft, judging: Judge) -> Answer:
    """Ask the stronger model the same; its answer replaces the draft unless the checks score it lower.

    An adapter belongs to the model it was trained on, and stays behind.
    """
    asking = draft.asking
    if draft.stronger is None or not asking.allowance.affords(1):
        return draft.answer
    body = {name: value for name, value in asking.body.items() if name != "adapter"}
    _, found = await asking.ask(body, model=draft.stronger)
    if found.value is None:
        return draft.answer
    judged = await judging(asking.case, found)
    return draft.answer if _score(judged) < _score(draft.verdicts) else found


def _score(verdicts: Sequence[Verdict]) -> float:
    return lowest(verdicts) or 0.0
