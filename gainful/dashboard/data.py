"""One picture of a task, read from its store: all that the page shows, as JSON.

Guarantees: nothing is written; exchanges are never scanned, so that a million of them cost no more than the hours in
which they came (tallies, ledgers and lists of bounded length are read); what is unknown is ``None``; every text from
traffic is clipped and holds no control character.  Without ``with_text`` no word of a prompt or a reply is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from gainful.answers.rule import METHODS, TRIALS, Standing, standing
from gainful.core import Exchange, Trial
from gainful.dashboard.errors import Groups, Share, in_proof, in_traffic, probed, share
from gainful.dashboard.moves import InService, Move, moves, policies
from gainful.dashboard.quality import Quality, Rate, quality, rate
from gainful.dashboard.spend import Spend, spend
from gainful.dashboard.trying import Staged, Trying, held, learning, staged, trying
from gainful.loop.calibrate import Audit
from gainful.loop.journal import read_events
from gainful.report.story import Story, tell
from gainful.store import Banked, Installed, LedgerEntry, Run, Store, Tally
from gainful.tasks.own import shared_name
from gainful.watch.promotions import Ended, Promotion, ended, promotions
from gainful.watch.repairs import rates
from gainful.watch.service import replay, service_key
from gainful.watch.standings import Held, Learns
from gainful.watch.status import ErrorBudget, error_budget

MOST_CASES = 1000  # of the bank, the newest
MOST_RUNS = 50  # whose records are read, the newest
RATES_S = 60.0  # between two counts of what came back: they read every attempt of two policies, and change rarely
ALPHA = 0.05  # of a lifetime before its first confirmation, where a run does not say


class Method(msgspec.Struct, frozen=True):
    """How one method of correction stands (``answers.rule.Standing``); open: the server may correct by it."""

    method: str
    is_open: bool
    why: str
    n: int
    fixed: int
    broken: int
    kept_right: int
    kept_wrong: int
    net: float | None
    low: float | None
    extra_calls: float
    extra_tokens: float


class Champion(msgspec.Struct, frozen=True):
    """What is in service, how well it has done as champion so far, and whether a person holds it still."""

    policy: str | None
    former: str | None
    score: Rate
    is_paused: bool
    is_pinned: bool


class Snapshot(msgspec.Struct, frozen=True):
    """One picture of a task; ``at`` is when it was taken, in Unix seconds.

    ``repeated`` and ``forgotten`` are those of ``watch.repairs``, ``probed`` is about the model behind the name.
    ``held`` is the evidence against the champion, ``learning`` says why nothing is tried.
    """

    task: str
    at: float
    champion: Champion
    quality: Quality
    moves: tuple[Move, ...]
    staged: tuple[Staged, ...]
    held: Held | None
    learning: Learns | None
    trying: Trying | None
    errors: tuple[Groups, ...]
    repeated: Share
    forgotten: Share
    probed: Share
    labels: int
    cases: int
    correction_model: str
    corrections: tuple[Method, ...]
    budget: ErrorBudget | None
    spend: Spend
    policies: tuple[InService, ...]
    promotions: tuple[Promotion, ...]
    has_text: bool


class Reader:
    """Takes pictures of one task, and remembers of finished runs what it read of them.

    ``methods`` are those that the task is served with; a store alone does not say, and then the evidence decides.
    """

    def __init__(self, task: str, *, methods: Sequence[str] = METHODS, with_text: bool = True) -> None:
        self._task = task
        self._methods = tuple(methods)
        self._with_text = with_text
        self._done: dict[str, Story] = {}
        self._rates: tuple[Share, Share] = (share(0, 0), share(0, 0))
        self._rates_of: tuple[str | None, str | None, float] = (None, None, 0.0)
        self._promotions: tuple[Promotion, ...] = ()
        self._promotions_of: tuple[int, int, int] | None = None

    def read(self, store: Store, now: float) -> Snapshot:
        """Return the picture of the task as of *now*; raises ``StoreError`` where the store cannot be read."""
        task = self._task
        ledger, history, tallies = store.ledger(service_key(task)), store.champion_history(task), store.tallies(task)
        cases = store.banked(task, "dev", limit=MOST_CASES, only_free=False)
        all_runs = [run for run in store.runs() if run.task == task]
        over, runs = ended(store, task, all_runs), all_runs[-MOST_RUNS:]
        self._done = {run.run: self._done[run.run] for run in runs if run.run in self._done}
        stories = [self._story(store, run) for run in runs]
        service = replay(ledger)
        champion = store.champion(task)
        newest = next(iter(store.exchanges(task, limit=1)), None)
        came_back, lost = self._kept(store, champion, service.former, now)
        with_text = self._with_text and _is_stored_in_full(newest)
        model = _model(newest, stories)
        ours = [tally for tally in tallies if tally.arm == "champion" and tally.policy == champion]
        return Snapshot(
            task=task,
            at=now,
            champion=Champion(champion, service.former, rate(ours), service.is_paused, service.is_pinned),
            quality=quality(tallies),
            moves=tuple(moves(task, ledger, history, tallies)),
            staged=tuple(staged(store, task, tallies, with_text=with_text)),
            held=held(store, task, champion, service.holdback),
            learning=learning(store, task),
            trying=trying(runs[-1], stories[-1]) if runs else None,
            errors=tuple(_errors(cases, stories, champion, with_text=with_text)),
            repeated=came_back,
            forgotten=lost,
            probed=probed(store.probes(task, limit=MOST_CASES)),
            labels=sum(case.signal == "feedback" for case in cases),
            cases=len(cases),
            correction_model=model,
            corrections=self._corrections(store, model, champion or "") if model else (),
            budget=_budget(store, runs, stories),
            spend=spend(tallies, [one.usage for one in over], now),
            policies=tuple(policies(history, ledger, tallies, store.policy, _receipts(over), with_text=with_text)),
            promotions=self._promoted(store, ledger, history, over, tallies),
            has_text=with_text,
        )

    def _kept(self, store: Store, champion: str | None, former: str | None, now: float) -> tuple[Share, Share]:
        """Return the repeat-error rate and the forgetting rate, counted now and then."""
        counted = self._rates_of
        if champion is not None and (counted[:2] != (champion, former) or not 0.0 <= now - counted[2] < RATES_S):
            found = rates(store, self._task, champion, former)
            self._rates = (
                share(found.repeated.n, found.repeated.errors),
                share(found.forgotten.n, found.forgotten.errors),
            )
            self._rates_of = (champion, former, now)
        return self._rates

    def _promoted(
        self,
        store: Store,
        ledger: Sequence[LedgerEntry],
        history: Sequence[Installed],
        over: Sequence[Ended],
        tallies: Sequence[Tally],
    ) -> tuple[Promotion, ...]:
        """Return what promotions took, looked up anew where anything has moved: it reads attempts."""
        of = len(ledger), len(history), len(over)
        if of != self._promotions_of:
            self._promotions = tuple(promotions(store, self._task, ledger, over, tallies))
            self._promotions_of = of
        return self._promotions

    def _corrections(self, store: Store, model: str, champion: str) -> tuple[Method, ...]:
        trials = [
            trial for trial in store.trials(shared_name(self._task), model, limit=TRIALS) if trial.policy == champion
        ]
        standings = tuple(_standing(method, tuple(t for t in trials if t.method == method)) for method in METHODS)
        audit = Audit(self._task, model, champion, None, standings, self._methods)
        return tuple(_method(audit, one) for one in standings)

    def _story(self, store: Store, run: Run) -> Story:
        if run.run in self._done:
            return self._done[run.run]
        story = tell(read_events(store, run.run))
        if run.finished:
            self._done[run.run] = story
        return story


def snapshot(store: Store, task: str, now: float, *, with_text: bool = True) -> Snapshot:
    """Return one picture of *task* as of *now*; whoever takes many keeps a ``Reader``."""
    return Reader(task, with_text=with_text).read(store, now)


def _is_stored_in_full(newest: Exchange | None) -> bool:
    """Whether prompts are stored now, by the newest exchange: what was kept before that changed is not shown."""
    return newest is None or (newest.request is not None and "messages" in newest.request)


def _model(newest: Exchange | None, stories: Sequence[Story]) -> str:
    """Return the model that answers the task: that of the newest exchange, else of the newest run."""
    if newest is not None:
        return newest.model
    return next((story.started.model for story in reversed(stories) if story.started), "")


def _errors(
    cases: Sequence[Banked], stories: Sequence[Story], champion: str | None, *, with_text: bool
) -> list[Groups]:
    found = [in_traffic(cases, champion, with_text=with_text)] if cases else []
    for story in reversed(stories):
        for shown in story.confirmations:
            decided = shown.decided
            if decided is not None and decided.promoted and shown.opened.challenger == champion:
                return [*found, in_proof(decided.n, decided.before_groups, decided.after_groups, with_text=with_text)]
    return found


@lru_cache(maxsize=64)
def _standing(method: str, trials: tuple[Trial, ...]) -> Standing:
    """Judge a method, once for the same trials: a full window takes tens of milliseconds."""
    return standing(method, trials)


def _method(audit: Audit, found: Standing) -> Method:
    shown = {name: getattr(found, name) for name in Method.__struct_fields__}
    return Method(**shown | {"is_open": audit.is_open(found), "why": audit.why(found)})


def _budget(store: Store, runs: Sequence[Run], stories: Sequence[Story]) -> ErrorBudget | None:
    """Return the error budget of the newest run's hold-out; ``None`` where no run says which it was."""
    for run, story in zip(reversed(runs), reversed(stories), strict=True):
        if story.started is not None and story.started.holdout_digest:
            alpha = float(run.spec.get("settings", {}).get("alpha", ALPHA))
            return error_budget(store.ledger(story.started.holdout_digest), alpha)
    return None


def _receipts(over: Sequence[Ended]) -> dict[str, str]:
    """Return the receipt of each policy that a run promoted."""
    return {one.end.champion: one.end.receipt for one in over if one.end.promoted and one.end.receipt}
