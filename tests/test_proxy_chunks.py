"""Replies taken apart into chunks and put together, by us and by the official client."""

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from model_servers import ChatServer, streamed

from gainful.core import JsonObject
from gainful.proxy.chunks import Assembler, split


def assembled(chunks: list[JsonObject]) -> JsonObject:
    assembler = Assembler()
    for chunk in chunks:
        assembler.feed(json.loads(json.dumps(chunk)))
    return assembler.body()


def deltas(*deltas: JsonObject, index: int = 0) -> list[JsonObject]:
    return [{"choices": [{"index": index, "delta": delta, "finish_reason": None}]} for delta in deltas]


def message(*of_deltas: JsonObject) -> JsonObject:
    found: JsonObject = assembled(deltas(*of_deltas))["choices"][0]["message"]
    return found


# --- there and back -------------------------------------------------------------------------------------

TEXTS = st.text(max_size=150)
CALLS = st.fixed_dictionaries(
    {
        "id": st.text(min_size=1, max_size=8),
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": st.text(max_size=9), "arguments": TEXTS}),
    }
) | st.fixed_dictionaries(
    {"id": st.text(max_size=8), "type": st.just("custom"), "custom": st.fixed_dictionaries({"input": TEXTS})}
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | TEXTS},
    optional={
        "refusal": st.none() | TEXTS,
        "reasoning_content": st.none() | TEXTS,
        "tool_calls": st.none() | st.lists(CALLS, max_size=3),
        "annotations": st.lists(st.fixed_dictionaries({"type": st.just("url_citation")}), max_size=2),
        "audio": st.none() | st.fixed_dictionaries({"id": st.just("a"), "data": TEXTS, "expires_at": st.integers()}),
        "x_unknown": st.none() | st.booleans() | st.integers() | TEXTS,
    },
)
TOKENS = st.lists(st.fixed_dictionaries({"token": st.text(), "logprob": st.floats(-9, 0)}), max_size=3)
LOGPROBS = st.none() | st.fixed_dictionaries({"content": st.none() | TOKENS}, optional={"refusal": st.none() | TOKENS})


@st.composite
def replies(draw: st.DrawFn) -> JsonObject:
    choices = [
        {
            "index": index,
            "message": draw(MESSAGES),
            "finish_reason": draw(st.sampled_from(["stop", "length", "tool_calls", None])),
            **draw(st.fixed_dictionaries({}, optional={"logprobs": LOGPROBS, "x_matched": st.integers()})),
        }
        for index in range(draw(st.integers(0, 3)))
    ]
    head = st.fixed_dictionaries(
        {"id": st.just("chatcmpl-1"), "created": st.integers(), "model": st.text()},
        optional={"system_fingerprint": st.none() | st.text(), "timings": st.just({"predicted_n": 3})},
    )
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 1}}
    return {**draw(head), "object": "chat.completion", "choices": choices, "usage": usage}


@given(replies())
def test_a_reply_taken_apart_and_put_together_is_the_reply(reply: JsonObject) -> None:
    before = json.dumps(reply)

    assert assembled(split(reply, True)) == reply
    assert json.dumps(reply) == before


