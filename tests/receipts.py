"""Small confirmations made through the real gate, hold-out, ledger and checks, for the tests of receipts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gainful.checks.exact import Exact
from gainful.core import Answer, Attempt, Case, Check, Format, JsonObject, Policy, Text, digest, judge, lowest
from gainful.gate import Budget, EProcess, SignTest, lower_bound
from gainful.loop.events import Decided, Interval, Looked
from gainful.loop.order import evaluation_order, order_seed
from gainful.loop.receipt import Call, Confirmation, Registration, paired_scores, write_receipt
from gainful.store import LedgerEntry, SQLiteStore
from gainful.tasks import Holdout

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CHAMPION = Policy(instructions="Name the capital.")
CHALLENGER = Policy(instructions="Name the capital in one word.", format=Format(shape="schema"), max_tokens=16)
CASES = tuple(
    Case(messages=({"role": "user", "content": f"What is the capital of land {n}?"},), target=f"City {n}", name=f"{n}")
    for n in range(24)
)
POPULATION = "capitals"

Answers = Callable[[Case], Any]


def right(case: Case) -> Any:
    return case.target


def mostly_wrong(case: Case) -> Any:
    return case.target if int(case.name) % 6 == 0 else "no idea"


def ledger_before(holdout: Holdout, folder: Path, failures: int, aborted: int) -> tuple[SQLiteStore, Budget]:
    """Return a store whose ledger holds failed confirmations and then aborted ones, and what they leave."""
    store, budget = SQLiteStore(folder / "store.sqlite"), Budget()
    content: JsonObject = {"alpha": "0.05", "epoch": 1, "holdout": holdout.digest, "size": holdout.size}
    store.append_ledger(holdout.digest, "epoch", content)
    for number in range(failures + aborted):
        registration = digest(number)
        store.append_ledger(holdout.digest, "opened", _opening(registration, budget))
        if number < failures:
            closed = {"registration": registration, "decision": "not promoted", "n": 3}
            store.append_ledger(holdout.digest, "closed", closed)
        budget = budget.after(promoted=False)
    return store, budget


def _opening(registration: str, budget: Budget) -> JsonObject:
    return {
        "registration": registration,
        "rank": budget.rank,
        "base": repr(budget.alpha),
        "level": repr(budget.level),
    }


def attempt(case: Case, policy: Policy, value: Any, checks: Sequence[Check]) -> Attempt:
    answer = Answer(text=f"It is {value}.", value=value)
    verdicts = judge(checks, case, answer)
    key = digest([case.id, policy.id])
    return Attempt(case.id, policy.id, answer, verdicts, lowest(verdicts), (key,))


def confirmation(
    folder: Path,
    *,
    checks: Sequence[Check] = (Exact(),),
    before: Answers = mostly_wrong,
    after: Answers = right,
    cases: Sequence[Case] = CASES,
    graded: bool = False,
) -> Confirmation:
    """Confirm once, after one failed and one aborted confirmation on the same hold-out."""
    holdout = Holdout(POPULATION, cases)
    store, budget = ledger_before(holdout, folder, failures=1, aborted=1)
    size = len(cases)
    test = EProcess(size, budget.level) if graded else SignTest(size, budget.level)
    registration = Registration(
        task={"load": POPULATION},
        kind=msgspec.to_builtins(Text()),
        checks=tuple(check.spec for check in checks),
        population=POPULATION,
        holdout=holdout.digest,
        holdout_size=holdout.size,
        champion=CHAMPION.id,
        challenger=CHALLENGER.id,
        test="e-process" if graded else "sign",
        size=size,
        looks=test.looks,
        margin=0.0,
        base=repr(budget.alpha),
        rank=budget.rank,
        level=repr(budget.level),
        order=order_seed(holdout.digest, CHALLENGER.id, CHAMPION.id),
        model_spec="scripted",
        model={"name": "scripted"},
        seed=0,
        version="0.1.0",
    )
    store.append_ledger(holdout.digest, "opened", _opening(registration.hash, budget))
    opened = {case.id: case for case in holdout.open(registration.hash, size, 2)}
    order = [opened[id] for id in evaluation_order(opened, registration.order)]
    arms = [
        [attempt(case, p, say(case), checks) for case in order] for p, say in ((CHAMPION, before), (CHALLENGER, after))
    ]
    scores = [paired_scores(b, a) for b, a in zip(*arms, strict=True)]
    differences = [challenger - champion for champion, challenger in scores]
    judgement = test.judge(differences)
    n = judgement.looks[-1].n
    decided = _decided(differences[:n], arms[0][:n], arms[1][:n], judgement.decision == "promote", test)
    closing = {
        "registration": registration.hash,
        "decision": "promoted" if decided.promoted else "not promoted",
        "n": n,
    }
    store.append_ledger(holdout.digest, "closed", closing)
    looks = [
        Looked(
            **asdict(look),
            mean_difference=sum(differences[: look.n]) / look.n,
        )
        for look in judgement.looks
    ]
    ledger: list[LedgerEntry] = store.ledger(holdout.digest)
    store.close()
    used = [*arms[0][:n], *arms[1][:n]]
    calls = [Call(key, {"choices": [{"message": {"content": a.answer.text}}]}) for a in used for key in a.calls]
    return Confirmation(
        registration,
        decided,
        looks,
        CHAMPION,
        CHALLENGER,
        tuple(opened.values()),
        arms[0][:n],
        arms[1][:n],
        calls,
        ledger,
    )


def _decided(
    differences: Sequence[float], before: Sequence[Attempt], after: Sequence[Attempt], promoted: bool, test: Any
) -> Decided:
    n = len(differences)
    low = lower_bound(differences, test.level, test.size)
    high = -lower_bound([-d for d in differences], test.level, test.size)
    means = [sum(a.score or 0.0 for a in arm) / n for arm in (before, after)]
    return Decided(
        promoted=promoted,
        reason="as the looks say",
        n=n,
        before=Interval(means[0], 0.0, 1.0, n),
        after=Interval(means[1], 0.0, 1.0, n),
        difference=Interval(sum(differences) / n, max(0.0, low) if promoted else low, high, n, 1.0 - test.level),
        before_groups=(),
        after_groups=(),
        usage=sum((a.usage for a in (*before, *after)), start=before[0].usage),
    )


def receipt(folder: Path, **how: Any) -> Path:
    """Write a receipt in *folder*, signed with ``KEY``."""
    return write_receipt(folder / "receipt", confirmation(folder, **how), KEY)
