"""The trace of a payment: one span for its decision, and in it the features, the model and the log.

A batch's work is done for all of its payments at once, so that each one's spans are as long as the batch's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from bentos.batcher import Waits
from bentos.decisions import Entry
from bentos.scoring import Scored
from monitoring.tracing import Traces, instant, traceparent

STEPS = ("features", "model", "log")


class Trail:
    """What is traced of one batch: told of each step's end in turn, it makes the spans when the batch has ended."""

    def __init__(self, traces: Traces, batch: Sequence[Waits]) -> None:
        self._traces = traces
        self._marks = [time.time_ns()]
        self._size = len(batch)
        self._spans: dict[int, Any] = {}
        for waiting in batch:
            if traces.wanted(waiting.asked.parent):
                began = instant(waiting.started)
                self._spans[id(waiting)] = traces.begin("decide a payment", "server", began, waiting.asked.parent)

    def mark(self) -> None:
        """A step has ended."""
        self._marks.append(time.time_ns())

    def named(self, waiting: Waits, one: Scored, entry: Entry) -> Entry:
        """The entry, with the trace in it if the payment is traced."""
        span = self._spans.get(id(waiting))
        if span is None:
            return entry
        span.set_attributes({"tollgate.decision": one.decision, "tollgate.model_version": one.model.version})
        if one.degraded_cause is not None:
            span.set_attribute("tollgate.degraded_cause", one.degraded_cause)
        return entry._replace(trace=traceparent(span))

    def end(self) -> None:
        """Make the steps' spans and end all; a step that never came to its end has none."""
        ended = time.time_ns()
        for span in self._spans.values():
            parent = traceparent(span)
            for name, began, until in zip(STEPS, self._marks, self._marks[1:], strict=False):
                step = self._traces.begin(name, "internal", began, parent, {"tollgate.batch_size": self._size})
                step.end(until)
            span.end(ended)
