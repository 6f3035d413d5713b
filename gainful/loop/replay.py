"""Replay a receipt, from its stored calls or from the model again.

``replay`` asks nothing of any model: policy and case make the request, the stored call answers it, and the answer
must be the stored one.  ``reproduce`` runs both arms again and says whether the new result agrees with the claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from gainful import checks
from gainful.core import AnswerKind, Attempt, Case, Check, JsonObject, Policy, ReceiptError, Refine, Value, digest
from gainful.engine.local import Engine
from gainful.gate import interval
from gainful.loop.events import Interval
from gainful.loop.receipt import Call, Registration, paired_scores
from gainful.loop.verify import Failed, Skipped
from gainful.models import ReplayModel, connect
from gainful.tasks import Task, load

T = TypeVar("T")


@dataclass(frozen=True)
class Receipt:
    """A receipt's parts that a replay needs.  Verify the receipt first: nothing is judged here."""

    registration: Registration
    champion: Policy
    challenger: Policy
    cases: tuple[Case, ...]
    outputs: tuple[JsonObject, ...]
    calls: tuple[Call, ...]
    claimed: Interval

    @classmethod
    def read(cls, folder: Path) -> Receipt:
        """Read *folder*; raises ``ReceiptError`` where a part is missing or malformed."""
        return cls(
            registration=_one(folder / "registration.json", Registration),
            champion=_one(folder / "policies" / "champion.json", Policy),
            challenger=_one(folder / "policies" / "challenger.json", Policy),
            cases=tuple(_many(folder / "cases.jsonl", Case)),
            outputs=tuple(_many(folder / "outputs.jsonl", dict)),
            calls=tuple(_many(folder / "calls.jsonl", Call)),
            claimed=msgspec.convert(_one(folder / "claim.json", dict)["difference"], Interval),
        )

    @property
    def arms(self) -> dict[str, Policy]:
        """Both policies by the names their outputs go under."""
        return {"champion": self.champion, "challenger": self.challenger}

    @property
    def kind(self) -> AnswerKind:
        """What an answer looks like."""
        kind: AnswerKind = msgspec.convert(self.registration.kind, AnswerKind)
        return kind

    def consulted(self) -> tuple[Check, ...]:
        """Return the checks that strategies asked while they answered, made from the receipt's own words.

        Raises ``Skipped`` where one of them would run what a stranger wrote: a function, or a regular expression.
        """
        if not any(isinstance(policy.strategy, Refine) for policy in self.arms.values()):
            return ()
        specs = self.registration.task.get("checks", ())
        foreign = next((spec["kind"] for spec in specs if spec["kind"] in FOREIGN), None)
        if foreign:
            raise Skipped(f"the policies consult a check of kind {foreign!r}, and a receipt's code is never run")
        made = (checks.from_spec(spec) for spec in specs)
        return tuple(check for check in made if not check.needs_target)


FOREIGN = frozenset({"function", "gym", "regex"})  # kinds that run, or may hang on, what the receipt's author wrote
KNOWN_SOURCES = ("bfcl:", "reasoning-gym:")  # tasks that name no file of anybody's


class Reproduction(Value, frozen=True):
    """A new run of both arms on the receipt's cases, beside what was claimed."""

    claimed: Interval
    found: Interval
    identical: int
    outputs: int
    compatible: bool


def replay(folder: Path) -> str:
    """Answer every case again from the stored calls; the hook of ``verify``.  Raises ``Failed`` where one differs."""
    receipt = Receipt.read(folder)
    model = ReplayModel({call.key: call.reply for call in receipt.calls}, receipt.registration.model)
    refused = 0
    for arm, policy in receipt.arms.items():
        asked = [(case, out) for case, out in zip(receipt.cases, receipt.outputs, strict=True) if out[arm]["calls"]]
        refused += len(receipt.cases) - len(asked)
        engine = Engine(model, receipt.kind, receipt.consulted())
        attempts = asyncio.run(_answer(engine, policy, [case for case, _ in asked], proof=()))
        for attempt, (_, stored) in zip(attempts, asked, strict=True):
            if digest(attempt.answer) != digest(stored[arm]["answer"]):
                raise Failed(f"the stored calls give another answer of the {arm} to case {attempt.case[:12]!r}")
    without = f"; {refused} more were refused by the model, which leaves no call" if refused else ""
    return f"the stored calls give all {2 * len(receipt.cases) - refused} answers again{without}"


