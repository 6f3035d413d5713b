"""Write the HTML page of a run that a store holds."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gainful.core import ReceiptError, StoreError
from gainful.loop.events import Finished
from gainful.loop.journal import read_events
from gainful.loop.replay import replay
from gainful.loop.session import beside
from gainful.loop.verify import Unreadable, verify
from gainful.report.html import ReceiptSummary, render
from gainful.store import open_for_reading


def write_page(place: Path | str, run: str, output: Path | None) -> Path:
    """Write the page of the run whose name begins with *run*; return its path.

    *output* is a file; without it the page goes to ``reports`` beside the store, as ``session.beside`` says.  Raises
    ``StoreError`` for an unknown run and for a page that cannot be written.
    """
    with open_for_reading(place) as store:
        found = store.find_run(run)
        events = read_events(store, found.run)
    path = output or beside(place) / "reports" / f"{found.run}.html"
    receipt = next((e.receipt for e in events if isinstance(e, Finished) and e.receipt), None)
    page = render(events, f"{found.task}, run {found.run}", _summary(Path(receipt)) if receipt else None)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{str(path)!r} cannot be written: {error.strerror}; choose another --output") from error
    return path


def _summary(folder: Path) -> ReceiptSummary:
    """Say what the page says of the receipt; one that has gone or was changed does not hold."""
    try:
        claim = msgspec.json.decode((folder / "claim.json").read_bytes())
        report = verify(folder, None, replay)
    except (OSError, msgspec.MsgspecError, Unreadable, ReceiptError):
        return ReceiptSummary(path=str(folder), not_claimed=(), holds=False)
    return ReceiptSummary(
        path=str(folder), not_claimed=tuple(claim["not_claimed"]), key=report.key_id, holds=report.holds
    )
