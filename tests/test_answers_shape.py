"""A caller's request under a policy, and the answer back in the caller's form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from worlds import TOOL

from gainful.answers.extract import extract
from gainful.answers.shape import PLAIN, is_rewritten, present, reply_body, shape
from gainful.core import (
    Answer,
    AnswerKind,
    Choice,
    Format,
    Json,
    JsonObject,
    Number,
    Policy,
    Reply,
    Text,
    ToolCall,
)

USER = {"role": "user", "content": "Add 3 and 1003."}
ARGUMENTS = Policy(instructions="Call it.", format=Format(shape="arguments", signatures=True), max_tokens=96)
LABELS = Choice(labels=("billing", "delivery"))
VAGUE = {"type": "function", "function": {"name": "other", "parameters": {"type": "object", "properties": {}}}}


def says(text: str) -> JsonObject:
    return {"role": "assistant", "content": text}


def replying(message: JsonObject, **members: Any) -> Reply:
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return Reply(body={"id": "r", "choices": [choice], **members})


@pytest.mark.parametrize("kind", [Text(), ToolCall(), LABELS])
def test_an_empty_policy_leaves_a_request_as_it_came(kind: AnswerKind) -> None:
    body = {"messages": [USER], "tools": [TOOL], "temperature": 0.3, "vendor": {"x": [1]}}

    assert shape(PLAIN, body, kind).body is body


@pytest.mark.parametrize(
    "unlike",
    [
        {"n": 2},
        {"tool_choice": "none"},
        {"response_format": {"type": "json_object"}},
        {"messages": [USER, says(""), {"role": "tool", "tool_call_id": "1", "content": "1006"}]},
        {"tools": None},
        {"tools": [{"type": "web_search"}]},
    ],
)
def test_what_a_policy_was_not_made_for_goes_to_the_model_as_it_came(unlike: JsonObject) -> None:
    body = {"messages": [USER], "tools": [TOOL], **unlike}

    shaped = shape(ARGUMENTS, body, ToolCall())

    assert shaped.is_plain
    assert shaped.body is body


def test_what_the_caller_fixed_stays_and_the_policy_says_the_rest() -> None:
    body = {"messages": [USER], "tools": [TOOL], "temperature": 1, "max_completion_tokens": 9, "user": "u", "odd": 1}

    sent = shape(ARGUMENTS, body, ToolCall()).body

    assert {name: sent[name] for name in ("temperature", "max_completion_tokens", "user", "odd")} == {
        "temperature": 1,
        "max_completion_tokens": 9,
        "user": "u",
        "odd": 1,
    }
    assert "max_tokens" not in sent
    assert "tools" not in sent
    assert sent["messages"][-1] == USER
    assert sent["response_format"]["json_schema"]["schema"]["required"] == ["a", "b"]


@pytest.mark.parametrize("asked", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "x"}}])
def test_a_form_of_the_callers_own_stays_where_the_policy_asks_for_none(asked: JsonObject) -> None:
    body = {"messages": [USER], "response_format": asked}

    shaped = shape(Policy(instructions="Say which."), body, LABELS)

    assert not shaped.is_plain
    assert shaped.body["response_format"] == asked


def test_the_policys_form_stands_where_the_caller_asks_for_text() -> None:
    body = {"messages": [USER], "tools": [TOOL], "response_format": {"type": "text"}, "parallel_tool_calls": False}

    sent = shape(ARGUMENTS, body, ToolCall()).body

    assert sent["response_format"]["type"] == "json_schema"
    assert "parallel_tool_calls" not in sent


def test_what_the_caller_says_of_parallel_calls_stays_where_the_server_calls() -> None:
    native = Policy(format=Format(shape="native"))

    sent = shape(native, {"messages": [USER], "tools": [TOOL], "parallel_tool_calls": False}, ToolCall()).body

    assert (sent["tools"], sent["parallel_tool_calls"]) == ([TOOL], False)


def test_words_that_become_a_call_take_no_form_of_the_callers() -> None:
    body = {"messages": [USER], "tools": [TOOL], "response_format": {"type": "json_object"}}

    assert shape(Policy(instructions="Call it."), body, ToolCall()).is_plain


def test_a_tool_that_the_caller_insists_on_is_the_only_one_offered() -> None:
    insisted = {"type": "function", "function": {"name": "add"}}

    shaped = shape(ARGUMENTS, {"messages": [USER], "tools": [VAGUE, TOOL], "tool_choice": insisted}, ToolCall())

    assert shaped.case.tools == (TOOL,)


def test_constrained_arguments_come_back_as_the_tool_call_that_the_caller_expects() -> None:
    shaped = shape(ARGUMENTS, {"messages": [USER], "tools": [TOOL]}, ToolCall())
    message = says('{"a":3,"b":1003}')
    value = extract(ToolCall(), message, shaped.case, shaped.policy.format)

    presented = present(shaped, ToolCall(), Answer(text=message["content"], value=value), message)

    (call,) = presented["tool_calls"]
    assert presented["content"] is None
    assert call["function"]["name"] == "add"
    assert json.loads(call["function"]["arguments"]) == {"a": 3, "b": 1003}


@pytest.mark.parametrize(
    ("kind", "value", "content"),
    [
        (LABELS, "billing", "billing"),
        (Number(), 12.5, "12.5"),
        (Json(schema={"type": "object"}), {"a": [1, 2]}, '{"a":[1,2]}'),
    ],
)
def test_a_boxed_answer_comes_back_bare(kind: AnswerKind, value: Any, content: str) -> None:
    shaped = shape(Policy(format=Format(shape="schema")), {"messages": [USER]}, kind)

    presented = present(shaped, kind, Answer(text="boxed", value=value), says("boxed"))

    assert presented["content"] == content


def test_a_reply_without_an_answer_stays_as_the_model_wrote_it() -> None:
    shaped, message = shape(ARGUMENTS, {"messages": [USER], "tools": [TOOL]}, ToolCall()), says("I cannot.")

    assert present(shaped, ToolCall(), Answer(text="I cannot."), message) is message


def test_a_policy_that_only_instructs_passes_the_model_s_words_on() -> None:
    shaped, message = shape(Policy(instructions="Be kind."), {"messages": [USER]}, LABELS), says("It is billing.")

    assert not is_rewritten(shaped, LABELS)
    assert present(shaped, LABELS, Answer(text="It is billing.", value="billing"), message) is message


def test_a_single_reply_whose_message_stands_is_returned_untouched() -> None:
    only = replying(says("hello"), usage={"prompt_tokens": 3}, odd={"kept": True})

    assert reply_body([only], only.message) is only.body


def test_the_usage_of_several_replies_adds_up_at_every_depth() -> None:
    one = replying(says("a"), usage={"total_tokens": 3, "details": {"cached": 1}, "tier": "x"})
    two = replying(says("b"), usage={"total_tokens": 4, "details": {"cached": 2, "audio": 5}})

    body = reply_body([one, two, replying(says("c"))], says("b"))

    assert body["usage"] == {"total_tokens": 7, "details": {"cached": 3, "audio": 5}, "tier": "x"}
    assert body["id"] == "r"
    assert body["choices"][0]["message"] == says("b")


def test_log_probabilities_of_words_that_the_caller_does_not_get_are_left_out() -> None:
    reply = Reply(
        body={"choices": [{"index": 0, "message": says("x"), "finish_reason": "stop", "logprobs": {"content": []}}]}
    )
    reply.body["choices"][0]["logprobs"] = {"content": [{"token": "x", "logprob": -1.0}]}

    assert reply_body([reply], says("y"))["choices"][0]["logprobs"] is None
