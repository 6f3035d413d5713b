"""Stores between real processes: locks, races, and what is left after ``kill -9``."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from children import children

from gainful.core import Policy, StoreError
from gainful.store import SQLiteStore, open_store, store_file

pytestmark = pytest.mark.slow  # processes of Python start in half a second each

POLICY = Policy(instructions="Answer.")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def test_a_run_under_way_in_another_process_is_refused_until_that_process_is_killed(path: Path) -> None:
    holding = """
        lock = store.lock_run("run")
        print("locked", flush=True)
        sys.stdin.readline()
    """
    with SQLiteStore(path) as store, children(path, holding) as [child]:
        assert child.output.readline() == "locked\n"
        with pytest.raises(StoreError, match=f"run 'run' is under way in process {child.process.pid}; wait for it"):
            store.lock_run("run")
        child.kill()

        with store.lock_run("run"):
            assert len(list(path.parent.glob("*.lock"))) == 1
        assert not list(path.parent.glob("*.lock"))


def test_many_processes_pass_one_lock_on_and_never_share_it(path: Path) -> None:
    passing = """
        import os
        from pathlib import Path
        inside = Path(sys.argv[1] + ".inside")
        taken = 0
        while taken < 30:
            try:
                with store.lock_run("run"):
                    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                    inside.unlink()
                    taken += 1
            except StoreError:
                pass
        print(taken)
    """
    with children(path, passing, passing, passing) as started:
        assert [child.output.read() for child in started] == ["30\n"] * 3


def test_a_store_held_by_another_process_is_refused_in_one_sentence_and_can_be_read(path: Path) -> None:
    holding = """
        store._database.connection.execute("BEGIN IMMEDIATE")
        print("held", flush=True)
        sys.stdin.readline()
        store._database.connection.execute("ROLLBACK")
        print("free", flush=True)
        sys.stdin.readline()
    """
    with SQLiteStore(path, busy_s=0.05) as store, children(path, holding) as [child]:
        assert child.output.readline() == "held\n"
        for write in (lambda: store.memo_put("key", b"value"), lambda: store.set_champion("task", POLICY, "baseline")):
            with pytest.raises(
                StoreError, match=r"is held by another process \(waited 0.05 s\); wait for it or stop it"
            ):
                write()
        assert store.memo_get("key") is None

        child.go()
        assert child.output.readline() == "free\n"
        store.memo_put("key", b"value")
        assert store.memo_get("key") == b"value"


def test_two_processes_that_decided_on_the_same_ledger_cannot_both_add_a_line(place: str) -> None:
    racing = """
        for rank in range(40):
            try:
                seen = len(store.ledger("hold-out"))
                line = store.append_ledger("hold-out", "opened", {"rank": seen}, seq=seen)
                print(line.hash)
            except StoreError as error:
                assert "another process has written to it" in str(error), error
    """
    with children(place, racing, racing, racing) as started:
        added = [line for child in started for line in child.output.read().split()]
        assert [child.process.wait() for child in started] == [0, 0, 0]

    with open_store(place) as store:
        ledger = store.ledger("hold-out")
    assert sorted(line.hash for line in ledger) == sorted(added)
    assert [line.content["rank"] for line in ledger] == list(range(len(added)))


def test_processes_that_open_a_new_store_together_all_get_the_same_one(path: Path) -> None:
    opening = """
        import os
        for rank in range(40):
            with SQLiteStore(f"{sys.argv[1]}.{rank}") as store:
                store.memo_put(str(os.getpid()), b"here")
        print("done")
    """
    with children(path, *[opening] * 5) as started:
        assert [child.output.read() for child in started] == ["done\n"] * 5

    for rank in range(40):
        with SQLiteStore(f"{path}.{rank}") as store:
            assert [store.memo_get(str(child.process.pid)) for child in started] == [b"here"] * 5


WRITING = """
    import itertools
    start = len(store.ledger("hold-out"))
    store.start_run("run", "task", {})
    for number in itertools.count(start):
        store.memo_put(f"call {number}", b"x" * number)
        print("memo", number, flush=True)
        store.append_ledger("hold-out", "closed", {"number": number}, ("task", Policy(instructions=str(number))))
        print("ledger", number, flush=True)
        store.append_event("run", number, str(number).encode())
        print("event", number, flush=True)
"""


def assert_nothing_told_is_lost(place: str, told: list[str]) -> None:
    with open_store(place) as store:
        ledger = store.ledger("hold-out")
        events = store.events("run")
        for kind, number in map(str.split, told):
            at = int(number)
            if kind == "memo":
                assert store.memo_get(f"call {at}") == b"x" * at
            elif kind == "ledger":
                assert ledger[at].content == {"number": at}
            else:
                assert events[at] == number.encode()
        champions = [(store.policy(one.policy).instructions, one.ledger) for one in store.champion_history("task")]
        assert champions == [(str(line.content["number"]), line.hash) for line in ledger]  # both, or neither
        for missing in range(len(events), len(ledger)):  # as a resumed run would
            store.append_event("run", missing, str(missing).encode())
        if store_file(place):
            assert store._database.rows("PRAGMA integrity_check") == [("ok",)]


def kill_at_seeded_moments(place: str, seed: int, kills: int) -> None:
    rng = random.Random(seed)
    told: list[str] = []
    for _ in range(kills):
        with children(place, WRITING) as [child]:
            told += [child.output.readline() for _ in range(rng.randrange(1, 60))]
            os.kill(child.process.pid, signal.SIGKILL)
            told += [line for line in child.output if line.endswith("\n")]  # said before it died

        assert_nothing_told_is_lost(place, told)


def test_what_was_written_survives_kill_9(place: str) -> None:
    kill_at_seeded_moments(place, seed=0, kills=2)


@pytest.mark.slow
def test_what_was_written_survives_kill_9_at_twenty_moments(place: str) -> None:
    kill_at_seeded_moments(place, seed=1, kills=20)


def test_opening_a_store_twice_in_one_process_gives_up_no_lock(path: Path) -> None:
    """Whoever closes last removes the log; with a lock lost, any other process takes itself for the last."""
    with SQLiteStore(path) as held:
        held.put_policy(POLICY)
        SQLiteStore(path).close()
        with children(path, "store.close()") as [child]:
            list(child.output)

        assert path.with_name(path.name + "-wal").stat().st_size > 0
