"""How much memory a training takes, estimated before it begins, and how much there is.

On the high side, for a machine that kills what grows too large says nothing to its user; ``least_bytes`` alone, which
is asked before anything is spent, is on the low side, since nobody knows then how long the lessons will be.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gainful.core import TrainError

LIBRARIES_BYTES = 500_000_000  # torch, transformers, TRL and what they bring
A_WEIGHT_LEARNED = 24  # bytes: itself, its gradient, Adam's two moments and two copies of good ones, in float32
LOGIT_BYTES = (
    20  # of a labelled token for each word of the vocabulary: itself, its logarithm, what their gradients take
)
SLACK = 1.5  # what an allocator holds beyond what is in use, where batches differ in size


@dataclass(frozen=True)
class Shape:
    """Of a model: layers, their width, that of their feed-forward part, attention heads, vocabulary and all weights."""

    layers: int
    width: int
    inner: int
    heads: int
    vocabulary: int
    parameters: int


def training_bytes(shape: Shape, element_bytes: int, rank: int, nodes: int, labels: int, written_out: int) -> int:
    """Return the memory that a step takes over *nodes* tokens, *labels* of which are learned.

    Up to *written_out* nodes keep attention's scores.

    >>> smollm2 = Shape(layers=30, width=576, inner=1536, heads=9, vocabulary=49152, parameters=134_500_000)
    >>> [round(training_bytes(smollm2, 2, 16, nodes, nodes // 8, 700) / 1e9, 1) for nodes in (366, 901)]
    [2.3, 3.2]
    """
    adapter = shape.layers * rank * (8 * shape.width + 3 * (shape.width + shape.inner)) * A_WEIGHT_LEARNED
    activations = nodes * shape.layers * element_bytes * (20 * shape.width + 10 * shape.inner)
    scores = nodes**2 * shape.layers * shape.heads * 8 if nodes <= written_out else 0
    logits = labels * shape.vocabulary * LOGIT_BYTES
    return LIBRARIES_BYTES + shape.parameters * element_bytes + adapter + int(SLACK * (activations + scores + logits))


def answering_bytes(shape: Shape, element_bytes: int, nodes: int, labels: int, hands: int = 1) -> int:
    """Return the memory that it takes to read *nodes* tokens at once, and to say how likely *labels* of them are.

    So many *hands* do that at the same time.
    """
    remembered = nodes * shape.layers * 2 * shape.width
    layer = nodes * (8 * shape.width + 4 * shape.inner) + 2 * nodes**2
    logits = 3 * labels * shape.vocabulary
    in_use = remembered * element_bytes + layer * element_bytes + logits * 4
    return LIBRARIES_BYTES + shape.parameters * element_bytes + int(SLACK * in_use * hands)


def least_bytes(parameters: int) -> int:
    """Return what it takes at least to learn with a base of so many weights, whatever the lessons.

    Where there is no GPU, it is read in float32 to be compared with the server.
    """
    return LIBRARIES_BYTES + parameters * (2 if has_gpu() else 4)


def has_gpu() -> bool:
    """Whether this machine has a GPU that torch computes on, as its driver says; its memory is not told by files."""
    return any(Path(driver).exists() for driver in ("/proc/driver/nvidia/version", "/dev/kfd"))


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
smaller base, batch or rank
    """
    for limit, words, more in ((allowed, "allowed", "allow more"), (free, "free", "free some")):
        if limit is not None and needed > limit:
            raise TrainError(
                f"training needs about {needed / 1e9:.1f} GB of memory and {max(limit, 0) / 1e9:.1f} GB are {words}; "
                f"{more}, or take a smaller base, batch or rank"
            )
