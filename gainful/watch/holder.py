"""Who holds a lease: a process, named so that another on the same machine can tell whether it still lives."""

from __future__ import annotations

import os
import socket


def this_process() -> str:
    """Return a holder's name that no other process has: machine, process, and something random."""
    return f"{socket.gethostname()} {os.getpid()} {os.urandom(4).hex()}"


def is_dead(holder: str) -> bool:
    """Whether *holder* was a process of this machine, and is no more; of another machine's nobody here can tell."""
    host, _, rest = holder.rpartition(" ")[0].rpartition(" ")
    if host != socket.gethostname() or not rest.isdigit():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
