"""The dashboard's routes: who may look, what changes reach whom, and what becomes of a store that goes away."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from production_store import REFINE, START, TASK, Clock, lived
from serving import QUIET, serving
from test_proxy_chat import echo, talk

from gainful.core import Trial, Usage
from gainful.dashboard.app import ASSETS, KINDS, Dashboard
from gainful.dashboard.live import live_app
from gainful.models import ScriptedModel
from gainful.proxy.keys import make_key
from gainful.proxy.settings import Settings
from gainful.store import SQLiteStore, Store, Tally, open_for_reading
from gainful.tasks.serving import Method, Serving
from gainful.watch.service import Helm


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[TestServer]:
    lived(tmp_path / "store.db")
    async with TestServer(live_app(tmp_path / "store.db"), handler_cancellation=True) as server:
        yield server


async def next_event(stream: aiohttp.StreamReader) -> dict[str, object]:
    """Return the members of the next event; comments that keep a connection alive are passed over."""
    async with asyncio.timeout(10):
        while True:
            block = await stream.readuntil(b"\n\n")
            for line in block.splitlines():
                if line.startswith(b"data: "):
                    found: dict[str, object] = msgspec.json.decode(line[6:])
                    return found


async def test_the_page_and_its_files_come_from_the_package_with_a_strict_policy(live: TestServer) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(live.make_url("/")) as response:
            assert response.url.path == "/dashboard"
            page, policy = await response.text(), response.headers["Content-Security-Policy"]
        for name, kind in KINDS.items():
            async with http.get(live.make_url(f"/dashboard/assets/{name}")) as response:
                assert (response.status, response.content_type) == (200, kind)
        async with http.get(live.make_url("/dashboard/assets/..%2Fapp.py")) as response:
            assert response.status == 404

    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script>" not in page
    assert "style=" not in page


def test_all_assets_together_weigh_less_than_300_kb() -> None:
    assert sum(len((ASSETS / name).read_bytes()) for name in KINDS) < 300_000


async def test_a_picture_is_json_and_an_unknown_task_is_said_to_be_so(live: TestServer) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(live.make_url("/dashboard/tasks")) as response:
            assert await response.json() == [TASK]
        async with http.get(live.make_url(f"/dashboard/data/{TASK}")) as response:
            assert (await response.json())["task"] == TASK
            assert response.headers["Cache-Control"] == "no-store"
        async with http.get(live.make_url("/dashboard/events?task=other")) as response:
            assert response.status == 404
            assert "there is no task 'other'" in (await response.json())["error"]["message"]


@pytest.mark.parametrize(("method", "is_open"), [("reask", True), ("vote", False)])
async def test_a_correction_is_open_only_where_the_task_is_served_with_it(
    tmp_path: Path, method: Method, is_open: bool
) -> None:
    """As the server decides, and as ``gainful audit`` says."""
    task = talk(serving=Serving(methods=(method,)))
    with SQLiteStore(tmp_path / "s") as store:
        pairs = [(0.0, 1.0)] * 60 + [(1.0, 1.0)] * 40
        store.put_trials(
            Trial("talk", "scripted", "reask", f"case-{k}", before, after, Usage(calls=1), policy=task.baseline.id)
            for k, (before, after) in enumerate(pairs)
        )
    async with serving(task, ScriptedModel(echo), tmp_path / "s") as proxy:
        await proxy.ask({"messages": [{"role": "user", "content": "hi"}]})
        async with proxy.http.get(f"{proxy.url}/dashboard/data/talk") as response:
            (reask, *_) = (await response.json())["corrections"]

    assert (reask["method"], reask["n"], reask["is_open"]) == ("reask", 100, is_open)
    assert reask["why"].startswith("the task's serve.methods leaves it out") is not is_open


@pytest.mark.slow
async def test_an_event_brings_everything_first_and_then_only_what_changed(live: TestServer, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as http, http.get(live.make_url(f"/dashboard/events?task={TASK}")) as response:
        first = await next_event(response.content)
        with SQLiteStore(tmp_path / "store.db") as store:
            Helm(store, TASK, Clock(START)).pause()
        second = await next_event(response.content)

    assert response.content_type == "text/event-stream"
    assert {"quality", "moves", "policies", "trouble"} <= set(first)
    assert set(second) == {"at", "champion", "moves"}


@pytest.mark.slow
async def test_what_a_watcher_says_anew_is_an_event_and_the_same_again_is_none(
    live: TestServer, tmp_path: Path
) -> None:
    said = {"state": "waits", "why": "12 of 20 new errors", "calls_left": 90, "usd_left": None}
    async with aiohttp.ClientSession() as http, http.get(live.make_url(f"/dashboard/events?task={TASK}")) as response:
        await next_event(response.content)
        with SQLiteStore(tmp_path / "store.db") as store:
            store.put_standing(TASK, "learning", START + 60.0, said)
        second = await next_event(response.content)
        with SQLiteStore(tmp_path / "store.db") as store:
            store.put_standing(TASK, "learning", START + 64.0, said)
            Helm(store, TASK, Clock(START)).pause()
        third = await next_event(response.content)

    assert second["learning"]["why"] == "12 of 20 new errors"
    assert set(second) == {"at", "learning"}
    assert "learning" not in third


@pytest.mark.slow
async def test_one_reading_serves_all_who_look_and_none_is_made_for_nobody(tmp_path: Path) -> None:
    lived(tmp_path / "store.db")
    openings: list[float] = []

    def opened() -> Store:
        openings.append(time.monotonic())
        return open_for_reading(tmp_path / "store.db")

    app = web.Application()
    Dashboard(lambda store: store.tasks(), opened, None, with_text=True).mount(app)
    async with TestServer(app, handler_cancellation=True) as server, aiohttp.ClientSession() as http:
        url = server.make_url(f"/dashboard/events?task={TASK}")
        async with http.get(url) as one, http.get(url) as other:
            assert await next_event(one.content) == await next_event(other.content)
            openings.clear()
            await asyncio.sleep(1.5)
        looked = list(openings)
        await asyncio.sleep(1.5)

    assert 1 <= len(looked) <= 2
    assert openings == looked


@pytest.mark.slow
async def test_a_store_that_goes_away_is_said_to_be_gone_and_found_again(live: TestServer, tmp_path: Path) -> None:
    place, aside = tmp_path / "store.db", tmp_path / "aside.db"
    async with aiohttp.ClientSession() as http, http.get(live.make_url(f"/dashboard/events?task={TASK}")) as response:
        await next_event(response.content)
        place.rename(aside)
        gone = await next_event(response.content)
        async with http.get(live.make_url(f"/dashboard/data/{TASK}")) as refused:
            assert refused.status == 503
        assert not place.exists()
        aside.rename(place)
        back = await next_event(response.content)

    assert "there is no store at" in str(gone["trouble"])
    assert set(gone) == {"trouble"}
    assert back["trouble"] is None


@pytest.mark.slow
async def test_a_fault_of_ours_is_told_too_and_does_not_end_the_stream(tmp_path: Path) -> None:
    """Else the page would show old numbers as if they were new."""
    lived(tmp_path / "store.db")
    openings = iter([open_for_reading, open_for_reading, len, open_for_reading])

    def opened() -> Store:
        return next(openings)(tmp_path / "store.db")  # type: ignore[arg-type, return-value]

    app = web.Application()
    Dashboard(lambda store: store.tasks(), opened, None, with_text=True).mount(app)
    async with (
        TestServer(app, handler_cancellation=True) as server,
        aiohttp.ClientSession() as http,
        http.get(server.make_url(f"/dashboard/events?task={TASK}")) as response,
    ):
        await next_event(response.content)
        told = await next_event(response.content)
        again = await next_event(response.content)

    assert told["trouble"] == "the picture of it could not be made (TypeError); the server's log has the kind"
    assert again["trouble"] is None


async def test_streams_end_with_the_server(tmp_path: Path) -> None:
    lived(tmp_path / "store.db")
    runner = web.AppRunner(live_app(tmp_path / "store.db"), shutdown_timeout=30.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/dashboard/events?task={TASK}"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        await next_event(response.content)
        began_s = time.monotonic()
        await runner.cleanup()

    assert time.monotonic() - began_s < 5


async def test_another_sites_page_cannot_read_through_the_browser(live: TestServer) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.get(live.make_url(f"/dashboard/data/{TASK}"), headers={"Host": "evil.example"}) as response,
    ):
        assert response.status == 403
        assert "localhost alone" in (await response.json())["error"]["message"]


# --- in the proxy


@pytest.mark.slow
async def test_the_proxy_asks_for_a_key_where_it_asks_for_one_elsewhere(tmp_path: Path) -> None:
    settings = Settings(keep_alive_s=QUIET.keep_alive_s, require_keys=True)
    secret, key = make_key("me", at=0.0)
    with SQLiteStore(tmp_path / "s") as store:
        store.put_key(key)
    async with serving(talk(), ScriptedModel(echo), tmp_path / "s", settings) as proxy:
        statuses = {}
        for path in ("", "/tasks", "/data/talk", "/events?task=talk"):
            async with proxy.http.get(f"{proxy.url}/dashboard{path}") as response:
                statuses[path] = response.status
        bearer = {"Authorization": f"Bearer {secret}", "Host": "gainful.example"}
        asked = {"model": proxy.model, "messages": [{"role": "user", "content": "hello"}]}
        async with proxy.http.post(f"{proxy.url}/v1/chat/completions", json=asked, headers=bearer) as response:
            assert response.status == 200
        async with proxy.http.get(f"{proxy.url}/dashboard/data/talk", headers=bearer) as response:
            picture = await response.json()

    assert statuses == {"": 200, "/tasks": 401, "/data/talk": 401, "/events?task=talk": 401}
    assert picture["task"] == "talk"
    assert not picture["has_text"]  # a key lets one call, not read what others said


@pytest.mark.slow
async def test_what_is_served_shows_on_the_proxys_dashboard(tmp_path: Path) -> None:
    async with (
        serving(talk(), ScriptedModel(echo), tmp_path / "s") as proxy,
        proxy.http.get(f"{proxy.url}/dashboard/events?task=talk") as response,
    ):
        await next_event(response.content)
        with SQLiteStore(tmp_path / "s") as store:
            tally = Tally(hour=START // 3600, policy=REFINE.id, arm="champion", requests=5, known=4, right=3.0)
            store.take_in("talk", "tallies", 1, (), [tally])
        changed = await next_event(response.content)

    assert {"quality", "spend"} <= set(changed)


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["full", "hash", "none"])
async def test_a_prompt_is_shown_only_where_prompts_are_stored_in_full(tmp_path: Path, stored: str) -> None:
    """The store is one in which they were once stored in full; what counts is what the server does now."""
    lived(tmp_path / "s", words="xyzzy")
    task = replace(talk(), name=TASK)
    settings = Settings(keep_alive_s=QUIET.keep_alive_s, store_prompts=stored)  # type: ignore[arg-type]
    async with (
        serving(task, ScriptedModel(echo), tmp_path / "s", settings) as proxy,
        proxy.http.get(f"{proxy.url}/dashboard/data/{TASK}") as response,
    ):
        told = await response.text()

    assert ("xyzzy" in told) == (stored == "full")


# --- on the command line


@pytest.mark.slow
def test_report_live_shows_a_store_until_it_is_told_to_stop_and_writes_nothing(tmp_path: Path) -> None:
    lived(tmp_path / "store.db")
    before = (tmp_path / "store.db").read_bytes()
    command = [sys.executable, "-m", "gainful.cli", "report", "--live", tmp_path / "store.db", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        with urllib.request.urlopen(f"{address}/data/{TASK}") as response:
            picture = msgspec.json.decode(response.read())
        server.send_signal(signal.SIGTERM)

    assert server.returncode == 0
    assert picture["task"] == TASK
    assert (tmp_path / "store.db").read_bytes() == before
