"""The watcher's whole life on a scripted street: learn, prove, let in step by step, hold back, take back."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from adapters import gguf_header
from canary_in_service import Way, tried
from msgspec import structs
from street import Clock, Street, working
from worlds import case, needs_a_schema, scripted, sums

from gainful.checks import Grounding
from gainful.core import Format, JsonObject, Policy, StoreError, TrainError, Usage
from gainful.loop.events import Finished, Unconfirmed
from gainful.loop.journal import read_events
from gainful.loop.replay import replay
from gainful.loop.verify import verify
from gainful.models import ScriptedModel
from gainful.store import SQLiteStore, open_store
from gainful.train import missing
from gainful.watch import process, watcher
from gainful.watch.budget import Budget, is_spent
from gainful.watch.holder import is_dead, this_process
from gainful.watch.learning import MOST_FAILURES, PAUSE_S
from gainful.watch.process import AT_ONCE, learning_model
from gainful.watch.promotions import read_promotions
from gainful.watch.service import Helm, Service, read_service, service_key, watch_lease
from gainful.watch.standings import evidence_against
from gainful.watch.triggers import watch_runs
from gainful.watch.watcher import Watcher, Workplace

pytestmark = pytest.mark.slow  # hundreds of requests each

REQUESTS = 400


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "gainful.db", clock=clock) as store:
        yield store


@pytest.fixture
def street(store: SQLiteStore, clock: Clock) -> Street:
    return Street(store, sums(), scripted(), case, clock)


def workplace(store: SQLiteStore, street: Street, holder: str = "one") -> Workplace:
    return working(store, street.model, street.clock, holder)


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
def test_traffic_alone_brings_a_proven_improvement_into_service(store: SQLiteStore, street: Street) -> None:
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
    (receipt,) = (store.path.parent / "receipts").iterdir()
    report = verify(str(receipt), None, replay)
    assert report.decision == "promoted"
    assert [(found.name, found.detail) for found in report.findings if found.verdict == "failed"] == []
    assert next(found.verdict for found in report.findings if found.name == "replay") == "ok"
    (took,) = read_promotions(store, "sums")
    first = min(exchange.at for _, exchange in store.exchanges_after("sums", 0, limit=REQUESTS))
    assert took.policy == champion.id
    assert took.first_failure_at is not None
    assert took.certified_at is not None
    assert first <= took.first_failure_at < took.certified_at < took.at
    assert (took.labels, took.runs) == (0, 1)
    assert took.spent is not None
    shadows = sum(tally.calls for tally in store.tallies("sums") if tally.arm == "shadow")
    assert took.spent.calls > shadows > 0


WORSE = Policy(instructions="Say something.", max_tokens=8)
BETTER = Policy(instructions="Call the function.", format=Format(shape="schema"))


def installed(store: SQLiteStore, street: Street, policy: Policy) -> Helm:
    store.set_champion("sums", policy, "confirmed")
    store.put_policy(policy)
    return Helm(store, "sums", street.clock)


def test_a_challenger_that_is_worse_is_stopped_in_its_shadow(store: SQLiteStore, street: Street) -> None:
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


@pytest.mark.parametrize(("share", "is_unheard"), [(0.5, False), (0.2, False), (0.25, True)])
def test_a_challenger_twenty_points_worse_is_taken_back_from_every_stage(share: float, is_unheard: bool) -> None:
    """8 of each; how soon, of 200 each, stands in docs/benchmarks.md."""
    ends = [tried(seed, Way(0.8, -0.2, share, is_unheard), 1000) for seed in range(8)]

    assert [end.word for end in ends] == ["rejected"] * 8
    assert all(end.why.startswith("quality") for end in ends)
    assert median(end.canary_requests for end in ends) <= 120


def test_a_bad_champion_that_was_forced_in_is_taken_back_by_the_hold_back(store: SQLiteStore, street: Street) -> None:
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


def test_a_pinned_champion_that_is_worse_stays_and_whoever_pinned_it_is_told(
    store: SQLiteStore, street: Street
) -> None:
    helm = installed(store, street, BETTER)
    store.put_policy(WORSE)
    helm.force(WORSE.id, "5eed", 0.5)
    helm.pin()
    watcher = Watcher(street.task, workplace(store, street))

    for _ in range(8):
        street.ask(50)
        look(watcher)

    lines = store.ledger(service_key("sums"))
    assert [line.kind for line in lines[:3]] == ["promoted", "pinned", "alarm"]
    assert lines[2].content["about"].startswith("worse than the former champion")
    assert store.champion("sums") == WORSE.id


def test_no_known_score_means_hold(store: SQLiteStore, clock: Clock) -> None:
    blind = replace(sums(), checks=(Grounding(),))  # which nobody trusts
    street = Street(store, blind, scripted(), case, clock)
    helm = installed(store, street, BETTER)
    store.put_policy(WORSE)
    helm.stage(WORSE.id, "canary", 0.5, "5eed", "r" * 64)
    watcher = Watcher(blind, workplace(store, street))

    street.ask(200)

    assert look(watcher).canary is not None
    assert kinds(store) == ["staged"]


def test_of_two_watchers_one_acts_until_it_is_silent(store: SQLiteStore, street: Street) -> None:
    helm = installed(store, street, BETTER)
    store.put_policy(WORSE)
    first = Watcher(street.task, workplace(store, street, "one"))
    second = Watcher(street.task, workplace(store, street, "two"))
    look(first)
    helm.stage(WORSE.id, "shadow", 0.5, "5eed", "r" * 64)
    street.ask(50)

    assert look(second).canary is not None
    street.clock.now += 3600.0

    assert look(second).canary is None


def test_a_paused_task_learns_nothing_and_is_still_protected(store: SQLiteStore, street: Street) -> None:
    helm = installed(store, street, BETTER)
    helm.pause()
    store.put_policy(WORSE)
    street.ask(60)
    watcher = Watcher(street.task, workplace(store, street))

    look(watcher)
    assert store.runs() == []
    helm.force(WORSE.id, "5eed", 0.2)
    for _ in range(12):
        street.ask(20)
        look(watcher)

    assert store.champion("sums") == BETTER.id


def test_a_watcher_that_died_reads_the_evidence_again_and_finds_the_same(store: SQLiteStore, street: Street) -> None:
    helm = installed(store, street, BETTER)
    twin = structs.replace(BETTER, max_tokens=200)
    store.put_policy(twin)
    helm.stage(twin.id, "shadow", 0.5, "5eed", "r" * 64)
    told: list[JsonObject] = []
    first = Watcher(street.task, workplace(store, street, "one"))
    for _ in range(3):
        street.ask(15)
        look(first)
        told.append((helm.state.canary and first._canary_watch(helm.state.canary).told) or {})
    street.clock.now += 3600.0
    second = Watcher(street.task, workplace(store, street, "two"))
    look(second)

    assert helm.state.canary is not None
    assert second._canary_watch(helm.state.canary).told == told[-1]
    assert told[-1]["quality"]["n"] > told[0]["quality"]["n"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("lever", [Helm.pause, Helm.pin])
def test_a_challenger_that_may_go_on_waits_while_a_person_holds_the_service(
    store: SQLiteStore, street: Street, lever: Callable[[Helm], Service]
) -> None:
    twin = Policy(instructions="Call the function.", format=Format(shape="schema"), max_tokens=200)
    helm = installed(store, street, BETTER)
    store.put_policy(twin)
    helm.stage(twin.id, "shadow", 0.5, "5eed", "r" * 64)
    lever(helm)
    watcher = Watcher(street.task, workplace(store, street))
    street.ask(1200)

    before = look(watcher)
    assert before.canary is not None
    assert before.canary.mode == "shadow"
    (helm.resume if lever is Helm.pause else helm.unpin)()
    after = look(watcher)
    assert after.canary is not None
    assert after.canary.mode == "canary"


@pytest.mark.slow
def test_a_run_under_way_stops_when_a_person_pauses_and_goes_on_afterwards(store: SQLiteStore, street: Street) -> None:
    helm = installed(store, street, street.task.baseline)
    street.ask(REQUESTS)
    watcher = Watcher(street.task, workplace(store, street))
    busy = []

    async def paused_and_resumed() -> None:
        await watcher.round()
        busy.append(watcher.is_busy)
        helm.pause()
        await watcher.round()
        busy.append(watcher.is_busy)
        helm.resume()
        await rounds(watcher)

    asyncio.run(paused_and_resumed())

    assert busy == [True, False]
    assert [run.finished for run in store.runs()] == [True]
    assert kinds(store) == ["paused", "resumed", "staged"]


@pytest.mark.slow
def test_evidence_against_a_champion_that_has_gone_takes_nobody_back(store: SQLiteStore, street: Street) -> None:
    helm = installed(store, street, BETTER)
    store.put_policy(WORSE)
    helm.force(WORSE.id, "5eed", 0.2)
    street.ask(600)
    other = Policy(instructions="Call the function.", format=Format(shape="schema"), max_tokens=200)
    store.set_champion("sums", other, "confirmed")

    look(Watcher(street.task, workplace(store, street)))

    assert kinds(store) == ["promoted"]
    assert store.champion("sums") == other.id


def test_the_lease_of_a_process_that_died_here_is_not_waited_for(store: SQLiteStore, street: Street) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    store.take_lease(watch_lease("sums"), f"{socket.gethostname()} {dead.pid} 00", 3600.0)
    watcher = Watcher(street.task, workplace(store, street, this_process()))

    look(watcher)

    lease = store.find_lease(watch_lease("sums"))
    assert lease is not None
    assert lease.holder.split()[1] == str(os.getpid())
    assert lease.token == 2


def test_a_holder_that_lives_or_is_elsewhere_is_not_dead() -> None:
    assert not any(map(is_dead, [this_process(), "elsewhere 1 00", "somebody", ""]))


def test_a_watcher_that_is_closed_lets_the_next_one_act_at_once(store: SQLiteStore, street: Street) -> None:
    first = Watcher(street.task, workplace(store, street, "one"))

    async def live() -> None:
        await first.round()
        await first.leave()

    asyncio.run(live())

    assert store.find_lease(watch_lease("sums")) is None


def test_learning_asks_a_server_little_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 32 calls at once in front of a server with few slots callers waited ten times as long while it learned."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")

    assert learning_model("openai:small").concurrency == AT_ONCE == 4


def test_weights_that_nobody_can_train_are_refused_before_anything_is_watched(
    store: SQLiteStore, street: Street
) -> None:
    task = replace(street.task, improving=structs.replace(street.task.improving, weights=True))

    with pytest.raises(TrainError, match="the weights of 'scripted' are not on this machine"):
        Watcher(task, workplace(store, street))


@pytest.mark.skipif(missing() is not None, reason="without the extra `train` that is what is said first")
def test_weights_that_take_more_memory_than_is_allowed_are_refused_likewise(
    store: SQLiteStore, street: Street, tmp_path: Path
) -> None:
    base = gguf_header(tmp_path / "base.gguf", "llama", 1_000_000_000)
    improving = structs.replace(street.task.improving, weights=True, train_base=base, train_memory=1.5)

    with pytest.raises(TrainError, match=r"GB of memory and 1\.5 GB are allowed"):
        Watcher(replace(street.task, improving=improving), workplace(store, street))


# --- alarms, whoever starts again


def falling(street: Street, after: int) -> ScriptedModel:
    """A model that calls rightly until so many requests have come, and never again."""

    def answer(body: JsonObject, sample: int) -> str:
        return needs_a_schema(body, sample) if street.asked <= after else "I cannot say."

    return ScriptedModel(answer)


def test_a_fall_of_quality_rings_once_however_often_the_watcher_starts_again(
    store: SQLiteStore, street: Street
) -> None:
    street.task = replace(street.task, improving=structs.replace(street.task.improving, calls_per_day=0))
    street.model = falling(street, 700)
    installed(store, street, BETTER)
    street.ask(1000)

    for start in range(3):
        look(Watcher(street.task, workplace(store, street, f"start {start}")))
        street.clock.now += 3600.0
        assert kinds(store) == ["alarm"]
    alarm = store.ledger(service_key("sums"))[0].content
    street.ask(100)
    look(Watcher(street.task, workplace(store, street, "the last one")))

    assert (alarm["about"], alarm["row"], alarm["policy"]) == ("quality", 1000, BETTER.id)
    assert kinds(store) == ["alarm"]
    standing = store.standing("sums", "hold-back")
    assert standing is not None
    assert standing.content["known"] == 100  # what is usual now is learned anew


def test_a_champion_that_came_back_is_held_against_what_it_was_before_it_left(
    store: SQLiteStore, street: Street
) -> None:
    """It had answered a hundred requests, too few to say what it was at first, and the model falls on its return."""
    street.task = replace(street.task, improving=structs.replace(street.task.improving, calls_per_day=0))
    street.model = falling(street, 250)
    helm = installed(store, street, BETTER)
    store.put_policy(WORSE)
    street.ask(100)
    helm.force(WORSE.id)
    street.ask(50)
    helm.roll_back("a person saw to it")
    watcher = Watcher(street.task, workplace(store, street))
    street.ask(100)
    look(watcher)
    assert kinds(store) == ["promoted", "rolled-back"]
    held = evidence_against(store, "sums", BETTER.id, None)
    assert held is not None
    assert (held.is_back, held.before is None) == (True, False)

    street.ask(50)
    look(watcher)

    alarm = store.ledger(service_key("sums"))[-1]
    assert (alarm.kind, alarm.content["about"], alarm.content["policy"]) == ("alarm", "quality", BETTER.id)
    assert (alarm.content["evidence"]["before of"], alarm.content["evidence"]["reference"]) == (BETTER.id, None)
    assert alarm.content["evidence"]["served"] == 150
    street.ask(50)
    look(Watcher(street.task, workplace(store, street, "another")))
    assert kinds(store)[2:] == ["alarm"]  # one fall rings once


def test_an_alarm_that_rang_before_the_watcher_died_begins_one_run(store: SQLiteStore, street: Street) -> None:
    street.task = replace(street.task, improving=structs.replace(street.task.improving, after_errors=0))
    helm = installed(store, street, street.task.baseline)
    street.ask(REQUESTS)
    helm.alarm("model", {"model": "scripted", "upto": 0.0})
    street.clock.now += 60.0

    for start in range(2):
        look(Watcher(street.task, workplace(store, street, f"start {start}")))
        street.clock.now += 3600.0
        if (state := helm.state).canary is not None:
            Helm(store, "sums", street.clock).force(state.canary.policy)  # so that another run could begin

    assert [run.spec["watch"]["why"] for run in watch_runs(store, "sums")] == ["another model answers behind the name"]


# --- what may be spent


@pytest.mark.slow
def test_a_run_that_breaks_is_charged_what_it_called_and_closed_with_it(store: SQLiteStore, street: Street) -> None:
    task = replace(street.task, improving=structs.replace(street.task.improving, probes=0))
    installed(store, street, task.baseline)
    street.ask(REQUESTS)
    model = ScriptedModel(needs_a_schema, failing=range(60, 10**9))
    watcher = Watcher(task, working(store, model, street.clock))
    for _ in range(MOST_FAILURES):
        look(watcher)
        street.clock.now += PAUSE_S

    (run,) = watch_runs(store, "sums")
    *_, why, end = read_events(store, run.run)
    assert isinstance(why, Unconfirmed)
    assert "the run broke 3 times" in why.reason
    assert isinstance(end, Finished)
    assert end.search_usage.calls == len(model.calls) > 60
    assert Budget(store, task, street.clock).left().calls == 20_000 - len(model.calls)


@pytest.mark.slow
def test_a_run_waits_while_the_day_s_calls_are_spent_and_goes_on_with_the_next_day(
    store: SQLiteStore, street: Street
) -> None:
    task = replace(street.task, improving=structs.replace(street.task.improving, probes=0))
    installed(store, street, task.baseline)
    street.ask(REQUESTS)
    model = scripted()
    watcher = Watcher(task, working(store, model, street.clock))

    async def spent_meanwhile() -> None:
        await watcher.round()
        while len(model.calls) < 20:
            await asyncio.sleep(0)
        Budget(store, task, street.clock).charge(Usage(calls=20_000))
        await rounds(watcher)

    asyncio.run(spent_meanwhile())
    asked, waits = len(model.calls), learning(store)
    look(watcher)
    street.clock.now += 26 * 3600.0

    assert (waits["state"], waits["why"], waits["calls_left"]) == ("spent", "the day's calls are spent", -asked)
    assert is_spent(store, "sums")
    assert asked == len(model.calls) < 100
    assert look(watcher).canary is not None
    assert [run.finished for run in watch_runs(store, "sums")] == [True]
    assert not is_spent(store, "sums")


def test_no_old_case_is_asked_where_nothing_is_left(store: SQLiteStore, street: Street) -> None:
    task = replace(street.task, improving=structs.replace(street.task.improving, calls_per_day=1, after_errors=0))
    installed(store, street, task.baseline)
    street.ask(20)
    model = scripted()
    watcher = Watcher(task, working(store, model, street.clock))

    for _ in range(40):
        look(watcher)
        street.clock.now += 3600.0

    (probe,) = store.probes("sums")
    assert len(model.calls) == len(probe.asked) == 2  # one a day: what was begun goes before what could be


# --- one run at a time


def test_no_run_begins_while_another_process_makes_one(store: SQLiteStore, street: Street) -> None:
    installed(store, street, street.task.baseline)
    street.ask(REQUESTS)
    watcher = Watcher(street.task, workplace(store, street))
    with open_store(store.path) as other, other.lock_run("sums"):
        look(watcher)
        waits = learning(store)
        assert watch_runs(store, "sums") == []

    assert waits["state"] == "locked"
    assert waits["why"].startswith(f"run 'sums' is under way in process {os.getpid()}; wait for it")
    assert look(watcher).canary is not None


def test_a_watcher_s_run_holds_the_task_until_it_stops(store: SQLiteStore, street: Street) -> None:
    helm = installed(store, street, street.task.baseline)
    street.ask(REQUESTS)
    watcher = Watcher(street.task, workplace(store, street))

    async def begun_and_paused() -> None:
        await watcher.round()
        with open_store(store.path) as other:
            with pytest.raises(StoreError, match="run 'sums' is under way in process"):
                other.lock_run("sums")
            helm.pause()
            await watcher.round()
            with other.lock_run("sums"):
                pass

    asyncio.run(begun_and_paused())

    assert not watcher.is_busy


# --- how things stand, for whoever looks on


def learning(store: SQLiteStore) -> JsonObject:
    return told(store, "learning")


def told(store: SQLiteStore, name: str) -> JsonObject:
    standing = store.standing("sums", name)
    assert standing is not None
    return standing.content


def test_how_a_challenger_and_the_champion_stand_is_told_as_it_changes(store: SQLiteStore, street: Street) -> None:
    helm = installed(store, street, BETTER)
    twin = structs.replace(BETTER, max_tokens=200)
    store.put_policy(twin)
    helm.force(twin.id, "5eed", 0.1)
    canary = helm.stage(BETTER.id, "shadow", 0.5, "5eed", "r" * 64).canary
    watcher = Watcher(street.task, workplace(store, street))
    assert canary is not None
    seen = []
    for _ in range(2):
        street.ask(20)
        look(watcher)
        seen.append(told(store, "canary"))

    assert [found["stage"] for found in seen] == [canary.id] * 2
    count = seen[1]["seen"]
    assert seen[0]["seen"] < count == seen[1]["evidence"]["quality"]["n"]
    assert (seen[1]["verdict"], seen[1]["why"]) == ("hold", f"{count} comparisons in this stage, too few or undecided")
    holdback, state = told(store, "hold-back"), helm.state
    assert state.holdback is not None
    assert (holdback["champion"], holdback["stage"]) == (twin.id, state.holdback.id)
    assert holdback["compared"] == 4
    assert {name: holdback[name] for name in watcher._holdback_watch(state).told} == watcher._holdback_watch(state).told
    assert learning(store)["state"] == "ramping"


def test_what_has_not_changed_is_not_written_again(store: SQLiteStore, street: Street) -> None:
    street.task = replace(street.task, improving=structs.replace(street.task.improving, probes=0))
    installed(store, street, street.task.baseline)
    street.ask(30)
    watcher = Watcher(street.task, workplace(store, street))
    look(watcher)
    names = ("hold-back", "learning", "budget")
    before = [store.standing("sums", name) for name in names]
    street.clock.now += 2.0
    look(watcher)

    assert None not in before
    assert [store.standing("sums", name) for name in names] == before


def test_what_learning_waits_for_is_said_in_words(store: SQLiteStore, street: Street) -> None:
    helm = installed(store, street, street.task.baseline)
    watcher = Watcher(street.task, workplace(store, street))
    street.ask(30)
    look(watcher)
    cases = learning(store)
    helm.pause()
    look(watcher)
    paused = learning(store)
    helm.pin()
    helm.resume()
    look(watcher)

    assert cases["state"] == "cases"
    assert " dev cases and " in cases["why"]
    assert (cases["calls_left"], cases["usd_left"]) == (20_000, None)
    assert paused["calls_left"] == 20_000 - 1  # an old case was asked meanwhile
    assert (paused["state"], paused["why"]) == ("paused", "learning is paused")
    assert learning(store)["state"] == "pinned"


# --- once


def once(watcher: Watcher) -> None:
    """Do all that is due, and end."""

    async def begun() -> None:
        watched, place = {watcher.task.name: watcher}, watcher._place
        await process.rounds([watcher.task], place, watched, asyncio.Event(), once=True)
        await watcher.leave()

    asyncio.run(begun())


def test_once_takes_in_a_backlog_in_steps_between_which_what_is_bad_is_taken_back(
    store: SQLiteStore, street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "EXCHANGES_A_ROUND", 500)
    monkeypatch.setattr(process, "ROUND_S", 3600.0)  # it would not end if it waited for the next round
    task = replace(street.task, improving=structs.replace(street.task.improving, calls_per_day=0))
    helm = installed(store, street, BETTER)
    store.put_policy(WORSE)
    helm.force(WORSE.id, "5eed", 0.1)
    street.ask(2700)
    taken_back = []

    class Stepping(Watcher):
        async def round(self) -> None:
            await super().round()
            taken_back.append((sum(tally.requests for tally in store.tallies("sums")), store.champion("sums")))

    once(Stepping(task, workplace(store, street)))

    assert taken_back == [(taken, BETTER.id) for taken in (500, 1000, 1500, 2000, 2500, 2700)]


def test_once_takes_in_all_asks_what_is_due_sees_a_run_through_and_ends(
    store: SQLiteStore, street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "EXCHANGES_A_ROUND", 500)
    monkeypatch.setattr(process, "ROUND_S", 3600.0)  # it would not end if it waited for the next round
    installed(store, street, street.task.baseline)
    street.ask(1200)

    def live() -> None:
        once(Watcher(street.task, workplace(store, street)))

    live()
    assert sum(tally.requests for tally in store.tallies("sums")) == 1200
    assert [run.finished for run in watch_runs(store, "sums")] == [True]
    assert kinds(store) == ["staged"]
    for _ in range(5):
        street.clock.now += 600.0
        live()
    street.clock.now += 86_400.0
    live()

    answers = [len(probe.answers) for probe in store.probes("sums")]
    assert answers == [2] * 6 + [1]  # all that were due were asked again, more than one round's share
