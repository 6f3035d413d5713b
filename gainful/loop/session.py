"""Open what a run needs, run it, close it: the public ``improve``, ``evaluate``, ``calibrate`` and ``audit``.

A run is named by the digest of its spec: task, model, settings, learners, version and the champion it starts from.
The same call finds the same run again: unfinished, it goes on where it stopped; finished, it is told again from the
store.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import platformdirs

from gainful.core import (
    Attempt,
    JsonObject,
    Learner,
    Model,
    ModelError,
    Policy,
    Stopped,
    StoreError,
    Usage,
    Value,
    digest,
    judge,
    lowest,
)
from gainful.engine.local import Engine
from gainful.learners import LEARNERS
from gainful.loop import calibrate as calibrating
from gainful.loop import improve as improving
from gainful.loop.attempts import former_marks, kept_attempts
from gainful.loop.board import error_groups, score
from gainful.loop.calibrate import Audit, Bench, Calibration, Plan
from gainful.loop.events import ErrorGroup, Event, Finished, Interval
from gainful.loop.journal import Journal, Watcher, read_events
from gainful.loop.run import Run, Settings
from gainful.loop.trainer import trainer_for
from gainful.models import connect
from gainful.store import MemoModel, Store, full_place, open_store, store_file
from gainful.store import Run as StoredRun
from gainful.tasks import Task, load

T = TypeVar("T")

START = (
    "champion",
    "ledger",
    "earlier",
)  # of a run's spec: where it started from, which the same command need not repeat
AS_SERVED = Plan()
RUN_DIGITS = 16  # of a run's digest that name it; a store holds thousands of runs, not billions


class Result(Value, frozen=True):
    """What became of a run: its name, its records, and the last of them."""

    run: str
    finished: Finished
    events: tuple[Event, ...]


class Evaluation(Value, frozen=True):
    """A policy on dev, by the checks that learning uses and by the proof checks (``None``: no case has a target)."""

    task: str
    model: str
    policy: str
    score: Interval
    proof: Interval | None
    groups: tuple[ErrorGroup, ...]
    usage: Usage


def data_folder() -> Path:
    """Return the user's data directory for Gainful, made if need be; raises ``StoreError`` where it cannot be."""
    folder = platformdirs.user_data_path("gainful")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the data directory {str(folder)!r} cannot be made: {error.strerror}; "
            "set HOME or XDG_DATA_HOME to a place that can be written"
        ) from error
    return folder


def default_store() -> Path:
    """Return where the store lies unless the user says otherwise."""
    return data_folder() / "gainful.db"


def beside(store: Path | str) -> Path:
    """Return the folder of what goes with a store, receipts and reports: its own, or your data directory.

    What lies on a server has no folder that all who use it share.
    """
    file = store_file(store)
    return data_folder() if file is None else file.absolute().parent


def improve(
    task: Task | str,
    model: Model | str = "embedded",
    store: Path | str | None = None,
    settings: Settings | None = None,
    learners: Sequence[Learner] = LEARNERS,
    watchers: Sequence[Watcher] = (),
    time_limit_s: float | None = None,
) -> Result:
    """Improve *model* on *task*: search on dev, confirm once, promote on evidence alone.

    *task* and *model* are objects or the words of the command line; *store* is a path or ``postgresql://...`` (default:
    in the user's data directory); receipts lie in ``receipts`` beside it.  A run with other *learners*, by name, is
    another run.  Raises ``GainfulError`` for bad input, and ``Stopped`` where the run was interrupted or its time was
    up: the same call goes on with it.
    """
    work = _improve(task, model, _place(store), settings or Settings(), learners, watchers)
    return _blocking(_limited(work, time_limit_s))


def evaluate(
    task: Task | str,
    model: Model | str = "embedded",
    policy: Policy | None = None,
    store: Path | str | None = None,
    cases: int | None = None,
    watchers: Sequence[Watcher] = (),
) -> Evaluation:
    """Score *policy* (default: the champion, else the task's baseline) on dev; held-out cases stay sealed.

    *cases* caps how many dev cases are used.
    """
    return _blocking(_evaluate(task, model, policy, _place(store), cases, watchers))


