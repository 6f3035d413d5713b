"""The page in a real Chromium: nothing on its console, nothing on its wire, everything there to be read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_runs import EVIL, RECEIPT, RUNS, poisoned
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from gainful.report.html import render

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="chromium or chromedriver is absent; install both to open the page"
    ),
]


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
        "--window-size=1100,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(executable_path=DRIVER))
    yield driver
    driver.quit()


def opened(browser: Chrome, path: Path, html: str) -> str:
    """Open the page from its file; return the text that can be seen, its folded parts unfolded."""
    path.write_text(html, encoding="utf-8")
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(path.as_uri())
    for summary in browser.find_elements(By.TAG_NAME, "summary"):
        summary.send_keys("\n")  # by keyboard, as some readers do
    return browser.find_element(By.TAG_NAME, "body").text.replace("\u00a0", " ")


def requested(browser: Chrome) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@pytest.mark.parametrize("name", RUNS)
def test_the_page_opens_from_its_file_and_asks_the_network_for_nothing(
    browser: Chrome, tmp_path: Path, name: str
) -> None:
    page = tmp_path / "report.html"

    opened(browser, page, render(RUNS[name], "Report", RECEIPT))

    assert browser.get_log("browser") == []
    assert [url for url in requested(browser) if not url.startswith("data:")] == [page.as_uri()]


def test_all_that_matters_can_be_seen(browser: Chrome, tmp_path: Path) -> None:
    text = opened(browser, tmp_path / "report.html", render(RUNS["promoted"], "Report", RECEIPT))

    for words in (
        "From 0 % to 37 %, on cases no learner had seen",
        "at least +21.4 points",
        "gains below 11.9 points cannot be certified",
        '"shape": "arguments"',
        "ungrounded value",
        "'height' is 100, which does not occur in the request",
        "Every candidate and its fate",
        "gainful verify receipts/20260914-3f2a71",
        "Nothing is claimed about single cases.",
    ):
        assert words in text


def test_hostile_text_is_seen_and_does_nothing(browser: Chrome, tmp_path: Path) -> None:
    events = [poisoned(event) for event in RUNS["promoted"]]

    text = opened(browser, tmp_path / "report.html", render(events, "Report" + EVIL, poisoned(RECEIPT)))

    assert "<script>alert(1)</script>" in text
    assert browser.get_log("browser") == []
    assert len([url for url in requested(browser) if not url.startswith("data:")]) == 1


@pytest.mark.parametrize("width", [390, 800, 1400])
def test_the_page_never_scrolls_sideways(browser: Chrome, tmp_path: Path, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    opened(browser, tmp_path / "report.html", render(RUNS["promoted"], "Report", RECEIPT))

    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_the_page_follows_the_colours_of_the_reader(browser: Chrome, tmp_path: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        opened(browser, tmp_path / "report.html", render(RUNS["promoted"], "Report", RECEIPT))
        grounds.append(browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color"))

    assert grounds == ["rgba(255, 255, 255, 1)", "rgba(20, 23, 26, 1)"]
