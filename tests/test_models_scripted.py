"""Answers written down beforehand, or given once before."""

import time

import pytest

from gainful.core import ModelError, digest
from gainful.models import ReplayModel, ScriptedModel

BODY = {"messages": [{"role": "user", "content": "one two three"}]}


async def test_a_list_is_answered_in_order_and_its_end_is_an_error() -> None:
    model = ScriptedModel(["a", "b"])

    assert [(await model.complete(BODY)).message["content"] for _ in range(2)] == ["a", "b"]
    with pytest.raises(ModelError, match="has 2 answers and was asked for one more"):
        await model.complete(BODY)
    assert len(model.calls) == 3


async def test_a_function_sees_body_and_sample() -> None:
    model = ScriptedModel(lambda body, sample: f"{body['messages'][0]['content']} {sample}")

    assert (await model.complete(BODY, sample=2)).message["content"] == "one two three 2"


async def test_words_are_counted_as_tokens() -> None:
    usage = (await ScriptedModel(["four words of answer"]).complete(BODY)).usage

    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 4)


async def test_a_message_and_a_whole_body_may_be_given() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    body = {"choices": [{"message": {"role": "assistant", "content": "whole"}}], "usage": None}
    model = ScriptedModel([message, body])

    first, second = await model.complete(BODY), await model.complete(BODY)

    assert first.message == message
    assert first.body["choices"][0]["finish_reason"] == "tool_calls"
    assert second.body is body


async def test_chosen_calls_fail_and_the_others_do_not() -> None:
    model = ScriptedModel(lambda body, sample: "ok", failing={1})

    await model.complete(BODY)
    with pytest.raises(ModelError, match="call 1 was told to fail"):
        await model.complete(BODY)
    assert (await model.complete(BODY)).message["content"] == "ok"


async def test_a_delay_is_waited() -> None:
    started = time.perf_counter()
    reply = await ScriptedModel(["a"], delay_s=0.02).complete(BODY)

    assert time.perf_counter() - started >= 0.02
    assert reply.elapsed_ms == 20.0


async def test_a_replay_answers_what_is_stored_and_nothing_else() -> None:
    recorded = ScriptedModel(["stored"])
    body = (await recorded.complete(BODY)).body
    key = digest({"body": BODY, "model": recorded.identity, "sample": 1})
    replay = ReplayModel({key: body}, recorded.identity)

    assert (await replay.complete(BODY, sample=1)).body == body
    for other in (replay.complete(BODY, sample=0), replay.complete({**BODY, "seed": 1}, sample=1)):
        with pytest.raises(ModelError, match="no stored reply for call"):
            await other
