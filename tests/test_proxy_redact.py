"""What is stored of prompts and replies, and what never is."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gainful.core import JsonObject, ServeError, Verdict, digest
from gainful.proxy.redact import INSTEAD, LONGEST_MATCH, PIECE, Keeping

CARD = r"\b\d{4}(?:[ -]?\d{4}){3}\b"
MAIL = r"[\w.+-]{1,64}@[\w.-]{1,255}"
NUMBER = "4111 1111 1111 1111"
REQUEST: JsonObject = {
    "model": "gainful/mood",
    "messages": [
        {"role": "user", "content": f"My card is {NUMBER}, my mail ada@example.org."},
        {"role": "user", "content": [{"type": "text", "text": NUMBER}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "pay", "arguments": f'{{"card": "{NUMBER}"}}'}}]},
    ],
    "metadata": {NUMBER: 1},
    "temperature": 0.5,
    "stream": None,
}


def test_in_full_a_body_is_stored_as_it_is() -> None:
    assert Keeping("full").kept(REQUEST) == REQUEST


def test_every_text_that_matches_is_redacted_however_deep() -> None:
    kept = Keeping("full", [CARD, MAIL]).kept(REQUEST)

    assert kept is not None
    assert kept["messages"][0]["content"] == f"My card is {INSTEAD}, my mail {INSTEAD}"
    assert kept["messages"][1]["content"][0]["text"] == INSTEAD
    assert kept["messages"][2]["tool_calls"][0]["function"]["arguments"] == f'{{"card": "{INSTEAD}"}}'
    assert kept["metadata"] == {INSTEAD: 1}
    assert (kept["temperature"], kept["stream"]) == (0.5, None)
    assert "4111" not in str(kept)
    assert "4111" in str(REQUEST)


def test_a_digest_stands_for_the_body_once_it_was_redacted() -> None:
    other: JsonObject = {"messages": [{"role": "user", "content": "4222 2222 2222 2222"}]}
    keeping = Keeping("hash", [CARD])

    assert keeping.kept(other) == {"sha256": digest({"messages": [{"role": "user", "content": INSTEAD}]})}
    assert Keeping("hash").kept(other) == {"sha256": digest(other)}


@pytest.mark.parametrize("strange", [float("nan"), "\ud800"])
def test_what_has_no_digest_is_not_stored(strange: Any) -> None:
    assert Keeping("hash").kept({"value": strange}) is None


def test_nothing_is_stored_where_nothing_may_be() -> None:
    keeping = Keeping("none")

    assert (keeping.kept(REQUEST), keeping.kept_value("yes")) == (None, None)


@pytest.mark.parametrize("storing", ["none", "hash", "full"])
def test_an_unknown_value_stays_unknown(storing: Any) -> None:
    assert Keeping(storing).kept_value(None) is None


def test_the_words_of_checks_are_stored_only_where_prompts_are() -> None:
    verdicts = (Verdict("grounding", False, 0.0, f"The value {NUMBER} does not occur.", "ungrounded value"),)

    assert Keeping("full", [CARD]).kept_verdicts(verdicts)[0].feedback == f"The value {INSTEAD} does not occur."
    for storing in ("hash", "none"):
        (kept,) = Keeping(storing).kept_verdicts(verdicts)  # type: ignore[arg-type]
        assert kept == msgspec.structs.replace(verdicts[0], feedback="")


def test_matches_that_overlap_become_one() -> None:
    assert Keeping("full", ["abcd", "cdef", "x*"]).kept_text("-abcdef-xx-") == f"-{INSTEAD}-{INSTEAD}-"
    assert Keeping("full", ["abcdef", "bc"]).kept_text("-abcdef-") == f"-{INSTEAD}-"


@settings(max_examples=25)  # of 100,000 characters each
@given(
    st.sampled_from([PIECE, PIECE - LONGEST_MATCH]),
    st.integers(1, 3),
    st.integers(-1, LONGEST_MATCH),
    st.integers(1, LONGEST_MATCH - 2),
)
def test_a_match_is_found_wherever_a_piece_ends(step: int, pieces: int, before: int, length: int) -> None:
    place = step * pieces - before
    text = "." * place + "<" + "x" * length + ">" + "." * PIECE

    assert Keeping("full", ["<x{1,998}>"]).kept_text(text) == "." * place + INSTEAD + "." * PIECE


@pytest.mark.slow
def test_a_long_text_takes_time_in_proportion() -> None:
    keeping = Keeping("full", [CARD, MAIL])
    began_s = time.process_time()
    keeping.kept_text("a" * 2_000_000)

    assert time.process_time() - began_s < 2.0 * 2_000_000 / PIECE * 0.1


def test_a_pattern_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(ServeError, match=r"redact has '\(', which is no regular expression"):
        Keeping("full", [CARD, "("])


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [r"(a+)+$", r"\S+@\S+", r"(\d+-?)+x", r"(?:\w|\d)+!", r".*=.*;", r"(a|a)*b"])
def test_a_pattern_that_backtracks_is_refused_by_name_and_soon(pattern: str) -> None:
    began_s = time.process_time()
    with pytest.raises(ServeError, match=r"redact has .* whose time grows too fast"):
        Keeping("none", [pattern])

    assert time.process_time() - began_s < 20.0


@pytest.mark.parametrize(
    "pattern",
    [CARD, MAIL, r"sk-[A-Za-z0-9]{20,64}", r"\b\d{3}-\d{2}-\d{4}\b", r"(?i)password:\s?\S{1,99}", r"\d{16}", "Ada|Bob"],
)
def test_patterns_as_operators_write_them_are_taken(pattern: str) -> None:
    Keeping("full", [pattern])
