"""A task in service: which policy answers now, by which evidence, and how it comes to be another one.

Guarantees: a request sees one champion and one set of evidence from its first step to its last, for both are replaced
together, by one assignment; the store is read off the event loop, and a store that cannot be read leaves what is in
service in service.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec

from gainful.answers.allowance import Limits
from gainful.answers.detect import Detector
from gainful.answers.rule import TRIALS, Rule
from gainful.core import GainfulError, JsonObject, Policy
from gainful.proxy.chat import Served
from gainful.proxy.judging import Judging
from gainful.proxy.upstream import Guarded
from gainful.store import Store
from gainful.tasks import Task
from gainful.tasks.serving import Streaming

LOOK_S = 1.0  # between two looks at the champion pointer: a roll-back is in service within about this
EVIDENCE_LOOKS = 30  # looks at the champion for each look at detector and trials, which take a thousand times longer

log = logging.getLogger("gainful.proxy")


@dataclass
class Service:
    """What one model name of ours stands for; ``served`` is swapped as a whole."""

    task: Task
    usual: Guarded
    stronger: Guarded | None
    stream: Streaming
    served: Served

    @property
    def name(self) -> str:
        """The model name by which callers ask for it."""
        return model_name(self.task)


def model_name(task: Task) -> str:
    """Return the model name under which a task is served."""
    return f"gainful/{task.name}"


def judging_of(task: Task) -> Judging:
    """Return the task's checks that need no answer key, those of learning and of proof, each once."""
    return Judging(task.keyless)


def task_limits(task: Task) -> Limits:
    """Return what the task's own file allows one request."""
    serving = task.serving
    return Limits(
        deadline_ms=serving.deadline_ms,
        extra_calls=serving.extra_calls,
        extra_tokens=serving.extra_tokens,
        extra_cost_usd=serving.extra_cost_usd,
    )


def read(store: Store, task: Task, model: str, judging: Judging, limits: Limits) -> Served:
    """Return what the store says is in service: the champion, else the task's baseline; detector and open methods.

    A detector and trials of another policy's drafts say nothing of this one's, and do not count.
    """
    current = store.champion(task.name)
    policy = task.baseline if current is None else store.policy(current)
    methods = task.serving.methods
    detector = _detector(store.detector(task.name, model), policy, task)
    trials = [trial for trial in store.trials(task.name, model, limit=TRIALS) if trial.method in methods]
    return Served(
        task=task,
        policy=policy,
        judging=judging,
        rule=Rule.of(trials, policy.id),
        detector=detector,
        limits=limits,
    )


def _detector(content: JsonObject | None, policy: Policy, task: Task) -> Detector | None:
    """Return the detector of *policy*; one that cannot be read is none, and P(wrong) unknown."""
    if content is None:
        return None
    try:
        detector = msgspec.convert(content, Detector)
    except msgspec.ValidationError:
        log.error("the detector cannot be read; gainful calibrate makes another", extra={"task": task.name})
        return None
    return detector if detector.policy == policy.id else None


class Watch:
    """Looks at the store now and then and swaps what has changed; *opened* opens it, in the thread that reads."""

    def __init__(self, services: Sequence[Service], opened: Callable[[], Store]):
        self._services = services
        self._opened = opened
        self._store: Store | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gainful-watch")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def look(self, *, evidence: bool = True) -> None:
        """Look once, and swap."""
        loop = asyncio.get_running_loop()
        for service in self._services:
            try:
                found = await loop.run_in_executor(self._thread, self._read, service, evidence)
            except GainfulError as error:
                log.warning("the store cannot be read, the champion stays", extra={"reason": type(error).__name__})
                continue
            if found is not None:
                changed = found.policy.id != service.served.policy.id
                service.served = found
                if changed:
                    log.info("another champion is in service", extra={"task": service.task.name})

    async def _run(self) -> None:
        looks = 0
        while True:
            await asyncio.sleep(LOOK_S)
            looks += 1
            await self.look(evidence=looks % EVIDENCE_LOOKS == 0)

    def _read(self, service: Service, evidence: bool) -> Served | None:
        """In the thread: what is in service now, ``None`` where nothing needs to change."""
        if self._store is None:
            self._store = self._opened()
        served = service.served
        if not evidence and self._store.champion(service.task.name) in (served.policy.id, None):
            return None
        return read(self._store, service.task, service.usual.model.name, served.judging, served.limits)

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
