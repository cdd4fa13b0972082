"""OpenTelemetry traces, for who sets FRAUD_TRACES_ENDPOINT; without it nothing of OpenTelemetry is imported here.

A trace crosses processes by its `traceparent` (W3C Trace Context), which lies in the decision's entry in the log. Spans
name no card, merchant or payment.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from feature_repo.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import Span

HEADER = b"traceparent"
_FORM = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = 1

EVERY_MS = 1_000
"""Time from one delivery of spans to the next."""

Attributes = Mapping[str, str | int | float | bool]


class Traces:
    """The spans of one process; instants are `time.time_ns()`. `close` delivers what waits."""

    def __init__(self, part: str, endpoint: str, share: float) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from monitoring.otlp import OtlpJson

        # Own ones, beside whatever a library makes the process's.
        resource = Resource({"service.name": f"tollgate-{part}"})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OtlpJson(endpoint), schedule_delay_millis=EVERY_MS))
        self._tracer = self._provider.get_tracer("tollgate")
        self._share = share

    def wanted(self, parent: bytes) -> bool:
        """Whether to trace what came with this `traceparent`: as its sender says, else a share of all."""
        found = _FORM.fullmatch(parent)
        return random.random() < self._share if found is None else bool(int(found[3], 16) & _SAMPLED)  # noqa: S311

    def begin(
        self, name: str, kind: str, began: int, parent: bytes = b"", attributes: Attributes | None = None
    ) -> Span:
        """A span below the one that `parent` names, or the first of a trace where it names none; end it yourself.

        `kind` is `server`, `client`, `consumer`, `producer` or `internal`.
        """
        from opentelemetry.trace import SpanKind

        context = _context(parent)
        return self._tracer.start_span(name, context, SpanKind[kind.upper()], attributes, start_time=began)

    def close(self) -> None:
        """Deliver what waits, and end."""
        self._provider.shutdown()


def traces(current: Settings, part: str) -> Traces | None:
    """The traces of this process; None where they are off."""
    if current.traces_endpoint is None:
        return None
    return Traces(part, current.traces_endpoint, current.traces_share)


def traceparent(span: Span) -> bytes:
    """What names the span to others."""
    context = span.get_span_context()
    return b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, context.trace_flags)


def instant(counter: float) -> int:
    """A reading of `time.perf_counter()` as `time.time_ns()` would have been then."""
    return time.time_ns() - int((time.perf_counter() - counter) * 1e9)


def _context(parent: bytes) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    found = _FORM.fullmatch(parent)
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return Context()  # not the one that happens to be current
    named = SpanContext(int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=TraceFlags(_SAMPLED))
    return set_span_in_context(NonRecordingSpan(named), Context())
