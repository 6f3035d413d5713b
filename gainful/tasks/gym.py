"""Tasks of reasoning-gym, which makes as many new cases as are wanted and scores any answer to them.

Guarantees: no case is in two of dev and the confirmations, whatever their number; all of them follow from the
task's name and the installed version.  Leaves to others: scoring (``checks.gym``).
"""

from __future__ import annotations

import ast
import json
from importlib.metadata import version
from typing import Any
from urllib.parse import parse_qsl

from gainful.checks.gym import Gym, create
from gainful.core import Answer, Case, JsonObject, Policy, TaskError, Text, digest
from gainful.tasks.holdout import Holdout
from gainful.tasks.split import content
from gainful.tasks.task import Task

DEV_SIZE = 200  # dev cases where the name gives no ``size``
BLOCK = 2000  # the most new cases a confirmation can have; each has a block of its own, so that none comes twice
PATIENCE = 10  # draws a wanted case before a generator counts as exhausted


def load(reference: str) -> Task:
    """Return the task ``DATASET?parameter=value&...``, values as Python literals (else texts).

    ``size`` is the number of dev cases and ``seed`` picks other cases; all else goes to the dataset.  Raises
    ``TaskError`` for an unknown dataset or parameter, a value it does not take, a dataset whose scorer does not
    accept its own answer once that was stored as JSON, and one that makes too few different cases.
    """
    dataset, _, query = reference.partition("?")
    parameters = {name: _literal(value) for name, value in parse_qsl(query, keep_blank_values=True)}
    size, seed = parameters.pop("size", DEV_SIZE), parameters.pop("seed", 0)
    if not (isinstance(size, int) and isinstance(seed, int) and size > 0):
        raise TaskError(
            f"reasoning-gym has no task of size {size!r} and seed {seed!r}; give whole numbers, size from 1"
        )
    check = Gym(dataset, parameters)
    cases = _Cases({"dataset": dataset, "parameters": parameters, "seed": seed})
    dev = cases.take(size, "dev")
    if len(dev) < size:
        raise TaskError(f"reasoning-gym's {dataset} with {parameters!r} makes only {len(dev)} cases; ask for less")
    _try_scorer(check, dev[0])
    source = {**cases.source, "version": version("reasoning-gym")}
    return Task(
        name=f"reasoning-gym:{reference}",
        kind=Text(),
        dev=dev,
        holdout=Holdout.drawn("reasoning-gym", source, lambda count, number, _: cases.draw(count, number)),
        checks=(check,),
        proof=(check,),
        baseline=Policy(max_tokens=128),
        spec={
            "name": f"reasoning-gym:{reference}",
            **source,
            "dev": size,
            "checks": [check.spec],
            "proof": [check.spec],
        },
    )


class _Cases:
    """Different cases of one dataset, in parts that follow from the source alone: dev first, then block by block."""

    def __init__(self, source: JsonObject) -> None:
        self.source = source
        self._given: set[str] = set()
        self._blocks: list[tuple[Case, ...]] = []

    def take(self, count: int, part: str) -> tuple[Case, ...]:
        """Return *count* cases that were in no part before, fewer where the dataset makes no more."""
        seed = int(digest({**self.source, "part": part})[:8], 16)
        drawn = create(self.source["dataset"], {**self.source["parameters"], "seed": seed, "size": PATIENCE * count})
        taken: list[Case] = []
        for number in range(PATIENCE * count):
            case = _case(drawn[number], f"{part} {len(taken)}")
            if content(case) not in self._given:
                self._given.add(content(case))
                taken.append(case)
                if len(taken) == count:
                    break
        return tuple(taken)

    def draw(self, count: int, confirmation: int) -> tuple[Case, ...]:
        """Return the first cases of the confirmation's block."""
        while len(self._blocks) <= confirmation:
            self._blocks.append(self.take(BLOCK, f"confirmation {len(self._blocks)}"))
        block = self._blocks[confirmation]
        if count > len(block):
            raise TaskError(
                f"reasoning-gym's {self.source['dataset']} has {len(block)} new cases for confirmation {confirmation}, "
                f"not {count}; ask for less, or let its parameters make more different cases"
            )
        return block[:count]


def _case(entry: JsonObject, name: str) -> Case:
    return Case(
        messages=({"role": "user", "content": entry["question"]},),
        target=entry["answer"],
        name=name,
        metadata={"gym": json.loads(json.dumps(entry["metadata"]))},  # as it comes back from a store
    )


def _try_scorer(check: Gym, case: Case) -> None:
    """Refuse a dataset whose scorer finds its own answer wrong: every answer would score 0."""
    score = None if case.target is None else check(case, Answer(text=case.target, value=case.target))
    if score is None or score.value != 1.0:
        raise TaskError(
            f"reasoning-gym's {check.dataset} does not accept its own answer {case.target!r} to a stored case; "
            "choose another dataset"
        )


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
