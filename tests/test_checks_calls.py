"""Checks of tool calls: their form, whether the request grounds them, whether the answer key wants them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gainful import checks
from gainful.core import Answer, Case, Check, CheckError, JsonObject, Score, canonical, judge

BOOK: JsonObject = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "nights": {"type": "integer"},
        "price": {"type": "number"},
        "class": {"type": "string", "enum": ["basic", "suite"]},
        "pets": {"type": "boolean", "default": False},
        "guests": {"type": "array", "items": {"type": "string"}},
        "rooms": {"type": "array", "items": {"type": "object", "properties": {"beds": {"type": "integer"}}}},
        "contact": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "phone": {"type": ["string", "null"]}},
            "required": ["name"],
        },
        "note": {},
    },
    "required": ["city", "nights"],
}


def case(request: str = "?", target: Any = None, schema: JsonObject = BOOK) -> Case:
    return Case(
        messages=({"role": "user", "content": request},),
        tools=({"type": "function", "function": {"name": "hotel.book", "parameters": schema}},),
        target=target,
    )


def call(**arguments: Any) -> JsonObject:
    return {"name": "hotel.book", "arguments": arguments}


def scored(check: Check, of: Case, value: Any) -> Score | None:
    result = check(of, Answer(text="", value=value))
    assert result is None or isinstance(result, Score)
    return result


def group(check: Check, of: Case, value: Any) -> str | None:
    """The error's group, "right" for a full score, None for unknown."""
    score = scored(check, of, value)
    if score is None:
        return None
    assert score.value == (0.0 if score.group else 1.0)
    return score.group or "right"


# --- form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "not JSON"),
        ([], "not a call"),
        ({"arguments": {}}, "not a call"),
        ({"name": "hotel.book"}, "not a call"),
        ({"name": "hotel.book", "arguments": "{}"}, "not a call"),
        ({"name": "hotel_book", "arguments": {}}, "wrong function"),
        (call(city="Rome"), "missing argument"),
        (call(city="Rome", nights=2, view="sea"), "unexpected argument"),
        (call(city="Rome", nights=2), "right"),
        (call(city="Rome", nights=2.0), "right"),
        (call(city="Rome", nights=2.5), "wrong type"),
        (call(city="Rome", nights="2"), "wrong type"),
        (call(city="Rome", nights=True), "wrong type"),
        (call(city="Rome", nights=None), "wrong type"),
        (call(city="Rome", nights=float("inf")), "wrong type"),
        (call(city="Rome", nights=10**4000), "right"),
        (call(city="Rome", nights=2, price=80), "right"),
        (call(city="Rome", nights=2, price="80"), "wrong type"),
        (call(city="Rome", nights=2, pets=0), "wrong type"),
        (call(city="Rome", nights=2, **{"class": "suite"}), "right"),
        (call(city="Rome", nights=2, **{"class": "Suite"}), "not in enumeration"),
        (call(city="Rome", nights=2, guests=["Ann", "Bo"]), "right"),
        (call(city="Rome", nights=2, guests=["Ann", 5]), "wrong type"),
        (call(city="Rome", nights=2, guests="Ann"), "wrong type"),
        (call(city="Rome", nights=2, rooms=[{"beds": "two"}]), "wrong type"),
        (call(city="Rome", nights=2, rooms=[{"size": 2}]), "unexpected argument"),
        (call(city="Rome", nights=2, contact={"phone": None}), "missing argument"),
        (call(city="Rome", nights=2, contact={"name": "Ann", "phone": None}), "right"),
        (call(city="Rome", nights=2, contact={"name": "Ann", "phone": 5}), "wrong type"),
        (call(city="Rome", nights=2, note=[{"anything": 1}]), "right"),
    ],
)
def test_a_call_is_known_complete_and_of_the_right_types(value: Any, expected: str) -> None:
    assert group(checks.ToolCall(), case(), value) == expected


def test_the_first_problem_names_the_group_and_the_feedback_names_all() -> None:
    score = scored(checks.ToolCall(), case(), call(nights="2", view="sea", **{"class": "x"}))

    assert score is not None
    assert score.group == "missing argument"
    assert score.feedback == (
        'The argument "city" is missing. There is no argument "view"; leave it out. '
        'The argument "class" must be one of "basic", "suite". The argument "nights" must be of type integer.'
    )


def test_a_schema_may_allow_further_arguments() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {}}

    assert group(checks.ToolCall(), case(schema=schema), call(a=1, b="x")) == "right"


def test_a_tool_without_parameters_takes_no_argument() -> None:
    bare = Case(messages=(), tools=({"type": "function", "function": {"name": "now"}},))

    assert group(checks.ToolCall(), bare, {"name": "now", "arguments": {}}) == "right"
    assert group(checks.ToolCall(), bare, {"name": "now", "arguments": {"a": 1}}) == "unexpected argument"


