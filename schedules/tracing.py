"""Traces through web, Temporal, worker and runner, where an OTLP endpoint is configured; nothing at all where none is.

Configured by OpenTelemetry's own variables (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/),
of which ``OTEL_EXPORTER_OTLP_ENDPOINT`` switches it on. The libraries are imported only then.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings

_provider: Any = None


def configure(*, service: str) -> None:
    """Start exporting this process's spans. Call it once, after any fork."""
    global _provider  # noqa: PLW0603 - the process has one, as OpenTelemetry itself has
    if not settings.TRACING or _provider is not None:
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # A name in OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES wins over ours.
    _provider = TracerProvider(resource=Resource({SERVICE_NAME: service}).merge(Resource.create()))
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(_provider)


def instrument_web() -> None:
    """Begin a span with each request, as part of the caller's trace where it sends one."""
    if settings.TRACING:
        from opentelemetry.instrumentation.django import DjangoInstrumentor

        DjangoInstrumentor().instrument()


def client_interceptors() -> list[Any]:
    """What makes a Temporal client, and the workers on it, carry traces on."""
    if not settings.TRACING:
        return []
    from temporalio.contrib.opentelemetry import TracingInterceptor

    return [TracingInterceptor(always_create_workflow_spans=True)]


def headers() -> dict[str, str]:
    """The current trace as HTTP headers (https://www.w3.org/TR/trace-context/), empty where there is none."""
    carrier: dict[str, str] = {}
    if settings.TRACING:
        from opentelemetry.propagate import inject

        inject(carrier)
    return carrier


def shutdown() -> None:
    """Send what is left. Waits a moment at most."""
    if _provider is not None:
        _provider.shutdown()
