"""Whole runs with the scripted model, a real store and real receipts."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import msgspec
import pytest
from worlds import QUICK, call, deaf, luck, needs_a_schema, numbers, scripted, store_in, sums, wording

import gainful
from gainful.core import (
    Adapter,
    CheckError,
    Evidence,
    JsonObject,
    ModelError,
    Policy,
    Proposal,
    RequestRefused,
    TaskError,
)
from gainful.learners import Strategies
from gainful.loop.events import Decided, Head, Looked, Opened, Started, Unconfirmed
from gainful.loop.replay import replay
from gainful.loop.run import Halving
from gainful.loop.verify import verify
from gainful.store import SQLiteStore


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_a_real_improvement_is_found_confirmed_and_promoted(tmp_path: Path) -> None:
    result = gainful.improve(sums(), scripted(), store_in(tmp_path), QUICK)

    decided = next(e for e in result.events if isinstance(e, Decided))
    assert result.finished.promoted
    assert decided.before.mean == 0.0
    assert decided.difference.low > 0.1
    with SQLiteStore(store_in(tmp_path)) as store:
        assert store.champion("sums") == result.finished.champion
        assert store.policy(result.finished.champion).format.shape in ("schema", "arguments")


def test_its_receipt_verifies_and_replays_from_the_stored_calls(tmp_path: Path) -> None:
    result = gainful.improve(sums(), scripted(), store_in(tmp_path), QUICK)

    report = verify(str(result.finished.receipt), None, replay)

    assert report.decision == "promoted"
    assert [(f.name, f.detail) for f in report.findings if f.verdict != "ok"] == []


def test_a_model_that_cannot_be_improved_is_left_alone_and_no_confirmation_is_spent(tmp_path: Path) -> None:
    result = gainful.improve(sums(), scripted(deaf), store_in(tmp_path), QUICK)

    assert not result.finished.promoted
    assert isinstance(result.events[-2], Unconfirmed)
    with SQLiteStore(store_in(tmp_path)) as store:
        assert store.ledger(sums().holdout.digest) == []


@pytest.mark.parametrize(("won", "crowned"), [(1, False), (2, True)])
def test_a_lead_of_a_single_case_is_noise_and_changes_nothing(tmp_path: Path, won: int, crowned: bool) -> None:
    task = sums()
    hard = {case.text for case in task.dev[:won]}

    def right(body: JsonObject, sample: int) -> str:
        if "response_format" not in body:
            return "No." if wording(body) in hard else call(*numbers(body))
        names = body["response_format"]["json_schema"]["schema"]["properties"]
        value = call(*numbers(body))
        return value if "name" in names else json.dumps(json.loads(value)["arguments"])

    settings = gainful.Settings(rounds=1, halving=Halving(rungs=(len(task.dev),)))
    result = gainful.improve(task, scripted(right), store_in(tmp_path), settings)

    (head,) = [e for e in result.events if isinstance(e, Head)]
    assert (head.label is not None) == crowned


@dataclasses.dataclass
class Tried:
    """Proposes ever other instructions, and notes from which head; one that trains, or not."""

    name: str
    trains: bool
    heads: list[str] = dataclasses.field(default_factory=list)

    def propose(self, head: Policy, evidence: Evidence) -> list[Proposal]:
        self.heads.append(head.id)
        policy = msgspec.structs.replace(head, instructions=f"{self.name} {len(self.heads)}")
        return [Proposal(policy=policy, learner=self.name, change=policy.instructions)]


def test_who_trains_is_asked_in_the_last_round_whatever_the_others_could_still_bring(tmp_path: Path) -> None:
    """Each proposal of the cheap one solves more cases, so that it would be asked for ever."""

    def better(body: JsonObject, sample: int) -> str:
        system = str(body["messages"][0]["content"])
        tries = int(system.split()[1]) if system.startswith("cheap") else 0
        return call(*numbers(body)) if luck(body, "better") < 0.25 * tries else "I cannot say."

    cheap, dear = Tried("cheap", trains=False), Tried("dear", trains=True)
    settings = gainful.Settings(rounds=3, halving=QUICK.halving)

    gainful.improve(sums(), scripted(better), store_in(tmp_path), settings, learners=[cheap, dear])

    assert (len(cheap.heads), len(dear.heads)) == (2, 1)
    assert len({*cheap.heads, *dear.heads}) == 3


def test_a_later_run_tells_what_champions_before_it_got_right_and_it_breaks(tmp_path: Path) -> None:
    """The first run's champion needs a schema; the second run starts from it and knows what the one before answered."""
    gainful.improve(sums(), scripted(), store_in(tmp_path), QUICK)
    again = gainful.improve(sums(), scripted(), store_in(tmp_path), QUICK)

    with SQLiteStore(store_in(tmp_path)) as store:
        marks = store.find_run(again.run).spec["earlier"]
    dev = {case.id for case in sums().dev}
    assert set(marks) <= dev
    assert len(marks) == QUICK.halving.rungs[-1]
    assert set(marks.values()) == {"-"}


