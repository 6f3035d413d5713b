"""Spans as a receiver sees them: OpenTelemetry's own exporter in memory, and its HTTP exporter to a real socket."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import SpanKind, StatusCode

from gainful.core import ModelError, Usage
from gainful.proxy.spans import ENDPOINTS, Spans

SECRET = "what ails the patient"
BODY = {
    "id": "chatcmpl-1",
    "model": "small-2026",
    "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": SECRET}}],
    "usage": {"prompt_tokens": 30, "completion_tokens": 5},
}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[Spans]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = Spans(provider)
    yield spans
    spans.close()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_request_is_a_span_and_each_of_its_calls_one_below_it(spans: Spans, exporter: InMemorySpanExporter) -> None:
    with spans.request("gainful/mood") as request:
        with request.call("small") as first:
            first.heard(BODY)
        with request.call("large") as second:
            second.heard(BODY)
        request.answered("p" * 64, "corrected", Usage(2, 60, 10, cost_usd=0.5), 0.25, "escalate")

    small, large, parent = exporter.get_finished_spans()
    assert [span.name for span in (small, large, parent)] == ["chat small", "chat large", "chat gainful/mood"]
    assert [span.kind for span in (small, large, parent)] == [SpanKind.CLIENT, SpanKind.CLIENT, SpanKind.SERVER]
    assert parent.parent is None
    assert small.parent is not None
    assert large.parent is not None
    assert {small.parent.span_id, large.parent.span_id} == {parent.context.span_id}
    assert attributes(small) == {
        gen_ai.GEN_AI_OPERATION_NAME: gen_ai.GenAiOperationNameValues.CHAT.value,
        gen_ai.GEN_AI_PROVIDER_NAME: gen_ai.GenAiProviderNameValues.OPENAI.value,
        gen_ai.GEN_AI_REQUEST_MODEL: "small",
        gen_ai.GEN_AI_RESPONSE_MODEL: "small-2026",
        gen_ai.GEN_AI_RESPONSE_ID: "chatcmpl-1",
        gen_ai.GEN_AI_RESPONSE_FINISH_REASONS: ("stop",),
        gen_ai.GEN_AI_USAGE_INPUT_TOKENS: 30,
        gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS: 5,
    }
    assert attributes(parent) == {
        gen_ai.GEN_AI_OPERATION_NAME: "chat",
        gen_ai.GEN_AI_PROVIDER_NAME: "gainful",
        gen_ai.GEN_AI_REQUEST_MODEL: "gainful/mood",
        gen_ai.GEN_AI_USAGE_INPUT_TOKENS: 60,
        gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS: 10,
        "gainful.policy": "p" * 64,
        "gainful.verdict": "corrected",
        "gainful.p_wrong": 0.25,
        "gainful.correction": "escalate",
        "gainful.calls": 2,
        "gainful.cost_usd": 0.5,
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ModelError(SECRET, status=503), "503"),
        (ModelError(SECRET), "ModelError"),
        (ValueError(SECRET), "ValueError"),
        (asyncio.CancelledError(SECRET), "CancelledError"),
    ],
    ids=["503", "ModelError", "ValueError", "CancelledError"],
)
def test_of_an_error_only_its_kind_is_told(
    spans: Spans, exporter: InMemorySpanExporter, error: BaseException, kind: str
) -> None:
    with pytest.raises(type(error)), spans.request("gainful/mood") as request, request.call("small"):
        raise error

    found = exporter.get_finished_spans()
    assert [attributes(span)[ERROR_TYPE] for span in found] == [kind, kind]
    assert [span.status.status_code for span in found] == [StatusCode.ERROR, StatusCode.ERROR]
    assert "patient" not in "".join(span.to_json() for span in found)


def test_nothing_of_a_reply_is_in_a_span_whatever_it_holds(spans: Spans, exporter: InMemorySpanExporter) -> None:
    strange = {"id": 5, "model": None, "choices": [{"finish_reason": SECRET}, SECRET], "usage": [SECRET]}
    with spans.request("gainful/mood") as request:
        for body in (BODY, strange, {}):
            with request.call("small") as call:
                call.heard(body)

    assert "patient" not in "".join(span.to_json() for span in exporter.get_finished_spans())


def test_a_caller_with_a_trace_of_its_own_finds_ours_in_it(spans: Spans, exporter: InMemorySpanExporter) -> None:
    headers = {"Traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    with spans.request("gainful/mood", headers), spans.request("gainful/mood", {"traceparent": "nonsense"}):
        pass

    alone, joined = exporter.get_finished_spans()
    assert joined.parent is not None
    assert (f"{joined.context.trace_id:x}", f"{joined.parent.span_id:x}") == ("ab" * 16, "cd" * 8)
    assert alone.parent is None


def test_requests_that_overlap_keep_their_calls_apart(spans: Spans, exporter: InMemorySpanExporter) -> None:
    with spans.request("one") as one, spans.request("other") as other, one.call("a"), other.call("b"):
        pass

    found = {span.name: span for span in exporter.get_finished_spans()}
    assert [found[f"chat {name}"].parent for name in ("a", "b")] == [
        found["chat one"].get_span_context(),
        found["chat other"].get_span_context(),
    ]


def test_without_an_endpoint_nothing_is_traced_and_nothing_imported() -> None:
    script = """
import sys
from gainful.core import Usage
from gainful.proxy.spans import Spans

spans = Spans()
with spans.request("gainful/mood", {"traceparent": "x"}) as request:
    with request.call("small") as call:
        call.heard({"id": "1"})
    request.answered("p", "verified", Usage(), None, "")
spans.close()
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    environment = {"PYTHONPATH": ":".join(sys.path)}

    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_spans_go_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, bytes]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # http.server's own name
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        for name in ENDPOINTS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(ENDPOINTS[0], f"http://127.0.0.1:{server.server_port}")
        spans = Spans()
        with spans.request("gainful/mood"):
            pass
        spans.close()
        server.shutdown()
        thread.join()

    (path, body), *_ = received
    assert path == "/v1/traces"
    assert b"chat gainful/mood" in body
    assert b"service.version" in body
