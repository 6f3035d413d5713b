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

USUAL = {"size": 200, "seed": 0, "practice": 0}  # dev cases, which ones, and further ones, where the name is silent
PRACTICE = "practice"
BLOCK = 2000  # the most new cases a confirmation can have; each has a block of its own, so that none comes twice
PATIENCE = 10  # draws a wanted case before a generator counts as exhausted


def load(reference: str) -> Task:
    """Return the task ``DATASET?parameter=value&...``, values as Python literals (else texts).

    ``size`` is the number of dev cases, ``practice`` that of further ones to train on (0 unless given), and ``seed``
    picks other cases; all else goes to the dataset.  Where there is practice, the digest of a question says whether it
    is for practice or for dev and confirmations: so the dataset's easy questions, of which there are few, fall to both
    sides alike, whichever is drawn first.  Raises
    ``TaskError`` for an unknown dataset or parameter, a value it does not take, a dataset whose scorer does not
    accept its own answer once that was stored as JSON, and one that makes too few different cases.
    """
    dataset, _, query = reference.partition("?")
    parameters = {name: _literal(value) for name, value in parse_qsl(query, keep_blank_values=True)}
    size, seed, practice = (parameters.pop(name, usual) for name, usual in USUAL.items())
    if not all(isinstance(number, int) for number in (size, seed, practice)) or size < 1 or practice < 0:
        raise TaskError(
            f"reasoning-gym has no task of size {size!r}, practice {practice!r} and seed {seed!r}; "
            "give whole numbers, size from 1"
        )
    check = Gym(dataset, parameters)
    source = {"dataset": dataset, "parameters": parameters, "seed": seed}
    cases = _Cases({**source, "practice": True} if practice else source)
    dev, trained_on = cases.take(size, "dev"), cases.take(practice, PRACTICE) if practice else ()
    for wanted, made in ((size, dev), (practice, trained_on)):
        if len(made) < wanted:
            raise TaskError(f"reasoning-gym's {dataset} with {parameters!r} makes only {len(made)} cases; ask for less")
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
        practice=trained_on,
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
            name = content(case)
            if name not in self._given and self._is_of(part, name):
                self._given.add(name)
                taken.append(case)
                if len(taken) == count:
                    break
        return tuple(taken)

    def _is_of(self, part: str, name: str) -> bool:
        """Say whether the case called *name* may be in *part*: half of all cases are for practice, if there is any."""
        return "practice" not in self.source or (part == PRACTICE) == (int(name[:8], 16) % 2 == 0)

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
