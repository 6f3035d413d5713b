"""The real model in this process: SmolLM2-135M-Instruct through llama.cpp."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gainful.core import JsonObject, ModelNotFound, Reply, RequestRefused, StreamingModel
from gainful.models import SMOLLM2, EmbeddedModel, OpenAIModel, wheel_file

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

BODY: JsonObject = {"messages": [{"role": "user", "content": "Name a fruit."}], "max_tokens": 24, "temperature": 0}
FRUIT = {
    "type": "object",
    "properties": {"fruit": {"type": "string", "maxLength": 12}, "ripe": {"type": "boolean"}},
    "required": ["fruit", "ripe"],
}
RULES = "You answer in one word, and you never explain what you have answered. " * 8


@pytest.fixture(scope="module")
def gguf() -> Path:
    return wheel_file(**SMOLLM2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(gguf: Path) -> AsyncIterator[EmbeddedModel]:
    embedded = EmbeddedModel(gguf)
    yield embedded
    await embedded.close()


def schema(value: JsonObject) -> JsonObject:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": value}}}


def timings(reply: Reply) -> Any:
    return reply.body["timings"]


async def test_a_schema_is_kept_without_white_space(model: EmbeddedModel) -> None:
    text = (await model.complete({**BODY, **schema(FRUIT)})).message["content"]

    assert text == json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)
    assert set(json.loads(text)) == {"fruit", "ripe"}


@pytest.mark.parametrize(
    "value",
    [
        {"type": "nonsense"},
        {"type": "string", "pattern": "^a(?=b)"},
        {"type": "string", "minLength": 9, "maxLength": 5},
    ],
)
async def test_a_schema_that_cannot_be_kept_is_refused_rather_than_ignored(
    model: EmbeddedModel, value: JsonObject
) -> None:
    with pytest.raises(RequestRefused, match="cannot keep to this JSON schema"):
        await model.complete({**BODY, **schema(value)})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, r"exceeds the available context size \(2048"),
        ({"messages": "hello"}, "Expected 'messages' to be an array"),
        ({"messages": None}, "messages"),
        ({"n": 9}, "Field 'n'"),
        ({"grammar": "root ::= missing"}, "failed to parse grammar"),
    ],
)
async def test_a_request_the_engine_will_not_take_is_refused_in_its_words(
    model: EmbeddedModel, change: JsonObject, sentence: str
) -> None:
    with pytest.raises(RequestRefused, match=sentence):
        await model.complete({**BODY, **change})


async def test_log_probabilities_come_with_the_tokens(model: EmbeddedModel) -> None:
    reply = await model.complete({**BODY, "max_tokens": 2, "logprobs": True, "top_logprobs": 3})
    tokens = reply.body["choices"][0]["logprobs"]["content"]

    assert len(tokens) == 2
    assert all(len(t["top_logprobs"]) == 3 and t["logprob"] <= 0.0 for t in tokens)


async def test_several_choices_come_for_one_request(model: EmbeddedModel) -> None:
    reply = await model.complete({**BODY, "n": 3, "temperature": 1.0, "seed": 1, "max_tokens": 4})

    assert [choice["index"] for choice in reply.body["choices"]] == [0, 1, 2]


async def test_no_path_of_this_machine_is_in_a_reply(model: EmbeddedModel, gguf: Path) -> None:
    reply = await model.complete({**BODY, "max_tokens": 1})

    assert str(gguf.parent) not in json.dumps(reply.body)


async def test_calls_at_once_compute_their_common_beginning_once(model: EmbeddedModel) -> None:
    system = {"role": "system", "content": RULES}
    bodies = [{"messages": [system, {"role": "user", "content": f"Case {n}"}], "max_tokens": 1} for n in range(8)]
    replies = await asyncio.gather(*map(model.complete, bodies))

    shared = [r for r in replies if timings(r)["cache_n"] > 100 and timings(r)["prompt_n"] < 20]
    assert len(shared) >= 7  # all but the first to come, when nobody knew yet that it would come again


async def test_a_restored_beginning_gives_the_answer_of_a_computed_one(gguf: Path) -> None:
    system = {"role": "system", "content": RULES}
    ask = {"messages": [system, {"role": "user", "content": "What is the capital of France?"}], "max_tokens": 1}
    ask |= {"logprobs": True, "top_logprobs": 1, "temperature": 0}
    shared = EmbeddedModel(gguf, slots=3)  # one computes all, one the beginning, one restores it
    both = await asyncio.gather(*(shared.complete(ask) for _ in range(3)))
    await shared.close()
    alone = EmbeddedModel(gguf, slots=1)
    first = await alone.complete(ask)
    await alone.close()
    chosen = [reply.body["choices"][0]["logprobs"]["content"][0] for reply in (*both, first)]

    assert len({token["token"] for token in chosen}) == 1
    assert max(t["logprob"] for t in chosen) - min(t["logprob"] for t in chosen) < 0.2  # batches round differently


async def test_cancelled_calls_stop_being_computed(model: EmbeddedModel) -> None:
    endless = {**BODY, "max_tokens": 1900, "ignore_eos": True}
    running = [asyncio.create_task(model.complete(endless)) for _ in range(model.concurrency)]
    await asyncio.sleep(1)
    for task in running:
        task.cancel()

    # Every slot was taken: without cancellation this would wait for thousands of tokens.
    await asyncio.wait_for(model.complete({**BODY, "max_tokens": 1}), 30)


async def streamed(model: StreamingModel, body: JsonObject) -> list[JsonObject]:
    async with aclosing(model.stream(body)) as payloads:
        return [json.loads(payload) async for payload in payloads]


def text_of(chunks: list[JsonObject]) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


async def test_a_stream_says_what_a_whole_reply_says(model: EmbeddedModel) -> None:
    whole = (await model.complete(BODY)).message["content"]

    assert text_of(await streamed(model, BODY)) == whole


async def test_a_streamed_schema_is_kept_without_white_space(model: EmbeddedModel) -> None:
    text = text_of(await streamed(model, {**BODY, **schema(FRUIT)}))

    assert text == json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)
    assert set(json.loads(text)) == {"fruit", "ripe"}


async def test_a_schema_that_cannot_be_kept_is_refused_before_the_stream_begins(model: EmbeddedModel) -> None:
    with pytest.raises(RequestRefused, match="cannot keep to this JSON schema"):
        await anext(model.stream({**BODY, **schema({"type": "string", "pattern": "^b(?=c)"})}))


@pytest.mark.parametrize("change", [{"messages": [{"role": "user", "content": "word " * 3000}]}, {"messages": None}])
async def test_a_stream_the_engine_will_not_begin_is_refused_in_its_words(
    model: EmbeddedModel, change: JsonObject
) -> None:
    with pytest.raises(RequestRefused) as caught:
        await anext(model.stream({**BODY, **change}))

    assert caught.value.status == 400
    assert caught.value.said is not None
    assert caught.value.said["error"]["message"] in str(caught.value)


async def test_closed_streams_stop_being_computed(model: EmbeddedModel) -> None:
    endless = {**BODY, "max_tokens": 1900, "ignore_eos": True}
    streams = [model.stream(endless) for _ in range(model.concurrency)]
    await asyncio.gather(*map(anext, streams))
    for stream in streams:
        await stream.aclose()

    # Every slot was taken: without cancellation this would wait for thousands of tokens.
    await asyncio.wait_for(model.complete({**BODY, "max_tokens": 1}), 30)


async def test_calls_follow_streams_on_live_connections(model: EmbeddedModel) -> None:
    """The engine hangs up after a stream: a connection that was kept would fail the next call."""
    for _ in range(3):
        await streamed(model, {**BODY, "max_tokens": 1})
        await model.complete({**BODY, "max_tokens": 1})


async def test_the_openai_client_and_the_embedded_model_read_one_protocol(model: EmbeddedModel, gguf: Path) -> None:
    import xllamacpp

    await model.complete({**BODY, "max_tokens": 1})  # llama.cpp is loaded with its threads told not to spin
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.verbosity, params.api_keys = str(gguf), 2048, -1, ["secret"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    client = OpenAIModel("any", f"{server.listening_address}/v1", "secret")
    reply = await client.complete({**BODY, "max_tokens": 2, "logprobs": True})
    with pytest.raises(RequestRefused, match="exceeds the available context size"):
        await client.complete({"messages": [{"role": "user", "content": "word " * 3000}]})
    for _ in range(3):  # the server hangs up after each stream, and the next finds another connection
        assert text_of(await streamed(client, {**BODY, "max_tokens": 2}))
    await client.close()

    assert reply.usage.completion_tokens == 2
    assert len(reply.body["choices"][0]["logprobs"]["content"]) == 2


async def test_a_damaged_file_is_told_when_it_is_loaded(gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.gguf"
    with gguf.open("rb") as whole:
        path.write_bytes(whole.read(5_000_000))
    damaged = EmbeddedModel(path)
    for _ in range(2):
        with pytest.raises(ModelNotFound, match=r"damaged\.gguf cannot be loaded: it is damaged"):
            await damaged.complete(BODY)
    await damaged.close()
