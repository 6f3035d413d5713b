"""Tell kinds of questions apart by how they are worded, where nobody has named them.

Words that many cases have are wording, the others are what is asked about.  Cases that share most of their wording are
of one kind: so are all sums that are asked for in one sentence, whatever the numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from gainful.core import Case

COMMON = 0.05  # of all cases: a word that fewer have is no wording, and what fewer are like is no kind
ALIKE = 0.5  # of the wording that either of two cases has: as much both must have
WORD = re.compile(r"[^\W\d_]{2,}")
OTHER = 0


def kinds(cases: Sequence[Case]) -> dict[str, int]:
    """Return by id the kind of each case: from 1, the largest first; ``OTHER`` where it is like too few others."""
    least = max(2.0, COMMON * len(cases))
    words = {case.id: frozenset(map(str.lower, WORD.findall(case.text))) for case in cases}
    counts = Counter(word for of_case in words.values() for word in of_case)
    common = {word for word, count in counts.items() if count >= least}
    wordings = {case: of_case & common for case, of_case in words.items()}
    leaders: list[frozenset[str]] = []
    led: dict[frozenset[str], int] = {}
    sizes = Counter[int]()
    for wording, count in sorted(Counter(wordings.values()).items(), key=lambda item: (-item[1], sorted(item[0]))):
        leader = next((n for n, other in enumerate(leaders) if likeness(wording, other) >= ALIKE), len(leaders))
        if leader == len(leaders):
            leaders.append(wording)
        led[wording] = leader
        sizes[leader] += count
    numbers = {leader: n for n, (leader, size) in enumerate(sizes.most_common(), 1) if size >= least}
    return {case: numbers.get(led[wording], OTHER) for case, wording in wordings.items()}


def likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """Return how alike two wordings are, in [0, 1] (Jaccard's index); 1 for two that have none."""
    return len(one & other) / len(one | other) if one | other else 1.0
