"""Small JSON texts made smaller: replies, attempts and records as they lie in a store.

Deflate with a preset dictionary of the words our JSON is made of: a text of 300 bytes shrinks to about half,
where plain deflate would gain nothing.  A checksum goes with each text: SQLite has none of its own, and a reply
with a flipped bit must not be learned from.  The first byte names the coding, so that another can be added.
Names that are digests are 32 bytes; other names are text, or, in a database that knows no column for both, bytes
whose length is never 32.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import msgspec

PLAIN, DEFLATE = b"\0", b"\1"
LEVEL = 6  # higher levels find nothing more in texts this small

# What coding 1 was written with: never change it, add a coding.  Frequent strings stand last (RFC 1950, 2.2).
WORDS = (
    b'"tool_calls":[{"id":"","type":"function","function":{"name":"","arguments":"{\\"'
    b'"logprobs":{"content":[{"token":"","logprob":-0.,"bytes":[],"top_logprobs":[{"token":"'
    b'"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}'
    b'"system_fingerprint":"","model":"","finish_reason":"tool_calls","refusal":null,"reasoning_content":null'
    b'{"type":"proposed","policy":{"instructions":"","demos":[{"case":{"messages":[{"role":"system","content":"'
    b'"format":{"shape":"schema"},"strategy":{"type":"once"},"max_tokens":256'
    b'"name":"","arguments":{"},"samples":["group":"wrong value","feedback":"","score":0.0,"trusted":true'
    b'{"case":"","policy":"","answer":{"text":"{\\"name\\": \\"","value":{"'
    b'},"verdicts":[{"check":"schema","trusted":true,"score":1.0},{"check":"'
    b'"score":1.0,"usage":{"calls":1,"prompt_tokens":1,"completion_tokens":1,"elapsed_ms":1.'
    b'{"body":{"choices":[{"finish_reason":"stop","index":0,"message":{"role":"assistant","content":"'
    b'"}}],"usage":{"completion_tokens":1,"prompt_tokens":1,"total_tokens":1}},"elapsed_ms":'
)


_encode = msgspec.json.Encoder().encode


def encode(value: Any) -> bytes:
    """Return *value* as JSON, with U+FFFD for each lone surrogate: half a character, cut off by a limit, is no text.

    >>> encode({"half": "\\ud83d", "whole": "é"}).decode()
    '{"half":"\ufffd","whole":"é"}'
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:
        text = json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
        return _encode(json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")))


def pack(text: bytes) -> bytes:
    """Return *text* in the shorter of the two codings, behind the coding's byte and the CRC-32 of *text*.

    >>> unpack(pack(b'{"a": 1}'))
    b'{"a": 1}'
    """
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=WORDS)
    small = deflate.compress(text) + deflate.flush()
    coding, content = (DEFLATE, small) if len(small) < len(text) else (PLAIN, text)
    return coding + zlib.crc32(text).to_bytes(4, "big") + content


def unpack(packed: bytes) -> bytes:
    """Return the text that ``pack`` was given; raises ``ValueError`` where *packed* is not its work, unchanged."""
    coding, checksum, content = packed[:1], packed[1:5], packed[5:]
    if coding == DEFLATE:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS, zdict=WORDS)
        try:
            content = inflate.decompress(content) + inflate.flush()
        except zlib.error as error:
            raise ValueError(f"a stored text cannot be unpacked, {error}") from error
    elif coding != PLAIN:
        raise ValueError(f"a stored text has the unknown coding {coding!r}")
    if zlib.crc32(content).to_bytes(4, "big") != checksum:
        raise ValueError("a stored text differs from its checksum")
    return content


class Name(str):
    """A name that is no digest, where a digest may stand too."""

    def to_bytes(self) -> bytes:
        """Return the name so that ``long_id`` knows it from a digest; raises ``ValueError`` for a NUL character in it.

        >>> long_id(Name("n" * 32).to_bytes()) == "n" * 32
        True
        """
        if "\0" in self:
            raise ValueError(f"{self!r} holds a NUL character")
        text = self.encode()
        return text + b"\0" if len(text) == 32 else text


def short_id(name: str) -> bytes | Name:
    """Return a digest as its 32 bytes, any other name as it is."""
    try:
        short = bytes.fromhex(name)
    except ValueError:
        return Name(name)
    return short if len(short) == 32 and short.hex() == name else Name(name)


def split_ids(packed: bytes) -> tuple[str, ...]:
    """Return the digests that lie in *packed*, 32 bytes each, one after the other."""
    return tuple(packed[i : i + 32].hex() for i in range(0, len(packed), 32))


def long_id(id: bytes | str) -> str:
    """Return the name that ``short_id`` was given."""
    if isinstance(id, str):
        return id
    return id.hex() if len(id) == 32 else id.rstrip(b"\0").decode()
