"""Our answer-key check against the leaderboard's own checker, verdict by verdict, on mutated right answers."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import pytest

from gainful.checks import AnswerKey
from gainful.core import Answer, Case, JsonObject
from gainful.models.files import wheel_file
from gainful.tasks import bfcl

pytestmark = pytest.mark.slow

Checker = Callable[..., JsonObject]
MUTANTS = 8  # of each of the 658 cases


class _NoRenaming(dict[str, Any]):
    """Stands for the table of the leaderboard's 100 models: of each, whether it renames functions.  None does."""

    def __missing__(self, key: str) -> SimpleNamespace:
        return SimpleNamespace(underscore_to_dot=False)


def folder() -> Path:
    member = "bfcl_eval/data/BFCL_v4_simple_python.json"
    return wheel_file("bfcl-eval", bfcl.VERSION, member, bfcl.WHEEL_SHA256).parents[2]


@pytest.fixture(scope="module")
def ast_checker() -> Iterator[Checker]:
    """The wheel's checker, without the table of models, which would import the clients of twenty vendors."""
    models = ModuleType("bfcl_eval.constants.model_config")
    models.MODEL_CONFIG_MAPPING = _NoRenaming()  # type: ignore[attr-defined]
    sys.modules[models.__name__] = models
    sys.path.insert(0, str(folder()))
    try:
        from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

        yield ast_checker
    finally:
        sys.path.remove(str(folder()))
        for name in [name for name in sys.modules if name.split(".")[0] == "bfcl_eval"]:
            del sys.modules[name]


def cases(category: str) -> Iterator[tuple[Case, list[JsonObject]]]:
    """The cases as we load them, each with the functions as the leaderboard describes them."""
    lines = (folder() / f"bfcl_eval/data/BFCL_v4_{category}.json").read_bytes().splitlines()
    functions = {line["id"]: line["function"] for line in map(msgspec.json.decode, lines)}
    task = bfcl.load(category)
    held_out = task.holdout.open("0" * 64, task.holdout.size or 0, 0)
    return ((case, functions[case.name]) for case in (*task.dev, *held_out))


def right(case: Case, random: Random) -> JsonObject:
    arguments = {}
    for name, allowed in case.target["arguments"].items():
        real = [literal(value) for value in allowed if value != ""]
        if real and ("" not in allowed or random.random() < 0.5):
            arguments[name] = random.choice(real)
    return {"name": case.target["name"], "arguments": arguments}


def literal(allowed: Any) -> Any:
    """A value that an allowed value allows: in an object each member has allowed values of its own."""
    if isinstance(allowed, dict):
        return {name: literal(values[0]) for name, values in allowed.items() if values and values[0] != ""}
    return [literal(item) for item in allowed] if isinstance(allowed, list) else allowed


def mutated(call: JsonObject, random: Random) -> JsonObject:
    name, arguments = call["name"], dict(call["arguments"])
    for _ in range(random.choice([0, 1, 1, 1, 2])):
        what = random.random()
        if what < 0.03:
            name += "_"
        elif what < 0.1:
            arguments["surplus"] = 1
        elif arguments:
            chosen = random.choice(sorted(arguments))
            if what < 0.2:
                del arguments[chosen]
            else:
                arguments[chosen] = changed(arguments[chosen], random)
    return {"name": name, "arguments": arguments}


def changed(value: Any, random: Random) -> Any:
    if isinstance(value, bool):
        return random.choice([not value, int(value), str(value), None])
    if isinstance(value, int | float):
        options = [float(value), int(value), value + 1, -value, str(value), True, [value], None, value * 1.5, ""]
        return random.choice(options)
    if isinstance(value, str):
        spelled = [value.upper(), value.replace(" ", ""), value.replace(" ", "-"), value + ".", value.replace('"', "'")]
        return random.choice([*spelled, value + "x", value[:-1], "", [value], 5, None, {"a": value}])
    if isinstance(value, list) and value:
        place = random.randrange(len(value))
        other = [*value[:place], changed(value[place], random), *value[place + 1 :]]
        return random.choice([other, other, other, value[::-1], value[:-1], [*value, value[0]], [value], [], ""])
    if isinstance(value, dict) and value:
        name = random.choice(sorted(value))
        rest = {key: member for key, member in value.items() if key != name}
        return random.choice([rest, {**value, "surplus": 1}, {**rest, name: changed(value[name], random)}])
    return random.choice(["", [], 0])


def spelled_as(value: Any, allowed: Any) -> Any:
    """*value* with its numbers, and its texts in arrays in objects, spelled as in the allowed value that it equals."""
    if isinstance(value, dict) and isinstance(allowed, dict):
        return {name: spelled_as_one_of(member, allowed.get(name, [])) for name, member in value.items()}
    if isinstance(value, list) and isinstance(allowed, list) and len(value) == len(allowed):
        return [spelled_as(item, wanted) for item, wanted in zip(value, allowed, strict=True)]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return allowed if is_number and value == allowed and not isinstance(allowed, bool) else value


def spelled_as_one_of(value: Any, allowed: list[Any]) -> Any:
    for candidate in allowed:
        if (
            isinstance(value, list)
            and isinstance(candidate, list)
            and [s(v) for v in value] == [s(c) for c in candidate]
        ):
            return candidate
        if spelled_as(value, candidate) == candidate:
            return candidate
    for candidate in allowed:
        value = spelled_as(value, candidate)
    return value


def s(value: Any) -> Any:
    return value.lower().translate(str.maketrans("'", '"', " ,./-_*^")) if isinstance(value, str) else value


def test_every_verdict_is_the_leaderboards_but_for_the_spelling_of_numbers_and_of_deep_texts(
    ast_checker: Checker,
) -> None:
    from bfcl_eval.constants.enums import Language

    random = Random(20260323)
    verdicts: Counter[tuple[bool, bool]] = Counter()
    unexplained = []
    for category in bfcl.CATEGORIES:
        for case, functions in cases(category):
            key = [{case.target["name"]: case.target["arguments"]}]

            def theirs(call: JsonObject, functions: list[JsonObject] = functions, key: list[JsonObject] = key) -> bool:
                called = [{call["name"]: call["arguments"]}]
                return bool(ast_checker(functions, called, key, Language.PYTHON, "simple_python", "any")["valid"])

            for call in [right(case, random), *(mutated(right(case, random), random) for _ in range(MUTANTS))]:
                score = AnswerKey()(case, Answer(text="", value=call))
                assert score is not None
                verdicts[score.value == 1.0, theirs(call)] += 1
                if (score.value == 1.0) != theirs(call):
                    allowed = case.target["arguments"]
                    arguments = {name: spelled_as_one_of(v, allowed[name]) for name, v in call["arguments"].items()}
                    if not (score.value == 1.0 and theirs({**call, "arguments": arguments})):
                        unexplained.append((case.name, call, score))

    assert unexplained == []
    assert verdicts[True, True] > 1000
    assert verdicts[False, False] > 1000
    assert verdicts[False, True] == 0