def _place(store: Path | str | None) -> str:
    """Return where the store lies, in full: what a run writes down must be found from other folders too."""
    return full_place(store or default_store())


def calibrate(
    task: Task | str,
    model: Model | str = "embedded",
    store: Path | str | None = None,
    plan: Plan = AS_SERVED,
    watchers: Sequence[Watcher] = (),
) -> Calibration:
    """Fit P(wrong) of the champion's answers on dev, and put every method of correction to trial on the suspects.

    Detector and trials are stored: serving goes by them.  Held-out cases stay sealed.  Raises ``CalibrationError``
    where no truth is known or scikit-learn is missing.
    """
    return _blocking(_calibrate(task, model, _place(store), plan, watchers))


def audit(task: Task | str, model: Model | str = "embedded", store: Path | str | None = None) -> Audit:
    """Return how well errors of the champion are noticed, and which corrections are open and why; nothing is asked."""
    return _blocking(_audit(task, model, _place(store)))


async def _improve(
    task: Task | str,
    model: Model | str,
    place: str,
    settings: Settings,
    learners: Sequence[Learner],
    watchers: Sequence[Watcher],
) -> Result:
    task = load(task) if isinstance(task, str) else task
    async with _opened(model, place) as (store, memo, model_spec):
        trainer = trainer_for(task, memo, settings.teaching)
        with store.lock_run(task.name):
            found = _find(store, task, memo, model_spec, settings, learners)
            if found.finished:
                return _told(found.run, read_events(store, found.run), watchers)
            if trainer is not None:
                trainer.check_memory(now=True)
            run = Run(
                task=task,
                champion=store.policy(found.spec["champion"]),
                ledger_start=found.spec["ledger"],
                model=memo,
                model_spec=model_spec,
                store=store,
                journal=Journal(store, found.run, watchers),
                settings=settings,
                receipts=beside(place) / "receipts",
                signing_key=data_folder() / "signing-key.pem",
                trainer=trainer,
                earlier=found.spec.get("earlier", {}),
            )
            await improving.improve(run, learners)
        return _told(found.run, read_events(store, found.run))


def _told(run: str, events: Sequence[Event], watchers: Sequence[Watcher] = ()) -> Result:
    """Return a finished run as its records tell it, telling *watchers* again."""
    for event in events:
        for watch in watchers:
            watch(event)
    finished = events[-1] if events else None
    if not isinstance(finished, Finished):
        raise StoreError(f"run {run!r} is marked as finished and does not end so; take another store, or another seed")
    return Result(run=run, finished=finished, events=tuple(events))


def _find(
    store: Store, task: Task, memo: MemoModel, model_spec: str, settings: Settings, learners: Sequence[Learner]
) -> StoredRun:
    """Return the run of this spec: the unfinished one, else the one that ended at today's champion, else a new one."""
    spec: JsonObject = {
        "task": task.spec,
        "holdout": task.holdout.digest,
        "model": memo.identity,
        "model_spec": model_spec,
        "settings": msgspec.to_builtins(settings),
        "learners": [learner.name for learner in learners],
        "gainful": importlib.metadata.version("gainful"),
    }
    wanted = digest(spec)
    known = [run for run in store.runs() if digest({k: v for k, v in run.spec.items() if k not in START}) == wanted]
    current = store.champion(task.name)
    if current is None:
        store.set_champion(task.name, task.baseline, "baseline")
        current = task.baseline.id
    for run in known:
        if not run.finished or run.spec["champion"] == current:
            return run
    name = digest({**spec, "champion": current})[:RUN_DIGITS]
    start = {
        "champion": current,
        "ledger": len(store.ledger(task.holdout.digest)),
        "earlier": former_marks(store, task.name, task.dev, current),
    }
    store.start_run(name, task.name, {**spec, **start})
    return store.find_run(name)


