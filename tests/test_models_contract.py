"""What every model promises, run on each implementation."""

import json
import pickle
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from aiohttp.test_utils import TestServer
from model_servers import ChatServer

from gainful.core import JsonObject, Model, ModelError, StreamingModel, canonical
from gainful.models import OpenAIModel, ScriptedModel, connect

BODY: JsonObject = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8, "temperature": 0}


@pytest.fixture(params=["scripted", "openai", pytest.param("embedded", marks=pytest.mark.slow)])
async def model(request: pytest.FixtureRequest) -> AsyncIterator[StreamingModel]:
    if request.param == "openai":
        async with TestServer(ChatServer().app) as server:
            served = OpenAIModel("small", str(server.make_url("/v1")), "key")
            yield served
            await served.close()
    else:
        other = connect("embedded") if request.param == "embedded" else ScriptedModel(lambda body, sample: "hello")
        yield other
        await other.close()


async def test_a_reply_has_a_message_and_counts_its_tokens(model: StreamingModel) -> None:
    reply = await model.complete(BODY)

    assert reply.message["role"] == "assistant"
    assert reply.message["content"]
    assert reply.usage.calls == 1
    assert reply.usage.prompt_tokens > 0
    assert reply.usage.completion_tokens > 0


async def test_identity_is_canonical_json_and_stays(model: StreamingModel) -> None:
    before = canonical(model.identity)

    await model.complete(BODY)

    assert canonical(model.identity) == before


async def test_a_request_is_not_changed_by_asking(model: StreamingModel) -> None:
    body = {**BODY, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "integer"}}}}
    before = canonical(body)

    await model.complete(body)

    assert canonical(body) == before


async def test_a_closed_model_answers_again(model: StreamingModel) -> None:
    await model.complete(BODY)
    await model.close()

    assert (await model.complete(BODY)).message["content"]


async def chunks(model: StreamingModel, body: JsonObject) -> list[JsonObject]:
    async with aclosing(model.stream(body)) as payloads:
        return [json.loads(payload) async for payload in payloads]


async def test_a_stream_comes_to_an_end_that_says_why(model: StreamingModel) -> None:
    choices = [chunk["choices"][0] for chunk in await chunks(model, BODY) if chunk["choices"]]

    assert choices[0]["delta"]["role"] == "assistant"
    assert "".join(choice["delta"].get("content") or "" for choice in choices)
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] in (["stop"], ["length"])


async def test_a_stream_counts_its_tokens_where_that_is_asked_for(model: StreamingModel) -> None:
    usage = (await chunks(model, {**BODY, "stream_options": {"include_usage": True}}))[-1]["usage"]

    assert usage["prompt_tokens"] > 0
    assert usage["completion_tokens"] > 0


async def test_a_stream_that_is_left_early_leaves_the_model_in_order(model: StreamingModel) -> None:
    for _ in range(model.concurrency + 1):
        async with aclosing(model.stream(BODY)) as payloads:
            await anext(payloads)

    assert (await model.complete(BODY)).message["content"]
    assert await chunks(model, BODY)


async def test_a_request_is_not_changed_by_streaming(model: StreamingModel) -> None:
    before = canonical(BODY)

    await chunks(model, BODY)

    assert canonical(BODY) == before


async def test_every_model_is_a_model(model: StreamingModel) -> None:
    assert isinstance(model, Model)
    assert model.name
    assert model.concurrency >= 1


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(ModelError("where; what to do", status=429, said={"a": 1}, retry_after_s=2.0)))

    assert str(error) == "where; what to do"
    assert (error.status, error.said, error.retry_after_s) == (429, {"a": 1}, 2.0)


def test_importing_models_loads_neither_llama_cpp_nor_the_hub() -> None:
    import subprocess
    import sys

    code = "import sys, gainful.models; print({'xllamacpp', 'huggingface_hub'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "set()"
