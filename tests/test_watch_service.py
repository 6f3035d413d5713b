"""The service ledger: every move, every refusal, and that the state is what the lines amount to, whoever moves when."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gainful.core import Exchange, Policy, StoreError
from gainful.store import SQLiteStore
from gainful.watch.service import FORCED, PINNED, TAKEN_BACK, Helm, Mode, Service, next_seed, read_service, service_key

TASK = "sums"
BASELINE, BETTER, OTHER, UNSTORED = (Policy(instructions=word) for word in ("Answer.", "Add.", "Count.", "Guess."))
REGISTRATION = "ab" * 32
SEED = "5eed"


class Clock:
    """A clock that goes on a second whenever it is asked."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "store.db", clock=clock) as store:
        store.set_champion(TASK, BASELINE, "baseline")
        for policy in (BETTER, OTHER):
            store.put_policy(policy)
        yield store


@pytest.fixture
def helm(store: SQLiteStore, clock: Clock) -> Helm:
    """A person's."""
    return Helm(store, TASK, clock)


@pytest.fixture
def watcher(store: SQLiteStore, clock: Clock) -> Helm:
    lease = store.take_lease("watch", "one", 1e6)
    assert lease is not None
    return Helm(store, TASK, clock, lease)


def staged(helm: Helm, mode: Mode = "canary", share: float = 0.05, policy: Policy = BETTER) -> Service:
    return helm.stage(policy.id, mode, share, SEED, REGISTRATION)


def kinds(store: SQLiteStore) -> list[str]:
    return [entry.kind for entry in store.ledger(service_key(TASK))]


def last(store: SQLiteStore) -> dict[str, object]:
    return store.ledger(service_key(TASK))[-1].content


def refused(store: SQLiteStore, match: str, move: Callable[[], object]) -> None:
    """Assert that *move* is refused in one sentence and that nothing has changed."""
    before = kinds(store), store.champion_history(TASK)
    with pytest.raises(StoreError, match=match) as error:
        move()
    assert "\n" not in str(error.value)
    assert (kinds(store), store.champion_history(TASK)) == before


# --- the way in


def test_a_challenger_comes_in_step_by_step_and_the_former_champion_keeps_a_share(
    store: SQLiteStore, watcher: Helm
) -> None:
    store.put_exchanges([Exchange("r", 1.0, TASK, BASELINE.id, "m", "unverified")])
    shadow = watcher.stage(BETTER.id, "shadow", 0.25, "aa", REGISTRATION)
    canary = watcher.stage(BETTER.id, "canary", 0.05, "bb", REGISTRATION, {"quality": {"n": 12}})
    state = watcher.promote("cc", 0.03, {"n": 500})

    assert shadow.canary is not None
    assert canary.canary is not None
    first, second = shadow.canary, canary.canary
    assert (first.mode, first.share, first.seed, first.step, first.row) == ("shadow", 0.25, "aa", 0, 1)
    assert (second.mode, second.share, second.seed, second.step) == ("canary", 0.05, "bb", 1)
    assert first.id != second.id
    assert first.champion == second.champion == BASELINE.id
    assert canary.first_at == first.at < second.at
    assert canary.registration == REGISTRATION
    assert (state.champion, state.former, state.canary, state.first_at) == (BETTER.id, BASELINE.id, None, None)
    assert state.holdback is not None
    assert (state.holdback.policy, state.holdback.champion) == (BASELINE.id, BETTER.id)
    assert (state.holdback.share, state.holdback.mode, state.holdback.block) == (0.03, "holdback", 33)
    assert store.champion(TASK) == BETTER.id
    assert last(store)["first_at"] == first.at
    assert "void" not in last(store)
    assert state == read_service(store, TASK)


def test_a_rejected_challenger_leaves_the_champion_and_another_may_follow(store: SQLiteStore, watcher: Helm) -> None:
    staged(watcher)
    state = watcher.reject("quality", {"n": 40})
    after = staged(watcher, policy=OTHER)

    assert (state.canary, state.registration, state.first_at) == (None, "", None)
    assert store.ledger(service_key(TASK))[1].content["challenger"] == BETTER.id
    assert after.canary is not None
    assert after.canary.step == 0
    assert store.champion(TASK) == BASELINE.id


def test_a_challenger_that_is_refused_never_was_on_its_way_in(store: SQLiteStore, watcher: Helm) -> None:
    state = watcher.refuse(BETTER.id, REGISTRATION, "it breaks what was repaired", {"repairs": {"n": 9}})

    assert state == read_service(store, TASK)
    assert (state.canary, state.champion, state.lines) == (None, None, 1)
    assert (last(store)["challenger"], last(store)["registration"]) == (BETTER.id, REGISTRATION)
    staged(watcher)
    refused(store, "is on its way in", lambda: watcher.refuse(OTHER.id, "cd" * 32, "so"))


