"""The page: honest headlines, everything escaped, readable in both schemes, and nothing fetched."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files

import msgspec
import pytest
from report_runs import ARGUMENTS, CHAMPION, EVIL, ONE_DEMO, RECEIPT, RUNS, graded, not_promoted, poisoned, promoted

from gainful.core import Adapter, canonical
from gainful.loop.events import Baseline, Event, Finished, Looked, Proposed, Rung, Untrained
from gainful.report.html import ReceiptSummary, diff, render

every_run = pytest.mark.parametrize("name", RUNS)


class Page(HTMLParser):
    """The tags, with their attributes, and the text of a page; raises when a tag is closed that was not open."""

    VOID = ("meta", "link")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page(events: list[Event], receipt: ReceiptSummary | None = RECEIPT) -> Page:
    return Page(render(events, "Report", receipt))


def test_a_promotion_is_headlined_with_its_certified_bound() -> None:
    text = page(promoted()).text

    assert "From 0 % to 37 %, on cases no learner had seen" in text
    assert text.index("at least +21.4 points") < text.index("Measured: +37.2 points")


def test_a_failed_confirmation_is_headlined_as_honestly() -> None:
    text = page(not_promoted()).text

    assert "No gain could be certified; the policy in service stays" in text
    assert "between −7.1 and +10.2 points" in text
    assert "Claimed: nothing." in text
    assert "at least" not in text.split("Said before")[0]


def test_a_run_without_confirmation_says_that_nothing_was_proved() -> None:
    text = page(RUNS["unconfirmed"], None).text

    assert "Nothing was put to the proof" in text
    assert "no held-out case was opened" in text
    assert "There is no receipt: nothing was confirmed" in text
    assert "gainful verify" not in text


@pytest.mark.slow
@every_run
def test_a_run_cut_short_anywhere_has_a_page_that_claims_no_more_than_it_knows(name: str) -> None:
    for length in range(len(RUNS[name])):
        text = page(RUNS[name][:length], None).text

        if not any(type(event).__name__ in ("Decided", "Unconfirmed") for event in RUNS[name][:length]):
            assert "This run has not come to its end" in text


@every_run
def test_the_same_records_give_the_same_bytes(name: str) -> None:
    again = [msgspec.json.decode(canonical(event), type=Event) for event in RUNS[name]]

    assert render(again, "Report", RECEIPT) == render(RUNS[name], "Report", RECEIPT)


@every_run
def test_the_page_can_neither_fetch_nor_run_anything(name: str) -> None:
    shown = page(RUNS[name])

    policy = next(a["content"] for tag, a in shown.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert not {"script", "iframe", "object", "embed", "img", "form", "base"} & {tag for tag, _ in shown.tags}
    links = [value for _, attrs in shown.tags for key, value in attrs.items() if key in ("href", "src", "action")]
    assert all(link is not None and link.startswith(("#", "data:,")) for link in links)
    assert not re.search(r"@import|url\(", render(RUNS[name], "Report", None))


@every_run
def test_links_lead_somewhere_headings_descend_and_plots_have_words(name: str) -> None:
    shown = page(RUNS[name])
    ids = [attrs["id"] for _, attrs in shown.tags if "id" in attrs]
    levels = [int(tag[1]) for tag, _ in shown.tags if re.fullmatch(r"h[1-6]", tag)]

    assert len(ids) == len(set(ids))
    assert {attrs["href"] for tag, attrs in shown.tags if tag == "a"} <= {f"#{name}" for name in ids}
    assert {attrs["aria-labelledby"] for _, attrs in shown.tags if "aria-labelledby" in attrs} <= set(ids)
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(attrs.get("aria-label") for _, attrs in shown.tags if attrs.get("role") == "img")


@every_run
def test_everything_plotted_lies_within_its_area(name: str) -> None:
    html = render(RUNS[name], "Report", None)
    for place in re.findall(r"(?:left|top): (-?[\d.]+)%", html):
        assert 0 <= float(place) <= 100
    for path in re.findall(r' d="M([-\d. L]+)"', html):
        assert all(-0.01 <= float(number) <= 100.01 for number in path.replace("L", " ").split())


@every_run
def test_hostile_text_in_every_field_is_only_text(name: str) -> None:
    clean = page(RUNS[name])
    events = [poisoned(event) for event in RUNS[name]]

    html = render(events, "Report" + EVIL + "\ud800", poisoned(RECEIPT))
    shown = Page(html)

    assert {tag for tag, _ in shown.tags} <= {tag for tag, _ in clean.tags} | {"title"}
    assert not any(key.startswith("on") for _, attrs in shown.tags for key in attrs)
    assert "<script>alert(1)</script>" in shown.text
    assert any(attrs.get("class") == "diff" for _, attrs in shown.tags)
    assert "{{7*7}}" in shown.text
    assert not set("\u202e\x00\ud800") & set(html)
    html.encode()


def test_the_commands_quote_a_path_that_a_shell_would_split() -> None:
    receipt = msgspec.structs.replace(RECEIPT, path="my receipts/$(x)")

    assert "gainful verify 'my receipts/$(x)'" in page(promoted(), receipt).text


@pytest.mark.parametrize(("holds", "words"), [(True, "The receipt held"), (False, "did not hold"), (None, None)])
def test_the_page_says_whether_the_receipt_was_found_to_hold(holds: bool | None, words: str | None) -> None:
    text = page(promoted(), msgspec.structs.replace(RECEIPT, holds=holds)).text

    assert "Nothing is claimed about single cases." in text
    assert ("when this page was written" in text) == (words is not None)
    assert words is None or words in text


def test_the_diff_shows_what_differs_and_folds_demos() -> None:
    lines = diff(CHAMPION, ONE_DEMO)

    added = [line.text for line in lines if line.kind == "add"]
    removed = [line.text for line in lines if line.kind == "remove"]
    assert removed == ['-  "demos": [],', '-    "shape": "free",']
    assert '+    "shape": "arguments",' in added
    assert not any("messages" in line for line in added)
    assert "messages" in page(promoted()).text


def test_equal_policies_have_no_diff() -> None:
    assert diff(ARGUMENTS, ARGUMENTS) == []


def test_every_candidate_is_listed_with_its_fate() -> None:
    text = page(promoted()).text

    assert "1 c1 format constrain the reply to the JSON schema of a call 120 52 % +50.8 61, 0 dropped after" in text
    assert "2 c7 strategy take 5 samples and keep the answer most agree on 40 48 % −10.0 1, 5 dropped after" in text
    assert text.count("became the best policy") == 4  # twice in the table, twice under the plots


def test_a_label_used_in_two_rounds_keeps_its_two_fates() -> None:
    events: list[Event] = []
    for event in promoted():
        if isinstance(event, Proposed) and event.label == "c7":
            event = msgspec.structs.replace(event, label="c3")
        if isinstance(event, Rung) and event.round == 2:
            renamed = (msgspec.structs.replace(s, label="c3") if s.label == "c7" else s for s in event.standings)
            event = msgspec.structs.replace(event, standings=tuple(renamed))
        events.append(event)

    text = page(events).text

    assert "1 c3 strategy constrained arguments; take 5 samples and keep the answer most agree on 30 43 %" in text
    assert "2 c3 strategy take 5 samples and keep the answer most agree on 40 48 %" in text


def test_harm_stands_beside_help_and_the_key_only_where_there_is_one() -> None:
    assert "take 5 samples and keep the answer most agree on 120 −10.0 −7.5 not used" in page(promoted()).text
    assert "by answer key" not in page(graded()).text


def test_one_unknown_true_gain_is_unknown_not_zero() -> None:
    *events, last = promoted()
    assert isinstance(last, Finished)
    rows = (msgspec.structs.replace(last.contributions[0], true_gain=None), *last.contributions[1:])

    assert "120 +56.7 unknown used" in page([*events, msgspec.structs.replace(last, contributions=rows)]).text


def test_money_is_unknown_rather_than_free_where_no_price_is_known() -> None:
    text = page(promoted()).text

    assert "in all 1,084 292,680 43,360 7 min 35 s unknown" in text


def test_an_e_process_shows_its_evidence() -> None:
    text = page(graded()).text

    assert "60 30 10 +19.0 96.5 78.6 90 % promote" in text
    assert "better by more than 1.0 points" in text


def test_examples_of_errors_are_shown_before_and_after() -> None:
    text = page(promoted()).text

    assert text.index("To find the area of a triangle") < text.index("'height' is 100, which does not occur")


def test_evidence_that_has_vanished_is_drawn_at_the_floor() -> None:
    events = [msgspec.structs.replace(e, statistic=0.0) if isinstance(e, Looked) else e for e in graded()]

    html = render(events, "Report", None)

    assert all(0 <= float(place) <= 100 for place in re.findall(r"top: (-?[\d.]+)%", html))


def test_a_run_that_can_only_explore_says_why() -> None:
    started = msgspec.structs.replace(promoted()[0], obstacle="no check is trusted")

    assert "can only explore No check is trusted." in page([started]).text


def test_a_race_of_forty_stays_within_its_plot() -> None:
    events: list[Event] = []
    for event in promoted():
        if isinstance(event, Rung) and event.rung == 1:
            more = (msgspec.structs.replace(event.standings[-1], label=f"d{k}") for k in range(40))
            event = msgspec.structs.replace(event, standings=(*event.standings, *more))
        events.append(event)

    html = render(events, "Report", None)

    assert all(float(place) <= 100 for place in re.findall(r"top: ([\d.]+)%", html))


def test_a_run_without_an_error_has_no_bars() -> None:
    events = [
        msgspec.structs.replace(event, groups=()) if isinstance(event, Baseline) else event for event in promoted()[:3]
    ]

    assert not any(attrs.get("class") == "bars" for _, attrs in page(events).tags)


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def schemes() -> Iterator[dict[str, str]]:
    css = (files("gainful.report") / "assets" / "report.css").read_text()
    for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL):
        yield dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


def test_every_colour_of_text_has_the_contrast_of_wcag_aa_in_every_scheme() -> None:
    found = list(schemes())

    assert len(found) == 3  # light, dark, print
    for scheme in found:
        for text, ground in itertools.product(("ink", "soft", "accent", "good", "bad"), ("paper", "panel")):
            assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground, scheme)
        assert contrast(scheme["good"], scheme["good-panel"]) >= 4.5
        assert contrast(scheme["bad"], scheme["bad-panel"]) >= 4.5
        assert contrast(scheme["before"], scheme["paper"]) >= 3.0  # graphics: success criterion 1.4.11


def test_an_adapter_is_told_in_words() -> None:
    adapter = Adapter("1a2b3c4d" * 8, "base", rank=16, alpha=32.0)
    lines = diff(CHAMPION, msgspec.structs.replace(CHAMPION, adapter=adapter))

    assert [line.text for line in lines if line.kind == "add"] == ['+  "adapter": "adapter 1a2b3c4d, rank 16",']


def test_a_training_shows_what_it_learned_from_what_it_took_and_its_loss() -> None:
    shown = page(RUNS["trained"])

    assert "1,600 answers to 200 practice cases; 312 passed the checks, 141 cases at least once" in shown.text
    assert "260 by rejection (one answer makes up 55 % of them, 3 repeat a demo)" in shown.text
    assert "40 steps until the held-back part got worse, loss 3 to 0.075" in shown.text
    assert "agree on 98.5 % of 200 prompts" in shown.text
    assert "May not race: it answers every prompt as its base does." in shown.text
    assert shown.text.count("After 40 steps: loss 0.075.") == 0  # in words for who cannot see the plot, not in the text
    assert render(RUNS["trained"], "Report", None).count("After 40 steps: loss 0.075.") == 3


def test_an_adapter_stands_beside_its_controls_and_what_looks_like_learning_is_named() -> None:
    shown = " ".join(page(RUNS["trained"]).text.split())

    assert "41 right answers left out, for they repeat the question" in shown
    assert "7 practice cases left out, too much like a case that is raced or held out" in shown
    assert "Control: the training of adapter 5e5e5e5e again, with the replies of other cases" in shown
    row = shown[shown.index("without these weights") :]
    assert row.index("15 %") < row.index("30 %") < row.index("c9, with them") < row.index("50 %")
    assert row.index("trained on others' replies") < row.index("12 % (4–27)") < row.index("14 % (4–24)")
    assert "Of +35.0 points strictly, +12.5 points are form: read leniently it gains +22.5 points." in shown
    assert "It answers “5” to 72 % of questions like" in shown
    assert "It gives a demo's answer to 5 cases where that is wrong." in shown
    assert "Broke what worked: 25 % (5–57) of 12 cases that an earlier policy got right." in shown
    assert "Repeated errors: 25 % (1–81) of 4 corrected before." in shown


def test_a_training_that_failed_is_said_with_why_and_what_goes_on() -> None:
    start = promoted()

    shown = page(
        [*start[:3], Untrained(reason="training needs about 3.1 GB of memory and 1.0 GB are free"), *start[3:]]
    )

    assert "training ended Training needs about 3.1 GB of memory and 1.0 GB are free." in shown.text
    assert "A run with another seed, or other limits, trains again." in shown.text
