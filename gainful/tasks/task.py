"""A task: cases, what an answer looks like, and who judges it, for learning and for proof."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import msgspec

from gainful.checks import Choice, Function
from gainful.core import AnswerKind, Case, Check, Demo, JsonObject, Policy, TaskError
from gainful.tasks.holdout import Holdout
from gainful.tasks.improving import Improving
from gainful.tasks.own import SIGN, own_name, shared_name
from gainful.tasks.serving import Serving
from gainful.tasks.split import DEFAULT, Divided, Split

NO_POLICY = Policy()
AS_USUAL = Serving()
BY_ITSELF = Improving()
POPULATION = "cases"  # the same for all: a hold-out under another name is the same hold-out, with the same budget


@dataclass(frozen=True)
class Task:
    """What is to be done well.

    ``checks`` are those that learning may use on ``dev``; ``proof`` are those of the confirmation on ``holdout``.
    ``spec`` says where all of it came from, enough to load the task again: ``spec["load"]`` is what ``load`` takes.
    ``serving`` says how callers are served, ``improving`` how it gets better meanwhile; no gain depends on either.
    ``split`` also divides the cases that traffic brings.  ``practice`` are cases that learners may train on and nothing
    is raced on; dev cases that no race uses serve as well.  ``repairs`` are corrected errors, for learners to show.
    ``owner`` is the key that alone is served it, "" where it is all callers'.
    Raises ``TaskError`` where there is no name or one that would be taken for a caller's own, no dev case or no check
    to learn from.
    """

    name: str
    kind: AnswerKind
    dev: tuple[Case, ...]
    holdout: Holdout
    checks: tuple[Check, ...]
    proof: tuple[Check, ...]
    baseline: Policy
    spec: JsonObject
    serving: Serving = AS_USUAL
    improving: Improving = BY_ITSELF
    split: Split = DEFAULT
    practice: tuple[Case, ...] = ()
    repairs: tuple[Demo, ...] = ()
    owner: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise TaskError("the task has no name; give it one, for its champion is kept under it")
        shared = shared_name(self.name)
        if self.name != (own_name(shared, self.owner) if self.owner else shared):
            raise TaskError(
                f"the task's name {self.name!r} holds {SIGN!r}, which marks callers' own tasks; leave it out"
            )
        if not self.dev:
            raise TaskError(f"task {self.name!r} has no dev case; learning needs some, 50 or better 200")
        if not self.checks:
            raise TaskError(f"task {self.name!r} has no check to learn from; add one that may be used on dev cases")

    def of(self, key: str) -> Task:
        """Return this task as the caller *key*'s own: what is learned on it is for nobody else, so from it alone."""
        improving = msgspec.structs.replace(self.improving, apart=False)
        return replace(self, name=own_name(self.name, key), improving=improving, owner=key)

    @property
    def obstacle(self) -> str | None:
        """Why no gain on this task can ever be proven, in one sentence; ``None`` where it can."""
        if not any(check.trusted for check in self.proof):
            judged = ", ".join(check.name for check in self.proof) or "none at all"
            return (
                f"task {self.name!r} can be explored but nothing on it can be promoted: none of its proof checks is "
                f"trusted (it has: {judged}); add a check that compares with a target, validates or executes"
            )
        if self.holdout.size == 0:
            return f"task {self.name!r} has no held-out case, so nothing on it can be promoted; give it more cases"
        return None

    @property
    def provable(self) -> bool:
        """Whether a gain on this task could be proven at all, given enough cases."""
        return self.obstacle is None

    @cached_property
    def keyless(self) -> tuple[Check, ...]:
        """The checks that read no answer key, of learning and of proof, each once: all that can judge live traffic."""
        return tuple({c.name: c for c in (*self.checks, *self.proof) if not c.needs_target}.values())

    @cached_property
    def shown(self) -> tuple[Case, ...]:
        """The dev cases as learners may see them: without targets, unless a check for learning reads targets."""
        return self._shown(self.dev)

    @cached_property
    def practice_shown(self) -> tuple[Case, ...]:
        """The practice cases as learners may see them."""
        return self._shown(self.practice)

    def _shown(self, cases: tuple[Case, ...]) -> tuple[Case, ...]:
        if any(check.needs_target for check in self.checks):
            return cases
        return tuple(msgspec.structs.replace(case, target=None) for case in cases)


def make_task(
    name: str,
    cases: Divided,
    kind: AnswerKind,
    checks: Sequence[Check],
    proof: Sequence[Check] | None = None,
    baseline: Policy = NO_POLICY,
) -> Task:
    """Return a task on divided cases: ``make_task("mood", divide(cases), Choice(labels), [checks.Choice(labels)])``.

    *checks* judge dev cases, where learning may use them, targets included, and the held-out ones too unless
    *proof* names others for those.  Raises ``TaskError`` where a check needs targets that the cases do not have, or
    labels that their targets are none of.
    """
    proof = checks if proof is None else proof
    for check in (c for c in checks if _must_have_targets(c)):
        if all(case.target is None for case in cases.dev):
            raise TaskError(
                f"task {name!r}: learning uses the check {check.name!r}, but no dev case has a target; "
                "give targets, or use a check that needs none"
            )
    for check in (c for c in proof if _must_have_targets(c)):
        for case in cases.held_out:
            if case.target is None:
                raise TaskError(
                    f"task {name!r}: the check {check.name!r} needs targets, but {case.name or case.id[:12]} has none; "
                    "give it one or take it out"
                )
    _refuse_unknown_labels(name, (*cases.dev, *cases.held_out), (*checks, *proof))
    return Task(
        name=name,
        kind=kind,
        dev=cases.dev,
        holdout=Holdout(POPULATION, cases.held_out),
        checks=tuple(checks),
        proof=tuple(proof),
        baseline=baseline,
        split=cases.how,
        spec={
            "name": name,
            **cases.spec,
            "checks": [check.spec for check in checks],
            "proof": [check.spec for check in proof],
        },
    )


def _refuse_unknown_labels(name: str, cases: Iterable[Case], checks: Iterable[Check]) -> None:
    """Raise ``TaskError`` for a target that no answer can equal, before it spoils a confirmation."""
    labels = [check.labels for check in checks if isinstance(check, Choice) and check.compare]
    for case in cases:
        for known in labels:
            if case.target is not None and case.target not in known:
                raise TaskError(
                    f"task {name!r}: {case.name or case.id[:12]} has the target {case.target!r}, which is none of the "
                    f"labels {', '.join(known)}; correct it or add the label"
                )


def _must_have_targets(check: Check) -> bool:
    return check.needs_target and not isinstance(check, Function)  # a function may do without; it would say so
