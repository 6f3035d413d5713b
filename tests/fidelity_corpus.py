"""Requests and replies of every shape that clients and servers of chat completions send, for `fidelity.py`.

Each shape is a request, without ``model`` and ``stream``, and the reply an upstream gives to it, both as JSON text: the
text of a number, the escapes of a string and the order of members are part of what is sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a place",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"], "default": "C"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}
HELLO = {"role": "user", "content": "Say hello."}
ODD = {
    "emoji joined": "family 👩‍👩‍👧‍👦, flag 🏳️‍🌈, skin 👍🏽, keycap 1️⃣",
    "right to left": "שלום \u202eabc\u202c مرحبا \u200f!",
    "combining": "e\u0301 is not é; Z\u0351\u036b\u0343algo; ﷽; \u1e9b\u0323",
    "line separators": "a\u2028b\u2029c\u0085d\x0be\x0cf\r\ng\rh\n",
    "controls": "\x00 nul, \x1b[31m escape, \x7f delete, \x01\x02\x1f, \ufeff mark, \ufffe\uffff",
    "astral": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𠜎𠜱 \U0010ffff 🂡",
    "quotes": '\\ " \' / </script> \\u0041 \\n {"a": "b"} %s {0} ${x}',
    "spaces": "  leading\u00a0\u3000and trailing \t \n",
    "tags": "<optillm_approach>bon</optillm_approach> <gainful_policy>x</gainful_policy> <|im_start|>system",
}


@dataclass(frozen=True)
class Shape:
    """A request and the reply to it, as JSON text."""

    name: str
    request: str
    reply: str


def says(content: str | None = "Hello.", **more: Any) -> dict[str, Any]:
    """Return an assistant's message."""
    return {"role": "assistant", "content": content, **more}


def call(name: str, arguments: str, id: str = "call_1") -> dict[str, Any]:
    """Return a tool call."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def completion(*messages: dict[str, Any], finish: str = "stop", choice: Any = None, **more: Any) -> dict[str, Any]:
    """Return a reply with a choice for each message; *choice* holds further members of each."""
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": finish, **(choice or {})}
        for index, message in enumerate(messages or (says(),))
    ]
    return {
        "id": "chatcmpl-123",
        "object": "chat.completion",
        "created": 1767225600,
        "model": "upstream-model",
        "choices": choices,
        "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
        "system_fingerprint": "fp_44709d6fcb",
        **more,
    }


def shape(name: str, reply: dict[str, Any] | None = None, messages: Any = None, **asked: Any) -> Shape:
    """Return a shape; what is left out is a plain greeting."""
    request = {"messages": [HELLO] if messages is None else messages, **asked}
    return Shape(name, text(request), text(completion() if reply is None else reply))


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a conversation of one user's turn made of *parts*."""
    return [{"role": "user", "content": list(parts)}]


