"""The replay bank: is the model behind the name still the same, and does it still answer as well?

In every ``probe_hours`` up to ``probes`` cases of the bank are begun, evenly spread; each is asked under the champion
of that time, again ``probe_hours`` later, and a last time as many hours after that.  Two detectors of the gate read the
answers: ``OddOneOut``, whether the last ones differ, and ``Alarm``, whether they are worse, D being the last score
minus the mean of the two before.

Guarantees: a case is chosen by a hash of its id and the time alone, never by its answers or scores.  (Cases chosen for
having been right would be right less often afterwards by themselves, with no change of the model.)  All three answers
of a probe come from one request sent to the bare model, past the memo, one call at a time.  Each detector rings without
cause no more often than once in ``RUN_LENGTH`` telling probes on average, where answers and scores at equally spaced
times are stationary and what moves them has passed by the next probe; that answers of one time are more alike than
others does no harm.  After an alarm, which the ledger keeps, only what was asked first after it counts.  An answer that
could not be had is asked for again, up to half of ``probe_hours`` late, and never scored.  A probe costs three calls,
whatever the policy's strategy, since what is probed is the model.

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
    Case,
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
LATEST = 1.5  # periods after which it is too late for a probe's next answer
CALLS_A_ROUND = 4  # whoever watches has more to do than to wait for a model
READ_BACK = 2000  # finished probes that are judged; older ones have been read by every alarm they could raise
PAUSE_S = 60.0  # at most, until the next look where nothing is due; until the next call where the model did not answer

log = logging.getLogger("gainful.watch")


@dataclass(frozen=True)
class ProbeReport:
    """What all finished probes of a model amount to; evidence is that of an e-detector, an alarm from ``threshold`` on.

    In ``telling`` of ``finished`` probes the first or the last answer alone differs, and in ``last`` of these the last
    one; half is what chance gives.  ``change`` is the mean of D over the ``scored`` probes, ``None`` where there is
    none.  ``upto`` is the Unix time of the last answer.
    """

    model: str
    finished: int
    telling: int
    last: int
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
        self._wanted = task.improving.probes
        self._period_s = 3600.0 * task.improving.probe_hours
        self._quiet_until = 0.0

    async def round(self, now: float) -> ProbeReport | None:
        """Make some of the calls that are due at Unix time *now*; return a report where a probe was finished by it.

        At most ``CALLS_A_ROUND`` calls, one after the other; nothing where ``probes`` is 0 or nothing is in service.
        Raises ``StoreError``.
        """
        champion = self._store.champion(self._task.name)
        if champion is None or not self.is_due(now):
            return None
        due, chosen = self._look(now)
        is_finished = await self._ask_again(due[: CALLS_A_ROUND - 1], now)
        if chosen is not None and now >= self._quiet_until:
            await self._begin(chosen, champion, now)
        return judge_probes(self._store, self._task, self._model.name) if is_finished else None

    def is_due(self, now: float) -> bool:
        """Whether ``round`` would make a call."""
        if not self._wanted or now < self._quiet_until or self._store.champion(self._task.name) is None:
            return False
        due, chosen = self._look(now)
        if not due and chosen is None:
            self._quiet_until = now + min(PAUSE_S, self._period_s / self._wanted / 4)
        return bool(due) or chosen is not None

    def _look(self, now: float) -> tuple[list[Probe], Banked | None]:
        """Return the probes that wait for another answer, and the case to begin with."""
        probes = self._store.probes(self._task.name, limit=3 * self._wanted)  # all that can wait for an answer
        return self._due(probes, now), self.choose(probes, now)

    def choose(self, probes: Sequence[Probe], now: float) -> Banked | None:
        """Return the case to begin with now that *probes* were begun, ``None`` where it is too soon for another.

        Where the bank has fewer cases than are wanted, these are spread over the period, each asked once.
        """
        latest = max((probe.at for probe in probes), default=float("-inf"))
        if not self._wanted or now - latest < self._period_s / self._wanted:
            return None
        pool = self._store.banked(self._task.name, "dev", limit=POOL)
        if not pool or now - latest < self._period_s / min(self._wanted, len(pool)):
            return None
        asked = {probe.id for probe in probes if now - probe.at < self._period_s}
        free = [one for one in pool if one.id not in asked]
        return min(free, key=lambda one: digest([one.id, now // self._period_s]), default=None)

    def _due(self, probes: Sequence[Probe], now: float) -> list[Probe]:
        """Return those that wait for another answer long enough, from this model and since its last alarm.

        What has waited too long is left, for its times would not be equally spaced, and so is what was asked under a
        policy that had to be forgotten.
        """
        since = _alarmed_at(self._store, self._task.name, self._model.name)
        waiting = (probe for probe in probes if len(probe.answers) < 3 and probe.model == self._model.name)
        ripe = [
            probe
            for probe in waiting
            if probe.at > since and self._period_s <= now - probe.asked[-1] <= LATEST * self._period_s
        ]
        known = {id for id in {probe.policy for probe in ripe} if self._is_known(id)}
        return [probe for probe in ripe if probe.policy in known]

    def _is_known(self, policy: str) -> bool:
        try:
            self._store.policy(policy)
        except StoreError:
            return False
        return True

    async def _ask_again(self, due: Sequence[Probe], now: float) -> bool:
        """Ask *due* once more; return whether any has all its answers by that."""
        answered = []
        for probe in due:
            found = await self._ask(probe.case, probe.policy, now)
            if found is None:
                break
            answered.append(probe.with_answer(found.answer, found.score, now))
        if answered:
            self._store.put_probes(self._task.name, answered)
        return any(len(probe.answers) == 3 for probe in answered)

    async def _begin(self, chosen: Banked, champion: str, now: float) -> None:
        if found := await self._ask(chosen.case, champion, now):
            answered = (found.answer,), (found.score,), (now,)
            case = msgspec.structs.replace(chosen.case, target=None)  # which may be replaced, and forgotten
            begun = Probe(chosen.id, case, champion, self._model.name, *answered)
            self._store.put_probes(self._task.name, [begun])

    async def _ask(self, case: Case, policy: str, now: float) -> _Found | None:
        """Answer *case* once; ``None`` where the model did not answer, and is left alone for a while."""
        try:
            once = msgspec.structs.replace(self._store.policy(policy), strategy=Once())
            attempt = await self._engine.attempt(case, once, ())
        except ModelError as error:
            self._quiet_until = now + PAUSE_S
            log.warning("a probe got no answer", extra={"task": self._task.name, "reason": str(error)})
            return None
        return _Found(attempt.answer, self._score(case, attempt.answer))

    def _score(self, case: Case, answer: Answer) -> float | None:
        """Return what trusted checks say; a check that breaks says nothing, for the answer counts without it."""
        try:
            return lowest(judge(self._checks, case, answer))
        except CheckError as error:
            log.warning("a check broke on a probe", extra={"task": self._task.name, "reason": str(error)})
            return None


def judge_probes(store: Store, task: Task, model: str) -> ProbeReport | None:
    """Return what the finished probes of *model* amount to since its last alarm; ``None`` where there is none.

    Probes of all policies count: each compares a request with itself.
    """
    since = _alarmed_at(store, task.name, model)
    begun = store.probes(task.name, limit=READ_BACK + 3 * task.improving.probes)
    probes = [probe for probe in begun if probe.model == model and probe.at > since and len(probe.answers) == 3]
    if not probes:
        return None
    odd, worse, total = OddOneOut(RUN_LENGTH), Alarm(task.improving.margin, RUN_LENGTH), 0.0
    probes.sort(key=lambda probe: (probe.asked[-1], probe.id))
    for probe in probes:
        first, middle, last = map(_meaning, probe.answers)
        odd.see(first, middle, last)
        if (difference := _difference(probe)) is not None:
            worse.see(difference)
            total += difference
    return ProbeReport(
        model=model,
        finished=len(probes),
        telling=odd.n,
        last=odd.last,
        scored=worse.n,
        change=total / worse.n if worse.n else None,
        evidence_odd=odd.evidence,
        evidence_harm=worse.evidence,
        is_other=odd.rings,
        is_worse=worse.rings,
        upto=probes[-1].asked[-1],
    )


class _Found(NamedTuple):
    answer: Answer
    score: float | None


def _difference(probe: Probe) -> float | None:
    """Return the last score minus the mean of the two before, ``None`` where one of them is unknown."""
    first, middle, last = probe.scores
    if first is None or middle is None or last is None:
        return None
    return last - (first + middle) / 2


def _meaning(answer: Answer) -> bytes:
    """What two answers have in common that mean the same: the extracted value, else the words."""
    return canonical(answer.text if answer.value is None else answer.value)


def _alarmed_at(store: Store, task: str, model: str) -> float:
    """Return the time up to which probes of *model* have led to an alarm already, 0 where none has."""
    lines = (entry.content for entry in store.ledger(service_key(task)) if entry.kind == "alarm")
    told = [line["evidence"] for line in lines if line["about"] == ABOUT]
    return max((evidence["upto"] for evidence in told if evidence["model"] == model), default=0.0)
