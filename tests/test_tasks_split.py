"""Dev and held-out cases: copies never straddle, sides never move, and the hold-out stays sealed."""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import pickle
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gainful import checks
from gainful.core import Answer, Attempt, Case, Evidence, Policy, TaskError, Text
from gainful.tasks import Holdout, Split, Task, divide, make_task

REGISTRATION = "0" * 64
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def case(words: str, target: Any = None, name: str = "", tools: tuple[dict[str, Any], ...] = ()) -> Case:
    return Case(messages=({"role": "user", "content": words},), target=target, name=name, tools=tools)


def task_of(count: int) -> Task:
    cases = divide(case(f"case {number}", target=str(number)) for number in range(count))
    return make_task("numbers", cases, Text(), [checks.Exact()])


# --- the split ------------------------------------------------------------------------------------------


@given(WORDS, st.sampled_from([str.upper, str.lower, str.title, lambda w: f"  {w}\n", lambda w: w.replace(" ", "\t ")]))
def test_copies_that_differ_in_case_or_blanks_never_straddle(words: str, retyped: Any) -> None:
    assume(folded(words) == folded(retyped(words)))  # a few letters, such as the dotted I, have no other case

    for seed in range(8):
        how = Split(dev=0.5, seed=seed)
        assert how.is_dev(case(words)) == how.is_dev(case(retyped(words)))


def folded(words: str) -> str:
    return " ".join(words.casefold().split())


@given(st.lists(WORDS, max_size=30), st.integers(0, 3))
def test_no_words_are_on_both_sides(texts: list[str], seed: int) -> None:
    tool = {"type": "function", "function": {"name": "f"}}

    divided = divide([*map(case, texts), *(case(text.upper(), tools=(tool,)) for text in texts)], Split(seed=seed))

    assert not {folded(c.text) for c in divided.dev} & {folded(c.text) for c in divided.held_out}


@given(st.lists(WORDS, min_size=1, max_size=30), st.data())
def test_a_cases_side_depends_on_itself_alone(texts: list[str], data: st.DataObject) -> None:
    some = data.draw(st.permutations(texts))[: data.draw(st.integers(1, len(texts)))]

    everything, part = divide(map(case, texts)), divide(map(case, some))

    assert {content(c) for c in part.dev} <= {content(c) for c in everything.dev}
    assert {content(c) for c in part.held_out} <= {content(c) for c in everything.held_out}


def content(of: Case) -> str:
    return folded(of.text)


def test_the_side_is_the_one_that_the_description_gives() -> None:
    """Computed again from the words of ``Split.is_dev``; these sides must never change, or hold-outs would leak."""
    told = b'gainful split 3\n[{"content":"what is 1 + 1?","role":"user"}]'
    share = int.from_bytes(hashlib.sha256(told).digest()[:8], "big") / 2**64

    of = case("  What is\n1 + 1? ")

    assert Split(dev=share + 1e-9, seed=3).is_dev(of)
    assert not Split(dev=share - 1e-9, seed=3).is_dev(of)


def test_the_share_of_dev_cases_is_about_what_was_asked_for() -> None:
    divided = divide(case(f"case {number}") for number in range(2000))

    assert abs(len(divided.dev) / 2000 - 0.4) < 0.04
    assert len(divided.dev) + len(divided.held_out) == 2000


def test_another_seed_divides_in_another_way() -> None:
    cases = [case(f"case {number}") for number in range(100)]

    assert divide(cases, Split(seed=0)).dev != divide(cases, Split(seed=1)).dev


def test_of_copies_the_first_is_kept_and_the_others_are_counted() -> None:
    divided = divide([case("Hello there", 1, "a"), case("hello  THERE ", 1, "b"), case("Bye", 2, "c")])

    assert {c.name for c in (*divided.dev, *divided.held_out)} == {"a", "c"}
    assert divided.copies == 1
    assert divided.spec["copies"] == 1