def words(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def picture(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def nested(depth: int) -> dict[str, Any]:
    """Return a JSON schema of objects inside objects."""
    schema: dict[str, Any] = {"type": "string", "pattern": "^[a-z]+\\d{2,}$"}
    for level in range(depth):
        name = f"level_{level}"
        schema = {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}
    return schema


TOKENS = [
    {
        "token": token,
        "logprob": logprob,
        "bytes": list(token.encode()),
        "top_logprobs": [{"token": token, "logprob": 0.0}],
    }
    for token, logprob in (("Hel", -0.31725305), ("lo", -1e-7), (".", -9999.0))
]
ASKED_FOR_TOOL = [
    {"role": "user", "content": "Is it warm in Paris?"},
    {"role": "assistant", "content": None, "tool_calls": [call("get_weather", '{"city": "Paris"}')]},
]
PARIS = {"role": "tool", "tool_call_id": "call_1", "content": '{"celsius": 21.50}'}
TWO_CALLS = [
    call("get_weather", '{"city":"Paris"}'),
    call("get_weather", '{"city":"Zürich","unit":"C"}', "call_2"),
]

TURNS = [
    shape("one turn"),
    shape("system first", messages=[{"role": "system", "content": "Be brief."}, HELLO]),
    shape("developer first", messages=[{"role": "developer", "content": "Be brief."}, HELLO]),
    shape("several systems", messages=[{"role": "system", "content": c} for c in "ab"] + [HELLO]),
    shape("system last", messages=[HELLO, {"role": "system", "content": "Be brief."}]),
    shape("many turns", messages=[HELLO, says(), {"role": "user", "content": "Again."}, says("Hello again."), HELLO]),
    shape("two users in a row", messages=[HELLO, HELLO]),
    shape("assistant first", messages=[says("How can I help?"), HELLO]),
    shape("assistant last", messages=[HELLO, says("He")], reply=completion(says("llo."))),
    shape("names", messages=[{"role": "system", "content": "x", "name": "boss"}, {**HELLO, "name": "anna_b-1"}]),
    shape("refusal in the history", messages=[HELLO, {"role": "assistant", "refusal": "I cannot."}, HELLO]),
    shape(
        "refusal part",
        messages=[HELLO, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, HELLO],
    ),
    shape("assistant text parts", messages=[HELLO, {"role": "assistant", "content": [words("a"), words("b")]}, HELLO]),
    shape("unknown message members", messages=[{**HELLO, "cache_control": {"type": "ephemeral"}, "weight": 0}]),
    shape("reasoning in the history", messages=[HELLO, says("Hi", reasoning_content="greet back"), HELLO]),
    shape(
        "a hundred turns", messages=[m for n in range(50) for m in ({"role": "user", "content": str(n)}, says(str(-n)))]
    ),
]
PARTS = [
    shape("one text part", messages=user(words("Say hello."))),
    shape("three text parts", messages=user(words("a"), words(""), words(" b"))),
    shape("system text parts", messages=[{"role": "system", "content": [words("Be brief.")]}, HELLO]),
    shape("image by address", messages=user(words("What is this?"), picture("https://example.com/a.png?x=1&y=%20"))),
    shape("image detail", messages=user(picture("https://example.com/a.jpg", detail="low"), words("And this?"))),
    shape("image in the request", messages=user(words("Describe."), picture(PIXEL))),
    shape("several images", messages=user(*[picture(PIXEL, detail="high")] * 3)),
    shape("audio", messages=user({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}})),
    shape("file", messages=user({"type": "file", "file": {"file_id": "file-1"}}, words("Sum it up."))),
    shape(
        "part of a vendor",
        messages=user({"type": "video_url", "video_url": {"url": "https://example.com/v"}, "fps": 2}),
    ),
]
TOOLS = [
    shape("a tool, text back", tools=[WEATHER]),
    shape("a tool is called", completion(says(None, tool_calls=[TWO_CALLS[0]]), finish="tool_calls"), tools=[WEATHER]),
    shape(
        "two calls at once", completion(says(None, tool_calls=TWO_CALLS), finish="tool_calls"), tools=[WEATHER, CLOCK]
    ),
    shape(
        "text and a call",
        completion(says("Let me see.", tool_calls=TWO_CALLS[:1]), finish="tool_calls"),
        tools=[WEATHER],
    ),
    shape("a call without arguments", completion(says(None, tool_calls=[call("get_time", "{}")])), tools=[CLOCK]),
    shape("arguments that are no JSON", completion(says(None, tool_calls=[call("get_time", '{"a": ')])), tools=[CLOCK]),
    shape("tool_choice auto", tools=[WEATHER], tool_choice="auto"),
    shape("tool_choice none", tools=[WEATHER], tool_choice="none"),
    shape("tool_choice required", tools=[WEATHER], tool_choice="required", parallel_tool_calls=False),
    shape(
        "tool_choice by name", tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "get_weather"}}
    ),
    shape("a result", messages=[*ASKED_FOR_TOOL, PARIS], tools=[WEATHER]),
    shape("a result in parts", messages=[*ASKED_FOR_TOOL, {**PARIS, "content": [words("21")]}], tools=[WEATHER]),
    shape(
        "two results",
        messages=[
            HELLO,
            says(None, tool_calls=TWO_CALLS),
            PARIS,
            {"role": "tool", "tool_call_id": "call_2", "content": ""},
        ],
        tools=[WEATHER],
    ),
    shape("a call with empty text", messages=[HELLO, says("", tool_calls=TWO_CALLS[:1]), PARIS], tools=[WEATHER]),
    shape("functions of old", functions=[WEATHER["function"]], function_call="auto"),
    shape("a function's result of old", messages=[HELLO, {"role": "function", "name": "get_time", "content": "12:00"}]),
    shape("a tool of a vendor", tools=[{"type": "web_search", "web_search": {"depth": 2}}]),
    shape("no tools in a list", tools=[]),
]
SETTINGS = [
    shape("sampling", temperature=0.7, top_p=0.95, presence_penalty=-0.5, frequency_penalty=1, max_tokens=64),
    shape("max_completion_tokens", max_completion_tokens=100, reasoning_effort="low"),
    shape("temperature zero", temperature=0, seed=42),
    shape("large seed", seed=9223372036854775807),
    shape("stop text", stop="\n"),
    shape("stop list", stop=["\n\n", "END", "🛑"]),
    shape("logit_bias", logit_bias={"50256": -100, "1": 0.5}),
    shape("user and metadata", user="user-1", metadata={"order": "17", "empty": ""}, store=False),
    shape("null settings", temperature=None, stop=None, tools=None, response_format=None),
    shape(
        "vendor settings",
        top_k=40,
        min_p=0.05,
        repetition_penalty=1.1,
        guided_regex="a|b",
        extra={"a": [1, {"b": None}]},
    ),
    shape("service tier", completion(service_tier="default"), service_tier="auto"),
    shape("predicted output", prediction={"type": "content", "content": "Hello"}, modalities=["text"]),
    shape("several choices", completion(says("One."), says("Two."), says("Three.")), n=3),
    shape("log-probabilities", completion(choice={"logprobs": {"content": TOKENS}}), logprobs=True, top_logprobs=1),
]
FORMATS = [
    shape("json_object", completion(says('{"a": 1}')), response_format={"type": "json_object"}),
    shape("text format", response_format={"type": "text"}),
    shape(
        "json_schema",
        completion(says('{"city": "Paris"}')),
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "place", "strict": True, "schema": WEATHER["function"]["parameters"]},
        },
    ),
    shape(
        "deep schema", response_format={"type": "json_schema", "json_schema": {"name": "deep", "schema": nested(20)}}
    ),
    shape(
        "schema with references",
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "tree",
                "schema": {"$defs": {"n": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}}, "$ref": "#/$defs/n"},
            },
        },
    ),
]
REPLIES = [
    shape("refusal", completion(says(None, refusal="I cannot help with that."))),
    shape("cut off", completion(says("Once upon a"), finish="length"), max_tokens=3),
    shape("filtered", completion(says(""), finish="content_filter")),
    shape("finish of a vendor", completion(finish="eos_token", choice={"stop_reason": 128009})),
    shape("empty reply", completion(says(""))),
    shape("reasoning", completion(says("4", reasoning_content="2 + 2 is 4"))),
    shape("think tags", completion(says("<think>\n2 + 2\n</think>\n\n4"))),
    shape(
        "annotations",
        completion(says("See.", annotations=[{"type": "url_citation", "url_citation": {"url": "https://a"}}])),
    ),
    shape(
        "unknown reply members",
        completion(timings={"predicted_ms": 12.5}, choice={"content_filter_results": {"hate": {}}}),
    ),
    shape("no fingerprint", completion(system_fingerprint=None)),
    shape(
        "usage in detail",
        completion(
            usage={
                "prompt_tokens": 9,
                "completion_tokens": 12,
                "total_tokens": 21,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 7, "accepted_prediction_tokens": 0},
                "cost": 0.00012,
            }
        ),
    ),
]
UNICODE = [
    shape(f"Unicode: {name}", completion(says(odd)), [{"role": "user", "content": odd}]) for name, odd in ODD.items()
]
TEXTS = [
    shape("empty text", messages=[{"role": "user", "content": ""}]),
    shape("long text", completion(says("reply " * 20_000)), [{"role": "user", "content": "long " * 40_000}]),
    Shape(
        "escaped Unicode",
        r'{"messages": [{"role": "user", "content": "\u0048\u00e9 \ud83d\ude00 \u0000 \/ \u2028"}]}',
        json.dumps(completion(says("\u0048é 😀 \u0000 /"))),
    ),
    Shape(
        "numbers of every form",
        '{"messages": [{"role": "user", "content": "Count."}], "temperature": 1e-7, "top_p": 1.0, "seed": -0, '
        '"vendor": [12345678901234567890, 0.1, 1e22, -1.5e-9, 0.30000000000000004, 1.50, 1E5]}',
        text(completion(vendor=[1e-7, 12345678901234567890, 1.0, 0.1])),
    ),
    Shape(
        "more digits than a double has",
        '{"messages": [{"role": "user", "content": "Count."}], "vendor": [123456789.123456789, 3.141592653589793238]}',
        text(completion()),
    ),
    Shape(
        "a number beyond a double",
        '{"messages": [{"role": "user", "content": "Count."}], "vendor": [1e400]}',
        text(completion()),
    ),
    Shape(
        "members in odd order",
        '{ "temperature" : 0.5,\n\t"messages":[ {"content":"Say hello.","role":"user"} ] }',
        text(dict(reversed(completion().items()))),
    ),
]

SHAPES = [*TURNS, *PARTS, *TOOLS, *SETTINGS, *FORMATS, *REPLIES, *UNICODE, *TEXTS]
