"""Server-sent events, however the network cuts them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gainful.core import ModelError
from gainful.models.events import EventParser

STREAMS = [  # the stream, its payloads; the first are the standard's own examples
    (b"data: YHOO\ndata: +2\ndata: 10\n\n", [b"YHOO\n+2\n10"]),
    (b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
     [b"first event", b"second event", b" third event"]),
    (b"data\n\ndata\ndata\n\ndata:", [b"", b"\n"]),
    (b"data:test\n\ndata: test\n\n", [b"test", b"test"]),
    (b"data: a\r\ndata: b\r\n\r\ndata: c\r\rdata: d\n\r\n", [b"a\nb", b"c", b"d"]),
    (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
    ("data: ünï 😀\x0b\x0c\x1c\x85\u2028\n\n".encode(), ["ünï 😀\x0b\x0c\x1c\x85\u2028".encode()]),
    (b"data: \xff\xfe\x00\n\n", [b"\xff\xfe\x00"]),
    (b"event: error\nretry: 5\nunknown: x\nDATA: x\n data: x\ndatax\n\n", []),
    (b"data: a:b: c\n\n", [b"a:b: c"]),
    (b"data: closed\n\ndata: not closed\n", [b"closed"]),
    (b"data: never ended", []),
    (b"\r\n\r\n\n\n\r\r", []),
    (b"", []),
]  # fmt: skip


def payloads(pieces: list[bytes], most_bytes: int = 1000) -> list[bytes]:
    parser = EventParser(most_bytes)
    return [payload for piece in pieces for payload in parser.feed(piece)]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    ends = sorted(place % (len(stream) + 1) for place in places)
    return [stream[start:end] for start, end in zip([0, *ends], [*ends, len(stream)], strict=True)]


@pytest.mark.parametrize(("stream", "expected"), STREAMS)
def test_a_stream_is_read_as_the_standard_says_wherever_it_is_cut_in_two(stream: bytes, expected: list[bytes]) -> None:
    assert payloads([stream]) == expected
    assert payloads([bytes([byte]) for byte in stream]) == expected
    for place in range(len(stream)):
        assert payloads(cut(stream, [place])) == expected


LINES = st.lists(
    st.tuples(
        st.sampled_from([b"data: ", b"data:", b"data", b"", b":", b"id: ", b"\xef\xbb\xbfdata: ", b"event"]),
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8).map(str.encode),
        st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r", b""]),
    ).map(b"".join)
).map(b"".join)


@given(LINES | st.binary(), st.lists(st.integers(0, 10_000), max_size=30))
def test_any_stream_cut_anywhere_gives_the_same_payloads(stream: bytes, places: list[int]) -> None:
    assert payloads(cut(stream, places)) == payloads([stream])


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n")).map(str.encode)), st.data())
def test_what_is_sent_as_events_arrives_as_payloads(sent: list[bytes], data: st.DataObject) -> None:
    end = data.draw(st.sampled_from([b"\n", b"\r", b"\r\n"]))
    stream = b"".join(b"data: " + payload + end + end for payload in sent)
    places = data.draw(st.lists(st.integers(0, 10_000), max_size=10))

    assert payloads(cut(stream, places), 10**6) == sent


@given(st.lists(st.binary()), st.integers(0, 40))
def test_garbage_raises_nothing_but_a_models_error(pieces: list[bytes], most_bytes: int) -> None:
    with suppress(ModelError):
        payloads(pieces, most_bytes)


@pytest.mark.parametrize(
    "stream", [b"data: " + b"x" * 95, b": " + b"x" * 99 + b"\n", b"data: xxxxxxxxx\n" * 7, b"x" * 101]
)
def test_an_event_over_the_bound_is_an_error_wherever_it_is_cut(stream: bytes) -> None:
    for pieces in ([stream], cut(stream, [50]), [bytes([byte]) for byte in stream]):
        with pytest.raises(ModelError, match="longer than 100 bytes"):
            payloads(pieces, 100)


def test_events_up_to_the_bound_come_without_end() -> None:
    event = b"data: " + b"x" * 94 + b"\n\n" + b": keep-alive\n" * 100

    assert payloads([event] * 50, 100) == [b"x" * 94] * 50
