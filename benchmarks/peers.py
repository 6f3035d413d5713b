"""Environments for the software that we measure ourselves against.

A peer never enters the project's own environment: each has one under ``out/venvs``, made on first use with the
versions that its benchmark pins, and made again when these change.  It needs a package index on first use only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

VENVS = Path(__file__).resolve().parent.parent / "out" / "venvs"


def environment(name: str, requirements: Sequence[str], alone: Sequence[str] = ()) -> Path:
    """Return the Python of the environment *name* that holds the pinned *requirements*.

    Those in *alone*, pinned too, are installed without what they depend on: *requirements* names the part that is used.
    Raises ``ValueError`` for a requirement that is not pinned: its figures could not be compared with last month's.
    Raises ``subprocess.CalledProcessError`` when pip fails; what it had made is then thrown away.
    """
    for requirement in (*requirements, *alone):
        if "==" not in requirement:
            raise ValueError(f"peer {name!r}: requirement {requirement!r} names no version; pin it with ==")
    home = VENVS / name
    python, stamp = home / "bin" / "python", home / ".requirements"
    wanted = "\n".join([*requirements, *(f"{requirement} alone" for requirement in alone)])
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(home, ignore_errors=True)
    print(f"setting up {name} in out/venvs (once)", file=sys.stderr)
    try:
        venv.create(home, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *requirements], check=True, stdin=subprocess.DEVNULL)
        if alone:
            subprocess.run([*install, "--no-deps", *alone], check=True, stdin=subprocess.DEVNULL)
    except BaseException:  # an interrupt too must not leave half an environment behind
        shutil.rmtree(home, ignore_errors=True)
        raise
    stamp.write_text(wanted)
    return python
