"""A run killed with -9 again and again ends like one that was not, and asks nothing twice that it had answered."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gainful.store import SQLiteStore

CHILD = """
import asyncio, sys
from pathlib import Path
import gainful
from gainful.core import digest
from worlds import QUICK, needs_a_schema, scripted, sums

place, log = Path(sys.argv[1]), open(sys.argv[2], "a", buffering=1)

class Slow(type(scripted())):
    async def complete(self, body, *, sample=0):
        log.write(digest({"body": body, "model": self.identity, "sample": sample}) + chr(10))
        await asyncio.sleep(0.002)
        return await super().complete(body, sample=sample)

gainful.improve(sums(), Slow(needs_a_schema), place, QUICK)
"""

EMBEDDED = """
import sys
from pathlib import Path
import gainful
from gainful.core import digest
from gainful.loop.run import Halving
from gainful.models import SMOLLM2, EmbeddedModel, wheel_file
from worlds import sums

place, log = Path(sys.argv[1]), open(sys.argv[2], "a", buffering=1)

class Logged(EmbeddedModel):
    async def complete(self, body, *, sample=0):
        log.write(digest({"body": body, "model": self.identity, "sample": sample}) + chr(10))
        return await super().complete(body, sample=sample)

settings = gainful.Settings(rounds=1, halving=Halving(rungs=(2, 6)), least_gain=-1.0)
gainful.improve(sums(cases=30, max_tokens=24), Logged(wheel_file(**SMOLLM2)), place, settings)
"""


def run(folder: Path, kill_after_calls: int | None, child_code: str = CHILD) -> bool:
    """Run the child on the store in *folder*, to its end or until it has asked so often; return whether it ended."""
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "XDG_DATA_HOME": str(folder / "data")}
    log = folder / "log"
    log.touch()
    least = len(log.read_text().splitlines())
    child = subprocess.Popen([sys.executable, "-c", child_code, folder / "s.db", log], env=environment)
    while child.poll() is None:
        if kill_after_calls is not None and len(log.read_text().splitlines()) - least >= kill_after_calls:
            child.send_signal(signal.SIGKILL)
            child.wait()
            return False
        time.sleep(0.002)
    assert child.returncode == 0
    return True


def records(folder: Path) -> list[object]:
    """The run's records without what measures time."""
    with SQLiteStore(folder / "s.db") as store:
        only = next(iter(store.runs()), None)
        if only is None:
            return []  # killed before it began
        return [_timeless(json.loads(event)) for event in store.events(only.run)]


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in ("elapsed_ms", "receipt")}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert run(whole, None)
    draw = random.Random(20)
    kills, answered, asked = 0, set[str](), 0

    while kills < 20:
        if run(killed, draw.randint(1, 12)):
            break
        kills += 1
        log = (killed / "log").read_text().splitlines()
        again = answered.intersection(log[asked:])
        assert again == set(), f"kill {kills}: asked again what was answered before"
        asked = len(log)
        with SQLiteStore(killed / "s.db") as store:
            answered = {key for key in log if store.memo_get(key) is not None}
    run(killed, None)

    assert kills == 20
    assert records(killed) == records(whole)


@pytest.mark.slow
def test_kills_of_a_run_with_the_embedded_model_change_no_record_and_repeat_no_call(tmp_path: Path) -> None:
    """Its answers may differ with what is decoded beside them, so it is held against a run on the answers it gave."""
    killed, told_again = tmp_path / "killed", tmp_path / "again"
    killed.mkdir()
    told_again.mkdir()
    draw = random.Random(4)
    asked: list[str] = []
    answered, written = set[str](), list[object]()

    for kill in range(4):
        assert not run(killed, draw.randint(6, 14), EMBEDDED), "the run is too short for four kills"
        log = (killed / "log").read_text().splitlines()
        assert answered.intersection(log[len(asked) :]) == set(), f"kill {kill}: asked again what was answered before"
        assert records(killed)[: len(written)] == written, f"kill {kill}: a record changed"
        asked, written = log, records(killed)
        with SQLiteStore(killed / "s.db") as store:
            answered = {key for key in log if store.memo_get(key) is not None}
    assert run(killed, None, EMBEDDED)
    copy_memo(killed, told_again)
    assert run(told_again, None, EMBEDDED)

    assert answered.intersection((killed / "log").read_text().splitlines()[len(asked) :]) == set()
    assert (told_again / "log").read_text() == ""
    assert records(killed) == records(told_again)


def copy_memo(source: Path, target: Path) -> None:
    """Give the store in *target* every finished call of the one in *source*, and nothing else."""
    with SQLiteStore(source / "s.db") as old, SQLiteStore(target / "s.db") as new:
        for key in (source / "log").read_text().splitlines():
            if (reply := old.memo_get(key)) is not None:
                new.memo_put(key, reply)
