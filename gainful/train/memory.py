"""How much memory a training takes, estimated before it begins, and how much there is.

Calibrated on SmolLM2-135M on a CPU: 1.6 GB at 366 nodes a batch with attention written out, 2.3 GB at 901 without.  An
estimate on the high side, for a machine that kills what grows too large says nothing to its user.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gainful.core import TrainError

LIBRARIES_BYTES = 500_000_000  # torch, transformers, TRL and what they bring
A_WEIGHT_LEARNED = 16  # bytes: itself, its gradient and Adam's two moments, in float32
SLACK = 1.5  # what an allocator holds beyond what is in use, where batches differ in size


@dataclass(frozen=True)
class Shape:
    """Of a model: layers, their width, that of their feed-forward part, and attention heads."""

    layers: int
    width: int
    inner: int
    heads: int
    weights_bytes: int
    element_bytes: int = 2


def needed_bytes(shape: Shape, rank: int, nodes: int, written_out: int) -> int:
    """Return the memory that a step takes over *nodes* tokens; up to *written_out* of them keep attention's scores.

    >>> smollm2 = Shape(layers=30, width=576, inner=1536, heads=9, weights_bytes=270_000_000)
    >>> [round(needed_bytes(smollm2, 16, nodes, 700) / 1e9, 1) for nodes in (366, 901)]
    [2.2, 3.0]
    """
    adapter = shape.layers * rank * (8 * shape.width + 3 * (shape.width + shape.inner)) * A_WEIGHT_LEARNED
    activations = nodes * shape.layers * shape.element_bytes * (20 * shape.width + 10 * shape.inner)
    scores = min(nodes, written_out) ** 2 * shape.layers * shape.heads * 8 if nodes <= written_out else 0
    return LIBRARIES_BYTES + shape.weights_bytes + adapter + int(SLACK * (activations + scores))


def free_bytes() -> int | None:
    """Return what this machine, or the group of processes that we are in, has left; ``None`` where it does not say."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")))
    with suppress(OSError, ValueError):  # "max" where the group has no limit
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(found, default=None)


def check_memory(needed: int, allowed: int | None, free: int | None) -> None:
    """Raise ``TrainError`` where *needed* bytes are more than are *allowed*, or than are *free*.

    >>> check_memory(2_100_000_000, 1_000_000_000, None)
    Traceback (most recent call last):
    gainful.core.TrainError: training needs about 2.1 GB of memory and 1.0 GB are allowed; allow more, or take a \
smaller batch or rank
    """
    for limit, words, more in ((allowed, "allowed", "allow more"), (free, "free", "free some")):
        if limit is not None and needed > limit:
            raise TrainError(
                f"training needs about {needed / 1e9:.1f} GB of memory and {max(limit, 0) / 1e9:.1f} GB are {words}; "
                f"{more}, or take a smaller batch or rank"
            )
