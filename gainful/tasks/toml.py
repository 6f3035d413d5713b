"""A task in a TOML file: the cases' files, what an answer looks like, who judges it.

Guarantees: an unknown key is refused, with the nearest known one; paths are relative to the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import msgspec

from gainful import checks
from gainful.core import AnswerKind, Case, Check, Choice, Json, JsonObject, Policy, TaskError
from gainful.tasks import jsonl
from gainful.tasks.improving import Improving
from gainful.tasks.serving import Serving
from gainful.tasks.split import DEV_SHARE, Split, divide
from gainful.tasks.task import Task, make_task


class File(msgspec.Struct, frozen=True):
    """A task file's keys; ``template.toml`` says what they mean."""

    name: str
    cases: str | list[str]
    answer: JsonObject
    checks: list[JsonObject]
    instructions: str = ""
    max_tokens: int = 256
    split: float = DEV_SHARE
    seed: int = 0
    serve: JsonObject = {}
    improve: JsonObject = {}


def load(path: Path) -> Task:
    """Return the task that the file *path* describes; raises ``TaskError`` naming file, key and value."""
    table = _table(path)
    try:
        return _task(table, path.parent)
    except TaskError as error:
        raise TaskError(f"{path.name}: {error}") from error


def name_in(path: Path) -> str:
    """Return the name that the task file *path* gives its task; nothing else in it is looked at."""
    name = _table(path).get("name")
    if not isinstance(name, str):
        raise TaskError(f"{path.name}: name is {name!r}; it must be a text")
    return name


def _table(path: Path) -> JsonObject:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise TaskError(f"there is no task file {str(path)!r}; `gainful init` writes one to start from") from None
    except OSError as error:
        raise TaskError(f"the task file {str(path)!r} cannot be read: {error.strerror}; correct the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TaskError(f"{path.name} is not TOML: {error}; correct the file") from None


def _task(table: JsonObject, folder: Path) -> Task:
    _refuse_unknown(table, File.__struct_fields__, "the task")
    file = _convert(table, File, "the task")
    kind = _kind(file.answer, folder)
    judging = [_judging(check, kind, folder) for check in file.checks]
    paths = [file.cases] if isinstance(file.cases, str) else file.cases
    _refuse_unknown(file.serve, Serving.__struct_fields__, "serve")
    _refuse_unknown(file.improve, Improving.__struct_fields__, "improve")
    task = make_task(
        file.name,
        divide(_cases(folder / path for path in paths), Split(dev=file.split, seed=file.seed)),
        kind,
        checks=[check for check, use in judging if use != "proof"],
        proof=[check for check, use in judging if use != "learn"],
        baseline=Policy(instructions=file.instructions, max_tokens=file.max_tokens),
    )
    return replace(
        task,
        serving=_convert(file.serve, Serving, "serve"),
        improving=_convert(file.improve, Improving, "improve"),
    )


def _cases(paths: Iterable[Path]) -> Iterator[Case]:
    for path in paths:
        yield from jsonl.read(path)


def _kind(answer: JsonObject, folder: Path) -> AnswerKind:
    members = {"type" if name == "kind" else name: value for name, value in _with_schema(answer, folder).items()}
    kinds = {kind.__struct_config__.tag: kind for kind in AnswerKind.__args__}
    if answer.get("kind") not in kinds:
        raise TaskError(f"answer.kind is {answer.get('kind')!r}; it must be one of {', '.join(map(str, kinds))}")
    _refuse_unknown(answer, ("kind", *kinds[answer["kind"]].__struct_fields__), "answer")
    found: AnswerKind = _convert(members, AnswerKind, "answer")
    return found


def _judging(table: JsonObject, kind: AnswerKind, folder: Path) -> tuple[Check, Literal["both", "learn", "proof"]]:
    """Return the check and what it is for; labels and schema are the answer's own where they are left out."""
    spec = _with_schema(table, folder)
    use = spec.pop("use", "both")
    if use not in ("both", "learn", "proof"):
        raise TaskError(f"check {spec.get('kind')!r} has use = {use!r}; it must be 'both', 'learn' or 'proof'")
    if "function" in spec:
        spec.setdefault("kind", "function")
    if isinstance(kind, Choice) and spec.get("kind") == "choice":
        spec.setdefault("labels", list(kind.labels))
    if isinstance(kind, Json) and spec.get("kind") == "json_schema":
        spec.setdefault("schema", kind.schema)
    return checks.from_spec(spec, folder), use


def _with_schema(table: JsonObject, folder: Path) -> JsonObject:
    """Return a copy of *table* with the schema itself where it names a file of JSON."""
    if not isinstance(table.get("schema"), str):
        return dict(table)
    path = folder / table["schema"]
    try:
        return {**table, "schema": msgspec.json.decode(path.read_bytes())}
    except OSError as error:
        raise TaskError(f"the schema file {str(path)!r} cannot be read: {error.strerror}; correct the path") from None
    except msgspec.DecodeError as error:
        raise TaskError(f"the schema file {str(path)!r} is not JSON: {error}; correct it") from None


def _refuse_unknown(table: JsonObject, known: Iterable[str], what: str) -> None:
    known = tuple(known)
    for name in table:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it may have {', '.join(known)}"
            raise TaskError(f"{what} has a key {name!r}, which is not known; {hint}")


def _convert(value: JsonObject, kind: Any, what: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise TaskError(f"{what}: {error}; correct the key") from None
