"""The terminal: what a person reads while a run goes on."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from report_runs import RUNS, opening, poisoned, promoted
from rich.console import Console

from gainful.loop.events import Baseline, ErrorGroup, Event, Example, Progress, Proposed
from gainful.report.html import render
from gainful.report.terminal import Terminal

every_run = pytest.mark.parametrize("name", RUNS)


class Clock:
    """A clock that a test moves by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(events: Sequence[Event], width: int = 80, colours: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=colours, color_system="standard" if colours else None)
    with Terminal(console) as terminal:
        for event in events:
            terminal.show(event)
    return file.getvalue()


def flat(name: str) -> str:
    return " ".join(shown(RUNS[name]).split())


def test_the_power_statement_comes_before_anything_is_spent() -> None:
    text = flat("promoted")

    assert "With this hold-out of 260 cases, gains below 11.9 points cannot be certified." in text
    assert text.index("cannot be certified") < text.index("120 calls")


@pytest.mark.parametrize("width", [60, 80, 96, 200])
@every_run
def test_no_line_is_wider_than_the_terminal_or_than_reads_well(name: str, width: int) -> None:
    longest = max(shown(RUNS[name], width).splitlines(), key=len)

    assert len(longest) <= min(width, 96), longest


@pytest.mark.slow
@every_run
def test_a_run_cut_short_anywhere_is_shown_up_to_there(name: str) -> None:
    whole = shown(RUNS[name])

    for length in range(len(RUNS[name])):
        assert whole.startswith(shown(RUNS[name][:length]))


def test_the_baseline_shows_its_interval_and_an_example_of_each_group() -> None:
    text = flat("promoted")

    assert "It passes 1 % (0–5)" in text
    assert "97 not JSON 81 % of the cases asked Find the area of a triangle" in text
    assert "18 wrong function 15 % of the cases asked What is the greatest" in text


def test_every_candidate_is_shown_with_its_change_and_its_fate() -> None:
    lines = [line.split() for line in shown(RUNS["promoted"], width=96).splitlines()]

    raced = [(line[0], line[-3:]) for line in lines if line and line[-1] in ("stays", "out")]
    assert "c3   strategy     constrained arguments; take 5 samples" in shown(RUNS["promoted"])
    assert raced[0] == ("c2", ["+56.7", "17–0", "stays"])
    assert raced[3] == ("c4", ["−3.3", "0–1", "out"])


def test_the_confirmation_is_shown_look_by_look() -> None:
    text = flat("promoted")

    assert "13 5 0 +38.5 – 99 % look on" in text
    assert "78 29 0 +37.2 28 100 % promote" in text


def test_an_e_process_shows_its_evidence_against_what_it_needs() -> None:
    assert "60 30 10 +19.0 96.5 78.6 90 % promote" in flat("graded")


def test_a_promotion_quotes_the_certified_bound_before_the_measured_mean() -> None:
    text = flat("promoted")

    assert "Certified: at least +21.4 points." in text
    assert text.index("Certified: at least +21.4") < text.index("the +37.2 points measured")


def test_a_failed_confirmation_certifies_nothing() -> None:
    text = flat("not promoted")

    assert "Not promoted: the policy in service stays." in text
    assert "Certified: no gain." in text
    assert "between −7.1 and +10.2 points" in text
    assert "at least" not in text


def test_a_run_without_confirmation_says_why_and_certifies_nothing() -> None:
    text = flat("unconfirmed")

    assert "The best candidate gains 1.7 points on dev" in text
    assert "nothing is certified" in text


def test_harm_is_shown_like_help_and_the_key_only_where_there_is_one() -> None:
    assert "−10.0 −7.5" in flat("promoted")
    assert "by key" in flat("promoted")
    assert "by key" not in flat("graded")


def test_the_end_says_what_was_spent_and_where_the_receipt_lies() -> None:
    text = flat("promoted")

    assert "in all 1,084 calls, 336,040 tokens, 7 min 35 s" in text
    assert "receipt receipts/20260914-3f2a71" in text


HOSTILE = "[bold]hi[/nope] \x1b[2J\x1b]0;owned\x07 \u202egnp.exe\r\nnext \ud800"


