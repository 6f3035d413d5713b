"""Text cut into sentences, and JSON into its members, while it streams in."""

import json
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gainful.proxy.segments import Segmenter

Kind = Literal["text", "json"]


def segments(kind: Kind, *pieces: str) -> list[str]:
    segmenter = Segmenter(kind)
    found = [segment for piece in pieces for segment in segmenter.feed(piece)]
    return [*found, *segmenter.close()]


FENCE = "```python\nx = 1. \nprint('a. b')\n```\n"

SENTENCES = [
    ["Hello there. ", "How are you? ", "Fine! ", "Good"],
    ["No end at all"],
    ["One line\n", "another.\n", "\n\nA third. ", " Two spaces"],
    ["Pi is 3.14 and a is 1.5. ", "See example.com/a.b?c=d now. ", "v1.2.3"],
    ["Dr. Smith met J. R. Smith, e.g. at 5 p.m. in the U.S. on Jan. 5. ", "Then he left. "],
    ["He said \"Stop!\" ", "(She did.) ", "**Bold.** ", "`code.` ", "‘So…’ ", "end"],
    ["Wait... ", "What?! ", "Really?!? ", "Yes."],
    ["1. First item. ", "Still first.\n", "2. Second.\n", "The answer is 42. ", "Next"],
    ["今日は。", "元気？", "はい！", "「そう。」", "３．", "終"],
    ["你好。\n", "再见！ ", "好"],
    ["Look:\n", FENCE, "Done. ", "Ok"],
    ["Tildes:\n", "~~~ a`b\n```\n. \n~~~\n", "x"],
    ["Longer:\n", "````\n```\na. b\n`````  \n", "x"],
    ["- item\n", "  ```js\n  a. b\n  ```\n", "after. ", "x"],
    ["\n\n" + FENCE, "x"],
    ["Inline ```this. ", "that``` stays. ", "x"],
    ["```inline. ", "code``` at the start. ", "x\n"],
    ["Open:\n", "```\nnever. closed\nat all. \n"],
    ["Use. ", "```a b see. ", "D\n", "x"],
    ["He (e.g. Bo) left. ", "本当。。。", "x"],
    ["See Dr.\n", 'He said "no."! ', "x"],
    ["a\r\n", "two.\r", "\nc"],
    ["foo . ", "bar"],
    [" . ", "x"],
]  # fmt: skip


@pytest.mark.parametrize("expected", SENTENCES, ids=lambda expected: expected[0][:12].strip())
def test_sentences_lines_and_code_blocks_are_segments_wherever_the_text_is_cut(expected: list[str]) -> None:
    text = "".join(expected)

    assert segments("text", text) == expected
    assert segments("text", *text) == expected
    for place in range(len(text)):
        assert segments("text", text[:place], text[place:]) == expected


MEMBERS = [
    ['{"a": "x"', ', "b": 1', ', "c": [1, {"d": 2}]', ', "e": {"f": "}"}', "}"],
    ['{"a":1', ',"b":-2.5e3', ',"c":true', ',"d":null', "}"],
    ["[1", ", 2", ', "three"', ", [4, 5]", ", {}", "]"],
    ['{"quote\\"}": "a\\\\"', ', "b": "\\u0022,]}\\""', "}"],
    ['{"a" : 1', '\n, "b": 2', "\n}", "\n"],
    ["{}"],
    ['{"a": "x"', "}", '{"b": 2', "}"],
    ["[]", "\n[1", "]"],
    ['```json\n{"a": 1', "}", "\n```"],
    ['Here "it" is, 1: {"a": "b"', "}", " done."],
    ['"only text, no object"'],
    ["}]"],
    ['{"a": "never closed, [1'],
    ['{"a": 1', ', "b": '],
]  # fmt: skip


@pytest.mark.parametrize("expected", MEMBERS, ids=lambda expected: expected[0][:12].strip())
def test_members_and_items_are_segments_wherever_the_text_is_cut(expected: list[str]) -> None:
    text = "".join(expected)

    assert segments("json", text) == expected
    assert segments("json", *text) == expected
    for place in range(len(text)):
        assert segments("json", text[:place], text[place:]) == expected


@pytest.mark.parametrize(
    ("kind", "piece", "released"),
    [
        ("text", "A sentence. ", ["A sentence. "]),
        ("text", "A sentence.", []),  # 3.14 may follow
        ("text", "文。", []),  # 」 may follow
        ("text", "A line\n", ["A line\n"]),
        ("text", FENCE, [FENCE]),
        ("json", '{"a": "x"', ['{"a": "x"']),
        ("json", '{"a": 1', []),  # 12 may follow
        ("json", '{"a": [1, {}]', ['{"a": [1, {}]']),
    ],
)
def test_a_segment_is_released_as_soon_as_its_end_is_certain(kind: Kind, piece: str, released: list[str]) -> None:
    assert Segmenter(kind).feed(piece) == released


# --- any text, cut anywhere -----------------------------------------------------------------------------

ALPHABET = st.sampled_from(
    [*'ab1 .!?…。！」")`~\n\r\t,:{}[]\\é', "```", "~~~", "\n```\n", "Dr", "e.g", "true", "\u2028"]
)
TEXTS = st.lists(ALPHABET, max_size=60).map("".join) | st.text()
CUTS = st.lists(st.integers(0, 10_000), max_size=20)


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted(place % (len(text) + 1) for place in places)
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


@pytest.mark.parametrize("kind", ["text", "json"])
@given(text=TEXTS, places=CUTS)
@example(text="``` a`b. c\n```\n. \n", places=[1, 2, 3])
def test_segments_together_are_the_text_and_do_not_depend_on_its_cuts(kind: Kind, text: str, places: list[int]) -> None:
    found = segments(kind, *cut(text, places))

    assert "".join(found) == text
    assert all(found)
    assert found == segments(kind, text) == segments(kind, *text)


@pytest.mark.parametrize("kind", ["text", "json"])
@pytest.mark.parametrize("unit", [".", " ", "\n", "*", ".)", "。", "```", "a", "[", '"', "{"])
def test_a_text_without_end_takes_time_in_proportion(kind: Kind, unit: str) -> None:
    """Not timed: a search that began anew at every place would take minutes."""
    segmenter = Segmenter(kind)
    found = [segment for _ in range(2000) for segment in segmenter.feed(unit * 20)]

    assert "".join([*found, *segmenter.close()]) == unit * 40_000


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(st.text(), JSON_VALUES, min_size=1), CUTS, st.sampled_from([None, 2]))
def test_each_member_of_an_object_is_one_segment(value: dict[str, Any], places: list[int], indent: int | None) -> None:
    *members, end = segments("json", *cut(json.dumps(value, indent=indent), places))

    assert [json.loads("{" + member.lstrip("{,") + "}") for member in members] == [{k: v} for k, v in value.items()]
    assert end.strip() == "}"


@given(st.lists(JSON_VALUES, min_size=1), CUTS, st.booleans())
def test_each_item_of_an_array_is_one_segment(value: list[Any], places: list[int], ascii_only: bool) -> None:
    *items, end = segments("json", *cut(json.dumps(value, ensure_ascii=ascii_only), places))

    assert [json.loads(item[1:]) for item in items] == value
    assert end == "]"