def test_what_shines_on_dev_alone_is_not_promoted_and_its_level_is_paid(tmp_path: Path) -> None:
    task = sums()
    dev = {str(case.messages[-1]["content"]) for case in task.dev}

    def crams(body: JsonObject, sample: int) -> str:
        known = body["messages"][-1]["content"] in dev
        return needs_a_schema(body, sample) if known else "No idea."

    first = gainful.improve(task, scripted(crams), store_in(tmp_path), QUICK)
    again = gainful.improve(task, scripted(crams), store_in(tmp_path), gainful.Settings(seed=1, halving=QUICK.halving))

    levels = [e.level for r in (first, again) for e in r.events if isinstance(e, Opened)]
    assert not first.finished.promoted
    assert not again.finished.promoted
    assert levels[1] < levels[0]
    assert verify(str(first.finished.receipt)).holds


def test_the_same_call_tells_a_finished_run_again_without_a_model_call(tmp_path: Path) -> None:
    first = gainful.improve(sums(), scripted(deaf), store_in(tmp_path), QUICK)
    silent = scripted(deaf)

    again = gainful.improve(sums(), silent, store_in(tmp_path), QUICK)

    assert again == first
    assert silent.calls == []


def test_a_call_with_other_learners_is_another_run(tmp_path: Path) -> None:
    alone = gainful.improve(sums(), scripted(deaf), store_in(tmp_path), QUICK, learners=[Strategies()])
    every = gainful.improve(sums(), scripted(deaf), store_in(tmp_path), QUICK)

    assert alone.run != every.run
    assert {c.learner for c in alone.finished.contributions} == {"strategy"}


@pytest.mark.slow
@pytest.mark.parametrize("broken_at", [0, 1, 7, 23, 60, 110, 140])
def test_a_run_broken_anywhere_goes_on_to_the_same_records_and_repeats_no_call(tmp_path: Path, broken_at: int) -> None:
    whole = gainful.improve(sums(), scripted(), tmp_path / "whole" / "s.db", QUICK)
    made: list[JsonObject] = []

    def breaks(body: JsonObject, sample: int) -> str:
        if len(made) == broken_at:
            raise ModelError("the line is dead; wait")
        made.append(body)
        return needs_a_schema(body, sample)

    def mended(body: JsonObject, sample: int) -> str:
        assert body not in made
        made.append(body)
        return needs_a_schema(body, sample)

    with pytest.raises(ModelError, match="goes on from here"):
        gainful.improve(sums(), scripted(breaks), tmp_path / "broken" / "s.db", QUICK)
    result = gainful.improve(sums(), scripted(mended), tmp_path / "broken" / "s.db", QUICK)

    assert _decisions(result) == _decisions(whole)


def _decisions(result: gainful.Result) -> list[object]:
    """All that was decided; times differ from run to run."""
    looked = [e for e in result.events if isinstance(e, Looked)]
    decided = [(e.promoted, e.reason, e.before, e.after, e.difference) for e in result.events if isinstance(e, Decided)]
    return [result.finished.champion, looked, decided, [type(e) for e in result.events]]


def test_a_hold_out_too_small_to_certify_anything_is_said_before_a_call(tmp_path: Path) -> None:
    result = gainful.improve(sums(cases=12), scripted(), store_in(tmp_path), QUICK)

    assert "too small to certify" in str(next(e for e in result.events if isinstance(e, Started)).obstacle)
    assert not result.finished.promoted


