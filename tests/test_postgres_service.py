"""Servers, watchers and the command line of several processes on one PostgreSQL store, as on several machines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from postgres import Cluster
from test_proxy_process import Server, served, task, until, workers_of

from gainful.store import open_store

__all__ = ["task"]  # a fixture

pytestmark = pytest.mark.slow


def gainful(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gainful.cli", *words]
    environment = {**os.environ, "HOME": str(home), "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}  # no model is asked
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def tells(said: str) -> bool:
    """Whether a password of the tests' server is in what was said."""
    return "s@cret" in said or "s%40cret" in said


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


async def test_a_server_of_two_workers_and_a_watcher_elsewhere_share_one_store(task: Path, postgres: Cluster) -> None:
    address = postgres.store()
    async with served(task, "--workers", "2", store=address) as server:
        watching = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gainful.cli", "watch", str(task), "--model", "openai:m", "--store", address),
            stderr=subprocess.PIPE,
            env={**os.environ, "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"},  # no model is asked
        )
        try:
            replies = [await server.ask() for _ in range(30)]
            async with server.http.post(f"{server.url}/v1/feedback", json={"id": replies[0], "score": 0}) as told:
                assert told.status == 200, await told.text()
            with open_store(address) as store:

                async def learned() -> bool:
                    return sum(tally.requests for tally in store.tallies("talk")) == 30

                await until(learned)
                assert store.champion("talk") is not None
                assert store.feedback(replies[0])[0].score == 0
            assert server.stored() == set(replies)
            for pid in workers_of(server):
                assert not tells(command_line(pid))
        finally:
            watching.terminate()
            _, said = await watching.communicate()
        assert watching.returncode == 0, said
        assert not tells(said.decode())


async def test_every_reply_that_arrived_is_in_the_store_after_kill_9(task: Path, postgres: Cluster) -> None:
    arrived: set[str] = set()

    async def caller(server: Server) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            while True:
                arrived.add(await server.ask())

    async with served(task, store=postgres.store()) as server:
        callers = [asyncio.create_task(caller(server)) for _ in range(16)]
        while len(arrived) < 200:
            await asyncio.sleep(0.01)
        server.process.kill()
        await asyncio.gather(*callers)
        stored = server.stored()

    assert len(arrived) >= 200
    assert arrived - stored == set()


def test_every_command_takes_the_address_of_a_store(task: Path, postgres: Cluster, tmp_path: Path) -> None:
    address, home = postgres.store(), tmp_path / "home"
    home.mkdir()
    for words in (
        ("keys", "add", "ann"),
        ("keys", "list"),
        ("watch", str(task), "--model", "openai:m", "--once"),
        ("status", "talk"),
        ("pause", "talk"),
        ("resume", "talk"),
        ("history", "talk"),
        ("lock", "talk", "-o", str(tmp_path / "champion.lock")),
        ("unlock", str(tmp_path / "champion.lock")),
        ("audit", str(task), "--model", "openai:m"),
        ("forget", "--key", "ann"),
    ):
        done = gainful(*words, "--store", address, home=home)
        assert done.returncode == 0, (words, done.stderr)
        assert not tells(done.stdout + done.stderr)

    done = gainful("report", "no such run", "--store", address, home=home)
    assert done.returncode == 2
    assert f"no run of store postgresql://127.0.0.1:{postgres.port}/postgres; give one of: none yet" in done.stderr
    assert not list(tmp_path.glob("postgresql:*"))  # nobody took the address for a path
