"""What a caller says of a reply: how right it was, and perhaps what would have been right.

Guarantees: feedback that could not be read again is refused here, with a 4xx and one sentence.  Leaves to others: whose
reply it is about, and how much of it is stored.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from gainful.core import ApiError
from gainful.proxy.wire import BOUNDS, is_deeper
from gainful.store import Feedback


class _Told(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/feedback; a ``target`` of null is none."""

    id: str
    score: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
    comment: str = ""
    target: Any = None


_decode = msgspec.json.Decoder(_Told).decode


def parse_feedback(body: bytes, key: str, at: float) -> Feedback:
    """Return the feedback in *body*; raises ``ApiError``.

    >>> parse_feedback(b'{"id": "chatcmpl-1", "score": 0, "target": "billing"}', "ann", 0.0)
    Feedback(reply='chatcmpl-1', score=0.0, at=0.0, comment='', key='ann', target='billing')
    """
    try:
        told = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(f'the body is no feedback ({error}); send {{"id": "...", "score": 1.0}}') from None
    except RecursionError:
        raise _too_deep() from None
    if is_deeper([told.target], BOUNDS.depth):
        raise _too_deep()
    return Feedback(reply=told.id, score=told.score, comment=told.comment, key=key, at=at, target=told.target)


def _too_deep() -> ApiError:
    return ApiError(f"target is nested more than {BOUNDS.depth} levels deep; send it flatter", param="target")
