"""Traces: one span a request, one below it a model call, named by OpenTelemetry's GenAI conventions.

Guarantees: no prompt, reply, key or error's own words are in a span, only names, counts and kinds.  Nothing is
traced, at the cost of a few method calls, unless the extra ``otel`` is installed and OTEL_EXPORTER_OTLP_ENDPOINT (or
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) says where to; all else is set by OpenTelemetry's own variables.  Spans are sent
from a thread; what the receiver cannot take is dropped.

The conventions: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/, "Inference".
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gainful.core import JsonObject, ModelError, Usage, VerdictWord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
OPENAI = "openai"  # how the conventions call whoever speaks OpenAI's protocol
OURS = "gainful"
FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")
NO_HEADERS: Mapping[str, str] = {}

log = logging.getLogger("gainful.proxy")


class Spans:
    """Where spans begin: with *provider*, or as the environment says."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider or _provider()
        self._tracer = self._provider.get_tracer(OURS) if self._provider is not None else None

    def request(self, model: str, headers: Mapping[str, str] = NO_HEADERS) -> RequestSpan:
        """Return the span of a request for *model*, for its ``with`` block.

        It is below the caller's own span where *headers* name one (W3C trace context).
        """
        return RequestSpan(self._tracer, model, headers)

    def close(self) -> None:
        """Send what is left; takes seconds where the receiver is gone, so call it in a thread."""
        if self._provider is not None:
            self._provider.shutdown()


class _Timed:
    """A span of a ``with`` block, or none; an error that ends the block is told by its kind."""

    _span: Span | None = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._span is None:
            return
        if kind is not None:
            from opentelemetry.trace import StatusCode

            status = error.status if isinstance(error, ModelError) else None
            self._span.set_attribute("error.type", kind.__name__ if status is None else str(status))
            self._span.set_status(StatusCode.ERROR)
        self._span.end()

    def _set(self, known: Mapping[str, str | float | list[str] | None]) -> None:
        """Set the attributes that are known."""
        if self._span is not None:
            self._span.set_attributes({name: value for name, value in known.items() if value is not None})


class RequestSpan(_Timed):
    """A caller's request; its model calls are below it."""

    def __init__(self, tracer: Tracer | None, model: str, headers: Mapping[str, str]) -> None:
        self._tracer, self._model, self._headers = tracer, model, headers

    def __enter__(self) -> RequestSpan:
        """Begin."""
        if self._tracer is not None:
            from opentelemetry.trace import SpanKind
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            self._span = self._tracer.start_span(
                f"chat {self._model}",
                context=TraceContextTextMapPropagator().extract(
                    {name.lower(): value for name, value in self._headers.items()}
                ),
                kind=SpanKind.SERVER,
                attributes=_asked(self._model, OURS),
            )
        return self

    def call(self, model: str, provider: str = OPENAI) -> CallSpan:
        """Return the span of one call of *model* for this request; it lasts as long as its ``with`` block."""
        return CallSpan(self._tracer, self._span, model, provider)

    def answered(self, policy: str, verdict: VerdictWord, usage: Usage, p_wrong: float | None, correction: str) -> None:
        """Say what came of the request, and what all its calls took."""
        self._set(
            {
                "gainful.policy": policy,
                "gainful.verdict": verdict,
                "gainful.p_wrong": p_wrong,
                "gainful.correction": correction or None,
                "gainful.calls": usage.calls,
                "gainful.cost_usd": usage.cost_usd,
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": usage.completion_tokens,
            }
        )


class CallSpan(_Timed):
    """A call of a model."""

    def __init__(self, tracer: Tracer | None, parent: Span | None, model: str, provider: str) -> None:
        self._tracer, self._parent, self._model, self._provider = tracer, parent, model, provider

    def __enter__(self) -> CallSpan:
        """Begin."""
        if self._tracer is not None and self._parent is not None:
            from opentelemetry.trace import SpanKind, set_span_in_context

            self._span = self._tracer.start_span(
                f"chat {self._model}",
                context=set_span_in_context(self._parent),
                kind=SpanKind.CLIENT,
                attributes=_asked(self._model, self._provider),
            )
        return self

    def heard(self, body: JsonObject) -> None:
        """Say what the reply *body* took; of its content nothing."""
        if self._span is None:
            return
        usage = body.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        said = [c.get("finish_reason") for c in body.get("choices") or () if isinstance(c, dict)]
        self._set(
            {
                "gen_ai.response.model": _text(body.get("model")),
                "gen_ai.response.id": _text(body.get("id")),
                "gen_ai.response.finish_reasons": [reason for reason in said if reason in FINISH_REASONS],
                "gen_ai.usage.input_tokens": usage.get("prompt_tokens"),
                "gen_ai.usage.output_tokens": usage.get("completion_tokens"),
            }
        )


def _asked(model: str, provider: str) -> dict[str, str]:
    return {"gen_ai.operation.name": "chat", "gen_ai.provider.name": provider, "gen_ai.request.model": model}


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) else None


def _provider() -> TracerProvider | None:
    """Return what the environment asks for: a provider that sends to the endpoint it names."""
    if not any(map(os.environ.get, ENDPOINTS)):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("no spans are sent: run pip install 'gainful[otel]'")
        return None
    named = {
        "service.name": os.environ.get("OTEL_SERVICE_NAME", OURS),
        "service.version": importlib.metadata.version(OURS),
    }
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
