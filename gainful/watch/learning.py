"""Runs on a task's own traffic: begin one, go on with one that was cut short, and say what it has proven.

Guarantees: a run's cases are written down when it begins, so a run that was killed goes on with the same ones; what a
run has proven is not put into service here; one that is over is never begun again.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from gainful.core import JsonObject, Learner, Model, StoreError, Usage, canonical, digest
from gainful.learners import ON_TRAFFIC
from gainful.learners.teaching import Teaching
from gainful.loop.attempts import former_marks
from gainful.loop.events import Finished, Opened, Unconfirmed
from gainful.loop.improve import improve
from gainful.loop.journal import Journal, read_events
from gainful.loop.run import Run, Settings
from gainful.loop.trainer import trainer_for
from gainful.store import Banked, Lease, MemoModel, Store
from gainful.store import Run as StoredRun
from gainful.tasks import Task
from gainful.tasks.improving import Improving
from gainful.watch.budget import Budget, MeteredModel
from gainful.watch.repairs import choose, examples
from gainful.watch.selection import select
from gainful.watch.service import service_key
from gainful.watch.traffic_task import needs_targets, traffic_task
from gainful.watch.triggers import LATEST, Reason, Waiting, reason_to_try, watch_runs

PRACTICE_CASES = 400  # that weights are trained on
DEV_CASES = 120  # that a run learns from: what the last step of a race uses, twice over
ROUNDS = 3
FRESH_CASES = 400
PAUSE_S = 600.0  # after a run that broke: the model or the disk may need a while
MOST_FAILURES = 3  # of one run: cases that were forgotten meanwhile, say, never come back
RUN_DIGITS = 16


class Proven(NamedTuple):
    """A challenger that a run has confirmed, and the registration of the confirmation."""

    challenger: str
    registration: str


class Place(Protocol):
    """Where receipts and the signing key lie, and by which words the model is connected again."""

    @property
    def receipts(self) -> Path: ...

    @property
    def signing_key(self) -> Path: ...

    @property
    def model_spec(self) -> str: ...


class Learning:
    """The runs of one task's watcher, which ask *model*, at the cost of *budget*, what the store does not know."""

    def __init__(
        self,
        task: Task,
        store: Store,
        model: Model,
        place: Place,
        budget: Budget,
        learners: Sequence[Learner] = ON_TRAFFIC,
    ) -> None:
        self._task = task
        self._store = store
        self._metered = MeteredModel(model, budget)
        self._model = MemoModel(self._metered, store)
        self._place = place
        self._budget = budget
        self._learners = learners
        self._teaching = _teaching(task.improving) if task.improving.weights else None
        self._trainer = trainer_for(task, self._model, self._teaching)
        self._reason: Reason | None = None
        self._not_before = 0.0
        self._now = 0.0
        self._failures = 0

    def failed(self, now: float, why: str) -> None:
        """Begin nothing for a while: the last run broke.  One that broke so often ends without a promotion."""
        self._not_before = now + PAUSE_S
        self._failures += 1
        runs = watch_runs(self._store, self._task.name)
        if self._failures >= MOST_FAILURES and runs and not runs[-1].finished:
            self._failures = 0
            written = len(self._store.events(runs[-1].run))
            spent = self._budget.of_run(runs[-1].run)
            ending = (
                Unconfirmed(reason=f"the run broke {MOST_FAILURES} times, the last time by: {why}"),
                Finished(runs[-1].spec["champion"], False, None, (), spent, Usage()),
            )
            for place, event in enumerate(ending):
                is_last = isinstance(event, Finished)
                self._store.append_event(runs[-1].run, written + place, canonical(event), last=is_last)

    def waits_for(self, now: float) -> Waiting | None:
        """Return what the next run waits for, ``None`` where one is to be begun, or gone on with."""
        self._now = now
        if now < self._not_before:
            return Waiting("broken", "the last run broke, and is tried again after a while")
        left = self._budget.left()
        if (last := self._last_run()) is not None and not last.finished:
            return Waiting("spent", left.why) if left.is_spent else None
        found = reason_to_try(self._store, self._task, now, left)
        if isinstance(found, Waiting):
            return found
        self._reason = found
        return None

    async def run(self, lease: Lease) -> None:
        """Go on with the last run, or begin one and see it through."""
        last = self._last_run()
        runs = watch_runs(self._store, self._task.name)
        stored = last if last is not None and not last.finished else self._begin(len(runs))
        self._metered.run = stored.run
        try:
            await improve(self._opened(stored, lease), self._learners)
        finally:
            self._metered.run = ""
        self._failures = 0

    def unstaged(self) -> Proven | None:
        """Return what the last run has proven, if it was not staged yet and its champion is still the champion."""
        last = self._last_run()
        if last is None or not last.finished or last.spec["champion"] != self._store.champion(self._task.name):
            return None
        events = read_events(self._store, last.run)
        finished = events[-1]
        if not (isinstance(finished, Finished) and finished.promoted):
            return None
        opened = next(event for event in events if isinstance(event, Opened))
        staged = self._store.ledger(service_key(self._task.name))
        if any(line.content.get("registration") == opened.registration for line in staged):
            return None
        return Proven(opened.challenger, opened.registration)

    def _last_run(self) -> StoredRun | None:
        """Return the last run, unless somebody was forgotten since it began: it may carry their words."""
        runs = watch_runs(self._store, self._task.name)
        if not runs:
            return None
        lines = self._store.ledger(service_key(self._task.name))
        began = runs[-1].spec["watch"]["at"]
        return None if any(line.kind == "forgotten" and line.content["at"] >= began for line in lines) else runs[-1]

    def _begin(self, seed: int) -> StoredRun:
        """Enter a new run: on which cases, from which champion and line of the ledger, and why."""
        store, task = self._store, self._task
        only_targets = needs_targets(task)
        latest = store.banked(task.name, "dev", limit=LATEST, only_targets=only_targets)
        chosen = select(latest, task.improving, DEV_CASES, seed)
        known = {banked.id for banked in chosen}
        left = [banked for banked in latest if banked.id not in known]
        practice = select(left, task.improving, PRACTICE_CASES, seed) if task.improving.weights else []
        on_traffic = traffic_task(task, store, chosen)
        champion = store.champion(task.name)
        reason = self._reason
        if champion is None or reason is None:
            raise StoreError(f"task {task.name!r}: no run is due; nothing was begun")
        free = store.count_banked(task.name, "held-out", only_targets=only_targets)
        settings = Settings(
            seed=seed,
            rounds=ROUNDS,
            fresh_cases=min(free, FRESH_CASES),
            budget_calls=reason.budget_calls,
            teaching=self._teaching,
        )
        spec: JsonObject = {
            "task": on_traffic.spec,
            "holdout": on_traffic.holdout.digest,
            "model": self._model.identity,
            "model_spec": self._place.model_spec,
            "settings": msgspec.to_builtins(settings),
            "learners": [learner.name for learner in self._learners],
            "gainful": importlib.metadata.version("gainful"),
            "champion": champion,
            "ledger": len(store.ledger(on_traffic.holdout.digest)),
            "earlier": former_marks(store, task.name, on_traffic.dev, champion),
            "watch": {
                "at": self._now,
                "why": reason.why,
                "cases": [banked.id for banked in chosen],
                "practice": [banked.id for banked in practice],
                "repairs": choose(store, task, seed),
                "told": told_by([*chosen, *practice]),
            },
        }
        name = digest(spec)[:RUN_DIGITS]
        store.start_run(name, task.name, spec)
        return store.find_run(name)

    def _opened(self, stored: StoredRun, lease: Lease) -> Run:
        """Return the run as it can be gone on with."""
        store, spec = self._store, stored.spec
        chosen, practice = (
            store.find_banked(self._task.name, spec["watch"].get(part, ())) for part in ("cases", "practice")
        )
        repairs = examples(store, self._task, spec["watch"].get("repairs", ()))
        return Run(
            task=traffic_task(self._task, store, chosen, practice, repairs),
            champion=store.policy(spec["champion"]),
            ledger_start=spec["ledger"],
            model=self._model,
            model_spec=spec["model_spec"],
            store=store,
            journal=Journal(store, stored.run),
            settings=msgspec.convert(spec["settings"], Settings),
            receipts=self._place.receipts,
            signing_key=self._place.signing_key,
            installs=False,
            lease=lease,
            trainer=self._trainer,
            earlier=spec.get("earlier", {}),
        )


def told_by(cases: Sequence[Banked]) -> dict[str, list[str]]:
    """Return by key the ids of others' *cases* whose targets it told, for whoever has it forgotten later on."""
    found: dict[str, list[str]] = {}
    for banked in cases:
        if banked.case.target is not None and banked.target_key != banked.key:
            found.setdefault(banked.target_key, []).append(banked.id)
    return found


def _teaching(improving: Improving) -> Teaching:
    memory = improving.train_memory
    return Teaching(
        base=improving.train_base or None,
        draws=improving.train_draws,
        minutes=improving.train_minutes,
        memory_bytes=None if memory is None else int(memory * 1e9),
    )
