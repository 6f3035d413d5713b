"""Forget a caller: what they brought, what was learned from it, and the policies and receipts that carry it.

Guarantees: no policy that carries the caller's words is in service, on its way in or held back when it loses them; each
step follows from what the store holds, so that after ``kill -9`` the same call finishes the work.  What carries words
is found by the cases that demos hold and adapters were trained on, so by where each learned item came from, not by
looking for similar words; a case whose right answer the caller told a run counts as well, whoever asked it.  An adapter
that was trained on a forgotten case is deleted.  What only the caller's own tasks have learned goes, whether it shows
words or not.

A receipt quotes cases and policies.  Of one that carries forgotten words the files that quote are deleted; what was
registered, claimed and signed stays, and whoever has a copy can still verify it.  What the store itself keeps is said
in ``store/forget.py``; copies elsewhere are not reached.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from gainful.core import Adapter, Case, Policy, StoreError, Value
from gainful.learners.teaching import Taught
from gainful.loop.events import Proposed
from gainful.loop.journal import read_events
from gainful.models.adapters import remove_adapter, trained_on
from gainful.store import Forgotten, Store
from gainful.store.store import LedgerEntry
from gainful.tasks.split import content
from gainful.train import forget_words
from gainful.watch.own_tasks import learned_for
from gainful.watch.service import Helm, read_service, service_key, watch_lease

CASES = "cases.jsonl"
POLICIES = ("policies/champion.json", "policies/challenger.json")
QUOTING = ("diff.json", "pairs.jsonl", "outputs.jsonl", "calls.jsonl", *POLICIES, CASES)
"""The files of a receipt that quote, those last by which it is found again."""

TRIES = 5  # a watcher may move between two of our steps; it does so once in minutes
SETTLE_S = 6.0  # in which a watcher has read the line and given its run up; it looks every two
REASON = "a caller was forgotten whose words this policy carries"

_case = msgspec.json.Decoder(Case).decode
_policy = msgspec.json.Decoder(Policy).decode


class Forgetting(Value, frozen=True):
    """What was removed; ``None`` where an earlier call was killed after it had removed it, uncounted.

    ``policies`` have lost their words, ``receipts``, by the names of their folders, the files that quote;
    ``taken_back`` are the tasks whose champion carried words.  ``adapters`` were deleted; of those ``unknown``, which
    stay in service, nobody has noted what they were trained on.
    """

    exchanges: int | None
    cases: int | None
    repairs: int | None
    probes: int | None
    policies: tuple[str, ...] = ()
    receipts: tuple[str, ...] = ()
    taken_back: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def carriers(store: Store, policies: Iterable[str], case_ids: Collection[str]) -> tuple[str, ...]:
    """Return those of *policies* that show or were trained on one of the cases, which go by ``split.content`` or id.

    A policy that has lost its words already carries none.
    """
    return tuple(id for id in dict.fromkeys(policies) if _carries(_stored(store, id), case_ids))


def forget(store: Store, key: str, tasks: Iterable[str], receipts: Path, clock: Callable[[], float]) -> Forgetting:
    """Forget all that the caller *key* brought; "" are those without a key.

    A champion that carries their words, of *tasks* or of a task that was ever improved in *store*, is replaced by the
    former one, else by the latest before it that carries none and was not itself taken back; a canary that carries
    some is rejected, a hold-back ends.  *receipts* is the folder of receipts.  Raises ``StoreError`` for a key that the
    store does not know, while a run of a task is under way, and where no champion without these words is left;
    nothing is forgotten then.
    """
    names = [known.name for known in store.keys()]  # noqa: SIM118 - a store is no mapping
    if key and key not in names:
        raise StoreError(f"no key {key!r} is known; give one of: {', '.join(names) or 'none yet'}")
    served = sorted({*tasks, *(run.task for run in store.runs())})
    with contextlib.ExitStack() as held:
        for task in served:
            held.enter_context(store.lock_run(task))  # a run would show the words again
        for tries_left in reversed(range(TRIES)):
            try:
                return _Work(store, key, served, clock).do(receipts)
            except StoreError:  # another process may have moved a service; each try begins from what is so by then
                if not tries_left:
                    raise
    raise AssertionError("the last try returns or raises")


class _Work:
    """One try at forgetting *key*."""

    def __init__(self, store: Store, key: str, tasks: Iterable[str], clock: Callable[[], float]) -> None:
        self._store = store
        self._key = key
        self._mark = hashlib.sha256(key.encode()).hexdigest()  # the ledger stays, and names nobody
        self._helms = {task: Helm(store, task, clock) for task in tasks if store.champion(task) is not None}
        self._told_of = frozenset(_told_to_runs(store, key))
        self._cases = self._told_of | frozenset(store.brought_by(key))
        self._learned = learned_for(store, key)  # by the caller's own tasks: with words or without, it is theirs

    def do(self, receipts: Path) -> Forgetting:
        """Leave the services, then the receipts, then the store; write down before and after what is done."""
        carrying = {task: self._carrying(task) for task in self._helms}
        heirs = {task: self._heir(task) for task in carrying if self._store.champion(task) in carrying[task]}
        begun = [self._begun(task) for task in self._helms]
        for task, helm in self._helms.items():
            if task in heirs:
                helm.roll_back(REASON, to=heirs[task])
            elif helm.state.canary is not None and helm.state.canary.policy in carrying[task]:
                helm.reject(REASON)
            if carrying[task] or not self._begun(task):
                helm.forgot({"key": self._mark, "is_done": False, "policies": carrying[task]})
        if any(self._is_watched(task) for task in self._helms):
            time.sleep(SETTLE_S)
        stripped = tuple(_strip(receipts, self._cases))
        adapters = self._trained_on_it()
        for adapter in adapters:
            remove_adapter(adapter)
        forget_words()
        blanked = {*self._with_adapters(adapters), *self._learned_from_told(), *self._learned}
        removed = self._store.forget_key(self._key, sorted(blanked))
        found = self._told(removed, stripped, tuple(heirs), was_begun=any(begun))
        found = replace(
            found, adapters=tuple(adapter.label for adapter in adapters), unknown=self._of_unknown_training()
        )
        for helm in self._helms.values():
            helm.forgot({"key": self._mark, "is_done": True, **msgspec.to_builtins(found)})
        return found

    def _is_watched(self, task: str) -> bool:
        lease = self._store.take_lease(watch_lease(task), f"forget {os.getpid()}", SETTLE_S)
        if lease is not None:
            self._store.end_lease(lease)
        return lease is None

    def _carrying(self, task: str) -> list[str]:
        """Return the policies with the caller's words that are in service, on their way in or out."""
        seated = self._seated(task)
        return sorted({*carriers(self._store, seated, self._cases), *self._learned.intersection(seated)})

    def _seated(self, task: str) -> list[str]:
        """Return the policies that are in service, on their way in or out."""
        state = read_service(self._store, task)
        seated = [self._store.champion(task), state.former]
        seated += [stage.policy for stage in (state.canary, state.holdback) if stage is not None]
        return [id for id in seated if id]

    def _heir(self, task: str) -> str:
        """Return who takes over from a champion with the caller's words."""
        lines = self._store.ledger(service_key(task))
        harmful = {line.content["left"] for line in lines if line.kind == "rolled-back"}
        former = read_service(self._store, task).former
        before = [one.policy for one in reversed(self._store.champion_history(task))]
        before += [line.content["former"] for line in lines if line.kind == "begun"]
        for id in filter(None, [former, *(one for one in before if one not in harmful)]):
            policy = _stored(self._store, id)
            if policy is not None and id not in self._learned and not _carries(policy, self._cases):
                return id
        raise StoreError(
            f"task {task!r} has had no champion without words of key {self._key!r}; nothing was forgotten: put another "
            "policy into service first"
        )

    def _begun(self, task: str) -> bool:
        """Whether an earlier call began here and was killed."""
        told = [line for line in self._store.ledger(service_key(task)) if self._is_ours(line)]
        return bool(told) and not told[-1].content["is_done"]

    def _is_ours(self, line: LedgerEntry) -> bool:
        return line.kind == "forgotten" and line.content.get("key") == self._mark

    def _told(
        self, removed: Forgotten, receipts: tuple[str, ...], taken_back: tuple[str, ...], *, was_begun: bool
    ) -> Forgetting:
        exchanges, cases, repairs, probes, policies = removed
        if was_begun and not any(removed[:4]):
            return Forgetting(None, None, None, None, policies, receipts, taken_back)
        return Forgetting(exchanges, cases, repairs, probes, policies, receipts, taken_back)

    def _trained_on_it(self) -> list[Adapter]:
        """Return the adapters that runs of this store or its policies brought, and that know the caller's words."""
        told = (event for run in self._store.runs() for event in read_events(self._store, run.run))
        adapters = [event.trained.adapter for event in told if isinstance(event, Taught) and event.trained]
        adapters += [policy.adapter for policy in self._ever_seated() if policy.adapter]
        by_digest = {adapter.sha256: adapter for adapter in adapters if self._cases & (trained_on(adapter) or set())}
        return [by_digest[sha256] for sha256 in sorted(by_digest)]

    def _with_adapters(self, adapters: Collection[Adapter]) -> list[str]:
        """Return the policies that have one of *adapters*."""
        return sorted({policy.id for policy in self._ever_seated() if policy.adapter in adapters})

    def _learned_from_told(self) -> list[str]:
        """Return the policies that show a case whose target the caller once told, whoever has told another since."""
        proposed = (
            event.proposal.policy.id
            for run in (self._store.runs() if self._told_of else ())
            for event in read_events(self._store, run.run)
            if isinstance(event, Proposed)
        )
        return sorted(carriers(self._store, (*proposed, *(one.id for one in self._ever_seated())), self._told_of))

    def _ever_seated(self) -> list[Policy]:
        ids = {one.policy for task in self._helms for one in self._store.champion_history(task)}
        ids |= {id for task in self._helms for id in self._seated(task)}
        return [policy for id in sorted(ids) if (policy := _stored(self._store, id)) is not None]

    def _of_unknown_training(self) -> tuple[str, ...]:
        """Return the adapters in service, on their way in or out, of which nobody knows what they were trained on."""
        seated = {id for task in self._helms for id in self._seated(task)}
        adapters = [policy.adapter for id in seated if (policy := _stored(self._store, id)) and policy.adapter]
        return tuple(sorted({adapter.label for adapter in adapters if trained_on(adapter) is None}))


