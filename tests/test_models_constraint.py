"""How a JSON schema becomes the grammar that the engine keeps."""

import json
from typing import Any

import pytest

from gainful.core import JsonObject, RequestRefused
from gainful.models.constraint import closed, constrained, grammar_holds, is_doubtful, probe

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def asking(schema: Any) -> JsonObject:
    return {"messages": [], "seed": 1, "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


def reply(content: str | None, finish: str = "stop") -> JsonObject:
    return {"choices": [{"message": {"content": content}, "finish_reason": finish}]}


def test_the_grammar_is_the_schema_with_an_order_to_be_compact() -> None:
    body = constrained(asking(SCHEMA))
    head, _, written = body["grammar"].partition(" %json ") if " %json " in body["grammar"] else ("", "", "")

    assert set(body) == {"messages", "seed", "grammar"}
    assert head == "%llguidance {}\nstart:"
    assert json.loads(written)["properties"] == SCHEMA["properties"]
    assert json.loads(written)["x-guidance"]["whitespace_flexible"] is False


@pytest.mark.parametrize(
    "body",
    [{}, {"response_format": {"type": "json_object"}}, {"response_format": None}, {**asking(SCHEMA), "tools": [{}]}],
)
def test_a_request_without_a_schema_of_its_own_stays_the_same_object(body: JsonObject) -> None:
    assert constrained(body) is body


@pytest.mark.parametrize("schema", [None, True, "integer", []])
def test_a_schema_that_is_no_object_is_refused(schema: object) -> None:
    with pytest.raises(RequestRefused, match="must be a JSON schema, an object"):
        constrained(asking(schema))


def test_objects_that_name_their_properties_are_closed_at_every_depth() -> None:
    open_one = {"type": "object", "additionalProperties": True, "properties": {}}
    schema = {"anyOf": [{**SCHEMA, "properties": {"inner": {"type": "array", "items": SCHEMA}}}, open_one]}
    inner, kept = closed(schema)["anyOf"]

    assert inner["additionalProperties"] is False
    assert inner["properties"]["inner"]["items"]["additionalProperties"] is False
    assert kept == open_one
    assert closed({"type": "object"}) == {"type": "object"}
    assert closed({"const": SCHEMA}) == {"const": SCHEMA}


@pytest.mark.parametrize(
    ("answer", "doubtful"),
    [
        (reply('{"n":1}'), False),
        (reply('{"n":"one"}'), True),
        (reply("Sure! Here it is"), True),
        (reply(None), True),
        (reply('{"n":1', "length"), False),
        (reply("", "length"), False),
        (reply("Sure! He", "length"), True),
    ],
)
def test_an_answer_that_breaks_the_schema_is_doubtful(answer: JsonObject, doubtful: bool) -> None:
    assert is_doubtful(asking(SCHEMA), answer) is doubtful


def test_a_schema_that_no_validator_reads_is_doubtful() -> None:
    assert is_doubtful(asking({"type": "nonsense"}), reply("1"))


def test_a_probe_asks_for_a_mark_before_the_answer() -> None:
    grammar = constrained(asking(SCHEMA))["grammar"]

    assert probe(grammar)["grammar"].startswith('%llguidance {}\nstart: "\\u0001" %json {')
    assert grammar_holds(reply("\x01"))
    assert not grammar_holds(reply("```"))
