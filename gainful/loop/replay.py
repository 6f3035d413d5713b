"""Replay a receipt, from its stored calls or from the model again.

``replay`` asks nothing of any model: policy and case make the request, the stored call answers it, and the answer
must be the stored one.  ``reproduce`` runs both arms again and says whether the new result agrees with the claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from gainful import checks
from gainful.core import AnswerKind, Attempt, Case, Check, JsonObject, Model, Policy, ReceiptError, Value, digest
from gainful.engine.local import Engine
from gainful.gate import interval
from gainful.loop.events import Interval
from gainful.loop.receipt import Call, Registration
from gainful.loop.verify import Failed
from gainful.models import ReplayModel, connect
from gainful.tasks import load

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

    def engine(self, model: Model) -> Engine:
        """Return an engine that answers as the run did, strategies that verify included."""
        specs = self.registration.task.get("checks", ())
        consult: list[Check] = [checks.from_spec(spec) for spec in specs]
        kind = msgspec.convert(self.registration.kind, AnswerKind)
        return Engine(model, kind, tuple(check for check in consult if not check.needs_target))


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
    for arm, policy in receipt.arms.items():
        for attempt, stored in zip(_answer(receipt, model, policy, ()), receipt.outputs, strict=True):
            if digest(attempt.answer) != digest(stored[arm]["answer"]):
                raise Failed(f"the stored calls give another answer of the {arm} to case {attempt.case[:12]!r}")
    return f"the stored calls give all {2 * len(receipt.cases)} answers again"


def reproduce(folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Reproduction:
    """Run both arms again, with the model and on the cases of the receipt, scored by the registered proof checks.

    Compatible: the new paired mean lies in the claimed interval.  Raises ``ReceiptError`` where today's task or model
    is not the receipt's.
    """
    receipt = Receipt.read(folder)
    registration = receipt.registration
    task = load(str(registration.task["load"]))
    if task.holdout.digest != registration.holdout:
        raise ReceiptError(
            f"task {task.name!r} has another hold-out today than the receipt's; restore the cases it was made with"
        )
    model = connect(registration.model_spec)
    if model.identity != registration.model:
        raise ReceiptError(
            f"model {registration.model_spec!r} is {model.identity} here and {registration.model} in the receipt; "
            "a result is reproduced with the same model"
        )
    proof = tuple(checks.from_spec(spec) for spec in registration.checks)
    total, done = 2 * len(receipt.cases), 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    arms = {arm: _answer(receipt, model, policy, proof, tick) for arm, policy in receipt.arms.items()}
    differences = [
        (a.score or 0.0) - (b.score or 0.0) for a, b in zip(arms["challenger"], arms["champion"], strict=True)
    ]
    low, high = interval(differences, 0.05, len(differences), -1.0, 1.0)
    found = Interval(sum(differences) / len(differences), low, high, len(differences))
    identical = sum(
        digest(attempt.answer) == digest(stored[arm]["answer"])
        for arm, attempts in arms.items()
        for attempt, stored in zip(attempts, receipt.outputs, strict=True)
    )
    claimed = receipt.claimed
    return Reproduction(claimed, found, identical, total, claimed.low <= found.mean <= claimed.high)


def _answer(
    receipt: Receipt,
    model: Model,
    policy: Policy,
    proof: tuple[Check, ...],
    tick: Callable[[], None] = lambda: None,
) -> list[Attempt]:
    async def run() -> list[Attempt]:
        attempts: list[Attempt] = []
        async for attempt in receipt.engine(model).attempts(policy, receipt.cases, proof):
            attempts.append(attempt)
            tick()
        return attempts

    return asyncio.run(run())


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
