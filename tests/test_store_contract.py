"""What every store promises, on each store there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gainful.core import Answer, Attempt, Case, Demo, Policy, StoreError, Usage, Verdict, Vote, canonical, digest
from gainful.store import LedgerEntry, Store, open_store, verify_chain

Opener = Callable[[], Store]


@pytest.fixture
def reopen(place: str) -> Opener:
    """Opens the same store again and again."""
    return lambda: open_store(place)


@pytest.fixture
def store(reopen: Opener) -> Iterator[Store]:
    with reopen() as store:
        yield store


POLICY = Policy(instructions="Answer.", strategy=Vote(samples=3, temperature=1.0))
DEMO = Demo(case=Case(messages=({"role": "user", "content": "é"},)), value={"limit": 2**63 - 1, "part": 0.5})
OTHER = Policy(instructions="Answer well.", demos=(DEMO,))


def attempt(number: int, policy: Policy = POLICY, **fields: Any) -> Attempt:
    return Attempt(case=digest(number), policy=policy.id, answer=Answer(text=f"answer {number}"), **fields)


# --- memo


def test_a_value_is_remembered_with_every_byte_and_a_missing_one_is_none(store: Store) -> None:
    value = bytes(range(256)) * 3
    store.memo_put(digest("asked"), value)

    assert store.memo_get(digest("asked")) == value
    assert store.memo_get(digest("never asked")) is None


def test_the_first_value_stays(store: Store) -> None:
    store.memo_put(digest(1), b"first")
    store.memo_put(digest(1), b"second")

    assert store.memo_get(digest(1)) == b"first"


def test_a_digest_in_capitals_is_another_key(store: Store) -> None:
    store.memo_put("ab" * 32, b"small")
    store.memo_put("AB" * 32, b"capital")

    assert (store.memo_get("ab" * 32), store.memo_get("AB" * 32)) == (b"small", b"capital")


def test_an_empty_value_is_not_a_missing_one(store: Store) -> None:
    store.memo_put("key", b"")

    assert store.memo_get("key") == b""


# --- policies


def test_a_policy_comes_back_whole_by_its_id_or_a_prefix(store: Store) -> None:
    store.put_policy(POLICY)
    store.put_policy(OTHER)
    store.put_policy(OTHER)

    assert store.policy(POLICY.id) == POLICY
    assert store.policy(OTHER.id[:6]) == OTHER
    assert store.policy(OTHER.id[:7].upper()) == OTHER
    assert store.policy(OTHER.id).id == OTHER.id


@pytest.mark.parametrize("id", ["", OTHER.id[:5], "no policy", OTHER.id + "0", "é" * 64])
def test_what_cannot_be_an_id_names_no_policy(store: Store, id: str) -> None:
    store.put_policy(OTHER)

    with pytest.raises(StoreError, match="names no policy; give at least 6 digits"):
        store.policy(id)


def test_an_unknown_policy_is_an_error(store: Store) -> None:
    store.put_policy(OTHER)

    with pytest.raises(StoreError, match=f"holds no policy '{POLICY.id}'"):
        store.policy(POLICY.id)


# --- attempts


def test_attempts_come_back_whole_and_in_the_order_of_storing(store: Store) -> None:
    store.put_policy(POLICY)
    verdict = Verdict(check="schema", trusted=True, score=0.0, feedback="no", group="not JSON")
    full = attempt(
        3,
        verdicts=(verdict, Verdict(check="unknown", trusted=False)),
        score=0.0,
        calls=(digest("a"), digest("b")),
        usage=Usage(calls=2, prompt_tokens=9, completion_tokens=5, elapsed_ms=0.1 + 0.2, cost_usd=1e-7),
    )
    named = Attempt(case="a name", policy=POLICY.id, answer=Answer(text="", value=[1.5, None]), calls=("a call",))
    written = [full, attempt(1), named, attempt(2)]
    store.put_attempts("task", written)

    assert store.attempts("task", POLICY.id) == written


def test_attempts_are_kept_apart_by_task_and_policy(store: Store) -> None:
    store.put_policy(POLICY)
    store.put_policy(OTHER)
    store.put_attempts("first", [attempt(1), attempt(1, OTHER)])
    store.put_attempts("second", [attempt(1, score=1.0)])

    assert store.attempts("first", POLICY.id) == [attempt(1)]
    assert store.attempts("first", OTHER.id) == [attempt(1, OTHER)]
    assert store.attempts("second", POLICY.id) == [attempt(1, score=1.0)]
    assert store.attempts("second", OTHER.id) == store.attempts("third", POLICY.id) == []
    assert store.attempt_count() == 3


def test_the_first_attempt_of_a_case_stays(store: Store) -> None:
    store.put_policy(POLICY)
    store.put_attempts("task", [attempt(1), attempt(2)])
    store.put_attempts("task", [attempt(2, score=1.0), attempt(3)])

    assert store.attempts("task", POLICY.id) == [attempt(1), attempt(2), attempt(3)]


def test_attempts_are_stored_all_or_none(store: Store) -> None:
    store.put_policy(POLICY)

    with pytest.raises(StoreError, match=f"holds no policy '{OTHER.id}'; store the policy before its attempts"):
        store.put_attempts("task", [attempt(1), attempt(1, OTHER)])
    assert store.attempt_count() == 0


def test_a_generator_that_fails_halfway_stores_nothing(store: Store) -> None:
    store.put_policy(POLICY)

    def answers() -> Iterator[Attempt]:
        yield attempt(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put_attempts("task", answers())
    assert store.attempt_count() == 0
    store.put_attempts("task", [attempt(1)])  # and the store goes on working


def test_tasks_are_known_by_what_was_stored_of_them(store: Store) -> None:
    assert store.tasks() == []

    store.set_champion("task", POLICY, "baseline")
    store.put_policy(OTHER)
    store.put_attempts("other task", [attempt(1, OTHER)])

    assert store.tasks() == ["task", "other task"]


# --- champion and ledger


def test_nothing_is_in_service_at_first(store: Store) -> None:
    assert store.champion("task") is None
    assert store.champion_history("task") == []


def test_the_champion_is_the_last_one_installed_and_its_policy_is_stored(store: Store) -> None:
    store.set_champion("task", POLICY, "baseline")
    store.set_champion("other task", POLICY, "baseline")
    store.set_champion("task", OTHER, "by hand")

    assert store.champion("task") == OTHER.id
    assert store.champion("other task") == POLICY.id
    assert store.policy(OTHER.id) == OTHER
    assert store.champion_history("task") == [(POLICY.id, "baseline", None), (OTHER.id, "by hand", None)]


def test_installing_the_champion_again_changes_nothing(store: Store) -> None:
    store.set_champion("task", POLICY, "baseline")
    store.set_champion("task", POLICY, "baseline, by a resumed run")

    assert store.champion_history("task") == [(POLICY.id, "baseline", None)]


def test_a_former_champion_can_come_back(store: Store) -> None:
    for policy in (POLICY, OTHER, POLICY):
        store.set_champion("task", policy, "by hand")

    assert [installed.policy for installed in store.champion_history("task")] == [POLICY.id, OTHER.id, POLICY.id]


def test_each_champion_has_the_time_at_which_it_came(store: Store) -> None:
    before = time.time()
    for policy in (POLICY, OTHER, POLICY):
        store.set_champion("task", policy, "by hand")
    store.set_champion("other task", OTHER, "by hand")

    times = store.champion_times("task")
    assert len(times) == len(store.champion_history("task")) == 3
    assert before - 1.0 <= times[0] <= times[1] <= times[2] <= time.time() + 1.0
    assert store.champion_times("nobody's") == []


def test_a_ledger_is_a_chain_of_lines_that_anyone_can_recompute(reopen: Opener) -> None:
    with reopen() as store:
        first = store.append_ledger("hold-out", "epoch", {"alpha": "0.05", "cases": (1, 2.0)})
        second = store.append_ledger("hold-out", "opened", {"rank": 1, "é": None})
        assert store.ledger_head("hold-out") == second.hash

    with reopen() as store:
        assert store.ledger("hold-out") == [first, second]
    assert first.content == {"alpha": "0.05", "cases": [1, 2]}
    assert (first.seq, first.previous, second.seq, second.previous) == (0, "0" * 64, 1, first.hash)
    fields = {"key": "hold-out", "seq": 1, "kind": "opened", "content": second.content, "previous": first.hash}
    assert second.hash == digest(fields)
    assert canonical(second) == canonical(fields | {"hash": second.hash})


def test_ledgers_of_different_hold_outs_do_not_mix(store: Store) -> None:
    store.append_ledger("one", "epoch", {})
    other = store.append_ledger("two", "epoch", {})

    assert store.ledger("two") == [other]
    assert store.ledger("three") == []
    assert [store.ledger_head(key) for key in ("two", "three")] == [other.hash, ""]


def test_a_promotion_is_one_line_and_one_pointer_move(store: Store) -> None:
    store.set_champion("task", POLICY, "baseline")
    line = store.append_ledger("hold-out", "closed", {"decision": "promoted"}, champion=("task", OTHER))

    assert store.champion("task") == OTHER.id
    assert store.policy(OTHER.id) == OTHER
    assert store.champion_history("task")[1] == (OTHER.id, "confirmed", line.hash)


def test_a_line_decided_on_an_older_ledger_is_refused_and_promotes_nothing(store: Store) -> None:
    seen = store.ledger("hold-out")
    store.append_ledger("hold-out", "opened", {"by": "another process"})

    with pytest.raises(StoreError, match="has 1 lines, not 0: another process has written to it"):
        store.append_ledger("hold-out", "closed", {}, champion=("task", OTHER), seq=len(seen))
    assert len(store.ledger("hold-out")) == 1
    assert store.champion("task") is None


def test_a_line_with_the_expected_number_is_added(store: Store) -> None:
    for seq in range(3):
        assert store.append_ledger("hold-out", "opened", {}, seq=seq).seq == seq


def test_a_chain_with_a_line_changed_dropped_moved_or_repeated_is_refused(store: Store) -> None:
    lines = [store.append_ledger("hold-out", "opened", {"rank": rank}) for rank in range(4)]
    foreign = store.append_ledger("another", "opened", {"rank": 0})

    assert verify_chain("hold-out", lines) == lines
    for broken_at, chain in [
        (0, lines[1:]),
        (1, [lines[0], *lines[2:]]),
        (1, [lines[0], lines[2], lines[1], lines[3]]),
        (1, [lines[0], lines[0]]),
        (0, [foreign]),
    ]:
        with pytest.raises(StoreError, match=f"ledger 'hold-out' is broken at line {broken_at}:"):
            verify_chain("hold-out", chain)


def test_a_line_that_is_whole_in_itself_but_not_a_link_of_this_chain_is_refused() -> None:
    def line(seq: int, previous: str) -> LedgerEntry:
        own = digest({"key": "hold-out", "seq": seq, "kind": "opened", "content": {}, "previous": previous})
        return LedgerEntry("hold-out", seq, "opened", {}, previous, own)

    first = line(0, "0" * 64)
    for stranger in (line(1, digest("another first line")), line(2, first.hash)):
        with pytest.raises(StoreError, match="is broken at line 1:"):
            verify_chain("hold-out", [first, stranger])
    assert len(verify_chain("hold-out", [first, line(1, first.hash)])) == 2


# --- runs


def test_a_run_is_entered_once_and_repeats_itself(store: Store) -> None:
    store.start_run("run-1", "task", {"seed": 0, "levels": (1.0,)})
    store.start_run("run-1", "task", {"levels": [1], "seed": 0})

    assert store.runs() == [("run-1", "task", {"seed": 0, "levels": [1]}, False)]


@pytest.mark.parametrize(("task", "spec"), [("task", {"seed": 1}), ("other", {"seed": 0})])
def test_a_run_of_the_same_name_with_another_task_or_spec_is_refused(store: Store, task: str, spec: Any) -> None:
    store.start_run("run-1", "task", {"seed": 0})

    with pytest.raises(StoreError, match="run 'run-1' was started with another task or spec"):
        store.start_run("run-1", task, spec)


def test_records_come_back_in_order_byte_for_byte(store: Store) -> None:
    store.start_run("run", "task", {})
    store.start_run("other", "task", {})
    records = [b'{"type":"started"}', b"", b'{"n":1.0}']
    for seq, record in enumerate(records):
        store.append_event("run", seq, record)
    store.append_event("other", 0, b"{}")

    assert store.events("run") == records


def test_a_resumed_run_may_repeat_its_records_but_not_change_them(store: Store) -> None:
    store.start_run("run", "task", {})
    store.append_event("run", 0, b"0")
    store.append_event("run", 1, b"1")

    store.append_event("run", 0, b"0")
    with pytest.raises(StoreError, match="run 'run' no longer repeats itself at record 1; start a new run"):
        store.append_event("run", 1, b"other")
    assert store.events("run") == [b"0", b"1"]


@pytest.mark.parametrize("seq", [-1, 1, 7])
def test_a_record_that_would_leave_a_gap_is_refused(store: Store, seq: int) -> None:
    store.start_run("run", "task", {})

    with pytest.raises(StoreError, match=f"holds 0 records and was given number {seq}"):
        store.append_event("run", seq, b"{}")


def test_the_last_record_finishes_the_run(store: Store) -> None:
    for run in ("run", "other"):
        store.start_run(run, "task", {})
        store.append_event(run, 0, b"first")
    store.append_event("run", 1, b"last", last=True)
    store.append_event("run", 0, b"first")

    assert [(run.run, run.finished) for run in store.runs()] == [("run", True), ("other", False)]


def test_the_last_records_are_those_of_a_task_s_finished_runs(store: Store) -> None:
    for run, task in (("one", "task"), ("open", "task"), ("two", "task"), ("elsewhere", "other")):
        store.start_run(run, task, {})
        store.append_event(run, 0, b"first")
    for run in ("two", "one", "elsewhere"):
        store.append_event(run, 1, f"end of {run}".encode(), last=True)

    assert list(store.last_events("task").items()) == [("one", b"end of one"), ("two", b"end of two")]
    assert store.last_events("none") == {}


def test_a_refused_last_record_finishes_nothing(store: Store) -> None:
    store.start_run("run", "task", {})
    store.append_event("run", 0, b"first")

    with pytest.raises(StoreError):
        store.append_event("run", 0, b"other", last=True)
    assert not store.runs()[0].finished


def test_records_of_a_run_that_was_never_started_are_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="holds no run 'run'; start it before its records"):
        store.append_event("run", 0, b"{}")
    with pytest.raises(StoreError, match="holds no run 'run'"):
        store.events("run")


def test_a_run_is_found_by_the_beginning_of_its_name(store: Store) -> None:
    for run in ("abc", "abcd", "x"):
        store.start_run(run, "task", {})

    assert store.find_run("x").run == "x"
    assert store.find_run("abc").run == "abc"
    assert store.find_run("abcd").run == "abcd"
    with pytest.raises(StoreError, match=r"'ab' names several runs of .*; give one of: abc, abcd"):
        store.find_run("ab")
    with pytest.raises(StoreError, match=r"'y' names no run of .*; give one of: abc, abcd, x"):
        store.find_run("y")


def test_an_empty_store_says_that_it_has_no_runs(store: Store) -> None:
    with pytest.raises(StoreError, match="give one of: none yet"):
        store.find_run("")


# --- locks and life


def test_a_run_is_locked_once_at_a_time_and_only_that_run(reopen: Opener, store: Store) -> None:
    with reopen() as second:
        with store.lock_run("run"):
            with pytest.raises(StoreError, match=r"run 'run' is under way in process \d+( of .+)?; wait for it"):
                second.lock_run("run")
            with second.lock_run("other run"):
                pass
        with second.lock_run("run"):
            pass


def test_closing_a_store_lets_go_of_its_runs(reopen: Opener, store: Store) -> None:
    with reopen() as second:
        second.lock_run("run")

    with store.lock_run("run"):
        pass


def test_everything_is_there_when_the_store_is_opened_again(reopen: Opener) -> None:
    with reopen() as store:
        store.memo_put("key", b"value")
        store.set_champion("task", POLICY, "baseline")
        store.put_attempts("task", [attempt(1)])
        store.start_run("run", "task", {})
        store.append_event("run", 0, b"{}", last=True)
        store.close()

    with reopen() as store:
        assert store.memo_get("key") == b"value"
        assert store.champion("task") == POLICY.id
        assert store.attempts("task", POLICY.id) == [attempt(1)]
        assert store.events("run") == [b"{}"]
        assert store.find_run("run").finished


def test_two_open_stores_see_each_other_s_writes(reopen: Opener, store: Store) -> None:
    with reopen() as second:
        store.memo_put("key", b"value")
        second.memo_put("key", b"late")

        assert second.memo_get("key") == store.memo_get("key") == b"value"


@pytest.mark.parametrize("name", ["n" * 32, "n" * 31, "é" * 16, "", "ab" * 31, digest(1)])
def test_a_name_of_any_length_is_told_from_a_digest(store: Store, name: str) -> None:
    store.put_policy(POLICY)
    store.put_attempts("task", [Attempt(case=name, policy=POLICY.id, answer=Answer(text=""))])
    store.memo_put(name, b"here")

    assert [attempt.case for attempt in store.attempts("task", POLICY.id)] == [name]
    assert store.memo_get(name) == b"here"
