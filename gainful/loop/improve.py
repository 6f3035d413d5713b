"""A run: find the model's errors, propose, race on dev, confirm once, promote or not.

Search is free and claims nothing.  Its head goes to one confirmation on held-out cases, which spends from the
lifetime budget and is the only thing that can promote.  Everything decided is written to the journal; a run that
was killed is run again and takes the same steps from the memo.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from gainful.core import AdapterNotFound, CalibrationError, Learner, Policy, Usage
from gainful.learners import LEARNERS
from gainful.learners.weights import Weights
from gainful.loop.board import Board
from gainful.loop.calibrate import Bench, refresh_detector
from gainful.loop.confirm import Plan, confirm
from gainful.loop.events import Finished, Unconfirmed
from gainful.loop.prospects import affordable, announce, too_dear, too_small
from gainful.loop.run import Run
from gainful.loop.search import Search
from gainful.loop.workshop import Workshop
from gainful.models.adapters import carry_receipt

log = logging.getLogger("gainful.loop")


async def improve(run: Run, learners: Sequence[Learner] = LEARNERS) -> Finished:
    """Run to the end and return its last record."""
    hopeless = announce(run)
    board = Board(run)
    workshop = Workshop(run, board)
    if run.settings.teaching is not None:
        learners = (*learners, Weights(workshop, run.settings.teaching))
    search = Search(run, board, learners)
    head = await search.run()
    for controls in search.controls():
        run.journal.write(controls)
    gain = board.paired(head, run.champion)
    spent = board.usage + workshop.usage
    most = affordable(run, head, spent.calls)
    obstacle = hopeless or too_small(run, head, gain) or too_dear(run, most)
    receipt, decided = None, None
    if obstacle:
        run.journal.write(Unconfirmed(reason=obstacle))
    else:
        goal = run.settings.cheaper
        decided, folder = await confirm(run, head, Plan(gain.mean, most, -goal.margin if goal else 0.0))
        receipt = str(folder)
        if decided.promoted:
            _carry_receipt(head, folder)
    promoted = decided is not None and decided.promoted
    finished = Finished(
        champion=head.id if promoted else run.champion.id,
        promoted=promoted,
        receipt=receipt,
        contributions=search.contributions(),
        search_usage=spent,
        confirm_usage=decided.usage if decided else Usage(),
    )
    run.journal.write(finished)
    if run.installs:
        _refresh_detector(run, board, head if promoted else run.champion)
    return finished


def _carry_receipt(policy: Policy, receipt: Path) -> None:
    """Let the model card of a policy's weights say what was certified of them."""
    if policy.adapter is None:
        return
    try:
        carry_receipt(policy.adapter, receipt)
    except AdapterNotFound as error:
        log.warning("%s", error)  # the run is decided; the receipt lies in its own place


def _refresh_detector(run: Run, board: Board, champion: Policy) -> None:
    """Fit P(wrong) of the champion's answers from its dev attempts, where their truth is known; no model is asked."""
    try:
        refresh_detector(run.store, Bench(run.task, champion, run.model), board.answered(champion), run.settings.seed)
    except CalibrationError:
        return  # no truth is known on dev, or scikit-learn is not there: nothing was promised
    except Exception as error:  # noqa: BLE001 - the run is decided and written; what breaks here must not undo it
        log.warning("the detector was not fitted again: %s", type(error).__name__)
