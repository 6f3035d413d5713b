"""Real null runs: how often is a challenger promoted that differs from the champion in words and not in meaning?

The embedded model, BFCL's held-out cases, the product's own confirmation.  Challengers paraphrase the instructions or
permute the demos.  Each confirmation has a ledger of its own, so each is tested at the first and largest level of a
lifetime.  Calls are remembered in out/null_runs.db: the script goes on where it was stopped.

    python benchmarks/null_runs.py [--confirmations 60]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
from figures import RESULTS, Figure, publish

from gainful.core import Demo, Format, Policy
from gainful.gate import Budget, proportion_interval
from gainful.loop.confirm import Plan, confirm
from gainful.loop.journal import Journal
from gainful.loop.run import Run, Settings
from gainful.models import connect
from gainful.store import MemoModel, SQLiteStore
from gainful.tasks import Holdout, Task, load

OPENINGS = (
    "You can call functions.",
    "Functions are at your disposal.",
    "There are functions you may call.",
    "You have functions to call.",
)
ORDERS = (
    "Call the function that does what the user asks",
    "Choose the function that fits the user's request",
    "Use the function which serves what was asked",
    "Answer by calling the function that does what is wanted",
)
LATER = "Pick the function that meets the user's wish"  # after all others, whose confirmations keep their numbers
SOURCES = (
    "and take the values of its arguments from the request.",
    "and fill in its arguments with values from the request.",
    "with argument values taken from what the user wrote.",
)
FORM = Format(shape="arguments", signatures=True)


def wordings() -> list[str]:
    """Instructions that all say the same."""
    combined = [*itertools.product(OPENINGS, ORDERS, SOURCES), *itertools.product(OPENINGS, [LATER], SOURCES)]
    return [
        f"{opening} {order}{',' if source.startswith('and') else ''} {source}" for opening, order, source in combined
    ]


def pairs(task: Task) -> Iterator[tuple[Policy, Policy]]:
    """Champions and challengers of the same meaning: 59 paraphrases, then permutations of four demos."""
    first, *others = wordings()
    champion = Policy(instructions=first, format=FORM, max_tokens=96)
    for words in others:
        yield champion, msgspec.structs.replace(champion, instructions=words)
    shown = [case for case in task.dev if len(case.text) < 120][:4]
    demos = [Demo(case=msgspec.structs.replace(c, target=None), value=_answer(c.target)) for c in shown]
    for first_order, order in itertools.pairwise(itertools.permutations(demos)):
        yield (
            msgspec.structs.replace(champion, demos=tuple(first_order)),
            msgspec.structs.replace(champion, demos=tuple(order)),
        )


def _answer(key: dict[str, object]) -> dict[str, object]:
    """The first allowed value of every argument that must be given."""
    arguments = {name: allowed[0] for name, allowed in key["arguments"].items() if "" not in allowed}  # type: ignore[attr-defined]
    return {"name": key["name"], "arguments": arguments}


async def promoted(task: Task, store: SQLiteStore, model: MemoModel, champion: Policy, challenger: Policy) -> bool:
    """Run one confirmation at the first level of a lifetime."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(
            task=task,
            champion=champion,
            ledger_start=0,
            model=model,
            model_spec="embedded",
            store=store,
            journal=Journal(store, task.name, [lambda event: None]),
            settings=Settings(),
            receipts=Path(scratch) / "receipts",
            signing_key=Path(scratch) / "key.pem",
        )
        store.start_run(task.name, task.name, {})
        decided, _ = await confirm(run, challenger, Plan(gain=0.2))
    print(f"{task.name}: {decided.reason}", flush=True)
    return decided.promoted


async def count(confirmations: int) -> tuple[int, int]:
    task = load("bfcl:simple_python")
    held_out = task.holdout.open("0" * 64, task.holdout.size or 0, 0)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    done = wrong = 0
    with SQLiteStore(RESULTS.parent / "null_runs.db") as store:
        model = MemoModel(connect("embedded"), store)
        try:
            for number, (champion, challenger) in enumerate(itertools.islice(pairs(task), confirmations)):
                name = f"null-{number}"
                own = replace(task, name=name, holdout=Holdout(name, held_out))
                wrong += await promoted(own, store, model, champion, challenger)
                done += 1
        finally:
            await model.close()
    return wrong, done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--confirmations", type=int, default=60, help="82 at most")
    wrong, done = asyncio.run(count(parser.parse_args().confirmations))
    low, high = proportion_interval(wrong, done, 0.05)
    print(f"{wrong} of {done} promoted ({100 * low:.1f}–{100 * high:.1f} %), level {Budget().level:.4f} each")
    publish("null_runs", [Figure("paraphrases, permuted demos", "promoted", "share", done, (wrong / done,))])


if __name__ == "__main__":
    main()