def test_an_unknown_function_is_told_the_known_ones() -> None:
    score = scored(checks.ToolCall(), case(), {"name": "book", "arguments": {}})

    assert score is not None
    assert score.feedback == 'There is no function "book"; the functions are: "hotel.book".'


# --- grounding ------------------------------------------------------------------------------------------

ANY: JsonObject = {"type": "object", "properties": {"x": {}}, "required": ["x"]}


@pytest.mark.parametrize(
    ("request_text", "value"),
    [
        ("Add 5 to it", 5),
        ("Add 5 to it", 5.0),
        ("It fell to -5 degrees", 5),
        ("It fell by 5 degrees", -5),
        ("It costs $1,250,000 now", 1250000),
        ("It costs 1,250.75", 1250.75),
        ("A loan of 10k", 10000),
        ("A loan of 1.5 million", 1500000),
        ("At 4.5% a year", 0.045),
        ("At 4.5% a year", 4.5),
        ("At 5 percent a year", 0.05),
        ("A charge of 1e-9 coulomb", 1e-9),
        ("on the 3rd floor", 3),
        ("twenty-five people", 25),
        ("two hundred and five people", 205),
        ("three thousand four hundred", 3400),
        ("half of it", 0.5),
        ("toss it twice", 2),
        ("the numbers 1,2,3 and 10", [1, 2, 3, 10]),
        ("tomorrow in New York City", "new york"),
        ("tomorrow in New York City", "NYC"),
        ("restaurants in Zürich", "Zurich restaurant"),
        ("cities in Peru", "city"),
        ("the area of a triangle", "area of the triangle"),
        ("on May 1, 2024", "2024-05-01"),
        ("on Jun.20,2023", "2023-06-20"),
        ("on May 1, 2024 at 8pm", "2024-05-01T20:00:00"),
        ("请告诉我上海的天气", "上海"),
        ("born in ١٩٨٤", 1984),
        ("from Rome to Oslo", {"from": "Rome", "to": ["Oslo"]}),
        ("any", True),
        ("any", None),
    ],
)
def test_a_value_that_the_request_holds_is_grounded(request_text: str, value: Any) -> None:
    assert group(checks.Grounding(), case(request_text, schema=ANY), call(x=value)) == "right"


@pytest.mark.parametrize(
    ("request_text", "value"),
    [
        ("Add 5 and 7", 12),
        ("Add 5 and 7", 57),
        ("It costs $1,250,000 now", 12500),
        ("100 dollars", 1),
        ("At 4% a year", 4.5),
        ("two hundred and five people", 250),
        ("the numbers 1, 2 and 3", [1, 2, 4]),
        ("tomorrow in New York", "Boston"),
        ("a car", "carpet"),
        ("a car", ""),
        ("a car", []),
        ("a car", {}),
        ("on May 1, 2024", "2024-06-01"),
        ("from Rome to Oslo", {"from": "Rome", "to": ["Paris"]}),
        ("请告诉我上海的天气", "北京"),
        ("any", float("nan")),
        ("any", 10**4000),
        ("any", "9" * 5000),
    ],
)
def test_a_value_that_the_request_does_not_hold_is_not_grounded(request_text: str, value: Any) -> None:
    assert group(checks.Grounding(), case(request_text, schema=ANY), call(x=value)) == "ungrounded value"


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ({"enum": ["celsius", "kelvin"]}, "kelvin"),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, ["b"]),
        ({"type": "integer", "default": 10}, 10.0),
    ],
)
def test_enumerations_and_defaults_need_no_ground(parameter: JsonObject, value: Any) -> None:
    schema = {"type": "object", "properties": {"x": parameter}, "required": ["x"]}

    assert group(checks.Grounding(), case("How warm is it?", schema=schema), call(x=value)) == "right"


def test_none_of_an_enumeration_is_no_answer_to_a_request() -> None:
    parameter = {"type": "array", "items": {"enum": ["area", "elevation"]}}
    schema = {"type": "object", "properties": {"x": parameter}, "required": ["x"]}

    assert group(checks.Grounding(), case("How high is it?", schema=schema), call(x=[])) == "ungrounded value"


def test_optional_arguments_need_no_ground() -> None:
    assert group(checks.Grounding(), case("2 nights in Rome"), call(city="Rome", nights=2, price=80)) == "right"


