"""What happens to a stream that does not simply end well: errors, deadlines, disconnects, checks that object."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import openai
import pytest
from aiohttp.test_utils import TestServer
from model_servers import BEGUN, HELLO, ChatServer, chunk, hang, hang_up, status, streamed
from serving import QUIET, Proxy, serving
from test_proxy_chat import USER, detector, opened, talk

from gainful import checks
from gainful.core import JsonObject, Policy
from gainful.models import OpenAIModel, ScriptedModel
from gainful.models.patience import Patience
from gainful.proxy.settings import Settings
from gainful.store import open_store
from gainful.tasks import Task
from gainful.tasks.serving import Serving

pytestmark = pytest.mark.slow  # each starts a server


@asynccontextmanager
async def before(
    upstream: ChatServer, place: Path, task: Task | None = None, settings: Settings = QUIET
) -> AsyncIterator[Proxy]:
    """The proxy in front of *upstream*."""
    async with TestServer(upstream.app, handler_cancellation=True) as server:
        model = OpenAIModel("m", str(server.make_url("/v1")), "k", patience=Patience(attempts=1, timeout_s=10))
        async with serving(task or talk(), model, place, settings) as proxy:
            yield proxy
        await model.close()


def payloads(text: str) -> list[JsonObject]:
    lines = (line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: "))
    return [json.loads(line) for line in lines if line != "[DONE]"]


def content(text: str) -> str:
    chunks = (c["choices"][0]["delta"].get("content") for c in payloads(text) if c.get("choices"))
    return "".join(filter(None, chunks))


def in_mode(mode: Any, **others: Any) -> Settings:
    return msgspec.structs.replace(QUIET, stream=mode, **others)


async def test_a_passed_stream_is_byte_for_byte_the_upstreams(tmp_path: Path) -> None:
    async with before(ChatServer(streamed(*HELLO)), tmp_path / "s") as proxy:
        text = await proxy.streamed({"messages": [USER]})

    sent = [line.removeprefix("data: ").encode() for line in text.splitlines() if line.startswith("data: ")]
    assert sent == [payload for payload in HELLO if b'"choices": []' not in payload]


async def test_the_usage_that_the_caller_asked_for_comes_and_is_stored_either_way(tmp_path: Path) -> None:
    upstream = ChatServer(streamed(*HELLO), streamed(*HELLO))
    async with before(upstream, tmp_path / "s") as proxy:
        without = await proxy.streamed({"messages": [USER]})
        having = await proxy.streamed({"messages": [USER], "stream_options": {"include_usage": True}})
        stored = proxy.stored()

    assert not any("usage" in c and c["usage"] for c in payloads(without))
    assert payloads(having)[-1]["usage"]["prompt_tokens"] == 1000
    assert [s.usage.prompt_tokens for s in stored] == [1000, 1000]


@pytest.mark.parametrize("mode", ["pass", "segment"])
async def test_an_error_in_the_middle_ends_the_stream_with_an_error_event(tmp_path: Path, mode: Any) -> None:
    broken = ChatServer(streamed(*BEGUN, chunk({"content": ". One. Two. "}), then=hang_up))
    async with before(broken, tmp_path / "s", settings=in_mode(mode)) as proxy:
        text = await proxy.streamed({"messages": [USER]})
        stored = proxy.stored()

    assert text.endswith("data: [DONE]\n\n")
    assert "error" in payloads(text)[-1]
    assert stored == []


@pytest.mark.parametrize("odd", [b"[1]", b'"x"', b'{"choices": [5]}', b'{"choices": [{"index": 0}]}', b"{"])
@pytest.mark.parametrize("mode", ["pass", "segment"])
async def test_whatever_comes_in_the_middle_the_stream_ends_as_one(tmp_path: Path, mode: Any, odd: bytes) -> None:
    begun = (*BEGUN, chunk({"content": ". One. Two. "}))
    odd_one = ChatServer(streamed(*begun, odd, chunk({}, "stop"), b"[DONE]"))
    async with before(odd_one, tmp_path / "s", settings=in_mode(mode)) as proxy, asyncio.timeout(5):
        text = await proxy.streamed({"messages": [USER]})

    assert text.endswith("data: [DONE]\n\n")
    assert "HTTP/1.1" not in text


@pytest.mark.parametrize("mode", ["pass", "hold", "segment"])
async def test_an_error_before_the_first_piece_is_a_status(tmp_path: Path, mode: Any) -> None:
    async with before(ChatServer(status(400, "too long")), tmp_path / "s", settings=in_mode(mode)) as proxy:
        with pytest.raises(openai.BadRequestError, match="too long"):
            await proxy.openai().chat.completions.create(model=proxy.model, messages=[USER], stream=True)


async def test_comments_keep_a_held_stream_open(tmp_path: Path) -> None:
    settings = in_mode("hold", keep_alive_s=0.02)
    async with serving(talk(), ScriptedModel(["done."], delay_s=0.2), tmp_path / "s", settings) as proxy:
        text = await proxy.streamed({"messages": [USER]})

    assert text.startswith(": keep-alive\n\n")
    assert content(text) == "done."
    assert ": x-gainful-verdict verified" in text


async def test_a_held_stream_that_was_quick_says_all_in_its_headers(tmp_path: Path) -> None:
    async with serving(talk(), ScriptedModel(["done."]), tmp_path / "s", in_mode("hold", keep_alive_s=5)) as proxy:
        asked = {"model": proxy.model, "messages": [USER], "stream": True}
        async with proxy.http.post(f"{proxy.url}/v1/chat/completions", json=asked) as response:
            await response.read()

    assert response.headers["x-gainful-verdict"] == "verified"


@pytest.mark.parametrize("mode", ["pass", "segment"])
async def test_a_deadline_in_the_middle_ends_the_stream_as_a_length_limit_does(tmp_path: Path, mode: Any) -> None:
    slow = ChatServer(streamed(*BEGUN, then=hang))
    task = talk(serving=Serving(deadline_ms=300))
    async with before(slow, tmp_path / "s", task, in_mode(mode)) as proxy:
        text = await proxy.streamed({"messages": [USER]})
        (stored,) = proxy.stored()

    assert content(text) == "hello"
    assert payloads(text)[-1]["choices"][0]["finish_reason"] == "length"
    assert text.endswith("data: [DONE]\n\n")
    assert stored.verdict == "unverified"


@pytest.mark.parametrize("mode", ["pass", "hold", "segment"])
async def test_a_caller_who_goes_away_frees_the_upstream(tmp_path: Path, mode: Any) -> None:
    upstream = ChatServer(streamed(*BEGUN, then=hang) if mode != "hold" else hang)
    async with before(upstream, tmp_path / "s", settings=in_mode(mode)) as proxy:
        asked = {"model": proxy.model, "messages": [USER], "stream": True}
        with pytest.raises(TimeoutError):
            async with (
                asyncio.timeout(0.5),
                proxy.http.post(f"{proxy.url}/v1/chat/completions", json=asked) as response,
            ):
                await response.read()
        async with asyncio.timeout(5):
            while upstream.running or proxy.desk.admission.running:
                await asyncio.sleep(0.01)

    assert upstream.running == 0


async def test_segments_come_whole_and_add_up_to_the_text(tmp_path: Path) -> None:
    words = "One is 1.5 here. Two is there! Three?"
    async with serving(talk(), ScriptedModel([words]), tmp_path / "s", in_mode("segment")) as proxy:
        text = await proxy.streamed({"messages": [USER]})

    pieces = [c["choices"][0]["delta"].get("content") for c in payloads(text) if c.get("choices")]
    assert "".join(filter(None, pieces)) == words
    assert pieces[0] == "One is 1.5 here. "


async def test_from_a_sentence_that_a_segment_check_objects_to_on_the_rest_is_held(tmp_path: Path) -> None:
    polite = checks.Regex(pattern=r"(?s)(?!.*fool).*")
    task = talk(polite, serving=Serving(stream="segment", segment_checks=("regex",)))
    pieces = [chunk({"role": "assistant", "content": "Good day. "}), chunk({"content": "You fool. "})]
    pieces += [chunk({"content": "Go. "}), chunk({"content": "Bye."}), chunk({}, "stop"), b"[DONE]"]
    async with before(ChatServer(streamed(*pieces)), tmp_path / "s", task) as proxy:
        text = await proxy.streamed({"messages": [USER]})
        (stored,) = proxy.stored()

    sent = [c["choices"][0]["delta"].get("content") for c in payloads(text) if c.get("choices")]
    assert "".join(filter(None, sent)) == "Good day. You fool. Go. Bye."
    assert "You fool. " not in sent
    assert stored.verdict == "unverified"


@pytest.mark.slow
@pytest.mark.parametrize(("second", "verdict"), [("Good day. You friend.", "corrected"), ("You friend.", "unverified")])
async def test_a_correction_counts_only_if_it_begins_with_what_was_released(
    tmp_path: Path, second: str, verdict: str
) -> None:
    polite = checks.Regex(pattern=r"(?s)(?!.*fool).*")
    task = talk(polite, serving=Serving(stream="segment", segment_checks=("regex",), methods=("refine",)))
    with open_store(tmp_path / "s") as store:
        store.put_trials(opened("talk", "scripted", "refine"))
        store.put_detector("talk", "scripted", detector(Policy()))
    model = ScriptedModel(["Good day. Hm. You fool.", second])
    async with serving(task, model, tmp_path / "s") as proxy:
        text = await proxy.streamed({"messages": [USER]})
        (stored,) = proxy.stored()

    assert stored.verdict == verdict
    if verdict == "unverified":
        assert content(text) == "Good day. Hm. You fool."


async def test_a_slow_reader_does_not_hold_up_others(tmp_path: Path) -> None:
    async with serving(talk(), ScriptedModel(lambda b, s: "word " * 200_000), tmp_path / "s") as proxy:
        asked = {"model": proxy.model, "messages": [USER], "stream": True}
        async with (
            aiohttp.ClientSession(read_bufsize=1024) as http,
            http.post(f"{proxy.url}/v1/chat/completions", json=asked),
        ):
            code, _, _ = await proxy.ask({"messages": [USER]})

    assert code == 200
