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


def run(folder: Path, kill_after_calls: int | None) -> bool:
    """Run the child on the store in *folder*, to its end or until it has asked so often; return whether it ended."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "XDG_DATA_HOME": str(folder / "data")}
    log = folder / "log"
    log.touch()
    least = len(log.read_text().splitlines())
    child = subprocess.Popen([sys.executable, "-c", CHILD, folder / "s.db", log], env=environment)
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
        (only,) = store.runs()
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