@pytest.mark.parametrize(
    "request_text",
    [
        "2 nights in Rome for 80 euros",
        "2 nights in Rome at 80%",
        "2 nights in Rome, 80 for all",
        "2,80 in Rome",
    ],
)
def test_a_number_of_the_request_that_no_argument_holds_is_unused(request_text: str) -> None:
    lean = call(city="Rome", nights=2)

    assert group(checks.Grounding(), case(request_text), lean) == "unused number"
    assert group(checks.Grounding(), case(request_text), call(city="Rome", nights=2, price=80)) == "right"


@pytest.mark.parametrize(
    "request_text",
    [
        "2 nights in Rome on the 3rd",
        "2 nights in Rome, 30ft from x^2 or v1.5",
        "2 nights in Rome from 5 million beds",
        "2.0 nights in Rome",
        "200% of Rome",
        "Rome?!",
    ],
)
def test_what_is_no_number_alone_need_not_be_used(request_text: str) -> None:
    assert group(checks.Grounding(), case(request_text), call(city="Rome", nights=2)) != "unused number"


def test_where_a_required_argument_is_missing_its_number_is_not_called_unused_as_well() -> None:
    assert group(checks.Grounding(), case("2 nights in Rome"), call(city="Rome")) == "right"


def test_numbers_of_earlier_turns_need_not_be_used() -> None:
    earlier = ({"role": "user", "content": "I have 500 euros."}, {"role": "assistant", "content": "Good."})
    told = Case(
        messages=(*earlier, {"role": "user", "content": "2 nights in Rome"}),
        tools=({"type": "function", "function": {"name": "hotel.book", "parameters": ANY}},),
    )

    assert group(checks.Grounding(), told, call(x=[2, "Rome"])) == "right"


@pytest.mark.parametrize("request_text", ["?!", " "])
def test_a_request_without_words_grounds_nothing(request_text: str) -> None:
    assert group(checks.Grounding(), case(request_text, schema=ANY), call(x="Rome")) == "ungrounded value"


def test_the_system_turn_grounds_too() -> None:
    told = Case(
        messages=({"role": "system", "content": "The user's id is 7890."}, {"role": "user", "content": "Log me in."}),
        tools=({"type": "function", "function": {"name": "hotel.book", "parameters": ANY}},),
    )

    assert group(checks.Grounding(), told, call(x=7890)) == "right"


@pytest.mark.parametrize("value", [None, "text", {"name": "other", "arguments": {}}])
def test_grounding_cannot_tell_where_there_is_no_known_call(value: Any) -> None:
    assert group(checks.Grounding(), case(), value) is None


def test_number_words_without_end_make_no_number_without_end() -> None:
    long = case("7 " + "hundred " * 1_000, schema=ANY)

    assert group(checks.Grounding(), long, call(x=7)) == "right"
    assert group(checks.Grounding(), long, call(x=100**3)) == "right"
    assert group(checks.Grounding(), long, call(x=100**500)) == "ungrounded value"
    assert group(checks.Grounding(), long, call(x=100**12)) == "ungrounded value"


def test_grounding_is_no_proof() -> None:
    assert not checks.Grounding().trusted
    assert not checks.Grounding().needs_target


# --- answer key -----------------------------------------------------------------------------------------

KEY = {
    "name": "hotel.book",
    "arguments": {
        "city": ["New York, NY", "NYC"],
        "nights": [2],
        "price": ["", 80.5],
        "class": ["", "suite"],
        "pets": ["", True],
        "guests": ["", ["Ann O'Neil", "Bo"]],
        "rooms": ["", [{"beds": [2, 3], "view": ["sea", ""]}, {"beds": [1]}]],
        "contact": ["", {"name": ["Ann"], "phone": ["", None], "days": [["Mon-Tue"]]}],
    },
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (call(city="New York, NY", nights=2), "right"),
        (call(city="new york ny", nights=2), "right"),
        (call(city="nyc", nights=2.0), "right"),
        (call(city="N.Y.C", nights=2), "right"),
        (call(city="New York", nights=2), "wrong value"),
        (call(city=5, nights=2), "wrong type"),
        (call(city="NYC", nights=3), "wrong value"),
        (call(city="NYC", nights="2"), "wrong type"),
        (call(city="NYC", nights=True), "wrong type"),
        (call(city="NYC"), "missing argument"),
        (call(city="NYC", nights=2, view="sea"), "unexpected argument"),
        (call(city="NYC", nights=2, price=80.5), "right"),
        (call(city="NYC", nights=2, price=""), "wrong type"),
        (call(city="NYC", nights=2, **{"class": ""}), "right"),
        (call(city="NYC", nights=2, pets=True), "right"),
        (call(city="NYC", nights=2, pets=1), "wrong type"),
        (call(city="NYC", nights=2, guests=['ann o"neil', "BO"]), "right"),
        (call(city="NYC", nights=2, guests=["Bo", "Ann O'Neil"]), "wrong value"),
        (call(city="NYC", nights=2, guests=[]), "right"),
        (call(city="NYC", nights=2, guests="Bo"), "wrong type"),
        (call(city="NYC", nights=2, rooms=[{"beds": 3, "view": "Sea"}, {"beds": 1}]), "right"),
        (call(city="NYC", nights=2, rooms=[{"beds": 3}, {"beds": 1}]), "right"),
        (call(city="NYC", nights=2, rooms=[{"beds": 3}]), "wrong value"),
        (call(city="NYC", nights=2, rooms=[{"beds": 3}, {}]), "wrong value"),
        (call(city="NYC", nights=2, rooms=[{"beds": 3, "bath": 1}, {"beds": 1}]), "wrong value"),
        (call(city="NYC", nights=2, contact={"name": "ann", "days": ["MonTue"]}), "right"),
        (call(city="NYC", nights=2, contact={"name": "Ann", "phone": None, "days": ["Mon-Tue"]}), "right"),
        (call(city="NYC", nights=2, contact={"name": "Ann", "days": "Mon-Tue"}), "wrong value"),
        (call(city="NYC", nights=2, contact={"days": ["Mon-Tue"]}), "wrong value"),
        ({"name": "book", "arguments": {}}, "wrong function"),
        ({"name": "book"}, "not a call"),
        (None, "not JSON"),
    ],
)
def test_a_call_is_right_when_the_key_allows_all_of_it(value: Any, expected: str) -> None:
    assert group(checks.AnswerKey(), case(target=KEY), value) == expected


