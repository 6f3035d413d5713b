"""Forgetting a caller while their words are in service, on their way in, in receipts; and being killed meanwhile."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from street import Clock, Street, working
from worlds import case as sum_case
from worlds import scripted, sums

from gainful.core import Adapter, Case, Demo, Exchange, Policy, Proposal, StoreError, canonical
from gainful.learners.lessons import Counts
from gainful.learners.teaching import Taught
from gainful.loop.events import Proposed
from gainful.models.adapters import note_cases
from gainful.report.service import forgotten
from gainful.store import Banked, Key, SQLiteStore
from gainful.tasks.split import content
from gainful.train import Trained
from gainful.watch.forget import Forgetting, carriers, forget
from gainful.watch.learning import told_by, watch_runs
from gainful.watch.service import Helm, read_service, service_key, watch_lease
from gainful.watch.watcher import Watcher

pytestmark = pytest.mark.usefixtures("apart")  # forgetting empties the caches of trainers

TASK = "task"
PLAIN = Policy(instructions="Answer.")
OTHER = Policy(instructions="Answer well.")
ANNA, OTTO = "anna", "otto"


def case(key: str) -> Case:
    return Case(messages=({"role": "user", "content": f"Question of {key}?"},), target=1)


def showing(key: str, instructions: str = "") -> Policy:
    demo = Demo(case=Case(messages=case(key).messages), value="x")
    return Policy(instructions=instructions, demos=(demo,))


def banked(key: str) -> Banked:
    return Banked(id=content(case(key)), case=case(key), side="dev", at=1.0, last_at=1.0, key=key)


def fill(store: SQLiteStore) -> None:
    """Two callers with a case and an exchange each, and a task in service."""
    for key in (ANNA, OTTO):
        store.put_key(Key(key, f"{len(key):064x}"[:63] + key[-1].replace("o", "0"), 1.0))
        store.put_exchanges([Exchange(f"reply-{key}", 1.0, TASK, PLAIN.id, "model", "unverified", key=key)])
        store.take_in(TASK, "intake", store.last_exchange_row(), [banked(key)])
    for policy in (PLAIN, OTHER, showing(ANNA), showing(ANNA, "Again."), showing(OTTO)):
        store.put_policy(policy)
    store.set_champion(TASK, PLAIN, "baseline")


def tick() -> float:
    return 5.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "store.db") as store:
        fill(store)
        yield store


@pytest.fixture
def helm(store: SQLiteStore) -> Helm:
    return Helm(store, TASK, tick)


def forget_anna(store: SQLiteStore) -> Forgetting:
    return forget(store, ANNA, [TASK], store.path.parent / "receipts", tick)


def install(helm: Helm, policy: Policy, holdback: float = 0.0) -> None:
    helm.force(policy.id, "f" * 64, holdback)


def is_forgotten(store: SQLiteStore, policy: Policy) -> bool:
    try:
        store.policy(policy.id)
    except StoreError:
        return True
    return False


def test_the_policies_that_show_a_case_are_found_by_either_id(store: SQLiteStore) -> None:
    policies = [PLAIN.id, showing(ANNA).id, showing(OTTO).id]

    assert carriers(store, policies, {content(case(ANNA))}) == (showing(ANNA).id,)
    assert carriers(store, policies, {showing(OTTO).demos[0].case.id}) == (showing(OTTO).id,)
    assert carriers(store, policies, set()) == ()


def test_what_a_caller_brought_goes_and_the_rest_stays(store: SQLiteStore) -> None:
    found = forget_anna(store)

    assert (found.exchanges, found.cases, found.taken_back) == (1, 1, ())
    assert set(found.policies) == {showing(ANNA).id, showing(ANNA, "Again.").id}
    assert [one.key for one in store.banked(TASK, "dev")] == [OTTO]
    assert not is_forgotten(store, showing(OTTO))
    assert store.champion(TASK) == PLAIN.id


def test_a_champion_with_the_words_makes_room_for_the_former(store: SQLiteStore, helm: Helm) -> None:
    install(helm, OTHER)
    install(helm, showing(ANNA), holdback=0.05)

    assert forget_anna(store).taken_back == (TASK,)
    assert store.champion(TASK) == OTHER.id
    assert helm.state.holdback is None
    line = next(line for line in store.ledger(service_key(TASK)) if line.kind == "rolled-back")
    assert line.content["void"]


def test_no_heir_carries_the_words_or_was_taken_back(store: SQLiteStore, helm: Helm) -> None:
    install(helm, showing(ANNA))
    install(helm, OTHER)
    helm.roll_back("it did harm")
    install(helm, showing(ANNA, "Again."))

    forget_anna(store)

    assert store.champion(TASK) == PLAIN.id


def test_without_an_heir_nothing_is_forgotten(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "store.db") as store:
        fill(store)
        store.set_champion("bare", showing(ANNA), "baseline")

        with pytest.raises(StoreError, match="'bare' has had no champion without"):
            forget(store, ANNA, [TASK, "bare"], tmp_path, tick)

        assert not is_forgotten(store, showing(ANNA))
        assert store.ledger(service_key(TASK)) == []


def test_a_challenger_with_the_words_is_rejected_and_the_hold_back_of_one_ends(store: SQLiteStore, helm: Helm) -> None:
    install(helm, showing(ANNA))
    install(helm, OTHER, holdback=0.05)
    helm.stage(showing(ANNA, "Again.").id, "canary", 0.05, "e" * 64, "registration")

    found = forget_anna(store)

    assert found.taken_back == ()
    assert store.champion(TASK) == OTHER.id
    assert (helm.state.canary, helm.state.holdback, helm.state.former) == (None, None, None)
    assert "rejected" in {line.kind for line in store.ledger(service_key(TASK))}


def test_a_challenger_without_the_words_goes_on(store: SQLiteStore, helm: Helm) -> None:
    install(helm, OTHER, holdback=0.05)
    helm.stage(showing(OTTO).id, "canary", 0.05, "e" * 64, "registration")

    forget_anna(store)

    assert helm.state.canary is not None
    assert helm.state.holdback is not None


def test_the_ledger_says_how_much_and_never_what_or_who(store: SQLiteStore, helm: Helm) -> None:
    install(helm, showing(ANNA))

    forget_anna(store)

    lines = store.ledger(service_key(TASK))
    assert lines[-1].content["is_done"]
    assert lines[-1].content["cases"] == 1
    assert b"anna" not in canonical([line.content for line in lines]).lower()


def test_forgetting_again_removes_nothing_more(store: SQLiteStore) -> None:
    forget_anna(store)

    assert forget_anna(store) == Forgetting(0, 0, 0, 0)


def test_an_unknown_key_is_told(store: SQLiteStore) -> None:
    with pytest.raises(StoreError, match="no key 'ana' is known; give one of: anna, otto"):
        forget(store, "ana", [TASK], store.path.parent, tick)


def test_a_run_under_way_must_end_first(store: SQLiteStore) -> None:
    with store.lock_run(TASK), pytest.raises(StoreError, match="is under way"):
        forget_anna(store)

    assert not is_forgotten(store, showing(ANNA))


def test_a_watcher_is_given_time_to_leave_its_run(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gainful.watch.forget.SETTLE_S", 0.3)
    store.take_lease(watch_lease(TASK), "watcher", 60.0)
    began_s = time.monotonic()

    forget_anna(store)

    assert time.monotonic() - began_s >= 0.3
    assert read_service(store, TASK).forgettings == 2


@pytest.mark.slow
def test_a_watcher_goes_on_with_no_run_that_began_before(store: SQLiteStore) -> None:
    clock = Clock()
    street = Street(store, sums(), scripted(), sum_case, clock)
    watcher = Watcher(street.task, working(store, street.model, clock, "one"))
    street.ask(400)

    async def act() -> bool:
        await watcher.round()
        await asyncio.sleep(0.1)
        assert watcher.is_busy
        Helm(store, "sums", clock).forgot({"policies": []})
        await watcher.round()
        busy = watcher.is_busy
        await watcher.close()
        return busy

    assert not asyncio.run(act())
    assert len(watch_runs(store, "sums")) == 1


# --- receipts


def receipt(folder: Path, champion: Policy, *cases: Case) -> Path:
    """The files of a receipt that are looked at, and two that stay."""
    (folder / "policies").mkdir(parents=True)
    for name, value in {
        "policies/champion.json": champion,
        "policies/challenger.json": OTHER,
        "claim.json": {},
        "statement.dsse.json": {},
    }.items():
        (folder / name).write_bytes(canonical(value))
    (folder / "cases.jsonl").write_bytes(b"".join(canonical(one) + b"\n" for one in cases))
    for name in ("diff.json", "pairs.jsonl", "outputs.jsonl", "calls.jsonl"):
        (folder / name).write_bytes(b"words")
    return folder


def test_receipts_lose_what_quotes_and_keep_what_is_claimed(store: SQLiteStore) -> None:
    receipts = store.path.parent / "receipts"
    by_policy = receipt(receipts / "policy", showing(ANNA), case(OTTO))
    by_case = receipt(receipts / "case", PLAIN, case(OTTO), case(ANNA))
    others = receipt(receipts / "others", PLAIN, case(OTTO))

    assert forget_anna(store).receipts == ("case", "policy")

    for folder in (by_policy, by_case):
        assert {p.name for p in folder.rglob("*") if p.is_file()} == {"claim.json", "statement.dsse.json"}
    assert len([p for p in others.rglob("*") if p.is_file()]) == 9


def test_a_receipt_that_cannot_be_read_stops_all(store: SQLiteStore) -> None:
    folder = receipt(store.path.parent / "receipts" / "odd", PLAIN, case(OTTO))
    (folder / "cases.jsonl").write_bytes(b"{")

    with pytest.raises(StoreError, match="odd cannot be read"):
        forget_anna(store)

    assert not is_forgotten(store, showing(ANNA))


# --- kill -9


class Mortal(SQLiteStore):
    """A store whose process is killed before its ``left``-th write of a line or of forgetting."""

    left = 0

    def _die(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def append_ledger(self, *args: Any, **named: Any) -> Any:
        self._die()
        return super().append_ledger(*args, **named)

    def forget_key(self, *args: Any, **named: Any) -> Any:
        self._die()
        found = super().forget_key(*args, **named)
        self._die()
        return found


def die_forgetting(path: Path, moment: int) -> None:
    with Mortal(path) as store:
        store.left = moment
        forget_anna(store)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [1, 2, 3, 4, 5])
def test_after_a_kill_at_any_step_the_same_call_completes(tmp_path: Path, moment: int) -> None:
    path = tmp_path / "store.db"
    with SQLiteStore(path) as store:
        fill(store)
        install(Helm(store, TASK, tick), showing(ANNA))
        receipt(path.parent / "receipts" / "one", PLAIN, case(ANNA))
    process = multiprocessing.get_context("spawn").Process(target=die_forgetting, args=(path, moment))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL

    with SQLiteStore(path) as store:
        champion = store.champion(TASK)
        assert champion is not None
        assert store.policy(champion)  # whoever is in service never lost its words
        found = forget_anna(store)

        assert store.champion(TASK) == PLAIN.id
        assert is_forgotten(store, showing(ANNA))
        assert store.banked(TASK, "dev")[0].key == OTTO
        assert not (path.parent / "receipts" / "one" / "cases.jsonl").exists()
        assert found.cases == (None if moment >= 4 else 1)
        assert store.ledger(service_key(TASK))[-1].content["is_done"]


def tuned_on(folder: Path, digit: str, *cases: Case) -> Policy:
    """A policy whose adapter lies in *folder*, trained on *cases*."""
    policy = Policy(adapter=Adapter(digit * 64, "base", rank=16, alpha=32.0))
    (folder / (digit * 64)).mkdir(parents=True)
    (folder / (digit * 64) / "adapter_model.safetensors").write_bytes(b"weights")
    note_cases(folder / (digit * 64), [one.id for one in cases])
    return policy


def told(target: str, teller: str) -> Banked:
    asked = Case(messages=case(OTTO).messages, target=target)
    return Banked(content(asked), asked, "dev", 2.0, 2.0, OTTO, count=0, latest_key=teller, target_key=teller)


@pytest.mark.parametrize("is_told_again", [False, True])
def test_a_champion_that_learned_an_answer_of_the_callers_to_another_s_question_is_taken_back(
    store: SQLiteStore, helm: Helm, is_told_again: bool
) -> None:
    store.take_in(TASK, "feedback", 1, [told("666", ANNA)])
    spec = {"watch": {"at": 3.0, "told": told_by(store.banked(TASK, "dev"))}}
    store.start_run("run", TASK, spec)
    learned = Proposal(showing(OTTO), "demos", "shows one")
    store.append_event("run", 0, canonical(Proposed(1, "c1", learned)))
    install(helm, showing(OTTO))
    if is_told_again:
        store.take_in(TASK, "feedback", 2, [told("777", OTTO)])

    found = forget_anna(store)

    assert found.taken_back == (TASK,)
    assert store.champion(TASK) == PLAIN.id
    assert is_forgotten(store, showing(OTTO))
    (kept,) = store.banked(TASK, "dev")
    assert kept.case.target == ("777" if is_told_again else None)


def test_an_adapter_trained_on_a_callers_case_is_taken_back_and_deleted(
    store: SQLiteStore, helm: Helm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAINFUL_ADAPTERS", str(tmp_path))
    of_anna, of_otto = tuned_on(tmp_path, "a", case(ANNA), case(OTTO)), tuned_on(tmp_path, "b", case(OTTO))
    for policy in (of_otto, of_anna):
        store.put_policy(policy)
        install(helm, policy)

    found = forget_anna(store)

    assert store.champion(TASK) == of_otto.id
    assert found.taken_back == (TASK,)
    assert (found.adapters, found.unknown) == (("adapter aaaaaaaa, rank 16",), ())
    assert "Deleted, for they were trained on it: adapter aaaaaaaa, rank 16." in forgotten(found)
    assert [folder.name for folder in tmp_path.glob("?" * 64)] == ["b" * 64]
    assert is_forgotten(store, of_anna)


def test_an_adapter_that_a_run_trained_and_nobody_promoted_is_deleted_too(
    store: SQLiteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAINFUL_ADAPTERS", str(tmp_path))
    adapter = tuned_on(tmp_path, "a", case(ANNA)).adapter
    assert adapter is not None
    trained = Trained("f" * 64, adapter, (), seconds=1.0, peak_memory_bytes=1, tokens=1)
    counts = Counts(cases=1, sampled=1, verified=1, solved_cases=1, chosen=1, usual_share=1.0, copied=0)
    store.start_run("run", TASK, {})
    store.append_event("run", 0, canonical(Taught("weights", "rejection", counts, material=1, trained=trained)))

    found = forget_anna(store)

    assert found.adapters == (adapter.label,)
    assert not list(tmp_path.glob("a*"))
    assert forget_anna(store).adapters == ()


def test_an_adapter_of_unknown_training_stays_in_service_and_is_told(store: SQLiteStore, helm: Helm) -> None:
    tuned = Policy(adapter=Adapter("1a2b3c4d" * 8, "base", rank=16, alpha=32.0))
    store.put_policy(tuned)
    install(helm, tuned)

    found = forget_anna(store)

    assert (found.adapters, found.unknown) == ((), ("adapter 1a2b3c4d, rank 16",))
    assert "Still in service: adapter 1a2b3c4d, rank 16; what they were trained on was not noted" in forgotten(found)
    assert store.champion(TASK) == tuned.id
