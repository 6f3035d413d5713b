"""Does correcting pay?  Plain, voting, every method on every draft, and Gainful's own rule, with the real model.

Two settings, each under one fixed policy: BFCL tool calls, and sums of reasoning-gym.  The rule is calibrated on the
dev cases with the product's own calibration; everything is then measured on other cases, drafts and corrections by the
product's own code, the gated arm by the chat of the proxy.  Arms share their calls where they ask the same, so that
they differ by what they do with a draft and not by luck.  Calls are remembered in out/correction.db: the script goes on
where it was stopped, and repeats cost nothing.

    python benchmarks/correction.py [--setting bfcl|gym] [--cases 5]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import math
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import msgspec
from figures import RESULTS, machine

from gainful.answers.allowance import Allowance
from gainful.answers.answer import Asking, answer, judge_by
from gainful.answers.prompt import request
from gainful.checks import Number as NumberCheck
from gainful.core import Case, Format, Number, Policy, RequestRefused, StreamingModel, Usage, Vote
from gainful.gate import interval, proportion_interval
from gainful.loop.calibrate import Bench, Calibration, Plan, calibrate
from gainful.models import connect
from gainful.proxy.breaker import Breaker
from gainful.proxy.chat import Chat, Models, Served
from gainful.proxy.service import judging_of, new_lane, read, task_limits
from gainful.proxy.spans import Spans
from gainful.proxy.upstream import Guarded, Upstream
from gainful.store import MemoModel, SQLiteStore, Store
from gainful.tasks import Task, load

SUMS = "reasoning-gym:chain_sum?min_terms=2&max_terms=3&min_digits=1&max_digits=1&size=500"
SUMS_DEV = 200
CALLS = "bfcl:simple_python"
MORE_CALLS = "bfcl:live_simple"  # its dev cases: nothing here learns from them
REGISTRATION = "0" * 64  # nothing is promoted here, so there is none
VOTES = (3, 5)
METHODS = ("reask", "refine", "vote")
LEVEL = 0.05


@dataclass(frozen=True)
class Setting:
    """A task whose baseline is the policy under test, and cases that its calibration has not seen."""

    name: str
    task: Task
    others: tuple[Case, ...]


def bfcl() -> Setting:
    task = load(CALLS)
    policy = msgspec.structs.replace(task.baseline, format=Format(shape="arguments", signatures=True))
    held_out = task.holdout.open(REGISTRATION, task.holdout.size or 0, 0)
    return Setting("bfcl", replace(task, baseline=policy), (*held_out, *load(MORE_CALLS).dev))


def sums() -> Setting:
    """Sums of two or three digits; the answer is the last number of a free reply.

    There are few sums of two digits, so that cases drawn later have fewer of them: all are drawn at once and divided by
    their digests, which makes both parts alike.
    """
    task, check = load(SUMS), NumberCheck()
    drawn = sorted(task.dev, key=lambda case: case.id)
    policy = Policy(instructions="You are good at arithmetic.", max_tokens=40)
    dev, others = tuple(drawn[:SUMS_DEV]), tuple(drawn[SUMS_DEV:])
    numbers = replace(task, kind=Number(), dev=dev, checks=(check,), proof=(check,), baseline=policy)
    return Setting("gym", numbers, others)


SETTINGS: dict[str, Callable[[], Setting]] = {"gym": sums, "bfcl": bfcl}


@dataclass(frozen=True)
class Result:
    """One case in one arm: its true score (1 is right, any other wrong), what was spent, and what was done."""

    score: float
    usage: Usage
    done: str = ""


# --- the arms, one case each


@dataclass(frozen=True)
class Arms:
    """The arms on one setting; *bench* answers, knows the truth and asks for log-probabilities as calibrating did."""

    bench: Bench
    served: Served

    async def plain(self, case: Case) -> Result:
        """The draft as it comes."""
        return await self.asked(case, self.bench.policy)

    def vote(self, samples: int) -> Callable[[Case], Coroutine[Any, Any, Result]]:
        """Vote over *samples* and no draft, stopping early where the rest cannot change the leader."""
        policy = msgspec.structs.replace(self.bench.policy, strategy=Vote(samples=samples))
        return lambda case: self.asked(case, policy)

    async def asked(self, case: Case, policy: Policy) -> Result:
        body = {**request(policy, case, self.bench.task.kind), **self.bench.fields}
        asking = Asking(case, policy, self.bench.model, self.bench.task.kind, body)
        try:
            outcome = await answer(asking, judge_by(self.bench.task.keyless))
        except RequestRefused:
            return Result(0.0, Usage(), "refused")
        return Result(self.bench.truth(case, outcome.answer) or 0.0, outcome.usage)

    def always(self, method: str) -> Callable[[Case], Coroutine[Any, Any, Result]]:
        """Correct every draft by *method*, whatever is known of it."""

        async def corrected(case: Case) -> Result:
            drafted = await self.bench.draft(case)
            if drafted is None:
                return Result(0.0, Usage(), "refused")
            trial = await self.bench.trial(drafted, method)
            draft_usage = sum((reply.usage for reply in drafted.replies), Usage())
            return Result(trial.after, draft_usage + trial.extra, method if trial.extra.calls else "")

        return corrected

    async def gated(self, case: Case) -> Result:
        """What the proxy would send: its chat, its rule, its limits, on the caller's own request.

        The caller asks for log-probabilities, or gated and plain drafts would be different calls where none are read.
        """
        body = {"messages": list(case.messages), **self.bench.fields}
        if case.tools:
            body["tools"] = list(case.tools)
        model = cast(StreamingModel, self.bench.model)  # nothing is streamed here
        upstream = Upstream(Guarded(model, Breaker()), Spans().request(model.name))
        chat = Chat(self.served, body, Models(upstream), Allowance(self.served.limits), lambda: True)
        try:
            await chat.finish()
        except RequestRefused:
            return Result(0.0, Usage(), "refused")
        answered = chat.answered()
        return Result(self.bench.truth(case, answered.answer) or 0.0, answered.usage, answered.correction)


# --- what is made of them


@dataclass(frozen=True)
class Row:
    """An arm beside plain on the same *n* cases.  Shares are in per cent, in brackets of two: 95 % intervals.

    ``harm_high`` is the exact one-sided 95 % bound on the share of right drafts that the arm turned wrong.
    ``gain`` is accuracy minus plain's in points; ``p`` of the exact two-sided sign test on the discordant pairs.
    """

    setting: str
    arm: str
    n: int
    right: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    tokens: float
    calls: float
    corrected: int
    refused: int
    fixed: int
    broken: int
    ecr: float
    harm: float
    harm_high: float
    gain: float
    gain_interval: tuple[float, float]
    p: float


def row(setting: str, arm: str, plain: Sequence[Result], found: Sequence[Result]) -> Row:
    n = len(found)
    pairs = [(before.score >= 1.0, after.score >= 1.0) for before, after in zip(plain, found, strict=True)]
    fixed, broken = pairs.count((False, True)), pairs.count((True, False))
    right_before, right = sum(before for before, _ in pairs), sum(after for _, after in pairs)
    usage = sum((result.usage for result in found), Usage())
    gain_low, gain_high = interval([after - before for before, after in pairs], LEVEL, n, -1.0, 1.0)
    return Row(
        setting=setting,
        arm=arm,
        n=n,
        right=right,
        accuracy=100 * right / n,
        accuracy_interval=_percent(proportion_interval(right, n, LEVEL)),
        tokens=(usage.prompt_tokens + usage.completion_tokens) / n,
        calls=usage.calls / n,
        corrected=sum(result.done not in ("", "refused") for result in found),
        refused=sum(result.done == "refused" for result in found),
        fixed=fixed,
        broken=broken,
        ecr=100 * fixed / max(1, n - right_before),
        harm=100 * broken / max(1, right_before),
        harm_high=100 * proportion_interval(broken, right_before, 2 * LEVEL)[1] if right_before else 100.0,
        gain=100 * (right - right_before) / n,
        gain_interval=_percent((gain_low, gain_high)),
        p=sign_test(fixed, broken),
    )


def sign_test(wins: int, losses: int) -> float:
    """Return the exact two-sided p of *wins* and *losses*, were each as probable as the other.

    >>> sign_test(9, 1)
    0.021484375
    """
    d = wins + losses
    tail = sum(math.comb(d, k) for k in range(min(wins, losses) + 1))
    return min(1.0, math.ldexp(tail, 1 - d))


def _percent(bounds: tuple[float, float]) -> tuple[float, float]:
    return 100 * bounds[0], 100 * bounds[1]


def show(found: Row) -> None:
    (low, high), (gain_low, gain_high) = found.accuracy_interval, found.gain_interval
    print(
        f"  {found.setting} {found.arm:<14} n = {found.n}, right {found.right}: {found.accuracy:.1f} % "
        f"({low:.1f} to {high:.1f}), {found.tokens:.0f} tokens, {found.calls:.2f} calls a case; "
        f"fixed {found.fixed} (ECR {found.ecr:.1f} %), broken {found.broken} "
        f"(harm {found.harm:.1f} %, at most {found.harm_high:.1f}); "
        f"gain {found.gain:+.1f} ({gain_low:+.1f} to {gain_high:+.1f}), p = {found.p:.3g}; "
        f"corrected {found.corrected}, refused {found.refused}",
        flush=True,
    )


# --- running


@contextlib.asynccontextmanager
async def remembered(store: Store) -> AsyncIterator[MemoModel]:
    """Yield the embedded model behind the memo."""
    model = MemoModel(connect("embedded"), store)
    try:
        yield model
    finally:
        await model.close()


async def run(bench: Bench, arm: str, works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Do one arm, and say now and then how far it is."""
    began_s = time.monotonic()

    def tick(done: int) -> None:
        if done % 50 == 0:
            print(f"    {arm}: {done} after {time.monotonic() - began_s:.0f} s", flush=True)

    return await bench.all(works, tick)