async def _evaluate(
    task: Task | str,
    model: Model | str,
    policy: Policy | None,
    place: str,
    cases: int | None,
    watchers: Sequence[Watcher],
) -> Evaluation:
    task = load(task) if isinstance(task, str) else task
    async with _opened(model, place) as (store, memo, _):
        policy = policy or _in_service(store, task)
        chosen = task.dev[:cases]
        journal = Journal(store, "evaluation", watchers)
        engine = Engine(memo, task.kind, tuple(check for check in task.checks if not check.needs_target))
        attempts: list[Attempt] = []
        proven: list[Attempt] = []
        async for attempt in kept_attempts(store, task.name, engine, policy, chosen, task.checks):
            case = chosen[len(attempts)]
            attempts.append(attempt)
            if case.target is not None:
                verdicts = judge(task.proof, case, attempt.answer)
                proven.append(msgspec.structs.replace(attempt, verdicts=verdicts, score=lowest(verdicts)))
            journal.progress("evaluation", len(attempts), len(chosen))
        return Evaluation(
            task=task.name,
            model=memo.name,
            policy=policy.id,
            score=score(attempts),
            proof=score(proven) if proven else None,
            groups=error_groups(chosen, attempts),
            usage=sum((a.usage for a in attempts), Usage()),
        )


async def _calibrate(
    task: Task | str, model: Model | str, place: str, plan: Plan, watchers: Sequence[Watcher]
) -> Calibration:
    task = load(task) if isinstance(task, str) else task
    async with _opened(model, place) as (store, memo, _), _escalation(task, store) as stronger:
        journal = Journal(store, "calibration", watchers)
        bench = Bench(task, _in_service(store, task), memo, stronger)
        return await calibrating.calibrate(bench, store, plan, journal.progress)


async def _audit(task: Task | str, model: Model | str, place: str) -> Audit:
    task = load(task) if isinstance(task, str) else task
    async with _opened(model, place) as (store, memo, _):
        return calibrating.audit(store, task, memo.name, _in_service(store, task).id)


def _in_service(store: Store, task: Task) -> Policy:
    """Return the champion, else the task's baseline."""
    current = store.champion(task.name)
    return task.baseline if current is None else store.policy(current)


@contextlib.asynccontextmanager
async def _escalation(task: Task, store: Store) -> AsyncIterator[Model | None]:
    """Open the model that the task escalates to, if any."""
    if not task.serving.escalate:
        yield None
        return
    connected = connect(task.serving.escalate)
    try:
        yield MemoModel(connected, store)
    finally:
        await connected.close()


@contextlib.asynccontextmanager
async def _opened(model: Model | str, place: str) -> AsyncIterator[tuple[Store, MemoModel, str]]:
    """Open store and model, and close both: connections end with the event loop; a model opens again when asked."""
    connected = connect(model) if isinstance(model, str) else model
    with open_store(place) as store:
        memo = MemoModel(connected, store)
        try:
            yield store, memo, model if isinstance(model, str) else connected.name
        except ModelError as error:
            raise type(error)(f"{error} (finished calls are kept; the same command goes on from here)") from error
        finally:
            await connected.close()


async def _limited(work: Coroutine[Any, Any, T], time_limit_s: float | None) -> T:
    try:
        async with asyncio.timeout(time_limit_s):
            return await work
    except TimeoutError:
        raise Stopped(
            f"the time limit of {time_limit_s} s is up; the same command goes on from here, with finished calls kept"
        ) from None


def _blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* to its end; in a thread of its own where the caller has a running event loop, as notebooks do."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        beside = False
    else:
        beside = True
    try:
        return _in_a_thread(work) if beside else asyncio.run(work)
    except KeyboardInterrupt:
        raise Stopped("stopped; the same command goes on from here, with finished calls kept") from None


def _in_a_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* in a thread of its own.  Ctrl-C reaches the caller's thread, which passes it on and waits."""
    running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T] | None]] = Future()

    async def told() -> T:
        running.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    with ThreadPoolExecutor(max_workers=1) as thread:
        done = thread.submit(asyncio.run, told())
        try:
            return done.result()
        except KeyboardInterrupt:
            loop, task = running.result()
            if task is not None and not done.done():
                loop.call_soon_threadsafe(task.cancel)
            raise