def test_without_a_hold_back_nothing_stays_on_the_former_champion(watcher: Helm) -> None:
    staged(watcher)

    assert watcher.promote(SEED, 0.0).holdback is None


def test_what_may_not_be_staged_is_refused(store: SQLiteStore, watcher: Helm) -> None:
    refused(store, "no policy", lambda: staged(watcher, policy=UNSTORED))
    refused(store, "is in service already", lambda: staged(watcher, policy=BASELINE))
    refused(store, "without a confirmation", lambda: watcher.stage(BETTER.id, "canary", 0.1, SEED, ""))
    for share in (0.0, 1.0, -0.1, float("nan")):
        refused(store, "cannot be drawn", partial(staged, watcher, share=share))
    refused(store, "cannot be drawn", lambda: watcher.stage(BETTER.id, "canary", 0.1, "", REGISTRATION))
    staged(watcher)
    refused(store, "is on its way in", lambda: staged(watcher, policy=OTHER))
    refused(store, "is on its way in", lambda: watcher.stage(BETTER.id, "canary", 0.2, SEED, "cd" * 32))
    refused(store, "cannot be drawn", lambda: watcher.promote(SEED, 1.5))
    refused(store, "cannot be drawn", lambda: watcher.promote("", 0.03))


def test_nothing_is_promoted_or_rejected_where_nobody_is_on_the_way_in(store: SQLiteStore, watcher: Helm) -> None:
    refused(store, "no challenger", lambda: watcher.promote(SEED, 0.03))
    refused(store, "no challenger", lambda: watcher.reject("bored"))


def test_a_challenger_compared_with_a_champion_that_has_gone_goes_no_further(store: SQLiteStore, watcher: Helm) -> None:
    staged(watcher)
    store.set_champion(TASK, OTHER, "by a run of its own")

    refused(store, "champion that has gone", lambda: staged(watcher, share=0.2))
    refused(store, "champion that has gone", lambda: watcher.promote(SEED, 0.03))
    assert watcher.reject("its champion has gone").canary is None


def test_before_anything_is_in_service_only_a_person_can_put_something_there(tmp_path: Path, clock: Clock) -> None:
    with SQLiteStore(tmp_path / "empty.db", clock=clock) as store:
        store.put_policy(BETTER)
        helm = Helm(store, TASK, clock)
        refused(store, "nothing is in service yet", lambda: staged(helm))
        refused(store, "nothing is in service yet", lambda: helm.roll_back("bad"))
        state = helm.force(BETTER.id, SEED, 0.03)

        assert (state.champion, state.former, state.holdback) == (BETTER.id, None, None)
        assert store.champion(TASK) == BETTER.id


# --- back again


def test_a_champion_that_is_taken_back_is_gone_in_one_move_with_its_hold_back(
    store: SQLiteStore, watcher: Helm
) -> None:
    staged(watcher)
    watcher.promote(SEED, 0.03)
    staged(watcher, policy=OTHER)
    state = watcher.roll_back("worse in the hold-back", {"compared": 90})

    assert (state.champion, state.former, state.holdback, state.canary) == (BASELINE.id, None, None, None)
    assert store.champion(TASK) == BASELINE.id
    assert store.champion_history(TASK)[-1].reason == "rolled-back"
    assert (last(store)["left"], last(store)["void"]) == (BETTER.id, "")
    refused(store, "no former champion", lambda: watcher.roll_back("again"))


def test_a_person_may_go_back_further_and_the_line_says_what_that_voids(store: SQLiteStore, helm: Helm) -> None:
    helm.force(BETTER.id)
    helm.force(OTHER.id)
    refused(store, "is in service already", lambda: helm.roll_back("slip", to=OTHER.id))
    state = helm.roll_back("I know", to=BASELINE.id[:10])

    assert state.champion == store.champion(TASK) == BASELINE.id
    assert last(store)["void"] == TAKEN_BACK


def test_there_is_no_way_back_to_a_policy_that_never_was_in_service(store: SQLiteStore, helm: Helm) -> None:
    helm.force(BETTER.id)

    refused(store, "never was in service; promote it instead", lambda: helm.roll_back("slip", to=OTHER.id))
    refused(store, "no policy", lambda: helm.roll_back("slip", to=UNSTORED.id))


