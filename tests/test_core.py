"""The nouns' identities never change, and nothing that is no score passes for one."""

from __future__ import annotations

import json
import pickle
import struct
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from gainful import core
from gainful.core import (
    Answer,
    Attempt,
    Case,
    Check,
    CheckError,
    Choice,
    Demo,
    Evidence,
    Format,
    GainfulError,
    Json,
    JsonObject,
    Number,
    Once,
    Policy,
    Refine,
    Reply,
    Score,
    Text,
    ToolCall,
    Usage,
    Value,
    Verdict,
    Vote,
    canonical,
    digest,
    judge,
    lowest,
    message_text,
)

# --- canonical JSON -------------------------------------------------------------------------------------

EXACT = 2**53  # RFC 8785 knows integers up to here; the package that we compare with refuses larger ones
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(1 - EXACT, EXACT - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4))


@given(JSON)
def test_canonical_json_is_byte_for_byte_what_another_implementation_writes(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@given(JSON)
def test_canonical_json_reads_back_as_the_value_it_was(value: Any) -> None:
    assert json.loads(canonical(value), parse_int=float) == value  # the standard's numbers are doubles


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555557", "333333333.33333343"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_numbers_are_written_as_the_standard_samples_are(bits: str, text: str) -> None:
    """RFC 8785, appendix B."""
    (number,) = struct.unpack(">d", bytes.fromhex(bits))

    assert canonical(number).decode() == text


def test_members_are_sorted_by_utf_16_code_units() -> None:
    """RFC 8785, section 3.2.3: the emoji's surrogates sort before U+FB33, its code point would sort after."""
    value = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}

    assert list(json.loads(canonical(value))) == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


def test_integers_beyond_2_53_keep_their_digits() -> None:
    assert canonical([2**63 - 1, 2**63]) == b"[9223372036854775807,9223372036854775808]"
    assert digest(2**63 - 1) != digest(2**63)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")], "\ud800", {"\udfff": 1}])
def test_what_json_cannot_hold_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(ValueError, match=r"JSON has no|surrogates not allowed"):
        canonical(value)


# --- identity -------------------------------------------------------------------------------------------

CASE = Case(
    messages=({"role": "user", "content": "What is the weather in Zürich?"},),
    tools=({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}},),
)
POLICY = Policy(
    instructions="Be brief.",
    demos=(Demo(case=CASE, value={"name": "weather", "arguments": {"city": "Zürich"}}),),
    format=Format(shape="arguments", signatures=True),
    strategy=Vote(samples=3),
    max_tokens=64,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (CASE.id, "ab90271f6a82e658f7805d52983d81b919919689da447173df0a871d399cfc53"),
        (Policy().id, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
        (POLICY.id, "05c4872e8c95cc55e3806eefede54cd44ab9da136db34bda603c016f4f0a1a71"),
        (digest(Refine()), "ba5ebd40d09b7c43568abd8c8e3f8e36401a9972b5b9cd60d8e23e605e645b61"),
        (
            digest(Attempt(case="c", policy="p", answer=Answer(text="4", value=4))),
            "7969f6ebec4024aad8254dc5bcfb95fb976b3c7d630f57e6439cb02e1bfc4eb3",
        ),
    ],
)
def test_digests_are_what_they_were_when_first_published(value: str, expected: str) -> None:
    """Stores and receipts hold these names: whatever changes one of them breaks every store in the field."""
    assert value == expected


def test_the_first_policy_is_the_empty_object() -> None:
    assert canonical(Policy()) == b"{}"


def test_a_case_is_named_by_what_the_model_is_shown() -> None:
    same = Case(messages=CASE.messages, tools=CASE.tools, target="sunny", name="row 7", metadata={"source": "a"})

    assert same.id == CASE.id
    assert Case(messages=CASE.messages).id != CASE.id
    assert Case(messages=(*CASE.messages, *CASE.messages), tools=CASE.tools).id != CASE.id


class Before(Value, frozen=True):
    a: int = 1
    b: tuple[str, ...] = ()


