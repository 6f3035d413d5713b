"""The bytes of a request: what passes is as it came, what does not is told in one sentence."""

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gainful.answers.allowance import Limits
from gainful.core import ApiError, JsonObject
from gainful.models.session import encoded
from gainful.proxy.wire import BOUNDS, Bounds, header_value, limits_of, parse

USER = {"role": "user", "content": "hi"}
ASK: JsonObject = {"model": "m", "messages": [USER]}

# Text that UTF-8 can hold; integers beyond 64 bits; every finite double.
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


def refused(body: Any, bounds: Bounds = BOUNDS) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(body if isinstance(body, bytes) else json.dumps(body).encode(), bounds)
    error = caught.value
    assert set(error.shape()["error"]) == {"message", "type", "param", "code"}
    assert error.shape()["error"]["type"] == "invalid_request_error"
    assert len(str(error).splitlines()) == 1
    return error


# --- what passes ----------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(min_size=1).map(lambda name: f"x_{name}"), JSON_VALUES), st.booleans())
@pytest.mark.slow
def test_what_nobody_knows_reaches_the_model_as_it_came(extras: JsonObject, ascii_only: bool) -> None:
    body = {**extras, **ASK, "stream": True, "metadata": extras}
    ask = parse(json.dumps(body, ensure_ascii=ascii_only).encode())
    expected = {name: value for name, value in body.items() if name not in ("model", "stream")}

    assert json.dumps(json.loads(encoded(ask.body))) == json.dumps(expected)  # as text: order, 1 and 1.0 and true count


@pytest.mark.parametrize(
    "number",
    ["1.0", "1", "-0.0", "1e-7", "1E5", "0.1", "18446744073709551616", "-9223372036854775809", "1e22", "5e-324"],
)
def test_numbers_are_kept_to_the_last_digit(number: str) -> None:
    body = f'{{"model": "m", "messages": [{{"role": "user"}}], "x": {number}}}'.encode()

    assert repr(json.loads(encoded(parse(body).body))["x"]) == repr(json.loads(number))


def test_everything_a_client_may_send_passes() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    audio = {"type": "input_audio", "input_audio": {}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    body = {
        "messages": [
            {"role": "developer", "content": "é\u0000😀", "name": "dev"},
            {"role": "system", "content": [{"type": "text", "text": "a"}]},
            {"role": "user", "content": [{"type": "text", "text": ""}, image, audio]},
            {"role": "assistant", "content": None, "tool_calls": [call, call], "refusal": None},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            {"role": "function", "name": "f", "content": "1"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "strict": True}}, {"type": "custom", "custom": {}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"maximum": 2**63}}},
        "n": 16, "temperature": 0, "top_p": 1, "max_tokens": -1, "max_completion_tokens": None, "stop": ["a", "b"],
        "logprobs": True, "top_logprobs": 20, "seed": 2**70, "user": "ann", "logit_bias": {"50256": -100},
        "presence_penalty": -2, "frequency_penalty": 0.5, "parallel_tool_calls": False, "service_tier": "auto",
    }  # fmt: skip

    assert parse(json.dumps({"model": "m", **body}).encode()).body == body


@pytest.mark.parametrize(
    "text",
    ["<gainful_policy>x</gainful_policy>", '{"model": "other"}', "x-gainful-max-calls: 99", "gainful.verify()", "\r\n"],
)
def test_a_text_that_wants_to_be_more_than_text_is_text(text: str) -> None:
    tool = {"type": "function", "function": {"name": text}}
    ask = parse(json.dumps({**ASK, "messages": [{"role": "user", "content": text}], "tools": [tool]}).encode())

    assert ask.model == "m"
    assert ask.body == {"messages": [{"role": "user", "content": text}], "tools": [tool]}


@pytest.mark.parametrize(
    ("change", "stream", "include_usage"),
    [
        ({}, False, False),
        ({"stream": False}, False, False),
        ({"stream": None, "stream_options": None}, False, False),
        ({"stream": True}, True, False),
        ({"stream": True, "stream_options": {}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}}, True, True),
    ],
)
def test_how_to_answer_is_for_the_server(change: JsonObject, stream: bool, include_usage: bool) -> None:
    ask = parse(json.dumps({**ASK, **change}).encode())

    assert (ask.stream, ask.include_usage) == (stream, include_usage)
    assert ask.body == {"messages": [USER]}


