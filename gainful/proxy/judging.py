"""Run a task's checks on one answer so that a check that raises, hangs or eats memory cannot hurt the server.

Guarantees: ``judge`` gives the verdicts of ``core.judge`` in the order of the checks, or raises ``CheckError`` naming a
check; it is back soon after its time limit; the event loop is kept for microseconds, at worst for milliseconds.  A
check whose time is bounded runs here.  One that may run for ever (a user's function, a regular expression, a schema
with patterns) runs in a process of its own, and so does any check when prompt or answer are long.  Leaves to others:
what the caller gets when judging fails.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gainful import checks as ours
from gainful.checks.child import Judgement, Named
from gainful.core import Answer, Case, Check, CheckError, GainfulError, ServeError, Verdict, judge
from gainful.proxy.judging_process import JudgingProcess

MOST_ANSWER_BYTES = 1_000  # an answer that breaks a schema at every item takes 30 microseconds a byte
MOST_WORK = 300_000  # bytes of the case times bytes of the answer, for grounding compares all words: 4 ms at worst

_BOUNDED = (ours.Agreement, ours.AnswerKey, ours.Choice, ours.Exact, ours.Grounding, ours.Number, ours.ToolCall)
# what may take more than linear time in the answer: patterns backtrack, references recur, items are compared in pairs
_UNBOUNDED_KEYWORDS = {"pattern", "patternProperties", "$ref", "$dynamicRef", "uniqueItems"}


class Judging:
    """The checks of one task, ready to judge answers that callers wait for.

    Raises ``ServeError`` for a check of another make than Gainful's, which a process of its own could not build
    again; a user's check must be a function.
    """

    def __init__(self, checks: tuple[Check, ...]) -> None:
        self._checks = checks
        self._bounded = tuple(is_bounded(check) for check in checks)
        self._process = JudgingProcess([_named(check) for check in checks])

    async def start(self) -> None:
        """Start the process now, so that no request waits for it: a long text may need it at any time.

        Raises ``CheckError`` where a check cannot be built there: its file has changed, say.
        """
        if self._checks:
            await self._process.start()

    async def judge(self, case: Case, answer: Answer, timeout_s: float) -> tuple[Verdict, ...]:
        """Return one verdict a check; raises ``CheckError`` naming the check that broke or took too long.

        *timeout_s* bounds all of it: waiting for others, starting the process and judging.  A ``CheckError`` may quote
        what the check said, and so the prompt: it is not for logs.
        """
        case_json, answer_json = _encoded(case), _encoded(answer)
        is_short = len(answer_json) <= MOST_ANSWER_BYTES and len(case_json) * len(answer_json) <= MOST_WORK
        here = [place for place, bounded in enumerate(self._bounded) if bounded and is_short]
        there = [place for place in range(len(self._checks)) if place not in here]
        verdicts = dict(zip(here, judge([self._checks[place] for place in here], case, answer), strict=True))
        if there:
            request = Judgement(msgspec.Raw(case_json), msgspec.Raw(answer_json), there, timeout_s)
            verdicts |= zip(there, await self._process.judge(request), strict=True)
        return tuple(verdicts[place] for place in range(len(self._checks)))

    async def close(self) -> None:
        """End the process; later judgements that need it raise ``CheckError``."""
        await self._process.close()


def is_bounded(check: Check) -> bool:
    """Say whether *check* takes time at most linear in the answer, once for each byte of the case.

    >>> is_bounded(ours.Regex("(a+)+")), is_bounded(ours.ToolCall()), is_bounded(ours.JsonSchema({"type": "object"}))
    (False, True, True)
    """
    if isinstance(check, ours.JsonSchema):
        return not _UNBOUNDED_KEYWORDS & set(_names(check.schema))
    return type(check) in _BOUNDED


def _names(value: Any) -> list[str]:
    """Return every member's name in a JSON value, however deep."""
    if isinstance(value, dict):
        return [*value, *(name for member in value.values() for name in _names(member))]
    return [name for item in value for name in _names(item)] if isinstance(value, list | tuple) else []


def _named(check: Check) -> Named:
    """Return how another process builds *check* again."""
    if isinstance(check, ours.Function):
        return Named(check.name, check.spec, str(check.folder.resolve()))
    try:
        is_ours = ours.from_spec(check.spec) == check
    except GainfulError:
        is_ours = False
    if not is_ours:
        raise ServeError(
            f"check {check.name!r} is a {type(check).__name__}, which cannot be served: a process of its own must "
            "build it again; give it as a function, FILE.py:NAME"
        )
    return Named(check.name, check.spec)


def _encoded(value: Case | Answer) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CheckError(f"nothing was judged: JSON cannot carry the {type(value).__name__}; {error}") from None
