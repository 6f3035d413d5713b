"""The geometry of the page's plots: where lines, ticks and labels lie, in per cent of the plot's area.

Guarantees: numbers only, no markup, so that the template alone writes (and escapes) what a browser reads; labels
that would lie on one another are moved apart.  Per cent, because the page stretches lines to any width while text
keeps its size: a plot reads on a phone as on a desk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gainful.learners.teaching import Taught
from gainful.loop.events import ErrorGroup
from gainful.report import words
from gainful.report.story import Confirmation, Round

LABEL_HEIGHT = 8.0  # per cent of the area that one line of text takes: 20 px of 250


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what stands there."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A line through *points* (x from the left, y from the top), its look, and the label at its end."""

    points: tuple[tuple[float, float], ...]
    look: Literal["kept", "dropped", "seen", "boundary"]
    label: str
    label_y: float

    @property
    def path(self) -> str:
        """The SVG path through the points."""
        return "M" + " L".join(f"{x:.2f} {y:.2f}" for x, y in self.points)

    @property
    def end(self) -> tuple[float, float]:
        """The last point."""
        return self.points[-1]


@dataclass(frozen=True)
class Plot:
    """A plot of lines."""

    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    summary: str


@dataclass(frozen=True)
class Bar:
    """One group of errors before and after: counts, and the lengths of their bars in per cent."""

    group: str
    before: int
    after: int
    before_length: float
    after_length: float


@dataclass(frozen=True)
class Scale:
    """Maps values from *low* to *high* onto 0..100."""

    low: float
    high: float

    def at(self, value: float) -> float:
        return 100 * (value - self.low) / ((self.high - self.low) or 1.0)


def race(round: Round) -> Plot | None:
    """Draw the gain over the head of each candidate, step by step; ``None`` before the first step is over."""
    if not round.rungs:
        return None
    steps = [rung.n for rung in round.rungs]
    gains = [0.0] + [100 * standing.gain for rung in round.rungs for standing in rung.standings]
    x, marks = Scale(0, max(steps)), _nice(min(gains), max(gains))
    y = Scale(min(marks[0], min(gains)), max(marks[-1], max(gains)))
    lines = []
    for label in dict.fromkeys(standing.label for rung in round.rungs for standing in rung.standings):
        raced = [(rung.n, s) for rung in round.rungs for s in rung.standings if s.label == label]
        points = ((0.0, 100 - y.at(0.0)), *((x.at(n), 100 - y.at(100 * s.gain)) for n, s in raced))
        kept = raced[-1][1].kept
        lines.append(Line(points, "kept" if kept else "dropped", label, points[-1][1]))
    best = max(round.rungs[-1].standings, key=lambda s: s.gain, default=None)
    return Plot(
        x_label="cases answered",
        y_label="points against the best policy so far",
        x_ticks=tuple(Tick(x.at(n), f"{n:,}") for n in dict.fromkeys([0, *steps])),
        y_ticks=tuple(Tick(100 - y.at(mark), _mark(mark)) for mark in marks),
        lines=_apart(lines),
        summary=f"{words.count(len(lines), 'candidate')} raced over {words.count(len(steps), 'step')}."
        + (f" At the end {best.label} leads with {words.points(best.gain)}." if best else ""),
    )


def confirmation(shown: Confirmation) -> Plot | None:
    """Draw the test's statistic against what promotes; ``None`` before the first look.

    Wins on a plain scale for the sign test; evidence on a logarithmic one, from 1, for the e-process.
    """
    if not shown.looks:
        return None
    opened, last = shown.opened, shown.looks[-1]
    graded = opened.test == "e-process"
    what = "evidence" if graded else "wins"
    needed = [(look.n, look.boundary) for look in shown.looks if look.boundary is not None]
    values = [look.statistic for look in shown.looks] + [boundary for _, boundary in needed]
    marks = _powers([1.0, *values]) if graded else _nice(0.0, max([*values, 1.0]))
    floor = marks[0]
    x, y = Scale(0, max(opened.size, last.n)), Scale(_height(floor, graded), _height(marks[-1], graded))

    def point(n: float, value: float) -> tuple[float, float]:
        return x.at(n), 100 - y.at(_height(max(value, floor), graded))

    seen = (point(0, 1.0 if graded else 0.0), *(point(look.n, look.statistic) for look in shown.looks))
    lines = [Line(seen, "seen", what, seen[-1][1])]
    if needed:
        bound = tuple(point(n, boundary) for n, boundary in needed)
        lines.append(Line(bound, "boundary", "needed", bound[-1][1]))
    return Plot(
        x_label="held-out cases",
        y_label="evidence, each line ten times the one below" if graded else "cases only the challenger got right",
        x_ticks=tuple(Tick(x.at(n), f"{n:,}") for n in _sparse(opened.looks, opened.size)),
        y_ticks=tuple(Tick(point(0, mark)[1], f"{mark:,.10g}") for mark in marks),
        lines=_apart(lines),
        summary=f"After {words.count(last.n, 'held-out case')}, {what}: {last.statistic:,.4g}; "
        + (f"{last.boundary:,.4g} promotes." if last.boundary is not None else "no number could promote yet."),
    )


