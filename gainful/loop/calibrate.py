"""Find out, on dev cases whose truth is known, how well errors are noticed and which corrections pay.

Drafts are made as they would be served: under one policy, judged by the checks that read no answer key.  Truth comes
from trusted proof checks afterwards, and goes nowhere but into the detector and the trials.  Guarantees: held-out cases
stay sealed; a draft is suspected by a detector that had not seen its case; calls are remembered, so a calibration that
was killed goes on, and the same task, model, policy and plan give the same calibration.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import msgspec

from gainful.answers.allowance import Allowance
from gainful.answers.answer import Asking, answer, judge_by
from gainful.answers.correct import Draft, correct
from gainful.answers.detect import LOGPROBS, Detector, evidence
from gainful.answers.prompt import request
from gainful.answers.rule import METHODS, TRIALS, Rule, Standing, is_suspect
from gainful.core import (
    Answer,
    Attempt,
    CalibrationError,
    Case,
    Check,
    JsonObject,
    Model,
    Policy,
    Reply,
    RequestRefused,
    Trial,
    Usage,
    Value,
    Verdict,
    judge,
    lowest,
)
from gainful.engine.local import WINDOW, in_order
from gainful.loop.fitting import Fitted, fit
from gainful.store import Store
from gainful.tasks import Task

T = TypeVar("T")

PROBES = 3  # first cases by which it is seen whether a model gives log-probabilities

Tick = Callable[[str, int, int], None]
"""Told the step, how much of it is done, and of how much."""


class Plan(Value, frozen=True):
    """By which methods (``None``: those that the task is served with), and on how many dev cases at most."""

    methods: tuple[str, ...] | None = None
    cases: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for method in self.methods or ():
            if method not in METHODS:
                raise CalibrationError(f"{method!r} is no method of correction; use {', '.join(METHODS)}")


class Audit(Value, frozen=True):
    """How detection and correction stand for one task, model and policy in service; no detector: nothing is fitted.

    ``methods`` are those that the task is served with: no other corrects a reply, whatever its trials say.
    """

    task: str
    model: str
    policy: str
    detector: Detector | None
    standings: tuple[Standing, ...]
    methods: tuple[str, ...]

    def is_open(self, standing: Standing) -> bool:
        """Whether the server may correct by this method."""
        return standing.method in self.methods and standing.is_open

    def why(self, standing: Standing) -> str:
        """Say in a sentence why it is open or closed."""
        left_out = "" if standing.method in self.methods else "the task's serve.methods leaves it out; "
        return left_out + standing.why


class Calibration(Value, frozen=True):
    """What a calibration found.

    ``drafts`` have a known truth, ``wrong`` of them are wrong, and ``suspects`` were put to trial; ``refused`` counts
    cases that the model would not answer.  ``reason`` says why there is no detector; empty where there is one.
    """

    audit: Audit
    drafts: int
    wrong: int
    suspects: int
    refused: int
    reason: str
    usage: Usage


@dataclass(frozen=True)
class Drafted:
    """A draft as serving would have it, what speaks for and against it, and its true score."""

    case: Case
    body: JsonObject
    replies: tuple[Reply, ...]
    answer: Answer
    verdicts: tuple[Verdict, ...]
    evidence: dict[str, float]
    truth: float


async def calibrate(bench: Bench, store: Store, plan: Plan, tick: Tick) -> Calibration:
    """Draft every case, fit the detector, try every method on the suspects, and store detector and trials.

    Raises ``CalibrationError`` where no truth is known, where there is no model to escalate to or scikit-learn is
    missing, ``ModelError`` as answering does.
    """
    task, policy = bench.task, bench.policy
    methods = task.serving.methods if plan.methods is None else plan.methods
    if "escalate" in methods and bench.stronger is None:
        raise CalibrationError(f"task {task.name!r}: serve.escalate names no model to escalate to; give one")
    cases = _chosen(bench.known[1], plan)
    bench = await bench.with_logprobs(cases)
    made = await bench.all((bench.draft(case) for case in cases), lambda done: tick("drafts", done, len(cases)))
    drafts = [drafted for drafted in made if drafted is not None]
    wrong = [drafted.truth < 1.0 for drafted in drafts]
    fitted = await asyncio.to_thread(fit, [d.evidence for d in drafts], wrong, plan.seed, policy.id)
    suspects = [d for d, p in zip(drafts, fitted.chances, strict=True) if is_suspect(p, d.verdicts)]
    works = (bench.trial(drafted, method) for drafted in suspects for method in methods)
    total = len(suspects) * len(methods)
    trials = await bench.all(works, lambda done: tick("corrections", done, total))
    store.put_trials(trials)
    if fitted.detector is not None:
        store.put_detector(task.name, bench.model.name, msgspec.to_builtins(fitted.detector))
    spent = [reply.usage for drafted in drafts for reply in drafted.replies] + [trial.extra for trial in trials]
    return Calibration(
        audit=audit(store, task, bench.model.name, policy.id),
        drafts=len(drafts),
        wrong=sum(wrong),
        suspects=len(suspects),
        refused=len(made) - len(drafts),
        reason=fitted.reason,
        usage=sum(spent, Usage()),
    )


def audit(store: Store, task: Task, model: str, policy: str) -> Audit:
    """Return how detection and correction stand in *store* for drafts made under *policy*."""
    content = store.detector(task.name, model)
    rule = Rule.of(store.trials(task.name, model, limit=TRIALS), policy)
    detector = None if content is None else msgspec.convert(content, Detector)
    return Audit(task.name, model, policy, detector, rule.standings, task.serving.methods)


def refresh_detector(store: Store, bench: Bench, attempts: Sequence[Attempt], seed: int) -> Fitted:
    """Fit a detector on *attempts* on the bench's cases, and store it; no model is asked.

    One that a calibration fitted under the same policy stays: it has read the replies too.
    """
    content = store.detector(bench.task.name, bench.model.name)
    if content is not None and content.get("policy") == bench.policy.id:
        return Fitted(None, "the detector in service was fitted under this policy")
    cases = {case.id: case for case in bench.known[1]}
    keyless = {check.name for check in bench.task.keyless}
    evidences, wrong = [], []
    for attempt in (a for a in attempts if a.case in cases):
        truth = bench.truth(cases[attempt.case], attempt.answer)
        if truth is not None:
            evidences.append(evidence(attempt.answer, [v for v in attempt.verdicts if v.check in keyless]))
            wrong.append(truth < 1.0)
    fitted = fit(evidences, wrong, seed, bench.policy.id)
    if fitted.detector is not None:
        store.put_detector(bench.task.name, bench.model.name, msgspec.to_builtins(fitted.detector))
    return fitted


@dataclass(frozen=True)
class Bench:
    """Where drafts are made and put to trial: one task, policy and model, and the checks that know the truth.

    ``fields`` are added to every request.
    """

    task: Task
    policy: Policy
    model: Model
    stronger: Model | None = None
    fields: JsonObject = field(default_factory=dict)

    @cached_property
    def known(self) -> tuple[tuple[Check, ...], tuple[Case, ...]]:
        """The trusted proof checks, and the dev cases on which they can tell what is right.

        Raises ``CalibrationError`` where there are none.
        """
        task = self.task
        trusted = tuple(check for check in task.proof if check.trusted)
        free = tuple(check for check in trusted if not check.needs_target)
        keyed = tuple(case for case in task.dev if case.target is not None)
        if keyed and free != trusted:
            return trusted, keyed
        if free:
            return free, task.dev
        raise CalibrationError(
            f"task {task.name!r}: no dev case has a target, and no proof check is trusted without one, so nobody knows "
            "which answers are right and nothing can be calibrated; give targets, or a check that validates or executes"
        )

    async def all(self, works: Iterable[Coroutine[Any, Any, T]], tick: Callable[[int], None]) -> list[T]:
        """Do all *works*, as many at once as the model answers well; return what they return, in order."""
        found: list[T] = []
        async with contextlib.aclosing(in_order(works, WINDOW * self.model.concurrency)) as results:
            async for result in results:
                found.append(result)
                tick(len(found))
        return found

    async def with_logprobs(self, cases: Sequence[Case]) -> Bench:
        """Return a bench that asks for log-probabilities too, where the model gives them."""
        for case in cases[:PROBES]:
            with contextlib.suppress(RequestRefused):
                reply = await self.model.complete({**request(self.policy, case, self.task.kind), **LOGPROBS})
                if "mean_logprob" in evidence(Answer(text=""), (), reply.body):
                    return replace(self, fields=LOGPROBS)
        return self

    def truth(self, case: Case, answer: Answer) -> float | None:
        """Return the true score of *answer*, ``None`` where the proof checks cannot tell."""
        return lowest(judge(self.known[0], case, answer))

    async def draft(self, case: Case) -> Drafted | None:
        """Answer *case* as serving would; ``None`` where the model refuses or the truth cannot be told."""
        body = {**request(self.policy, case, self.task.kind), **self.fields}
        asking = Asking(case, self.policy, self.model, self.task.kind, body)
        judging = judge_by(self.task.keyless)
        try:
            outcome = await answer(asking, judging)
        except RequestRefused:
            return None
        truth = self.truth(case, outcome.answer)
        if truth is None:
            return None
        verdicts = await judging(case, outcome.answer)
        found = evidence(outcome.answer, verdicts, asking.replies[0].body)
        return Drafted(case, body, tuple(asking.replies), outcome.answer, verdicts, found, truth)

    async def trial(self, drafted: Drafted, method: str) -> Trial:
        """Correct *drafted* by *method* and score what comes of it; a refused correction leaves the draft."""
        allowance = Allowance()
        allowance.claim()
        asking = Asking(drafted.case, self.policy, self.model, self.task.kind, drafted.body, allowance)
        asking.replies += drafted.replies
        message = drafted.replies[0].message
        draft = Draft(asking, message, drafted.answer, drafted.verdicts, self.stronger)
        after = drafted.truth
        with contextlib.suppress(RequestRefused):
            outcome = await correct(method, draft, judge_by(self.task.keyless))
            after = self.truth(drafted.case, outcome.answer) or 0.0  # what cannot be told is never a pass
        extra = sum((reply.usage for reply in asking.replies[len(drafted.replies) :]), Usage())
        return Trial(
            task=self.task.name,
            model=self.model.name,
            method=method,
            case=drafted.case.id,
            before=drafted.truth,
            after=after,
            extra=extra,
            policy=self.policy.id,
        )


def _chosen(cases: Iterable[Case], plan: Plan) -> list[Case]:
    """Return the plan's cases in an order of its seed."""
    return sorted(cases, key=lambda c: hashlib.sha256(f"{plan.seed} {c.id}".encode()).digest())[: plan.cases]
