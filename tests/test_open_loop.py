"""The load generator and the mock upstream, as the processes that they are."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from servers import Server, Upstream, load, upstream

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def failing() -> Iterator[Upstream]:
    with upstream("--faults", "429/5,500/7,hang/11,garbage/13,truncated/17") as behind:
        yield behind


@pytest.mark.parametrize("mode", [[], ["--stream"]])
def test_every_failure_is_counted_by_its_kind(failing: Upstream, mode: list[str]) -> None:
    before = failing.stats()
    found = load(failing.direct, 100, 4, "--timeout-s", "1", "--warm-up-s", "0", *mode)
    after = failing.stats()
    seen = {kind: after.get(kind, 0) - before.get(kind, 0) for kind in after}

    assert found["sent"] == seen["requests"]
    assert found["good"] == seen["whole"]
    assert found["failures"] == {
        "status 429": seen["429"],
        "status 500": seen["500"],
        "timeout": seen["hang"],
        "stream without its end" if mode else "no reply in the body": seen["garbage"],
        "reset in the reply": seen["truncated"],
    }


def test_a_stall_counts_for_every_request_that_was_due_in_it() -> None:
    """A closed loop would have asked once in that second and shown one slow request, and a p90 of next to nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(512)
        threading.Thread(target=stalling, args=(listening,), daemon=True).start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        options = ("--warm-up-s", "0", "--arrivals", "fixed", "--connections", "1")
        found = load(Server(address, "mock", 0), 100, 2, *options)

    assert found["good"] == 200
    assert found["latency_ms"]["p90"] > 700
    assert found["latency_ms"]["max"] > 950


def stalling(listening: socket.socket) -> None:
    """Answer requests one after the other, and the first one only after a second."""
    connection, _ = listening.accept()
    body = b'{"choices": []}'
    stall_s = 1.0
    with connection:
        while connection.recv(65536):
            time.sleep(stall_s)
            stall_s = 0.0
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
