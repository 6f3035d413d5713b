"""Runs as the loop would write them, for the tests of the report: promoted, not promoted, graded, without a key.

The numbers are those of a real run in size: 120 dev cases, 260 held out, a small model that scores nothing free-form.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gainful.core import Adapter, Case, Demo, Format, Policy, Proposal, Refine, Usage, Value, Vote
from gainful.learners.lessons import Counts
from gainful.learners.teaching import OnDev, Taught, Vetting
from gainful.loop.events import (
    Baseline,
    Contribution,
    Controls,
    Decided,
    ErrorGroup,
    Errors,
    Event,
    Example,
    Finished,
    Head,
    Interval,
    Looked,
    OfKind,
    Opened,
    Power,
    Proposed,
    Replies,
    Rung,
    Standing,
    Started,
    Unconfirmed,
    Usual,
)
from gainful.report.html import ReceiptSummary
from gainful.train import Parity, Progress, Trained

CHAMPION = Policy(instructions="Answer with a call of one of the functions.")
SCHEMA = Policy(instructions=CHAMPION.instructions, format=Format(shape="schema"))
ARGUMENTS = Policy(instructions=CHAMPION.instructions, format=Format(shape="arguments"))
DEMO_CASE = Case(
    messages=({"role": "user", "content": "Find the area of a triangle with base 10 units and height 5 units."},),
    tools=({"type": "function", "function": {"name": "calculate_triangle_area"}},),
)
DEMO = Demo(case=DEMO_CASE, value={"name": "calculate_triangle_area", "arguments": {"base": 10, "height": 5}})
ONE_DEMO = Policy(instructions=CHAMPION.instructions, format=Format(shape="arguments"), demos=(DEMO,))
VOTE = Policy(instructions=CHAMPION.instructions, format=Format(shape="arguments"), strategy=Vote(samples=5))
REFINE = Policy(instructions=CHAMPION.instructions, format=Format(shape="arguments"), strategy=Refine(rounds=1))

AREA = "Find the area of a triangle with a base of 10 units and height of 5 units."
HYPOTENUSE = "I need to find the hypotenuse of a right triangle whose legs are 4 and 5 long."

FREE_GROUPS = (
    ErrorGroup(
        group="not JSON",
        count=97,
        examples=(
            Example(
                case="simple_python_0",
                question=AREA,
                answer="To find the area of a triangle, you can use the formula: Area = (base × height) / 2.",
                feedback='the reply is not JSON; answer with {"name": ..., "arguments": {...}} and nothing else',
            ),
            Example(case="simple_python_3", question=HYPOTENUSE, answer="```python\nimport math", feedback="not JSON"),
        ),
    ),
    ErrorGroup(
        group="wrong function",
        count=18,
        examples=(
            Example(
                case="simple_python_7",
                question="What is the greatest common divisor of 40 and 50?",
                answer='{"name": "gcd", "arguments": {"a": 40, "b": 50}}',
                feedback="no function is called 'gcd'; the function offered is 'math.gcd'",
            ),
        ),
    ),
    ErrorGroup(group="missing argument", count=4),
)
LATER_GROUPS = (
    ErrorGroup(
        group="ungrounded value",
        count=44,
        examples=(
            Example(
                case="simple_python_21",
                question="Calculate the final velocity of an object falling from a 150 meter building.",
                answer='{"name": "calculate_final_velocity", "arguments": {"height": 100}}',
                feedback="'height' is 100, which does not occur in the request; take the value from the request",
            ),
        ),
    ),
    ErrorGroup(group="missing argument", count=6),
    ErrorGroup(group="not JSON", count=1),
)


def used(calls: int, tokens: int = 310, ms: float = 420.0) -> Usage:
    return Usage(calls=calls, prompt_tokens=calls * (tokens - 40), completion_tokens=calls * 40, elapsed_ms=calls * ms)


def standing(label: str, policy: Policy, n: int, score: float, gain: float, record: str, kept: bool) -> Standing:
    wins, losses = map(int, record.split("-"))
    return Standing(
        label=label,
        policy=policy.id,
        n=n,
        score=score,
        gain=gain,
        wins=wins,
        losses=losses,
        kept=kept,
        usage=used(n),
    )


def opening(holdout: int = 260) -> list[Event]:
    return [
        Started(
            run="20260914-3f2a71",
            task="bfcl:simple_python",
            model="SmolLM2-135M-Instruct.Q4_1",
            seed=0,
            dev=120,
            holdout=holdout,
            champion=CHAMPION,
            learn_checks=("json", "known function", "required arguments", "types", "grounding"),
            proof_checks=("tool call equals answer key",),
            budget_calls=6000,
            copies=2,
        ),
        Power(size=holdout, level=0.01272, rank=1, certifiable=0.119, cases_for={"10": 370, "5": 1465, "2": 9200}),
        Baseline(
            policy=CHAMPION.id,
            score=Interval(mean=1 / 120, low=0.0002, high=0.0456, n=120),
            groups=FREE_GROUPS,
            usage=used(120),
        ),
    ]


def first_round() -> list[Event]:
    proposals = [
        ("c1", SCHEMA, "format", "constrain the reply to the JSON schema of a call"),
        ("c2", ARGUMENTS, "format", "generate only the arguments, constrained to the function's schema"),
        ("c3", VOTE, "strategy", "constrained arguments; take 5 samples and keep the answer most agree on"),
        ("c4", Policy(instructions="Think first.", format=Format(think=True)), "format", "think in words, then answer"),
    ]
    return [
        *(
            Proposed(round=1, label=label, proposal=Proposal(policy=policy, learner=learner, change=change))
            for label, policy, learner, change in proposals
        ),
        Rung(
            round=1,
            rung=1,
            n=30,
            standings=(
                standing("c2", ARGUMENTS, 30, 0.567, 0.567, "17-0", True),
                standing("c1", SCHEMA, 30, 0.5, 0.5, "15-0", True),
                standing("c3", VOTE, 30, 0.433, 0.433, "13-0", False),
                standing("c4", proposals[3][1], 30, 0.0, -0.033, "0-1", False),
            ),
        ),
        Rung(
            round=1,
            rung=2,
            n=120,
            standings=(
                standing("c2", ARGUMENTS, 120, 0.575, 0.567, "68-0", True),
                standing("c1", SCHEMA, 120, 0.517, 0.508, "61-0", False),
            ),
        ),
        Head(
            round=1,
            policy=ARGUMENTS.id,
            label="c2",
            learner="format",
            change=proposals[1][3],
            score=Interval(mean=0.575, low=0.481, high=0.665, n=120),
            gain=0.567,
            gain_over_champion=0.567,
            groups=LATER_GROUPS,
        ),
    ]


def second_round() -> list[Event]:
    proposals = [
        ("c5", ONE_DEMO, "demos", "show one example: an own answer that passed every check"),
        ("c6", REFINE, "strategy", "ask once more with the check's words when a check objects"),
        ("c7", VOTE, "strategy", "take 5 samples and keep the answer most agree on"),
    ]
    return [
        *(
            Proposed(round=2, label=label, proposal=Proposal(policy=policy, learner=learner, change=change))
            for label, policy, learner, change in proposals
        ),
        Rung(
            round=2,
            rung=1,
            n=40,
            standings=(
                standing("c5", ONE_DEMO, 40, 0.65, 0.075, "4-1", True),
                standing("c6", REFINE, 40, 0.6, 0.025, "2-1", True),
                standing("c7", VOTE, 40, 0.475, -0.1, "1-5", False),
            ),
        ),
        Rung(
            round=2,
            rung=2,
            n=120,
            standings=(
                standing("c5", ONE_DEMO, 120, 0.642, 0.067, "13-5", True),
                standing("c6", REFINE, 120, 0.592, 0.017, "4-2", False),
            ),
        ),
        Head(
            round=2,
            policy=ONE_DEMO.id,
            label="c5",
            learner="demos",
            change=proposals[0][3],
            score=Interval(mean=0.642, low=0.549, high=0.727, n=120),
            gain=0.067,
            gain_over_champion=0.633,
            groups=LATER_GROUPS,
        ),
    ]


def contributions(key: bool = True) -> tuple[Contribution, ...]:
    rows = [
        ("c2", "format", "generate only the arguments, constrained to the function's schema", 0.567, 0.367, True),
        ("c1", "format", "constrain the reply to the JSON schema of a call", 0.508, 0.333, False),
        ("c5", "demos", "show one example: an own answer that passed every check", 0.067, 0.05, True),
        ("c6", "strategy", "ask once more with the check's words when a check objects", 0.017, -0.008, False),
        ("c4", "format", "think in words, then answer", -0.033, 0.0, False),
        ("c7", "strategy", "take 5 samples and keep the answer most agree on", -0.1, -0.075, False),
    ]
    return tuple(
        Contribution(
            label=label, learner=learner, change=change, n=120, gain=gain, true_gain=true if key else None, taken=taken
        )
        for label, learner, change, gain, true, taken in rows
    )


def finished(promoted: bool, receipt: str | None, key: bool = True) -> Finished:
    return Finished(
        champion=(ONE_DEMO if promoted else CHAMPION).id,
        promoted=promoted,
        receipt=receipt,
        contributions=contributions(key),
        search_usage=used(980),
        confirm_usage=used(104 if promoted else 520),
    )


def look(n: int, wins: int, losses: int, boundary: float | None, power: float, decision: str) -> Looked:
    return Looked(
        n=n,
        wins=wins,
        losses=losses,
        mean_difference=(wins - losses) / n,
        statistic=float(wins),
        boundary=boundary,
        conditional_power=power,
        decision=decision,  # type: ignore[arg-type]
    )


def opened(test: str = "sign", margin: float = 0.0, challenger: Policy = ONE_DEMO) -> Opened:
    return Opened(
        registration="9c1185a5c5e9fc54612808977ee8f548b2258d31aa0f1f0d5c3b2d0e4a6b7c8d",
        challenger=challenger.id,
        champion=CHAMPION.id,
        test=test,  # type: ignore[arg-type]
        level=0.01272,
        margin=margin,
        size=260,
        looks=(13, 26, 52, 78, 104, 130, 156, 182, 208, 234, 260),
    )


def decided(promoted: bool) -> Decided:
    if promoted:
        return Decided(
            promoted=True,
            reason="at look 4 of 11 the challenger won 29 of the 29 pairs that differ; 28 were needed",
            n=78,
            before=Interval(mean=0.0, low=0.0, high=0.046, n=78),
            after=Interval(mean=0.372, low=0.265, high=0.489, n=78),
            difference=Interval(mean=0.372, low=0.214, high=0.53, n=78, confidence=0.98728),
            before_groups=(ErrorGroup(group="not JSON", count=63), ErrorGroup(group="wrong function", count=15)),
            after_groups=(ErrorGroup(group="wrong value", count=44), ErrorGroup(group="missing argument", count=5)),
            usage=used(156),
        )
    return Decided(
        promoted=False,
        reason="with what has been seen, the chance of promotion by the last look is under 10 %",
        n=130,
        before=Interval(mean=0.362, low=0.279, high=0.451, n=130),
        after=Interval(mean=0.377, low=0.294, high=0.466, n=130),
        difference=Interval(mean=0.015, low=-0.071, high=0.102, n=130, confidence=0.98728),
        before_groups=(ErrorGroup(group="wrong value", count=79), ErrorGroup(group="missing argument", count=4)),
        after_groups=(ErrorGroup(group="wrong value", count=77), ErrorGroup(group="missing argument", count=4)),
        usage=used(260),
    )


def promoted(key: bool = True) -> list[Event]:
    """The demo as it should go: two rounds, a promotion at the fourth look."""
    return [
        *opening(),
        *first_round(),
        *second_round(),
        opened(),
        look(13, 5, 0, None, 0.99, "continue"),
        look(26, 9, 0, None, 0.99, "continue"),
        look(52, 20, 0, 28.0, 0.99, "continue"),
        look(78, 29, 0, 28.0, 1.0, "promote"),
        decided(True),
        finished(True, "receipts/20260914-3f2a71", key),
    ]


def not_promoted() -> list[Event]:
    """A small gain on dev that the hold-out does not bear out."""
    return [
        *opening(),
        *first_round(),
        *second_round(),
        opened(),
        look(13, 1, 1, None, 0.6, "continue"),
        look(26, 3, 2, None, 0.55, "continue"),
        look(52, 5, 4, None, 0.31, "continue"),
        look(104, 8, 7, 15.0, 0.14, "continue"),
        look(130, 10, 8, 17.0, 0.06, "stop"),
        decided(False),
        finished(False, "receipts/20260914-3f2a71"),
    ]


def graded() -> list[Event]:
    """Scores between 0 and 1: the e-process decides, and there is no answer key."""
    evidence = [(5, 1.6), (10, 2.4), (20, 9.8), (40, 31.0), (60, 96.5)]
    looks = [
        Looked(
            n=n,
            wins=n // 2,
            losses=n // 6,
            mean_difference=0.19,
            statistic=value,
            boundary=78.6,
            conditional_power=0.9,
            decision="promote" if value >= 78.6 else "continue",
        )
        for n, value in evidence
    ]
    return [
        *opening(),
        *first_round(),
        opened("e-process", margin=0.01, challenger=ARGUMENTS),
        *looks,
        msgspec.structs.replace(decided(True), reason="the evidence reached 96.5; 78.6 was needed", n=60),
        finished(True, "receipts/20260914-3f2a71", key=False),
    ]


def unconfirmed() -> list[Event]:
    """No candidate is good enough on dev to be worth a confirmation."""
    return [
        *opening(),
        *first_round(),
        Unconfirmed(
            reason="the best candidate gains 1.7 points on dev; a confirmation is worth its price from 4 points"
        ),
        finished(False, None),
    ]


def taught(refused: str = "") -> Taught:
    """A training of weights, as the loop writes it down."""
    counts = Counts(
        cases=200, sampled=1600, verified=312, solved_cases=141, chosen=260, usual_share=0.55, copied=3, echoes=41
    )
    steps = tuple(Progress(step=n, steps=40, loss=3.0 / n, reward=None, tokens=400 * n) for n in range(1, 41))
    adapter = Adapter(sha256="5e" * 32, base="b" * 64, rank=16, alpha=32.0, gguf="6f" * 32)
    return Taught(
        learner="weights",
        method="rejection",
        counts=counts,
        material=260,
        trained=Trained("ab" * 32, adapter, steps, 184.2, 1_900_000_000, 16_000, "early"),
        vetting=Vetting(
            Parity(200, 0.97, 0.985, 900, 0.031, 0.4, 200), 0.62, -0.012, -0.048, 0.51, -0.02, -0.09, refused=refused
        ),
        refused=refused,
    )


def controls() -> Controls:
    """What the adapter of ``taught`` says to dev beside its controls."""

    def interval(mean: float) -> Interval:
        return Interval(mean=mean, low=mean - 0.1, high=mean + 0.1, n=40)

    return Controls(
        label="c9",
        adapter="5e" * 32,
        control=CHAMPION.id,
        n=40,
        before=Replies(strict=interval(0.15), lenient=interval(0.3), characters=31.0, copied=2),
        after=Replies(strict=interval(0.5), lenient=interval(0.525), characters=6.4, copied=5),
        constant=interval(0.14),
        kinds=(
            Usual(HYPOTENUSE, 25, 5, 12, 0.2, 0.72, "5", 0.2),
            Usual(AREA + " [/] <b>", 15, 1, 8, 0.1, 0.1, "25", None),
        ),
        errors=Errors(worked=12, broken=3, corrected=4, repeated=1, kinds=(OfKind(AREA, 12, 3),)),
    )


def trained() -> list[Event]:
    """Two trainings, the first of which may not race; one that raced, its control, and what it says beside these."""
    none = Taught("weights", "preferences", taught().counts, 3, refused="3 pairs of 20 that are needed", left_out=7)
    control = msgspec.structs.replace(taught(), vetting=None, control_of="5e" * 32, dev=OnDev(5, 40))
    start = promoted()
    told = [none, taught("it answers every prompt as its base does"), taught(), control]
    at = next(number for number, event in enumerate(start) if isinstance(event, Opened))
    return [*start[:3], *told, *start[3:at], controls(), *start[at:]]


RUNS = {
    "trained": trained(),
    "promoted": promoted(),
    "not promoted": not_promoted(),
    "graded": graded(),
    "unconfirmed": unconfirmed(),
}

RECEIPT = ReceiptSummary(
    path="receipts/20260914-3f2a71",
    not_claimed=("Nothing is claimed about single cases.",),
    key="SHA256:3d5a9c0e",
    holds=True,
)
POLICIES = (CHAMPION, ARGUMENTS, ONE_DEMO)

EVIL = (
    "</style></pre></script><script>alert(1)</script><img src=x onerror=alert(1)>"
    "\"'&{{7*7}}{% x %}[/nope]\x1b[2J\u202e\x00"
)


def poisoned(value: Any) -> Any:
    """Put hostile text into every text of a record, those that a program reads excepted."""
    if isinstance(value, Value) and not isinstance(value, Adapter):
        fixed = ("test", "decision", "shape")
        fields = {f: getattr(value, f) for f in value.__struct_fields__}
        return type(value)(**{f: v if f in fixed else poisoned(v) for f, v in fields.items()})
    if isinstance(value, str):
        policy = next((policy for policy in POLICIES if policy.id == value), None)
        return value + EVIL if policy is None else poisoned(policy).id
    if isinstance(value, tuple | list):
        return type(value)(poisoned(item) for item in value)
    if isinstance(value, dict):
        return {key if key in ("role", "content") else poisoned(key): poisoned(item) for key, item in value.items()}
    return value
