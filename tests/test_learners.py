"""What each learner proposes, and that none of them can reach a held-out case."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from worlds import case

from gainful.core import (
    Answer,
    Attempt,
    Choice,
    Demo,
    Evidence,
    Format,
    Learner,
    Once,
    Policy,
    Refine,
    Text,
    ToolCall,
    Vote,
    canonical,
)
from gainful.learners import LEARNERS, ON_TRAFFIC, Demos, Formats, Strategies

HEAD = Policy(instructions="Call the function.", format=Format(shape="schema"))


def attempt(number: int, score: float | None) -> Attempt:
    value = {"name": "add", "arguments": {"a": number, "b": 1000 + number}}
    return Attempt(case=case(number).id, policy=HEAD.id, answer=Answer(text="", value=value), score=score)


def evidence(scores: dict[int, float | None], seed: int = 0) -> Evidence:
    attempts = tuple(attempt(number, score) for number, score in scores.items())
    return Evidence(kind=ToolCall(), cases=tuple(map(case, scores)), attempts=attempts, seed=seed)


def shapes(head: Policy) -> Iterator[Format]:
    for proposal in Formats().propose(head, evidence({1: 0.0})):
        yield proposal.policy.format


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.name)
def test_every_proposal_differs_from_the_head_and_says_what_it_changes(learner: Learner) -> None:
    for proposal in learner.propose(HEAD, evidence(dict.fromkeys(range(9), 1.0))):
        assert proposal.policy != HEAD
        assert proposal.learner == learner.name
        assert proposal.change


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.name)
def test_the_same_evidence_gives_the_same_proposals(learner: Learner) -> None:
    seen = evidence({n: float(n % 2) for n in range(20)})

    assert learner.propose(HEAD, seen) == learner.propose(HEAD, seen)


def test_formats_are_one_step_away_from_the_head() -> None:
    found = list(shapes(HEAD))

    assert Format(shape="arguments") in found
    assert Format(shape="native") in found
    assert Format(shape="schema", signatures=True) in found
    assert Format(shape="schema", required_only=True) in found
    assert Format(shape="schema", think=True) in found
    assert Format() in found


def test_a_free_text_answer_may_be_boxed_and_unboxed_again() -> None:
    seen = Evidence(kind=Text(), cases=(case(1),), attempts=())

    assert [p.policy.format for p in Formats().propose(Policy(), seen)] == [Format(shape="schema")]
    assert Format() in [p.policy.format for p in Formats().propose(Policy(format=Format(shape="schema")), seen)]


def test_demos_are_verified_answers_only_and_carry_no_target() -> None:
    proposals = Demos().propose(HEAD, evidence({1: 0.0, 2: 1.0, 3: None, 4: 0.5, 5: 0.0}))

    shown = {demo.case.id for proposal in proposals for demo in proposal.policy.demos}
    assert shown == {case(2).id}
    assert all(demo.case.target is None for proposal in proposals for demo in proposal.policy.demos)


def test_repaired_errors_are_shown_beside_verified_answers_each_case_once() -> None:
    value = {"name": "add", "arguments": {"a": 7, "b": 1007}}
    repairs = (Demo(replace(case(7), target=None), value), Demo(replace(case(2), target=None), "not the latest"))
    seen = replace(evidence({1: 0.0, 2: 1.0}), repairs=repairs)

    shown = {demo for proposal in Demos().propose(HEAD, seen) for demo in map(demo_key, proposal.policy.demos)}

    assert shown == {demo_key(repairs[0]), (case(2).id, canonical(attempt(2, 1.0).answer.value))}


def demo_key(demo: Demo) -> tuple[str, bytes]:
    assert demo.case.target is None
    return demo.case.id, canonical(demo.value)


def test_without_a_verified_answer_there_is_no_demo() -> None:
    assert Demos().propose(HEAD, evidence(dict.fromkeys(range(9), 0.0))) == []


def test_demos_of_a_choice_are_of_different_labels() -> None:
    labels = ["up"] * 8 + ["down"]
    cases = tuple(case(n) for n in range(9))
    attempts = tuple(
        Attempt(case=c.id, policy=HEAD.id, answer=Answer(text=label, value=label), score=1.0)
        for c, label in zip(cases, labels, strict=True)
    )
    seen = Evidence(kind=Choice(("up", "down")), cases=cases, attempts=attempts)

    pairs = [p.policy.demos for p in Demos(sizes=(2,), turns=False).propose(HEAD, seen)]

    assert [{demo.value for demo in demos} for demos in pairs] == [{"up", "down"}]


def test_another_seed_draws_other_demos() -> None:
    scores: dict[int, float | None] = dict.fromkeys(range(40), 1.0)

    assert Demos().propose(HEAD, evidence(scores, seed=1)) != Demos().propose(HEAD, evidence(scores, seed=2))


def test_strategies_offer_what_the_head_does_not_do() -> None:
    voting = Policy(strategy=Vote(samples=3))

    assert {type(p.policy.strategy) for p in Strategies().propose(voting, evidence({1: 1.0}))} == {Once, Refine}


def test_nothing_a_learner_is_given_leads_to_a_held_out_case() -> None:
    """Walk everything that evidence refers to, as deep as Python objects go, without modules and types."""
    from worlds import sums

    task = sums()
    held_out = {c.id for c in task.holdout.open("0" * 64, task.holdout.size or 0, 0)}
    seen = Evidence(kind=task.kind, cases=task.shown, attempts=(attempt(1, 1.0),))
    reached: dict[int, object] = {}
    stack: list[object] = [seen]
    while stack:
        thing = stack.pop()
        if id(thing) in reached or isinstance(thing, type) or type(thing).__name__ == "module":
            continue
        reached[id(thing)] = thing
        stack += gc.get_referents(thing)

    ids = {thing for thing in reached.values() if isinstance(thing, str)}
    texts = {c.id for c in reached.values() if type(c).__name__ == "Case"}
    assert held_out.isdisjoint(ids | texts)
    assert task.shown[0].id in texts


def test_the_smallest_and_the_largest_set_are_proposed_as_turns_too_but_never_where_callers_wrote_them() -> None:
    seen = evidence(dict.fromkeys(range(1, 6), 1.0))

    proposals = Demos(sizes=(1, 2, 3)).propose(HEAD, seen)

    as_turns = [len(p.policy.demos) for p in proposals if p.policy.format.turns]
    assert sorted(as_turns) == [1, 3]
    assert all(p.change.endswith("as turns") == p.policy.format.turns for p in proposals)
    (callers,) = (learner for learner in ON_TRAFFIC if isinstance(learner, Demos))
    for head in (HEAD, replace(HEAD, format=replace(HEAD.format, turns=True))):
        found = callers.propose(head, seen)
        assert found
        assert not any(p.policy.format.turns for p in found)
