"""The server as a process: signals, workers that die, sockets, the power button."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from model_servers import ChatServer
from test_proxy_arms import blocks, seat_of, staged

from gainful.core import Exchange
from gainful.store import open_store

pytestmark = pytest.mark.slow

TASK = """
name = "talk"
cases = "cases.jsonl"
[answer]
kind = "text"
[[checks]]
kind = "exact"
"""
BODY = {"model": "gainful/talk", "messages": [{"role": "user", "content": "hi"}]}
START_S = 60.0


@pytest.fixture
def task(tmp_path: Path) -> Path:
    lines = [f'{{"input": "question {n}", "target": "answer {n}"}}' for n in range(10)]
    (tmp_path / "cases.jsonl").write_text("\n".join(lines))
    (tmp_path / "task.toml").write_text(TASK)
    return tmp_path / "task.toml"


@dataclass
class Server:
    process: subprocess.Popen[str]
    url: str
    http: aiohttp.ClientSession
    store: Path | str

    async def ask(self, **members: Any) -> str:
        async with self.http.post(f"{self.url}/v1/chat/completions", json={**BODY, **members}) as response:
            body = await response.json()
            return str(body["id"])

    def stored(self) -> set[str]:
        with open_store(self.store) as store:
            return {exchange.id for exchange in store.exchanges("talk", limit=100_000)}


@contextlib.asynccontextmanager
async def served(
    task: Path, *options: str, upstream: ChatServer | None = None, store: Path | str | None = None
) -> AsyncIterator[Server]:
    port, store = unused_port(), store or task.parent / "store.db"
    async with TestServer((upstream or numbering()).app) as behind:
        environment = {**os.environ, "OPENAI_BASE_URL": str(behind.make_url("/v1")), "OPENAI_API_KEY": "k"}
        command = [
            sys.executable,
            "-m",
            "gainful.cli",
            "serve",
            str(task),
            "--model",
            "openai:m",
            "--store",
            str(store),
        ]
        with subprocess.Popen(
            [*command, "--port", str(port), *options], env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            async with aiohttp.ClientSession() as http:
                server = Server(process, f"http://127.0.0.1:{port}", http, store)
                try:
                    await until(lambda: answers(server))
                    yield server
                finally:
                    process.kill()


def numbering() -> ChatServer:
    """An upstream whose replies have ids of their own."""
    return Numbering()


class Numbering(ChatServer):
    async def _complete(self, request: web.Request) -> web.StreamResponse:
        answered = await super()._complete(request)
        assert isinstance(answered, web.Response)
        assert answered.text is not None
        answered.text = answered.text.replace("chatcmpl-1", f"chatcmpl-{len(self.bodies)}")
        return answered


async def answers(server: Server) -> bool:
    assert server.process.poll() is None, server.process.communicate()
    with contextlib.suppress(aiohttp.ClientError):
        async with server.http.get(f"{server.url}/healthz") as response:
            return response.status == 200
    return False


async def until(happens: Callable[[], Any], within_s: float = START_S) -> None:
    async with asyncio.timeout(within_s):
        while not await happens():
            await asyncio.sleep(0.05)


async def test_a_worker_refuses_malformed_http_in_the_shape_of_all_errors(task: Path) -> None:
    async with served(task) as server:
        reader, writer = await asyncio.open_connection(*server.url.removeprefix("http://").split(":"))
        writer.write(b"nonsense\r\n\r\n")
        said = await reader.read()
        writer.close()

    assert b" 400 " in said
    assert b'"type":"invalid_request_error"' in said


async def test_every_reply_that_arrived_is_in_the_store_after_kill_9(task: Path) -> None:
    arrived: set[str] = set()

    async def caller(server: Server) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            while True:
                arrived.add(await server.ask())

    async with served(task) as server:
        callers = [asyncio.create_task(caller(server)) for _ in range(16)]
        while len(arrived) < 200:
            await asyncio.sleep(0.01)
        server.process.kill()
        await asyncio.gather(*callers)
        stored = server.stored()

    assert len(arrived) >= 200
    assert arrived - stored == set()


async def test_each_worker_has_blocks_of_its_own(task: Path) -> None:
    staged(task.parent / "store.db", 0.25)
    async with served(task, "--workers", "2") as server:

        async def both_have_answered() -> bool:
            async with aiohttp.ClientSession() as http:  # a connection is one worker's
                await asyncio.gather(*(replace(server, http=http).ask() for _ in range(6)))
            return len({seat_of(exchange).lane for exchange in exchanges()}) == 2

        def exchanges() -> list[Exchange]:
            with open_store(server.store) as store:
                return store.exchanges("talk", limit=100_000)

        await until(both_have_answered)
        for _ in range(10):
            await both_have_answered()
        found = exchanges()

    whole = blocks(found, 4)
    assert len(found) - 4 * len(whole) <= 6  # the last block of each lane may not be whole
    assert {block.count("challenger") for block in whole} == {1}


async def test_a_worker_that_dies_is_replaced_while_the_other_answers(task: Path) -> None:
    async with served(task, "--workers", "2") as server:
        first = workers_of(server)
        os.kill(first[0], signal.SIGKILL)
        await until(lambda: all_gone(first[:1]))
        async with aiohttp.ClientSession() as http:  # connections of before may have been the dead one's
            ids = [await replace(server, http=http).ask() for _ in range(20)]
        await until(lambda: is_whole_again(server, first))

    assert len(set(ids)) == 20


async def is_whole_again(server: Server, before: list[int]) -> bool:
    now = workers_of(server)
    return len(now) == 2 and before[0] not in now


def workers_of(server: Server) -> list[int]:
    """The server's children that answer; multiprocessing's own helper is none."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == server.process.pid and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return sorted(found)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_request_under_way_ends_before_the_server_does(task: Path, workers: str) -> None:
    async def slowly(_: web.Request) -> web.Response:
        await asyncio.sleep(1.0)
        return web.json_response({"id": "slow", "choices": [{"index": 0, "message": {"content": "x"}}]})

    async with served(task, "--workers", workers, upstream=ChatServer(slowly)) as server:
        asking = asyncio.create_task(server.ask())
        await asyncio.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        assert await asking == "slow"
        assert await asyncio.to_thread(server.process.wait, 30) == 0


