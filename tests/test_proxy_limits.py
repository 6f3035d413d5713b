"""What keeps a server on its feet: the circuit breaker, the door, the callers' rates."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gainful.core import Busy, ModelError, RequestRefused
from gainful.proxy import breaker as breakers
from gainful.proxy import rates as rating
from gainful.proxy.admission import RETRY_S, Admission
from gainful.proxy.breaker import FAILURES, FIRST_OPEN_S, LONGEST_OPEN_S, Breaker
from gainful.proxy.rates import Rates
from gainful.store import Key


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now_s: float = 1e6) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def key(name: str, requests_per_minute: int | None = None) -> Key:
    return Key(name, "0" * 64, 0.0, requests_per_minute=requests_per_minute)


# --- the circuit breaker ----------------------------------------------------------------------------------


def call(breaker: Breaker, error: BaseException | None = None) -> BaseException | None:
    """Make a call that ends in *error*; return what came out."""
    try:
        with breaker.call():
            if error is not None:
                raise error
    except BaseException as raised:  # noqa: BLE001  # what came out is what is looked at
        return raised
    return None


DOWN = ModelError("down")


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        call(breaker, DOWN)
    return breaker


def test_calls_pass_until_the_model_failed_so_many_times_in_a_row() -> None:
    breaker = Breaker(Clock())
    for _ in range(FAILURES - 1):
        call(breaker, DOWN)
    before = breaker.state
    call(breaker, DOWN)

    refused = call(breaker)

    assert (before, breaker.state) == ("closed", "open")
    assert isinstance(refused, ModelError)
    assert (refused.status, refused.retry_after_s) == (503, FIRST_OPEN_S)


def test_a_success_between_failures_starts_the_count_anew() -> None:
    breaker = Breaker(Clock())
    for _ in range(3):
        for _ in range(FAILURES - 1):
            call(breaker, DOWN)
        call(breaker)

    assert breaker.state == "closed"


@pytest.mark.parametrize(
    "error",
    [
        RequestRefused("too long", status=500),
        ModelError("slow down", status=429),
        ModelError("who are you", status=401),
        TimeoutError(),
        asyncio.CancelledError(),
        GeneratorExit(),
    ],
    ids=repr,
)
def test_what_callers_can_cause_never_opens_it(error: BaseException) -> None:
    breaker = Breaker(Clock())
    for _ in range(10 * FAILURES):
        assert call(breaker, error) is error

    assert breaker.state == "closed"


def test_one_call_probes_and_its_success_lets_the_others_through() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now_s += FIRST_OPEN_S

    with breaker.call():
        refused = call(breaker)
    passed = call(breaker)

    assert isinstance(refused, ModelError)
    assert refused.retry_after_s == FIRST_OPEN_S
    assert passed is None
    assert breaker.state == "closed"


def test_a_probe_that_its_caller_gave_up_makes_room_for_another() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now_s += FIRST_OPEN_S
    call(breaker, asyncio.CancelledError())

    assert breaker.state == "half-open"
    assert call(breaker) is None
    assert breaker.state == "closed"


def test_each_failed_probe_doubles_the_wait_up_to_a_limit() -> None:
    clock = Clock()
    breaker = opened(clock)
    waits = []
    for _ in range(8):
        waits.append(breaker.retry_after_s)
        clock.now_s += breaker.retry_after_s
        call(breaker, DOWN)

    assert waits == [1, 2, 4, 8, 16, LONGEST_OPEN_S, LONGEST_OPEN_S, LONGEST_OPEN_S]


def test_a_call_from_before_the_opening_neither_closes_nor_prolongs_it() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    with breaker.call():
        for _ in range(FAILURES):
            call(breaker, DOWN)
    after_success = breaker.state
    with pytest.raises(ModelError):
        late(breaker, clock)

    assert after_success == "open"
    assert breaker.state == "half-open"


def late(breaker: Breaker, clock: Clock) -> None:
    """Fail, in a call that began while the breaker was closed, when it could probe again."""
    clock.now_s += FIRST_OPEN_S
    assert call(breaker) is None
    with breaker.call():
        for _ in range(FAILURES):
            call(breaker, DOWN)
        clock.now_s += FIRST_OPEN_S
        raise DOWN


@given(st.booleans(), st.lists(st.sampled_from(["begin", "succeed", "fail", "leave", "tick"]), max_size=60))
def test_whatever_happens_one_call_probes_at_a_time_and_a_call_always_passes_in_the_end(
    is_open: bool, steps: Sequence[str]
) -> None:
    clock = Clock()
    breaker = opened(clock) if is_open else Breaker(clock)
    running: deque[tuple[ExitStack, bool]] = deque()
    for step in steps:
        if step == "tick":
            clock.now_s += 0.7
        elif step == "begin":
            was_closed, may_pass = breaker.state == "closed", breaker.retry_after_s == 0.0
            with ExitStack() as stack, suppress(ModelError):
                stack.enter_context(breaker.call())
                running.append((stack.pop_all(), not was_closed))
                assert may_pass
                may_pass = False
            assert not may_pass
        elif running:
            ended(running.popleft()[0], {"succeed": None, "fail": DOWN, "leave": GeneratorExit()}[step])
        assert sum(probe for _, probe in running) <= 1
    while running:
        ended(running.popleft()[0], GeneratorExit())
    clock.now_s += breaker.retry_after_s

    assert call(breaker) is None
    assert breaker.state == "closed"


def ended(call: ExitStack, error: BaseException | None) -> None:
    with suppress(ModelError, GeneratorExit), call:
        if error is not None:
            raise error


def test_a_failure_is_told_from_a_refusal_by_its_status() -> None:
    assert [breakers.is_failure(ModelError("", status=status)) for status in (None, 400, 429, 499, 500, 503)] == [
        True,
        False,
        False,
        False,
        True,
        True,
    ]


# --- the door -------------------------------------------------------------------------------------------------


async def held(admission: Admission, done: asyncio.Event, order: list[int], name: int) -> None:
    async with admission.turn():
        order.append(name)
        await done.wait()


async def test_so_many_run_so_many_wait_in_order_and_the_next_is_turned_away_at_once() -> None:
    admission, done, order = Admission(2, 3), asyncio.Event(), list[int]()
    visits = [asyncio.create_task(held(admission, done, order, name)) for name in range(5)]
    await asyncio.sleep(0)
    counted = admission.running, admission.waiting

    with pytest.raises(Busy, match="answering 2 requests and 3 more are waiting") as caught:
        await held(admission, done, order, 5)
    done.set()
    await asyncio.gather(*visits)

    assert counted == (2, 3)
    assert (caught.value.reason, caught.value.retry_after_s) == ("full", RETRY_S)
    assert order == [0, 1, 2, 3, 4]
    assert (admission.running, admission.waiting) == (0, 0)


async def test_a_house_without_a_waiting_room_still_answers() -> None:
    admission = Admission(1, 0)
    async with admission.turn():
        with pytest.raises(Busy):
            await admission.turn().__aenter__()

    async with admission.turn():
        assert admission.running == 1


async def test_who_waits_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gainful.proxy.admission.LONGEST_WAIT_S", 0.01)
    admission = Admission(1, 1)
    async with admission.turn():
        with pytest.raises(Busy):
            await admission.turn().__aenter__()

    assert admission.waiting == 0


@given(st.lists(st.tuples(st.sampled_from(["come", "end", "leave"]), st.integers(0, 9)), max_size=40))
def test_no_turn_is_ever_lost(steps: Sequence[tuple[str, int]]) -> None:
    asyncio.run(visited(steps))


async def visited(steps: Sequence[tuple[str, int]]) -> None:
    admission = Admission(2, 2)
    visits: list[tuple[asyncio.Task[None], asyncio.Event]] = []
    for step, number in steps:
        if step == "come":
            done = asyncio.Event()
            visits.append((asyncio.create_task(held(admission, done, [], 0)), done))
        elif visits:
            visit, done = visits[number % len(visits)]
            done.set() if step == "end" else visit.cancel()
        if number % 2:
            await asyncio.sleep(0)
        assert admission.running <= 2
        assert admission.waiting <= 2
    for visit, _ in visits:
        visit.cancel()
    await asyncio.gather(*(visit for visit, _ in visits), return_exceptions=True)

    assert (admission.running, admission.waiting) == (0, 0)
    async with admission.turn(), admission.turn():
        assert admission.running == 2


async def test_a_caller_above_its_rate_is_told_when_to_come_again_and_others_are_not() -> None:
    clock = Clock()
    admission = Admission(9, 9, Rates(clock=clock))
    for _ in range(2):
        async with admission.turn(key("often", 2)):
            pass
    with pytest.raises(Busy, match="2 requests a minute") as caught:
        await admission.turn(key("often", 2)).__aenter__()
    async with admission.turn(key("other", 2)), admission.turn(key("free")):
        pass
    clock.now_s += caught.value.retry_after_s

    assert (caught.value.reason, caught.value.retry_after_s) == ("rate", 30.0)
    async with admission.turn(key("often", 2)):
        assert admission.running == 1


def test_a_busy_signal_survives_pickling_whole() -> None:
    again = pickle.loads(pickle.dumps(Busy("later", reason="rate", retry_after_s=2.5)))

    assert (str(again), again.reason, again.retry_after_s) == ("later", "rate", 2.5)


# --- rates ----------------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.lists(st.floats(0.0, 45.0), min_size=1, max_size=150))
def test_over_any_time_at_most_the_promised_number_pass(per_minute: int, gaps: Sequence[float]) -> None:
    clock, passed = Clock(), list[float]()
    rates = Rates(clock=clock)
    for gap_s in gaps:
        clock.now_s += gap_s / per_minute
        wait_s = rates.wait_s("a", per_minute)
        if wait_s == 0.0:
            passed.append(clock.now_s)
    rates.close()

    for first, begun_s in enumerate(passed):
        for last, ended_s in enumerate(passed[first:], first):
            assert last - first + 1 <= per_minute * (1 + (ended_s - begun_s) / 60) + 1e-3


@given(st.integers(1, 50), st.lists(st.floats(0.0, 3.0), max_size=120))
def test_who_waits_as_long_as_told_is_let_in_and_a_moment_less_is_not_enough(
    per_minute: int, gaps: Sequence[float]
) -> None:
    clock = Clock()
    rates = Rates(clock=clock)
    for gap_s in gaps:
        clock.now_s += gap_s
        wait_s = rates.wait_s("a", per_minute)
        if wait_s > 0.01:
            clock.now_s += wait_s - 0.005
            assert rates.wait_s("a", per_minute) > 0.0
            clock.now_s += 0.006
            assert rates.wait_s("a", per_minute) == 0.0
    rates.close()


def test_who_was_quiet_may_make_a_minutes_worth_at_once() -> None:
    rates = Rates(clock=Clock())

    waits = [rates.wait_s("a", 7) for _ in range(8)]

    assert waits[:7] == [0.0] * 7
    assert waits[7] == pytest.approx(60 / 7)
    rates.close()


MANY = 5_000


def take(path: Path, begin: Barrier, passed: multiprocessing.Queue[int]) -> None:
    rates = Rates(path, Clock())
    begin.wait()
    passed.put(sum(rates.wait_s("a", MANY) == 0.0 for _ in range(MANY)))
    rates.close()


@pytest.mark.slow
def test_workers_count_together(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    begin, passed = spawn.Barrier(2), spawn.Queue()
    workers = [spawn.Process(target=take, args=(tmp_path / "rates", begin, passed)) for _ in range(2)]
    for worker in workers:
        worker.start()

    total = sum(passed.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    passed.close()

    assert total == MANY


def test_callers_who_meet_in_one_place_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rating, "SLOTS", 2)
    rates = Rates(clock=Clock())

    first = [rates.wait_s(name, 1) for name in ("a", "b", "one too many", "one too many")]
    second = [rates.wait_s(name, 1) for name in ("a", "b")]

    assert first == [0.0, 0.0, 0.0, 0.0]
    assert second == [60.0, 60.0]
    rates.close()
