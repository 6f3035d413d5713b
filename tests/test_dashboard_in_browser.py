"""The dashboard in a real Chromium, on a real server: read, used by keyboard, changed under its reader's eyes."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from production_store import CHAMPION, EVIDENCE, HOURS, ONE_DEMO, START, TASK, Clock, lived
from report_runs import EVIL
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from serving import serving
from test_proxy_chat import echo, talk
from test_report_html import contrast

from gainful.dashboard.app import ASSETS
from gainful.dashboard.live import live_app
from gainful.models import ScriptedModel
from gainful.proxy.keys import make_key
from gainful.proxy.settings import Settings
from gainful.store import SQLiteStore
from gainful.watch.service import Helm

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

in_a_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="chromium or chromedriver is absent; install both to open the page"
    ),
]


class Loop:
    """An event loop in a thread, for servers that a browser in this process asks."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result(60)

    def serve(self, place: Path) -> str:
        server = TestServer(live_app(place), handler_cancellation=True)
        self.run(self.stack.enter_async_context(server))
        return str(server.make_url("/dashboard"))

    def close(self) -> None:
        self.run(self.stack.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    found.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(executable_path=DRIVER))
    yield driver
    driver.quit()


def opened(browser: Chrome, url: str, *, width: int = 1280) -> None:
    """Open the page and wait until it shows a picture."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(url)
    until(browser, "return document.querySelector('#headline').textContent !== ''")


def until(browser: Chrome, question: str) -> None:
    WebDriverWait(browser, 15, 0.05).until(lambda driver: driver.execute_script(question), question)


def unfolded(browser: Chrome) -> str:
    """Unfold everything, by keyboard; return the text that can be seen."""
    for summary in browser.find_elements(By.TAG_NAME, "summary"):
        summary.send_keys("\n")
    until(browser, "return [...document.querySelectorAll('details')].every((one) => one.children.length > 1)")
    return browser.find_element(By.TAG_NAME, "body").text


def requested(browser: Chrome) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def colour_scheme(browser: Chrome, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_of_text_has_the_contrast_of_wcag_aa(scheme: str) -> None:
    css = (ASSETS / "page.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6}|#fff);", block)) for block in css.split("@media", 2)[:2])
    colours = {name: code.replace("#fff", "#ffffff") if len(code) == 4 else code for name, code in light.items()}
    colours |= dark if scheme == "dark" else {}

    for text, ground in itertools.product(("ink", "soft", "accent", "good", "bad", "other"), ("paper", "panel")):
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["good"], colours["good-panel"]) >= 4.5
    assert contrast(colours["bad"], colours["bad-panel"]) >= 4.5
    assert contrast(colours["ink"], colours["warn-panel"]) >= 4.5
    for graphic in ("before", "accent", "other", "former", "good", "bad"):  # success criterion 1.4.11
        assert contrast(colours[graphic], colours["paper"]) >= 3.0, graphic


class TestInABrowser:
    pytestmark = in_a_browser

    def test_all_that_matters_is_there_and_nothing_comes_from_elsewhere(
        self, browser: Chrome, loop: Loop, tmp_path: Path
    ) -> None:
        lived(tmp_path / "store.db")
        url = loop.serve(tmp_path / "store.db")

        opened(browser, url)
        text = unfolded(browser)

        for words in (
            "calls: 62 % right since this policy came into service",
            "95 % confidence however often you look",
            "5 % canary",
            "15 promotes",
            "7.5 of 20",
            "48 comparisons in this stage, too few or undecided.",
            "What it would change",
            '"type": "refine"',
            "0.6 of 25",
            "1.3 of 10,000",
            "A challenger is on its way in.",
            "16,200 calls, $4.20",
            "46 calls, 12,000 tokens, $0.0050 per 1,000 requests",
            "19.7 hours",
            "1,105",
            "ungrounded value",
            "What is 2 + 2?",
            "10 % (1 % to 32 %), 2 of 20",
            "3.0 hours",
            "reask: 100 trials: 60 fixed, 0 broken",
            "0.52 % of 5 % is left",
            "25 % (5 % to 57 %), 3 of 12",
            "because of 20 new errors: not JSON",
            '"shape": "arguments"',
            "gainful verify receipts/20260914-3f2a71",
            f"in service; {CHAMPION.id[:12]} keeps 3 % of requests",
        ):
            assert words in text, words
        assert browser.get_log("browser") == []
        assert {asked.split("/dashboard")[0] for asked in requested(browser)} - {"data:,"} == {
            url.split("/dashboard")[0]
        }

    def test_a_change_in_the_store_is_on_the_page_within_seconds_and_read_aloud(
        self, browser: Chrome, loop: Loop, tmp_path: Path
    ) -> None:
        end = lived(tmp_path / "store.db")
        opened(browser, loop.serve(tmp_path / "store.db"))
        browser.find_element(By.CSS_SELECTOR, "#policies summary").send_keys("\n")

        with SQLiteStore(tmp_path / "store.db") as store:
            Helm(store, TASK, Clock(end)).roll_back("quality fell")

        until(browser, "return document.querySelector('#news').textContent.includes('rolled-back')")
        assert browser.find_element(By.ID, "news").get_attribute("aria-live") == "polite"
        assert "out: quality fell" in browser.find_element(By.ID, "moves").text
        assert "calls: 35 %" in browser.find_element(By.ID, "headline").text
        unfolded_before = "#policies details[data-key='diff 2']"
        assert browser.find_element(By.CSS_SELECTOR, unfolded_before).get_attribute("open")
        assert browser.get_log("browser") == []

    def test_evidence_on_a_shadow_is_on_the_page_as_it_comes_in(
        self, browser: Chrome, loop: Loop, tmp_path: Path
    ) -> None:
        with SQLiteStore(tmp_path / "store.db", clock=Clock(START)) as store:
            store.set_champion(TASK, CHAMPION, "baseline")
            store.put_policy(ONE_DEMO)
            state = Helm(store, TASK, Clock(START)).stage(ONE_DEMO.id, "shadow", 0.25, "5e" * 32, "9d" * 32)
        opened(browser, loop.serve(tmp_path / "store.db"))
        assert "Nothing has been compared yet." in browser.find_element(By.ID, "stages").text

        assert state.canary is not None
        said = {
            "stage": state.canary.id,
            "seen": 212,
            "evidence": EVIDENCE,
            "verdict": "hold",
            "why": "a guard is near",
        }
        with SQLiteStore(tmp_path / "store.db") as store:
            store.put_standing(TASK, "canary", START + 61.0, said)

        until(browser, "return document.querySelector('#stages').textContent.includes('184 of 20')")
        assert "a guard is near." in browser.find_element(By.ID, "stages").text
        assert browser.get_log("browser") == []

    def test_hostile_text_is_seen_and_does_nothing(self, browser: Chrome, loop: Loop, tmp_path: Path) -> None:
        lived(tmp_path / "store.db", words=EVIL)
        url = loop.serve(tmp_path / "store.db")

        opened(browser, url)
        text = unfolded(browser)

        assert "<script>alert(1)</script>" in text
        assert browser.get_log("browser") == []
        assert {asked.split("/dashboard")[0] for asked in requested(browser)} - {"data:,"} == {
            url.split("/dashboard")[0]
        }

    @pytest.mark.parametrize("width", [320, 800, 1600])
    def test_the_page_never_scrolls_sideways(self, browser: Chrome, loop: Loop, tmp_path: Path, width: int) -> None:
        lived(tmp_path / "store.db")

        opened(browser, loop.serve(tmp_path / "store.db"), width=width)
        unfolded(browser)

        assert browser.execute_script("return document.documentElement.scrollWidth") <= width

    def test_plots_follow_light_and_dark(self, browser: Chrome, loop: Loop, tmp_path: Path) -> None:
        lived(tmp_path / "store.db")
        pixels = (
            "const c = document.querySelector('#quality canvas');"
            "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].reduce((a, b) => a + b, 0)"
        )
        colour_scheme(browser, "light")
        opened(browser, loop.serve(tmp_path / "store.db"))
        light = browser.execute_script(pixels)

        colour_scheme(browser, "dark")
        until(browser, f"{pixels.replace('return ', 'return (')}) !== {light}")

        assert browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color") == (
            "rgba(20, 23, 26, 1)"
        )
        colour_scheme(browser, "light")

    def test_the_plot_can_be_read_by_keyboard_and_has_words_and_a_table(
        self, browser: Chrome, loop: Loop, tmp_path: Path
    ) -> None:
        lived(tmp_path / "store.db")
        opened(browser, loop.serve(tmp_path / "store.db"))
        browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
        skip = browser.switch_to.active_element
        assert skip.text == "Skip to the content"

        plot = browser.find_element(By.CSS_SELECTOR, "#quality .plot")
        plot.send_keys(Keys.ARROW_RIGHT * 3)

        assert "of" in browser.find_element(By.CSS_SELECTOR, "#quality .readout").text
        assert "the champion's average is 61." in (plot.get_attribute("aria-label") or "")
        assert plot.value_of_css_property("outline-style") == "solid"
        browser.find_element(By.CSS_SELECTOR, "#quality summary").send_keys("\n")
        until(browser, f"return document.querySelectorAll('#quality tbody tr').length === {HOURS}")

    def test_landmarks_and_headings_lead_through_the_page(self, browser: Chrome, loop: Loop, tmp_path: Path) -> None:
        lived(tmp_path / "store.db")
        opened(browser, loop.serve(tmp_path / "store.db"))

        levels = browser.execute_script(
            "return [...document.querySelectorAll('#page h1, #page h2, #page h3')].map((one) => +one.tagName[1])"
        )
        unnamed = browser.execute_script(
            "return [...document.querySelectorAll('[role=img], section, nav, select, input')].filter((one) => "
            "!one.getAttribute('aria-label') && !one.getAttribute('aria-labelledby') && !one.labels?.length).length"
        )

        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        assert unnamed == 0
        assert browser.execute_script("return document.querySelectorAll('header, main, footer, nav').length") == 4

    def test_nothing_moves_for_those_who_asked_for_that(self, browser: Chrome, loop: Loop, tmp_path: Path) -> None:
        lived(tmp_path / "store.db")
        reduced = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", reduced)

        opened(browser, loop.serve(tmp_path / "store.db"))

        assert browser.execute_script("return document.getAnimations().length") == 0
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    def test_a_store_that_vanishes_is_told_and_what_was_seen_stays(
        self, browser: Chrome, loop: Loop, tmp_path: Path
    ) -> None:
        place = tmp_path / "store.db"
        lived(place)
        opened(browser, loop.serve(place))

        place.rename(tmp_path / "aside.db")
        until(browser, "return !document.querySelector('#trouble').hidden")
        assert "there is no store at" in browser.find_element(By.ID, "trouble").text
        assert "62 % right" in browser.find_element(By.ID, "headline").text
        (tmp_path / "aside.db").rename(place)
        until(browser, "return document.querySelector('#trouble').hidden")

    def test_an_empty_store_has_a_page_that_says_so(self, browser: Chrome, loop: Loop, tmp_path: Path) -> None:
        with SQLiteStore(tmp_path / "store.db", clock=Clock(START)) as store:
            store.set_champion("new <b>task</b>", ONE_DEMO, "baseline")

        opened(browser, loop.serve(tmp_path / "store.db"), width=320)
        text = unfolded(browser)

        assert "new <b>task</b>: nothing is known yet" in text
        assert "No request has been counted yet" in text
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 320
        assert browser.get_log("browser") == []

    def test_with_keys_the_page_asks_for_one_and_keeps_it_for_the_tab(
        self, browser: Chrome, loop: Loop, tmp_path: Path
    ) -> None:
        secret, key = make_key("me", at=0.0)
        with SQLiteStore(tmp_path / "s") as store:
            store.put_key(key)
        proxy = serving(talk(), ScriptedModel(echo), tmp_path / "s", Settings(require_keys=True))
        url = loop.run(loop.stack.enter_async_context(proxy)).url + "/dashboard"

        browser.get(url)
        until(browser, "return !document.querySelector('#door').hidden")
        field = browser.switch_to.active_element
        field.send_keys("wrong", Keys.ENTER)
        until(browser, "return document.querySelector('#door-words').textContent !== ''")
        field.send_keys(secret, Keys.ENTER)
        until(browser, "return document.querySelector('#headline').textContent !== ''")

        assert "talk: nothing is known yet" in browser.find_element(By.ID, "headline").text
        opened(browser, url)  # the same tab is not asked again
        assert browser.execute_script("return [localStorage.length, sessionStorage.length, document.cookie]") == [
            0,
            1,
            "",
        ]
        assert secret not in " ".join(requested(browser))
