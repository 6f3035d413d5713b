"""Other processes that share a store with a test, and can be killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class Child:
    """A second process that has opened the store at *place* as ``store`` and runs *code*."""

    def __init__(self, place: Path | str, code: str) -> None:
        setup = """
            import sys
            from gainful.core import Policy, StoreError
            from gainful.store import SQLiteStore, open_store
            print("ready", flush=True)
            sys.stdin.readline()
            store = open_store(sys.argv[1])
        """
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(setup) + textwrap.dedent(code), str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def ready(self) -> None:
        """Wait until everything is imported."""
        assert self.output.readline() == "ready\n"

    def go(self) -> None:
        """Let it open the store and run; later calls are the lines it reads."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def children(place: Path | str, *codes: str) -> Iterator[list[Child]]:
    """Processes that have all begun; whatever happens, none outlives the test."""
    started = [Child(place, code) for code in codes]
    try:
        for child in started:
            child.ready()
        for child in started:
            child.go()
        yield started
    finally:
        for child in started:
            child.kill()
            child.process.communicate()