class After(Value, frozen=True):
    a: int = 1
    b: tuple[str, ...] = ()
    added: float | None = None
    more: tuple[JsonObject, ...] = ()


@given(st.integers(), st.lists(TEXTS).map(tuple))
def test_a_field_added_later_with_a_default_keeps_every_old_digest(a: int, b: tuple[str, ...]) -> None:
    old, new = Before(a=a, b=b), After(a=a, b=b)

    assert digest(new) == digest(old)
    assert msgspec.json.decode(canonical(old), type=After) == new


@pytest.mark.parametrize(
    "value",
    [
        CASE,
        POLICY,
        Attempt(case="c", policy="p", answer=Answer(text="a", samples=("a", 1)), verdicts=(Verdict("x", True),)),
        Reply(body={"choices": []}, elapsed_ms=1.5, cost_usd=0.01),
        Usage(calls=1, cost_usd=0.0),
    ],
)
def test_a_value_reads_back_from_its_canonical_form_equal_and_of_the_same_digest(value: Value) -> None:
    again = msgspec.json.decode(canonical(value), type=type(value))

    assert again == value
    assert digest(again) == digest(value)


@pytest.mark.parametrize(
    "kind", [Text(), Number(), Choice(labels=("a", "b")), Json(schema={"type": "array"}), ToolCall()]
)
def test_each_kind_of_answer_keeps_its_type_in_json(kind: core.AnswerKind) -> None:
    assert msgspec.json.decode(canonical(kind), type=core.AnswerKind) == kind


@pytest.mark.parametrize("strategy", [Once(), Vote(samples=9), Refine(rounds=2)])
def test_each_strategy_keeps_its_type_in_a_policy(strategy: core.Strategy) -> None:
    policy = Policy(strategy=strategy)

    assert msgspec.json.decode(canonical(policy), type=Policy).strategy == strategy


def test_a_field_that_nobody_knows_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="instruction"):
        msgspec.json.decode(b'{"instruction":"typo"}', type=Policy)


def test_values_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        POLICY.instructions = "other"


# --- cases, usage, evidence -----------------------------------------------------------------------------


def test_the_text_of_a_case_is_what_the_user_wrote_in_all_turns() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    case = Case(
        messages=(
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "user", "content": [{"type": "text", "text": "second"}, image, {"type": "text", "text": "third"}]},
        )
    )

    assert case.text == "first\nsecond\nthird"
    assert message_text({"role": "assistant", "content": None}) == ""


def test_spends_add_up_and_an_unknown_price_stays_unknown() -> None:
    free = Usage(calls=1, prompt_tokens=2, completion_tokens=3, elapsed_ms=4.0)

    assert free + free == Usage(calls=2, prompt_tokens=4, completion_tokens=6, elapsed_ms=8.0)
    assert (free + Usage(cost_usd=0.0)).cost_usd == 0.0
    assert (Usage(cost_usd=0.25) + Usage(cost_usd=0.5)).cost_usd == 0.75


def test_a_reply_tells_its_message_and_its_spend() -> None:
    message = {"role": "assistant", "content": "4"}
    body = {"choices": [{"message": message}], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}

    assert Reply(body=body).message == message
    assert Reply(body=body, elapsed_ms=3.0).usage == Usage(
        calls=1, prompt_tokens=7, completion_tokens=1, elapsed_ms=3.0
    )
    assert Reply(body={"choices": [], "usage": None}).usage == Usage(calls=1)


def test_only_answers_known_to_be_right_are_verified() -> None:
    cases = tuple(Case(messages=({"role": "user", "content": word},)) for word in ("right", "wrong", "unknown", "new"))
    attempts = tuple(
        Attempt(case=case.id, policy="p", answer=Answer(text=""), score=score)
        for case, score in zip(cases[:3], (1.0, 0.5, None), strict=True)
    )

    assert Evidence(kind=Text(), cases=cases, attempts=attempts[::-1]).verified() == [(cases[0], attempts[0])]


