"""The OpenAI-compatible model against a real server that misbehaves as it is told."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp.test_utils import TestServer, unused_port
from model_servers import Behaviour, ChatServer, chat, cut_off, hang, hang_up, status, text

from gainful.core import ModelError, ModelNotFound, RequestRefused
from gainful.models import OpenAIModel, connect
from gainful.models.openai import Price
from gainful.models.patience import Patience

BODY = {"messages": [{"role": "user", "content": "hi"}]}
QUICK = Patience(attempts=3, base_s=0.001, cap_s=0.002, timeout_s=5.0)


@asynccontextmanager
async def served(chat_server: ChatServer, name: str = "small", **settings: Any) -> AsyncIterator[OpenAIModel]:
    async with TestServer(chat_server.app) as server:
        model = OpenAIModel(name, str(server.make_url("/v1")), "secret", **{"patience": QUICK, **settings})
        try:
            yield model
        finally:
            await model.close()


async def test_a_request_passes_through_untouched() -> None:
    server = ChatServer()
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "é\u0000"}, image]}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"maximum": 2**63 - 1}}}],
        "n": 3,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        "logprobs": True,
        "top_logprobs": 5,
        "seed": 7,
        "stop": ["\n"],
        "vendor_field": {"kept": True},
    }
    async with served(server) as model:
        reply = await model.complete(body, sample=4)

    assert server.bodies == [{**body, "model": "small"}]
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert reply.body == chat("hello")


@pytest.mark.parametrize(
    "trouble",
    [
        *map(status, (408, 409, 429, 500, 503)),
        *map(text, ("", "<html>", "[]", '{"choices": []}', '{"choices": [{}]}')),
        hang_up,
        cut_off,
    ],
)
async def test_what_time_can_cure_is_tried_again(trouble: Behaviour) -> None:
    server = ChatServer(trouble, trouble)
    async with served(server) as model:
        reply = await model.complete(BODY)

    assert reply.message["content"] == "hello"
    assert len(server.bodies) == 3


@pytest.mark.parametrize("code", [400, 413, 422])
async def test_a_refusal_is_told_at_once_in_the_servers_words(code: int) -> None:
    server = ChatServer(status(code, "too many tokens: 9000 > 4096"))
    async with served(server) as model:
        with pytest.raises(RequestRefused, match="too many tokens: 9000 > 4096"):
            await model.complete(BODY)

    assert len(server.bodies) == 1


@pytest.mark.parametrize("code", [401, 403])
async def test_a_wrong_key_is_told_at_once_without_showing_it(code: int) -> None:
    async with served(ChatServer(status(code, "bad key"))) as model:
        with pytest.raises(ModelError, match="refused the key") as caught:
            await model.complete(BODY)

    assert "secret" not in str(caught.value)
    assert not isinstance(caught.value, RequestRefused)


@pytest.mark.parametrize("answer", [status(404, "no such model"), status(400, "no", code="model_not_found")])
async def test_an_unknown_model_is_told_with_what_the_server_has(answer: Behaviour) -> None:
    async with served(ChatServer(answer), name="smal") as model:
        with pytest.raises(ModelNotFound, match="no model 'smal'; it serves large, small"):
            await model.complete(BODY)


async def test_a_server_of_something_else_is_told_as_such() -> None:
    async with TestServer(ChatServer().app) as server:
        model = OpenAIModel("small", str(server.make_url("/other")), patience=QUICK)
        with pytest.raises(ModelNotFound, match=r"has no chat completions .*; check OPENAI_BASE_URL"):
            await model.complete(BODY)
        await model.close()


async def test_an_unreachable_server_is_named_after_all_attempts() -> None:
    port = unused_port()
    model = OpenAIModel("small", f"http://127.0.0.1:{port}/v1", patience=QUICK)
    with pytest.raises(ModelError, match=rf"http://127.0.0.1:{port}/v1 cannot be reached .* gave up after 3 attempt"):
        await model.complete(BODY)
    await model.close()


async def test_a_server_that_hangs_is_left_after_the_timeout() -> None:
    patience = Patience(attempts=2, base_s=0.001, cap_s=0.001, timeout_s=0.05)
    async with served(ChatServer(hang, hang), patience=patience) as model:
        with pytest.raises(ModelError, match=r"did not answer within 0.05 s; gave up after 2 attempt"):
            await model.complete(BODY)


async def test_a_lasting_failure_ends_as_an_error_that_quotes_the_server() -> None:
    async with served(ChatServer(*[status(500, "disk on fire")] * 3)) as model:
        with pytest.raises(ModelError, match=r"answered 500: 'disk on fire'; gave up after 3 attempt"):
            await model.complete(BODY)


async def test_retry_after_is_kept_to() -> None:
    server = ChatServer(status(429, headers={"Retry-After": "0.2"}))
    async with served(server) as model:
        started = time.perf_counter()
        await model.complete(BODY)

    assert time.perf_counter() - started >= 0.2


async def test_a_wait_that_is_too_long_is_not_waited_for() -> None:
    async with served(ChatServer(status(429, headers={"Retry-After": "3600"}))) as model:
        with pytest.raises(ModelError, match="asks to wait 3600 s; gave up after 1 attempt"):
            await model.complete(BODY)


async def test_concurrency_falls_when_turned_away_and_never_exceeds_its_limit() -> None:
    server = ChatServer(status(429))
    async with served(server, concurrency=4) as model:
        await model.complete(BODY)
        await asyncio.gather(*(model.complete(BODY) for _ in range(20)))

    assert len(server.bodies) == 22
    assert 1 <= server.most_running <= 4


async def test_cost_is_known_where_a_price_is_and_unknown_elsewhere() -> None:
    async with served(ChatServer(), price=Price(prompt_usd=2.0, completion_usd=6.0)) as model:
        priced = await model.complete(BODY)
    async with served(ChatServer()) as model:
        unpriced = await model.complete(BODY)

    assert priced.cost_usd == pytest.approx(0.002 + 0.003)
    assert unpriced.cost_usd is None


def test_identity_holds_no_credentials() -> None:
    model = OpenAIModel("m", "https://user:pw@host.example:8000/v1/?key=abc", "secret")

    assert model.identity == {"engine": "openai", "base_url": "https://host.example:8000/v1", "model": "m"}


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://", ""])
def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ModelNotFound, match="is no HTTP address"):
        OpenAIModel("m", url)


def test_connect_takes_url_and_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1/")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    model = connect("openai:qwen/qwen3:0.6b", concurrency=500)

    assert model.concurrency == 500
    assert model.identity == {
        "engine": "openai",
        "base_url": "http://localhost:8000/v1",
        "model": "qwen/qwen3:0.6b",
    }


def test_connect_without_url_and_key_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    with pytest.raises(ModelNotFound, match="set OPENAI_BASE_URL"):
        connect("openai:m")


@pytest.mark.parametrize("spec", ["", "gpt-4", "openai:", "gguf:", "hf:owner/name", "embedded:x"])
def test_connect_names_what_it_knows(spec: str) -> None:
    with pytest.raises(ModelNotFound, match="unknown model"):
        connect(spec)
