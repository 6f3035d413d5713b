"""What the recipe comes to where every practice case is answered by the key: which gyms can be learned at all?

No result of the product's, which never sees a key, and no bound in theory: the most that this model got out of this
recipe here.  Where even that does not beat the best constant answer, nothing says that the product could.  One training
of the product's (``RECIPES["rejection"]``, with the base's own replies to everyday prompts) from the base, on right
answers to practice cases; evaluated as in ``weights.py``, on the same cases.

    python benchmarks/weights_ceiling.py [--seeds 3] [--lessons 400]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from figures import RESULTS, Figure, accuracy, gain, publish
from inside.five_gyms import GYMS, five_gyms, gym_of
from msgspec.structs import replace
from weights import DEV, EVALUATED, PRACTICE, Run, all_of, constant, graded
from workbench import Bench, Place, code_version, own_cache

from gainful.learners.weights import EVERYDAY_ROUNDS, RECIPES
from gainful.models import connect
from gainful.train import Lesson, Work

WORK = RESULTS.parent / "weights_ceiling"
MINUTES = 60.0  # at most


def one_seed(seed: int, lessons: int, base: Path) -> Run:
    """Return what the key's answers teach, and the best constant answer beside it."""
    known = WORK / f"{seed}-{lessons}-{code_version()}.json"
    if not known.exists():
        scratch = WORK / f"seed-{seed}"
        shutil.rmtree(scratch, ignore_errors=True)  # of one that was stopped half-way
        scratch.mkdir(parents=True)
        own_cache(scratch)
        task, cases = five_gyms(DEV, PRACTICE, EVALUATED, seed)
        bench = Bench(Place(seed, MINUTES, 0, base, scratch), task, task.baseline)
        practice = [case for gym in GYMS for case in [one for one in task.practice if gym_of(one) == gym][:lessons]]
        taught = [Lesson(bench.asked(task.baseline, case), str(case.target), case.id) for case in practice]
        material = (*taught, *asyncio.run(bench.rehearsal())[::EVERYDAY_ROUNDS])
        trained = asyncio.run(bench.train(Work(bench.base, material, RECIPES["rejection"], None, seed), task.baseline))
        policy = replace(task.baseline, adapter=trained.adapter)
        grades = asyncio.run(graded(scratch / "evaluation.db", policy, cases))
        right: dict[str, list[tuple[bool, bool]]] = {gym: [] for gym in GYMS}
        for case, grade in zip(cases, grades, strict=True):
            right[gym_of(case)].append(grade)
        known.write_text(json.dumps({"the key": {"right": right}, "constant": {"right": constant(cases)}}))
        shutil.rmtree(scratch)
    run: Run = json.loads(known.read_text())
    told = {label: [sum(strict for strict, _ in run[label]["right"][gym]) for gym in GYMS] for label in run}
    print(f"seed {seed}: {told}", file=sys.stderr, flush=True)
    return run


def figures(runs: Sequence[Run]) -> Iterator[Figure]:
    """Yield how often each is right, and by how much the key's answers beat the constant ones."""
    for label in ("the key", "constant"):
        yield from accuracy(label, "strict", [[strict for strict, _ in all_of(run[label])] for run in runs])
        for gym in GYMS:
            yield from accuracy(label, gym, [[strict for strict, _ in run[label]["right"][gym]] for run in runs])
    for gym in GYMS:
        both = ([[strict for strict, _ in run[one]["right"][gym]] for run in runs] for one in ("the key", "constant"))
        yield from gain(f"{gym}, the key against constant", *both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lessons", type=int, default=400, help="of each gym, at most")
    chosen = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("GAINFUL_ADAPTERS", str(WORK / "adapters"))
    base: Path = connect("embedded").file  # type: ignore[attr-defined]  # it is embedded
    publish("weights_ceiling", list(figures([one_seed(seed, chosen.lessons, base) for seed in range(chosen.seeds)])))


if __name__ == "__main__":
    main()
