"""Does what was learned beat the best constant answer, task by task?  More cases than ``weights.py`` evaluates.

Who gives one answer to everything is right about half of all letters counted and a third of all divisors, so sixty
cases of each task cannot tell a student that has learned a little from one that has learned the usual answer.  This
asks the champions of finished runs of ``weights.py`` further cases: those that its generators make after the ones that
were raced and evaluated, none of them a practice case.  The constant answer is the best one to these very cases, so it
is favoured.

    python benchmarks/weights.py && python benchmarks/constant_answers.py [--more 200]
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Iterator, Sequence
from itertools import chain

from figures import RESULTS, Figure, accuracy, gain, publish
from inside.five_gyms import GYMS, gym_of, load_gym
from weights import DEV, EVALUATED, PRACTICE, WORK, constant, graded

from gainful.core import Case, Policy
from gainful.loop.events import Finished
from gainful.loop.journal import read_events
from gainful.store import open_store

Right = dict[str, list[bool]]


def further(gym: str, more: int, seed: int) -> tuple[Case, ...]:
    """Return *more* cases that *gym* makes after those of a run with *seed*."""
    known = load_gym(gym, DEV + EVALUATED, PRACTICE, seed)
    longer = load_gym(gym, DEV + EVALUATED + more, PRACTICE, seed)
    assert longer.dev[: DEV + EVALUATED] == known.dev  # it goes on from what the run had
    assert longer.practice == known.practice
    return longer.dev[DEV + EVALUATED :]


def champions() -> dict[int, Policy]:
    """Return the champion of each seed's last finished run."""
    found = {}
    for finished in sorted(WORK.glob("own-*/finished.txt"), key=lambda file: file.stat().st_mtime):
        with open_store(finished.with_name("run.db")) as store:
            end = [event for event in read_events(store, finished.read_text()) if isinstance(event, Finished)][-1]
            found[int(finished.parent.name.split("-")[1])] = store.policy(end.champion)
    return dict(sorted(found.items()))


def one_seed(seed: int, champion: Policy, more: int) -> tuple[Right, Right]:
    """Return what the champion and the constant answers get right, gym by gym."""
    cases = tuple(chain.from_iterable(further(gym, more, seed) for gym in GYMS))
    grades = asyncio.run(graded(WORK / f"further-{seed}.db", champion, cases))
    ours: Right = {gym: [] for gym in GYMS}
    for case, (strict, _) in zip(cases, grades, strict=True):
        ours[gym_of(case)].append(strict)
    return ours, {gym: [strict for strict, _ in ones] for gym, ones in constant(cases).items()}


def figures(runs: Sequence[tuple[Right, Right]]) -> Iterator[Figure]:
    for gym in GYMS:
        ours, theirs = [run[0][gym] for run in runs], [run[1][gym] for run in runs]
        yield from accuracy("the champion", gym, ours)
        yield from accuracy("constant", gym, theirs)
        yield from gain(f"{gym}, the champion against constant", ours, theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--more", type=int, default=200, help="cases of each gym and seed")
    chosen = parser.parse_args()
    os.environ.setdefault("GAINFUL_ADAPTERS", str(WORK / "adapters"))
    RESULTS.mkdir(parents=True, exist_ok=True)
    runs = [one_seed(seed, champion, chosen.more) for seed, champion in champions().items()]
    if not runs:
        parser.error(f"no run of weights.py has finished in {WORK}; run it first")
    publish("constant_answers", list(figures(runs)))


if __name__ == "__main__":
    main()