def test_an_empty_array_is_right_only_where_the_array_may_be_left_out() -> None:
    key = {"name": "hotel.book", "arguments": {"city": ["NYC"], "nights": [2], "guests": [["Bo"]]}}

    assert group(checks.AnswerKey(), case(target=key), call(city="NYC", nights=2, guests=[])) == "wrong value"


def test_a_required_argument_is_missing_even_where_the_key_lets_it_go() -> None:
    key = {"name": "hotel.book", "arguments": {"city": ["NYC", ""], "nights": [2]}}

    assert group(checks.AnswerKey(), case(target=key), call(nights=2)) == "missing argument"


def test_an_argument_that_no_value_fits_can_not_be_right() -> None:
    key = {"name": "hotel.book", "arguments": {"city": ["NYC"], "nights": [2], "guests": []}}

    assert group(checks.AnswerKey(), case(target=key), call(city="NYC", nights=2)) == "missing argument"
    assert group(checks.AnswerKey(), case(target=key), call(city="NYC", nights=2, guests=["Bo"])) == "wrong value"


def test_the_key_check_cannot_tell_without_a_key() -> None:
    assert group(checks.AnswerKey(), case(), call(city="NYC", nights=2)) is None


def test_a_target_of_another_form_is_named() -> None:
    with pytest.raises(CheckError, match="the target is 'NYC'; the check 'answer_key' needs"):
        scored(checks.AnswerKey(), case(target="NYC"), None)


@given(st.sampled_from([call(city="SECRET"), call(city="x"), call(nights=987), call(), {"name": "f", "arguments": {}}]))
def test_feedback_never_says_what_the_key_holds(value: JsonObject) -> None:
    key = {"name": "hotel.book", "arguments": {"city": ["CONFIDENTIAL"], "nights": [987654], "price": [1234.5]}}

    score = scored(checks.AnswerKey(), case(target=key), value)

    assert score is not None
    assert not any(secret in score.feedback for secret in ("CONFIDENTIAL", "987654", "1234.5"))


# --- all ------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([1.0, 2.0, 2.5, -0.0, 1e21, 1e16])
    | st.sampled_from(["", "NYC", "n y c", "2", "suite"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "beds", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*BOOK["properties"], "other"]), JSON))
def test_a_verdict_is_the_same_after_the_answer_was_stored_as_canonical_json(arguments: JsonObject) -> None:
    """A receipt keeps answers as RFC 8785 writes them, where 5.0 is 5: whoever scores them again must agree."""
    of = case("2 nights in NYC", target=KEY)
    stored_case = msgspec.convert(json.loads(canonical(of)), Case)
    kinds = [checks.ToolCall(), checks.Grounding(), checks.AnswerKey(), checks.Agreement()]
    value = {"name": "hotel.book", "arguments": {"city": "NYC", "nights": 2, **arguments}}
    stored = json.loads(canonical(value))

    before = judge(kinds, of, Answer(text="", value=value, samples=(value, stored)))
    after = judge(kinds, stored_case, Answer(text="", value=stored, samples=(stored, stored)))

    assert [(v.score, v.group) for v in before] == [(v.score, v.group) for v in after]
