"""The recorder on real files: what it acknowledges is there, and what goes wrong is said in time and never raised."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest
import uvloop
from exchanges import ordinary_exchange

from gainful.core import Exchange, StoreError
from gainful.proxy.log import Line
from gainful.proxy.recorder import MOST_WAITING_BYTES, MOST_WAITING_ROWS, Recorder
from gainful.store import LogKeeper, SQLiteStore

SOON_S = 30.0  # what happens at once, on a machine that is busy with other things
RNG = random.Random(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def recorder(path: Path) -> AsyncIterator[Recorder]:
    recorder = Recorder(path, busy_s=0.05)
    yield recorder
    await asyncio.to_thread(recorder.close)


def exchange(name: object = "reply", **fields: Any) -> Exchange:
    return msgspec.structs.replace(ordinary_exchange(RNG), id=str(name), **fields)


def stored(path: Path) -> list[str]:
    """Ids of all stored exchanges in the order of storing, as another reader sees them."""
    with SQLiteStore(path) as store:
        return [one.id for one in store.exchanges("support", limit=10**6)][::-1]


def log_size(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


@contextmanager
def held(path: Path) -> Iterator[None]:
    """The store at *path*, held as by another process that writes and never ends."""
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        holder.close()


# --- when all is well


async def test_what_is_acknowledged_can_be_read_at_once_by_another(path: Path, recorder: Recorder) -> None:
    written = exchange()

    assert await recorder.record(written, SOON_S)
    with SQLiteStore(path) as store:
        assert store.exchange("reply") == written
    assert recorder.failed == 0


async def test_many_waiting_rows_become_few_commits_in_the_order_of_arrival(path: Path, recorder: Recorder) -> None:
    names = [str(number) for number in range(1000)]
    written = await asyncio.gather(*(recorder.record(exchange(name), SOON_S) for name in names))

    assert all(written)
    assert stored(path) == names
    assert log_size(path) < 1000 * 4096  # where a commit alone writes three pages and more


def test_it_works_on_uvloop_too(path: Path) -> None:
    async def serve() -> list[bool]:
        recorder = Recorder(path)
        written = await asyncio.gather(*(recorder.record(exchange(number), SOON_S) for number in range(50)))
        recorder.close()
        return written

    assert uvloop.run(serve()) == [True] * 50
    assert stored(path) == [str(number) for number in range(50)]


async def test_whoever_goes_away_leaves_the_row_to_be_written(path: Path, recorder: Recorder) -> None:
    with held(path):
        gone = asyncio.create_task(recorder.record(exchange("gone"), SOON_S))
        await asyncio.sleep(0)
        gone.cancel()
    assert await recorder.record(exchange("next"), SOON_S)

    assert stored(path) == ["gone", "next"]
    assert recorder.failed == 0


async def test_what_is_changed_after_the_call_is_stored_as_it_was(path: Path, recorder: Recorder) -> None:
    written = exchange()
    assert written.request is not None
    waiting = asyncio.create_task(recorder.record(written, SOON_S))
    await asyncio.sleep(0)
    request = msgspec.json.decode(msgspec.json.encode(written.request))
    written.request["model"] = "changed"

    assert await waiting
    with SQLiteStore(path) as store:
        found = store.exchange("reply")
    assert found is not None
    assert found.request == request


# --- when the store is not well


async def test_a_locked_store_is_waited_for_while_there_is_time(path: Path, recorder: Recorder) -> None:
    with held(path):
        waiting = asyncio.create_task(recorder.record(exchange(), SOON_S))
        await asyncio.sleep(0.01)

    assert await waiting
    assert stored(path) == ["reply"]


async def test_a_store_locked_for_longer_is_said_once_and_its_rows_come_later(
    path: Path, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    with held(path):
        began = time.monotonic()
        written = await asyncio.gather(*(recorder.record(exchange(number), 0.2) for number in range(300)))
        waited_s = time.monotonic() - began
    assert written == [False] * 300
    assert waited_s < SOON_S / 3
    assert recorder.failed == 300

    assert await recorder.record(exchange("next"), SOON_S)
    assert stored(path) == [*map(str, range(300)), "next"]
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.name == "gainful.proxy"
    written = json.loads(Line().format(line))
    assert (written["event"], written["replies"]) == ("replies go out before they are stored", 1)
    assert "is held by another process" in written["reason"]


async def test_the_time_limit_is_kept_where_the_store_says_nothing(path: Path) -> None:
    recorder = Recorder(path, busy_s=SOON_S)
    with held(path):
        assert not await recorder.record(exchange("late"), 0.05)
    assert await recorder.record(exchange("next"), SOON_S)
    recorder.close()

    assert stored(path) == ["late", "next"]


@pytest.mark.slow
async def test_what_waits_is_bounded_in_rows(path: Path) -> None:
    recorder = Recorder(path, busy_s=SOON_S)
    one = exchange()
    with held(path):
        waiting = [asyncio.create_task(recorder.record(one, SOON_S)) for _ in range(MOST_WAITING_ROWS)]
        await asyncio.sleep(0)

        assert not await recorder.record(exchange("too many"), SOON_S)
    assert all(await asyncio.gather(*waiting))
    assert await recorder.record(exchange("next"), SOON_S)
    recorder.close()

    with SQLiteStore(path) as store:
        assert store.exchange("too many") is None
        assert store.exchange_count() == MOST_WAITING_ROWS + 1


async def test_what_waits_is_bounded_in_bytes(path: Path) -> None:
    recorder = Recorder(path, busy_s=SOON_S)
    large = exchange(request={"image": "x" * (MOST_WAITING_BYTES // 4)})
    with held(path):
        waiting = [asyncio.create_task(recorder.record(large, SOON_S)) for _ in range(4)]
        await asyncio.sleep(0)

        assert [task.done() for task in waiting] == [False, False, False, True]
        assert await recorder.record(exchange("small"), 0) is False  # there is room; there is no time
    assert await asyncio.gather(*waiting) == [True, True, True, False]
    assert await recorder.record(large, SOON_S)
    recorder.close()

    assert stored(path) == ["reply"] * 3 + ["small", "reply"]


async def test_a_row_that_cannot_be_written_holds_no_other_up(
    path: Path, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [exchange("a"), exchange("bad", task="half \ud800"), exchange("b"), exchange("c", value=object())]
    with held(path):
        waiting = [asyncio.create_task(recorder.record(row, SOON_S)) for row in rows]
        await asyncio.sleep(0)

    assert await asyncio.gather(*waiting) == [True, False, True, False]
    assert stored(path) == ["a", "b"]
    assert recorder.failed == 2
    assert not [line for line in caplog.messages if "half" in line or "object" in line]


def test_a_place_that_is_no_store_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a directory; name a file in it"):
        Recorder(tmp_path)


# --- the end


async def test_closing_writes_what_waits(path: Path) -> None:
    recorder = Recorder(path)
    waiting = [asyncio.create_task(recorder.record(exchange(number), SOON_S)) for number in range(2000)]
    await asyncio.sleep(0)
    recorder.close()
    recorder.close()

    assert stored(path) == [str(number) for number in range(2000)]
    assert all(await asyncio.gather(*waiting))
    assert not await recorder.record(exchange("after the end"), SOON_S)
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]  # the log is folded in


async def test_closing_on_a_locked_store_ends_and_counts_what_is_lost(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(path, busy_s=0.05)
    with held(path):
        waiting = [asyncio.create_task(recorder.record(exchange(number), SOON_S)) for number in range(3)]
        await asyncio.sleep(0)
        recorder.close()
        assert await asyncio.gather(*waiting) == [False] * 3

    (line,) = [line for line in caplog.records if line.getMessage() == "replies were never stored"]
    assert vars(line)["replies"] == 3
    assert stored(path) == []


async def test_closing_after_a_lock_writes_all_that_waited(path: Path) -> None:
    recorder = Recorder(path, busy_s=0.05)
    with held(path):
        assert (
            await asyncio.gather(*(recorder.record(exchange(number), 0.01) for number in range(300))) == [False] * 300
        )
    recorder.close()

    assert stored(path) == [str(number) for number in range(300)]


# --- the log


PAGES_BYTES = 3 * 4096  # what one commit adds to the log, at least


def log_after_commits(path: Path, commits: int) -> int:
    """Commit one row at a time, never pausing; return the size of the log in bytes."""
    with SQLiteStore(path) as store:
        store.leave_log()
        for number in range(commits):
            store.put_exchanges([exchange(number)])
        return log_size(path)


def commits_until_log_is_a_quarter(path: Path, most: int) -> int:
    """Commit one row at a time, never pausing, until the log holds less than a quarter of what was committed."""
    with SQLiteStore(path) as store:
        store.leave_log()
        for number in range(most):
            store.put_exchanges([exchange(number)])
            if number >= 1000 and log_size(path) < number * PAGES_BYTES / 4:
                return number + 1
    raise AssertionError(f"after {most} commits the log still holds over a quarter of them")


def test_a_log_that_nobody_keeps_holds_every_commit(path: Path) -> None:
    assert log_after_commits(path, 1000) > 1000 * PAGES_BYTES


def test_the_log_stays_short_though_the_writer_never_pauses(path: Path) -> None:
    keeper = LogKeeper(path, "normal", every_s=0.02, most_pages=100)
    commits = commits_until_log_is_a_quarter(path, most=50_000)  # a busy machine wakes the keeper late
    keeper.close()
    keeper.close()

    assert len(stored(path)) == commits


def test_a_log_that_cannot_be_folded_now_is_folded_later(path: Path) -> None:
    path.mkdir()  # no store can be there
    keeper = LogKeeper(path, "normal", every_s=0.01, most_pages=10)
    time.sleep(0.1)
    path.rmdir()
    commits = commits_until_log_is_a_quarter(path, most=50_000)
    keeper.close()

    assert len(stored(path)) == commits


async def test_no_commit_of_the_recorder_folds_the_log(path: Path, recorder: Recorder) -> None:
    longest = 0
    for number in range(600):
        assert await recorder.record(exchange(number), SOON_S)
        longest = max(longest, log_size(path))

    assert longest > 1.2 * 1000 * 4096  # at 1,000 pages SQLite would have done so


# --- other processes


class Serving:
    """A process with a recorder on the store at *path* that runs *code*; what it prints is its lines."""

    def __init__(self, path: Path, code: str) -> None:
        setup = f"""
            import asyncio, os, random, resource, sys
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            import msgspec
            from exchanges import ordinary_exchange
            from gainful.proxy.recorder import Recorder
            rng = random.Random(0)
            def exchange(name):
                return msgspec.structs.replace(ordinary_exchange(rng), id=str(name))
        """
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(setup) + textwrap.dedent(code), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


UNDER_LOAD = """
    async def caller(recorder, number):
        for step in range(10**9):
            name = f"{os.getpid()}-{number}-{step}"
            if await recorder.record(exchange(name), 60):
                os.write(1, f"{name}\\n".encode())
    async def serve():
        recorder = Recorder(sys.argv[1])
        await asyncio.gather(*(caller(recorder, number) for number in range(20)))
    asyncio.run(serve())
