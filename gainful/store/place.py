"""Where a store lies: in a file, or on a PostgreSQL server."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from gainful.core import StoreError

SERVERS = ("postgresql", "postgres")


def store_file(place: str | Path) -> Path | None:
    """Return the file that *place* names, ``None`` where it is on a server; raises ``StoreError`` for other addresses.

    >>> store_file("sqlite:///data/gainful.db"), store_file("postgresql://db.local/gainful")
    (PosixPath('data/gainful.db'), None)
    """
    text = str(place)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Path(place)
    if scheme in SERVERS:
        return None
    if scheme == "sqlite" and len(rest) > 1:
        return Path(rest[1:])
    raise StoreError(f"{_spoken(text)!r} is no store; give a file path, sqlite:///PATH or postgresql://HOST/DATABASE")


def full_place(place: str | Path) -> str:
    """Return *place* so that it means the same in every folder and every process."""
    file = store_file(place)
    return str(place) if file is None else str(file.absolute())


def spoken_place(place: str | Path) -> str:
    """Return *place* as messages and logs may show it: of a server, neither user nor password.

    >>> spoken_place("postgresql://ann:se%40cret@db.local:5433/gainful?sslpassword=x")
    'postgresql://db.local:5433/gainful'
    """
    file = store_file(place)
    return _spoken(str(place)) if file is None else str(file)


def _spoken(address: str) -> str:
    scheme, _, rest = address.partition("://")
    try:
        parts = urlsplit(address)
    except ValueError:  # such as a bracket in a password
        return f"{scheme}://..."
    if rest.count("@") > 1 or rest.count("@") > parts.netloc.count(
        "@"
    ):  # a password that is not quoted as it should be
        return f"{scheme}://..."
    return f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
