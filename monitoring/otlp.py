"""Spans to a collector as OTLP over HTTP in its JSON encoding, which every OpenTelemetry collector takes.

The SDK's own OTLP exporter speaks Protobuf and is no part of the platform's environment; this is the part of the
protocol that the platform's spans need (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import msgspec
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

TIMEOUT_SECONDS = 5.0
PATH = "/v1/traces"

log = logging.getLogger(__name__)


class OtlpJson(SpanExporter):
    """An exporter for one collector, at its base address. What it cannot deliver is lost, and told in the log once."""

    def __init__(self, endpoint: str) -> None:
        self._url = endpoint.rstrip("/") + PATH
        self._client = httpx.Client(timeout=TIMEOUT_SECONDS)
        self._away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; they are not sent again."""
        body = msgspec.json.encode(document(spans))
        try:
            answer = self._client.post(self._url, content=body, headers={"content-type": "application/json"})
            answer.raise_for_status()
        except httpx.HTTPError as error:
            if not self._away:
                log.warning("Traces do not reach %s, they are lost until it answers: %s", self._url, error)
            self._away = True
            return SpanExportResult.FAILURE
        self._away = False
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """End the connection."""
        self._client.close()


def document(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """Spans of one process as an `ExportTraceServiceRequest`."""
    resource = _attributes(spans[0].resource.attributes) if spans else []
    scope = {"scope": {"name": "tollgate"}, "spans": [_span(span) for span in spans]}
    return {"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [scope]}]}


def _span(span: ReadableSpan) -> dict[str, Any]:
    context: Any = span.context
    told = {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "name": span.name,
        "kind": span.kind.value + 1,  # OTLP's 0 is `unspecified`
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _attributes(span.attributes or {}),
        "status": {"code": span.status.status_code.value},
    }
    return told if span.parent is None else told | {"parentSpanId": f"{span.parent.span_id:016x}"}


def _attributes(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in given.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": str(value)}
