"""The held-out cases: sealed, so that nothing that learns can come across them.

Guarantees: cases leave a hold-out only through ``open``, which asks for the digest of a registration; no public
attribute, ``repr``, iteration or pickle leads to them, and ``repeated`` tells no more than which of somebody's own
cases it has too.  This keeps honest code from a mistake; it is no protection against code that means to cheat, which
could read the case file as well.  Leaves to others: which registrations are genuine, and what each opening costs (the
loop's ledger).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn, TypeAlias

from gainful.core import Case, JsonObject, TaskError, digest

Draw = Callable[[int, int, str], tuple[Case, ...]]
"""``(count, confirmation, registration) -> cases``: new cases for each confirmation, none of them seen before."""

Repeats: TypeAlias = Callable[[Iterable[Case], Sequence[Case]], frozenset[str]]
"""``(cases, others) -> ids``: which *cases* nearly repeat one of the *others*."""


class Holdout:
    """Cases for confirmations alone.

    ``size`` is how many there are, ``None`` where each confirmation gets ``fresh`` ones.  ``digest`` is the
    hold-out's identity, to which its error budget belongs: that of ``{"population": name, "cases": [[id, digest
    of the target], ...] sorted}``, or of ``{"population": name, "fresh": what the cases are drawn from}``.
    """

    __slots__ = ("__draw", "digest", "fresh", "population", "size")

    def __init__(self, population: str, cases: Sequence[Case]) -> None:
        held = tuple(sorted(cases, key=lambda case: case.id))
        self.population = population
        self.size: int | None = len(held)
        self.fresh = False
        self.digest = digest({"population": population, "cases": [[case.id, digest(case.target)] for case in held]})
        self.__draw: Draw = lambda count, *_: held[:count]

    @classmethod
    def drawn(cls, population: str, source: JsonObject, draw: Draw) -> Holdout:
        """Return a hold-out whose every confirmation gets new cases from *draw*; *source* says what they come from."""
        holdout = cls(population, ())
        holdout.size, holdout.fresh = None, True
        holdout.digest = digest({"population": population, "fresh": source})
        holdout.__draw = draw
        return holdout

    def open(self, registration: str, count: int, confirmation: int) -> tuple[Case, ...]:
        """Return the first *count* held-out cases, in the order of their ids, or as many new ones.

        *registration* is the digest under which the confirmation was registered beforehand; *confirmation* counts
        the confirmations on this hold-out from 0, and equal numbers give equal cases.  Raises ``TaskError`` where
        it is no digest, or there are not as many cases.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", registration):
            raise TaskError(
                f"the hold-out was asked for under registration {registration!r}, which is no digest; "
                "register the confirmation first"
            )
        if confirmation < 0 or count < 1 or (self.size is not None and count > self.size):
            raise TaskError(
                f"the hold-out was asked for {count} cases of confirmation {confirmation}; "
                f"it has {'new ones for each' if self.size is None else self.size}, counted from 0"
            )
        return self.__draw(count, confirmation, registration)

    def repeated(self, cases: Iterable[Case], find: Repeats) -> frozenset[str]:
        """Return the ids of those *cases* that nearly repeat a held-out one, which must not be trained on.

        Where each confirmation gets new cases there is none yet, and the result is empty.
        """
        return frozenset() if self.size is None else find(cases, self.__draw(self.size, 0, ""))

    def __repr__(self) -> str:
        return f"Holdout(size={self.size}, digest={self.digest[:12]!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a hold-out is not copied or pickled; load the task again where it is needed")

    __copy__ = __reduce__