async def calibrated(bench: Bench, store: Store, cases: int | None) -> Calibration:
    began_s = time.monotonic()

    def tick(step: str, done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            print(f"    {step}: {done} of {total} after {time.monotonic() - began_s:.0f} s", flush=True)

    found = await calibrate(bench, store, Plan(methods=METHODS, cases=cases), tick)
    detector = found.audit.detector
    print(f"  {found.drafts} dev drafts, {found.wrong} wrong, {found.suspects} suspects")
    print(f"  {detector.describe() if detector else found.reason}")
    for standing in found.audit.standings:
        print(f"  {standing.method}: {'open' if standing.is_open else 'closed'}; {standing.why}")
    return found


async def measure(setting: Setting, model: MemoModel, store: Store, cases: int | None) -> list[Row]:
    """Plain first, then calibration, the rule and the rest, so that an early end leaves whole arms."""
    task, others = setting.task, setting.others[:cases]
    bench = await Bench(task, task.baseline, model).with_logprobs(task.dev)
    print(f"{setting.name}: {task.name}, policy {task.baseline.id[:12]}, {len(others)} other cases", flush=True)
    judging = judging_of(task)
    await judging.start()
    try:
        arms = Arms(bench, read(store, task, model.name, judging, task_limits(task), new_lane()).champion)
        plain = await run(bench, "plain", map(arms.plain, others))
        rows = [row(setting.name, "plain", plain, plain)]
        show(rows[0])
        await calibrated(Bench(task, task.baseline, model), store, cases)
        arms = Arms(bench, read(store, task, model.name, judging, task_limits(task), new_lane()).champion)
        plans: list[tuple[str, Callable[[Case], Coroutine[Any, Any, Result]]]] = [("gated", arms.gated)]
        plans += [(f"always {method}", arms.always(method)) for method in METHODS]
        plans += [(f"vote-{samples}", arms.vote(samples)) for samples in VOTES]
        for name, arm in plans:
            found = await run(bench, name, map(arm, others))
            rows.append(row(setting.name, name, plain, found))
            show(rows[-1])
    finally:
        await judging.close()
    return rows


def keep(name: str, rows: Sequence[Any]) -> None:
    """Write *rows* to ``out/benchmarks/<name>.json`` with the machine and the day."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    content = {"machine": machine(), "date": today, "level": LEVEL, "rows": [asdict(row) for row in rows]}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


async def measure_all(names: Sequence[str], cases: int | None) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        # What is learned gets a new store each time: every trial of a task counts, those of earlier runs too.
        with (
            tempfile.TemporaryDirectory() as scratch,
            SQLiteStore(RESULTS.parent / "correction.db") as calls,
            SQLiteStore(Path(scratch) / "learned.db") as learned,
        ):
            async with remembered(calls) as model:
                rows = await measure(SETTINGS[name](), model, learned, cases)
        keep(f"correction_{name}", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=sorted(SETTINGS), help="one of the two; both unless given")
    parser.add_argument("--cases", type=int, help="at most so many, for calibrating too; all unless given")
    options = parser.parse_args()
    print(f"correction: {machine()}")
    asyncio.run(measure_all([options.setting] if options.setting else list(SETTINGS), options.cases))


if __name__ == "__main__":
    main()
