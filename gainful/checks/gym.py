"""Answers judged by reasoning-gym's own scorers, which know every right answer and give some part credit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any, ClassVar

from gainful.core import Answer, Case, JsonObject, Score, TaskError, canonical


@dataclass(frozen=True)
class Gym:
    """Score what ``dataset``'s own ``score_answer`` gives; unknown where the case has no target.

    The case's target is the dataset's own answer and its metadata ``{"gym": the entry's metadata}``.  Scores lie in
    [0, 1], where less than 1 is wrong, perhaps in part.  Groups: "no answer", "wrong value".
    """

    dataset: str
    parameters: JsonObject = field(default_factory=dict, hash=False)

    name: ClassVar[str] = "gym"
    trusted: ClassVar[bool] = True
    needs_target: ClassVar[bool] = True

    @property
    def spec(self) -> JsonObject:
        """Kind and settings."""
        return {"kind": self.name, "dataset": self.dataset, "parameters": self.parameters}

    def __call__(self, case: Case, answer: Answer) -> Score | None:
        """Judge one answer; raises ``TaskError`` where reasoning-gym is missing or has no such dataset."""
        if case.target is None:
            return None
        if not isinstance(answer.value, str):
            return Score(0.0, "The reply holds no answer.", "no answer")
        entry = {"question": case.text, "answer": case.target, "metadata": case.metadata["gym"]}
        score = float(_scorer(self.dataset, canonical(self.parameters)).score_answer(answer.value, entry))
        return Score(score) if score == 1.0 else Score(score, "The answer is not right.", "wrong value")


@cache
def _scorer(dataset: str, parameters: bytes) -> Any:
    return create(dataset, json.loads(parameters))


def create(dataset: str, parameters: JsonObject) -> Any:
    """Return reasoning-gym's *dataset* with *parameters*; raises ``TaskError`` listing what there is instead."""
    datasets = gym().factory.DATASETS
    if dataset not in datasets:
        raise TaskError(f"reasoning-gym has no dataset {dataset!r}; it has {', '.join(sorted(datasets))}")
    known = datasets[dataset][1].__dataclass_fields__
    for name in parameters:
        if name not in known:
            raise TaskError(f"reasoning-gym's {dataset} has no parameter {name!r}; it has {', '.join(sorted(known))}")
    try:
        return gym().create_dataset(dataset, **parameters)
    except Exception as error:  # the package checks values by assertions and by using them: name the dataset
        raise TaskError(
            f"reasoning-gym's {dataset} does not take {parameters!r}: {error or type(error).__name__}; correct it"
        ) from error


def gym() -> ModuleType:
    """Return the package reasoning_gym; raises ``TaskError`` where it is not installed."""
    try:
        import reasoning_gym
    except ModuleNotFoundError:
        raise TaskError("the package reasoning-gym is not installed; run `pip install 'gainful[gym]'`") from None
    module: ModuleType = reasoning_gym
    return module
