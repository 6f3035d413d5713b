"""The order in which held-out cases are evaluated: fixed by what is compared, so nobody can choose it.

A group-sequential test stops early, so the order of the cases decides which of them count.  It follows from
the hold-out and the two policies alone (docs/receipt.md, "Order"); the receipt's verifier computes it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from gainful.core import digest


def order_seed(holdout: str, challenger: str, champion: str) -> str:
    """Return the seed of a comparison's order: the digest of the list of these three digests."""
    return digest([holdout, challenger, champion])


def evaluation_order(ids: Iterable[str], seed: str) -> list[str]:
    """Return case *ids* sorted by the SHA-256 of *seed* followed by the id: a permutation nobody chose.

    >>> evaluation_order(["a", "b", "c"], seed="0")
    ['c', 'b', 'a']
    """
    return sorted(ids, key=lambda id: hashlib.sha256((seed + id).encode()).digest())