def training(taught: Taught) -> Plot | None:
    """Draw the loss step by step, and the mean reward where there is one; ``None`` before the first step."""
    steps = taught.trained.steps if taught.trained is not None else ()
    series = {
        "loss": [(step.step, step.loss) for step in steps if step.loss is not None],
        "reward": [(step.step, step.reward) for step in steps if step.reward is not None],
    }
    values = [value for points in series.values() for _, value in points]
    if not values:
        return None
    x, marks = Scale(0, steps[-1].steps), _nice(min(0.0, *values), max(values))
    y = Scale(marks[0], marks[-1])
    lines = []
    for name, points in series.items():
        if points:
            drawn = tuple((x.at(n), 100 - y.at(value)) for n, value in points)
            lines.append(Line(drawn, "seen" if name == "loss" else "kept", name, drawn[-1][1]))
    last = ", ".join(f"{name} {points[-1][1]:.3g}" for name, points in series.items() if points)
    return Plot(
        x_label="steps",
        y_label=" and ".join(name for name, points in series.items() if points),
        x_ticks=tuple(Tick(x.at(n), f"{n:,}") for n in dict.fromkeys([0, steps[-1].steps])),
        y_ticks=tuple(Tick(100 - y.at(mark), f"{mark:,.10g}") for mark in marks),
        lines=_apart(lines),
        summary=f"After {words.count(steps[-1].step, 'step')}: {last}.",
    )


def bars(before: Sequence[ErrorGroup], n_before: int, after: Sequence[ErrorGroup], n_after: int) -> tuple[Bar, ...]:
    """Draw each group of errors before and after, as shares of the cases, the largest share before first."""
    old = {group.group: group.count for group in before}
    new = {group.group: group.count for group in after}
    return tuple(
        Bar(
            group=group,
            before=old.get(group, 0),
            after=new.get(group, 0),
            before_length=100 * old.get(group, 0) / (n_before or 1),
            after_length=100 * new.get(group, 0) / (n_after or 1),
        )
        for group in sorted({**old, **new}, key=lambda group: (-old.get(group, 0), -new.get(group, 0), group))
    )


def _height(value: float, logarithmic: bool) -> float:
    return math.log10(value) if logarithmic else value


def _powers(values: Sequence[float]) -> list[float]:
    """Return the powers of ten around *values*; evidence below a thousandth is as good as none."""
    low, high = math.log10(max(min(values), 1e-3)), math.log10(max(*values, 10.0))
    return [10.0**power for power in range(math.floor(low), math.ceil(high) + 1)]


def _nice(low: float, high: float) -> list[float]:
    """Return at most seven round marks that reach from *low* to *high*."""
    span = (high - low) or 1.0
    rough = 10.0 ** math.floor(math.log10(span / 5))
    step = next(rough * factor for factor in (1, 2, 5, 10) if span / (rough * factor) <= 5)
    return [step * k for k in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _mark(value: float) -> str:
    text = f"{abs(value):,.10g}"
    return "0" if text == "0" else ("+" if value > 0 else words.MINUS) + text


def _sparse(looks: Sequence[int], size: int) -> list[int]:
    """Return looks for the axis, far enough apart that their labels do not touch on a phone."""
    kept = [0]
    for look in looks:
        if look - kept[-1] >= size * 0.18:
            kept.append(look)
    return kept


def _apart(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Move labels that end at the same place apart, top to bottom; those left without room go (the table has them)."""
    placed: list[Line] = []
    for line in sorted(lines, key=lambda line: (line.end[0], line.end[1])):
        above = placed[-1] if placed and abs(placed[-1].end[0] - line.end[0]) < 12 else None
        y = line.end[1] if above is None else max(line.end[1], above.label_y + LABEL_HEIGHT)
        placed.append(replace(line, label_y=y, label=line.label if y <= 100 else ""))
    return tuple(placed)
