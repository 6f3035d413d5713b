"""Does the answer follow a JSON schema?"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from referencing.jsonschema import EMPTY_REGISTRY

from gainful.core import Answer, Case, JsonObject, Score, TaskError, canonical


@dataclass(frozen=True)
class JsonSchema:
    """Score 1 where the answer's value is valid under ``schema`` (JSON Schema draft 2020-12), else 0.

    ``format`` is an annotation, as the draft has it by default.  References reach the schema itself only: nothing
    is fetched.  Groups: "not JSON" without a value, else "not valid".  Raises ``TaskError`` for a schema that is
    none.
    """

    schema: JsonObject = field(hash=False)

    name: ClassVar[str] = "json_schema"
    trusted: ClassVar[bool] = True
    needs_target: ClassVar[bool] = False

    def __post_init__(self) -> None:
        try:
            Draft202012Validator.check_schema(self.schema)
        except SchemaError as error:
            where = "/".join(map(str, error.absolute_path)) or "its top"
            raise TaskError(
                f"check 'json_schema' has no valid schema: at {where}, {error.message}; correct it"
            ) from None

    @property
    def spec(self) -> JsonObject:
        """Kind and settings."""
        return {"kind": self.name, "schema": self.schema}

    def __call__(self, case: Case, answer: Answer) -> Score:
        """Judge one answer; the feedback names the place and the rule of the most telling violation."""
        if answer.value is None:
            return Score(0.0, "The reply holds no JSON; reply with one JSON value and nothing else.", "not JSON")
        violation = best_match(_validator(canonical(self.schema)).iter_errors(answer.value))
        if violation is None:
            return Score(1.0)
        return Score(0.0, f"At {violation.json_path}: {violation.message[:200]}.", "not valid")


@cache
def _validator(schema: bytes) -> Draft202012Validator:
    """Compile once, for a run judges thousands of answers by few schemas; this registry fetches nothing."""
    return Draft202012Validator(json.loads(schema), registry=EMPTY_REGISTRY)