def test_copies_with_different_targets_are_refused_by_name() -> None:
    with pytest.raises(TaskError, match=r"x.jsonl:1 and x.jsonl:9 ask the same and have the targets 'a' and 'b'"):
        divide([case("Hello", "a", "x.jsonl:1"), case("hello", "b", "x.jsonl:9")])


def test_the_same_words_with_other_tools_are_no_copies() -> None:
    tools = [({"type": "function", "function": {"name": name}},) for name in "fg"]

    divided = divide(case("Hello", target, tools=tool) for target, tool in zip("ab", tools, strict=True))

    assert divided.copies == 0
    assert {len(divided.dev), len(divided.held_out)} == {0, 2}


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 40.0, float("nan")])
def test_a_share_outside_zero_and_one_is_refused(share: float) -> None:
    with pytest.raises(TaskError, match=r"the share of dev cases is .*; it must lie between 0 and 1"):
        Split(dev=share)


# --- the hold-out ---------------------------------------------------------------------------------------


def test_a_hold_out_opens_under_a_registration_alone() -> None:
    holdout = task_of(50).holdout
    size = holdout.size or 0

    opened = holdout.open(REGISTRATION, size, 0)

    assert len(opened) == size
    assert [c.id for c in opened] == sorted(c.id for c in opened)
    assert holdout.open(REGISTRATION, 5, 3) == opened[:5]
    for registration in ("", "0" * 63, "g" * 64, "0" * 65, REGISTRATION + "\n"):
        with pytest.raises(TaskError, match="which is no digest; register the confirmation first"):
            holdout.open(registration, size, 0)


@pytest.mark.parametrize(("count", "confirmation"), [(0, 0), (-1, 0), (1000, 0), (1, -1)])
def test_a_hold_out_has_no_more_cases_than_it_has(count: int, confirmation: int) -> None:
    with pytest.raises(TaskError, match="the hold-out was asked for"):
        task_of(50).holdout.open(REGISTRATION, count, confirmation)


def test_a_hold_out_shows_what_it_is_and_nothing_it_holds() -> None:
    holdout = task_of(50).holdout

    assert repr(holdout) == f"Holdout(size={holdout.size}, digest={holdout.digest[:12]!r})"
    assert [name for name in dir(holdout) if not name.startswith("_")] == [
        "digest",
        "drawn",
        "fresh",
        "open",
        "population",
        "repeated",
        "size",
    ]
    assert not hasattr(holdout, "__dict__")
    with pytest.raises(TypeError):
        iter(holdout)  # type: ignore[call-overload]


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_hold_out_is_not_copied_or_pickled(duplicate: Any) -> None:
    with pytest.raises(TypeError, match="not copied or pickled"):
        duplicate(task_of(50).holdout)


def test_a_task_is_not_pickled_either_so_no_hold_out_crosses_to_another_process() -> None:
    with pytest.raises(TypeError, match="not copied or pickled"):
        pickle.dumps(task_of(50))


def test_the_digest_is_that_of_the_cases_whatever_their_order_and_names() -> None:
    cases = [case(f"case {number}", number, f"line {number}") for number in range(5)]
    renamed = [case(f"case {number}", number) for number in reversed(range(5))]

    assert Holdout("p", cases).digest == Holdout("p", renamed).digest
    assert Holdout("p", cases).digest != Holdout("p", cases[1:]).digest
    assert Holdout("p", cases).digest != Holdout("q", cases).digest
    assert Holdout("p", cases).digest != Holdout("p", [*cases[:4], case("case 4", 5)]).digest


def test_a_task_under_another_name_has_the_same_hold_out() -> None:
    """Else a new name would buy a new error budget for the same cases."""
    cases = divide(case(f"case {number}", "x") for number in range(20))

    one, other = (make_task(name, cases, Text(), [checks.Exact()]).holdout for name in ("a", "b"))

    assert one.digest == other.digest


