"""The folders in the user's cache in which pieces of work are done, each named by the digest of its work.

    training/<digest>/lock            held by whoever does it
                      order.json      what the worker is to do, deleted when it ends
                      worker.log      what libraries print
                      checkpoint-N/   from which a killed training goes on
                      trained.json    what came of it
    answers/<digest>/answer.json      what was drawn or read, beside lock, order and log

Guarantees: two processes that ask for the same work do it once; a file is there whole or not at all; what nobody has
asked for in ``KEPT_DAYS`` is deleted.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gainful.core import TrainError
from gainful.models.files import cache_folder
from gainful.train.stop import Stop

ANSWER, LOCK, LOG, ORDER, RESULT = "answer.json", "lock", "worker.log", "order.json", "trained.json"
KEPT_DAYS = 30.0
WAIT_S = 0.2  # between two looks whether another process has let go


def training_folder(digest: str) -> Path:
    """Return where the training of that digest is done."""
    return cache_folder() / "training" / digest


def answer_folder(digest: str) -> Path:
    """Return where what is drawn or read under that digest is kept."""
    return cache_folder() / "answers" / digest


@contextmanager
def alone(folder: Path, stop: Stop) -> Iterator[None]:
    """Hold the *folder* of a work; whoever asks for the same work meanwhile waits, until *stop* ends that."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise TrainError(
            f"{folder} cannot be written: {error.strerror}; free some space, or set XDG_CACHE_HOME to another place"
        ) from error
    with lock:
        while not _is_held(lock):
            stop.check()
            time.sleep(WAIT_S)
        os.utime(lock.fileno())  # asked for now
        yield


def write(path: Path, data: bytes) -> None:
    """Put *data* in the place of what is there; raises ``TrainError`` where it cannot be written."""
    scratch = path.with_name(path.name + ".new")
    try:
        scratch.write_bytes(data)
        os.replace(scratch, path)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> TrainError:
    """Return what to say where *path* cannot be written."""
    return TrainError(f"{path} cannot be written: {error.strerror or error}; free some space and ask again")


def forget_words() -> None:
    """Delete what is kept of the words of requests and replies: orders that were killed, and what was drawn and read.

    What is under way at this moment is left alone.  Whoever asks for it again has it drawn and read again.
    """
    for folder in _idle():
        for name in (ORDER, ANSWER):
            (folder / name).unlink(missing_ok=True)


def sweep(now: float) -> None:
    """Delete what nobody has asked for in the ``KEPT_DAYS`` before *now*, in seconds since 1970."""
    for folder in _idle():
        if now - (folder / LOCK).stat().st_mtime > KEPT_DAYS * 86400.0:
            for path in folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != LOCK:  # another process may be about to hold it
                    path.unlink()


def _idle() -> Iterator[Path]:
    """Yield the folders of works that nobody does, each held meanwhile."""
    for kind in ("training", "answers"):
        for path in (cache_folder() / kind).glob(f"*/{LOCK}"):
            with path.open() as lock:
                if _is_held(lock):
                    yield path.parent


def _is_held(lock: IO[str]) -> bool:
    """Hold the file *lock* until it is closed, and say whether that was possible."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