async def test_no_worker_outlives_a_server_that_was_killed(task: Path) -> None:
    async with served(task, "--workers", "2") as server:
        left = workers_of(server)
        server.process.kill()
        await until(lambda: all_gone(left), 30)


async def all_gone(pids: list[int]) -> bool:
    return not any(is_alive(pid) for pid in pids)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""  # a zombie has none
    return False


def refused(task: Path, *options: str) -> str:
    environment = {**os.environ, "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    command = [sys.executable, "-m", "gainful.cli", "serve", str(task), "--model", "openai:m"]
    store = ["--store", str(task.parent / "other.db")]
    ended = subprocess.run(
        [*command, *store, *options], env=environment, capture_output=True, text=True, timeout=START_S, check=False
    )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    return " ".join(ended.stderr.split())


def test_a_port_in_use_is_one_sentence(task: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refused(task, "--port", str(taken.getsockname()[1]))

    assert "cannot listen" in said


def test_a_server_that_others_can_reach_needs_keys(task: Path) -> None:
    assert "gainful keys add" in refused(task, "--host", "0.0.0.0", "--port", "0")


def test_files_that_hold_no_certificate_are_one_sentence(task: Path) -> None:
    assert "are no certificate and key" in refused(
        task, "--port", "0", "--tls-certificate", str(task), "--tls-key", str(task)
    )


def test_a_task_that_cannot_be_served_is_one_sentence(task: Path) -> None:
    task.write_text(TASK + "[serve]\nextra_cost_usd = 0.1\n")

    assert "what a call costs is not known" in refused(task, "--port", "0")


def test_a_limit_on_money_without_a_price_is_one_sentence(task: Path) -> None:
    assert "what a call costs is not known" in refused(task, "--port", "0", "--max-extra-usd", "0.01")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_two_tasks_of_one_name_are_one_sentence(task: Path, workers: str) -> None:
    assert "the same name" in refused(task, str(task), "--port", "0", "--workers", workers)
