"""A task in service: which policies answer now, by which evidence, and how they come to be others.

Guarantees: a request sees one policy and one set of evidence from its first step to its last, for champion, challenger,
former champion and seats are replaced together, by one assignment; a detector and a rule serve the policy whose drafts
they are of, and no other; the store is read off the event loop, and a store that cannot be read leaves what is in
service in service.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec

from gainful.answers.allowance import Limits
from gainful.answers.detect import Detector
from gainful.answers.rule import TRIALS, Rule
from gainful.core import (
    AdapterNotFound,
    Arm,
    GainfulError,
    JsonObject,
    ModelError,
    Policy,
    Seat,
    StoreError,
    StreamingModel,
)
from gainful.models.adapters import MEMBER
from gainful.proxy.chat import Served
from gainful.proxy.judging import Judging
from gainful.proxy.seating import Seating
from gainful.proxy.upstream import Guarded
from gainful.store import Store
from gainful.tasks import Task
from gainful.tasks.own import shared_name
from gainful.tasks.serving import Streaming
from gainful.watch import service as watched
from gainful.watch.budget import is_spent

LOOK_S = 1.0  # between two looks at pointer and ledger: a roll-back is in service within about this
WARM_S = 30.0  # an adapter of a large model, from a slow disk
EVIDENCE_LOOKS = 30  # looks at these two for each look at detector and trials, which take a thousand times longer
LANE_BYTES = 8  # of chance: two lanes of one task must not have one name

log = logging.getLogger("gainful.proxy")


class Placed(NamedTuple):
    """What answers one request: the arm's policy and evidence, its seat, and who answers unheard as well, if anybody.

    ``seat`` is ``None`` where nothing is compared.
    """

    served: Served
    seat: Seat | None = None
    shadow: Served | None = None

    @property
    def arm(self) -> Arm:
        """Who answers the caller."""
        return self.seat.arm if self.seat else "champion"


@dataclass(frozen=True)
class InService:
    """All that answers a task at one moment: the champion, the policies of the stages that are on, and the seats.

    ``others`` are by the ids of their policies; ``head`` is that of the service's ledger, "" where it has no line.
    """

    head: str
    champion: Served
    others: Mapping[str, Served]
    seating: Seating

    def place(self) -> Placed:
        """Seat the next request."""
        policy, seat, shadow = self.seating.take()
        return Placed(self.others.get(policy, self.champion), seat, None if shadow is None else self.others[shadow])

    def is_like(self, other: InService) -> bool:
        """Whether the same policies are in service, in the same state."""
        both = (self.head, self.champion.policy.id, set(self.others))
        return both == (other.head, other.champion.policy.id, set(other.others))


@dataclass
class Service:
    """What one model name of ours stands for; ``now`` is swapped as a whole.

    ``is_spent``: learning may spend no more today, so nobody is asked unheard.
    """

    task: Task
    usual: Guarded
    stronger: Guarded | None
    stream: Streaming
    now: InService
    is_spent: bool = False

    @property
    def name(self) -> str:
        """The model name by which callers ask for it."""
        return model_name(self.task)


def model_name(task: Task) -> str:
    """Return the model name under which a task is served; a caller's own has that of the shared one."""
    return f"gainful/{shared_name(task.name)}"


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


def read(store: Store, task: Task, model: str, judging: Judging, limits: Limits, lane: str) -> InService:
    """Return what the store says is in service: the champion, else the task's baseline, and the stages that are on.

    Requests are seated in *lane*, random text that nobody else has.  A caller's own task that has not begun yet is
    answered like the shared one; its corrections go by the shared one's calibration, made on the operator's cases.
    """
    shared = shared_name(task.name)
    head = store.ledger_head(watched.service_key(task.name))
    state = _state(store, task)
    current = store.champion(task.name) or store.champion(shared)
    champion = task.baseline if current is None else store.policy(current)
    trials = store.trials(shared, model, limit=TRIALS)
    trials = [trial for trial in trials if trial.method in task.serving.methods]
    found = store.detector(shared, model)

    def served(policy: Policy) -> Served:
        detector = _detector(found, policy, task)
        rule = Rule.of(trials, policy.id)
        return Served(task=task, policy=policy, judging=judging, rule=rule, detector=detector, limits=limits)

    policies = {stage.policy: _readable(store, stage.policy, task) for stage in (state.canary, state.holdback) if stage}
    others = {id: served(policy) for id, policy in policies.items() if policy is not None}
    canary, holdback = (stage if stage and stage.policy in others else None for stage in (state.canary, state.holdback))
    return InService(head, served(champion), others, Seating(champion.id, lane, canary, holdback))


