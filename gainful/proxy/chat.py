"""One request answered: draft, check, correct where that pays, and put into the caller's form.

Guarantees: whatever breaks after the draft (a check, the detector, a correction), the caller gets the draft and
``failure`` says why; nothing that stands in a prompt or a reply chooses a policy, a method or a model; every call
is made inside the request's allowance and is in ``usage``.  Leaves to others: HTTP, streams, the store.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from gainful.answers.allowance import Allowance, Limits
from gainful.answers.answer import Asking, Outcome, answer
from gainful.answers.correct import Draft, correct
from gainful.answers.detect import LOGPROBS, Detector, evidence
from gainful.answers.rule import Rule, Standing, is_suspect
from gainful.answers.shape import PLAIN, is_rewritten, present, reply_body, shape
from gainful.core import (
    Answer,
    Case,
    CheckError,
    GainfulError,
    JsonObject,
    Once,
    Policy,
    Reply,
    RequestRefused,
    Usage,
    Verdict,
    VerdictWord,
    lowest,
)
from gainful.proxy.judging import Judging
from gainful.proxy.upstream import Upstream
from gainful.tasks import Task

CHECK_S = 2.0  # a check that takes longer than this is broken: the caller gets the plain answer
Lost: TypeAlias = Literal["kept", "late"]
"""The draft was kept for it was no worse, or for the correction came too late."""

LOGPROB_EVIDENCE = ("mean_logprob", "min_logprob")  # evidence that the model must be asked for


@dataclass(frozen=True)
class Served:
    """A task as it is in service at one moment; replaced as a whole when champion or evidence change."""

    task: Task
    policy: Policy
    judging: Judging
    rule: Rule
    detector: Detector | None
    limits: Limits

    @property
    def wants_logprobs(self) -> bool:
        """Whether the detector reads log-probabilities."""
        return self.detector is not None and any(name in self.detector.features for name in LOGPROB_EVIDENCE)


class Models(NamedTuple):
    """The model of one request, and the stronger one that may be asked where its answer is wrong."""

    usual: Upstream
    stronger: Upstream | None = None

    @property
    def busy_s(self) -> float:
        """Seconds in which they were asked."""
        return self.usual.busy_s + (self.stronger.busy_s if self.stronger else 0.0)


class Answered(NamedTuple):
    """What goes back to the caller, and what is known of it."""

    body: JsonObject
    answer: Answer
    verdict: VerdictWord
    verdicts: tuple[Verdict, ...]
    p_wrong: float | None
    usage: Usage
    correcting: Usage  # the part of it that corrections took
    correction: str  # the method that replaced the draft, "" where none did
    draft: Any  # the draft's value where it was replaced
    failure: str  # what broke after the draft, "" where nothing did


class Chat:
    """One request on its way: ``draft`` or ``take`` comes first, then ``examine``, perhaps ``correct``, ``answered``.

    *may_correct* is asked before a correction that pays is made: all requests together may have spent enough.
    """

    def __init__(
        self, served: Served, body: JsonObject, models: Models, allowance: Allowance, may_correct: Callable[[], bool]
    ) -> None:
        self.served = served
        self.models = models
        self._body = body
        self._allowance = allowance
        self._may_correct = may_correct
        self._ask_under(served.policy)
        self._several = body.get("n") not in (None, 1)
        self._outcome = Outcome(answer=Answer(text=""), calls=(), usage=Usage())
        self._drafted: Outcome | None = None
        self._verdicts: tuple[Verdict, ...] = ()
        self._p_wrong: float | None = None
        self._correction = ""
        self._correcting = Usage()
        self.failure = ""
        self.broken_check = ""  # the name of the check that made it fail, where one did
        self.lost: tuple[str, Lost] | None = None  # a correction that was tried in vain: its method, and why in vain
        self.is_finished = False  # drafted, examined, perhaps corrected: nothing of the reply will change any more

    def _ask_under(self, policy: Policy) -> None:
        self.shaped = shape(policy, self._body, self.served.task.kind)
        self.rewritten = is_rewritten(self.shaped, self.served.task.kind)
        self._borrowed = self.served.wants_logprobs and "logprobs" not in self._body
        sent = {**self.shaped.body, **LOGPROBS} if self._borrowed else self.shaped.body
        self.asking = Asking(
            self.shaped.case, self.shaped.policy, self.models.usual, self.served.task.kind, sent, self._allowance
        )

    def ask_plainly(self, refused: RequestRefused) -> bool:
        """Turn to the request as the caller sent it, where the model has *refused* what the policy made of it."""
        if self.shaped.is_plain:
            return False
        self._fail(refused)
        self._ask_under(PLAIN)
        return True

    @property
    def passes(self) -> bool:
        """Whether the model's words may reach the caller as they come: asked once, and in the caller's form."""
        return not self.rewritten and isinstance(self.shaped.policy.strategy, Once)

    async def finish(self) -> None:
        """Draft, examine, and correct where that pays."""
        await self.draft()
        await self.examine()
        await self.correct()
        self.is_finished = True

    async def draft(self) -> None:
        """Answer under the policy.  Raises ``ModelError``, and ``TimeoutError`` where the deadline came first."""
        try:
            self._outcome = await answer(self.asking, self._judge)
        except RequestRefused as error:
            if not self.ask_plainly(error):
                raise
            self._outcome = await answer(self.asking, self._judge)
        except CheckError as error:
            if not self.asking.replies:
                raise
            self._fail(error)  # a strategy consulted a check that broke: its first answer stands
            self._outcome = self.asking.outcome(self.asking.read(self.asking.replies[0].message))

    def take(self, body: JsonObject, elapsed_ms: float) -> None:
        """Enter a draft that was streamed to the caller or held, whole."""
        reply = Reply(body=body, elapsed_ms=elapsed_ms)
        self.asking.take(reply, is_first=True)
        self._outcome = self.asking.outcome(self.asking.read(reply.message))

    async def examine(self) -> None:
        """Judge the answer and say how likely it is wrong; past the deadline nothing more is found out.

        Nor of an answer that came without the policy's adapter: it says nothing of the policy.
        """
        self.failure = self.failure or self.models.usual.failure
        if self.failure or self._several or self.asking.allowance.left_s == 0.0:
            return
        try:
            self._verdicts = await self._judge(self.shaped.case, self._outcome.answer)
            if self.served.detector is not None:
                found = evidence(self._outcome.answer, self._verdicts, self.asking.replies[0].body)
                self._p_wrong = self.served.detector.p_wrong(found)
        except CheckError as error:
            self._fail(error)

    async def passes_segment(self, segment: str) -> bool:
        """Whether no segment check of the task objects to a sentence on its own; one that breaks objects."""
        names = self.served.task.serving.segment_checks
        if not names:
            return True
        try:
            verdicts = await self._judge(self.shaped.case, Answer(text=segment, value=segment.strip()))
        except CheckError as error:
            self._fail(error)
            return False
        return not any(v.check in names and v.score is not None and v.score < 1.0 for v in verdicts)

    async def correct(self, begins_with: str = "") -> None:
        """Replace the draft where it is suspect, a method is open for it, and the allowance covers that method.

        A correction that does not begin with *begins_with*, which the caller has already, comes too late.
        """
        if self.failure or self._several or not is_suspect(self._p_wrong, self._verdicts):
            return
        chosen = self.served.rule.choose(self._p_wrong, self._affords)
        if chosen is None or not self._may_correct():
            return
        message = self.asking.replies[0].message
        draft = Draft(self.asking, message, self._outcome.answer, self._verdicts, self.models.stronger)
        before = len(self.asking.replies)
        try:
            outcome = await correct(chosen.method, draft, self._judge)
        except TimeoutError:
            self.lost = (chosen.method, "late")  # the best answer so far is the draft
            return
        except GainfulError as error:
            self._fail(error)
            return
        finally:
            self._correcting = sum((reply.usage for reply in self.asking.replies[before:]), Usage())
        if outcome.answer.value == draft.answer.value:
            self.lost = (chosen.method, "kept")
        elif not outcome.answer.text.startswith(begins_with):
            self.lost = (chosen.method, "late")
        else:
            self._drafted, self._outcome, self._correction = self._outcome, outcome, chosen.method
            await self.examine()

    def answered(self) -> Answered:
        """Put the answer into the caller's form and close the account."""
        found, replies = self._outcome.answer, self.asking.replies
        own = next((r.message for r in replies if self._is_from(r)), None) if not self._correction else None
        body = reply_body(replies, present(self.shaped, self.served.task.kind, found, own))
        return Answered(
            body=_without_logprobs(body) if self._borrowed else body,
            answer=found,
            verdict=self._word(),
            verdicts=self._verdicts,
            p_wrong=self._p_wrong,
            usage=sum((reply.usage for reply in replies), Usage()),
            correcting=self._correcting,
            correction=self._correction,
            draft=self._drafted.answer.value if self._drafted else None,
            failure=self.failure,
        )

    def _is_from(self, reply: Reply) -> bool:
        return self.asking.read(reply.message).text == self._outcome.answer.text

    def _word(self) -> VerdictWord:
        if self.failure:
            return "failed-open"
        if self._correction:
            return "corrected"
        is_trusted = any(v.trusted and v.score is not None for v in self._verdicts)
        return "verified" if is_trusted and lowest(self._verdicts) == 1.0 else "unverified"

    def _affords(self, standing: Standing) -> bool:
        calls = max(1, math.ceil(standing.extra_calls))
        return self.asking.allowance.affords(calls) == calls

    async def _judge(self, case: Case, found: Answer) -> tuple[Verdict, ...]:
        left_s = self.asking.allowance.left_s
        return await self.served.judging.judge(case, found, CHECK_S if left_s is None else min(CHECK_S, left_s))

    def _fail(self, error: Exception) -> None:
        self.failure = type(error).__name__
        self.broken_check = error.check if isinstance(error, CheckError) else ""


def _without_logprobs(body: JsonObject) -> JsonObject:
    """Take out what the caller did not ask for."""
    return {**body, "choices": [{**choice, "logprobs": None} for choice in body["choices"]]}