def test_a_person_takes_back_what_a_run_of_its_own_has_put_into_service_and_a_watcher_does_not(
    store: SQLiteStore, helm: Helm, watcher: Helm
) -> None:
    staged(watcher)
    watcher.promote(SEED, 0.03)
    store.set_champion(TASK, OTHER, "by a run of its own")

    refused(store, "no former champion", lambda: watcher.roll_back("worse in the hold-back"))
    assert helm.roll_back("I know").champion == BETTER.id


# --- levers


def test_what_a_person_forces_in_says_that_no_confirmation_bounds_it(store: SQLiteStore, helm: Helm) -> None:
    staged(helm)
    state = helm.force(OTHER.id[:12], SEED, 0.1)

    assert (state.champion, state.former, state.canary) == (OTHER.id, BASELINE.id, None)
    assert state.holdback is not None
    assert last(store)["void"] == FORCED
    assert last(store)["registration"] == ""
    refused(store, "is in service already", lambda: helm.force(OTHER.id))
    refused(store, "no policy", lambda: helm.force(UNSTORED.id))
    refused(store, "cannot be drawn", lambda: helm.force(BETTER.id, "", 0.1))


def test_a_paused_task_lets_nobody_further_in_and_still_takes_back(
    store: SQLiteStore, helm: Helm, watcher: Helm
) -> None:
    staged(watcher)
    watcher.promote(SEED, 0.03)
    staged(watcher, policy=OTHER)
    assert helm.pause().is_paused

    refused(store, "it is paused", lambda: staged(watcher, share=0.2, policy=OTHER))
    refused(store, "it is paused", lambda: watcher.promote(SEED, 0.03))
    assert watcher.roll_back("worse").champion == BASELINE.id
    refused(store, "it is paused", lambda: staged(watcher))
    helm.resume()
    assert staged(watcher).canary is not None


def test_a_pinned_champion_stays_whatever_a_watcher_sees(store: SQLiteStore, helm: Helm, watcher: Helm) -> None:
    staged(watcher)
    watcher.promote(SEED, 0.03)
    staged(watcher, policy=OTHER)
    assert helm.pin().is_pinned

    assert last(store)["void"] == PINNED
    refused(store, "the champion is pinned", lambda: staged(watcher, share=0.2, policy=OTHER))
    refused(store, "the champion is pinned", lambda: watcher.promote(SEED, 0.03))
    refused(store, "the champion is pinned", lambda: watcher.roll_back("worse"))
    assert watcher.reject("worse").canary is None
    assert helm.roll_back("I know better").is_pinned
    helm.unpin()
    assert staged(watcher).canary is not None


def test_a_switch_that_is_on_already_writes_no_line(store: SQLiteStore, helm: Helm) -> None:
    helm.resume()
    helm.unpin()
    assert kinds(store) == []
    for move in (helm.pause, helm.pause, helm.pin, helm.pin, helm.resume, helm.resume, helm.unpin, helm.unpin):
        move()

    assert kinds(store) == ["paused", "pinned", "resumed", "unpinned"]


def test_an_alarm_and_what_was_forgotten_are_written_down_and_move_nothing(store: SQLiteStore, helm: Helm) -> None:
    before = staged(helm)
    helm.alarm("quality", {"n": 10})
    after = helm.forgot({"exchanges": 3})

    assert kinds(store) == ["staged", "alarm", "forgotten"]
    assert (after.canary, after.champion, after.lines) == (before.canary, before.champion, 3)


def test_each_line_says_when_it_was_written(store: SQLiteStore, helm: Helm) -> None:
    staged(helm)
    helm.reject("so")
    helm.alarm("quality", {})
    helm.force(OTHER.id)
    helm.roll_back("so")
    helm.pin()
    helm.forgot({})
    times = [entry.content["at"] for entry in store.ledger(service_key(TASK))]

    assert times == sorted(times)
    assert 1000.0 < times[0] < times[-1]


def test_the_next_seed_is_fixed_by_the_ledger_and_another_after_each_line(helm: Helm) -> None:
    first, again = next_seed(TASK, helm.state), next_seed(TASK, helm.state)
    helm.alarm("quality", {})

    assert first == again != next_seed(TASK, helm.state)
    assert len(bytes.fromhex(first)) == 32


# --- several at once


def test_of_two_that_move_at_once_one_is_told_so(store: SQLiteStore, watcher: Helm, tmp_path: Path) -> None:
    """The clock is asked between reading and writing, so another process can be let in just there."""
    staged(watcher)
    with SQLiteStore(tmp_path / "store.db") as second:

        def meanwhile() -> float:
            Helm(second, TASK, lambda: 1.0).force(OTHER.id)
            return 2.0

        late = Helm(store, TASK, meanwhile, watcher.lease)
        with pytest.raises(StoreError, match="another process has written to it"):
            late.promote(SEED, 0.0)

    assert kinds(store) == ["staged", "promoted"]
    assert store.champion(TASK) == read_service(store, TASK).champion == OTHER.id


