"""The run as it happens, in the terminal: every record in plain words, and one progress bar with time left.

Guarantees: reads records, decides nothing; shows each record when it comes and keeps only the proposals, so that
later lines can name them; text that a model wrote is cleaned and never read as markup; readable at 80 columns, on
light and dark, with ``NO_COLOR`` (``rich`` honours it) and in a log file, where progress is a plain line now and then.

Leaves to others: what is worth recording (the loop), the page to keep (:mod:`gainful.report.html`).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from gainful.learners.teaching import Taught
from gainful.loop.events import (
    Baseline,
    Controls,
    Decided,
    ErrorGroup,
    Event,
    Finished,
    Head,
    Looked,
    Opened,
    Power,
    Progress,
    Proposed,
    Rung,
    Started,
    Unconfirmed,
    Untrained,
)
from gainful.report import training, words
from gainful.report.progress import Bar

WIDTH = 96  # columns; longer lines are hard to read
INDENT = 2


class Terminal:
    """Shows one run on *console*; a context manager, so that the bar is gone however the run ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = min(console.width, WIDTH)
        self._bar = Bar(console)
        self._proposals: dict[str, Proposed] = {}
        self._trainings: list[Taught] = []
        self._round = 0
        self._opened: Opened | None = None
        self._looks: list[Looked] = []
        self._decided: Decided | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def progress(self, progress: Progress) -> None:
        """Move the bar; it goes when its step is done or another step begins."""
        self._bar.move(progress)

    def show(self, event: Event) -> None:
        """Print one record."""
        match event:
            case Started():
                self._started(event)
            case Power():
                self._power(event)
            case Baseline():
                self._baseline(event)
            case Taught():
                self._taught(event)
            case Untrained():
                self._untrained(event)
            case Proposed():
                self._proposed(event)
            case Rung():
                self._rung(event)
            case Head():
                self._head(event)
            case Controls():
                self._controls(event)
            case Unconfirmed():
                self._unconfirmed(event)
            case Opened():
                self._confirmation(event)
            case Looked():
                self._looked(event)
            case Decided():
                self._decision(event)
            case Finished():
                self._finished(event)

    # --- before ---------------------------------------------------------------------------------------

    def _started(self, event: Started) -> None:
        self._title("Gainful: a model improves itself, and the gain is proved")
        budget = (
            "no limit" if event.budget_calls is None else f"at most {words.count(event.budget_calls, 'model call')}"
        )
        held_out = words.count(event.holdout, "held-out case")
        self._facts(
            ("task", event.task),
            ("model", event.model),
            (
                "learns on",
                f"{words.count(event.dev, 'dev case')}{words.copies(event.copies)}, judged by "
                f"{', '.join(event.learn_checks)}",
            ),
            ("proved on", f"{held_out}, sealed until then, judged by {', '.join(event.proof_checks)}"),
            ("may spend", budget),
            ("run", f"{event.run}, seed {event.seed}"),
        )
        if event.obstacle:
            self._line(f"This run can only explore: {event.obstacle}", style="bold yellow")

    def _power(self, event: Power) -> None:
        self._title("What can be proved, before anything is spent")
        self._line(words.certifiable(event), style="bold")
        found = "" if event.certifiable is None else "A gain of that size is found 9 times in 10. "
        self._line(
            f"{found}The risk of promoting a policy that is no better is held under {words.chance(event.level)} "
            f"(confirmation {event.rank} on this hold-out)."
        )
        if event.cases_for:
            needed = ", ".join(f"+{gain.lstrip('+')} points {cases:,}" for gain, cases in event.cases_for.items())
            self._line(f"Cases it takes to certify: {needed}.", style="dim")

    def _baseline(self, event: Baseline) -> None:
        self._title(f"Where it starts: the policy in service, on {words.count(event.score.n, 'dev case')}")
        if event.score.n == 0:
            self._line("No check could judge any of its answers.")
            self._line(words.spent(event.usage), style="dim")
            return
        passes = Text.assemble("It passes ", (words.interval(event.score), "bold"), " of them")
        passes.append(
            f"; in brackets, where the true rate lies with {words.confidence(event.score.confidence)} confidence."
        )
        self._print(passes)
        self._line(words.spent(event.usage), style="dim")
        self._console.print()
        self._errors(event.groups, event.score.n)

    def _errors(self, groups: Sequence[ErrorGroup], n: int) -> None:
        if not groups:
            self._line("No errors found.")
            return
        self._line("Errors it found in its own answers, without an answer key:")
        for group in groups:
            heading = Text.assemble((f"{group.count:>6,}  ", "bold"), (words.clip(group.group, 40), "bold"))
            heading.append(f"  {words.percent(group.count / n)} of the cases" if n else "", style="dim")
            self._print(heading)
            for example in group.examples[:1]:
                self._quote("asked", example.question)
                self._quote("answered", example.answer)
                self._quote("check says", example.feedback)

    # --- the search -----------------------------------------------------------------------------------

    def _taught(self, event: Taught) -> None:
        self._title("A training of the model's own weights")
        self._line(training.heading(event), style="bold")
        self._facts(*training.sentences(event))
        self._trainings.append(event)

    def _untrained(self, event: Untrained) -> None:
        self._title("No weights are learned any more")
        self._facts(*training.ending(event))

    def _proposed(self, event: Proposed) -> None:
        if event.round != self._round:
            self._round = event.round
            self._title(f"Round {event.round}: what the learners suggest trying")
        self._proposals[event.label] = event
        line = Text.assemble(
            (f"{words.clip(event.label, 4):<5}", "bold"),
            (f"{words.clip(event.proposal.learner, 12):<13}", "cyan"),
            words.clip(event.proposal.change, 200),
        )
        self._print(line, hanging=18)

    def _rung(self, event: Rung) -> None:
        kept = sum(standing.kept for standing in event.standings)
        fate = f"{kept} of {len(event.standings)} go on" if len(event.standings) > 1 else ""
        self._console.print()
        self._line(
            f"Race, step {event.rung}: each on the same {words.count(event.n, 'case')}. {fate}".rstrip(), style="bold"
        )
        if event.rung == 1:
            self._line("gain: points against the current best.  won–lost: cases only one got right.", style="dim")
        table = self._table("", "learner", "change", ">passes", ">gain", ">won–lost", "")
        for standing in event.standings:
            proposed = self._proposals.get(standing.label)
            table.add_row(
                Text(words.clip(standing.label, 4), style="bold" if standing.kept else ""),
                Text(
                    words.clip(proposed.proposal.learner, 12) if proposed else "", style="cyan" if standing.kept else ""
                ),
                _short(proposed.proposal.change if proposed else ""),
                words.percent(standing.score),
                _gain(standing.gain),
                f"{standing.wins}–{standing.losses}",
                "stays" if standing.kept else "out",
                style="" if standing.kept else "dim",
            )
        self._print(table)

    def _head(self, event: Head) -> None:
        self._console.print()
        if event.label is None:
            self._line(f"Round {event.round} changes nothing: no candidate beat the current best.", style="bold")
            self._line(
                f"It passes {words.interval(event.score)} of the dev cases. {words.unlearned(event.errors)}".rstrip()
            )
            return
        self._line(f"New best: {event.label}, from the {event.learner} learner.", style="bold")
        self._line(
            f"It passes {words.interval(event.score)} of the dev cases: {words.points(event.gain)} on the one before, "
            f"{words.points(event.gain_over_champion)} on the policy in service. "
            f"{words.unlearned(event.errors)} Not proved yet: it was chosen on these very cases."
        )

    def _controls(self, event: Controls) -> None:
        """Print what the candidate and its controls say to dev, and what looks like learning and is none."""
        self._title(
            f"Is it knowledge? {words.clip(event.label, 4)} and its controls, on {words.count(event.n, 'dev case')}"
        )
        table = self._table("", ">strict", ">lenient", ">length", ">copied")
        for row in training.comparison(event, self._trainings):
            table.add_row(
                Text(words.clean(row.name)), row.strict, row.lenient or "–", row.characters or "–", row.copied or "–"
            )
        self._print(table)
        self._line("strict: the reply is the right answer.  lenient: it holds it, or ends with it.", style="dim")
        self._line("length: characters a reply.  copied: wrong answers that are those of a demo.", style="dim")
        for said in (*training.flags(event), words.unlearned(event.errors)):
            if said:
                self._line(said)

    # --- the proof ------------------------------------------------------------------------------------

    def _unconfirmed(self, event: Unconfirmed) -> None:
        self._title("No confirmation")
        self._line(words.sentence(event.reason))

    def _confirmation(self, event: Opened) -> None:
        self._opened = event
        self._looks = []
        self._title("The one confirmation, on cases no learner has seen")
        self._line(
            f"Registered before the first held-out call as {event.registration[:16]}. "
            f"{words.count(event.size, 'case')} at most, {words.count(len(event.looks), 'look')} fixed beforehand, "
            f"risk of a false promotion under {words.chance(event.level)}."
        )
        if event.margin:
            self._line(words.margin(event.margin))
        if event.test == "sign":
            self._line("won, lost: cases that only the challenger, only the champion got right.", style="dim")
            self._line("needed: wins that promote.  chance: of getting there, seen kindly.", style="dim")
        else:
            self._line("won, lost: cases that the challenger, the champion answered better.", style="dim")
            self._line("evidence: what a bet on the challenger, begun with 1, has grown to.", style="dim")
            self._line("needed: evidence that promotes.  chance: of getting there, seen kindly.", style="dim")
        evidence = "" if event.test == "sign" else f"{'evidence':>10}"
        heading = f"{'cases':>7}{'won':>7}{'lost':>7}{'gain':>8}{evidence}{'needed':>9}{'chance':>9}"
        self._console.print()
        self._print(Text(heading, style="dim"))

    def _looked(self, event: Looked) -> None:
        self._looks.append(event)
        graded = self._opened is not None and self._opened.test == "e-process"
        needed = "–" if event.boundary is None else f"{event.boundary:,.1f}" if graded else f"{event.boundary:,.0f}"
        line = Text(f"{event.n:>7,}{event.wins:>7,}{event.losses:>7,}")
        line.append(f"{words.gain(event.mean_difference):>8}", style=_colour(event.mean_difference))
        line.append(f"{event.statistic:>10,.1f}" if graded else "")
        line.append(f"{needed:>9}{words.percent(event.conditional_power):>9}  ")
        said = {"promote": ("promote", "bold green"), "continue": ("look on", "dim"), "stop": ("stop", "bold yellow")}
        line.append(*said[event.decision])
        self._print(line)

    def _decision(self, event: Decided) -> None:
        self._decided = event
        self._console.print()
        if event.promoted:
            self._line("Promoted: better on cases it had never seen.", style="bold green")
        else:
            self._line("Not promoted: the policy in service stays.", style="bold yellow")
        self._line(words.sentence(event.reason))

    # --- the end --------------------------------------------------------------------------------------

    def _finished(self, event: Finished) -> None:
        self._bar.close()
        if event.contributions:
            self._contributions(event)
        self._title("Before and after")
        if self._decided is not None:
            self._before_after(self._decided)
        else:
            self._line("Nothing was tested on held-out cases, so nothing is certified.")
        self._console.print()
        self._facts(
            ("searching", words.spent(event.search_usage)),
            ("confirming", words.spent(event.confirm_usage)),
            ("in all", words.spent(event.search_usage + event.confirm_usage)),
            ("in service", f"policy {event.champion[:12]}, {'new' if event.promoted else 'unchanged'}"),
            *([("receipt", event.receipt)] if event.receipt else []),
        )

    def _contributions(self, event: Finished) -> None:
        self._title("What each idea was worth on dev, harm included")
        by_key = any(contribution.true_gain is not None for contribution in event.contributions)
        table = self._table("", "learner", "change", ">by checks", *([">by key"] if by_key else []), "")
        for row in event.contributions:
            true_gain = [Text("–", style="dim") if row.true_gain is None else _gain(row.true_gain)] if by_key else []
            table.add_row(
                Text(words.clip(row.label, 4)),
                Text(words.clip(row.learner, 12), style="cyan"),
                _short(row.change),
                _gain(row.gain),
                *true_gain,
                "used" if row.taken else "",
            )
        self._print(table)
        note = "Points against the policy each was tried on."
        if by_key:
            note += " The key was read after the search; no learner saw it."
        self._line(note, style="dim")

    def _before_after(self, event: Decided) -> None:
        table = self._table(f"{words.count(event.n, 'held-out case')}", ">before", ">after", ">change")
        table.add_row(
            Text("passes", style="bold"),
            words.interval(event.before),
            Text(words.interval(event.after), style="bold"),
            _gain(event.difference.mean),
        )
        after = {group.group: group.count for group in event.after_groups}
        before = {group.group: group.count for group in event.before_groups}
        for group in dict.fromkeys([*before, *after]):
            change = after.get(group, 0) - before.get(group, 0)
            sign = "+" if change > 0 else words.MINUS if change < 0 else ""
            table.add_row(
                Text(words.clip(group, 30)),
                f"{before.get(group, 0):,}",
                f"{after.get(group, 0):,}",
                f"{sign}{abs(change):,}",
            )
        self._print(table)
        if self._looks and self._opened is not None and self._opened.test == "sign":
            said = words.broken(event.before, self._looks[-1].losses)
            if said:
                self._line(said, style="dim")
        self._console.print()
        low = event.difference.low
        if event.promoted:
            self._line(f"Certified: at least {words.points(low)}.", style="bold green")
            self._line(
                f"Quote this one; the {words.points(event.difference.mean)} measured may be lucky. "
                f"The bound holds with {words.confidence(event.difference.confidence)} confidence, "
                "whenever the test stopped."
            )
        else:
            self._line("Certified: no gain.", style="bold yellow")
            self._line(f"The true difference lies between {words.gain(low)} and {words.points(event.difference.high)}.")

    # --- lines ----------------------------------------------------------------------------------------

    def _title(self, text: str) -> None:
        self._console.print()
        self._console.print(Rule(Text(text, style="bold"), align="left", style="dim"), width=self._width)

    def _print(self, shown: Text | Table, hanging: int = 0) -> None:
        """Print indented; a text's lines after the first stand under its character *hanging*."""
        if not isinstance(shown, Text):
            self._console.print(Padding(shown, (0, 0, 0, INDENT), expand=False), width=self._width)
            return
        first, rest = shown.divide([hanging]) if hanging else (Text(), shown)
        for number, line in enumerate(rest.wrap(self._console, self._width - INDENT - hanging, tab_size=1)):
            line.rstrip()
            head = first if number == 0 else Text(" " * hanging)
            self._console.print(Text(" " * INDENT) + head + line, width=self._width)

    def _line(self, text: str, style: str = "") -> None:
        self._print(Text(words.clean(text), style=style))

    def _quote(self, label: str, text: str) -> None:
        line = Text(f"{label:>18}  ", style="dim")
        line.append(words.clip(text, 2 * (self._width - INDENT - 20)), style="" if label != "check says" else "italic")
        self._print(line, hanging=20)

    def _facts(self, *facts: tuple[str, str]) -> None:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", justify="right")
        grid.add_column(overflow="fold")
        for label, value in facts:
            grid.add_row(label, Text(words.clean(value)))
        self._print(grid)

    def _table(self, *headings: str) -> Table:
        """A table without lines; a heading that begins with ``>`` stands to the right, "change" gives way."""
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        for heading in headings:
            table.add_column(
                heading.lstrip(">"),
                justify="right" if heading.startswith(">") else "left",
                no_wrap=heading != "change",  # what may wrap is what gives way when the room is short
            )
        return table


def _short(text: str) -> Text:
    """One line in a table, cut where the column ends; the whole text was shown when it was proposed."""
    return Text(words.clip(text, WIDTH), no_wrap=True, overflow="ellipsis")


def _gain(fraction: float) -> Text:
    return Text(words.gain(fraction), style=_colour(fraction))


def _colour(fraction: float) -> str:
    return "green" if fraction > 0 else "red" if fraction < 0 else ""
