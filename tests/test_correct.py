"""The methods of correction on the shipped scripted model: what is asked, what replaces the draft, what is spent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from worlds import case, scripted

from gainful.answers.allowance import Allowance, Limits
from gainful.answers.answer import Asking, judge_by
from gainful.answers.correct import Draft, correct
from gainful.answers.rule import METHODS
from gainful.checks import ToolCall
from gainful.core import Answer, JsonObject, Model, Policy, judge
from gainful.core import ToolCall as Call
from gainful.models import ScriptedModel

RIGHT = {"name": "add", "arguments": {"a": 3, "b": 1003}}
HALF = {"name": "add", "arguments": {"a": 3}}
JUDGING = judge_by([ToolCall()])


async def drafted(
    model: ScriptedModel, limits: Limits | None = None, stronger: Model | None = None, **fields: Any
) -> Draft:
    """Ask *model* once; what it says is the draft."""
    asking = Asking(case(3), Policy(), model, Call(), allowance=Allowance(limits or Limits()))
    asking.body |= fields
    message, found = await asking.ask(asking.body)
    return Draft(asking, message, found, judge([ToolCall()], case(3), found), stronger)


def saying(*values: Any, **settings: Any) -> ScriptedModel:
    """Answers with *values*, one a call, in order."""
    return ScriptedModel([v if isinstance(v, str) else json.dumps(v) for v in values], **settings)


async def test_reask_tells_the_check_s_words_and_does_not_show_the_draft() -> None:
    model = saying(HALF, RIGHT)

    outcome = await correct("reask", await drafted(model), JUDGING)

    asked = model.calls[1]["messages"]
    assert outcome.answer.value == RIGHT
    assert outcome.usage.calls == 2
    assert len(asked) == len(model.calls[0]["messages"])
    assert asked[-1]["content"].startswith(case(3).text)
    assert '"b"' in asked[-1]["content"]
    assert json.dumps(HALF) not in json.dumps(model.calls[1])


async def test_reask_leaves_images_and_other_turns_as_they_came() -> None:
    model = saying(HALF, RIGHT)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    turns: list[JsonObject] = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": [{"type": "text", "text": "Add."}, image], "name": "ann"},
        {"role": "assistant", "content": "I"},
    ]

    await correct("reask", await drafted(model, messages=turns), JUDGING)

    asked = model.calls[1]["messages"]
    assert [asked[0], asked[2]] == [turns[0], turns[2]]
    assert asked[1]["content"][:2] == turns[1]["content"]
    assert asked[1]["name"] == "ann"
    assert len(turns[1]["content"]) == 2


@pytest.mark.parametrize("method", ["reask", "refine"])
async def test_asking_again_replaces_the_draft_only_where_the_checks_score_it_higher(method: str) -> None:
    outcome = await correct(method, await drafted(saying(HALF, {"name": "add", "arguments": {"b": 1}})), JUDGING)

    assert outcome.answer.value == HALF
    assert outcome.usage.calls == 2


@pytest.mark.parametrize("method", ["reask", "refine"])
async def test_asking_again_without_an_objection_asks_nothing(method: str) -> None:
    outcome = await correct(method, await drafted(saying(RIGHT)), JUDGING)

    assert outcome.answer.value == RIGHT
    assert outcome.usage.calls == 1


async def test_refine_shows_the_draft_and_the_objections_as_turns() -> None:
    model = saying(HALF, RIGHT)

    outcome = await correct("refine", await drafted(model), JUDGING)

    before, shown, told = model.calls[1]["messages"][-3:]
    assert outcome.answer.value == RIGHT
    assert before["role"] == "user"
    assert shown == {"role": "assistant", "content": json.dumps(HALF)}
    assert '"b"' in told["content"]


async def test_refine_shows_a_call_that_came_in_the_message_s_own_field_as_json() -> None:
    function = {"name": "add", "arguments": '{"a": 3}'}
    message = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}
    model = ScriptedModel([message, json.dumps(RIGHT)])

    await correct("refine", await drafted(model), JUDGING)

    assert model.calls[1]["messages"][-2]["content"] == '{"name":"add","arguments":{"a":3}}'


async def test_vote_takes_what_most_samples_say_and_the_draft_has_no_vote() -> None:
    model = saying(HALF, RIGHT, HALF, RIGHT, RIGHT)

    outcome = await correct("vote", await drafted(model), JUDGING)

    assert outcome.answer.value == RIGHT
    assert outcome.answer.samples == (RIGHT, HALF, RIGHT, RIGHT)
    assert outcome.usage.calls == 5
    assert {call["temperature"] for call in model.calls[1:]} == {0.8}


async def test_vote_leaves_the_draft_where_no_sample_holds_an_answer() -> None:
    outcome = await correct("vote", await drafted(saying(HALF, *["no idea"] * 5)), JUDGING)

    assert outcome.answer.value == HALF


async def test_escalate_asks_the_stronger_model_the_same() -> None:
    model, stronger = saying(HALF), saying(RIGHT, name="strong")

    outcome = await correct("escalate", await drafted(model, stronger=stronger), JUDGING)

    assert outcome.answer.value == RIGHT
    assert stronger.calls == model.calls
    assert outcome.usage.calls == 2


@pytest.mark.parametrize("said", ["no idea", json.dumps(HALF)])
async def test_escalate_leaves_the_draft_where_the_stronger_answer_is_none_or_scored_lower(said: str) -> None:
    outcome = await correct("escalate", await drafted(saying(RIGHT), stronger=saying(said)), JUDGING)

    assert outcome.answer.value == RIGHT


async def test_escalate_takes_the_stronger_answer_where_the_checks_see_no_difference() -> None:
    other = {"name": "add", "arguments": {"a": 4, "b": 5}}

    outcome = await correct("escalate", await drafted(saying(RIGHT), stronger=saying(other)), JUDGING)

    assert outcome.answer.value == other


async def test_without_a_stronger_model_the_draft_stands() -> None:
    outcome = await correct("escalate", await drafted(saying(HALF)), JUDGING)

    assert outcome.answer.value == HALF
    assert outcome.usage.calls == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("calls", [0, 1, 3])
async def test_no_method_exceeds_its_allowance(method: str, calls: int) -> None:
    model, stronger = saying(*[HALF] * 9), saying(*[HALF] * 9)

    outcome = await correct(method, await drafted(model, Limits(extra_calls=calls), stronger), JUDGING)

    assert outcome.usage.calls <= 1 + calls
    assert len(model.calls) + len(stronger.calls) == outcome.usage.calls
    assert outcome.answer.value == HALF


async def test_vote_at_the_deadline_leaves_the_draft() -> None:
    draft = await drafted(scripted(lambda body, sample: json.dumps(HALF)))
    draft.asking.allowance = Allowance(Limits(deadline_ms=0))
    draft.asking.allowance.claim()  # the call that made the draft

    outcome = await correct("vote", draft, JUDGING)

    assert outcome.answer == draft.answer


async def test_an_unknown_method_is_refused_by_name() -> None:
    draft = Draft(Asking(case(3), Policy(), scripted(), Call()), {}, Answer(text=""))

    with pytest.raises(ValueError, match="'pray' is no method"):
        await correct("pray", draft, JUDGING)
