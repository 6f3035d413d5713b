"""Who answers while stages are on, as callers and the store see it: real sockets, a real store, the scripted model."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from serving import QUIET, Proxy, serving
from test_proxy_chat import MODES, USER, detector, echo, opened, stubborn, talk
from test_proxy_metrics import figures

from gainful import checks
from gainful.core import Case, Exchange, JsonObject, ModelError, Policy, Reply, Seat, Text
from gainful.models import ScriptedModel
from gainful.models.scripted import Script
from gainful.proxy.desk import ERRORS, ERRORS_PER_MINUTE
from gainful.proxy.service import Watch
from gainful.store import Store, open_store
from gainful.tasks import Task, divide, make_task
from gainful.tasks.serving import Serving
from gainful.watch.service import Helm, read_service, service_key

CHAMPION = Policy()
CHALLENGER = Policy(instructions="Be brief.")
FORMER = Policy(instructions="Be old.")
SEEDS = ("aa" * 32, "bb" * 32)


def unjudged() -> Task:
    """A task of plain talk that only an answer key could judge."""
    cases = [Case(messages=({"role": "user", "content": f"Say {n}."},), target=str(n)) for n in range(20)]
    return make_task("talk", divide(cases), Text(), (checks.Exact(),), baseline=CHAMPION)


def helm(store: Store) -> Helm:
    return Helm(store, "talk", time.time)


def staged(
    place: Path, share: float = 0.5, holdback: float = 0.0, mode: Literal["canary", "shadow"] = "canary"
) -> Path:
    """Make a store in which a stage of the challenger is on, and perhaps the hold-back."""
    with open_store(place) as store:
        store.put_policy(CHALLENGER)
        store.set_champion("talk", FORMER, "by hand")
        store.put_policy(CHAMPION)
        helm(store).force(CHAMPION.id, SEEDS[0], holdback)
        helm(store).stage(CHALLENGER.id, mode, share, SEEDS[1], "registration")
    return place


async def asked(proxy: Proxy, count: int, body: JsonObject | None = None) -> list[tuple[int, JsonObject, Any]]:
    """Ask *count* times, ten at once."""
    found = []
    for first in range(0, count, 10):
        asking = [proxy.ask(body or {"messages": [USER]}) for _ in range(min(10, count - first))]
        found += await asyncio.gather(*asking)
    return found


def stored(proxy: Proxy) -> list[Exchange]:
    with open_store(proxy.place) as store:
        return store.exchanges("talk", limit=10_000)


def seat_of(exchange: Exchange) -> Seat:
    assert exchange.seat is not None
    return exchange.seat


def blocks(found: Sequence[Exchange], size: int) -> list[list[str]]:
    """The arms of each block that is whole."""
    arms: dict[tuple[str, int], list[str]] = defaultdict(list)
    for seat in map(seat_of, found):
        arms[seat.lane, seat.number // size].append(seat.arm)
    return [block for block in arms.values() if len(block) == size]


# --- who answers


async def test_shares_are_as_promised_and_blocks_come_together_again(tmp_path: Path) -> None:
    async with serving(unjudged(), ScriptedModel(echo), staged(tmp_path / "s", 0.2, holdback=0.1)) as proxy:
        replies = await asked(proxy, 100)
        found = stored(proxy)

    canary, holdback = blocks(found, 5), blocks(found, 10)
    assert [code for code, _, _ in replies] == [200] * 100
    assert [block.count("former") for block in holdback] == [1] * 10
    assert len(canary) == 20
    assert all(block.count("challenger") == 1 or "former" in block for block in canary)
    assert all(block.count("challenger") <= 1 for block in canary)
    policies = {"champion": CHAMPION.id, "challenger": CHALLENGER.id, "former": FORMER.id}
    by_name = {exchange.id: exchange for exchange in found}
    for _, _, headers in replies:
        exchange = by_name[headers["x-gainful-id"]]
        assert headers["x-gainful-policy"] == exchange.policy == policies[seat_of(exchange).arm]


@pytest.mark.parametrize("mode", MODES)
async def test_a_stream_is_the_arms_own_in_every_mode(tmp_path: Path, mode: Any) -> None:
    settings = msgspec.structs.replace(QUIET, stream=mode)
    async with serving(unjudged(), ScriptedModel(told), staged(tmp_path / "s"), settings) as proxy:
        streams = [await proxy.streamed({"messages": [USER]}) for _ in range(6)]
        found = stored(proxy)

    assert Counter("Be brief." in stream for stream in streams) == {True: 3, False: 3}
    assert Counter((seat_of(e).arm, e.policy) for e in found) == {
        ("champion", CHAMPION.id): 3,
        ("challenger", CHALLENGER.id): 3,
    }


def told(body: JsonObject, sample: int) -> str:
    """Say what the policy said."""
    return " ".join(str(message["content"]) for message in body["messages"])


async def test_workers_number_in_lanes_of_their_own(tmp_path: Path) -> None:
    place = staged(tmp_path / "s")
    async with (
        serving(unjudged(), ScriptedModel(echo), place) as one,
        serving(unjudged(), ScriptedModel(echo), place) as other,
    ):
        await asyncio.gather(asked(one, 20), asked(other, 20))
        found = stored(one)

    numbers: dict[str, set[int]] = defaultdict(set)
    for seat in map(seat_of, found):
        numbers[seat.lane].add(seat.number)
    assert list(numbers.values()) == [set(range(20))] * 2
    assert [block.count("challenger") for block in blocks(found, 2)] == [1] * 20


async def test_nothing_is_compared_where_no_stage_is_on(tmp_path: Path) -> None:
    async with serving(unjudged(), ScriptedModel(echo), tmp_path / "s") as proxy:
        await asked(proxy, 3)

        assert [exchange.seat for exchange in stored(proxy)] == [None] * 3


async def test_a_stage_seats_nobody_once_the_pointer_moved_otherwise(tmp_path: Path) -> None:
    with open_store(staged(tmp_path / "s")) as store:
        store.set_champion("talk", FORMER, "by hand")
    async with serving(unjudged(), ScriptedModel(echo), tmp_path / "s") as proxy:
        await asked(proxy, 4)

        assert [(e.seat, e.policy) for e in stored(proxy)] == [(None, FORMER.id)] * 4


async def test_a_pause_leaves_the_stage_on(tmp_path: Path) -> None:
    with open_store(staged(tmp_path / "s")) as store:
        helm(store).pause()
    async with serving(unjudged(), ScriptedModel(echo), tmp_path / "s") as proxy:
        await asked(proxy, 4)

        assert Counter(seat_of(e).arm for e in stored(proxy)) == {"champion": 2, "challenger": 2}


@pytest.mark.parametrize("is_line_broken", [True, False])
async def test_what_cannot_be_read_leaves_the_champion_alone(tmp_path: Path, is_line_broken: bool) -> None:
    """A line that says nothing, and a stage whose policy was forgotten."""
    with open_store(staged(tmp_path / "s")) as store:
        helm(store).reject("to begin another")
        if is_line_broken:
            store.append_ledger(service_key("talk"), "staged", {})
        else:
            carrier = Policy(max_tokens=1)
            store.put_policy(carrier)
            helm(store).stage(carrier.id, "canary", 0.5, SEEDS[1], "registration")
            store.forget_key("ann", [carrier.id])
    async with serving(unjudged(), ScriptedModel(echo), tmp_path / "s") as proxy:
        (reply,) = await asked(proxy, 1)

        assert reply[0] == 200
        assert [(e.seat, e.policy) for e in stored(proxy)] == [(None, CHAMPION.id)]


@pytest.mark.slow
async def test_detector_and_rule_serve_the_policy_they_are_of(tmp_path: Path) -> None:
    task = talk(checks.Regex(pattern=r"\d+"), serving=Serving(methods=("refine",)))
    with open_store(staged(tmp_path / "s")) as store:
        store.put_trials(opened("talk", "scripted", "refine"))
        store.put_detector("talk", "scripted", detector(CHAMPION))
    async with serving(task, ScriptedModel(doubting), tmp_path / "s") as proxy:
        await asked(proxy, 10)
        found = stored(proxy)

    assert Counter((seat_of(e).arm, e.verdict, e.p_wrong is None) for e in found) == {
        ("champion", "corrected", False): 5,
        ("challenger", "unverified", True): 5,
    }


def doubting(body: JsonObject, sample: int) -> str:
    """Like ``stubborn``, whatever the policy says first."""
    return stubborn({**body, "messages": [m for m in body["messages"] if m["role"] != "system"]}, sample)


# --- another state of the service


async def test_numbers_go_on_until_the_state_changes(tmp_path: Path) -> None:
    place = staged(tmp_path / "s")
    async with serving(unjudged(), ScriptedModel(echo), place) as proxy:
        watch = Watch(list(proxy.desk.services.values()), proxy.desk.opened)
        with open_store(place) as store:
            for is_paused in (False, True, False):
                if is_paused:
                    helm(store).pause()
                await watch.look(evidence=not is_paused)  # the quick look finds the new line
                await asked(proxy, 3)
        await watch.close()
        found = [seat_of(exchange) for exchange in reversed(stored(proxy))]

    first, second = dict.fromkeys(seat.lane for seat in found)
    assert sorted(seat.number for seat in found if seat.lane == first) == list(range(3))
    assert sorted(seat.number for seat in found if seat.lane == second) == list(range(6))


@pytest.mark.slow
async def test_a_roll_back_under_way_loses_no_request(tmp_path: Path) -> None:
    """The challenger is put into service and taken back while callers ask without a pause."""
    place, codes, seen = staged(tmp_path / "s"), Counter[int](), list[tuple[float, str]]()
    loop = asyncio.get_running_loop()
    is_over = asyncio.Event()

    async def calling(proxy: Proxy) -> None:
        while not is_over.is_set():
            code, _, headers = await proxy.ask({"messages": [USER]})
            codes[code] += 1
            seen.append((loop.time(), headers["x-gainful-policy"]))

    async with serving(unjudged(), ScriptedModel(echo, delay_s=0.02), place) as proxy, asyncio.TaskGroup() as callers:
        for _ in range(4):
            callers.create_task(calling(proxy))
        with open_store(place) as store:
            await asyncio.sleep(0.3)
            helm(store).promote(SEEDS[0], 0.1)
            await asyncio.sleep(1.5)
            promoted_s = loop.time()
            await asyncio.sleep(0.5)
            helm(store).roll_back("harm")
            rolled_back_s = loop.time()
            await asyncio.sleep(1.5)
            settled_s = loop.time()
            await asyncio.sleep(0.3)
            is_over.set()
            head = read_service(store, "talk").head
    found = stored(proxy)

    between = Counter(policy for at_s, policy in seen if promoted_s < at_s < rolled_back_s)
    assert set(codes) == {200}
    assert between[CHALLENGER.id] > 8 * between[CHAMPION.id] > 0
    assert {policy for at_s, policy in seen if at_s > settled_s} == {CHAMPION.id}
    assert len(found) == sum(codes.values())
    lanes: dict[str, list[int]] = defaultdict(list)
    for exchange in found:
        if exchange.seat is not None:
            lanes[exchange.seat.lane].append(exchange.seat.number)
    assert len(lanes) == 2  # the canary's and the hold-back's; after the roll-back nothing is compared
    assert all(sorted(numbers) == list(range(len(numbers))) for numbers in lanes.values())
    assert proxy.desk.services["gainful/talk"].now.head == head


# --- errors


def failing_challenger(body: JsonObject, sample: int) -> str:
    if body["messages"][0]["role"] == "system":
        raise ModelError("down", status=500)
    return "fine"


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_an_arms_errors_are_told_and_kept_with_their_seat(tmp_path: Path, is_streamed: bool) -> None:
    async with serving(unjudged(), ScriptedModel(failing_challenger), staged(tmp_path / "s")) as proxy:
        body = {"model": proxy.model, "messages": [USER], "stream": is_streamed}
        codes = Counter[int]()
        for _ in range(8):
            async with proxy.http.post(f"{proxy.url}/v1/chat/completions", json=body) as response:
                codes[response.status] += 1
                await response.read()
        counted = figures(proxy.desk.metrics.render())
        await written(proxy, 8)
        found = stored(proxy)

    assert codes == {200: 4, 500: 4}
    errors = [e for e in found if e.status >= 400]
    assert Counter((e.status, seat_of(e).arm, e.policy, e.reply, e.verdicts) for e in errors) == {
        (500, "challenger", CHALLENGER.id, None, ()): 4
    }
    assert all(e.request == {"messages": [USER]} for e in errors)
    assert [sorted(block) for block in blocks(found, 2)] == [["challenger", "champion"]] * 4
    assert counted["seated_total{arm=challenger,outcome=error,task=talk}"] == 4
    assert counted["seated_total{arm=champion,outcome=answered,task=talk}"] == 4


async def written(proxy: Proxy, count: int) -> None:
    """Wait until the store holds *count* exchanges."""
    async with asyncio.timeout(10):
        while len(stored(proxy)) < count:
            await asyncio.sleep(0.01)


async def test_a_deadline_is_kept_and_nothing_is_without_a_stage(tmp_path: Path) -> None:
    slow = ScriptedModel(echo, delay_s=5)
    hurried = {"x-gainful-deadline-ms": "20"}
    async with serving(unjudged(), slow, staged(tmp_path / "s")) as proxy:
        code, _, _ = await proxy.ask({"messages": [USER]}, hurried)
        await written(proxy, 1)
        assert (code, [e.status for e in stored(proxy)]) == (504, [504])
    async with serving(unjudged(), slow, tmp_path / "other") as proxy:
        code, _, _ = await proxy.ask({"messages": [USER]}, hurried)
        await asyncio.sleep(0.05)
        assert (code, stored(proxy)) == (504, [])


async def test_a_request_that_the_caller_got_wrong_is_nobodys_error(tmp_path: Path) -> None:
    async with serving(unjudged(), ScriptedModel(echo), staged(tmp_path / "s")) as proxy:
        code, _, _ = await proxy.ask({"messages": [USER]}, {"x-gainful-deadline-ms": "soon"})
        counted = figures(proxy.desk.metrics.render())
        await asyncio.sleep(0.05)

        assert (code, stored(proxy)) == (400, [])
        assert not any(name.startswith("seated_total") for name in counted)


async def test_a_model_that_is_down_does_not_flood_the_store(tmp_path: Path) -> None:
    """Nine tenths of a minute's errors were kept already; of the next 200 the rest is."""
    left = 30
    async with serving(unjudged(), ScriptedModel([]), staged(tmp_path / "s")) as proxy:
        for _ in range(ERRORS_PER_MINUTE - left):
            proxy.desk.rates.wait_s(ERRORS, ERRORS_PER_MINUTE)
        replies = await asked(proxy, 200)
        await written(proxy, left)
        counted = figures(proxy.desk.metrics.render())
        kept = len(stored(proxy))

    assert {code for code, _, _ in replies} <= {502, 503}
    assert left <= kept < 150
    assert counted["dropped_total{task=talk,what=error}"] == 200 - kept


