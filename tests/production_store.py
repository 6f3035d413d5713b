"""A store with a life in it, made through the real calls: served, improved, promoted, and trying again."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from report_runs import ARGUMENTS, CHAMPION, ONE_DEMO, REFINE, RUNS, opened, opening

from gainful.core import Answer, Arm, Attempt, Case, Exchange, Policy, Trial, Usage, Verdict, canonical
from gainful.loop.events import Event, Finished, Started
from gainful.store import Banked, Probe, Repair, SQLiteStore, Store, Tally
from gainful.watch.service import Helm, Service

TASK = "calls"
MODEL = "SmolLM2-135M-Instruct.Q4_1"
START = 1_790_002_800  # a full hour
HOUR_S = 3600
HOURS = 72
HOLDOUT = "ab" * 32
REGISTRATION = opened().registration  # of the confirmation in run-1
EVIDENCE = {
    "quality": {"n": 212, "mean": 0.11, "harm": 0.02, "worth": 184.0, "harm_needed": 25.0, "worth_needed": 20.0},
    "errors": {"n": 212, "mean": 0.0, "harm": 0.4, "worth": 31.0, "harm_needed": 300.0, "worth_needed": 20.0},
    "latency": {"n": 212, "mean": -0.01, "harm": 0.9, "worth": 12.5, "harm_needed": 300.0, "worth_needed": 20.0},
}


class Clock:
    """Unix time that a test moves."""

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def lived(place: Path, *, hours: int = HOURS, words: str = "What is 2 + 2?", stored: str = "full") -> float:
    """Make the store at *place*; return the time at which its story ends."""
    place.write_bytes(_life(hours, words, stored))
    return START + hours * HOUR_S


@cache
def _life(hours: int, words: str, stored: str) -> bytes:
    clock = Clock(START)
    with TemporaryDirectory() as folder, SQLiteStore(Path(folder) / "store.db", clock=clock) as store:
        store.set_champion(TASK, CHAMPION, "baseline")
        serve(store, words, stored)
        run(store, "run-1", [*RUNS["promoted"]])
        helm = Helm(store, TASK, clock)
        for policy in (ARGUMENTS, ONE_DEMO, REFINE):
            store.put_policy(policy)
        clock.at = START + 20 * HOUR_S
        helm.stage(ONE_DEMO.id, "shadow", 0.25, "5a" * 32, REGISTRATION)
        clock.at += HOUR_S
        helm.stage(ONE_DEMO.id, "canary", 0.05, "5b" * 32, REGISTRATION, EVIDENCE)
        clock.at += 2 * HOUR_S
        helm.promote("5c" * 32, 0.03, EVIDENCE)
        clock.at += 20 * HOUR_S
        helm.alarm("quality fell in the last hours", {"n": 400})
        clock.at += HOUR_S
        say(store, helm.stage(REFINE.id, "canary", 0.05, "5d" * 32, "9c" * 32, EVIDENCE))
        run(store, "run-2", unfinished())
        store.take_in(TASK, "tallies", 10, (), tallies(hours))
        store.take_in(TASK, "cases", 10, cases(words))
        mend(store, words)
        store.close()
        return (Path(folder) / "store.db").read_bytes()


def run(store: Store, name: str, events: list[Event]) -> None:
    begun = {"at": START, "why": "20 new errors: not JSON", "cases": [f"{k:064x}" for k in range(40)]}
    spec = {"settings": {"alpha": 0.05}, "name": name, "champion": CHAMPION.id, "watch": begun}
    store.start_run(name, TASK, spec)
    for seq, event in enumerate(events):
        if isinstance(event, Started):
            event = msgspec.structs.replace(event, run=name, task=TASK, holdout_digest=HOLDOUT)
        store.append_event(name, seq, canonical(event), last=isinstance(event, Finished))
    if not store.ledger(HOLDOUT):
        store.append_ledger(HOLDOUT, "epoch", {"alpha": "0.05", "epoch": 1, "holdout": HOLDOUT, "size": 260})
        store.append_ledger(HOLDOUT, "opened", {"registration": "9a" * 32})
        store.append_ledger(HOLDOUT, "closed", {"registration": "9a" * 32, "decision": "not promoted", "n": 52})
        store.append_ledger(HOLDOUT, "opened", {"registration": REGISTRATION})
        store.append_ledger(HOLDOUT, "closed", {"registration": REGISTRATION, "decision": "promoted", "n": 52})


def say(store: Store, state: Service) -> None:
    """Say how things stand five hours into the stage, as a watcher does every few seconds."""
    assert state.canary is not None
    assert state.holdback is not None
    now = state.canary.at + 5 * HOUR_S + 7
    told = {name: {**bet, "n": 260, "mean": 0.031, "worth": 7.5, "harm": 0.6} for name, bet in EVIDENCE.items()}
    why = "48 comparisons in this stage, too few or undecided"
    canary = {"stage": state.canary.id, "seen": 48, "evidence": told, "verdict": "hold", "why": why}
    store.put_standing(TASK, "canary", now, canary)
    held = {"champion": state.champion, "stage": state.holdback.id, "compared": 294, "gain": 0.262, "known": 2600}
    errors = {"compared": 294, "gain": 0.0, "against former": 0.4}
    held |= {"against former": 0.002, "reference": 0.571, "by itself": 1.3, "before": 0.31, "as before": 0.0}
    store.put_standing(TASK, "hold-back", now, held | {"errors": errors})
    learning = {"state": "waits", "why": "A challenger is on its way in.", "calls_left": 16_200, "usd_left": 4.2}
    store.put_standing(TASK, "learning", now, learning)


def unfinished() -> list[Event]:
    """A run in the middle of its confirmation."""
    events = RUNS["not promoted"]
    return [*opening(), *events[3:-3]]


def tallies(hours: int, *, seed: int = 0) -> list[Tally]:
    """Hours of 100 requests: a poor policy for 23 hours, a better one afterwards, with canary and hold-back beside."""
    rng = random.Random(seed)
    found = []
    for k in range(hours):
        better = k >= 23
        found.append(hour(rng, k, ONE_DEMO if better else CHAMPION, "champion", 100, 0.62 if better else 0.35))
        if 20 <= k < 23:
            found.append(hour(rng, k, ONE_DEMO, "challenger" if k > 20 else "shadow", 20, 0.62))
        if better:
            found.append(hour(rng, k, CHAMPION, "former", 6, 0.35))
        if k >= 44:
            found.append(hour(rng, k, REFINE, "challenger", 12, 0.6))
    return found


def hour(rng: random.Random, k: int, policy: Policy, arm: Arm, requests: int, quality: float) -> Tally:
    known = max(requests - rng.randrange(5), 0)
    return Tally(
        hour=START // HOUR_S + k,
        policy=policy.id,
        arm=arm,
        requests=requests,
        known=known,
        right=float(sum(rng.random() < quality for _ in range(known))),
        corrected=requests // 20,
        errors=rng.randrange(2),
        calls=requests + requests // 20,
        prompt_tokens=requests * 210,
        completion_tokens=requests * 40,
        cost_usd=0.0001 * requests,
        added_ms=1.4 * requests,
        correction_calls=requests // 20,
        correction_tokens=requests * 12,
        correction_usd=0.000005 * requests,
    )


def serve(store: Store, words: str, stored: str) -> None:
    request = {"messages": [{"role": "user", "content": words}]}
    kept = {"full": request, "hash": {"sha256": "0" * 64}, "none": None}[stored]
    store.put_exchanges(
        [
            Exchange(
                id="reply-1", at=START, task=TASK, policy=CHAMPION.id, model=MODEL, verdict="unverified", request=kept
            )
        ]
    )
    trials = [
        Trial(TASK, MODEL, method, f"case-{k}", before, after, Usage(calls=1, prompt_tokens=200), policy=ONE_DEMO.id)
        for method, pairs in (("reask", [(0.0, 1.0)] * 60 + [(1.0, 1.0)] * 40), ("vote", [(1.0, 0.0)] * 5))
        for k, (before, after) in enumerate(pairs)
    ]
    store.put_trials(trials)


def asked(words: str, k: int) -> Case:
    return Case(messages=({"role": "user", "content": f"{words} ({k})"},))


def cases(words: str) -> list[Banked]:
    """Forty dev cases: the first twenty as the first policy answered them, the rest by the one in service."""
    groups = ("not JSON", "ungrounded value", "wrong function")
    return [
        Banked(
            id=f"{k:064x}",
            case=asked(words, k),
            side="dev",
            at=START + 60.0 * k + 300,
            last_at=START + HOUR_S * (k + 1),
            signal="feedback" if k % 10 == 0 else "check",
            score=0.0 if k % 3 or k < 10 else 1.0,
            group=groups[k % 3] if k % 3 or k < 10 else "",
            policy=(CHAMPION if k < 20 else ONE_DEMO).id,
            reply=f"a reply to {words}",
        )
        for k in range(40)
    ]


def attempt(words: str, k: int, policy: Policy, score: float) -> Attempt:
    verdicts = (Verdict("tool_call", True, score),)
    return Attempt(asked(words, k).id, policy.id, Answer("4"), verdicts, score)


def mend(store: Store, words: str) -> None:
    store.put_repairs(
        TASK,
        [Repair(f"{k:064x}", asked(words, k), "5", "4", "check", START + 10.0, "", CHAMPION.id) for k in range(8, 20)],
    )
    scores = {k: 0.0 if k in (8, 9, 10, 29) else 1.0 for k in range(8, 30)}  # 8 to 19 were repaired, the rest right
    store.put_attempts(TASK, [attempt(words, k, ONE_DEMO, score) for k, score in scores.items()])
    before = {k: 0.0 if k < 20 else 1.0 for k in range(8, 30)}
    store.put_attempts(TASK, [attempt(words, k, CHAMPION, score) for k, score in before.items()])
    answers = (Answer("4"),) * 3
    store.put_probes(
        TASK,
        [
            Probe(
                f"{k:064x}", asked(words, k), CHAMPION.id, MODEL, answers, (1.0, 1.0, right), (at, at + 6.0, at + 12.0)
            )
            for at, k, right in ((START + k, k, 0.0 if k >= 18 else 1.0) for k in range(20))
        ],
    )