def _told_to_runs(store: Store, key: str) -> Iterator[str]:
    """Yield the ids of cases whose targets runs learned from and *key* had told: others may have told more since."""
    for run in store.runs():
        yield from run.spec.get("watch", {}).get("told", {}).get(key, ())


def _stored(store: Store, id: str) -> Policy | None:
    """Return the policy, ``None`` where it has lost its words."""
    try:
        return store.policy(id)
    except StoreError:
        return None


def _carries(policy: Policy | None, case_ids: Collection[str]) -> bool:
    if policy is None or policy.adapter is None:
        return _shows(policy, case_ids)
    return _shows(policy, case_ids) or not (trained_on(policy.adapter) or frozenset()).isdisjoint(case_ids)


def _shows(policy: Policy | None, case_ids: Collection[str]) -> bool:
    demos = policy.demos if policy is not None else ()
    return any(demo.case.id in case_ids or content(demo.case) in case_ids for demo in demos)


# --- receipts


def _strip(receipts: Path, case_ids: Collection[str]) -> Iterator[str]:
    """Delete what quotes the cases in each receipt that does; yield the names of these."""
    for folder in sorted(receipts.iterdir()) if receipts.is_dir() else ():
        if folder.is_dir() and _quotes(folder, case_ids):
            for name in QUOTING:
                (folder / name).unlink(missing_ok=True)
            yield folder.name


def _quotes(folder: Path, case_ids: Collection[str]) -> bool:
    try:
        shown = [_policy((folder / name).read_bytes()) for name in POLICIES if (folder / name).is_file()]
        lines = (folder / CASES).read_bytes().splitlines() if (folder / CASES).is_file() else []
        cases = [_case(line) for line in lines]
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(
            f"receipt {folder} cannot be read ({error}); nothing was forgotten: remove it, or move it elsewhere"
        ) from error
    return any(_shows(policy, case_ids) for policy in shown) or any(
        case.id in case_ids or content(case) in case_ids for case in cases
    )
