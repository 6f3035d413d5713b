"""A server that improves while it serves: the watcher beside its workers, and the watcher on its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_proxy_process import Server, all_gone, refused, served, task, until, workers_of
from worlds import scripted, sums

from gainful import proxy
from gainful.core import ServeError
from gainful.proxy.companion import FIRST_PAUSE_S, LONGEST_PAUSE_S, NICE, STEADY_S, Companion
from gainful.proxy.desk import Plan
from gainful.proxy.settings import Settings
from gainful.store import open_store
from gainful.watch.service import watch_lease

__all__ = ["task"]  # a fixture


MOST_NICE = 19


def watcher_of(server: Server) -> int | None:
    """The process that watches, by its lease."""
    with open_store(server.store) as opened:
        lease = opened.find_lease(watch_lease("talk"))
    return int(lease.holder.split()[1]) if lease else None


async def watched(server: Server) -> int:
    """Wait for the watcher's first round."""

    async def watches() -> bool:
        return watcher_of(server) is not None

    await until(watches)
    watcher = watcher_of(server)
    assert watcher is not None
    return watcher


def nice(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16])


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_watcher_goes_along_gives_way_and_ends_with_its_server(task: Path, workers: str) -> None:
    async with served(task, "--improve", "--workers", workers) as server:
        watcher, children = await watched(server), workers_of(server)
        await server.ask()
        assert watcher in children
        assert len(children) == int(workers) + 1
        assert [nice(pid) for pid in children if pid != watcher] == [nice(server.process.pid)] * int(workers)
        assert nice(watcher) == min(NICE + nice(server.process.pid), MOST_NICE)
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, 30) == 0
        assert await all_gone(children)


@pytest.mark.slow
async def test_a_watcher_that_dies_is_started_again_while_the_server_answers(task: Path) -> None:
    async with served(task, "--improve") as server:
        watcher, before = await watched(server), workers_of(server)

        async def is_whole_again() -> bool:
            now = workers_of(server)
            return len(now) == 2 and watcher not in now

        os.kill(watcher, signal.SIGKILL)
        ids = {await server.ask() for _ in range(20)}
        await until(is_whole_again)

        assert len(ids) == 20
        assert set(before) - {watcher} < set(workers_of(server))


@pytest.mark.slow
async def test_neither_worker_nor_watcher_outlives_a_server_that_was_killed(task: Path) -> None:
    async with served(task, "--improve") as server:
        await watched(server)
        left = workers_of(server)
        server.process.kill()
        await until(lambda: all_gone(left), 30)

    assert len(left) == 2


@pytest.mark.slow
async def test_a_watcher_that_is_another_process_learns_of_what_a_server_answers(task: Path) -> None:
    async with served(task) as server:
        for _ in range(5):
            await server.ask()
    command = [sys.executable, "-m", "gainful.cli", "watch", str(task), "--model", "openai:m", "--once"]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--store",
        str(server.store),
        stderr=subprocess.PIPE,
        env={**os.environ, "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"},  # no model is asked
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 0, said
    with open_store(server.store) as store:
        assert sum(tally.requests for tally in store.tallies("talk")) == 5
        assert store.champion("talk") is not None
        assert store.find_lease(watch_lease("talk")) is None  # the next one need not wait


def limit_money(task: Path) -> None:
    task.write_text(task.read_text() + "[improve]\nusd_per_day = 5.0\n")


@pytest.mark.slow
async def test_what_a_call_costs_is_known_to_a_watcher_that_is_told(task: Path) -> None:
    limit_money(task)
    async with served(task, "--improve", "--price", "1,2") as server:
        await watched(server)  # without a price it would not begin
        server.process.terminate()
        await asyncio.to_thread(server.process.wait, 30)
        command = [sys.executable, "-m", "gainful.cli", "watch", str(task), "--model", "openai:m", "--once"]
        ended = []
        for more in ([], ["--price", "1,2"]):
            process = await asyncio.create_subprocess_exec(
                *command,
                *more,
                "--store",
                str(server.store),
                stderr=subprocess.PIPE,
                env={**os.environ, "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"},
            )
            _, said = await asyncio.wait_for(process.communicate(), 60)
            ended.append((process.returncode, b"what a call costs is not known; give --price" in said))

    assert ended == [(2, True), (0, False)]


@pytest.mark.slow
def test_a_server_refuses_a_limit_on_money_that_its_watcher_could_not_keep(task: Path) -> None:
    limit_money(task)

    assert "improve.usd_per_day limits money" in refused(task, "--port", "0", "--improve")


class Hours:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.slow
def test_one_that_cannot_start_is_tried_again_after_pauses_that_grow(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = Hours()
    companion = Companion(Plan((str(tmp_path / "nowhere.toml"),), "openai:m", str(tmp_path / "s"), Settings()), clock)

    def ended() -> None:
        companion.look(is_wanted=True)
        assert companion.process is not None
        companion.process.join(60)
        assert companion.process.exitcode == 2

    ended()
    for pause_s in (FIRST_PAUSE_S, 2 * FIRST_PAUSE_S):
        companion.look(is_wanted=True)
        clock.now_s += pause_s - 0.01
        companion.look(is_wanted=True)
        assert companion.process is None
        clock.now_s += 0.01
        ended()
    clock.now_s += STEADY_S
    companion.look(is_wanted=True)
    clock.now_s += FIRST_PAUSE_S
    companion.look(is_wanted=True)
    assert companion.process is not None  # whoever lived long died of something new
    companion.look(is_wanted=False)
    companion.close()

    assert not companion.process.is_alive()
    assert "nowhere.toml" in capfd.readouterr().err
    assert FIRST_PAUSE_S < LONGEST_PAUSE_S


def test_a_watcher_takes_words_alone(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="name task and model in words"):
        proxy.serve(sums(), scripted(), tmp_path / "store.db", Settings(improve=True, port=0))
