"""A caller's own task: answered, kept, learned from, brought in and forgotten apart from all others."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientSession
from serving import QUIET, Proxy, serving
from street import Clock, working
from test_proxy_chat import USER, detector, echo, opened, stubborn, talk
from test_proxy_metrics import figures
from worlds import case, scripted, sums

from gainful import checks
from gainful.core import Demo, Exchange, Policy, Proposal, ServeError, StoreError, TaskError, canonical
from gainful.loop.events import Proposed
from gainful.models import ScriptedModel
from gainful.proxy.keys import make_key
from gainful.proxy.own_tasks import OwnTasks
from gainful.proxy.service import Watch
from gainful.report.service import history
from gainful.store import Banked, SQLiteStore, Store, open_store
from gainful.tasks import Task
from gainful.tasks.serving import Serving
from gainful.tasks.split import content
from gainful.watch.forget import forget
from gainful.watch.own_tasks import learned_for, own_tasks
from gainful.watch.process import rounds, with_own
from gainful.watch.service import BEGUN, Helm, next_seed, read_service, service_key, settle
from gainful.watch.status import read_status
from gainful.watch.watcher import Watcher

pytestmark = pytest.mark.slow  # a server, or a run, each

KEYED = msgspec.structs.replace(QUIET, require_keys=True)
SHARED = Policy(instructions="Answer as all are answered.")
BETTER = Policy(instructions="Answer better.")
WORSE = Policy(instructions="Answer worse.")
PLAIN = Policy(instructions="Answer plainly.")


def tick() -> float:
    return 5.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "store.db") as store:
        yield store


def let_in(place: Path, name: str, *, own_task: bool = False) -> dict[str, str]:
    """Add a key; return the headers of its requests."""
    secret, key = make_key(name, own_task=own_task)
    with open_store(place) as store:
        store.put_key(key)
    return {"Authorization": f"Bearer {secret}"}


def kept(place: Path, task: str) -> Counter[str]:
    """How many exchanges of each key are kept under *task*."""
    with open_store(place) as store:
        return Counter(exchange.key for exchange in store.exchanges(task, limit=10_000))


# --- names


@pytest.mark.parametrize("name", ["talk@clinic", "@", "talk@"])
def test_a_task_of_all_callers_cannot_be_called_like_somebodys_own(name: str) -> None:
    with pytest.raises(TaskError, match="holds '@', which marks callers' own tasks"):
        replace(talk(), name=name)


def test_a_key_may_be_called_by_an_address_and_its_task_is_still_its_own() -> None:
    own = talk().of("ann@clinic.org")

    assert (own.name, own.owner) == ("talk@ann@clinic.org", "ann@clinic.org")


def test_what_one_caller_alone_says_is_learned_for_it_though_not_for_all() -> None:
    task = replace(talk(), improving=msgspec.structs.replace(talk().improving, apart=True))

    assert not task.of("clinic").improving.apart


def test_a_key_is_not_both_learned_from_for_itself_and_not_at_all() -> None:
    with pytest.raises(ServeError, match=r"cannot have both --own-data.* and --own-task"):
        make_key("clinic", own_data=True, own_task=True)


# --- what it begins with


def test_it_begins_with_the_champion_of_all_and_goes_its_own_way_from_there(store: SQLiteStore) -> None:
    task = talk()
    settle(store, task)
    store.set_champion("talk", SHARED, "confirmed")
    settle(store, task.of("clinic"), tick)
    store.set_champion("talk", BETTER, "confirmed")
    settle(store, task.of("clinic"), tick)

    status = read_status(store, "talk@clinic")
    assert (status.champion, status.former, status.came) == (SHARED.id, task.baseline.id, "begun")
    assert status.void == BEGUN
    (line,) = history(
        store.ledger(service_key("talk@clinic")),
        store.champion_history("talk@clinic"),
        store.champion_times("talk@clinic"),
    )
    assert "the champion of all callers when this one's own task began" in line.what


def test_while_all_are_answered_under_the_tasks_own_policy_it_begins_with_that(store: SQLiteStore) -> None:
    settle(store, talk())
    settle(store, talk().of("clinic"), tick)
    store.set_champion("talk", SHARED, "confirmed")
    settle(store, talk().of("clinic"), tick)

    assert store.champion("talk@clinic") == talk().baseline.id
    assert store.ledger(service_key("talk@clinic")) == []
    settle(store, replace(talk(), baseline=PLAIN).of("clinic"), tick)  # the task file was edited
    assert store.champion("talk@clinic") == PLAIN.id


def test_of_two_processes_that_begin_it_one_does(store: SQLiteStore) -> None:
    task = talk()
    store.set_champion("talk", SHARED, "confirmed")
    settle(store, task.of("clinic"), tick)

    with pytest.raises(StoreError, match="it has begun"):
        Helm(store, "talk@clinic", tick).begin(SHARED.id, task.baseline.id)
    assert len(store.ledger(service_key("talk@clinic"))) == 1


def test_what_it_began_with_can_be_taken_back_to_the_tasks_own_policy(store: SQLiteStore) -> None:
    store.set_champion("talk", SHARED, "confirmed")
    store.put_policy(BETTER)
    settle(store, talk().of("clinic"), tick)
    helm = Helm(store, "talk@clinic", tick)

    helm.force(BETTER.id)
    helm.roll_back("a person asked for it", to=talk().baseline.id)

    assert store.champion("talk@clinic") == talk().baseline.id


# --- served


async def test_a_key_with_its_own_task_is_answered_and_kept_under_it_and_nobody_else_is(tmp_path: Path) -> None:
    place = tmp_path / "store.db"
    ann, clinic = let_in(place, "ann"), let_in(place, "clinic", own_task=True)
    async with serving(talk(), ScriptedModel(echo), place, KEYED) as proxy:
        for headers in (ann, clinic, clinic):
            assert (await proxy.ask({"messages": [USER]}, headers))[0] == 200
        code, _, _ = await proxy.ask({"model": "gainful/talk@clinic", "messages": [USER]}, ann)
        async with proxy.http.get(f"{proxy.url}/v1/models", headers=clinic) as response:
            listed = [model["id"] for model in (await response.json())["data"]]
        async with proxy.http.get(f"{proxy.url}/metrics", headers=ann) as response:
            page = await response.read()

    assert kept(place, "talk") == {"ann": 1}
    assert kept(place, "talk@clinic") == {"clinic": 2}
    assert code == 404
    assert listed == ["gainful/talk"]
    assert figures(page)["requests_total{status=200,task=talk}"] >= 3
    assert b"clinic" not in page


async def test_a_stage_of_its_own_seats_its_requests_alone(tmp_path: Path) -> None:
    place = tmp_path / "store.db"
    ann, clinic = let_in(place, "ann"), let_in(place, "clinic", own_task=True)
    with open_store(place) as store:
        store.put_policy(BETTER)
        settle(store, talk().of("clinic"))
        Helm(store, "talk@clinic", time.time).stage(BETTER.id, "canary", 0.5, "5eed", "registration")
    async with serving(talk(), ScriptedModel(echo), place, KEYED) as proxy:
        told = {}
        for name, headers in (("ann", ann), ("clinic", clinic)):
            replies = [await proxy.ask({"messages": [USER]}, headers) for _ in range(6)]
            told[name] = Counter(headers["x-gainful-policy"] for _, _, headers in replies)

    assert told["ann"] == {talk().baseline.id: 6}
    assert told["clinic"] == {talk().baseline.id: 3, BETTER.id: 3}


async def test_a_key_that_is_added_while_the_server_runs_has_its_own_task_from_its_first_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gainful.proxy.keys.LOOK_S", 0.02)
    place = tmp_path / "store.db"
    async with serving(talk(), ScriptedModel(echo), place, KEYED) as proxy, asyncio.timeout(20):
        clinic = let_in(place, "clinic", own_task=True)
        while (await proxy.ask({"messages": [USER]}, clinic))[0] == 401:  # another thread reads the keys
            pass

    assert kept(place, "talk") == {}
    assert kept(place, "talk@clinic") == {"clinic": 1}


async def test_a_move_of_its_own_is_in_service_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gainful.proxy.service.LOOK_S", 0.02)
    place = tmp_path / "store.db"
    clinic = let_in(place, "clinic", own_task=True)
    async with serving(talk(), ScriptedModel(echo), place, KEYED) as proxy, asyncio.timeout(20):
        await proxy.ask({"messages": [USER]}, clinic)
        with open_store(place) as store:
            store.put_policy(BETTER)
            Helm(store, "talk@clinic", time.time).force(BETTER.id)
        while (await proxy.ask({"messages": [USER]}, clinic))[2]["x-gainful-policy"] != BETTER.id:
            pass  # another thread reads the ledger


async def test_what_was_asked_for_before_is_in_service_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "store.db"
    clinic = let_in(place, "clinic", own_task=True)
    with open_store(place) as store:
        store.put_policy(BETTER)
        settle(store, talk().of("clinic"))
        Helm(store, "talk@clinic", time.time).force(BETTER.id)
    async with serving(talk(), ScriptedModel(echo), place, KEYED) as proxy:
        monkeypatch.setattr(proxy.desk.own_tasks, "_opened", broken)
        _, _, told = await proxy.ask({"messages": [USER]}, clinic)

    assert told["x-gainful-policy"] == BETTER.id


def broken() -> Store:
    raise StoreError("the disk is gone")


async def test_while_the_store_cannot_be_read_it_is_answered_like_all_under_its_own_name(tmp_path: Path) -> None:
    with open_store(tmp_path / "s") as store:
        settle(store, talk())
        store.set_champion("talk", SHARED, "confirmed")
    async with serving(talk(), ScriptedModel(echo), tmp_path / "s") as proxy:
        shared = proxy.desk.services["gainful/talk"]
        service = await OwnTasks(Watch([], broken), broken).service(shared, make_key("clinic", own_task=True)[1])
        placed = service.now.place()
        watch = Watch([service], proxy.desk.opened)
        await watch.look()  # the disk is back, and nobody has begun the task yet
        await watch.close()

    assert service.now.champion.policy == SHARED
    assert (service.task.name, placed.served.task.name) == ("talk@clinic", "talk@clinic")
    assert placed.served.policy == SHARED


@pytest.mark.slow
async def test_its_replies_are_corrected_by_what_was_shown_to_pay_for_all(tmp_path: Path) -> None:
    place = tmp_path / "store.db"
    clinic = let_in(place, "clinic", own_task=True)
    task = talk(checks.Regex(pattern=r"\d+"), serving=Serving(methods=("refine",)))
    with open_store(place) as store:
        store.put_trials(opened("talk", "scripted", "refine"))
        store.put_detector("talk", "scripted", detector(Policy()))
    async with serving(task, ScriptedModel(stubborn), place, KEYED) as proxy:
        _, _, headers = await proxy.ask({"messages": [USER]}, clinic)

    assert headers["x-gainful-verdict"] == "corrected"
    assert kept(place, "talk@clinic") == {"clinic": 1}


async def test_only_its_own_key_may_judge_its_replies_where_no_key_is_asked_for_too(tmp_path: Path) -> None:
    place = tmp_path / "store.db"
    ann, clinic = let_in(place, "ann"), let_in(place, "clinic", own_task=True)
    async with serving(talk(), ScriptedModel(echo), place) as proxy:
        replies = {}
        for name, headers in (("nobody", {}), ("ann", ann), ("clinic", clinic)):
            _, _, told = await proxy.ask({"messages": [USER]}, headers)
            replies[name] = told["x-gainful-id"]

        async def judged(reply: str, headers: dict[str, str]) -> int:
            told = {"id": replies[reply], "score": 0.0}
            async with proxy.http.post(f"{proxy.url}/v1/feedback", json=told, headers=headers) as response:
                return response.status

        assert [await judged("clinic", headers) for headers in ({}, ann, clinic)] == [404, 404, 200]
        assert [await judged("ann", headers) for headers in ({}, ann, clinic)] == [200, 200, 404]


async def names(http: ClientSession, proxy: Proxy, headers: dict[str, str]) -> list[str]:
    async with http.get(f"{proxy.url}/dashboard/tasks", headers=headers) as response:
        return list(await response.json())


async def test_the_dashboard_shows_own_tasks_to_the_operator_and_not_to_whoever_has_a_key(tmp_path: Path) -> None:
    place = tmp_path / "store.db"
    ann, clinic = let_in(place, "ann"), let_in(place, "clinic", own_task=True)
    async with serving(talk(), ScriptedModel(echo), place) as proxy:
        await proxy.ask({"messages": [USER]}, clinic)
        shown = await names(proxy.http, proxy, {})
        async with proxy.http.get(f"{proxy.url}/dashboard/data/talk@clinic") as response:
            assert response.status == 200
    async with serving(talk(), ScriptedModel(echo), place, KEYED) as proxy:
        shown_to_ann = await names(proxy.http, proxy, ann)

    assert shown == ["talk", "talk@clinic"]
    assert shown_to_ann == ["talk"]


# --- watched


def put_in(store: SQLiteStore, name: str, *, own_task: bool = False) -> None:
    store.put_key(make_key(name, own_task=own_task)[1])


def test_own_tasks_are_those_of_valid_keys_that_have_asked(store: SQLiteStore) -> None:
    for name in ("clinic", "bank", "shop"):
        put_in(store, name, own_task=True)
    put_in(store, "ann")
    for name in ("clinic", "bank"):
        settle(store, talk().of(name), tick)
    store.revoke_key("bank")

    assert [task.name for task in own_tasks(store, [talk(), sums()])] == ["talk@clinic"]


async def test_a_watcher_takes_own_tasks_on_as_keys_come_and_leaves_them_as_keys_go(store: SQLiteStore) -> None:
    place = working(store, scripted(), Clock())
    watchers = {"sums": Watcher(sums(), place)}
    put_in(store, "clinic", own_task=True)
    settle(store, sums().of("clinic"), tick)

    await with_own(watchers, [sums()], place)
    first = watchers["sums@clinic"]
    await with_own(watchers, [sums()], place)
    assert watchers["sums@clinic"] is first
    await first.round()
    store.revoke_key("clinic")
    await with_own(watchers, [sums()], place)

    assert list(watchers) == ["sums"]
    assert read_status(store, "sums@clinic").watcher is None


async def test_what_is_asked_of_own_tasks_is_taken_in_beside_the_rest(store: SQLiteStore) -> None:
    place = working(store, scripted(), Clock())
    put_in(store, "clinic", own_task=True)
    for name in ("sums", "sums@clinic"):
        request = {"messages": list(case(1).messages)}
        store.put_exchanges([Exchange("reply", 1.0, name, "", "scripted", "unverified", key=name, request=request)])

    watchers: dict[str, Watcher] = {}
    await rounds([sums()], place, watchers, asyncio.Event(), once=True)
    for watcher in watchers.values():
        await watcher.leave()

    assert [read_status(store, name).taken_in for name in ("sums", "sums@clinic")] == [1, 1]


# --- forgotten


def learned(store: SQLiteStore, run: str, task: str, *policies: Policy) -> None:
    """Enter a run on *task* that has found *policies*."""
    store.start_run(run, task, {"task": task})
    for place, policy in enumerate(policies):
        store.put_policy(policy)
        store.append_event(run, place, canonical(Proposed(0, f"c{place}", Proposal(policy, "instructions", "-"))))


def forget_clinic(store: SQLiteStore) -> tuple[str, ...]:
    return forget(store, "clinic", store.tasks(), store.path.parent / "receipts", tick).taken_back


def is_forgotten(store: SQLiteStore, policy: Policy) -> bool:
    try:
        store.policy(policy.id)
    except StoreError:
        return True
    return False


@pytest.mark.usefixtures("apart")
def test_what_its_own_task_has_learned_goes_with_its_caller_and_what_it_began_with_answers(store: SQLiteStore) -> None:
    put_in(store, "clinic", own_task=True)
    learned(store, "all", "talk", PLAIN)
    store.set_champion("talk", SHARED, "by hand")
    settle(store, talk().of("clinic"), tick)
    learned(store, "own", "talk@clinic", BETTER, SHARED, WORSE, PLAIN, talk().baseline)
    Helm(store, "talk@clinic", tick).force(BETTER.id)

    assert forget_clinic(store) == ("talk@clinic",)

    assert store.champion("talk@clinic") == store.champion("talk") == SHARED.id
    assert [is_forgotten(store, policy) for policy in (BETTER, WORSE)] == [True, True]
    assert [is_forgotten(store, policy) for policy in (SHARED, PLAIN, talk().baseline)] == [False, False, False]
    assert forget_clinic(store) == ()


@pytest.mark.usefixtures("apart")
def test_where_what_it_began_with_was_forgotten_the_tasks_own_policy_answers(store: SQLiteStore) -> None:
    """First goes another caller, whose words all were answered under, then the caller whose own task it is."""
    put_in(store, "ann")
    put_in(store, "clinic", own_task=True)
    settle(store, talk())
    store.take_in("talk", "intake", 1, [of_ann()])
    shown = Policy(demos=(Demo(case=of_ann().case, value="x"),))
    store.set_champion("talk", shown, "confirmed")
    settle(store, talk().of("clinic"), tick)
    learned(store, "own", "talk@clinic", BETTER)
    Helm(store, "talk@clinic", tick).force(BETTER.id)

    assert forget(store, "ann", store.tasks(), store.path.parent, tick).taken_back == ("talk",)
    assert forget_clinic(store) == ("talk@clinic",)

    assert is_forgotten(store, shown)
    assert store.champion("talk@clinic") == talk().baseline.id


@pytest.mark.usefixtures("apart")
def test_what_it_began_with_makes_room_where_it_shows_words_of_another_who_is_forgotten(store: SQLiteStore) -> None:
    put_in(store, "ann")
    settle(store, talk())
    store.take_in("talk", "intake", 1, [of_ann()])
    store.set_champion("talk", Policy(demos=(Demo(case=of_ann().case, value="x"),)), "confirmed")
    settle(store, talk().of("clinic"), tick)

    assert forget(store, "ann", store.tasks(), store.path.parent, tick).taken_back == ("talk", "talk@clinic")

    assert store.champion("talk@clinic") == talk().baseline.id


def of_ann() -> Banked:
    return Banked(id=content(case(1)), case=case(1), side="dev", at=1.0, last_at=1.0, key="ann")


@pytest.mark.usefixtures("apart")
def test_a_challenger_of_its_own_goes_with_its_caller_though_it_shows_no_words(store: SQLiteStore) -> None:
    put_in(store, "clinic", own_task=True)
    settle(store, talk().of("clinic"), tick)
    learned(store, "own", "talk@clinic", BETTER)
    helm = Helm(store, "talk@clinic", tick)
    helm.stage(BETTER.id, "canary", 0.5, "5eed", "registration")

    assert forget_clinic(store) == ()

    assert helm.state.canary is None
    assert is_forgotten(store, BETTER)


def test_nothing_was_learned_for_callers_without_a_key(store: SQLiteStore) -> None:
    learned(store, "all", "talk", BETTER)

    assert learned_for(store, "") == frozenset()


# --- learned, end to end


def quickly(task: Task) -> Task:
    return replace(task, improving=msgspec.structs.replace(task.improving, shadow=0.0, ramp=(0.5,), probes=0))


async def asked(proxy: Proxy, numbers: range, headers: dict[str, str]) -> list[str]:
    """Ask for sums, twenty at once; return the policies that answered."""
    found = []
    for first in range(numbers.start, numbers.stop, 20):
        bodies = [
            {"messages": list(case(number).messages), "tools": list(case(number).tools)}
            for number in numbers
            if first <= number < first + 20
        ]
        found += await asyncio.gather(*(proxy.ask(body, headers) for body in bodies))
    assert {code for code, _, _ in found} == {200}
    return [told["x-gainful-policy"] for _, _, told in found]


async def until_staged(watcher: Watcher, store: Store) -> str:
    async with asyncio.timeout(60):
        while (canary := read_service(store, watcher.task.name).canary) is None:
            await watcher.round()
            await asyncio.sleep(0.02)  # its run goes on
    return canary.policy


@pytest.mark.slow
async def test_what_one_callers_words_teach_answers_that_caller_alone(tmp_path: Path) -> None:
    place, clock = tmp_path / "store.db", Clock()
    ann, clinic = let_in(place, "ann"), let_in(place, "clinic", own_task=True)
    task = quickly(sums())
    async with serving(task, scripted(), place, KEYED) as proxy:
        await asked(proxy, range(400), clinic)
        await asked(proxy, range(1000, 1040), ann)
        with SQLiteStore(place) as store:
            workplace = working(store, scripted(), clock)
            watchers = {"sums": Watcher(task, workplace)}
            await with_own(watchers, [task], workplace)
            challenger = await until_staged(watchers["sums@clinic"], store)
            await watchers["sums"].round()
            helm = Helm(store, "sums@clinic", clock)
            helm.promote(next_seed("sums@clinic", helm.state), 0.0)
            for watcher in watchers.values():
                await watcher.leave()
            runs = [run.task for run in store.runs()]
            banks = {
                name: {one.key for side in ("dev", "held-out") for one in store.banked(name, side, limit=1000)}
                for name in watchers
            }
            champions = {name: store.champion(name) for name in watchers}
        own = await proxy.desk.own_tasks.service(proxy.desk.services[proxy.model], make_key("clinic", own_task=True)[1])
        await Watch([own, *proxy.desk.services.values()], proxy.desk.opened).look()
        policies = {
            "clinic": set(await asked(proxy, range(400, 410), clinic)),
            "ann": set(await asked(proxy, range(1040, 1050), ann)),
        }

    assert runs == ["sums@clinic"]
    assert banks == {"sums": {"ann"}, "sums@clinic": {"clinic"}}
    assert champions == {"sums": task.baseline.id, "sums@clinic": challenger}
    assert policies == {"clinic": {challenger}, "ann": {task.baseline.id}}
    assert challenger != task.baseline.id