def reproduce(
    folder: Path, task: str | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Reproduction:
    """Run both arms again, with the model and on the cases of the receipt, scored by the task's proof checks.

    *task* says where the task is; a receipt alone may only name a published one, because loading a file may run it.
    Compatible: the new paired mean lies in the claimed interval.  Raises ``ReceiptError`` where today's task or model
    is not the receipt's.
    """
    receipt = Receipt.read(folder)
    registration = receipt.registration
    found = _task(registration, task)
    model = connect(registration.model_spec)
    if model.identity != registration.model:
        raise ReceiptError(
            f"model {registration.model_spec!r} is {model.identity} here and {registration.model} in the receipt; "
            "a result is reproduced with the same model"
        )
    engine = Engine(model, found.kind, tuple(check for check in found.checks if not check.needs_target))
    total, done = 2 * len(receipt.cases), 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    async def answer_both() -> dict[str, list[Attempt]]:
        try:
            return {
                arm: await _answer(engine, policy, receipt.cases, found.proof, tick)
                for arm, policy in receipt.arms.items()
            }
        finally:
            await model.close()

    arms = asyncio.run(answer_both())
    scores = map(paired_scores, arms["champion"], arms["challenger"])
    differences = [challenger - champion for champion, challenger in scores]
    low, high = interval(differences, 0.05, len(differences), -1.0, 1.0)
    mean = sum(differences) / len(differences)
    identical = sum(
        digest(attempt.answer) == digest(stored[arm]["answer"])
        for arm, attempts in arms.items()
        for attempt, stored in zip(attempts, receipt.outputs, strict=True)
    )
    claimed = receipt.claimed
    return Reproduction(
        claimed, Interval(mean, low, high, len(differences)), identical, total, claimed.low <= mean <= claimed.high
    )


def _task(registration: Registration, named: str | None) -> Task:
    """Load the receipt's task; raises ``ReceiptError`` unless it has the same hold-out and the same proof checks.

    A hold-out of traffic is no task's own: the receipt brings its cases, and the task the checks that judged them.
    """
    source = named or str(registration.task["load"])
    if named is None and not source.startswith(KNOWN_SOURCES):
        raise ReceiptError(
            f"the receipt's task is {source!r}, and loading a file may run it; look at it, then pass --task {source}"
        )
    task = load(source)
    if "traffic" in registration.task:
        return replace(
            task,
            checks=_own_checks(task, registration.task["checks"], source),
            proof=_own_checks(task, registration.checks, source),
        )
    if task.holdout.digest != registration.holdout or [c.spec for c in task.proof] != list(registration.checks):
        raise ReceiptError(
            f"task {source!r} has another hold-out or other proof checks than the receipt; restore its own"
        )
    return task


def _own_checks(task: Task, specs: Sequence[JsonObject], source: str) -> tuple[Check, ...]:
    """Return the task's checks that have these specs; raises ``ReceiptError`` where it lacks one."""
    known = {digest(check.spec): check for check in (*task.checks, *task.proof)}
    missing = next((spec for spec in specs if digest(spec) not in known), None)
    if missing is not None:
        raise ReceiptError(f"task {source!r} has no check {missing.get('kind')!r} as in the receipt; restore its own")
    return tuple(known[digest(spec)] for spec in specs)


async def _answer(
    engine: Engine,
    policy: Policy,
    cases: Sequence[Case],
    proof: tuple[Check, ...],
    tick: Callable[[], None] = lambda: None,
) -> list[Attempt]:
    attempts: list[Attempt] = []
    async for attempt in engine.attempts(policy, cases, proof):
        attempts.append(attempt)
        tick()
    return attempts


def _one(path: Path, kind: type[T]) -> T:
    return _decoded(path, lambda data: msgspec.json.decode(data, type=kind))


def _many(path: Path, kind: type[T]) -> list[T]:
    return _decoded(path, lambda data: msgspec.json.Decoder(kind).decode_lines(data))


def _decoded(path: Path, decode: Callable[[bytes], T]) -> T:
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise ReceiptError(f"{str(path)!r} cannot be read: {error.strerror}; is this a receipt's folder?") from error
    except msgspec.MsgspecError as error:
        raise ReceiptError(f"{str(path)!r} is not of the receipt's form: {error}; take a fresh copy") from error
