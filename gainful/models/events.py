"""The events of a streamed reply, read as they come (WHATWG HTML, section 9.2, server-sent events).

Guarantees: the payloads do not depend on where the network cut the stream, inside a character or a line end
too; an event that was not closed by an empty line is dropped, as the standard says; memory is bounded.  Bytes
are passed on as they came: whether they are UTF-8 and JSON, the reader of a payload finds out.
"""

from __future__ import annotations

from gainful.core import ModelError

DONE = b"[DONE]"  # the payload by which OpenAI's protocol says that a stream is whole
MOST_BYTES = 8 * 2**20  # of one event: an image in base64 fits, a server that never ends a line does not
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventParser:
    r"""Takes a stream in pieces and gives the data of each event that is complete.

    Of the fields only ``data`` is read: the protocol uses no other.

    >>> parser = EventParser()
    >>> parser.feed(b': hello\ndata: {"a"'), parser.feed(b':1}\r'), parser.feed(b"\n\r\ndata: [DO")
    ([], [], [b'{"a":1}'])
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._line = bytearray()  # the beginning of a line whose end has not come
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._at_start = True
        self._after_cr = False  # a line feed that comes next belongs to a line end already seen

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the payloads that *piece* completes, in order.

        Raises ``ModelError`` for a line or an event of more than ``most_bytes``.
        """
        if not piece:
            return []
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
        self._after_cr = piece.endswith(b"\r")
        payloads: list[bytes] = []
        for line in piece.splitlines(keepends=True):  # of bytes: splits at LF, CR and CRLF, and nowhere else
            content = line.rstrip(b"\r\n")
            self._bound(len(content))
            if len(content) == len(line):
                self._line += content
                break
            if self._line:
                content = bytes(self._line + content)
                self._line.clear()
            self._take(content, payloads)
        return payloads

    def _take(self, line: bytes, payloads: list[bytes]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line:
            if self._data:
                payloads.append(b"\n".join(self._data))
            self._data.clear()
            self._data_bytes = 0
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_bytes += len(line)

    def _bound(self, more_bytes: int) -> None:
        if self._data_bytes + len(self._line) + more_bytes > self._most_bytes:
            raise ModelError(
                f"an event of the stream is longer than {self._most_bytes} bytes; the server sends something else "
                "than chat completions, check its address"
            )