"""


def kill_under_load(path: Path, seed: int, kills: int) -> None:
    rng = random.Random(seed)
    acknowledged: list[str] = []
    for _ in range(kills):
        with Serving(path, UNDER_LOAD) as first, Serving(path, UNDER_LOAD) as second:
            for serving in (first, second):
                acknowledged += [serving.output.readline().strip() for _ in range(rng.randrange(1, 400))]
                serving.process.kill()
                acknowledged += [line.strip() for line in serving.output if line.endswith("\n")]  # said before it died

        there = set(stored(path))
        assert [name for name in acknowledged if name not in there] == []
    assert len(acknowledged) > kills


@pytest.mark.slow
def test_whatever_was_acknowledged_survives_kill_9_of_both_processes(path: Path) -> None:
    kill_under_load(path, seed=0, kills=1)


@pytest.mark.slow
def test_whatever_was_acknowledged_survives_kill_9_at_ten_moments(path: Path) -> None:
    kill_under_load(path, seed=1, kills=10)


@pytest.mark.slow
def test_two_recorders_share_one_store(path: Path) -> None:
    serving = """
        async def serve():
            recorder = Recorder(sys.argv[1])
            for step in range(100):
                written = await asyncio.gather(*(recorder.record(exchange(os.getpid()), 60) for _ in range(5)))
                assert all(written)
            recorder.close()
            print(os.getpid(), recorder.failed)
        asyncio.run(serve())
    """
    with Serving(path, serving) as first, Serving(path, serving) as second:
        ends = [one.output.read().split() for one in (first, second)]

    names = [str(one.process.pid) for one in (first, second)]
    assert ends == [[name, "0"] for name in names]
    assert sorted(stored(path)) == sorted(names * 500)


@pytest.mark.slow
def test_a_full_disk_fails_at_once_and_is_recovered_from(path: Path) -> None:
    """A real limit on the size of files, lifted later; the write-ahead log is what hits it."""
    serving = """
        async def serve():
            recorder = Recorder(sys.argv[1])
            _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, most))
            number = 0
            while await recorder.record(exchange(number), 60):
                number += 1
            print(number, recorder.failed)
            for late in range(number + 1, number + 4):
                print(await recorder.record(exchange(late), 60))
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            while not await recorder.record(exchange("well again"), 60):
                pass
            recorder.close()
        asyncio.run(asyncio.wait_for(serve(), 50))
        print("done")
    """
    with Serving(path, serving) as full:
        count, failed, *rest = full.output.read().split()

    assert failed == "1"
    assert int(count) > 5
    assert rest == ["False"] * 3 + ["done"]
    names = stored(path)
    assert names[: int(count) + 4] == [str(number) for number in range(int(count) + 4)]
    assert set(names[int(count) + 4 :]) == {"well again"}
