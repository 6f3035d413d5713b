"""Turn a request for JSON that follows a schema into a grammar that llama.cpp keeps, written compactly.

llama.cpp's own converter of schemas leaves white space to the model, and a small model fills half of its
tokens with it.  The grammar engine in the build, llguidance, takes the same schema and an order to leave
white space out.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema

from gainful.core import JsonObject, RequestRefused

START = "%llguidance {}\nstart: %json "
JSON_STARTS = frozenset('{["-0123456789tfn') | {""}
MARK = "\x01"  # a character no model writes by itself
COMPACT = {"whitespace_flexible": False, "coerce_one_of": True, "lenient": True}


def constrained(body: JsonObject) -> JsonObject:
    """Return *body* with a JSON-schema ``response_format`` replaced by the grammar of its compact form.

    A request without one comes back as the same object, and so does one with tools, which the engine accepts
    beside its own converter only.  Raises ``RequestRefused`` where the schema is no object.
    """
    wanted = body.get("response_format")
    if not (isinstance(wanted, dict) and wanted.get("type") == "json_schema") or body.get("tools"):
        return body
    schema = _schema(body)
    if not isinstance(schema, dict):
        raise RequestRefused(f"response_format.json_schema.schema is {schema!r}; it must be a JSON schema, an object")
    rest = {key: value for key, value in body.items() if key != "response_format"}
    return {**rest, "grammar": START + json.dumps({**closed(schema), "x-guidance": COMPACT})}


def closed(schema: Any) -> Any:
    """Return *schema* with every object that names its properties closed to others, where it leaves that open.

    llama.cpp's own converter does the same: a small model that may add properties adds them without end.
    """
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {
        key: value if key in ("enum", "const", "default", "examples") else closed(value)
        for key, value in schema.items()
    }
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        inner.setdefault("additionalProperties", False)
    return inner


def is_doubtful(body: JsonObject, reply: JsonObject) -> bool:
    """Whether *reply* looks as if the engine had passed over the schema that *body* asks for.

    A grammar that the engine cannot read it ignores without a word, so an answer that breaks the schema, or a
    part of one that does not begin as JSON does, calls for the proof (``probe``).
    """
    validator = jsonschema.Draft202012Validator(_schema(body))
    for choice in reply["choices"]:
        text = choice["message"].get("content") or ""
        if choice.get("finish_reason") == "length":
            if text[:1] not in JSON_STARTS:
                return True
            continue
        try:
            if not validator.is_valid(json.loads(text)):
                return True
        except Exception:  # noqa: BLE001 - a schema its own validator cannot read is doubtful, whatever it raised
            return True
    return False


def probe(grammar: str) -> JsonObject:
    """Return a request of one token whose answer begins with a mark only where the engine holds to *grammar*."""
    marked = grammar.replace(START, START.replace("%json", f"{json.dumps(MARK)} %json"))
    return {"messages": [{"role": "user", "content": "."}], "max_tokens": 1, "temperature": 0, "grammar": marked}


def grammar_holds(reply: JsonObject) -> bool:
    """Whether the answer to a probe begins with the mark."""
    return str(reply["choices"][0]["message"].get("content")).startswith(MARK)


def _schema(body: JsonObject) -> Any:
    inner = body["response_format"].get("json_schema")
    return inner.get("schema") if isinstance(inner, dict) else inner