# --- shadows


def judged() -> Task:
    """Plain talk that may not be brief."""
    return talk(checks.Regex(pattern="(?s)You said.*"))


def answers_briefly(body: JsonObject, sample: int) -> str:
    return "Brief." if body["messages"][0]["role"] == "system" else echo(body, sample)


async def shadowed(proxy: Proxy, count: int, body: JsonObject | None = None) -> None:
    """Ask one after the other, each time until its shadow has come, if it gets one."""
    for _ in range(count):
        await proxy.ask(body or {"messages": [USER]})
        await quiet(proxy)


async def quiet(proxy: Proxy) -> None:
    """Wait until no shadow is under way and all rows are written."""
    async with asyncio.timeout(10):
        while proxy.desk.shadows.waiting or proxy.desk.recorder.waiting:
            await asyncio.sleep(0.005)


async def test_a_shadow_is_a_true_pair_that_the_caller_never_sees(tmp_path: Path) -> None:
    model = ScriptedModel(answers_briefly)
    async with serving(judged(), model, staged(tmp_path / "s", 0.5, mode="shadow")) as proxy:
        for _ in range(8):
            code, body, headers = await proxy.ask({"messages": [USER]}, {"x-gainful-max-calls": "1"})
            assert (code, headers["x-gainful-policy"], headers["x-gainful-calls"]) == (200, CHAMPION.id, "1")
            assert body["choices"][0]["message"]["content"].startswith("You said")
            await quiet(proxy)
        found = stored(proxy)
        counted = figures(proxy.desk.metrics.render())

    heard = {(seat_of(e).lane, seat_of(e).number): e for e in found if seat_of(e).arm == "champion"}
    shadows = [e for e in found if seat_of(e).arm == "shadow"]
    assert (len(heard), len(shadows), len(model.calls)) == (8, 4, 12)
    assert {seat_of(e).number // 2 for e in shadows} == set(range(4))
    for shadow in shadows:
        pair = heard[seat_of(shadow).lane, seat_of(shadow).number]
        assert shadow.id == f"{pair.id}-shadow"
        assert (shadow.policy, shadow.request, seat_of(shadow).canary) == (
            CHALLENGER.id,
            pair.request,
            seat_of(pair).canary,
        )
        assert [verdict.score for verdict in (*pair.verdicts, *shadow.verdicts)] == [1.0, 0.0]
        assert (pair.usage.calls, shadow.usage.calls, shadow.correction) == (1, 1, "")
    assert counted["seated_total{arm=shadow,outcome=answered,task=talk}"] == 4
    assert counted["model_calls_total{purpose=draft,task=talk}"] == 8
    assert counted["model_calls_total{purpose=shadow,task=talk}"] == 4


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_streamed_is_shadowed_once_it_was_sent(tmp_path: Path, mode: Any) -> None:
    settings = msgspec.structs.replace(QUIET, stream=mode)
    place = staged(tmp_path / "s", 0.5, mode="shadow")
    async with serving(unjudged(), ScriptedModel(told), place, settings) as proxy:
        for _ in range(4):
            stream = await proxy.streamed({"messages": [USER]})
            assert stream.endswith("data: [DONE]\n\n")
            assert "Be brief." not in stream
            await quiet(proxy)

        assert Counter(seat_of(e).arm for e in stored(proxy)) == {"champion": 4, "shadow": 2}


async def test_feedback_never_reaches_a_shadow(tmp_path: Path) -> None:
    async with serving(unjudged(), ScriptedModel(echo), staged(tmp_path / "s", 0.5, mode="shadow")) as proxy:
        await shadowed(proxy, 2)
        (shadow,) = (e for e in stored(proxy) if seat_of(e).arm == "shadow")
        codes = []
        for name in (shadow.id, shadow.id.removesuffix("-shadow")):
            async with proxy.http.post(f"{proxy.url}/v1/feedback", json={"id": name, "score": 0}) as response:
                codes.append(response.status)

    assert codes == [404, 200]


async def test_a_shadow_that_fails_is_its_own_error_and_opens_no_breaker(tmp_path: Path) -> None:
    place = staged(tmp_path / "s", 0.5, mode="shadow")
    async with serving(unjudged(), ScriptedModel(failing_challenger), place) as proxy:
        await shadowed(proxy, 24)
        found = stored(proxy)
        counted = figures(proxy.desk.metrics.render())
        state = proxy.desk.services["gainful/talk"].usual.breaker.state

    assert state == "closed"
    errors = Counter((e.status, e.policy, e.reply) for e in found if seat_of(e).arm == "shadow")
    assert errors == {(500, CHALLENGER.id, None): 5}
    assert counted["dropped_total{task=talk,what=shadow}"] == 7  # its own breaker is open
    assert {e.status for e in found if seat_of(e).arm == "champion"} == {200}


async def test_an_error_of_the_champions_has_its_shadow_too(tmp_path: Path) -> None:
    """Or only the challenger could be caught in an error."""

    def failing_champion(body: JsonObject, sample: int) -> str:
        if body["messages"][0]["role"] != "system":
            raise ModelError("down", status=500)
        return "fine"

    place = staged(tmp_path / "s", 0.5, mode="shadow")
    async with serving(unjudged(), ScriptedModel(failing_champion), place) as proxy:
        assert [(await proxy.ask({"messages": [USER]}))[0] for _ in range(4)] == [500] * 4
        await written(proxy, 6)
        found = stored(proxy)

    heard = {e.id: e for e in found if seat_of(e).arm == "champion"}
    shadows = [e for e in found if seat_of(e).arm == "shadow"]
    assert [e.status for e in heard.values()] == [500] * 4
    assert [e.status for e in shadows] == [200, 200]
    assert all(seat_of(heard[e.id.removesuffix("-shadow")]).number == seat_of(e).number for e in shadows)


async def test_shadows_are_dropped_while_callers_fill_the_house(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(QUIET, most_running=1)
    slow = ScriptedModel(answers_briefly, delay_s=0.01)
    async with serving(unjudged(), slow, staged(tmp_path / "s", 0.5, mode="shadow"), settings) as proxy:
        await asyncio.gather(*(proxy.ask({"messages": [USER]}) for _ in range(20)))
        await quiet(proxy)
        counted = figures(proxy.desk.metrics.render())
        shadows = sum(seat_of(e).arm == "shadow" for e in stored(proxy))

    dropped = counted["dropped_total{task=talk,what=shadow}"]
    assert dropped >= 5
    assert shadows + dropped == 10


class Hanging(ScriptedModel):
    """Never answers the challenger."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.is_asked = asyncio.Event()

    async def complete(self, body: JsonObject, *, sample: int = 0) -> Reply:
        if body["messages"][0]["role"] == "system":
            self.is_asked.set()
            await asyncio.Event().wait()
        return await super().complete(body, sample=sample)


async def test_nobody_is_asked_unheard_while_the_day_s_budget_of_learning_is_spent(tmp_path: Path) -> None:
    """A shadow that is left out leaves its request without a pair."""
    place = staged(tmp_path / "s", 0.5, mode="shadow")
    seen = []
    async with serving(unjudged(), ScriptedModel(echo), place) as proxy:
        watch = Watch(list(proxy.desk.services.values()), proxy.desk.opened)
        with open_store(place) as store:
            for spent in (True, False, True):
                store.put_standing("talk", "budget", 0.0, {"is_spent": spent})
                await watch.look(evidence=False)
                await shadowed(proxy, 4)
                seen.append(sum(seat_of(exchange).arm == "shadow" for exchange in stored(proxy)))
        await watch.close()
        counted = figures(proxy.desk.metrics.render())

    assert seen == [0, 2, 2]
    assert counted["dropped_total{task=talk,what=shadow}"] == 4


async def test_a_server_that_starts_while_all_is_spent_asks_nobody_unheard(tmp_path: Path) -> None:
    place = staged(tmp_path / "s", 0.5, mode="shadow")
    with open_store(place) as store:
        store.put_standing("talk", "budget", 0.0, {"is_spent": True})
    async with serving(unjudged(), ScriptedModel(echo), place) as proxy:
        await shadowed(proxy, 2)

    assert [seat_of(exchange).arm for exchange in stored(proxy)] == ["champion"] * 2


async def test_a_shadow_under_way_delays_no_shutdown(tmp_path: Path) -> None:
    model = Hanging(answers_briefly)
    async with serving(unjudged(), model, staged(tmp_path / "s", 0.5, mode="shadow")) as proxy:
        for _ in range(10):
            await proxy.ask({"messages": [USER]})
        await asyncio.wait_for(model.is_asked.wait(), 5)
        began_s = time.perf_counter()

    assert time.perf_counter() - began_s < 2
    assert {seat_of(e).arm for e in stored(proxy)} == {"champion"}