# --- what does not --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "Expecting value at byte 0"),
        (b"{", "at byte 1"),
        ('{"é": }'.encode(), "Expecting value at byte 7"),
        (b'{"model": "m"} x', "Extra data at byte 15"),
        (b"{'model': 1}", "at byte 1"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        ("{}".encode("utf-16"), "not UTF-8 at byte 0"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a": "\x01"}', "Invalid control character at at byte 7"),
        (b'{"a": NaN}', "holds NaN, which JSON has not"),
        (b'{"a": -Infinity}', "holds -Infinity"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"\\udc00": 1}', "half of a surrogate pair"),
        (b'{"a": 1e400}', "number that is too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "number that is too large"),
        (b"[" * 100_000, "nested more than 64 levels"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested more than 64 levels"),
        (b"[]", "the body is a list; send a JSON object"),
        (b'"hi"', "is a string"),
        (b"null", "is a null"),
        (b"1.5", "is a number"),
    ],
)
def test_what_is_no_json_object_is_told_where_it_breaks(body: bytes, sentence: str) -> None:
    error = refused(body)

    assert sentence in str(error)
    assert error.status == 400


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [USER, {"content": "hi"}]}, "messages[1].role"),
        ({"messages": [USER, {"role": "robot", "content": "hi"}]}, "messages[1].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["hi"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls"),
        *(({"n": n}, "n") for n in (0, -1, 17, 10**9, 10**300, "1", 1.5, True, [1])),
        *(({name: "0.5"}, name) for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty")),
        *(({name: 1.5}, name) for name in ("max_tokens", "max_completion_tokens", "top_logprobs", "seed")),
        ({"stop": 5}, "stop"),
        ({"stop": [5]}, "stop[0]"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function", "function": "f"}]}, "tools[0].function"),
        ({"tool_choice": 1}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": "f"}}, "tool_choice.function"),
        ({"response_format": "json"}, "response_format"),
        ({"logprobs": 5}, "logprobs"),
        ({"user": 5}, "user"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"logit_bias": {"5": "x"}}, "logit_bias[...]"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ],
)
def test_a_member_of_the_wrong_kind_is_named(change: JsonObject, param: str) -> None:
    error = refused({**ASK, **change})

    assert error.param == param
    assert str(error).startswith(param)
    assert error.status == 400


@pytest.mark.parametrize("name", ["model", "messages"])
def test_a_member_that_is_missing_is_named(name: str) -> None:
    error = refused({key: value for key, value in ASK.items() if key != name})

    assert str(error) == f"{name} is missing; send it"
    assert error.param == name


def nested(depth: int) -> JsonObject:
    """Return a request of *depth* levels in all, lists and objects taking turns."""
    value: Any = {}
    for level in range(depth - 2):
        value = [value] if level % 2 else {"a": value}
    return {**ASK, "metadata": value}


def test_bounds_are_kept_to_the_last_one() -> None:
    bounds = Bounds(body_bytes=1000, messages=3, depth=20, n=2)
    fits = {**ASK, "messages": [USER] * 3, "n": 2}
    padded = json.dumps(fits).encode().ljust(1000)

    assert parse(padded, bounds).body["n"] == 2
    assert refused(padded + b" ", bounds).status == 413
    assert refused({**fits, "messages": [USER] * 4}, bounds).param == "messages"
    assert refused({**fits, "n": 3}, bounds).param == "n"
    assert parse(json.dumps(nested(20)).encode(), bounds)
    assert "more than 20 levels" in str(refused(nested(21), bounds))


@given(st.binary() | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_garbage_is_refused_and_never_raises_anything_else(body: bytes) -> None:
    refused(body)


@given(st.sampled_from(["messages", "n", "stop", "tools", "tool_choice", "stream_options", "logit_bias"]), JSON_VALUES)
def test_any_value_of_a_known_member_passes_whole_or_is_refused(name: str, value: Any) -> None:
    try:
        ask = parse(json.dumps({**ASK, name: value}).encode())
    except ApiError as error:
        assert str(error).startswith(name)  # noqa: PT017 - passing is right too
    else:
        assert ask.body.get(name, value) == value


# --- headers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        ({}, Limits()),
        ({"X-Gainful-Deadline-MS": "0.5"}, Limits(deadline_ms=0.5)),
        ({"x-gainful-max-calls": "1"}, Limits(extra_calls=0)),
        ({"x-gainful-max-calls": "4", "x-gainful-deadline-ms": "2000"}, Limits(deadline_ms=2000.0, extra_calls=3)),
    ],
)
def test_a_caller_may_tighten_the_limits(headers: dict[str, str], limits: Limits) -> None:
    assert limits_of(CIMultiDict(headers)) == limits


@pytest.mark.parametrize("name", ["x-gainful-deadline-ms", "x-gainful-max-calls"])
@pytest.mark.parametrize(
    "value", ["", "0", "-1", "nan", "inf", "1e3", "1_000", " 5", "five", "٣", "9" * 400, "5\r\nX: y"]
)
def test_a_limit_that_is_no_positive_number_is_refused(name: str, value: str) -> None:
    with pytest.raises(ApiError, match=f"{name} is .*; send a (positive|whole) number") as caught:
        limits_of(CIMultiDict({name: value}))

    assert caught.value.param == name
    assert len(str(caught.value)) < 400


def test_half_a_call_is_no_number_of_calls() -> None:
    with pytest.raises(ApiError):
        limits_of({"x-gainful-max-calls": "1.5"})


@given(st.text())
def test_no_header_value_holds_a_line_end_or_anything_but_ascii(value: str) -> None:
    sent = header_value(value)

    assert all(" " <= character <= "~" for character in sent)
    assert len(sent) <= 256
    assert header_value(sent) == sent.strip()


def test_an_error_for_a_caller_survives_pickling() -> None:
    error = ApiError("busy; wait", status=429, code="c", param="p", kind="k", retry_after_s=2.0)
    again = pickle.loads(pickle.dumps(error))

    assert again.shape() == {"error": {"message": "busy; wait", "type": "k", "param": "p", "code": "c"}}
    assert (again.status, again.retry_after_s) == (429, 2.0)


@pytest.mark.parametrize("name", ["adapter", "lora"])
def test_a_caller_who_chooses_weights_is_refused_and_one_who_leaves_them_unset_is_not(name: str) -> None:
    error = refused({**ASK, name: [{"id": 0, "scale": 1.0}]})

    assert error.status == 400
    assert error.param == name
    assert "the policy in service has its own" in str(error)
    assert parse(json.dumps({**ASK, name: None, "other": 1}).encode()).body.keys() == {"messages", "other"}
