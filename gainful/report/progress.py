"""One progress bar with the time left; a plain line now and then where there is no terminal.

Guarantees: one bar at a time; nothing of it stays on the screen when its step ends; in a log file, at most one line
in ten seconds and in each tenth of a step.  The clock is the console's, so that tests need not wait.
"""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Live
from rich.text import Text

from gainful.loop.events import Progress
from gainful.report import words

QUIET_S = 10.0  # seconds between two plain lines: a log of an hour stays short
TENTHS = 10  # and no more than this many lines for one step


class TimeLeft(ProgressColumn):
    """How long the step still takes at the speed it has gone so far."""

    def render(self, task: Task) -> Text:
        """Return the time left, in words."""
        left = task.time_remaining
        return Text("" if left is None or task.finished else f"{words.duration(float(round(left)))} left", style="dim")


class Bar:
    """The progress of the running step on *console*."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._step: str | None = None
        self._since = 0.0
        self._said_at = 0.0
        self._said_tenth = 0

    def move(self, progress: Progress) -> None:
        """Show how far the step has come; a new step begins a new bar, a finished one ends it."""
        if progress.step != self._step:
            self._begin(progress)
        if self._live is not None:
            self._live.update(self._live.task_ids[0], completed=progress.done, total=progress.total)
        elif self._is_due(progress):
            self._say(progress)
        if progress.done >= progress.total:
            self.close()

    def close(self) -> None:
        """End the bar, whatever its step has come to."""
        if self._live is not None:
            self._live.stop()
        self._live = None
        self._step = None

    def _begin(self, progress: Progress) -> None:
        self.close()
        self._step = progress.step
        self._since = self._said_at = self._console.get_time()
        self._said_tenth = 0
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                TextColumn("  {task.description}", markup=False),
                BarColumn(bar_width=24, style="dim", complete_style="cyan", finished_style="cyan", pulse_style="dim"),
                MofNCompleteColumn(),
                TimeLeft(),
                console=self._console,
                transient=True,
            )
            self._live.add_task(words.clip(progress.step, 30), total=progress.total)
            self._live.start()

    def _is_due(self, progress: Progress) -> bool:
        quiet_s = self._console.get_time() - self._said_at
        return quiet_s >= QUIET_S and self._tenth(progress) > self._said_tenth

    def _tenth(self, progress: Progress) -> int:
        return TENTHS * progress.done // max(progress.total, 1)

    def _say(self, progress: Progress) -> None:
        now = self._console.get_time()
        self._said_at, self._said_tenth = now, self._tenth(progress)
        left = (now - self._since) / progress.done * (progress.total - progress.done)
        line = f"  {words.clip(progress.step, 40)}: {progress.done:,} of {progress.total:,}"
        self._console.print(Text(line + (f", {words.duration(float(round(left)))} left" if left else "")))