async def warm(model: StreamingModel, policy: Policy) -> None:
    """Have *model* answer a token with the adapter of *policy*, so that no caller waits while it is loaded.

    Raises ``AdapterNotFound`` where it never will be; what time may cure is left to the first caller.
    """
    if policy.adapter is None:
        return
    body = {"messages": [{"role": "user", "content": "."}], "max_tokens": 1, "temperature": 0}
    try:
        async with asyncio.timeout(WARM_S):
            await model.complete({**body, MEMBER: msgspec.to_builtins(policy.adapter)})
    except AdapterNotFound:
        raise
    except (ModelError, TimeoutError) as error:
        log.warning("an adapter could not be tried yet", extra={"adapter": policy.adapter.label, "reason": str(error)})


def new_lane() -> str:
    """Return a lane that nobody can foresee."""
    return os.urandom(LANE_BYTES).hex()


def _state(store: Store, task: Task) -> watched.Service:
    """Return the state of the service; without stages where its ledger says nothing that can be understood."""
    try:
        return watched.read_service(store, task.name)
    except Exception as error:  # noqa: BLE001 - whatever the ledger holds, a newer version's line too, the champion answers
        log.error("nothing is compared: the service's ledger cannot be read", extra=_of(task, error))
        return watched.Service()


def _readable(store: Store, id: str, task: Task) -> Policy | None:
    """Return the policy of a stage, ``None`` where it cannot be read: the champion answers in its place."""
    try:
        return store.policy(id)
    except StoreError as error:
        log.error("nothing is compared: a policy of the service cannot be read", extra=_of(task, error))
        return None


def _of(task: Task, error: Exception) -> dict[str, str]:
    return {"task": task.name, "reason": type(error).__name__}


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
        self._services = list(services)
        self._opened = opened
        self._store: Store | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gainful-watch")
        self._task: asyncio.Task[None] | None = None
        self._told: set[str] = set()  # policies whose missing adapter was told: a look comes every second

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run())

    def add(self, service: Service) -> None:
        """Look after one more."""
        self._services.append(service)

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
                found, service.is_spent = await loop.run_in_executor(self._thread, self._read, service, evidence)
            except GainfulError as error:
                log.warning("the store cannot be read, the champion stays", extra={"reason": type(error).__name__})
                continue
            if found is not None and await self._is_ready(service, found):
                changed = found.champion.policy.id != service.now.champion.policy.id
                service.now = found
                if changed:
                    log.info("another champion is in service", extra={"task": service.task.name})

    async def _is_ready(self, service: Service, found: InService) -> bool:
        """Load the adapters of what is new; a champion whose adapter cannot be had does not come into service."""
        now = service.now
        for served in (found.champion, *found.others.values()):
            policy = served.policy
            if policy.id == now.champion.policy.id or policy.id in now.others:
                continue
            try:
                await warm(service.usual.model, policy)
            except AdapterNotFound as error:
                if policy.id not in self._told:
                    self._told.add(policy.id)
                    log.error("a policy lacks its adapter", extra={"task": service.task.name, "reason": str(error)})
                if served is found.champion:
                    return False
        return True

    async def _run(self) -> None:
        looks = 0
        while True:
            await asyncio.sleep(LOOK_S)
            looks += 1
            await self.look(evidence=looks % EVIDENCE_LOOKS == 0)

    def _read(self, service: Service, evidence: bool) -> tuple[InService | None, bool]:
        """In the thread: what is in service now, ``None`` where nothing needs to change, and whether all is spent."""
        if self._store is None:
            self._store = self._opened()
        now, task = service.now, service.task
        spent = is_spent(self._store, task.name)
        if not evidence and self._is_still(now, task.name):
            return None, spent
        champion = now.champion
        lane = new_lane()
        found = read(self._store, task, service.usual.model.name, champion.judging, champion.limits, lane)
        return replace(found, seating=now.seating) if found.is_like(now) else found, spent

    def _is_still(self, now: InService, task: str) -> bool:
        assert self._store is not None
        is_same = self._store.champion(task) in (now.champion.policy.id, None)
        return is_same and self._store.ledger_head(watched.service_key(task)) == now.head

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
