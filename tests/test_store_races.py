"""Processes that learn on one store, on each store there is: leases, fencing, and cases that are opened once."""

from __future__ import annotations

import pytest
from children import children

from gainful.core import Case, digest
from gainful.store import Banked, Lease, open_store

pytestmark = pytest.mark.slow  # processes of Python start in half a second each


def banked(number: int) -> Banked:
    case = Case(messages=({"role": "user", "content": str(number)},))
    return Banked(digest(number), case, "held-out", float(number), float(number))


def test_of_processes_that_take_one_lease_one_at_a_time_has_it_and_only_its_lines_count(place: str) -> None:
    """Leases of 20 ms are lost again and again; a token's lines never come after a later token's."""
    racing = """
        import os, time
        for _ in range(150):
            lease = store.take_lease("watch", str(os.getpid()), 0.02)
            if lease is None:
                time.sleep(0.002)
                continue
            seen = len(store.ledger("service:task"))
            try:
                store.append_ledger("service:task", "alarm", {"token": lease.token}, seq=seen, lease=lease)
                print("added", flush=True)
            except StoreError as error:
                assert "lease 'watch'" in str(error) or "another process has written" in str(error), error
            if seen % 3 == 0:
                store.end_lease(lease)
    """
    with children(place, racing, racing, racing) as started:
        added = sum(len(child.output.read().split()) for child in started)
        assert [child.process.wait() for child in started] == [0, 0, 0]

    with open_store(place) as store:
        tokens = [line.content["token"] for line in store.ledger("service:task")]
    assert len(tokens) == added
    assert tokens == sorted(tokens)
    assert len(set(tokens)) > 3


def test_a_lease_outlives_the_process_that_took_it_until_its_time_and_no_longer(place: str) -> None:
    holding = """
        print(store.take_lease("watch", "child", 0.5).token, flush=True)
        sys.stdin.readline()
    """
    with open_store(place) as store, children(place, holding) as [child]:
        assert child.output.readline() == "1\n"
        child.kill()
        assert store.take_lease("watch", "test", 10.0) is None
        lease: Lease | None = None
        while lease is None:
            lease = store.take_lease("watch", "test", 10.0)

    assert lease.token == 2


def test_two_confirmations_in_two_processes_never_share_a_case(place: str) -> None:
    with open_store(place) as store:
        store.take_in("task", "intake", 1, map(banked, range(120)))
    opening = """
        import os
        for number in range(20):
            for case in store.open_banked("task", 3, f"{os.getpid()} {number}"):
                print(case.id)
    """
    with children(place, opening, opening) as started:
        opened = [line for child in started for line in child.output.read().split()]

    assert len(opened) == len(set(opened)) == 120
