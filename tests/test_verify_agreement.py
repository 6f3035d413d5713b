"""The verifier shares no code with the gate and the checks; here the two are held against each other."""

from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gainful.checks.answer_key import AnswerKey
from gainful.checks.choice import Choice
from gainful.checks.exact import Exact
from gainful.checks.number import Number
from gainful.checks.regex import Regex
from gainful.core import Answer, Case, Check, canonical
from gainful.gate import Budget, EProcess, SignTest, lower_bound
from gainful.loop import verify

LEVELS = (0.05, 0.0127163392268, 0.00516443850493, 0.0003)


def outcomes(rng: random.Random, size: int) -> list[int]:
    """Games from hopeless to overwhelming, with few or many ties."""
    win, loss = sorted(rng.random() * 0.6 for _ in range(2))
    if rng.random() < 0.7:
        win, loss = loss, win
    return [1 if (x := rng.random()) < win else -1 if x < win + loss else 0 for _ in range(size)]


def same_looks(found: list[Any], told: tuple[Any, ...], size: int) -> None:
    assert [look.n for look in found][: len(told)] == [look.n for look in told]
    for mine, gate in zip(found, told, strict=False):
        assert (mine.wins, mine.losses, mine.boundary) == (gate.wins, gate.losses, gate.boundary)
        assert mine.statistic == pytest.approx(gate.statistic, rel=1e-9)
        if gate.decision != "promote" and mine.n != size:
            assert mine.power == pytest.approx(gate.conditional_power, abs=1e-9)
            assert (mine.power < verify.FUTILE) == (gate.decision == "stop")


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))]


@pytest.mark.parametrize("seed", SEEDS)
def test_both_sign_tests_see_the_same_looks(seed: int) -> None:
    """3,000 games in all."""
    rng = random.Random(seed)
    for _ in range(250):
        size, level = rng.randint(1, 60), rng.choice(LEVELS)
        test, differences = SignTest(size, level), outcomes(rng, size)
        told = test.judge(differences).looks
        found = verify._sign_test(differences, test.looks, Fraction(Decimal(repr(level))))

        same_looks(found, told, size)


def test_both_sign_tests_agree_on_a_large_hold_out() -> None:
    rng = random.Random(9)
    differences, test = outcomes(rng, 800), SignTest(800, LEVELS[1])

    found = verify._sign_test(differences, test.looks, Fraction(Decimal(repr(LEVELS[1]))))

    same_looks(found, test.judge(differences).looks, 800)


@pytest.mark.parametrize("seed", SEEDS)
def test_both_e_processes_see_the_same_looks(seed: int) -> None:
    """1,200 sequences in all."""
    rng = random.Random(seed)
    for _ in range(100):
        size, level, margin = rng.randint(1, 60), rng.choice(LEVELS), rng.choice((0.0, 0.1, -0.25))
        test, drift = EProcess(size, level, margin), rng.uniform(-0.3, 0.7)
        differences = [max(-1.0, min(1.0, rng.gauss(drift, 0.4))) for _ in range(size)]
        found = verify._e_process(differences, test.looks, Fraction(Decimal(repr(level))), margin)

        same_looks(found, test.judge(differences).looks, size)


def test_both_bounds_are_equal() -> None:
    rng = random.Random(5)
    for _ in range(150):
        size, level = rng.randint(1, 80), rng.choice(LEVELS)
        differences = [rng.choice((-1.0, 0.0, 0.25, 1.0)) for _ in range(rng.randint(1, size))]

        assert verify._bet_bound(differences, Fraction(Decimal(repr(level))), size) == pytest.approx(
            lower_bound(differences, level, size), abs=1e-9
        )


def test_both_budgets_give_the_same_levels() -> None:
    rng = random.Random(3)
    budget = Budget()
    for _ in range(300):
        assert verify._level(Decimal(repr(budget.alpha)), budget.rank) == Decimal(repr(budget.level))
        budget = Budget() if budget.level < 1e-60 else budget.after(promoted=rng.random() < 0.2)


# --- checks ---------------------------------------------------------------------------------------------


def agree(check: Check, target: Any, value: Any, text: str = "", tools: tuple[Any, ...] = ()) -> float | None:
    """Score one answer by the check and by the verifier, as the receipt holds it, and return what both say."""
    case, answer = Case(messages=(), target=target, tools=tools), Answer(text=text, value=value)
    verdict = check(case, answer)
    (found,) = verify.RESCORED[check.spec["kind"]](
        check.spec, [(verify._parse(canonical(case), ""), verify._parse(canonical(answer), ""))]
    )
    told = getattr(verdict, "value", verdict)

    assert found == told
    return found


