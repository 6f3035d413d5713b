"""Log lines: what they say, and above all what they never say."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from gainful.proxy.log import MOST_CHARACTERS, log_to

SECRET = "gk-2718281828 and what ails the patient"
log = logging.getLogger("gainful.proxy")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream that gets the log while the test runs."""
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    found = io.StringIO()
    log_to(found)
    yield found
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("gainful").setLevel(logging.NOTSET)
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_with_its_time_level_sentence_and_fields(stream: io.StringIO) -> None:
    log.warning("failed open", extra={"task": "mood", "kind": "CheckError", "seconds": 0.5, "models": ["a", "b"]})

    (line,) = lines(stream)
    assert line.pop("at").endswith("+00:00")
    assert line == {
        "level": "warning",
        "event": "failed open",
        "task": "mood",
        "kind": "CheckError",
        "seconds": 0.5,
        "models": ["a", "b"],
    }


def test_of_an_error_only_its_kind_is_written(stream: io.StringIO) -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        log.exception("request failed")

    (line,) = lines(stream)
    assert line["kind"] == "ValueError"
    assert "patient" not in stream.getvalue()
    assert "Traceback" not in stream.getvalue()


def test_what_is_filled_into_a_sentence_and_fields_of_other_names_are_not_written(stream: io.StringIO) -> None:
    log.error("a call of %s failed", SECRET, extra={"prompt": SECRET, "task": "mood", "status": ValueError(SECRET)})

    (line,) = lines(stream)
    assert line["event"] == "a call of %s failed"
    assert (line["task"], line["status"]) == ("mood", "ValueError")
    assert "patient" not in stream.getvalue()


def test_of_what_libraries_say_only_who_spoke_is_written(stream: io.StringIO) -> None:
    logging.getLogger("aiohttp.server").error("Error handling request %r", SECRET)
    logging.getLogger("asyncio").info(SECRET)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(SECRET, stacklevel=1)

    assert [line["event"] for line in lines(stream)] == [
        "the library aiohttp reported something",
        "the library py reported something",
    ]
    assert "patient" not in stream.getvalue()


def test_a_task_that_failed_unseen_says_no_more_than_that(stream: io.StringIO) -> None:
    async def fail() -> None:
        raise ValueError(SECRET)

    async def forget() -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        del task

    asyncio.run(forget())

    (line,) = lines(stream)
    assert (line["event"], line["kind"]) == ("the library asyncio reported something", "ValueError")
    assert "patient" not in stream.getvalue()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_that_nobody_caught_is_a_line() -> None:
    script = f"""
import sys, threading
from gainful.proxy.log import log_to

def fail():
    raise ValueError({SECRET!r})

class Late:
    def __del__(self):
        fail()

log_to(sys.stderr)
thread = threading.Thread(target=fail)
thread.start()
thread.join()
late = Late()
del late
fail()
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    found = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [(line["event"], line["kind"]) for line in found] == 3 * [("an error was not caught", "ValueError")]
    assert ran.returncode == 1


def test_a_line_stays_a_line_and_short(stream: io.StringIO) -> None:
    log.info("champion", extra={"task": 'one\ntwo" ' + "x" * 10_000, "model": "\ud800"})

    (line,) = lines(stream)
    assert line["task"] == ('one\ntwo" ' + "x" * 10_000)[:MOST_CHARACTERS]
    assert line["model"] == "?"


def test_a_line_that_cannot_be__without_a_stack_trace() -> None:
    script = """
import logging, sys
from gainful.proxy.log import log_to

log_to(open("/dev/full", "w"))
logging.getLogger("gainful").error("a full disk")
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert "a full disk" not in ran.stderr
    assert "Logging error" not in ran.stderr
