"""Is the model behind a name still the same?  Ask old cases at three times: is the last answer the odd one?

A probe is one case and three answers to the very same request, at equally spaced times.  Exactly the last answer is odd
where the first two are alike and the three are not; exactly the first is odd where the last two are alike and the three
are not.  As long as nothing changes, two neighbours are alike as often early as late, so both have one probability:
whatever the model's randomness, and however alike two answers are for being near in time.  (For every stationary
sequence, P(x1 = x2) - P(all alike) = P(x2 = x3) - P(all alike).)  So a probe whose first or last answer alone is odd is
a fair coin.  The middle one odd, three alike and three different say nothing.

For a q in (1/2, 1], bet that the last one is odd with probability q: the money is multiplied by 2q if it is and by
2 (1 - q) if the first one is, which is 1 on average where nothing changed.  We take the mean over the stakes below of
the e-detector of ``change``; its promise is an average of at least ``threshold`` telling probes before a false alarm.

It works for nearly deterministic models, where the last one is odd in every telling probe after a swap (11 such in a
row are evidence beyond 1,000), and for random ones, where many probes are needed.  A swap that changes no answer is not
noticed, and does not matter.  Enter probes in the order of their last answers: those with two answers before a swap and
one after it come first, and argue for it; those with one before and two after come next, and argue against it.  So what
was not noticed while the first kind lasted is not noticed later.

The promise also needs that earlier probes do not tell where the next one's odd answer stands.  Load that moves many
answers at once, and stays, is a change to this test; so ask probes one by one, far enough apart that a burst of load
has passed by the next.
"""

from __future__ import annotations

from gainful.gate.change import Detector

# In units where the last one being odd wins 1 and the first one being odd loses 1: a stake s bets on q = (1 + s)/2.
STAKES = (0.2, 0.4, 0.6, 0.8, 0.95)  # q from 0.6, a random model that changed a little, to 0.975, a steady one


class OddOneOut(Detector):
    """Rings when the last answers are the odd ones more often than the first ones, beyond chance.

    ``n`` counts the probes that told something, ``last`` those among them whose last answer was the odd one.

    >>> detector = OddOneOut(threshold=1000)
    >>> for _ in range(11):
    ...     detector.see("4", "4", "5")
    >>> detector.rings, detector.n, detector.last
    (True, 11, 11)
    """

    def __init__(self, threshold: float) -> None:
        super().__init__(STAKES, threshold)
        self.last = 0

    def see(self, first: object, middle: object, last: object) -> None:
        """Enter the answers of one probe, in the order of their times; answers that mean the same must be equal."""
        if first == middle != last:
            self.last += 1
            self.gain(1.0)
        elif first != middle == last:
            self.gain(-1.0)
