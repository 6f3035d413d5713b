"""The server's log: one line of JSON an event, on standard error.

Guarantees: a line holds the time, the level, our own sentence and fields from a fixed list, each a short text, a number
or a list of texts.  Never a stack trace, an error's own words or a library's, for those quote prompts, replies and
keys: of an error its kind is written and of a library's event its logger, and that is all.
"""

from __future__ import annotations

import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import msgspec

OURS = "gainful"
FIELDS = (
    "check",
    "exit_code",
    "host",
    "key",
    "kind",
    "method",
    "mode",
    "model",
    "models",
    "pid",
    "policy",
    "port",
    "reason",
    "replies",
    "seconds",
    "share",
    "status",
    "task",
    "tasks",
    "worker",
)
"""What ``extra={...}`` of a log call may say; other fields are left out.  ``key`` is a key's name."""

MOST_CHARACTERS = 500  # of one field

_PLAIN = (str, int, float, bool)


class Line(logging.Formatter):
    """Writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        is_ours = record.name.split(".")[0] == OURS
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            # the sentence as it stands in our source: what is filled into it is not ours
            "event": _short(record.msg) if is_ours else f"the library {record.name.split('.')[0]} reported something",
        }
        if is_ours:
            said = vars(record)
            line |= {name: _short(said[name]) for name in FIELDS if name in said and said[name] is not None}
        if record.exc_info and record.exc_info[0] is not None:
            line["kind"] = record.exc_info[0].__name__
        return msgspec.json.encode(line).decode()


class Lines(logging.StreamHandler[TextIO]):
    """Writes lines to a stream; one that cannot be written is dropped, for Python would print it with a stack trace."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's own name
        """Drop the line."""


def log_to(stream: TextIO) -> None:
    """Send every event of this process to *stream*, ours from ``info`` on, those of libraries from ``warning`` on.

    Errors that nobody caught, in any thread, become a line too, instead of a stack trace.
    """
    handler = Lines(stream)
    handler.setFormatter(Line())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(OURS).setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    sys.unraisablehook = lambda it: _uncaught(it.exc_type, it.exc_value, it.exc_traceback)
    threading.excepthook = lambda it: _uncaught(it.exc_type, it.exc_value, it.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    logging.getLogger(OURS).error("an error was not caught", extra={"kind": kind.__name__})


def _short(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_short(item) for item in value if isinstance(item, str)]
    if not isinstance(value, _PLAIN):
        return type(value).__name__
    if isinstance(value, str):
        return value[:MOST_CHARACTERS].encode("utf-8", "replace").decode()  # half a surrogate pair is no JSON
    return value