def test_a_check_that_raises_is_named_with_its_case(tmp_path: Path) -> None:
    task = sums()

    class Broken:
        name, trusted, needs_target, spec = "broken", True, False, {"kind": "broken"}

        def __call__(self, case: object, answer: object) -> float:
            raise RuntimeError("out of paper")

    broken = gainful.Task(task.name, task.kind, task.dev, task.holdout, (Broken(),), task.proof, task.baseline, {})

    with pytest.raises(CheckError, match=r"check 'broken' raised RuntimeError on case 'add-\d+': out of paper"):
        gainful.improve(broken, scripted(), store_in(tmp_path), QUICK)


def test_evaluate_scores_the_baseline_by_both_kinds_of_checks(tmp_path: Path) -> None:
    found = gainful.evaluate(sums(), scripted(deaf), store=store_in(tmp_path))

    assert found.proof is not None
    assert found.score.n == len(sums().dev)
    assert found.score.low < found.score.mean < found.score.high
    assert found.groups[0].group == "not JSON"


@pytest.mark.parametrize("budget", [60, 150, 300, 600])
def test_a_run_never_makes_more_calls_than_its_budget(tmp_path: Path, budget: int) -> None:
    model = scripted()

    settings = gainful.Settings(halving=QUICK.halving, rounds=QUICK.rounds, budget_calls=budget)
    result = gainful.improve(sums(), model, store_in(tmp_path), settings)

    assert len(model.calls) <= budget
    assert result.finished.search_usage.calls <= budget // 2


def test_a_budget_that_buys_nothing_is_refused_before_a_call(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="too small to begin with"):
        gainful.improve(sums(), scripted(), store_in(tmp_path), gainful.Settings(budget_calls=1))


def test_a_request_the_model_refuses_is_an_empty_answer_of_the_policy_s_own_making(tmp_path: Path) -> None:
    def refuses(body: JsonObject, sample: int) -> str:
        if "response_format" not in body:
            raise RequestRefused("too long")
        return needs_a_schema(body, sample)

    result = gainful.improve(sums(), scripted(refuses), store_in(tmp_path), QUICK)

    assert result.finished.promoted
    assert verify(str(result.finished.receipt), None, replay).holds


@pytest.mark.slow
def test_a_task_that_makes_new_cases_is_confirmed_on_fresh_ones_by_betting(tmp_path: Path) -> None:
    task = gainful.load("reasoning-gym:chain_sum?max_terms=2&max_digits=2")
    seen = {case.id for case in task.dev}

    def learns_from_examples(body: JsonObject, sample: int) -> str:
        asked = wording(body)
        sum_of = re.findall(r"-?\d+", asked.rsplit(":", 1)[-1].replace(" ", ""))
        shown = "Example" in str(body["messages"][0]["content"])
        return str(sum(map(int, sum_of))) if shown or luck(body, "gym") < 0.3 else "0"

    result = gainful.improve(task, scripted(learns_from_examples), store_in(tmp_path), QUICK)

    opened = next(e for e in result.events if isinstance(e, Opened))
    receipt = Path(str(result.finished.receipt))
    assert opened.test == "e-process"
    assert result.finished.promoted
    assert [f.name for f in verify(receipt, None, replay).findings if f.verdict != "ok"] == ["scores"]
    assert seen.isdisjoint(json.loads(line)["case"] for line in (receipt / "pairs.jsonl").read_text().splitlines())


class Trained:
    """Proposes the head with an adapter."""

    name = "trained"

    def propose(self, head: Policy, evidence: Evidence) -> list[Proposal]:
        adapter = Adapter("ab" * 32, "scripted", rank=8, alpha=16.0)
        return [Proposal(msgspec.structs.replace(head, adapter=adapter), self.name, adapter.label)]


def test_a_policy_with_an_adapter_is_promoted_and_its_receipt_holds_and_replays(tmp_path: Path) -> None:
    def tuned(body: JsonObject, sample: int) -> str:
        return call(*numbers(body)) if body.get("adapter") else "The sum of the numbers is easily found."

    result = gainful.improve(sums(), scripted(tuned), store_in(tmp_path), QUICK, learners=[Trained()])

    report = verify(str(result.finished.receipt), None, replay)
    assert report.decision == "promoted"
    assert [(f.name, f.detail) for f in report.findings if f.verdict != "ok"] == []
    assert any("/adapter" in f.detail for f in report.findings if f.name == "policies")
    with SQLiteStore(store_in(tmp_path)) as store:
        policy = store.policy(result.finished.champion)
        assert policy.adapter is not None
        assert policy.adapter.label == "adapter abababab, rank 8"
