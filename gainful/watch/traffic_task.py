"""A task whose cases come from its own traffic: what a run in production learns from and proves on.

Guarantees: learning sees selected dev cases alone; each confirmation gets held-out cases that nobody has used, drawn by
digests that no caller can foresee; what judges them reads no answer key, unless callers' own answers count as proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gainful.core import Case, Check, Demo, JsonObject
from gainful.store import Banked, Store
from gainful.tasks import Holdout, Task
from gainful.tasks.split import content

POPULATION = "traffic"


def needs_targets(task: Task) -> bool:
    """Whether a gain on this task's traffic can be proven by callers' own answers alone."""
    return not any(check.trusted for check in task.keyless) and task.improving.trust_feedback


def proof_checks(task: Task) -> tuple[Check, ...]:
    """Return the trusted checks that can judge traffic; empty where nothing on it can be proven."""
    if needs_targets(task):
        return tuple(check for check in task.proof if check.trusted)
    return tuple(check for check in task.keyless if check.trusted)


def traffic_task(
    task: Task,
    store: Store,
    chosen: Sequence[Banked],
    practice: Sequence[Banked] = (),
    repairs: Sequence[Demo] = (),
) -> Task:
    """Return *task* on the cases *chosen* from its traffic, with a hold-out that is fresh for every confirmation.

    *practice* are further cases, to train on; *repairs* are corrected errors, to be shown.
    """
    only_targets = needs_targets(task)
    checks = task.checks if only_targets else tuple(c for c in task.checks if not c.needs_target) or task.keyless
    proof = proof_checks(task)
    source: JsonObject = {"task": task.name, "split": task.split.spec, "only_targets": only_targets}

    def draw(count: int, _: int, registration: str) -> tuple[Case, ...]:
        share = task.improving.most_of_a_key
        opened = store.open_banked(task.name, count, registration, only_targets=only_targets, most_of_a_key=share)
        return tuple(banked.case for banked in opened)

    holdout = Holdout.drawn(POPULATION, source, draw)
    return replace(
        task,
        dev=tuple(banked.case for banked in chosen),
        practice=tuple(banked.case for banked in practice),
        repairs=tuple(repairs),
        holdout=holdout,
        checks=checks,
        proof=proof,
        spec={
            **task.spec,
            "traffic": source,
            "dev": len(chosen),
            "checks": [check.spec for check in checks],
            "proof": [check.spec for check in proof],
        },
    )


def ids(cases: Sequence[Case]) -> list[str]:
    """Return the bank's ids of *cases*."""
    return [content(case) for case in cases]
