"""Turn a request for JSON that follows a schema into a grammar that llama.cpp keeps, written compactly.

llama.cpp's own converter of schemas leaves white space to the model, and a small model fills half of its
tokens with it.  The grammar engine in the build, llguidance, takes the same schema and an order to leave
white space out.
"""

from __future__ import annotations

import json
from typing import Any

from gainful.core import JsonObject

COMPACT = {"whitespace_flexible": False, "coerce_one_of": True, "lenient": True}


def constrained(body: JsonObject) -> JsonObject:
    """Return *body* with a JSON-schema ``response_format`` replaced by the grammar of its compact form."""
    wanted = body.get("response_format")
    if not (isinstance(wanted, dict) and wanted.get("type") == "json_schema"):
        return body
    schema = wanted.get("json_schema", {}).get("schema", {})
    rest = {key: value for key, value in body.items() if key != "response_format"}
    return {**rest, "grammar": grammar(schema)}


def grammar(schema: Any) -> str:
    """Return the llguidance grammar of *schema*."""
    return "%llguidance {}\nstart: %json " + json.dumps({**closed(schema), "x-guidance": COMPACT})


def closed(schema: Any) -> Any:
    """Return *schema* with every object that names its properties closed to others, where it leaves that open."""
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
