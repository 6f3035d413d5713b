"""How many request shapes pass through a proxy unchanged, both ways, plain and streamed.

    python benchmarks/proxy_fidelity.py [--only gainful-pass litellm]
    python benchmarks/proxy_fidelity.py --url http://127.0.0.1:8000/v1 --model M --port 9000

The corpus and the comparison are those of ``tests/test_fidelity.py``.  A shape counts as unchanged when every member
of request and reply arrives, numbers to the digit, and none is added; beside it, of how many nothing is lost: members
added, nulls left out and numbers of the same value written in another way set aside.  A server of one's own is tried
with ``--url``: its upstream must be ``http://127.0.0.1:PORT/v1``.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from figures import RESULTS, Figure, publish
from servers import CONTESTANTS, Start, gainful

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from fidelity import Finding, RecordingUpstream, findings, is_lossless
from fidelity_corpus import SHAPES

STREAMS = ("pass", "hold", "segment")


def streaming(stream: str) -> Start:
    return lambda upstream_url, scratch: gainful(upstream_url, scratch, 1, stream)


PROXIES: dict[str, tuple[str, Start]] = {
    **{f"gainful-{stream}": (f"Gainful, {stream}", streaming(stream)) for stream in STREAMS},
    **{name: CONTESTANTS[name] for name in ("litellm", "optillm")},
}


async def compare(name: str, base_url: str, model: str, upstream: RecordingUpstream) -> list[Figure]:
    """Return how many shapes are unchanged through one proxy; print those that are not."""
    found: list[Figure] = []
    for mode, streamed in (("plain", False), ("streamed", True)):
        shapes = await findings(upstream, base_url, model, SHAPES, streamed=streamed)
        for finding in shapes:
            if not finding.is_faithful:
                shown = "; ".join(map(str, (*finding.request, *finding.reply)[:3]))
                print(f"{name}, {mode}, {finding.shape}: {shown}", file=sys.stderr)
        found += counts(f"{name}, {mode}", shapes)
    return found


def counts(subject: str, shapes: list[Finding]) -> Iterator[Figure]:
    shares = {
        "unchanged": [shape.is_faithful for shape in shapes],
        "nothing lost": [shape.is_lossless for shape in shapes],
        "requests unchanged": [not shape.request for shape in shapes],
        "requests, nothing lost": [is_lossless(shape.request) for shape in shapes],
        "replies unchanged": [not shape.reply for shape in shapes],
        "replies, nothing lost": [is_lossless(shape.reply) for shape in shapes],
    }
    for quantity, share in shares.items():
        yield Figure(subject, quantity, "shapes", len(shapes), (sum(share),))


async def measure(chosen: argparse.Namespace) -> tuple[list[Figure], list[str]]:
    """Return the figures of all chosen proxies and why some were not measured."""
    found: list[Figure] = []
    missing: list[str] = []
    if chosen.url:
        async with RecordingUpstream(chosen.port) as upstream:
            return await compare(chosen.url, chosen.url, chosen.model, upstream), []
    for key in chosen.only:
        name, start = PROXIES[key]
        async with RecordingUpstream() as upstream:
            with tempfile.TemporaryDirectory(dir=RESULTS.parent) as scratch, ExitStack() as stack:
                try:
                    server = await asyncio.to_thread(stack.enter_context, start(upstream.base_url, Path(scratch)))
                except RuntimeError as error:
                    missing.append(f"{name} was not measured: {error}")
                else:
                    found += await compare(name, server.base_url, server.model, upstream)
                    await asyncio.to_thread(stack.close)
    return found, missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=PROXIES, default=list(PROXIES))
    parser.add_argument("--url", help="the base URL of a server that runs already")
    parser.add_argument("--model", default="gainful/plain", help="what to ask that server for")
    parser.add_argument("--port", type=int, default=0, help="where its upstream is expected")
    RESULTS.mkdir(parents=True, exist_ok=True)
    found, missing = asyncio.run(measure(parser.parse_args()))
    publish("proxy_fidelity", found)
    if missing:
        raise SystemExit("\n".join(missing))


if __name__ == "__main__":
    main()