def test_nothing_that_a_learner_sees_leads_to_a_held_out_case() -> None:
    task = task_of(60)
    held_out = {id(c) for c in task.holdout.open(REGISTRATION, task.holdout.size or 0, 0)}
    attempts = tuple(Attempt(case=c.id, policy="p", answer=Answer(text="")) for c in task.dev)
    evidence = Evidence(kind=task.kind, cases=task.shown, attempts=attempts)

    reached = reachable([evidence, task.dev, task.shown, task.checks, task.baseline, task.spec])

    assert any(id(c) in reached for c in task.dev)
    assert not held_out & reached
    assert held_out <= reachable([task.holdout]), "the walk must be able to find them at all"


def reachable(roots: list[Any]) -> set[int]:
    """The identities of all values that can be reached from *roots*, but for modules, classes and functions."""
    seen: set[int] = set()
    todo = list(roots)
    while todo:
        value = todo.pop()
        if (
            id(value) in seen
            or isinstance(value, type)
            or type(value).__name__ in ("module", "builtin_function_or_method")
        ):
            continue
        seen.add(id(value))
        if callable(value) and hasattr(value, "__globals__"):
            todo += [cell.cell_contents for cell in value.__closure__ or ()]
            continue
        todo += gc.get_referents(value)
    return seen


# --- the task -------------------------------------------------------------------------------------------


def test_learners_are_shown_no_targets_that_no_check_of_theirs_reads() -> None:
    cases = divide(case(f"case {number}", "x") for number in range(20))

    blind = make_task("blind", cases, Text(), [checks.Regex("x")], proof=[checks.Exact()])
    seeing = make_task("seeing", cases, Text(), [checks.Exact()])

    assert all(c.target is None for c in blind.shown)
    assert [c.id for c in blind.shown] == [c.id for c in blind.dev]
    assert all(c.target == "x" for c in blind.dev)
    assert seeing.shown == seeing.dev


def test_without_a_trusted_check_a_task_may_be_explored_and_says_why_it_proves_nothing() -> None:
    cases = divide(case(f"case {number}") for number in range(20))

    task = make_task("t", cases, Text(), [checks.Agreement()])

    assert not task.provable
    assert task.obstacle == (
        "task 't' can be explored but nothing on it can be promoted: none of its proof checks is trusted "
        "(it has: agreement); add a check that compares with a target, validates or executes"
    )


def test_without_a_held_out_case_nothing_can_be_proven() -> None:
    only_dev = next(c for c in (case(f"case {n}") for n in range(100)) if Split().is_dev(c))

    task = make_task("t", divide([only_dev]), Text(), [checks.Regex("x")])

    assert task.obstacle is not None
    assert "no held-out case" in task.obstacle


def test_a_task_without_dev_cases_or_checks_is_refused() -> None:
    held_out = next(c for c in (case(f"case {n}") for n in range(100)) if not Split().is_dev(c))

    with pytest.raises(TaskError, match="task 't' has no dev case"):
        make_task("t", divide([held_out]), Text(), [checks.Regex("x")])
    with pytest.raises(TaskError, match="task 't' has no check to learn from"):
        make_task("t", divide(case(f"case {number}") for number in range(20)), Text(), [], proof=[checks.Regex("x")])


def test_checks_that_read_targets_find_some() -> None:
    bare = divide(case(f"case {number}", name=f"line {number}") for number in range(20))
    half = divide(case(f"case {number}", None if number == 0 else "x", f"line {number}") for number in range(20))
    assert "line 0" in {c.name for c in half.held_out}

    with pytest.raises(TaskError, match="learning uses the check 'exact', but no dev case has a target"):
        make_task("t", bare, Text(), [checks.Exact()])
    with pytest.raises(TaskError, match="the check 'exact' needs targets, but line 0 has none"):
        make_task("t", half, Text(), [checks.Regex("x")], proof=[checks.Exact()])


def test_the_spec_is_json_and_names_what_a_stranger_needs() -> None:
    task = task_of(20)

    spec = json.loads(json.dumps(task.spec))

    assert spec["split"] == {"dev": 0.4, "salt": "gainful split 0"}
    assert spec["dev"] == len(task.dev)
    assert spec["proof"] == [{"kind": "exact", "ignore_case": False, "ignore_space": False}]
    assert task.baseline == Policy()
