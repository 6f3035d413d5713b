"""Which policy answers a request: drawn beforehand, so that nothing in a request has a say in it.

A worker numbers the requests of a task from 0, in a *lane* of its own that begins anew with every state of the service.
A stage cuts the numbers into blocks of b.  In block k one position gets the stage's policy, the champion the rest:

    int(HMAC-SHA256(seed, "lane k")) mod b        seed: the stage's hexadecimal text; lane: the worker's random text

Guarantees: every whole block of a stage alone has exactly one request of its policy; the seed is in the ledger before
the first request, so anybody can draw again from a stored seat; the lane is random, so nobody can foresee a position.

Why a block is a fair comparison.  D is the score of the one minus the mean of the champion's in its block.  Let both
policies be equally good, so that request number j scores Y_j whoever answers; Y may be anything, trends included.

- A stage alone.  The position is uniform over the block and independent of Y, so both terms have the block's mean as
  their expectation, and E[D] = 0.
- A canary beside the hold-back.  The hold-back is seated first, and what it takes is not the canary's.  Their seeds
  differ, so the draws are independent.  Given where the hold-back sits, the canary's position is uniform over what
  the hold-back left of its block, unless it fell on what was taken: that block has no challenger and gives no D.
  So E[D] = 0, given the hold-back.
- The hold-back beside a canary.  It takes its position whether the canary drew the same one or not, so it is uniform
  over its block.  The champion's are the others that the canary did not draw; the canary draws uniformly too, so no
  request has a better chance to be among them than another.  Where canary's blocks end with the hold-back's, E[D] = 0
  again.  Where one straddles the edge, the champion's number of requests varies with it, and a request at the edge
  weighs up to 1/b^2 more or less than one inside.  That would take traffic that keeps step with the blocks, and
  nobody outside can see these: lane and numbers are the worker's own.

A shadow's draw says which requests the challenger answers as well, unheard: there D is a true pair.  Leaves to others:
what is in service (``service``), and what the scores say (``watch``).
"""

from __future__ import annotations

import hmac
from typing import NamedTuple

import msgspec

from gainful.core import Arm, Seat
from gainful.watch.service import Stage


class Seated(NamedTuple):
    """Who answers a request: the id of the policy, the seat, and the policy that answers unheard as well, if any."""

    policy: str
    seat: Seat | None = None
    shadow: str | None = None


def position(seed: str, lane: str, number: int, block: int) -> int:
    """Return the position in [0, *block*) that gets the stage's policy in block *number* of *lane*.

    >>> [position("5eed", "a", number, 4) for number in range(8)]
    [2, 2, 2, 3, 0, 1, 1, 0]
    """
    return int.from_bytes(hmac.digest(seed.encode(), f"{lane} {number}".encode(), "sha256")) % block


def unheard(seat: Seat) -> Seat:
    """Return the seat of the shadow that goes with *seat*."""
    return msgspec.structs.replace(seat, arm="shadow")


class Seating:
    """Seats the requests of one task in one worker, for as long as the state of its service stays as it is.

    *champion* is the policy in service: a stage that was begun against another one seats nobody.  *lane* is random, and
    no other seating's.
    """

    def __init__(self, champion: str, lane: str, canary: Stage | None = None, holdback: Stage | None = None) -> None:
        self._champion = champion
        self._lane = lane
        self._number = 0
        self._canary = _draws(canary, champion, lane)
        self._holdback = _draws(holdback, champion, lane)

    def take(self) -> Seated:
        """Seat the next request."""
        canary, holdback = self._canary, self._holdback
        if canary is None and holdback is None:
            return Seated(self._champion)
        arm: Arm = "champion"
        policy, shadow = self._champion, None
        if holdback is not None and holdback.has(self._number):
            arm, policy = "former", holdback.stage.policy
        elif canary is not None and canary.has(self._number):
            if canary.stage.mode == "shadow":
                shadow = canary.stage.policy
            else:
                arm, policy = "challenger", canary.stage.policy
        seat = Seat(
            arm=arm,
            lane=self._lane,
            number=self._number,
            canary=canary.stage.id if canary else "",
            holdback=holdback.stage.id if holdback else "",
        )
        self._number += 1
        return Seated(policy, seat, shadow)


def _draws(stage: Stage | None, champion: str, lane: str) -> _Draws | None:
    return _Draws(stage, lane) if stage is not None and stage.champion == champion else None


class _Draws:
    """A stage's positions in one lane; asked for growing numbers, it draws once a block."""

    def __init__(self, stage: Stage, lane: str) -> None:
        self.stage = stage
        self._lane = lane
        self._block = stage.block
        self._end = 0  # of the block that was drawn last
        self._drawn = -1

    def has(self, number: int) -> bool:
        """Whether request *number* gets the stage's policy."""
        if number >= self._end:
            block = number // self._block
            self._end = (block + 1) * self._block
            self._drawn = block * self._block + position(self.stage.seed, self._lane, block, self._block)
        return number == self._drawn
