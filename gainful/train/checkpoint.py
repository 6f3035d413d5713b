"""Which checkpoint of a work is whole: a process may be killed while it writes one.

What Trainer writes, transformers reads back with ``weights_only``: no pickle runs code.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

NAME = re.compile(r"checkpoint-(\d+)")
MARK = "whole.json"  # written last, by one rename


@dataclass(frozen=True)
class Checkpoint:
    """A folder of Trainer's, and the seconds of training that it took."""

    path: Path
    seconds: float


def mark_whole(folder: Path, step: int, seconds: float) -> None:
    """Note that the checkpoint of *step* in *folder* is complete after *seconds* of training."""
    path = folder / f"checkpoint-{step}"
    scratch = path / f"{MARK}.new"
    scratch.write_text(json.dumps({"seconds": seconds}))
    os.replace(scratch, path / MARK)


def last_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the last whole checkpoint in *folder*, and delete those that a kill has cut off."""
    found: dict[int, Checkpoint] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        named = NAME.fullmatch(path.name)
        if named is None:
            continue
        if (path / MARK).is_file():
            found[int(named[1])] = Checkpoint(path, float(json.loads((path / MARK).read_text())["seconds"]))
        else:
            shutil.rmtree(path)
    return found[max(found)] if found else None
