"""The job that keeps windowed features fresh: `python -m bytewax.run stream_jobs.velocity`.

A record is acknowledged only when every view's state that counts it is readable in the online store, or when it lies
among the dead letters. Importing this module connects to nothing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.operators import KeyedStream, StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from feature_repo.schema import InvalidTransaction, parse_json
from feature_repo.settings import Settings, settings
from feature_repo.store import feature_store
from feature_repo.window_state import to_us
from feature_repo.windows import microseconds
from monitoring.metrics import metrics
from stream_jobs.engine import Event, Plan, ShardLogic, Written, fan_out
from stream_jobs.history import write_history
from stream_jobs.transports.base import Acknowledger, Record, Transport
from stream_jobs.transports.redis_streams import RedisStreams

STREAM_SOURCE = "transactions_stream"

Parsed = Event | tuple[Record, str]
"""A valid event, or a record with the reason why it is none."""


def parse(record: Record, lateness: timedelta, skew: timedelta) -> Parsed:
    """A record as an event. Too late or too early is measured against when the event was first had, not against others,
    so that it does not depend on what else arrived."""
    try:
        transaction = parse_json(record.body, subject=f"in record {record.id}")
    except InvalidTransaction as error:
        return record, f"invalid: {error}"
    ts = to_us(transaction.timestamp)
    behind = record.ingested_at - ts
    if behind > microseconds(lateness):
        return record, f"late: {timedelta(microseconds=behind)} behind; at most {lateness} is allowed"
    if -behind > microseconds(skew):
        return record, f"early: {timedelta(microseconds=-behind)} ahead; at most {skew} is allowed"
    return Event(record, transaction.__dict__, ts, record.ingested_at)


class _CountDown(StatefulBatchLogic[tuple[str, int], list[str], None]):
    """Which records of a partition every view has accounted for."""

    def __init__(self, parts: Callable[[], int]) -> None:
        self._parts = parts
        self._open: dict[str, int] = {}

    def on_batch(self, batch: list[tuple[str, int]]) -> tuple[Iterable[list[str]], bool]:
        done = []
        for record, parts in batch:
            left = self._open.pop(record, self._parts()) - parts
            if left > 0:
                self._open[record] = left
            else:
                done.append(record)
        return ([done] if done else []), self.RETAIN

    def snapshot(self) -> None:
        """Nothing: what was open at a crash is delivered again."""
        return


@dataclass
class _Steps:
    """The steps that touch the outside, connected when they first run."""

    plan: Plan
    transport: Transport

    @cached_property
    def _acknowledger(self) -> Acknowledger:
        return self.transport.acknowledger()

    def bury(self, dead: list[tuple[Record, str]]) -> Iterable[tuple[str, tuple[str, int]]]:
        self._acknowledger.bury(dead)
        for record, reason in dead:
            metrics.dead_letters.labels(reason=reason.split(":", 1)[0]).inc()
            metrics.stream_events.labels(outcome="dead").inc()
            yield record.partition, (record.id, len(self.plan.specs))

    def write(self, batch: list[tuple[str, Written]]) -> Iterable[tuple[str, tuple[str, int]]]:
        by_view: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        for _, written in batch:
            by_view[written.view] |= written.states
        for view, states in by_view.items():
            self.plan.write(view, states)
        now = time.time()
        first = next(iter(self.plan.specs))
        for _, written in batch:
            metrics.state_overflow.labels(view=written.view).inc(written.overflowed)
            if written.view == first:
                metrics.stream_events.labels(outcome="applied").inc(written.added)
                metrics.stream_events.labels(outcome="duplicate").inc(len(written.records) - written.added)
            for record in written.records:
                metrics.feature_freshness.observe(max(now - record.appended_at / 1e6, 0.0))
                yield record.partition, (record.id, 1)


class _AckSink(DynamicSink[tuple[str, list[str]]]):
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition[Any]:
        return _AckPartition(self._transport.acknowledger())


class _AckPartition(StatelessSinkPartition[tuple[str, list[str]]]):
    def __init__(self, acknowledger: Acknowledger) -> None:
        self._acknowledger = acknowledger

    def write_batch(self, items: list[tuple[str, list[str]]]) -> None:
        for partition, ids in items:
            self._acknowledger.acknowledge(partition, ids)


def build_flow(transport: Transport, current: Settings, plan: Plan | None = None) -> Dataflow:
    """The dataflow from a transport's records to fresh features in the online store."""
    plan = plan or Plan(lambda: feature_store(current), STREAM_SOURCE)
    steps = _Steps(plan, transport)
    flow = Dataflow("velocity")
    records = op.input("records", flow, transport.source())
    # Record
    parsed = op.map("parse", records, lambda r: parse(r, current.allowed_lateness, current.max_future))
    # Event | (Record, reason)
    ways = op.branch("valid", parsed, lambda p: isinstance(p, Event))
    buried = op.flat_map_batch("bury", ways.falses, steps.bury)
    # (partition, (record id, views accounted for))
    sharded = op.flat_map_batch("fan out", ways.trues, lambda events: fan_out(plan, events))
    # (shard, (view, entity, Event))
    merged = op.stateful_batch("merge", sharded, lambda _: ShardLogic(plan))
    # (shard, Written)
    written = op.flat_map_batch("write online", merged, steps.write)
    # (partition, (record id, 1))
    accounted: KeyedStream[tuple[str, int]] = op.merge("accounted", buried, written)
    done = op.stateful_batch("count down", accounted, lambda _: _CountDown(lambda: len(plan.specs)))
    # (partition, [record id])
    op.output("acknowledge", done, _AckSink(transport))
    return flow


def transports(current: Settings, group: str) -> RedisStreams:
    """The embedded profile's transport for one consumer group."""
    return RedisStreams(current.redis_url, current.transactions_stream, group, current.dead_letter_stream)


flow = build_flow(transports(settings(), settings().consumer_group), settings())
write_history(flow, transports(settings(), f"{settings().consumer_group}.history"), settings())
