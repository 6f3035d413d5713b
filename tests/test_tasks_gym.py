"""Tasks of reasoning-gym: any number of confirmations, and never a case twice."""

from __future__ import annotations

import sys

import pytest

from gainful import checks, tasks
from gainful.core import Answer, Case, TaskError, judge
from gainful.tasks.split import content

pytestmark = pytest.mark.slow

REGISTRATION = "0" * 64
SUMS = "reasoning-gym:chain_sum?max_digits=2&size=50"


def test_dev_and_all_confirmations_share_no_case() -> None:
    task = tasks.load(SUMS)

    parts = [task.dev, *(task.holdout.open(REGISTRATION, 300, number) for number in (2, 0, 1))]

    seen = [content(case) for part in parts for case in part]
    assert len(seen) == len(set(seen)) == 50 + 900


def test_the_same_name_gives_the_same_cases_again() -> None:
    one, other = tasks.load(SUMS), tasks.load(SUMS)

    assert one.dev == other.dev
    assert one.holdout.digest == other.holdout.digest
    assert one.holdout.open(REGISTRATION, 20, 1) == other.holdout.open(REGISTRATION, 40, 1)[:20]


def test_a_seed_or_a_parameter_gives_others() -> None:
    seeded, harder = tasks.load(f"{SUMS}&seed=1"), tasks.load(f"{SUMS}&min_terms=3")

    assert seeded.dev[0] != tasks.load(SUMS).dev[0]
    assert len({tasks.load(SUMS).holdout.digest, seeded.holdout.digest, harder.holdout.digest}) == 3


def test_the_datasets_own_scorer_judges() -> None:
    task = tasks.load(SUMS)
    case = task.dev[0]

    def score(value: object) -> float | None:
        return judge(task.proof, case, Answer(text="", value=value))[0].score

    assert score(case.target) == 1.0
    assert score(f"+0{case.target}.00") == 1.0  # this scorer is lenient about how a number is written
    assert score(str(int(case.target) + 1)) != 1.0
    assert score(None) == 0.0
    assert task.proof[0](Case(messages=case.messages), Answer(text="", value="1")) is None
    assert task.provable


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("chain_sun", "reasoning-gym has no dataset 'chain_sun'; it has .*chain_sum"),
        ("chain_sum?digits=2", "chain_sum has no parameter 'digits'; it has allow_negation, max_digits"),
        ("chain_sum?max_digits=0", "chain_sum does not take .*: max_digits must be >= min_digits"),
        ("chain_sum?max_digits=two", "chain_sum does not take"),
        ("chain_sum?size=0", "no task of size 0"),
        ("chain_sum?size='many'", "no task of size 'many'"),
        ("chain_sum?min_terms=1&max_terms=1&max_digits=1", "makes only 10 cases; ask for less"),
        ("graph_color", "graph_color does not accept its own answer None"),
    ],
)
def test_what_the_package_does_not_offer_is_refused_in_one_sentence(reference: str, sentence: str) -> None:
    with pytest.raises(TaskError, match=sentence):
        tasks.load(f"reasoning-gym:{reference}")


def test_a_dataset_that_runs_out_of_new_cases_says_how_many_there_are() -> None:
    task = tasks.load("reasoning-gym:chain_sum?min_terms=1&max_terms=1&max_digits=2&size=60")

    assert len(task.holdout.open(REGISTRATION, 40, 0)) == 40
    with pytest.raises(TaskError, match="has 0 new cases for confirmation 1, not 40"):
        task.holdout.open(REGISTRATION, 40, 1)


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)

    with pytest.raises(TaskError, match=r"reasoning-gym is not installed; run `pip install 'gainful\[gym\]'`"):
        tasks.load(SUMS)
    assert checks.from_spec({"kind": "gym", "dataset": "chain_sum"}).trusted


def test_practice_shares_no_case_with_dev_or_any_confirmation_and_easy_cases_fall_to_both() -> None:
    """Sums of two digits: 100 questions with one seed's order; half of them are for practice whatever is drawn."""
    small = "reasoning-gym:chain_sum?min_terms=2&max_terms=2&max_digits=1&size=20"

    task, more = tasks.load(f"{small}&practice=25"), tasks.load(f"{small}&practice=30")

    held_out = task.holdout.open("0" * 64, 15, 0)
    sides = [{content(case) for case in cases} for cases in (task.dev, held_out, task.practice)]
    assert [len(side) for side in sides] == [20, 15, 25]
    assert len(set.union(*sides)) == 60
    assert (task.dev, held_out) == (more.dev, more.holdout.open("0" * 64, 15, 0))
    assert task.holdout.digest == more.holdout.digest


def test_without_practice_a_task_has_the_cases_it_always_had() -> None:
    task = tasks.load("reasoning-gym:chain_sum?size=5")

    assert task.practice == ()
    assert "practice" not in task.spec
