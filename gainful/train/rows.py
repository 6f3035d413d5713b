"""Material as tokens, as TRL's trainers read it, and how much of it is taken at once.

Loaded by the worker alone: this module imports torch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from gainful.core import TrainError
from gainful.train.base import Reader
from gainful.train.jobs import Lesson, Material, Preference, Question, Recipe, Work
from gainful.train.together import processes

LEARNED_AT_ONCE = 1024  # tokens of a batch; more are taken in several goes: attention and memory grow with their square
FEWEST_TO_HOLD_BACK = 20  # lessons or pairs, below which a tenth says nothing about when to stop

Row: TypeAlias = dict[str, Any]
"""A lesson, pair or question as its trainer reads it."""


class Load(NamedTuple):
    """What a step holds in memory at once: ``nodes`` tokens, of which ``labels`` are learned."""

    nodes: int
    labels: int


def split(work: Work, reader: Reader) -> tuple[list[Row], list[Row]]:
    """Return the material as tokens, and a tenth of the cases' apart, to see when to stop.

    What is learned along, of how longer replies begin, is not held back: it says nothing about what is to be learned.
    """
    rows = [_row(one, reader) for one in work.material]
    recipe = work.recipe
    if not recipe.patience or recipe.method == "grpo" or len(rows) < FEWEST_TO_HOLD_BACK:
        return rows, []
    cases = sorted({one.case for one in work.material if not (isinstance(one, Lesson) and one.is_cut)})
    back = set(random.Random(work.seed).sample(cases, len(cases) // 10))
    paired = list(zip(work.material, rows, strict=True))
    return [row for one, row in paired if one.case not in back], [row for one, row in paired if one.case in back]


def _row(one: Material, reader: Reader) -> Row:
    """Return *one* as its trainer reads it."""
    prompt = reader.prompt(one.messages)
    match one:
        case Lesson():
            reply = reader.reply(one.reply)
            reply = reply[:-1] if one.is_cut else reply
            return {"input_ids": prompt + reply, "labels": [-100] * len(prompt) + reply}
        case Preference():
            return {
                "prompt_ids": prompt,
                "chosen_ids": reader.reply(one.chosen),
                "rejected_ids": reader.reply(one.rejected),
            }
        case Question():
            return {
                "prompt": reader.rendered(one.messages),
                "case": one.case,
                "prompt_tokens": len(prompt),
                "max_tokens": one.max_tokens,
            }


def batch_size(recipe: Recipe) -> int:
    """Return how many sequences of a step each process takes; raises ``TrainError`` where they cannot be dealt out."""
    batch = recipe.batch
    if recipe.method == "grpo":
        batch = math.ceil(batch / recipe.samples) * recipe.samples  # whole groups
    if batch % processes():
        raise TrainError(f"{batch} sequences a step cannot be dealt out to {processes()} processes; take a multiple")
    return batch // processes()


def at_once(recipe: Recipe, rows: Sequence[Row], batch: int) -> int:
    """Return how many of a batch's rows to take in one go: a divisor of *batch*; GRPO needs all of its groups."""
    if recipe.method == "grpo":
        return batch
    mean = sum(load(row).nodes for row in rows) / len(rows)
    most = max(1, min(batch, int(LEARNED_AT_ONCE / mean)))
    return next(size for size in range(most, 0, -1) if batch % size == 0)


def usual_load(recipe: Recipe, rows: Sequence[Row], batch: int) -> Load:
    """Return what a go holds: of the longest row by itself, or of as many of middling length as come together."""
    size = at_once(recipe, rows, batch)
    nodes, labels = zip(*map(load, rows), strict=True)
    return Load(*(max(max(of_each), round(size * sum(of_each) / len(rows))) for of_each in (nodes, labels)))


def load(row: Row) -> Load:
    """Return how many tokens the model reads of *row*, and how many of them it learns at most."""
    if "prompt" in row:
        return Load(row["prompt_tokens"] + row["max_tokens"], row["max_tokens"])
    if "prompt_ids" in row:
        replies = len(row["chosen_ids"]) + len(row["rejected_ids"])
        return Load(len(row["prompt_ids"]) + replies, replies)
    return Load(len(row["input_ids"]), sum(label != -100 for label in row["labels"]))
