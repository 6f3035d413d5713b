"""Is the model behind a name still the same?  Ask old cases again and see whether the late answer is the odd one.

A probe is one case and three answers to the very same request: two asked at one time, the third later.  As long as
nothing has changed and calls are independent, the three are exchangeable: they might as well have come in any order.
So where exactly one of them differs from the other two, it is the late one with probability 1/3, however random the
model is and however hard the case.  Three alike or three different say nothing.

For a q in (1/3, 1], bet that the late one is odd with probability q: the money is multiplied by q/(1/3) = 3q if it is,
by (1 - q)/(2/3) if it is not, which is 1 on average where nothing changed.  We take the mean over the stakes below of
the e-detector of ``change``; its promise is an average of at least ``threshold`` telling probes before a false alarm.

It works for nearly deterministic models, where the two first answers agree and every late difference is odd (8 such
in a row are evidence beyond 1,000), and for random ones, where many probes are needed.  A swap that changes no answer
is not noticed, and does not matter.  What it tests is "the later call is like the two earlier ones", so whatever makes
two calls at one time more alike than two calls hours apart counts as a change: send the two as separate calls, past
every cache.
"""

from __future__ import annotations

from gainful.gate.change import Detector

# In units where the late one being odd wins 1 and another one being odd loses 1/2: a stake s bets on q = (1 + s)/3.
STAKES = (0.2, 0.5, 1.0, 1.5, 1.9)  # q from 0.4, a random model that changed a little, to 0.97, a steady one


class OddOneOut(Detector):
    """Rings when later answers differ from pairs of earlier ones more often than by chance.

    ``n`` counts the probes that told something, ``late`` those among them whose late answer was the odd one.

    >>> detector = OddOneOut(threshold=1000)
    >>> for _ in range(8):
    ...     detector.see("4", "4", "5")
    >>> detector.rings, detector.n, detector.late
    (True, 8, 8)
    """

    def __init__(self, threshold: float) -> None:
        super().__init__(STAKES, threshold)
        self.late = 0

    def see(self, first: object, second: object, later: object) -> None:
        """Enter the answers of one probe; answers that mean the same must be equal."""
        if first == second != later:
            self.late += 1
            self.gain(1.0)
        elif first != second and later in (first, second):
            self.gain(-0.5)