@given(replies(), st.booleans())
def test_chunks_have_the_form_of_a_stream(reply: JsonObject, include_usage: bool) -> None:
    chunks = split(reply, include_usage)
    with_choice = [chunk for chunk in chunks if chunk["choices"]]

    assert all(chunk["object"] == "chat.completion.chunk" and chunk["id"] == reply["id"] for chunk in chunks)
    assert all(len(chunk["choices"]) == 1 for chunk in with_choice)
    assert [chunk["usage"] for chunk in chunks[len(with_choice) :]] == [reply["usage"]] * include_usage
    assert {chunk.get("usage", "none") for chunk in with_choice} <= {None if include_usage else "none"}
    for index, choice in enumerate(reply["choices"]):
        own = [chunk["choices"][0] for chunk in with_choice if chunk["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert [piece["finish_reason"] for piece in own] == [None] * (len(own) - 1) + [choice["finish_reason"]]


@given(replies(), st.data())
def test_chunks_of_several_choices_may_come_in_any_order_among_them(reply: JsonObject, data: st.DataObject) -> None:
    chunks = split(reply, True)
    queues = [[c for c in chunks if c["choices"] and c["choices"][0]["index"] == i] for i in range(3)]
    mixed = []
    while any(queues):
        mixed.append(data.draw(st.sampled_from([queue for queue in queues if queue])).pop(0))

    assert assembled([*mixed, chunks[-1]] if mixed else chunks) == reply


def test_content_comes_in_pieces() -> None:
    reply = {"choices": [{"message": {"role": "assistant", "content": "word " * 100}, "finish_reason": "stop"}]}

    assert len(split(reply, False)) > 5


# --- what servers really send ---------------------------------------------------------------------------


def call(index: int | None, **members: Any) -> JsonObject:
    return {"tool_calls": [members if index is None else {"index": index, **members}]}


def test_parallel_tool_calls_are_told_apart_by_their_index() -> None:
    found = message(
        call(1, id="b", type="function", function={"name": "g", "arguments": ""}),
        call(0, id="a", type="function", function={"name": "f", "arguments": '{"x'}),
        call(1, function={"arguments": "{}"}),
        call(0, function={"arguments": '": 1}'}),
    )

    assert found["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert found["content"] is None


@pytest.mark.parametrize("index", [0, None])
def test_a_server_that_repeats_id_and_name_in_every_piece_is_understood(index: int | None) -> None:
    pieces = [call(index, id="a", type="function", function={"name": "f", "arguments": piece}) for piece in ("{", "}")]

    assert message(*pieces)["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]


def test_calls_without_an_index_begin_with_an_id_of_their_own() -> None:
    pieces = [call(None, id="a", function={"name": "f", "arguments": "{"}), call(None, function={"arguments": "}"})]
    found = message(*pieces, call(None, id="b", function={"name": "f", "arguments": "[]"}))

    assert [c["function"]["arguments"] for c in found["tool_calls"]] == ["{}", "[]"]


def test_a_function_call_of_the_former_protocol_is_joined() -> None:
    found = message({"function_call": {"name": "f", "arguments": "{"}}, {"function_call": {"arguments": "}"}})

    assert found["function_call"] == {"name": "f", "arguments": "{}"}


def test_thoughts_and_texts_that_nobody_knows_are_joined() -> None:
    found = message({"reasoning_content": "th", "x": "a"}, {"reasoning_content": "ink", "x": "b"}, {"content": "so"})

    assert found == {"role": "assistant", "content": "so", "reasoning_content": "think", "x": "ab"}


def test_null_and_empty_replace_nothing() -> None:
    said = message(
        {"role": "assistant", "content": "hi", "refusal": None}, {"role": "", "content": None, "audio": None}
    )
    chunks = [{"id": "1", "model": "m", "choices": []}, {"id": "", "model": None, "usage": {"x": 1}}, {"usage": None}]

    assert said == {"role": "assistant", "content": "hi", "refusal": None, "audio": None}
    assert assembled(chunks) == {"id": "1", "model": "m", "object": "chat.completion", "choices": [], "usage": {"x": 1}}


def test_log_probabilities_of_all_pieces_are_in_the_reply() -> None:
    chunks = deltas({"content": "a"}, {"content": "b"}, {})
    for chunk, logprobs in zip(chunks, ({"content": [1]}, {"content": [2, 3], "refusal": None}, None), strict=True):
        chunk["choices"][0]["logprobs"] = logprobs

    assert assembled(chunks)["choices"][0]["logprobs"] == {"content": [1, 2, 3], "refusal": None}


def test_a_character_cut_in_two_is_one_again_and_half_of_one_is_marked() -> None:
    assert message({"content": "\ud83d"}, {"content": "\ude00!"})["content"] == "😀!"
    assert message({"content": "a\ud83d"}, {"content": "b"})["content"] == "a\ufffdb"


def test_the_reply_can_be_read_before_its_end() -> None:
    assembler = Assembler()
    for number, chunk in enumerate(deltas({"content": "a"}, {"content": "b"}, {"annotations": [1]})):
        assembler.feed(chunk)
        assert assembler.body()["choices"][0]["message"]["content"] == "ab"[: number + 1]


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "tool_calls", "index", "function", "usage", "logprobs"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.sampled_from(["choices", "usage", "id"]), ODD), max_size=4))
def test_no_chunk_makes_it_raise(chunks: list[JsonObject]) -> None:
    assert isinstance(assembled(chunks)["choices"], list)


# --- the official client --------------------------------------------------------------------------------

CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"city": "' + "Zürich " * 20 + '"}'}}
TOKEN = {"token": "T", "logprob": -0.5, "bytes": [84], "top_logprobs": []}
FOR_CLIENTS: list[list[JsonObject]] = [
    [{"message": {"role": "assistant", "content": "The sky 😀 is blue. " * 20, "refusal": None},
      "finish_reason": "stop"}],
    [{"message": {"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "b"}]},
      "finish_reason": "tool_calls"}],
    [{"message": {"role": "assistant", "content": "", "refusal": "I cannot."}, "finish_reason": "stop"}],
    [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop",
      "logprobs": {"content": [TOKEN], "refusal": None}} for text in ("one", "two", "")],
]  # fmt: skip


@pytest.fixture(params=FOR_CLIENTS, ids=["text", "tools", "refusal", "several"])
async def reply_and_client(request: pytest.FixtureRequest) -> AsyncIterator[tuple[JsonObject, openai.AsyncOpenAI]]:
    choices = [{"index": index, **choice} for index, choice in enumerate(request.param)]
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    reply = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": choices,
        "usage": usage,
    }
    sent = [json.dumps(chunk).encode() for chunk in split(reply, True)]
    async with (
        TestServer(ChatServer(streamed(*sent, b"[DONE]", piece=11)).app) as server,
        openai.AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="k", max_retries=0) as client,
    ):
        yield reply, client


def is_within(part: Any, whole: Any) -> bool:
    """Whether *whole* has all of *part*, perhaps with members more that are null."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(is_within(value, whole.get(name)) for name, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(is_within, part, whole))
    return bool(part == whole)


async def test_the_official_client_puts_the_same_reply_together(
    reply_and_client: tuple[JsonObject, openai.AsyncOpenAI],
) -> None:
    reply, client = reply_and_client
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "n": len(reply["choices"])}
    async with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
        theirs = (await stream.get_final_completion()).model_dump()

    if (
        reply["choices"][0]["finish_reason"] != "length"
    ):  # their helper raises for it, below they are read piece by piece
        assert is_within(reply, theirs)
