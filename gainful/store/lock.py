"""One process at a time on one run of a store that is a file.

A lock is a file beside the store, held with ``flock``: the kernel lets go of it when the process dies, however
it dies, so no lock is ever left behind.  Works between processes of one machine.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from gainful.core import StoreError, digest


class FileLock:
    """Run *run* of the store at *store*, held from construction until ``release`` or the end of the process.

    Raises ``StoreError`` at once when another holds it.
    """

    def __init__(self, store: Path, run: str) -> None:
        self._path = store.with_name(f"{store.name}-run-{digest(run)[:16]}.lock")
        self._file: int | None = None
        try:
            while self._file is None:
                self._file = _take(self._path)
        except BlockingIOError:
            raise StoreError(
                f"run {run!r} is under way in process {_holder(self._path)}; wait for it, or stop it and resume the run"
            ) from None
        except OSError as error:
            raise StoreError(
                f"run {run!r} cannot be locked at {self._path} ({error.strerror}); keep the store on a local disk with "
                "free space"
            ) from error

    def release(self) -> None:
        """Let go; releasing twice is fine."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)  # before letting go, so that nobody's newer file is removed
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _take(path: Path) -> int | None:
    """Return the file, open and locked; ``None`` if its last holder removed it just before we had the lock."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(file).st_ino:
            os.ftruncate(file, 0)
            os.write(file, str(os.getpid()).encode())
            return file
    except FileNotFoundError:
        pass
    except OSError:
        os.close(file)
        raise
    os.close(file)
    return None


def _holder(path: Path) -> str:
    """Return the id of the process that wrote itself into the lock, "?" where it has let go meanwhile."""
    try:
        return path.read_text() or "?"
    except FileNotFoundError:
        return "?"
