"""Minutes of benchmarks that were stopped and went on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import workbench
from workbench import Clock, code_version, own_cache, trained_at

from gainful.loop.events import Progress, Unconfirmed
from gainful.models.files import cache_folder


def test_a_clock_goes_on_where_it_was_and_what_was_written_before_keeps_its_time(tmp_path: Path) -> None:
    """A minute of work from the Unix time 1,000 on; then it was stopped for years."""
    kept = {"worked_s": 60.0, "began": [[1_000.0, 0.0]], "records_s": [10.0, 20.0]}
    (tmp_path / "clock.json").write_text(json.dumps(kept))

    clock = Clock(tmp_path / "clock.json")
    for reason in ("first", "second", "third"):
        clock(Unconfirmed(reason=reason))

    times = [time_s for time_s, _ in clock.records]
    assert times[:2] == [10.0, 20.0]
    assert 60.0 <= times[2] < 90.0
    assert clock.at(1_030.0) == 30.0
    again = Clock(tmp_path / "clock.json")
    again(Progress("training", 1, 2))
    assert json.loads((tmp_path / "clock.json").read_text())["records_s"] == times


def test_a_cache_of_its_own_shares_what_is_fetched_and_nothing_that_was_worked_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbench, "SHARED_CACHE", tmp_path / "shared")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "before"))
    (tmp_path / "shared" / "training").mkdir(parents=True)

    own_cache(tmp_path / "own")
    own_cache(tmp_path / "own")

    assert os.environ["XDG_CACHE_HOME"] == str(tmp_path / "own" / "cache")
    assert {one.name for one in cache_folder().iterdir()} == {"bases", "wheels"}
    assert (cache_folder() / "bases").resolve() == tmp_path / "shared" / "bases"
    assert trained_at("a" * 64) is None


def test_rows_are_named_after_the_code_that_made_them() -> None:
    assert code_version() == code_version()
    assert len(code_version()) == 8
