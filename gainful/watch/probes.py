"""The replay bank: is the model behind the name still the same, and does it still answer as well?

Every ``probe_hours`` up to ``probes`` cases of the bank are asked twice under the champion, and once more as many hours
later.  Two detectors of the gate read the answers: ``OddOneOut``, whether late answers differ, and ``Alarm``, whether
they are worse, D being the late score minus the mean of the two early ones.

Guarantees: a case is chosen by a hash of its id and the time alone, never by its answers or scores.  (Cases chosen for
having been right would be right less often afterwards by themselves, with no change of the model.)  All three answers
of a probe come from one request sent to the bare model, past the memo, one call at a time: answers that are made in
one batch are more alike than others.  Each detector rings without cause no more often than once in ``RUN_LENGTH``
telling probes on average.  After an alarm, which the ledger keeps, only what was asked first after it counts.  An
answer that could not be had is asked for again later, and never scored.  A probe costs three calls, whatever the
policy's strategy, since what is probed is the model.

Leaves to others: what to do about it (``watcher``).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from gainful.core import (
    Answer,
    CheckError,
    JsonObject,
    Model,
    ModelError,
    Once,
    StoreError,
    canonical,
    digest,
    judge,
    lowest,
)
from gainful.engine.local import Engine
from gainful.gate import Alarm, OddOneOut
from gainful.store import MemoModel, Probe, Store
from gainful.store.bank import Banked
from gainful.tasks import Task
from gainful.watch.service import service_key

RUN_LENGTH = 10_000.0  # telling probes between two false alarms; at the usual 160 probes a day that is months
ABOUT = "model"  # what the ledger's line of an alarm is about
POOL = 1000  # latest cases of the bank from which is chosen: what callers ask these days
CALLS_A_ROUND = 4  # whoever watches has more to do than to wait for a model
READ_BACK = 2000  # probes that are judged; older ones have been read by every alarm they could raise
PAUSE_S = 60.0  # until the next look where nothing is due, or where the model did not answer

log = logging.getLogger("gainful.watch")


@dataclass(frozen=True)
class ProbeReport:
    """What all finished probes of a model amount to; evidence is that of an e-detector, an alarm from ``threshold`` on.

    ``telling`` of ``finished`` probes had exactly one answer that differs, and in ``late`` of these it was the late
    one; a third is what chance gives.  ``change`` is the mean of D over the ``scored`` probes, ``None`` where there is
    none.  ``upto`` is the Unix time of the last answer.
    """

    model: str
    finished: int
    telling: int
    late: int
    scored: int
    change: float | None
    evidence_odd: float
    evidence_harm: float
    is_other: bool
    is_worse: bool
    upto: float
    threshold: float = RUN_LENGTH

    @property
    def is_alarm(self) -> bool:
        """Whether another model seems to answer behind the name."""
        return self.is_other or self.is_worse

    @property
    def told(self) -> JsonObject:
        """The evidence, for the ledger."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class Probes:
    """The probes of one *task*, asked of *model*, the bare one.

    Raises ``ValueError`` for a memo: it would answer in the model's place.
    """

    def __init__(self, store: Store, task: Task, model: Model) -> None:
        if isinstance(model, MemoModel):
            raise ValueError(f"probes of task {task.name!r} were given a memo, which never changes; give the model")
        self._store = store
        self._task = task
        self._model = model
        self._engine = Engine(model, task.kind)
        self._checks = tuple(check for check in task.keyless if check.trusted)
        self._period_s = 3600.0 * task.improving.probe_hours
        self._quiet_until = 0.0

    async def round(self, now: float) -> ProbeReport | None:
        """Make some of the calls that are due at Unix time *now*; return a report where a probe was finished by it.

        At most ``CALLS_A_ROUND`` calls, one after the other, so that several rounds share a period's work; nothing
        where ``probes`` is 0 or nothing is in service.  Raises ``StoreError``.
        """
        champion = self._store.champion(self._task.name)
        if champion is None or now < self._quiet_until:
            return None
        probes = self._store.probes(self._task.name, limit=4 * self._task.improving.probes)
        if due := self._due(probes, now)[:CALLS_A_ROUND]:
            is_finished = await self._ask_again(due, now)
            return judge_probes(self._store, self._task, self._model.name) if is_finished else None
        if cases := self.choose(probes, now)[: CALLS_A_ROUND // 2]:
            await self._begin(cases, champion, now)
        else:
            self._quiet_until = now + PAUSE_S
        return None

    def choose(self, probes: Sequence[Probe], now: float) -> list[Banked]:
        """Return the cases that are still to be asked in the period of *now*, which has asked some of *probes*."""
        period = now // self._period_s
        asked = {probe.id for probe in probes if probe.at // self._period_s == period}
        wanted = self._task.improving.probes
        if len(asked) >= wanted:
            return []
        pool = sorted(self._store.banked(self._task.name, "dev", limit=POOL), key=lambda one: digest([one.id, period]))
        return [one for one in pool if one.id not in asked][: wanted - len(asked)]

    def _due(self, probes: Sequence[Probe], now: float) -> list[Probe]:
        """Return those that wait for their last answer long enough, from this model and since its last alarm.

        What has waited twice as long is left, and so is what was asked under a policy that had to be forgotten.
        """
        since = max(_alarmed_at(self._store, self._task.name, self._model.name), now - 2 * self._period_s)
        waiting = (probe for probe in probes if probe.after is None and probe.model == self._model.name)
        ripe = [probe for probe in waiting if since < probe.at <= now - self._period_s]
        known = {id for id in {probe.policy for probe in ripe} if self._is_known(id)}
        return [probe for probe in ripe if probe.policy in known]

    def _is_known(self, policy: str) -> bool:
        try:
            self._store.policy(policy)
        except StoreError:
            return False
        return True

    async def _ask_again(self, due: Sequence[Probe], now: float) -> bool:
        """Ask *due* their last time; return whether any was answered."""
        finished = []
        for probe in due:
            found = await self._ask(probe, now)
            if found is None:
                break
            changes = {"after": found.answer, "after_score": found.score, "after_at": now}
            finished.append(msgspec.structs.replace(probe, **changes))
        if finished:
            self._store.put_probes(self._task.name, finished)
        return bool(finished)

    async def _begin(self, cases: Sequence[Banked], champion: str, now: float) -> None:
        """Ask all *cases*, then all of them again: a case's two answers are not made at one moment."""
        nobody = Answer(text="")
        begun = [
            Probe(one.id, one.case, champion, self._model.name, now, (nobody, nobody), (None, None)) for one in cases
        ]
        first = [await self._ask(probe, now) for probe in begun]
        second = [await self._ask(probe, now) if found else None for probe, found in zip(begun, first, strict=True)]
        answered = [
            msgspec.structs.replace(probe, before=(one.answer, two.answer), scores=(one.score, two.score))
            for probe, one, two in zip(begun, first, second, strict=True)
            if one and two
        ]
        if answered:
            self._store.put_probes(self._task.name, answered)

    async def _ask(self, probe: Probe, now: float) -> _Found | None:
        """Answer a probe's case once; ``None`` where the model did not answer, and is left alone for a while."""
        if now < self._quiet_until:
            return None
        try:
            policy = msgspec.structs.replace(self._store.policy(probe.policy), strategy=Once())
            attempt = await self._engine.attempt(probe.case, policy, ())
        except ModelError as error:
            self._quiet_until = now + PAUSE_S
            log.warning("a probe got no answer", extra={"task": self._task.name, "reason": str(error)})
            return None
        return _Found(attempt.answer, self._score(probe, attempt.answer))

    def _score(self, probe: Probe, answer: Answer) -> float | None:
        """Return what trusted checks say; a check that breaks says nothing, for the answer counts without it."""
        try:
            return lowest(judge(self._checks, probe.case, answer))
        except CheckError as error:
            log.warning("a check broke on a probe", extra={"task": self._task.name, "reason": str(error)})
            return None


def judge_probes(store: Store, task: Task, model: str) -> ProbeReport | None:
    """Return what the finished probes of *model* amount to since its last alarm; ``None`` where there is none.

    Probes of all policies count: each compares a request with itself.
    """
    since = _alarmed_at(store, task.name, model)
    read = (probe for probe in store.probes(task.name, limit=READ_BACK) if probe.model == model and probe.at > since)
    probes = [(probe.after_at, probe.id, probe, probe.after) for probe in read if probe.after and probe.after_at]
    if not probes:
        return None
    odd, worse, total = OddOneOut(RUN_LENGTH), Alarm(task.improving.margin, RUN_LENGTH), 0.0
    for *_, probe, after in sorted(probes, key=lambda one: one[:2]):
        odd.see(*map(_meaning, (*probe.before, after)))
        if (difference := _difference(probe)) is not None:
            worse.see(difference)
            total += difference
    return ProbeReport(
        model=model,
        finished=len(probes),
        telling=odd.n,
        late=odd.late,
        scored=worse.n,
        change=total / worse.n if worse.n else None,
        evidence_odd=odd.evidence,
        evidence_harm=worse.evidence,
        is_other=odd.rings,
        is_worse=worse.rings,
        upto=max(at for at, *_ in probes),
    )


class _Found(NamedTuple):
    answer: Answer
    score: float | None


def _difference(probe: Probe) -> float | None:
    """Return the late score minus the mean of the two early ones, ``None`` where one of them is unknown."""
    first, second = probe.scores
    if first is None or second is None or probe.after_score is None:
        return None
    return probe.after_score - (first + second) / 2


def _meaning(answer: Answer) -> bytes:
    """What two answers have in common that mean the same: the extracted value, else the words."""
    return canonical(answer.text if answer.value is None else answer.value)


def _alarmed_at(store: Store, task: str, model: str) -> float:
    """Return the time up to which probes of *model* have led to an alarm already, 0 where none has."""
    lines = (entry.content for entry in store.ledger(service_key(task)) if entry.kind == "alarm")
    told = [line["evidence"] for line in lines if line["about"] == ABOUT]
    return max((evidence["upto"] for evidence in told if evidence["model"] == model), default=0.0)
