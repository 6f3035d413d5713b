"""Prompts, extraction and strategies, with the shipped scripted model."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import TOOL, case, scripted

from gainful.answers.allowance import Allowance, Limits
from gainful.answers.answer import Asking, answer, judge_by
from gainful.answers.extract import extract, json_values
from gainful.answers.prompt import answer_schema, ordered, request
from gainful.checks import AnswerKey, ToolCall
from gainful.core import (
    Case,
    CheckError,
    Choice,
    Demo,
    Format,
    Json,
    JsonObject,
    Number,
    Policy,
    Refine,
    Text,
    Vote,
    canonical,
    digest,
)
from gainful.core import ToolCall as Call
from gainful.models import ScriptedModel

FREE, SCHEMA, ARGUMENTS, NATIVE = (Format(shape=s) for s in ("free", "schema", "arguments", "native"))
RIGHT = {"name": "add", "arguments": {"a": 3, "b": 1003}}


def says(text: str) -> JsonObject:
    return {"role": "assistant", "content": text}


# --- prompts


def test_the_case_s_own_turns_reach_the_model_as_they_came() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    turns = (
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": "1", "content": "a cat"},
        {"role": "user", "content": "Sure?", "name": "ann"},
    )

    body = request(Policy(instructions="Be brief."), Case(messages=turns, tools=(TOOL,)), Call())

    assert body["messages"][1:] == list(turns)


def test_the_system_turn_holds_instructions_the_callers_own_and_the_tools_in_this_order() -> None:
    asked = Case(messages=({"role": "system", "content": "THEIRS"}, *case(3).messages), tools=(TOOL,))

    body = request(Policy(instructions="OURS"), asked, Call())

    system = body["messages"][0]["content"]
    assert system.index("OURS") < system.index("THEIRS") < system.index('"name":"add"')
    assert len(body["messages"]) == 2


def test_native_tools_go_in_the_request_s_own_field_untouched() -> None:
    body = request(Policy(format=NATIVE), case(3), Call())

    assert body["tools"] == [TOOL]
    assert body["messages"] == list(case(3).messages)


def test_a_demo_is_never_shown_for_its_own_case() -> None:
    policy = Policy(demos=(Demo(case=case(3), value=RIGHT),), format=ARGUMENTS)

    assert '{"a":3,"b":1003}' in request(policy, case(4), Call())["messages"][0]["content"]
    assert "1003" not in request(policy, case(3), Call())["messages"][0]["content"]


def test_equal_cases_give_equal_bytes_whatever_order_their_objects_were_built_in() -> None:
    stored = msgspec.json.decode(canonical(case(3)), type=Case)
    policy = Policy(demos=(Demo(case=case(4), value={"arguments": {"b": 1004, "a": 4}, "name": "add"}),))
    turned = msgspec.json.decode(canonical(policy), type=Policy)

    for form in (FREE, SCHEMA, ARGUMENTS, Format(shape="schema", signatures=True, think=True)):
        ours, theirs = msgspec.structs.replace(policy, format=form), msgspec.structs.replace(turned, format=form)
        first, second = request(ours, case(3), Call()), request(theirs, stored, Call())
        assert [m["content"] for m in first["messages"]] == [m["content"] for m in second["messages"]]
        assert json.dumps(first.get("response_format")) == json.dumps(second.get("response_format"))


def test_required_arguments_come_first_as_listed_and_optional_ones_can_be_left_out() -> None:
    schema = {"type": "object", "properties": {"z": {}, "a": {"description": "x"}, "k": {}}, "required": ["z", "k"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    asked = Case(messages=({"role": "user", "content": "?"},), tools=(tool,))

    assert list(ordered(schema)["properties"]) == ["z", "k", "a"]
    every = answer_schema(Call(), asked, ARGUMENTS)
    fewer = answer_schema(Call(), asked, Format(shape="arguments", required_only=True))
    assert every is not None
    assert fewer is not None
    assert list(every["properties"]) == ["z", "k", "a"]
    assert every["properties"]["a"] == {}
    assert list(fewer["properties"]) == ["z", "k"]


# --- extraction


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (json.dumps(RIGHT), FREE),
        ("Sure!\n```json\n" + json.dumps(RIGHT, indent=2) + "\n```\nDone.", FREE),
        ('{"add": {"a": 3, "b": 1003}}', FREE),
        ('{"name": "add", "parameters": {"a": 3, "b": 1003}}', FREE),
        ('{"function": {"name": "add", "arguments": {"a": 3, "b": 1003}}}', FREE),
        ('{"thought": "two numbers", "name": "add", "arguments": {"a": 3, "b": 1003}}', Format("schema", think=True)),
        ('{"a": 3, "b": 1003}', ARGUMENTS),
        ('{"thought": "{", "arguments": {"a": 3, "b": 1003}}', Format("arguments", think=True)),
    ],
)
def test_a_call_is_found_in_every_form_it_comes_in(text: str, form: Format) -> None:
    assert extract(Call(), says(text), case(3), form) == RIGHT


def test_a_native_call_is_found_in_the_message_s_own_field() -> None:
    function = {"name": "add", "arguments": '{"a": 3, "b": 1003}'}
    message = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}

    assert extract(Call(), message, case(3), NATIVE) == RIGHT


@pytest.mark.parametrize("text", ["", "add(3, 1003)", "{'name': 'add'}", '{"name": "add"}', "[1, 2]", "{" * 300])
def test_where_there_is_no_call_none_is_found(text: str) -> None:
    assert extract(Call(), says(text), case(3), FREE) is None


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Text(), "  yes \n", "yes"),
        (Number(), "It is 1,234.5, no: -7.", -7),
        (Number(), "about 2.5e3", 2500.0),
        (Number(), "none", None),
        (Choice(("positive", "negative")), "Positive.", "positive"),
        (Choice(("positive", "negative")), "I think it is negative", "negative"),
        (Choice(("positive", "negative")), "positive or negative", None),
        (Choice(("art", "party")), "a party", "party"),
        (Json({"type": "object"}), 'so: {"x": [1]}', {"x": [1]}),
    ],
)
def test_answers_of_other_kinds_are_found_or_none(kind: Any, text: str, value: object) -> None:
    assert extract(kind, says(text), case(3), FREE) == value


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", '"\\ud800"', "[" * 500 + "]" * 500])
def test_what_json_cannot_carry_is_no_answer(value: str) -> None:
    assert extract(Json({}), says('{"a": ' + value + "}"), case(3), FREE) is None


@given(st.text())
def test_any_text_can_be_searched_for_json(text: str) -> None:
    for value in json_values(text):
        assert isinstance(value, dict | list)


# --- strategies


async def test_a_vote_stops_as_soon_as_the_rest_cannot_change_it() -> None:
    model = scripted(lambda body, sample: json.dumps(RIGHT))

    outcome = await answer(Asking(case(3), Policy(strategy=Vote(samples=5)), model, Call()), judge_by([]))

    assert outcome.usage.calls == 3
    assert outcome.answer.value == RIGHT


async def test_a_vote_takes_the_most_common_answer_and_silent_replies_do_not_vote() -> None:
    replies = ["no idea", json.dumps(RIGHT), "no idea", '{"add": {"a": 3, "b": 1003}}', "no idea"]
    model = scripted(lambda body, sample: replies[sample])

    outcome = await answer(Asking(case(3), Policy(strategy=Vote(samples=5)), model, Call()), judge_by([]))

    assert outcome.answer.value == RIGHT
    assert outcome.answer.samples == (None, RIGHT, None, RIGHT)  # a fifth could not change it


async def test_refine_asks_again_with_the_check_s_words_and_keeps_the_better_answer() -> None:
    asked: list[JsonObject] = []

    def improves(body: JsonObject, sample: int) -> str:
        asked.append(body)
        return json.dumps(RIGHT) if len(asked) == 2 else '{"name": "add", "arguments": {"a": 3}}'

    outcome = await answer(
        Asking(case(3), Policy(strategy=Refine(2)), scripted(improves), Call()), judge_by([ToolCall()])
    )

    assert outcome.answer.value == RIGHT
    assert outcome.usage.calls == 2
    assert '"b"' in asked[1]["messages"][-1]["content"]


async def test_refine_keeps_the_first_answer_where_the_second_is_no_better() -> None:
    replies = ['{"name": "add", "arguments": {"a": 3}}', '{"name": "add", "arguments": {"b": 3}}']
    model = scripted(lambda body, sample: replies[len(body["messages"]) > 2])

    outcome = await answer(Asking(case(3), Policy(strategy=Refine(1)), model, Call()), judge_by([ToolCall()]))

    assert outcome.answer.value == {"name": "add", "arguments": {"a": 3}}


@pytest.mark.parametrize("strategy", [Vote(samples=5), Refine(rounds=4)])
async def test_no_strategy_exceeds_its_allowance(strategy: Vote | Refine) -> None:
    model = scripted(lambda body, sample: f'{{"name": "add", "arguments": {{"a": {sample}}}}}')

    one_more = Allowance(Limits(extra_calls=1))
    asking = Asking(case(3), Policy(strategy=strategy), model, Call(), allowance=one_more)
    outcome = await answer(asking, judge_by([ToolCall()]))

    assert outcome.usage.calls == 2


@pytest.mark.parametrize("strategy", [Vote(samples=5), Refine(rounds=4)])
@pytest.mark.parametrize("limits", [Limits(extra_tokens=0), Limits(extra_cost_usd=0.0)])
async def test_spent_tokens_and_money_stop_the_next_call(strategy: Vote | Refine, limits: Limits) -> None:
    model = scripted(lambda body, sample: f'{{"name": "add", "arguments": {{"a": {sample}}}}}')

    asking = Asking(case(3), Policy(strategy=strategy), model, Call(), allowance=Allowance(limits))
    outcome = await answer(asking, judge_by([ToolCall()]))

    assert outcome.usage.calls == 1


async def test_at_the_deadline_the_best_answer_so_far_stands() -> None:
    clock = iter([0.0, *[0.5] * 8, *[1.5] * 99])
    model = scripted(lambda body, sample: '{"name": "add", "arguments": {"a": 3}}')

    late = Allowance(Limits(deadline_ms=1000), clock=lambda: next(clock))
    asking = Asking(case(3), Policy(strategy=Vote(samples=5)), model, Call(), allowance=late)
    outcome = await answer(asking, judge_by([]))

    assert outcome.answer.value == {"name": "add", "arguments": {"a": 3}}
    assert outcome.usage.calls < 5


async def test_a_deadline_before_any_answer_is_no_answer() -> None:
    model = ScriptedModel(["late"], delay_s=5)

    asking = Asking(case(3), Policy(), model, Call(), allowance=Allowance(Limits(deadline_ms=10)))
    with pytest.raises(TimeoutError):
        await answer(asking, judge_by([]))


async def test_a_check_that_reads_the_answer_key_cannot_help_to_answer() -> None:
    with pytest.raises(CheckError, match="reads the answer key"):
        await answer(Asking(case(3), Policy(), scripted(), Call()), judge_by([AnswerKey()]))


def test_the_digest_of_a_format_is_a_promise() -> None:
    """Stores and receipts hold these: a default that changes would rename old policies."""
    assert digest(Policy()) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert digest(Policy(format=ARGUMENTS, strategy=Vote(samples=3))) == digest(
        {"format": {"shape": "arguments"}, "strategy": {"type": "vote", "samples": 3}}
    )


@pytest.mark.parametrize(
    ("text", "value"), [('{"answer":" 23 "}', "23"), ('{"answer":""}', None), ("It is 23.", "It is 23.")]
)
def test_a_boxed_text_is_what_stands_in_the_box(text: str, value: str | None) -> None:
    assert extract(Text(), says(text), case(3), Format("schema")) == value


def test_a_text_is_boxed_by_schema_and_its_demos_are_boxed_alike() -> None:
    policy = Policy(demos=(Demo(case=case(9), value="23"),), format=Format("schema"))

    body = request(policy, case(3), Text())

    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"] == {"answer": {"type": "string"}}
    assert '\nReply: {"answer":"23"}' in body["messages"][0]["content"]


def test_demos_as_turns_stand_between_the_system_turn_and_the_case_and_show_the_same_reply() -> None:
    demo = Demo(case=case(9), value={"name": "add", "arguments": {"a": 9, "b": 1009}})
    policy = Policy(instructions="Call.", demos=(demo,), format=Format("arguments", turns=True))

    messages = request(policy, case(3), Call())["messages"]

    assert [turn["role"] for turn in messages] == ["system", "user", "assistant", "user"]
    assert messages[1]["content"].endswith("\n\nPlease add 9 and 1009.")
    assert messages[2]["content"] == '{"a":9,"b":1009}'
    assert messages[3] == case(3).messages[0]
    assert "Example" not in messages[0]["content"]
    assert len(request(policy, case(9), Call())["messages"]) == 2  # never for its own case