TEXTS = st.sampled_from(
    ["", "a", "A b", "a  b ", "1.5", "1,500", "x-y", "ß", "SS", "it's", 'it"s', " 7 ", "7.", "1e2", "e"]
)
NUMBERS = st.sampled_from([0, 1, 5, 5.0, -1, 1.5, 1500, 0.1, 0.3, 1e21, 7, 100])
LEAVES = TEXTS | NUMBERS | st.sampled_from([None, True, False])


class Calls:
    """Draws answer keys, and calls that are right, nearly right or odd."""

    LEAVES = ("", "a", "A-b", "ab", "it's", 0, 1, 5, 5.0, 1.5, True, False, None)
    TYPES = ("string", "integer", "array", "object", "any", ["string", "null"], ["integer", "null"], None)

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def plain(self, depth: int = 2) -> Any:
        """A JSON value without an object at its top, so that it is no key in itself."""
        if depth and self.rng.random() < 0.25:
            return [self.plain(depth - 1) for _ in range(self.rng.randint(0, 2))]
        return self.rng.choice(self.LEAVES)

    def allowed(self, depth: int = 1) -> list[Any]:
        """The allowed values of one argument: texts, numbers, arrays and keys."""
        choices = (self.plain, lambda: self.key(depth - 1), lambda: [self.key(depth - 1), self.plain()], lambda: "")
        return [self.rng.choice(choices if depth else choices[:1])() for _ in range(self.rng.randint(0, 3))]

    def key(self, depth: int = 1) -> dict[str, list[Any]]:
        return {name: self.allowed(depth) for name in "abc" if self.rng.random() < 0.6}

    def near(self, allowed: Any) -> Any:
        """A value that an allowed value would probably accept."""
        if isinstance(allowed, dict):
            return {n: self.near(self.rng.choice(v)) for n, v in allowed.items() if v and self.rng.random() < 0.9}
        if isinstance(allowed, list):
            return [self.near(item) for item in allowed]
        return self.plain() if self.rng.random() < 0.05 else allowed

    def draw(self) -> tuple[dict[str, Any], Any, tuple[Any, ...]]:
        """Return a target, an answer and the tools."""
        key = self.key(depth=2)
        schema = {
            "properties": {name: {"type": t} if (t := self.rng.choice(self.TYPES)) else {} for name in "ab"},
            "required": [name for name in "ab" if self.rng.random() < 0.2],
        }
        call = {"name": self.rng.choice("fffffg"), "arguments": self.near(key)}
        value = self.rng.choice([call] * 8 + [None, 3])
        return (
            {"name": "f", "arguments": key},
            value,
            ({"type": "function", "function": {"name": "f", "parameters": schema}},),
        )


def test_both_answer_keys_agree_on_any_call() -> None:
    calls = Calls(seed=1)
    scores = [
        agree(AnswerKey(), target, value, tools=tools) for target, value, tools in (calls.draw() for _ in range(1000))
    ]

    assert 100 < scores.count(1.0) < 900  # neither verdict is rare


@settings(max_examples=100, deadline=None, derandomize=True)
@given(target=TEXTS | st.lists(TEXTS, max_size=3), value=LEAVES, case=st.booleans(), space=st.booleans())
def test_both_exact_checks_agree(target: Any, value: Any, case: bool, space: bool) -> None:
    agree(Exact(ignore_case=case, ignore_space=space), target, value)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(target=NUMBERS, value=LEAVES, tolerance=st.sampled_from([0.0, 0.1, 0.2, 2.0]))
def test_both_number_checks_agree(target: Any, value: Any, tolerance: float) -> None:
    agree(Number(tolerance), target, value)


@pytest.mark.parametrize("value", ["yes", "no", "maybe", None, 1])
@pytest.mark.parametrize("target", ["yes", None])
@pytest.mark.parametrize("compare", [True, False])
def test_both_choice_checks_agree(value: Any, target: Any, compare: bool) -> None:
    agree(Choice(("yes", "no"), compare), target, value)


@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize(("text", "value"), [(" ab ", None), ("xaby", None), ("no", "ab"), ("", 3), ("é", "É")])
def test_both_regular_expressions_agree(text: str, value: Any, search: bool) -> None:
    agree(Regex("ab|É", search), None, value, text)


def test_a_pattern_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "REGEX_S", 0.5)

    with pytest.raises(verify.Skipped, match=r"longer than 0\.5 s"):
        verify._regex({"pattern": "(a+)+$", "search": False}, [({}, {"text": "a" * 40 + "b"})])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.recursive(
        LEAVES | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8")),
        lambda v: st.lists(v) | st.dictionaries(st.text(st.characters(codec="utf-8")), v),
        max_leaves=6,
    )
)
def test_both_write_the_same_canonical_json(value: Any) -> None:
    data = canonical(value)

    assert verify._canonical(msgspec.json.decode(data)) == data
    assert verify._canonical(verify._parse(data, "")) == data
