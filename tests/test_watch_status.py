"""What is left of an error budget after confirmations, and a status where little is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from gainful.core import Policy
from gainful.gate import Budget
from gainful.store import LedgerEntry, SQLiteStore
from gainful.watch.status import error_budget, read_status


def lifetime(store: SQLiteStore, *decisions: str, size: int | None = 400) -> list[LedgerEntry]:
    """Return the ledger of a hold-out with confirmations that ended so; one without an end was cut short."""
    store.append_ledger("hold-out", "epoch", {"alpha": "0.05", "epoch": 1, "size": size})
    for decision in decisions:
        store.append_ledger("hold-out", "opened", {"registration": "ab" * 32})
        if decision:
            store.append_ledger("hold-out", "closed", {"decision": decision})
    return store.ledger("hold-out")


@pytest.fixture
def store(tmp_path: Path) -> SQLiteStore:
    return SQLiteStore(tmp_path / "store.db")


def test_each_failed_confirmation_takes_its_level_from_the_budget(store: SQLiteStore) -> None:
    found = error_budget(lifetime(store, "not promoted", "", "not promoted"), 0.01)
    store.close()

    spent = sum(Budget(0.05, rank).level for rank in (1, 2, 3))
    assert found.alpha == 0.05
    assert found.left == pytest.approx(0.05 - spent, abs=1e-12)
    assert found.level == Budget(0.05, 4).level
    assert (found.confirmations, found.promotions, found.fresh) == (3, 0, False)


def test_with_fresh_cases_a_promotion_costs_nothing(store: SQLiteStore) -> None:
    found = error_budget(lifetime(store, "promoted", size=None), 0.01)
    store.close()

    assert (found.left, found.promotions, found.fresh) == (0.05, 1, True)


def test_a_lifetime_that_has_not_begun_is_whole() -> None:
    assert error_budget([], 0.01).left == 0.01


def test_a_run_that_names_no_hold_out_leaves_the_budget_whole(store: SQLiteStore) -> None:
    store.set_champion("task", Policy(), "baseline")
    store.start_run("run", "task", {})
    found = read_status(store, "task")
    store.close()

    assert found.budget is not None
    assert found.budget.left == 0.05
    assert found.run is not None
    assert found.run.is_promoted is None
