"""A run that looks for the same quality at fewer tokens: proven by a margin, or not promoted."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from worlds import QUICK, call, case, luck, numbers, scripted, sums

from gainful.core import Demo, JsonObject, Policy, TaskError
from gainful.learners import Demos, Strategies
from gainful.loop import session
from gainful.loop.events import Decided, Finished, Opened, Unconfirmed
from gainful.loop.run import Cheaper
from gainful.loop.verify import verify
from gainful.store import SQLiteStore
from gainful.tasks import Task

SAVING = replace(QUICK, cheaper=Cheaper(margin=0.1, saving=0.2))
SHOWN = tuple(
    Demo(case=case(n), value={"name": "add", "arguments": {"a": n, "b": 1000 + n}}) for n in range(9000, 9004)
)


def world(cases: int = 500) -> Task:
    return sums(cases)


def prompted() -> Policy:
    return replace(sums().baseline, demos=SHOWN)


def steady(body: JsonObject, sample: int) -> str:
    """Right in 8 of 10 cases, with examples or without."""
    a, b = numbers(body)
    return call(a, b) if luck(body, "steady") < 0.8 else call(b, a)


def needs_examples(body: JsonObject, sample: int) -> str:
    """Right in 8 of 10 cases with examples; without them one of four is lost that dev does not show."""
    a, b = numbers(body)
    shown = "Example" in str(body["messages"][0]["content"])
    share = 0.8 if shown or luck(body, "lost") < 0.75 else 0.0
    return call(a, b) if luck(body, "steady") < share else call(b, a)


def run(folder: Path, answer: object, champion: Policy) -> session.Result:
    path = folder / "gainful.db"
    with SQLiteStore(path) as store:
        store.set_champion("sums", champion, "baseline")
    return session.improve(world(), scripted(answer), path, SAVING, (Demos(), Strategies()))


@pytest.mark.slow
def test_a_policy_as_good_at_fewer_tokens_is_proven_no_worse_than_by_the_margin(tmp_path: Path) -> None:
    result = run(tmp_path, steady, prompted())

    opened = next(event for event in result.events if isinstance(event, Opened))
    decided = next(event for event in result.events if isinstance(event, Decided))
    assert (opened.test, opened.margin) == ("e-process", -0.1)
    assert result.finished.promoted
    assert -0.1 <= decided.difference.low <= 0.0
    assert result.finished.receipt is not None
    assert verify(Path(result.finished.receipt)).holds
    with SQLiteStore(tmp_path / "gainful.db") as store:
        assert store.policy(str(store.champion("sums"))).demos == ()


@pytest.mark.slow
def test_a_policy_that_loses_more_than_the_margin_is_not_promoted_though_it_is_cheap(tmp_path: Path) -> None:
    result = run(tmp_path, needs_examples, prompted())

    assert not result.finished.promoted


def test_where_nothing_is_cheaper_the_run_says_so_and_spends_no_confirmation(tmp_path: Path) -> None:
    result = run(tmp_path, steady, sums().baseline)

    assert isinstance(result.events[-2], Unconfirmed)
    assert "nothing that is as good takes fewer tokens" in result.events[-2].reason
    assert isinstance(result.events[-1], Finished)


@pytest.mark.parametrize("wrong", [{"margin": 0.0}, {"margin": 1.0}, {"saving": 0.0}, {"saving": 1.0}])
def test_a_margin_or_a_saving_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(TaskError, match="it must be a"):
        Cheaper(**wrong)