def test_a_watcher_that_lost_its_lease_moves_nothing(store: SQLiteStore, watcher: Helm, clock: Clock) -> None:
    staged(watcher)
    clock.now += 2e6
    assert store.take_lease("watch", "two", 60.0) is not None

    for move in (
        lambda: staged(watcher, share=0.2),
        lambda: watcher.promote(SEED, 0.03),
        lambda: watcher.reject("so"),
        lambda: watcher.alarm("quality", {}),
    ):
        refused(store, "lease", move)


def test_a_changed_line_is_no_state(store: SQLiteStore, helm: Helm, tmp_path: Path) -> None:
    helm.force(BETTER.id)
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("DROP TRIGGER ledger_is_never_rewritten")
        connection.execute("UPDATE ledger SET content = replace(content, ?, ?)", (BETTER.id, OTHER.id))
    connection.close()

    with pytest.raises(StoreError, match="broken at line 0"):
        helm.roll_back("bad")


# --- whatever is done, in whatever order

POLICIES = (BASELINE, BETTER, OTHER)
ids = st.sampled_from([policy.id for policy in POLICIES])
shares = st.sampled_from([0.03, 0.25])
modes = st.sampled_from(["shadow", "canary"])
moves = st.one_of(
    st.tuples(st.just("stage"), ids, modes, shares, st.just(SEED), st.just(REGISTRATION)),
    st.tuples(st.just("promote"), st.just(SEED), st.sampled_from([0.0, 0.03])),
    st.tuples(st.just("reject"), st.just("so")),
    st.tuples(st.just("roll_back"), st.just("so")),
    st.tuples(st.just("back_to"), ids),
    st.tuples(st.just("force"), ids, st.just(SEED), st.sampled_from([0.0, 0.03])),
    st.tuples(st.sampled_from(["pause", "resume", "pin", "unpin"])),
    st.tuples(st.just("alarm"), st.just("quality"), st.just({})),
    st.tuples(st.just("a run"), ids),
)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SQLiteStore, Iterator[str]]]:
    """One store with a task for each example: making a store takes longer than twenty moves."""
    with SQLiteStore(tmp_path_factory.mktemp("many") / "store.db") as store:
        for policy in POLICIES:
            store.put_policy(policy)
        yield store, (f"task {number}" for number in count())


def move_by(helm: Helm, store: SQLiteStore, task: str, name: str, *words: object) -> Service:
    if name == "a run":  # of its own, which puts a policy into service without this ledger
        store.set_champion(task, next(policy for policy in POLICIES if policy.id == words[0]), "confirmed")
        return helm.state
    if name == "back_to":
        return helm.roll_back("so", to=str(words[0]))
    state: Service = getattr(helm, name)(*words)
    return state


@settings(max_examples=60)
@given(steps=st.lists(st.tuples(st.booleans(), moves), max_size=25))
def test_the_fold_of_the_ledger_is_the_state_that_the_moves_returned(
    many: tuple[SQLiteStore, Iterator[str]], steps: list[tuple[bool, tuple[str, ...]]]
) -> None:
    store, task = many[0], next(many[1])
    store.set_champion(task, BASELINE, "baseline")
    lease = store.take_lease("watch", "one", 1e6)
    person, watcher = Helm(store, task, Clock()), Helm(store, task, Clock(), lease)
    state, pointer = Service(), store.champion(task)
    for is_person, (name, *words) in steps:
        before, was = state, pointer
        try:
            state = move_by(person if is_person else watcher, store, task, name, *words)
        except StoreError:
            assert (store.champion(task), read_service(store, task)) == (pointer, state)
        pointer = store.champion(task)

        assert read_service(store, task) == state
        if state.lines > before.lines:
            check(before, was, state, pointer, name, is_person)


def check(before: Service, was: str | None, state: Service, pointer: str | None, move: str, is_person: bool) -> None:
    """Assert what holds of a move from *before*, when *was* was in service, to *state*."""
    if move in ("promote", "roll_back", "back_to", "force"):
        assert state.champion == pointer != was
        assert state.canary is None
    else:
        assert pointer == was
    if move in ("stage", "promote"):
        assert (before.is_paused, before.is_pinned) == (False, False)
    if move == "stage":
        assert state.canary is not None
        assert state.canary.champion == pointer != state.canary.policy
    if move in ("roll_back", "back_to"):
        assert is_person or not before.is_pinned
    if state.holdback is not None:
        assert (state.holdback.policy, state.holdback.champion) == (state.former, state.champion)
        assert state.former != state.champion
