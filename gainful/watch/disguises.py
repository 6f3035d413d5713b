"""How a text may be read: as it stands, and as it was meant where it was disguised.

Guarantees: bounded work, in time linear in the length of the text.  What nobody innocent writes is named
(``disguise``); what innocent people write too (other scripts, accents, base64) is undone and read on.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

DEPTH = 3  # wrappings undone, one in the other
LEAST_ENCODED = 16  # characters of base64 or hexadecimal; fewer hold no order
READABLE = 0.9  # share of printable characters from which decoded bytes are taken for text

_CYRILLIC = dict(zip("аеорсухіјѕԁԛԝһүѵкмтвнгАЕОРСУХІЈЅКМТВНҮ", "aeopcyxijsdqwhyvkmtbhrAEOPCYXIJSKMTBHY", strict=True))
_GREEK = dict(zip("αορνικυτηχεωγΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "aopvikutnxewyABEZHIKMNOPTYX", strict=True))
_OTHERS = dict(
    zip("ıɑɡɩʀʏոսօցһ｜ǃⅼℓ𝗅ꓲɪɴʜᴀᴄᴅᴇᴊᴋʟᴍᴏᴘᴛᴜᴠᴡᴢøłđħŧæ", "iagirynuogh|!lllIinhacdejklmoptuvwzoldhta", strict=True)
)
CONFUSABLES = str.maketrans(_CYRILLIC | _GREEK | _OTHERS)
"""Letters that look like those of ASCII, after Unicode's confusables (UTS 39); the ones in use, not all."""

LEET = str.maketrans("013457@$!|", "oieastasil")

_HIDING = re.compile(
    "[\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f\U000e0100-\U000e01ef]"  # bidi controls, tags, selectors
)
_FLAG = re.compile("\U0001f3f4[\U000e0061-\U000e007a]{2,6}\U000e007f")  # England, Scotland, Wales: the one honest use
_SPLIT = re.compile(
    "[A-Za-z][\u00ad\u034f\u061c\u180e\u200b-\u200f\u2060-\u2064\u206a-\u206f\ufe00-\ufe0f\ufeff]+[A-Za-z]"
)
_MIXED = re.compile(f"[A-Za-z][{''.join(_CYRILLIC)}]|[{''.join(_CYRILLIC)}][A-Za-z]")
_STACKED = re.compile("[\u0300-\u036f]{4}")  # marks on one letter: no language needs four

_SPACED = re.compile(r"\b\w(?:[ .\-_*·]\w\b){5,400}")
_JOINTS = re.compile(r"[ .\-_*·]")
_BASE64 = re.compile(rf"[A-Za-z0-9+/_-]{{{LEAST_ENCODED},}}")
_HEX = re.compile(rf"(?:(?:0x|\\x)?[0-9a-fA-F]{{2}}[\s:,]{{0,2}}){{{LEAST_ENCODED // 2},}}")
_BINARY = re.compile(r"(?:[01]{8}\s{0,2}){8,}")
_ESCAPED = re.compile(r"%[0-9a-fA-F]{2}|&#?\w{2,8};|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}")
_BACKSLASHED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))")


def disguise(text: str) -> str:
    """Return what of *text* was hidden or made up to look like something else, empty where nothing was."""
    if _HIDING.search(_FLAG.sub("", text)):
        return "hides text or turns its direction with control characters"
    if _SPLIT.search(text):
        return "has invisible characters inside words"
    if _MIXED.search(text):
        return "has words in letters of two alphabets that look alike"
    if _STACKED.search(text):
        return "has letters under heaps of marks"
    return ""


def readings(text: str) -> Iterator[str]:
    """Yield *text* in every way that it is read: folded, with digits for letters, spelt out, and what it wraps.

    Folded: NFKC, in lower case, without format characters, accents, and letters that merely look like those of ASCII.
    """
    layer = [text]
    for _ in range(DEPTH):
        layer = list(dict.fromkeys(layer))
        for one in layer:
            yield from _folds(one)
        layer = [inner for one in layer for inner in _unwrapped(one)]
    yield from _folds(codecs.encode(text, "rot13"))
    yield from _folds(text[::-1])


def _folds(text: str) -> Iterator[str]:
    seen = folded(text)
    yield seen
    if not seen.isascii():
        yield unaccented(seen).translate(CONFUSABLES)
    read = unaccented(seen).translate(CONFUSABLES)
    if (letters := read.translate(LEET)) != read:
        yield letters
    if _SPACED.search(read):
        yield _SPACED.sub(lambda spelt: _JOINTS.sub("", spelt.group()), read)


def folded(text: str) -> str:
    """Return *text* in NFKC and lower case, without characters of format."""
    if text.isascii():
        return text.lower()  # ASCII is in NFKC, and has no character of format
    shown = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return shown.casefold()


def unaccented(text: str) -> str:
    """Return *text* without marks on its letters.

    >>> unaccented("ïgnoré")
    'ignore'
    """
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _unwrapped(text: str) -> Iterator[str]:
    """Yield the texts that stand encoded in *text*."""
    if _ESCAPED.search(text):
        yield _BACKSLASHED.sub(lambda one: chr(int(one[1] or one[2], 16)), html.unescape(unquote(text)))
    for run in _BASE64.findall(text):
        yield from _read(_from_base64(run))
    for run in _HEX.findall(text):
        yield from _read(_from_hex(run))
    for run in _BINARY.findall(text):
        digits = "".join(run.split())
        yield from _read(bytes(int(digits[at : at + 8], 2) for at in range(0, len(digits), 8)))


def _from_base64(run: str) -> bytes:
    standard = run.replace("-", "+").replace("_", "/")
    whole = standard[: len(standard) // 4 * 4] if len(standard) % 4 == 1 else standard + "=" * (-len(standard) % 4)
    try:
        return base64.b64decode(whole)
    except binascii.Error:
        return b""


def _from_hex(run: str) -> bytes:
    digits = re.sub(r"0x|\\x|[\s:,]", "", run)
    return bytes.fromhex(digits) if len(digits) % 2 == 0 else b""


def _read(data: bytes) -> Iterator[str]:
    """Yield *data* as text where it is one."""
    text = data.decode("utf-8", errors="replace")
    if len(text) >= LEAST_ENCODED // 2 and sum(c.isprintable() or c.isspace() for c in text) >= READABLE * len(text):
        yield text
