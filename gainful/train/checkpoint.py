"""Which checkpoint of a work is whole: a process may be killed while it writes one.

What Trainer writes, transformers reads back with ``weights_only``: no pickle runs code.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gainful.core import Value
from gainful.train.jobs import Processes

NAME = re.compile(r"checkpoint-(\d+)")
MARK = "whole.json"  # written last, by one rename


class Mark(Value, frozen=True):
    """After how many seconds of training it was written, and by what processes: others could not read it."""

    seconds: float
    processes: Processes | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A folder of Trainer's, and the seconds of training that it took."""

    path: Path
    seconds: float


def mark_whole(folder: Path, step: int, seconds: float, processes: Processes | None) -> None:
    """Note that the checkpoint of *step* in *folder*, which *processes* wrote after *seconds*, is complete."""
    path = folder / f"checkpoint-{step}"
    scratch = path / f"{MARK}.new"
    scratch.write_bytes(msgspec.json.encode(Mark(seconds, processes)))
    os.replace(scratch, path / MARK)


def last_checkpoint(folder: Path, processes: Processes | None) -> Checkpoint | None:
    """Return the last whole checkpoint in *folder* that such *processes* wrote, and delete all that are no use."""
    found: dict[int, Checkpoint] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        named = NAME.fullmatch(path.name)
        if named is None:
            continue
        mark = msgspec.json.decode((path / MARK).read_bytes(), type=Mark) if (path / MARK).is_file() else None
        if mark is not None and mark.processes == processes:
            found[int(named[1])] = Checkpoint(path, mark.seconds)
        else:
            shutil.rmtree(path)
    return found[max(found)] if found else None


def was_killed(folder: Path) -> str:
    """Say that the work in *folder* was killed, and what asking for it again does."""
    goes_on = any(folder.glob(f"checkpoint-*/{MARK}"))
    again = "ask again and it goes on from its checkpoint" if goes_on else "free some memory and ask again"
    return f"the trainer was killed, as a machine without memory does; {again}"
