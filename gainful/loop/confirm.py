"""The one confirmation: champion and challenger answer the same held-out cases, and the gate decides.

Guarantees: what is tested, how, and at which level is fixed in a registration whose hash enters the ledger before
the first held-out case is opened; every confirmation ever opened pays, failed and aborted ones too; the promotion,
its ledger line and the champion pointer are one transaction; what leaves here for anyone who learns is one bit.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gainful.core import Attempt, Case, Policy, Reply, StoreError, Usage, Value
from gainful.gate import Budget, EProcess, Judgement, SignTest, cases_for, lower_bound
from gainful.gate.judgement import schedule
from gainful.loop.board import error_groups, score
from gainful.loop.events import Decided, Interval, Looked, Opened
from gainful.loop.order import evaluation_order, order_seed
from gainful.loop.receipt import Call, Confirmation, Registration, paired_scores, user_key, write_receipt
from gainful.loop.run import Run
from gainful.store.store import LedgerEntry

GRADED = frozenset({"function", "gym"})  # kinds of checks whose scores may lie between 0 and 1
LEAST_CASES = 100  # 17 wins without a loss in the first half of them bound the gain above 14 points
LEAST_PLANNED = 0.01  # gain planned for, at least: what needs more than 37,000 cases is not waited for


@dataclass(frozen=True)
class Lifetime:
    """Where the lifetime of one hold-out stands after some lines of its ledger."""

    budget: Budget
    confirmations: int = 0

    @classmethod
    def after(cls, entries: Sequence[LedgerEntry], alpha: float, *, fresh: bool) -> Lifetime:
        """Replay *entries*: a confirmation that was opened and never closed counts as failed."""
        budget, confirmations = Budget(alpha), 0
        for entry, following in zip(entries, [*entries[1:], None], strict=False):
            if entry.kind == "epoch":
                budget = Budget(float(entry.content["alpha"]))
            elif entry.kind == "opened":
                closing = following.content if following is not None and following.kind == "closed" else {}
                budget = budget.after(promoted=closing.get("decision") == "promoted", fresh=fresh)
                confirmations += 1
        return cls(budget, confirmations)

    @classmethod
    def of(cls, run: Run) -> Lifetime:
        """Return the lifetime of the run's hold-out as the run found it, whatever was entered since."""
        entries = run.store.ledger(run.task.holdout.digest)[: run.ledger_start]
        return cls.after(entries, run.settings.alpha, fresh=run.task.holdout.fresh)

    @property
    def failures(self) -> int:
        """Confirmations that failed since the last promotion."""
        return self.budget.rank - 1


class Plan(Value, frozen=True):
    """What says how many cases a confirmation may use: the gain on dev, and the most the call budget covers.

    ``margin`` is what the difference must exceed, below 0 where a challenger may be a little worse.
    """

    gain: float
    most: int | None = None
    margin: float = 0.0

    def size(self, level: float) -> int:
        """Return how many cases certify, with 90 % power, half of the gain on dev, and no more than the budget covers.

        Half, because dev flatters the policy that won there, the more so where other checks judge there than in the
        proof.  And never so few that a promotion could certify next to nothing.  What need only be no worse than by
        the margin has that much further to fall.
        """
        wanted = max(cases_for(min(1.0, max(self.gain / 2 - self.margin, LEAST_PLANNED)), level), LEAST_CASES)
        return wanted if self.most is None else min(wanted, self.most)