def test_foreign_text_cannot_command_the_terminal() -> None:
    example = Example(case="x", question=HOSTILE, answer=HOSTILE, feedback=HOSTILE)
    events = []
    for event in promoted():
        if isinstance(event, Baseline):
            groups = (ErrorGroup(group=HOSTILE, count=3, examples=(example,)),)
            event = Baseline(policy=event.policy, score=event.score, groups=groups, usage=event.usage)
        events.append(event)

    text = shown(events)

    assert "[bold]hi[/nope]" in text
    assert not set("\x1b\x07\r\u202e\ud800") & set(text)


@every_run
def test_hostile_text_in_every_field_stays_text(name: str) -> None:
    text = shown([poisoned(event) for event in RUNS[name]], width=96)

    assert "<script>" in text
    assert not set("\x1b\u202e\x00") & set(text)


def test_colours_stay_away_where_the_user_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    assert "\x1b[32m" not in shown(RUNS["promoted"], colours=True)
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b[32m" in shown(RUNS["promoted"], colours=True)


def test_a_label_used_again_in_a_later_round_names_the_later_candidate() -> None:
    events = opening()
    for event in promoted():
        if isinstance(event, Proposed) and event.round == 2:
            events.append(Proposed(round=2, label="c" + str(int(event.label[1:]) - 4), proposal=event.proposal))
        elif isinstance(event, Proposed):
            events.append(event)

    assert shown(events).count("c1   ") == 2


def steps(console: Console, clock: Clock, seconds: float, total: int = 100) -> None:
    with Terminal(console) as terminal:
        for done in range(total + 1):
            terminal.progress(Progress(step="baseline on dev", done=done, total=total))
            clock.now += seconds


def test_a_log_gets_a_line_for_each_tenth_of_a_slow_step() -> None:
    clock, file = Clock(), io.StringIO()
    steps(Console(file=file, width=80, get_time=clock), clock, seconds=2)

    lines = file.getvalue().splitlines()

    assert len(lines) == 10
    assert lines[0] == "  baseline on dev: 10 of 100, 3 min left"
    assert lines[-1] == "  baseline on dev: 100 of 100"


def test_a_log_gets_no_more_than_a_line_in_ten_seconds() -> None:
    clock, file = Clock(), io.StringIO()
    steps(Console(file=file, width=80, get_time=clock), clock, seconds=0.3)

    assert len(file.getvalue().splitlines()) == 2


def test_a_terminal_shows_one_bar_with_the_time_left_and_leaves_none_behind() -> None:
    clock, file = Clock(), io.StringIO()
    console = Console(file=file, width=80, get_time=clock, force_terminal=True)
    with Terminal(console) as terminal:
        for done in (0, 10, 20, 30):
            terminal.progress(Progress(step="race, step 1", done=done, total=100))
            clock.now += 10
        terminal.progress(Progress(step="race, step 2", done=1, total=50))
        seen = file.getvalue()
        terminal.show(RUNS["promoted"][1])

    assert "race, step 1" in seen
    assert "race, step 2" in seen
    assert file.getvalue().count("\x1b[?25l") == file.getvalue().count("\x1b[?25h")  # cursor hidden, shown again
    assert file.getvalue().rstrip("\r\n").endswith("\x1b[2K")  # the last thing done is to wipe the bar's line


def test_the_cursor_comes_back_when_the_run_is_interrupted() -> None:
    file = io.StringIO()
    terminal = Terminal(Console(file=file, force_terminal=True))

    with pytest.raises(KeyboardInterrupt), terminal:  # noqa: PT012 - the two lines are the case
        terminal.progress(Progress(step="race", done=1, total=50))
        raise KeyboardInterrupt

    assert file.getvalue().rindex("\x1b[?25h") > file.getvalue().rindex("\x1b[?25l")


def test_an_adapter_stands_beside_its_controls() -> None:
    text = flat("trained")

    assert "120 dev cases (2 copies of cases were dropped), judged by" in text
    assert "Is it knowledge? c9 and its controls, on 40 dev cases" in text
    for words in (
        "trained on others' replies",
        "best constant",
        "12 % (4–27)",
        "+12.5 points are form",
        "Broke what worked: 25 %",
    ):
        assert words in text


def test_what_a_challenger_breaks_on_held_out_cases_is_a_rate_with_its_interval() -> None:
    said = "of 47 held-out cases that the policy in service got right."

    assert said in flat("not promoted")
    assert said in " ".join(render(RUNS["not promoted"], "Report", None).split())
    assert "that the policy in service got right" not in flat("promoted")  # which got none right
