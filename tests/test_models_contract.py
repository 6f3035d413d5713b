"""What every model promises, run on each implementation."""

import pickle
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestServer
from model_servers import ChatServer

from gainful.core import JsonObject, Model, ModelError, canonical
from gainful.models import OpenAIModel, ScriptedModel, connect

BODY: JsonObject = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8, "temperature": 0}


@pytest.fixture(params=["scripted", "openai", pytest.param("embedded", marks=pytest.mark.slow)])
async def model(request: pytest.FixtureRequest) -> AsyncIterator[Model]:
    if request.param == "openai":
        async with TestServer(ChatServer().app) as server:
            served = OpenAIModel("small", str(server.make_url("/v1")), "key")
            yield served
            await served.close()
    else:
        other = connect("embedded") if request.param == "embedded" else ScriptedModel(lambda body, sample: "hello")
        yield other
        await other.close()


async def test_a_reply_has_a_message_and_counts_its_tokens(model: Model) -> None:
    reply = await model.complete(BODY)

    assert reply.message["role"] == "assistant"
    assert reply.message["content"]
    assert reply.usage.calls == 1
    assert reply.usage.prompt_tokens > 0
    assert reply.usage.completion_tokens > 0


async def test_identity_is_canonical_json_and_stays(model: Model) -> None:
    before = canonical(model.identity)

    await model.complete(BODY)

    assert canonical(model.identity) == before


async def test_a_request_is_not_changed_by_asking(model: Model) -> None:
    body = {**BODY, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "integer"}}}}
    before = canonical(body)

    await model.complete(body)

    assert canonical(body) == before


async def test_a_closed_model_answers_again(model: Model) -> None:
    await model.complete(BODY)
    await model.close()

    assert (await model.complete(BODY)).message["content"]


async def test_every_model_is_a_model(model: Model) -> None:
    assert isinstance(model, Model)
    assert model.name
    assert model.concurrency >= 1


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(ModelError("where; what to do")))

    assert str(error) == "where; what to do"


def test_importing_models_loads_neither_llama_cpp_nor_the_hub() -> None:
    import subprocess
    import sys

    code = "import sys, gainful.models; print({'xllamacpp', 'huggingface_hub'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "set()"
