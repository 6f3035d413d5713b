"""Notice that what once paid does harm now: an e-detector for a change for the worse.

For a stake lambda, M_t = (M_{t-1} + 1) (1 - lambda (D_t + margin)), M_0 = 0; we take the mean over the stakes of
``e_process``.  While E[D] >= -margin given all that went before, M_t - t never grows on average, so an alarm at M >= c
comes no sooner than after c values on average (Shin, Ramdas & Rinaldo 2024, New England Journal of Statistics in Data
Science 2, 229-260).  It is a promise about time, not about a probability: an alarm that watches for ever comes one day.

Two uses.  A difference of two policies: D is what is in service minus what it is compared with.  Quality itself:
D = Y - q, q a reference fixed before the first Y; then the alarm says that the mean score fell below q - margin.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gainful.gate.e_process import STAKES

LARGEST = 1e12  # beyond any alarm; a cap keeps M finite, and lets good values after a long bad time count soon


class Detector:
    """The mean of M over *stakes*, each of which may be lost at most: *stakes* times the worst loss is at most 1.

    ``rings`` once the evidence has reached *threshold* at any time, so that it does not depend on how often one looks.
    A detector that rang and was seen to is replaced by a new one.  Raises ``ValueError`` for a threshold below 1.
    """

    def __init__(self, stakes: Sequence[float], threshold: float) -> None:
        if not 1.0 <= threshold <= LARGEST:
            raise ValueError(
                f"threshold {threshold!r} is outside [1, {LARGEST:g}]; it is the mean time to a false alarm"
            )
        self.threshold = threshold
        self.n = 0
        self.rings = False
        self._stakes = stakes
        self._held = [0.0] * len(stakes)

    @property
    def evidence(self) -> float:
        """M as of the last value: 0 before the first, and never more than 1e12."""
        return sum(self._held) / len(self._held)

    def gain(self, amount: float) -> None:
        """Enter what a stake of 1 has won, of an *amount* that is no more than 0 on average where nothing changed."""
        self.n += 1
        self._held = [
            min((m + 1.0) * (1.0 + stake * amount), LARGEST) for m, stake in zip(self._held, self._stakes, strict=True)
        ]
        self.rings = self.rings or self.evidence >= self.threshold


class Alarm(Detector):
    """Rings when differences fall below -*margin* on average, one by one; *margin* is in [0, 1).

    >>> alarm = Alarm(margin=0.02, threshold=1000)
    >>> for _ in range(20):
    ...     alarm.see(-1.0)
    >>> alarm.rings, alarm.n
    (True, 20)
    """

    def __init__(self, margin: float, threshold: float) -> None:
        if not 0.0 <= margin < 1.0:
            raise ValueError(f"margin {margin!r} is outside [0, 1); it is a difference of mean scores")
        super().__init__([stake / (1.0 + margin) for stake in STAKES], threshold)
        self.margin = margin

    def see(self, difference: float) -> None:
        """Enter the next difference; raises ``ValueError`` for one outside [-1, 1]."""
        if not -1.0 <= difference <= 1.0:
            raise ValueError(f"pair {self.n}: difference {difference!r} is outside [-1, 1]; scores must lie in [0, 1]")
        self.gain(-(difference + self.margin))


def evidence_of_harm(differences: Iterable[float], margin: float = 0.0) -> float:
    """Return M after *differences*, each in [-1, 1], oldest first; *margin* is in [0, 1).

    >>> evidence_of_harm([]), round(evidence_of_harm([-1.0] * 20)), round(evidence_of_harm([1.0] * 20), 1)
    (0.0, 49658, 4.6)
    """
    alarm = Alarm(margin, LARGEST)
    for difference in differences:
        alarm.see(difference)
    return alarm.evidence
