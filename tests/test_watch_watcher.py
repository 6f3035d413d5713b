"""The watcher's whole life on a scripted street: learn, prove, let in step by step, hold back, take back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from streets import Street
from worlds import case, needs_a_schema, scripted, sums

from gainful.core import Format, JsonObject, Policy
from gainful.models import ScriptedModel
from gainful.store import MemoModel, SQLiteStore
from gainful.tasks import Task
from gainful.watch.service import Helm, Service, read_service, service_key
from gainful.watch.watcher import Watcher, Workplace

REQUESTS = 400


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "gainful.db") as store:
        yield store


def workplace(store: SQLiteStore, street: Street, holder: str = "one") -> Workplace:
    model = street.model
    return Workplace(
        store=store,
        model=model,
        memo=MemoModel(model, store),
        model_spec="scripted",
        receipts=store.path.parent / "receipts",
        signing_key=store.path.parent / "key.pem",
        holder=holder,
        clock=street.clock,
    )


def street_of(store: SQLiteStore, task: Task | None = None, model: ScriptedModel | None = None) -> Street:
    return Street(store, task or sums(), model or scripted(), case)


async def rounds(watcher: Watcher, most: int = 200) -> None:
    """Let the watcher work until nothing is under way any more."""
    await watcher.round()
    for _ in range(most):
        if not watcher.is_busy:
            break
        await asyncio.sleep(0.02)
        await watcher.round()


def kinds(store: SQLiteStore) -> list[str]:
    return [entry.kind for entry in store.ledger(service_key("sums"))]


def look(watcher: Watcher) -> Service:
    asyncio.run(rounds(watcher))
    return read_service(watcher._store, "sums")


@pytest.mark.slow
def test_traffic_alone_brings_a_proven_improvement_into_service(store: SQLiteStore) -> None:
    street = street_of(store)
    watcher = Watcher(street.task, workplace(store, street))
    street.ask(REQUESTS)

    state = look(watcher)
    assert state.canary is not None
    assert state.canary.mode == "shadow"
    assert store.champion("sums") == street.task.baseline.id  # what is proven is not yet in service
    for _ in range(60):
        street.ask(100)
        if look(watcher).champion:
            break

    assert kinds(store) == ["staged"] * 5 + ["promoted"]
    shares = [entry.content["stage"]["share"] for entry in store.ledger(service_key("sums"))[:5]]
    assert shares == [0.25, 0.01, 0.05, 0.2, 0.5]
    champion = store.policy(str(store.champion("sums")))
    assert champion.format.shape in ("schema", "arguments")
    assert read_service(store, "sums").former == street.task.baseline.id


WORSE = Policy(instructions="Say something.", max_tokens=8)
BETTER = Policy(instructions="Call the function.", format=Format(shape="schema"))


def installed(store: SQLiteStore, street: Street, policy: Policy) -> Helm:
    store.set_champion("sums", policy, "baseline")
    store.put_policy(policy)
    return Helm(store, "sums", street.clock)


def test_a_challenger_that_is_worse_is_stopped_in_its_shadow(store: SQLiteStore) -> None:
    street = street_of(store)
    helm = installed(store, street, BETTER)
    store.put_policy(WORSE)
    helm.stage(WORSE.id, "shadow", 0.5, "5eed", "r" * 64)
    watcher = Watcher(street.task, workplace(store, street))

    street.ask(150)
    state = look(watcher)

    assert state.canary is None
    assert kinds(store) == ["staged", "rejected"]
    assert "quality" in store.ledger(service_key("sums"))[-1].content["reason"]
    assert store.champion("sums") == BETTER.id


def test_a_bad_champion_that_was_forced_in_is_taken_back_by_the_hold_back(store: SQLiteStore) -> None:
    street = street_of(store)
    helm = installed(store, street, BETTER)
    store.put_policy(WORSE)
    helm.force(WORSE.id, "5eed", 0.1)
    watcher = Watcher(street.task, workplace(store, street))

    for _ in range(30):
        street.ask(50)
        if look(watcher).champion == BETTER.id:
            break

    assert kinds(store)[:2] == ["promoted", "rolled-back"]
    assert store.champion("sums") == BETTER.id
    assert street.asked < 600


def test_no_known_score_means_hold(store: SQLiteStore) -> None:
    blind = sums()
    blind = type(blind)(**{**blind.__dict__, "checks": blind.checks[1:]})  # grounding alone: nothing trusted
    street = street_of(store, blind)
    helm = installed(store, street, BETTER)
    store.put_policy(WORSE)
    helm.stage(WORSE.id, "canary", 0.5, "5eed", "r" * 64)
    watcher = Watcher(blind, workplace(store, street))

    street.ask(200)

    assert look(watcher).canary is not None
    assert kinds(store) == ["staged"]


def test_of_two_watchers_one_acts_and_the_other_takes_over_when_it_is_silent(store: SQLiteStore) -> None:
    street = street_of(store)
    helm = installed(store, street, BETTER)
    store.put_policy(WORSE)
    first = Watcher(street.task, workplace(store, street, "one"))
    second = Watcher(street.task, workplace(store, street, "two"))
    look(first)
    helm.stage(WORSE.id, "shadow", 0.5, "5eed", "r" * 64)
    street.ask(50)
    street.now -= 45  # still inside the first one's lease

    assert look(second).canary is not None
    street.now += 3600.0

    assert look(second).canary is None


def test_a_paused_task_learns_nothing_and_is_still_protected(store: SQLiteStore) -> None:
    street = street_of(store)
    helm = installed(store, street, BETTER)
    helm.pause()
    store.put_policy(WORSE)
    street.ask(REQUESTS)
    watcher = Watcher(street.task, workplace(store, street))

    look(watcher)
    assert store.runs() == []
    helm.force(WORSE.id, "5eed", 0.2)
    for _ in range(12):
        street.ask(50)
        look(watcher)

    assert store.champion("sums") == BETTER.id


def test_a_watcher_that_died_reads_the_evidence_again_and_decides_the_same(store: SQLiteStore) -> None:
    street = street_of(store)
    helm = installed(store, street, BETTER)
    twin = Policy(instructions="Call the function.", format=Format(shape="schema"), max_tokens=200)
    store.put_policy(twin)
    helm.stage(twin.id, "shadow", 0.5, "5eed", "r" * 64)
    told: list[JsonObject] = []
    for holder in ("one", "two"):
        street.ask(100)
        watcher = Watcher(street.task, workplace(store, street, holder))
        look(watcher)
        told.append(watcher._canary[1].told if watcher._canary else {})
        street.now += 3600.0

    assert needs_a_schema is not None
    assert told[1]["quality"]["n"] > told[0]["quality"]["n"] > 0