async def confirm(run: Run, challenger: Policy, plan: Plan) -> tuple[Decided, Path]:
    """Test *challenger* against the run's champion once, and put it into service if it is proven better.

    Returns the decision and the receipt's folder.
    """
    registration, opened, number = _open(run, challenger, plan)
    test = _test(registration)
    run.journal.write(
        Opened(
            registration=registration.hash,
            challenger=challenger.id,
            champion=run.champion.id,
            test=registration.test,
            level=test.level,
            margin=registration.margin,
            size=registration.size,
            looks=registration.looks,
        )
    )
    holdout = run.task.holdout.open(registration.hash, run.task.holdout.size or registration.size, number)
    arms = _Arms(run, challenger, _in_order(holdout, registration))
    judgement, looked = await arms.judge(test)
    decided = _decided(judgement, arms, registration)
    run.journal.write(decided)
    ledger = _close(run, opened, registration, challenger, decided)
    receipt = write_receipt(
        run.receipts / registration.hash[:16],
        Confirmation(
            registration=registration,
            decided=decided,
            looks=looked,
            champion=run.champion,
            challenger=challenger,
            holdout=holdout,
            before=arms.before,
            after=arms.after,
            calls=_calls(run, [*arms.before, *arms.after]),
            ledger=ledger,
        ),
        user_key(run.signing_key),
    )
    return decided, receipt


# --- registration and ledger ----------------------------------------------------------------------------


def _open(run: Run, challenger: Policy, plan: Plan) -> tuple[Registration, LedgerEntry, int]:
    """Enter the confirmation in the ledger; return its registration, its line and its number.

    A resumed run finds its own line there already: the last one opened, under the registration it would make again.
    """
    key, store = run.task.holdout.digest, run.store
    entries = store.ledger(key)
    last = max((entry.seq for entry in entries if entry.kind == "opened"), default=None)
    if last is not None:
        registration, lifetime = _register(run, entries[:last], challenger, plan)
        if entries[last].content["registration"] == registration.hash:
            return registration, entries[last], lifetime.confirmations
    if not entries:
        epoch = {"alpha": repr(run.settings.alpha), "epoch": 1, "holdout": key, "size": run.task.holdout.size}
        entries = [store.append_ledger(key, "epoch", epoch, seq=0, lease=run.lease)]
    registration, lifetime = _register(run, entries, challenger, plan)
    content = {
        "registration": registration.hash,
        "rank": registration.rank,
        "base": registration.base,
        "level": registration.level,
    }
    line = store.append_ledger(key, "opened", content, seq=len(entries), lease=run.lease)
    return registration, line, lifetime.confirmations


def _register(
    run: Run, entries: Sequence[LedgerEntry], challenger: Policy, plan: Plan
) -> tuple[Registration, Lifetime]:
    task, holdout = run.task, run.task.holdout
    lifetime = Lifetime.after(entries, run.settings.alpha, fresh=holdout.fresh)
    level = lifetime.budget.level
    graded = any(check.spec.get("kind") in GRADED for check in task.proof)
    size = min(run.settings.fresh_cases if holdout.size is None else holdout.size, plan.size(level))
    registration = Registration(
        task=task.spec,
        kind=msgspec.to_builtins(task.kind),
        checks=tuple(check.spec for check in task.proof),
        population=holdout.population,
        holdout=holdout.digest,
        holdout_size=holdout.size,
        champion=run.champion.id,
        challenger=challenger.id,
        test="e-process" if graded or plan.margin else "sign",
        size=size,
        looks=schedule(size),
        margin=plan.margin,
        base=repr(lifetime.budget.alpha),
        rank=lifetime.budget.rank,
        level=repr(level),
        order=order_seed(holdout.digest, challenger.id, run.champion.id),
        model_spec=run.model_spec,
        model=run.model.identity,
        seed=run.settings.seed,
        version=importlib.metadata.version("gainful"),
    )
    return registration, lifetime


def _close(
    run: Run, opened: LedgerEntry, registration: Registration, challenger: Policy, decided: Decided
) -> list[LedgerEntry]:
    """Close the confirmation, moving the champion with it if it was promoted; return the ledger up to there."""
    entries = run.store.ledger(opened.key)
    if len(entries) == opened.seq + 1:
        content = {
            "registration": registration.hash,
            "decision": "promoted" if decided.promoted else "not promoted",
            "n": decided.n,
        }
        moved = (run.task.name, challenger) if decided.promoted and run.installs else None
        line = run.store.append_ledger(opened.key, "closed", content, champion=moved, seq=len(entries), lease=run.lease)
        entries.append(line)
    return entries[: opened.seq + 2]


