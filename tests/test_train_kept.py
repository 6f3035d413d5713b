"""A worker that is kept for the next order, on a llama of a few thousand weights."""

import asyncio
import os
import signal
from pathlib import Path
from subprocess import Popen

import pytest

from gainful.core import JsonObject, TrainError
from gainful.loop.trainer import BaseTrainer
from gainful.train import Kept, Lesson, Limits, Recipe, Sampling, Work, missing, read_prompts, sample_replies
from gainful.train import kept as room

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("apart"),
    pytest.mark.skipif(missing() is not None, reason="it needs the extra `train`"),
]

FEW = Sampling(samples=4, max_tokens=8, seed=7)


def asked(first: int) -> list[tuple[JsonObject, ...]]:
    return [({"role": "user", "content": f"{first + n} + 1"},) for n in range(4)]


def kept_by(kept: Kept) -> "Popen[bytes]":
    """Return who is kept, and keep it on."""
    worker = kept.take()
    assert worker is not None
    kept.keep(worker)
    return worker


def test_one_worker_reads_and_draws_on_and_says_what_another_would(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept()
    try:
        drawn = sample_replies(None, base, asked(0), FEW, kept=kept)
        worker = kept_by(kept)
        more = sample_replies(None, base, asked(4), FEW, kept=kept)
        read = read_prompts(None, base, asked(8), max_tokens=8, kept=kept)
        assert kept_by(kept) is worker
    finally:
        kept.end()
    assert worker.returncode is not None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where nothing is remembered

    assert sample_replies(None, base, asked(4), FEW) == more != drawn
    assert read_prompts(None, base, asked(8), max_tokens=8) == read


def test_a_worker_that_nobody_asks_has_ended(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    sample_replies(None, base, asked(0), FEW, kept=kept)
    monkeypatch.setattr(room, "IDLE_S", 0.05)
    worker = kept_by(kept)

    assert worker.wait(timeout=60.0) == -signal.SIGKILL
    assert kept.take() is None


def test_where_a_kept_worker_was_killed_another_one_answers(base: Path) -> None:
    kept = Kept()
    try:
        sample_replies(None, base, asked(0), FEW, kept=kept)
        worker = kept_by(kept)
        os.kill(worker.pid, signal.SIGKILL)
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        assert len(sample_replies(None, base, asked(4), FEW, kept=kept)) == 4
        assert kept_by(kept).pid != worker.pid
    finally:
        kept.end()


def test_where_an_order_fails_nobody_is_kept_and_the_next_begins_anew(base: Path) -> None:
    kept = Kept()
    try:
        sample_replies(None, base, asked(0), FEW, kept=kept)
        with pytest.raises(TrainError, match="memory"):
            sample_replies(None, base, asked(4), FEW, memory_bytes=1000, kept=kept)
        assert kept.take() is None
        assert len(sample_replies(None, base, asked(4), FEW, kept=kept)) == 4
    finally:
        kept.end()


def test_a_training_has_the_memory_to_itself(base: Path) -> None:
    lessons = tuple(Lesson(messages=messages, reply="1", case=str(n)) for n, messages in enumerate(asked(0)))
    work = Work(base="tiny", material=lessons, recipe=Recipe(rank=8, epochs=1.0, batch=4, patience=0))
    trainer = BaseTrainer(base, Limits(minutes=5.0))
    at_work: list[Popen[bytes]] = []

    async def course() -> None:
        await trainer.sample(None, asked(0), FEW, lambda progress: None)
        at_work.append(kept_by(trainer.kept))
        await trainer.fine_tune(work, lambda progress: None, lambda case, replies: [])

    asyncio.run(course())

    assert [worker.returncode for worker in at_work] == [-signal.SIGKILL]