def test_an_attempt_is_grouped_by_its_first_failing_verdict() -> None:
    passed, unknown = Verdict("a", True, 1.0), Verdict("b", True)
    failed, worse = Verdict("c", True, 0.5, group="half"), Verdict("d", True, 0.0)

    def attempt(*verdicts: Verdict) -> Attempt:
        return Attempt(case="c", policy="p", answer=Answer(text=""), verdicts=verdicts)

    assert attempt(passed, unknown, failed, worse).error is failed
    assert attempt(passed, unknown).error is None


# --- the judge's boundary -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Returns:
    """A check that returns what it is told to."""

    result: Any
    name: str = "mine"
    trusted: bool = True
    needs_target: bool = False
    spec: JsonObject = field(default_factory=dict)

    def __call__(self, case: Case, answer: Answer) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


ANSWER = Answer(text="4")


@pytest.mark.parametrize(
    ("result", "score"), [(1, 1.0), (0, 0.0), (0.25, 0.25), (True, 1.0), (False, 0.0), (Score(0.5), 0.5), (None, None)]
)
def test_a_score_may_be_any_number_in_0_to_1_or_unknown(result: Any, score: float | None) -> None:
    (verdict,) = judge([Returns(result)], CASE, ANSWER)

    assert verdict == Verdict(check="mine", trusted=True, score=score)
    assert score is None or type(verdict.score) is float


def test_a_verdict_carries_the_checks_words_and_the_group_of_error() -> None:
    score = Score(0.0, feedback="the city is missing", group="missing argument")

    (verdict,) = judge([Returns(score, name="arguments", trusted=False)], CASE, ANSWER)

    assert verdict == Verdict("arguments", False, 0.0, "the city is missing", "missing argument")


@pytest.mark.parametrize(
    "result",
    [float("nan"), float("inf"), 1.0000001, -1, "1.0", [1.0], Score(float("nan")), Score(2.0), Score("1")],
)
def test_what_is_no_score_is_an_error_that_names_check_case_and_value(result: Any) -> None:
    seen = repr(result.value if isinstance(result, Score) else result)

    with pytest.raises(CheckError) as raised:
        judge([Returns(1.0), Returns(result, name="odd")], Case(messages=CASE.messages, name="cases.jsonl:7"), ANSWER)

    assert str(raised.value).startswith(f"check 'odd' returned {seen} on case 'cases.jsonl:7'; ")


def test_a_check_that_raises_is_named_with_the_case_and_its_own_words() -> None:
    cause = KeyError("city")

    with pytest.raises(CheckError, match=rf"check 'mine' raised KeyError on case '{CASE.id[:12]}': 'city'; ") as raised:
        judge([Returns(cause)], CASE, ANSWER)

    assert raised.value.__cause__ is cause
    assert pickle.loads(pickle.dumps(raised.value)).check == "mine"


def test_all_checks_must_pass_and_unknown_is_not_a_pass() -> None:
    verdicts = judge([Returns(1.0), Returns(None), Returns(0.5)], CASE, ANSWER)

    assert [verdict.score for verdict in verdicts] == [1.0, None, 0.5]
    assert lowest(verdicts) == 0.5
    assert lowest(judge([Returns(None)], CASE, ANSWER)) is None
    assert lowest([]) is None


def test_the_test_check_is_a_check() -> None:
    check: Check = Returns(1.0)

    assert check.name == "mine"


# --- errors ---------------------------------------------------------------------------------------------


def family(error: type[GainfulError]) -> list[type[GainfulError]]:
    return [error, *(descendant for child in error.__subclasses__() for descendant in family(child))]


@pytest.mark.parametrize("error", family(GainfulError), ids=lambda error: error.__name__)
def test_every_error_survives_pickling_and_lives_in_core(error: type[GainfulError]) -> None:
    again = pickle.loads(pickle.dumps(error("case 3: seen 'x'; write a number")))

    assert type(again) is error
    assert str(again) == "case 3: seen 'x'; write a number"
    assert again.exit_code == (3 if error is core.Stopped else 2)
    assert error.__module__ == "gainful.core"