# --- the two arms ---------------------------------------------------------------------------------------


def _test(registration: Registration) -> SignTest | EProcess:
    level = float(registration.level)
    if registration.test == "sign":
        return SignTest(registration.size, level)
    return EProcess(registration.size, level, registration.margin)


def _in_order(holdout: Sequence[Case], registration: Registration) -> list[Case]:
    by_id = {case.id: case for case in holdout}
    return [by_id[id] for id in evaluation_order(by_id, registration.order)[: registration.size]]


class _Arms:
    """Both policies on the held-out cases, look by look, in evaluation order."""

    def __init__(self, run: Run, challenger: Policy, cases: Sequence[Case]):
        self.cases = cases
        self.before: list[Attempt] = []
        self.after: list[Attempt] = []
        self._run = run
        self._challenger = challenger

    @property
    def differences(self) -> list[float]:
        """Challenger minus champion, case by case; evidence that is missing never speaks for the challenger."""
        scores = map(paired_scores, self.before, self.after)
        return [challenger - champion for champion, challenger in scores]

    async def judge(self, test: SignTest | EProcess) -> tuple[Judgement, list[Looked]]:
        """Answer up to the next look, ask the test, write the look down; until it decides."""
        looked: list[Looked] = []
        for n in test.looks:
            await self._answer(n)
            judgement = test.judge(self.differences)
            look = judgement.looks[-1]
            looked.append(
                Looked(
                    n=look.n,
                    wins=look.wins,
                    losses=look.losses,
                    mean_difference=sum(self.differences) / look.n,
                    statistic=look.statistic,
                    boundary=look.boundary,
                    conditional_power=look.conditional_power,
                    decision=look.decision,
                )
            )
            self._run.journal.write(looked[-1])
            if judgement.decision != "continue":
                break
        return judgement, looked

    async def _answer(self, n: int) -> None:
        """Bring both arms to *n* cases, side by side, so that whatever drifts meets both."""
        start, progress = len(self.before), self._run.journal.progress
        cases, proof = self.cases[start:n], self._run.task.proof
        champion = self._run.attempts(self._run.champion, cases, proof)
        challenger = self._run.attempts(self._challenger, cases, proof)
        async with contextlib.aclosing(champion), contextlib.aclosing(challenger):
            for done in range(len(cases)):
                before, after = await asyncio.gather(anext(champion), anext(challenger))
                self.before.append(before)
                self.after.append(after)
                progress(f"confirmation, cases {start + 1} to {n}", done + 1, len(cases))


def _calls(run: Run, attempts: Sequence[Attempt]) -> list[Call]:
    """Return every call behind *attempts*, by key, as the memo holds it."""
    calls = []
    for key in sorted({key for attempt in attempts for key in attempt.calls}):
        stored = run.store.memo_get(key)
        if stored is None:
            raise StoreError(f"call {key[:12]!r} is not in the memo; run on the store that holds the run's calls")
        calls.append(Call(key=key, reply=msgspec.json.decode(stored, type=Reply).body))
    return calls


def _decided(judgement: Judgement, arms: _Arms, registration: Registration) -> Decided:
    differences, level = arms.differences, float(registration.level)
    promoted = judgement.decision == "promote"
    low = lower_bound(differences, level, registration.size)
    high = -lower_bound([-d for d in differences], level, registration.size)
    return Decided(
        promoted=promoted,
        reason=judgement.reason,
        n=len(differences),
        before=score(arms.before),
        after=score(arms.after),
        difference=Interval(
            mean=sum(differences) / len(differences),
            low=max(registration.margin, low) if promoted else low,
            high=high,
            n=len(differences),
            confidence=1.0 - level,
        ),
        before_groups=error_groups(arms.cases, arms.before),
        after_groups=error_groups(arms.cases, arms.after),
        usage=sum((attempt.usage for attempt in (*arms.before, *arms.after)), Usage()),
    )
